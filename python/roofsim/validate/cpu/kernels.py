"""NumPy kernels and their float64 references."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = [
    "attention",
    "attention_reference",
    "elementwise",
    "grouped_matmul",
    "relative_error",
    "rms_norm",
    "rotary",
    "silu_mul",
]

Array = npt.NDArray[np.floating]


def relative_error(value: Array, reference: Array) -> float:
    """Return the Frobenius norm of the difference over the reference's."""
    difference = np.linalg.norm(np.asarray(value, dtype=np.float64) - reference)
    return float(difference / max(float(np.linalg.norm(reference)), 1e-300))


def attention(query: Array, key: Array, value: Array) -> Array:
    """Causal attention, aligned to the last key; query [B, K, G, T, h], key and value [B, K, S, h].

    The query group is packed as rows against the shared K and V of its KV head.
    """
    batch, kv_heads, group, rows, width = query.shape
    context = key.shape[2]
    packed = query.reshape(batch, kv_heads, group * rows, width)
    scores = packed @ key.swapaxes(2, 3) / np.asarray(np.sqrt(width), dtype=query.dtype)
    if rows > 1:
        allowed = np.arange(context)[None, :] <= np.arange(rows)[:, None] + (context - rows)
        scores = np.where(np.tile(allowed, (group, 1)), scores, -np.inf)
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return (scores @ value).reshape(query.shape)


def attention_reference(query: Array, key: Array, value: Array) -> Array:
    """Compute the same in float64, one query row at a time."""
    q, k, v = (np.asarray(x, dtype=np.float64) for x in (query, key, value))
    out = np.empty_like(q)
    rows, context = q.shape[3], k.shape[2]
    for i in range(rows):
        seen = context - rows + i + 1
        scores = np.einsum("bkgh,bksh->bkgs", q[:, :, :, i], k[:, :, :seen]) / np.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        out[:, :, :, i] = np.einsum("bkgs,bksh->bkgh", weights, v[:, :, :seen])
    return out


def grouped_matmul(x: Array, w: Array, counts: npt.NDArray[np.integer]) -> Array:
    """Multiply the rows of each expert by that expert's weights.

    Parameters
    ----------
    x
        [rows, k], sorted by expert.
    w
        [experts, n, k].
    counts
        Rows of each expert.
    """
    out = np.empty((x.shape[0], w.shape[1]), dtype=x.dtype)
    ends = np.cumsum(counts)
    for expert in np.flatnonzero(counts):
        rows = slice(ends[expert] - counts[expert], ends[expert])
        np.matmul(x[rows], w[expert].T, out=out[rows])
    return out


def rms_norm(x: Array, weight: Array) -> Array:
    """RMSNorm over the last axis."""
    scale = 1 / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + np.asarray(1e-6, dtype=x.dtype))
    return np.asarray(x * scale * weight)


def silu_mul(x: Array) -> Array:
    """SiLU of the first half of the last axis times its second half."""
    gate, up = np.split(x, 2, axis=-1)
    return np.asarray(gate / (1 + np.exp(-gate)) * up)


def rotary(x: Array, cos: Array, sin: Array) -> Array:
    """Rotate the two halves of each head; x [rows, heads, h], cos and sin [rows, h/2]."""
    first, second = np.split(x, 2, axis=-1)
    c, s = cos[:, None, :], sin[:, None, :]
    return np.concatenate([first * c - second * s, second * c + first * s], axis=-1)


def elementwise(op: str, x: Array, other: Array, table: Array, ids: npt.NDArray[np.int64]) -> Array:
    """Run one element-wise operation of the plan by name.

    Parameters
    ----------
    op
        Name of the operation.
    x, other
        Activations of the operation's input shape.
    table
        Norm weight (first row), embedding table, or rotary angles.
    ids
        Gathered rows.
    """
    if op == "rms_norm":
        return rms_norm(x, table[0])
    if op == "add_rms_norm":
        return rms_norm(x + other, table[0])
    if op == "silu_mul":
        return silu_mul(x)
    if op == "rotary":
        heads = x.reshape(x.shape[0], -1, 128)
        angles = table[: x.shape[0], :64]
        return rotary(heads, np.cos(angles), np.sin(angles)).reshape(x.shape)
    if op == "residual_add":
        return np.asarray(x + other)
    if op == "embedding":
        return np.asarray(table[ids])
    raise ValueError(f"op = {op!r}: is no element-wise operation")
