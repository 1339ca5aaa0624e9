"""The Triton kernels of a whole step, to be compiled ahead: the same calls as the step's, on tensors without memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..architectures import ARCHITECTURES, Architecture
from ..plan_quick import QUICK_WAVES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..points import Point

__all__ = ["step_launches"]

MULTIPROCESSORS = 132


def step_launches(torch: Any, point: Point, quick: bool) -> Iterator[Callable[[], Any]]:
    """Yield calls of the kernels that a step runs, of each attention kernel and expert tile that it may choose too."""
    a = ARCHITECTURES[point.text("model")]
    batch, query, context = (point.integer(name) for name in ("batch_size", "query_tokens", "context_tokens"))
    rows = batch * query
    fp8 = point.text("dtype") == "fp8"
    yield from _between_products(torch, a, rows, fp8=fp8)
    yield from _rotary(torch, a, batch, rows, context)
    if query == 1:
        yield from _decode(torch, a, batch, context, quick=quick)
    if a.num_experts:
        yield from _experts(torch, a, rows)


def _empty(torch: Any, *shape: int, dtype: Any = None) -> Any:
    return torch.empty(shape, dtype=dtype or torch.bfloat16, device="meta")


def _between_products(torch: Any, a: Architecture, rows: int, *, fp8: bool) -> Iterator[Callable[[], Any]]:
    from .transformer import ACTIVATION_SCALE
    from .triton_elementwise import add_rms_norm, embedding, rms_norm, silu_mul
    from .triton_quantise import quantise

    narrow = torch.float8_e4m3fn if fp8 else torch.bfloat16
    x, gain = _empty(torch, rows, a.hidden_size), _empty(torch, a.hidden_size)
    out = _empty(torch, rows, a.hidden_size, dtype=narrow)
    table, ids = _empty(torch, a.vocab_size, a.hidden_size), _empty(torch, rows, dtype=torch.int64)
    yield lambda: embedding(table, ids, x)
    yield lambda: rms_norm(x, gain, out, ACTIVATION_SCALE)
    yield lambda: add_rms_norm(x, x, gain, out, ACTIVATION_SCALE)
    yield lambda: add_rms_norm(x, x, gain, x)
    if not a.num_experts:
        wide = _empty(torch, rows, 2 * a.intermediate_size)
        half = _empty(torch, rows, a.intermediate_size, dtype=narrow)
        yield lambda: silu_mul(wide, half, ACTIVATION_SCALE)
    if fp8:
        mixed = _empty(torch, rows, a.num_attention_heads * a.head_dim)
        eight = _empty(torch, rows, a.num_attention_heads * a.head_dim, dtype=narrow)
        yield lambda: quantise(mixed, eight, ACTIVATION_SCALE)


def _rotary(torch: Any, a: Architecture, batch: int, rows: int, context: int) -> Iterator[Callable[[], Any]]:
    from .triton_step import rotary_cache

    heads, kv_heads, width = a.num_attention_heads, a.num_key_value_heads, a.head_dim
    qkv, query = _empty(torch, rows, (heads + 2 * kv_heads) * width), _empty(torch, rows, heads * width)
    gains = _empty(torch, {"none": 1, "head": 2, "row": heads + kv_heads}[a.qk_norm], width)
    angles = _empty(torch, context, width // 2, dtype=torch.float32)
    key = _empty(torch, batch, kv_heads, context, width)
    yield lambda: rotary_cache(qkv, gains, angles, angles, query, key, key, norm_kind=a.qk_norm)


def _decode(torch: Any, a: Architecture, batch: int, context: int, *, quick: bool) -> Iterator[Callable[[], Any]]:
    from .decode import split_counts
    from .triton_attention import DECODE_CONFIGS, decode_split

    kv_heads, width = a.num_key_value_heads, a.head_dim
    query = _empty(torch, batch, kv_heads, a.num_attention_heads // kv_heads, width)
    key = _empty(torch, batch, kv_heads, context, width)
    counts = split_counts(MULTIPROCESSORS, batch * kv_heads, context)[: QUICK_WAVES if quick else None]
    for config in DECODE_CONFIGS[width]:
        for splits in counts:
            yield lambda config=config, splits=splits: decode_split(query, key, key, splits, config)  # type: ignore[misc]


def _experts(torch: Any, a: Architecture, rows: int) -> Iterator[Callable[[], Any]]:
    from .triton_elementwise import silu_mul
    from .triton_moe import combine, empty_tiles, gather_rows, grouped_matmul, route, sort_rows, tile_configs

    top, experts, d, width = a.num_experts_per_tok, a.num_experts, a.hidden_size, a.intermediate_size
    slots = rows * top

    def integers(*shape: int) -> Any:
        return _empty(torch, *shape, dtype=torch.int32)

    scores, shares = (_empty(torch, rows, size, dtype=torch.float32) for size in (experts, top))
    ids, counts, ends, source = integers(rows, top), integers(experts), integers(experts), integers(slots)
    x, permuted = _empty(torch, rows, d), _empty(torch, slots, d)
    wide, half = _empty(torch, slots, 2 * width), _empty(torch, slots, width)
    gate_up, down = _empty(torch, experts, 2 * width, d), _empty(torch, experts, d, width)
    yield lambda: route(scores, ids, shares, ids, counts)
    yield lambda: gather_rows(x, source, permuted)
    yield lambda: silu_mul(wide, half)
    yield lambda: combine(permuted, ids, shares, x)
    sizes = [tile_configs(slots / min(experts, slots)), tile_configs(4.0)[:1], tile_configs(100.0)[:1]]
    for tile in dict.fromkeys(tile for group in sizes for tile in group):
        tiles = empty_tiles(slots, experts, tile.rows, torch.device("meta"))
        yield lambda tile=tile, tiles=tiles: sort_rows(ids, ids, counts, source, ids, ends, tiles, tile.rows)  # type: ignore[misc]
        yield lambda tile=tile, tiles=tiles: grouped_matmul(x, gate_up, wide, source, tiles, tile)  # type: ignore[misc]
        yield lambda tile=tile, tiles=tiles: grouped_matmul(half, down, permuted, None, tiles, tile)  # type: ignore[misc]
    # Torch's own kernel is handed tiles of 64 rows.
    whole = empty_tiles(slots, experts, 64, torch.device("meta"))
    yield lambda: sort_rows(ids, ids, counts, source, ids, ends, whole, 64)
