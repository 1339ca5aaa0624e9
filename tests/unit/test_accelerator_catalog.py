"""The accelerator catalogue: every file is whole, sourced, dense and read by the core; names resolve as typed."""

from __future__ import annotations

import datetime
import json
import math
import tomllib
from typing import TYPE_CHECKING

import pytest

from roofsim._core import Accelerator
from roofsim.catalog import accelerators
from roofsim.catalog.accelerators import DIRECTORY, accelerator_names, fold, read_accelerator
from roofsim.errors import SpecError

if TYPE_CHECKING:
    import pathlib

FILES = sorted(DIRECTORY.glob("*.toml"))
GIB, MIB = 1 << 30, 1 << 20

REQUIRED = [
    "a100-pcie-40gb",
    "a100-pcie-80gb",
    "a100-sxm-40gb",
    "a100-sxm-80gb",
    "a10",
    "a10g",
    "a30",
    "a40",
    "arc-pro-b60",
    "b200-sxm",
    "b300-sxm",
    "epyc-9654",
    "gaudi-2",
    "gaudi-3",
    "gb200",
    "gb300",
    "gh200",
    "gh200-144gb",
    "h100-nvl",
    "h100-pcie",
    "h100-sxm",
    "h20",
    "h200-sxm",
    "inferentia2",
    "l4",
    "l40s",
    "mi250x",
    "mi300x",
    "mi325x",
    "mi350x",
    "mi355x",
    "rtx-3090",
    "rtx-4090",
    "rtx-5090",
    "rtx-pro-6000",
    "t4",
    "tpu-v4",
    "tpu-v5e",
    "tpu-v5p",
    "tpu-v6e",
    "tpu7x",
    "trainium1",
    "trainium2",
    "v100-sxm-32gb",
    "xeon-8480",
]


def load(path: pathlib.Path) -> dict:
    return tomllib.loads(path.read_text(encoding="utf-8"))


every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def test_the_catalogue_holds_every_required_accelerator():
    assert set(REQUIRED) <= set(accelerator_names())
    assert accelerator_names() == sorted(accelerator_names())


@every_file
def test_a_file_is_named_after_its_accelerator(path):
    spec = load(path)
    assert spec["name"] == path.stem
    # The lookup of aliases reads this one line instead of the file.
    assert path.read_text(encoding="utf-8").count("\naliases = [") == 1
    assert tuple(spec["aliases"]) == accelerators._aliases()[path.stem]


@every_file
def test_every_value_has_a_source_and_a_date(path):
    spec = load(path)
    sources = spec["sources"]
    fields = {field for field in spec if field not in {"name", "aliases", "sources", "prices"}}
    covered = {field.split(".")[0] for field in sources}
    assert "*" in sources or fields <= covered
    # Capacity and links never share the document of the peaks: each says what it counts.
    assert "memory_bytes" in sources
    for table in ("link", "host_link", "network"):
        assert (table in sources) == (table in spec)
    for field in sources:
        top, _, key = field.partition(".")
        assert field == "*" or top in spec, f"{field} has a source and no value"
        assert not key or key in spec[top], f"{field} has a source and no value"


@every_file
def test_dates_are_not_in_the_future_of_the_catalogue(path):
    spec = load(path)
    latest = datetime.date(2026, 11, 24)
    for entry in [*spec["sources"].values(), *spec.get("prices", [])]:
        year_month_day = [*map(int, entry["date"].split("-")), 1, 1][:3]
        assert datetime.date(2018, 1, 1) <= datetime.date(*year_month_day) <= latest


@every_file
def test_the_core_reads_the_file_and_writes_it_back(path):
    text = read_accelerator(path)
    written = Accelerator.from_json(text).to_json()
    assert Accelerator.from_json(written).to_json() == written
    wanted = json.loads(text)
    for table in {"link", "host_link", "network"} & wanted.keys():
        wanted[table].setdefault("latency_s", 0.0)
    wanted.setdefault("prices", [])
    assert json.loads(written) == wanted


