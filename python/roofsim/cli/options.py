"""Options that several commands share, and the reading of lists and ranges."""

from typing import Annotated, Any

import typer

from roofsim.errors import SpecError

LAYOUT, FORMATS, MEMORY, LAWS, OUTPUT = "Layout", "Formats", "Memory", "Laws", "Output"

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program.", rich_help_panel=OUTPUT)]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="Catalogue name, Hugging Face id, config.json or its directory.", show_default=False
    ),
]
AcceleratorOption = Annotated[
    str, typer.Option("--accelerator", "-a", help="Catalogue name or spec file (.toml, .json).", show_default=False)
]
TensorOption = Annotated[int, typer.Option("--tensor-parallel-size", "--tp", rich_help_panel=LAYOUT)]
PipelineOption = Annotated[int, typer.Option("--pipeline-parallel-size", "--pp", rich_help_panel=LAYOUT)]
DataOption = Annotated[int, typer.Option("--data-parallel-size", "--dp", rich_help_panel=LAYOUT)]
ExpertOption = Annotated[int, typer.Option("--expert-parallel-size", "--ep", rich_help_panel=LAYOUT)]
WeightOption = Annotated[
    str, typer.Option("--weight-dtype", help="Storage of the weights; auto is as published.", rich_help_panel=FORMATS)
]
KvOption = Annotated[
    str,
    typer.Option("--kv-cache-dtype", help="Storage of the KV cache; auto is as published.", rich_help_panel=FORMATS),
]
MEMORY_RULES = {"runtime": "as vLLM allocates it", "ideal": "in closed form"}
"""How memory is counted, by ``--capacity-mode``."""
CALIBRATION_WORDS = (
    "sustained (unbroken load), ideal, a kernel library (torch, tensorrt-llm, vllm, sglang), or the name or file of a "
    "calibration"
)
CalibrationOption = Annotated[
    str,
    typer.Option(
        "--calibration",
        help=f"calibrated, {CALIBRATION_WORDS}.",
        rich_help_panel=LAWS,
    ),
]
EngineOption = Annotated[str, typer.Option("--engine", help="ideal or vllm.", rich_help_panel=LAWS)]
UtilizationOption = Annotated[
    float,
    typer.Option("--gpu-memory-utilization", help="Share of device memory the engine may use.", rich_help_panel=MEMORY),
]
CapacityModeOption = Annotated[
    str,
    typer.Option(
        "--capacity-mode", help="ideal (closed form) or runtime (what vLLM allocates).", rich_help_panel=MEMORY
    ),
]
BlockOption = Annotated[int, typer.Option("--block-size", help="Tokens of one KV block.", rich_help_panel=MEMORY)]
BudgetOption = Annotated[
    int, typer.Option("--max-num-batched-tokens", help="Rows that one step may hold.", rich_help_panel=MEMORY)
]
SequencesOption = Annotated[
    int, typer.Option("--max-num-seqs", help="Sequences that one step may hold.", rich_help_panel=MEMORY)
]


def words(texts: list[str]) -> list[str]:
    """Split comma-separated lists, given once or several times.

    Examples
    --------
    >>> words(["h100-sxm, h200-sxm", "mi300x"])
    ['h100-sxm', 'h200-sxm', 'mi300x']
    """
    return [word for text in texts for word in (part.strip() for part in text.split(",")) if word]


def counts(field: str, texts: list[str]) -> range | list[int]:
    """Read whole numbers: lists ``1,2,4`` and ranges ``start:stop`` or ``start:stop:step``, the stop included.

    One range stays a range, whatever its length.

    Examples
    --------
    >>> counts("batch_size", ["1,2,4"]), counts("context_tokens", ["256:131072:256"])
    ([1, 2, 4], range(256, 131073, 256))
    """
    parts = [_range(field, word) for word in words(texts)]
    if len(parts) == 1:
        return parts[0] if len(parts[0]) > 1 else list(parts[0])
    return [value for part in parts for value in part]


def _range(field: str, word: str) -> range:
    rule = "must be whole numbers: a list like 1,2,4 or a range start:stop:step (stop included)"
    numbers = word.split(":")
    if len(numbers) > 3 or not all(text.isascii() and text.removeprefix("-").isdigit() for text in numbers):
        raise SpecError(field, word, rule)
    if any(len(text) > 19 for text in numbers):
        raise SpecError(field, word, "must be below 2^63")
    start, stop, step = [*map(int, numbers), 1][:3] if len(numbers) > 1 else (int(word), int(word), 1)
    if step < 1:
        raise SpecError(field, word, "the step of a range must be at least 1")
    if stop < start:
        raise SpecError(field, word, "a range must not end before it starts")
    return range(start, stop + 1, step)


def shares(field: str, texts: list[str]) -> list[float]:
    """Read a list of numbers."""
    try:
        return [float(word) for word in words(texts)]
    except ValueError:
        raise SpecError(field, ",".join(texts), "must be numbers, like 0.8,0.9") from None


def prices(texts: list[str]) -> dict[str, float]:
    """Read ``name=usd_per_hour`` pairs.

    Examples
    --------
    >>> prices(["h100-sxm=2.5,mi300x=1.8"])
    {'h100-sxm': 2.5, 'mi300x': 1.8}
    """
    found: dict[str, float] = {}
    for word in words(texts):
        name, _, usd = word.partition("=")
        try:
            found[name.strip()] = float(usd)
        except ValueError:
            raise SpecError("price", word, "must be name=dollars for one device-hour, like h100-sxm=2.50") from None
    return found


def layout_arguments(tensor: int, pipeline: int, data: int, expert: int) -> dict[str, Any]:
    """Name the four parallel sizes."""
    return {
        "tensor_parallel_size": tensor,
        "pipeline_parallel_size": pipeline,
        "data_parallel_size": data,
        "expert_parallel_size": expert,
    }
