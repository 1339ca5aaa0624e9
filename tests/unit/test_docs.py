"""The documentation stays true: its Python runs, its folder map matches the tree, its arrows match the code."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """First line (from 0) and text of every fenced block of a language."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, m.start(2)), m[2]) for m in BLOCK.finditer(text) if m[1] == language]


def section(title: str) -> str:
    """The first fenced text block below a heading of ARCHITECTURE.md."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    _, _, below = text.partition(f"\n## {title}\n")
    found = re.search(r"^```text\n(.*?)^```$", below, re.MULTILINE | re.DOTALL)
    assert found, f"ARCHITECTURE.md has no text block under '{title}'"
    return found[1]


def mapped() -> dict[str, bool]:
    """Paths of the folder map and whether entries stand below them: two blanks of indent a level."""
    paths: dict[str, bool] = {}
    above: list[str] = []
    for line in section("Folder map").splitlines():
        match = re.fullmatch(r"( *)(\S+) {2,}(\S.*)", line)
        assert match, f"not `name  description`: {line!r}"
        depth = len(match[1]) // 2
        del above[depth:]
        if above:
            paths["".join(above)] = True
        path = "".join(above) + match[2]
        assert path not in paths, f"{path} stands twice"
        paths[path] = False
        if match[2].endswith("/"):
            above.append(match[2])
    return paths


def tracked() -> list[str]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("the list of files comes from git, and this is no git checkout")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [path for path in listing.split("\0") if path and (ROOT / path).exists()]


def test_python_blocks_are_found():
    # The index has none; the reports are generated.
    written = [
        page
        for page in PAGES
        if page.parent.name == "docs" and page.name not in {"README.md", "ACCURACY.md", "PROFILES.md"}
    ]
    assert all(blocks(page, "python") for page in written)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page):
    namespace: dict[str, object] = {"__name__": page.stem}
    for number, (line, source) in enumerate(blocks(page, "python"), start=1):
        if page == PAGES[0] and source.startswith(">>>"):
            continue  # a doctest, which test_doctests runs
        # Blank lines in front make a traceback point at the line of the page.
        try:
            exec(compile("\n" * line + source, str(page), "exec"), namespace)  # noqa: S102
        except Exception as error:
            error.add_note(f"{page.relative_to(ROOT)}: Python block {number}, which starts at line {line + 1}")
            raise


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    targets = [target for target in LINK.findall(text) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES[2:] if page.name != "README.md" and f"({page.name})" not in index] == []


def test_nothing_in_the_folder_map_is_absent():
    absent = [path for path in mapped() if not (ROOT / path).exists() or path.endswith("/") != (ROOT / path).is_dir()]
    assert absent == []


def test_the_folder_map_is_complete():
    """A file is listed itself, or lies in a folder that is listed without entries below it."""
    paths = mapped()
    closed = tuple(path for path, open_ in paths.items() if path.endswith("/") and not open_)
    assert [path for path in tracked() if path not in paths and not path.startswith(closed)] == []


def test_every_module_of_the_core_and_of_the_package_is_listed():
    """Code is listed file by file up to the third level: a whole subsystem never hides behind one line."""
    paths = mapped()
    source = ROOT / "rust" / "roofsim-core" / "src"
    folders = (source, ROOT / "rust" / "roofsim-py" / "src", ROOT / "python" / "roofsim")
    modules = [module for folder in folders for module in folder.glob("*")]
    names = [f"{m.relative_to(ROOT)}{'/' if m.is_dir() else ''}" for m in modules if m.suffix != ".so"]
    assert [name for name in names if "__pycache__" not in name and name not in paths] == []


def test_arrows_of_the_core_point_one_way():
    levels = {name: at for at, line in enumerate(section("Arrows").splitlines()) for name in line.split()}
    source = ROOT / "rust" / "roofsim-core" / "src"
    modules = {path.stem: [path] for path in source.glob("*.rs") if path.stem != "lib"}
    modules |= {path.name: sorted(path.rglob("*.rs")) for path in source.iterdir() if path.is_dir()}
    assert sorted(levels) == sorted(modules)
    used = {
        (name, other)
        for name, files in modules.items()
        for file in files
        for other in re.findall(r"\bcrate::([a-z_]+)", file.read_text(encoding="utf-8"))
        if other != name
    }
    assert {(name, other) for name, other in used if levels[other] >= levels[name]} == set()


def test_the_errors_of_the_readme_are_those_of_the_accuracy_report():
    spec = importlib.util.spec_from_file_location("make_images", ROOT / "docs" / "make_images.py")
    make_images = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_images)
    table = make_images.errors((ROOT / "docs" / "ACCURACY.md").read_text("utf-8"))
    assert table.count("**") == 2 * 2 * len(make_images.SHOWN)
    assert table in (ROOT / "README.md").read_text("utf-8")
