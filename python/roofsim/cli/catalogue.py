"""`roofsim models` and `roofsim accelerators`."""

import json
from typing import Annotated, Any

import typer
from rich.text import Text

import roofsim
from roofsim.catalog import accelerator_names, model_names
from roofsim.cli import options as shared
from roofsim.cli.display import (
    Column,
    gigabytes,
    note_dropped,
    number,
    print_json,
    print_pairs,
    print_table,
    scaled,
    significant,
    stdout,
)
from roofsim.prices import PRICE_KINDS


def models(
    name: Annotated[str | None, typer.Argument(help="One model in full: a name or a config.json.")] = None,
    as_json: shared.JsonOption = False,
) -> None:
    """List the models in the box, or show one."""
    if name is not None:
        _show_model(roofsim.Model.load(name), as_json)
        return
    loaded = [roofsim.Model.load(each) for each in model_names()]
    if as_json:
        print_json([_model_fields(model) for model in loaded])
        return
    columns = [
        Column("model"),
        Column("architecture", 3),
        number("parameters"),
        number("active", 1),
        number("weights"),
        number("KV bytes/token", 1),
        number("max context", 2),
    ]
    rows = [
        [
            model.name,
            model.architecture,
            scaled(model.num_parameters),
            scaled(model.num_active_parameters),
            gigabytes(model.weight_bytes()),
            f"{model.kv_bytes_per_token('auto'):,}",
            "-" if model.max_context_tokens is None else f"{model.max_context_tokens:,}",
        ]
        for model in loaded
    ]
    console = stdout()
    note_dropped(console, print_table(console, columns, rows))


def accelerators(
    name: Annotated[str | None, typer.Argument(help="One accelerator in full: a name or a spec file.")] = None,
    as_json: shared.JsonOption = False,
) -> None:
    """List the accelerators in the box, or show one with the source of every value."""
    if name is not None:
        _show_accelerator(roofsim.Accelerator.load(name), as_json)
        return
    loaded = [roofsim.Accelerator.load(each) for each in accelerator_names()]
    if as_json:
        print_json([json.loads(device.to_json()) for device in loaded])
        return
    columns = [
        Column("accelerator"),
        Column("vendor", 7),
        Column("family", 6),
        Column("links", 2),
        number("link\nGB/s", 7),
        number("memory"),
        number("GB/s"),
        number("bf16\nTFLOP/s"),
        number("fp8\nTFLOP/s", 4),
        number("ridge\nFLOP/B", 5),
        number("W", 8),
        *(number(f"$/h\n{kind}", rank) for rank, kind in enumerate(PRICE_KINDS, 6)),
    ]
    rows = []
    for device in loaded:
        peaks = device.peak_flops_per_s
        rows.append(
            [
                device.name,
                device.vendor,
                device.family,
                *_links(json.loads(device.to_json())),
                gigabytes(device.memory_bytes),
                f"{device.memory_bandwidth_bytes_per_s / 1e9:,.0f}",
                _teraflops(peaks.get("bf16")),
                _teraflops(peaks.get("fp8")),
                significant(device.balance("bf16")) if "bf16" in peaks else "-",
                "-" if device.power_w is None else f"{device.power_w:.0f}",
                *("-" if (usd := device.usd_per_hour(kind)) is None else f"{usd:.2f}" for kind in PRICE_KINDS),
            ]
        )
    console = stdout()
    note_dropped(console, print_table(console, columns, rows))


def _links(spec: dict[str, Any]) -> tuple[str, str]:
    """How many devices meet over which kind of link, and its rate a direction."""
    link = spec.get("link") or spec.get("host_link")
    if link is None:
        return "-", "-"
    wiring = _wiring(link) if "topology" in link else f"bus of {link['num_devices']}"
    return wiring, f"{link['bandwidth_bytes_per_s'] / 1e9:,.0f}"


