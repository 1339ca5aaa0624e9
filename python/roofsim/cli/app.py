"""The command group: which commands there are, and how refusals and interruptions leave the process."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import roofsim
from roofsim.cli import (
    calibrating,
    capacity,
    catalogue,
    levers,
    planning,
    regimes,
    reporting,
    step,
    sweeping,
    validating,
)
from roofsim.cli.display import complain
from roofsim.errors import RoofsimError


class Commands(TyperGroup):
    """Turns what `roofsim` raises on purpose into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except RoofsimError as error:
            complain(str(error))
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            complain("interrupted")
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Commands,
    help="A cost oracle for LLM inference: what a step costs, what limits it, how many sequences fit, where to serve.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"roofsim {roofsim.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _show: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


ON_70B = "-m llama-3.1-70b -a h100-sxm --tp 4"
COMMANDS = (
    (planning.plan, "-m llama-3.1-70b -a h100-sxm,mi300x --input-tokens 4000 --output-tokens 500 --tpot 0.03"),
    (step.step, f"{ON_70B} --batch-size 32 --context-tokens 4096"),
    (step.roofline, "-a h100-sxm --gemm 1x8192x8192 --gemm 8192x8192x8192"),
    (capacity.capacity, f"{ON_70B} --context-tokens 4096,131072"),
    (regimes.regimes, f"{ON_70B} --context-tokens 1024,131072"),
    (levers.levers, f"{ON_70B} --batch-size 32"),
    (sweeping.sweep, "-m llama-3.1-8b -a h100-sxm,l40s --batch-size 1:256 --top-k 3 --where fits"),
    (validating.validate, "--quick --output measured.jsonl.gz"),
    (calibrating.calibrate, "measured.jsonl.gz --output mine.json"),
    (reporting.report, "measured.jsonl.gz --output errors.md"),
    (catalogue.models, "llama-3.1-70b"),
    (catalogue.accelerators, "mi300x"),
)
"""Every command with the arguments of the example at the end of its help."""

for command, example in COMMANDS:
    app.command(epilog=f"Example: roofsim {command.__name__} {example}")(command)