@every_file
def test_peaks_are_dense(path):
    # Each halving of the operand at most doubles the rate (733 over 362 on the L40S, 6 times in fp4 on the B300, which
    # traded other units for it); a sparse figure would double it once more.
    peaks = load(path)["peak_flops_per_s"]
    half = peaks.get("bf16", peaks.get("fp16"))
    assert half is not None
    for narrow in ("fp8", "int8"):
        # GeForce halves fp16, bf16 and fp8 with fp32 accumulate, and leaves int8 whole.
        geforce = narrow == "int8" and path.stem.startswith("rtx-") and path.stem != "rtx-pro-6000"
        assert peaks.get(narrow, 0.0) <= (4.01 if geforce else 2.03) * half
    assert (
        peaks.get("fp4", 0.0)
        <= (8.01 if path.stem == "rtx-5090" else 6.01 if path.stem in ("b300-sxm", "gb300") else 4.01) * half
    )


# Ridge points P / W in FLOP per byte, worked out by hand from the vendor's two published numbers.
BALANCE = {
    ("h100-sxm", "bf16"): 295.2,  # NVIDIA H100 datasheet (989.4 of 1,979 sparse; 3.35 TB/s)
    ("h100-sxm", "fp8"): 590.7,
    ("h100-pcie", "bf16"): 378.0,  # 756 / 2.0
    ("h200-sxm", "bf16"): 206.0,  # 989 / 4.8
    ("a100-sxm-80gb", "bf16"): 153.0,  # NVIDIA A100 datasheet: 312 / 2.039
    ("a100-sxm-40gb", "bf16"): 200.6,  # 312 / 1.555
    ("l4", "bf16"): 403.3,  # 121 / 0.3
    ("l40s", "bf16"): 419.0,  # 362 / 0.864
    ("rtx-4090", "bf16"): 163.9,  # Ada whitepaper, fp32 accumulate: 165.2 / 1.008
    ("b200-sxm", "bf16"): 292.2,  # 2,250 / 7.7
    ("mi300x", "bf16"): 246.6,  # AMD MI300X: 1,307 / 5.3
    ("tpu-v5e", "bf16"): 240.5,  # docs.cloud.google.com/tpu/docs/v5e: 197 / 0.819
    ("tpu-v5p", "bf16"): 166.0,  # 459 / 2.765
    ("tpu-v6e", "bf16"): 560.4,  # 918 / 1.638
    ("gb300", "bf16"): 312.5,  # 2,500 / 8
    ("tpu-v4", "bf16"): 229.2,  # docs.cloud.google.com/tpu/docs/v4: 275 / 1.2
    ("tpu7x", "bf16"): 312.6,  # docs.cloud.google.com/tpu/docs/tpu7x: 2,307 / 7.38
    ("mi350x", "bf16"): 288.4,  # 2,307 / 8
    ("trainium2", "bf16"): 230.0,  # AWS Neuron documentation: 667 / 2.9
}


@pytest.mark.parametrize(("name", "dtype"), BALANCE)
def test_balance_points(name, dtype):
    spec = json.loads(read_accelerator(name))
    balance = spec["peak_flops_per_s"][dtype] / spec["memory_bandwidth_bytes_per_s"]
    assert balance == pytest.approx(BALANCE[name, dtype], abs=0.05)


# What the driver shows; GB and GiB confused would be 7% off.
MEMORY = {
    "h100-sxm": 81559 * MIB,
    "h200-sxm": 143771 * MIB,  # not 141 GiB
    "a100-sxm-80gb": 81920 * MIB,
    "l4": 23034 * MIB,
    "l40s": 46068 * MIB,
    "mi300x": 206_141_652_992,
    "mi355x": 309_220_868_096,
    "b300-sxm": 288_400_343_040,
}


@pytest.mark.parametrize("name", MEMORY)
def test_memory_is_what_the_driver_reports(name):
    assert json.loads(read_accelerator(name))["memory_bytes"] == MEMORY[name]


def test_b200_memory_is_what_the_cuda_runtime_reports():
    assert json.loads(read_accelerator("b200-sxm"))["memory_bytes"] / GIB == pytest.approx(178.35, abs=0.005)


