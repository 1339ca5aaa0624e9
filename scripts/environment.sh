# Sourced by the other scripts: enters the repository, finds Rust and Python, makes .venv once and keeps it up to date.
# Debian's system pip refuses to install, so nothing is ever installed outside .venv.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

if ! command -v cargo >/dev/null && [ -f "$HOME/.cargo/env" ]; then
    . "$HOME/.cargo/env"
fi
command -v cargo >/dev/null || fail "cargo not found: install Rust 1.89 or later"

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

if [ ! -x .venv/bin/python ]; then
    for python in "${PYTHON:-python3.11}" python3 python3.13 python3.12; do
        if command -v "$python" >/dev/null && is_recent "$python"; then break; fi
        python=""
    done
    [ -n "$python" ] || fail "no Python 3.11 or later found; set PYTHON=/path/to/python"
    say "making .venv with $($python --version)"
    "$python" -m venv .venv || fail "$python cannot make a virtual environment (on Debian: apt install python3-venv)"
fi
is_recent .venv/bin/python || fail ".venv holds a Python older than 3.11: remove it and run again"
. .venv/bin/activate
export PIP_DISABLE_PIP_VERSION_CHECK=1

# Installs dependency groups of pyproject.toml, once per version of that file.
need() {
    local group stamp
    for group in "$@"; do
        stamp=".venv/.roofsim-$group-$(cksum <pyproject.toml | tr ' ' '-')"
        [ -e "$stamp" ] && continue
        say "installing what '$group' needs into .venv"
        # `--group` came with pip 25.1.
        python -c 'import pip, sys; sys.exit(tuple(map(int, pip.__version__.split(".")[:2])) < (25, 1))' ||
            pip install --quiet --upgrade 'pip>=25.1'
        pip install --quiet --group "$group"
        rm -f ".venv/.roofsim-$group-"*
        touch "$stamp"
    done
}

# Builds the compiled core and installs the package, editable. Cargo does nothing where nothing changed.
build() {
    need build
    say "building roofsim"
    maturin develop --release --quiet "$@"
}
