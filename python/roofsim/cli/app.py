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


for command in (
    planning.plan,
    step.step,
    step.roofline,
    capacity.capacity,
    regimes.regimes,
    levers.levers,
    sweeping.sweep,
    validating.validate,
    calibrating.calibrate,
    reporting.report,
    catalogue.models,
    catalogue.accelerators,
):
    app.command()(command)