@pytest.mark.parametrize(
    ("name", "bandwidth", "num_devices", "topology"),
    [
        ("v100-sxm-32gb", 150e9, 8, "cube-mesh"),
        ("a100-sxm-80gb", 300e9, 8, "switch"),
        ("a100-pcie-80gb", 300e9, 2, "mesh"),
        ("h100-sxm", 450e9, 8, "switch"),
        ("h100-nvl", 300e9, 2, "mesh"),
        ("b200-sxm", 900e9, 8, "switch"),
        ("gb200", 900e9, 72, "switch"),
        ("mi250x", 200e9, 2, "mesh"),
        ("mi300x", 448e9, 8, "mesh"),
        ("mi355x", 535.5e9, 8, "mesh"),
        ("gaudi-2", 262.5e9, 8, "mesh"),
        ("gaudi-3", 525e9, 8, "mesh"),
        ("tpu-v4", 300e9, 4096, "torus"),
        ("tpu-v5e", 200e9, 256, "torus"),
        ("tpu-v5p", 600e9, 8960, "torus"),
        ("tpu7x", 600e9, 9216, "torus"),
        ("trainium2", 640e9, 16, "torus"),
    ],
)
def test_links_are_per_direction(name, bandwidth, num_devices, topology):
    link = json.loads(read_accelerator(name))["link"]
    assert (link["bandwidth_bytes_per_s"], link["num_devices"], link["topology"]) == (bandwidth, num_devices, topology)


@every_file
def test_every_link_says_how_it_is_wired(path):
    link = load(path).get("link")
    if link:
        assert link["topology"]
        # No board of fewer than eight has a switch, and bridges join pairs.
        assert link["topology"] != "switch" or link["num_devices"] >= 8
        assert math.prod(link.get("shape", [link["num_devices"]])) == link["num_devices"]


@pytest.mark.parametrize(
    "name", ["t4", "a10", "a10g", "arc-pro-b60", "l4", "l40s", "rtx-4090", "rtx-5090", "rtx-pro-6000"]
)
def test_cards_on_the_host_bus_have_no_link(name):
    spec = json.loads(read_accelerator(name))
    assert "link" not in spec
    # 16 GT/s x 16 lanes x 128/130 / 8 bits = 31.5e9 for gen4; gen3 is half, gen5 twice that.
    assert spec["host_link"]["bandwidth_bytes_per_s"] == pytest.approx(31.508e9, rel=1e-3) or spec["host_link"][
        "bandwidth_bytes_per_s"
    ] in {15.75e9, 63e9}