def _wiring(link: dict[str, Any]) -> str:
    """Topology and size: `switch of 8`, `torus of 16x16`, `pair`."""
    if "shape" in link:
        return f"{link['topology']} of {'x'.join(map(str, link['shape']))}"
    if link["num_devices"] == 2:
        return "pair"
    return f"{link['topology']} of {link['num_devices']}"


def _teraflops(peak: float | None) -> str:
    return "-" if peak is None else f"{peak / 1e12:,.0f}"


def _model_fields(model: roofsim.Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "architecture": model.architecture,
        "num_parameters": model.num_parameters,
        "num_active_parameters": model.num_active_parameters,
        "weight_bytes": model.weight_bytes(),
        "kv_cache_dtype": model.kv_cache_dtype,
        "kv_bytes_per_token": model.kv_bytes_per_token("auto"),
        "state_bytes": model.state_bytes(),
        "hidden_size": model.hidden_size,
        "vocab_size": model.vocab_size,
        "num_layers": model.num_layers,
        "max_context_tokens": model.max_context_tokens,
        "dtype": model.dtype,
        "layers": model.layers,
    }


def _show_model(model: roofsim.Model, as_json: bool) -> None:
    fields = _model_fields(model)
    if as_json:
        print_json(fields)
        return
    console = stdout()
    layers = fields.pop("layers")
    print_pairs(console, [(name, f"{v:,}" if isinstance(v, int) else str(v)) for name, v in fields.items()])
    console.print()
    columns = [
        number("layers"),
        Column("mixer"),
        number("window", 1),
        Column("feed-forward"),
        Column("mixer dtype", 2),
        Column("feed-forward dtype", 2),
    ]
    rows = [
        [
            str(layer["count"]),
            layer["mixer"],
            "-" if layer["window"] is None else f"{layer['window']:,}",
            layer["feed_forward"],
            layer["mixer_dtype"],
            layer["feed_forward_dtype"],
        ]
        for layer in layers
    ]
    note_dropped(console, print_table(console, columns, rows))


def _show_accelerator(device: roofsim.Accelerator, as_json: bool) -> None:
    spec = json.loads(device.to_json())
    if as_json:
        print_json(spec)
        return
    console = stdout()
    pairs = [
        ("name", device.name),
        ("vendor, family", f"{device.vendor}, {device.family}"),
        ("compute units", "unknown" if device.num_compute_units is None else f"{device.num_compute_units:,}"),
        ("memory", f"{gigabytes(device.memory_bytes)} ({device.memory_bytes:,} bytes)"),
        ("bandwidth", scaled(device.memory_bandwidth_bytes_per_s, "B/s")),
        ("power", "unknown" if device.power_w is None else f"{device.power_w:.0f} W"),
    ]
    for link in ("link", "host_link", "network"):
        if link in spec:
            found = spec[link]
            reach = f"{found['num_devices']} devices" if "num_devices" in found else "any number of devices"
            if "topology" in found:
                reach = _wiring(found)
            pairs.append((link, f"{scaled(found['bandwidth_bytes_per_s'], 'B/s')} per direction, {reach}"))
    print_pairs(console, pairs)
    console.print()
    print_table(
        console,
        [Column("dtype"), number("dense peak"), number("ridge FLOP/B")],
        [[d, scaled(p, "FLOP/s"), significant(device.balance(d))] for d, p in device.peak_flops_per_s.items()],
    )
    console.print()
    if spec["prices"]:
        columns = [number("$/h"), Column("kind"), Column("provider", folds=True), Column("date", 1)]
        keys = ("kind", "provider", "date")
        print_table(console, columns, [[f"{p['usd_per_hour']:.2f}", *(p[key] for key in keys)] for p in spec["prices"]])
        console.print()
    for field, source in spec["sources"].items():
        named = "source" if field == "*" else field
        console.print(Text.assemble((named, "bold"), f": {source['source']} ({source['date']})"))