@pytest.mark.parametrize(("name", "absent"), [("v100-sxm-32gb", "bf16"), ("t4", "bf16"), ("tpu-v5e", "fp16")])
def test_no_peak_is_invented_for_a_missing_twin(name, absent):
    assert absent not in json.loads(read_accelerator(name))["peak_flops_per_s"]


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("h100-sxm", "h100-sxm"),
        ("H100", "h100-sxm"),
        ("h100-sxm5-80gb", "h100-sxm"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("H200", "h200-sxm"),
        ("A100-80G", "a100-sxm-80gb"),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm-80gb"),
        ("NVIDIA A100-SXM4-40GB", "a100-sxm-40gb"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie-80gb"),
        ("B200", "b200-sxm"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("rtx_5090", "rtx-5090"),
        ("Tesla T4", "t4"),
        ("AMD Instinct MI300X", "mi300x"),
        ("TPU v5e", "tpu-v5e"),
        ("Trillium", "tpu-v6e"),
        ("  l40s ", "l40s"),
    ],
)
def test_names_as_people_type_them(typed, name):
    assert json.loads(read_accelerator(typed))["name"] == name


def test_every_alias_leads_to_its_own_file_or_is_said_to_be_ambiguous():
    owners: dict[str, set[str]] = {}
    for name, aliases in accelerators._aliases().items():
        for alias in aliases:
            owners.setdefault(fold(alias), set()).add(name)
            assert fold(alias) == fold(name) or fold(alias) not in map(fold, accelerator_names())
    shared = {alias: names for alias, names in owners.items() if len(names) > 1}
    assert shared == {"a100": {"a100-sxm-40gb", "a100-sxm-80gb", "a100-pcie-40gb", "a100-pcie-80gb"}}


def refused(source) -> SpecError:
    with pytest.raises(SpecError) as caught:
        read_accelerator(source)
    return caught.value


def test_an_ambiguous_name_lists_what_it_could_mean():
    error = refused("A100")
    assert error.field == "accelerator"
    assert error.value == "'A100'"
    assert "a100-pcie-40gb, a100-pcie-80gb, a100-sxm-40gb, a100-sxm-80gb" in error.rule


@pytest.mark.parametrize(("typed", "near"), [("h1000", "h100-sxm"), ("rtx-4900", "rtx-4090"), ("mi300", "mi300x")])
def test_an_unknown_name_gives_the_nearest(typed, near):
    assert near in refused(typed).rule


@pytest.mark.parametrize("source", ["", "  ", "qqqqqqqq", "../h100-sxm", "x" * 100_000, "a\0b", "a\nb"])
def test_what_is_no_name_is_refused(source):
    assert refused(source).field == "accelerator"


@pytest.mark.parametrize("source", [None, 3, 3.5, b"h100-sxm", ["h100-sxm"], object()])
def test_other_types_are_refused(source):
    assert "must be a name, a path or a mapping" in refused(source).rule


MINE = """
name = "mine"
memory_bytes = 80e9
memory_bandwidth_bytes_per_s = 3e12
peak_flops_per_s.bf16 = 1e15
sources.power_w = { source = "a meter", date = 2026-05-20 }
"""


@pytest.mark.parametrize("kind", ["toml", "json", "mapping", "string"])
def test_a_spec_of_ones_own(tmp_path, kind):
    toml, json_file = tmp_path / "mine.toml", tmp_path / "mine.JSON"
    toml.write_text(MINE, encoding="utf-8")
    json_file.write_text(read_accelerator(toml), encoding="utf-8")
    source = {"toml": toml, "json": json_file, "mapping": tomllib.loads(MINE), "string": str(toml)}[kind]
    spec = json.loads(read_accelerator(source))
    assert spec["memory_bytes"] == 80e9
    assert spec["sources"]["power_w"]["date"] == "2026-05-20"
    assert json.loads(Accelerator.from_json(read_accelerator(source)).to_json())["family"] == "generic"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_refused_by_its_field(tmp_path, value):
    spec = {"name": "x", "link": {"latency_s": value}}
    assert refused(spec).field == "link.latency_s"
    path = tmp_path / "x.json"
    path.write_text(json.dumps(spec), encoding="utf-8")
    assert refused(path).field == "link.latency_s"
    path.write_text('{"prices": [{"usd_per_hour": 1e999}]}', encoding="utf-8")
    assert refused(path).field == "prices[0].usd_per_hour"


def test_what_json_cannot_hold_is_refused_by_its_field():
    assert refused({"name": "x", "prices": [object()]}).field == "prices[0]"
    assert refused({"name": "x", "link": {3: 4}}).field == "link"
    assert "as JSON" in refused({"memory_bytes": 10**6000}).rule
    endless: dict = {}
    endless["link"] = endless
    assert "nested too deeply" in refused(endless).rule


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("x.toml", None, "no such file"),
        ("x.toml", b"name = ", "must be valid TOML"),
        ("x.toml", b"name = 'a'\nname = 'b'", "must be valid TOML"),
        ("x.toml", b"a = " + b"[" * 50_000, "must be valid TOML"),
        ("x.toml", b"d = 2026-02-31", "must be valid TOML"),
        ("x.json", b"{", "must be valid JSON"),
        ("x.json", b"[" * 200_000, "must be valid JSON"),
        ("x.json", b"\xff\xfe", "not UTF-8"),
        ("x.json", b"{}\0", "binary"),
        ("x.json", b" " * ((1 << 20) + 1), "larger than"),
        ("x.yaml", b"name: x", "must end in .toml or .json"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, name, content, rule):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    error = refused(path)
    assert error.field == "accelerator"
    assert rule in error.rule


def test_a_directory_is_refused(tmp_path):
    (tmp_path / "x.json").mkdir()
    assert "directory" in refused(tmp_path / "x.json").rule
    assert refused(tmp_path).field == "accelerator"
