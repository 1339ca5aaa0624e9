"""What numbers cost to store and to multiply. Sizes in bits; scales per tensor, channel, block or group."""

from __future__ import annotations

from fractions import Fraction

BITS = {
    "fp32": 32, "tf32": 32, "bf16": 16, "fp16": 16, "fp8": 8, "fp8-channel": 8, "fp8-block": 8, "int8": 8,
    "int4": 4, "int4-g32": 4, "mxfp4": 4, "nvfp4": 4, "fp4": 4,
}  # fmt: skip
PLAIN = ("fp32", "bf16", "fp16")


def up(a: int, b: int) -> int:
    """Ceiling of a / b."""
    return -(-a // b)


def scale_bytes(fmt: str, n: int, k: int) -> int:
    """Bytes of the scales of n outputs by k inputs."""
    if fmt in PLAIN:
        return 0
    return {
        "fp8": 4,  # one fp32 a tensor
        "fp8-channel": 4 * n,  # one fp32 an output
        "int8": 4 * n,
        "fp8-block": 4 * up(n, 128) * up(k, 128),  # one fp32 for 128 x 128
        "int4": 2 * n * up(k, 128),  # one bf16 for 128 inputs
        "int4-g32": 2 * n * up(k, 32),
        "mxfp4": n * up(k, 32),  # one 8-bit exponent for 32 inputs
        "nvfp4": n * up(k, 16) + 4,  # one fp8 for 16 inputs, one fp32 a tensor
    }[fmt]


def tensor_bytes(fmt: str, n: int, k: int = 1) -> int:
    """Stored bytes of n by k, scales included."""
    return up(n * k * BITS[fmt], 8) + scale_bytes(fmt, n, k)


def multiplied_as(fmt: str, own: str) -> str:
    """Operand type of the matrix units: 8-bit and NVFP4 quantise activations too, other 4-bit formats do not."""
    if fmt.startswith("fp8"):
        return "fp8"
    return {"int8": "int8", "nvfp4": "fp4", "int4": own, "int4-g32": own, "mxfp4": own}.get(fmt, fmt)


def kv_bytes(fmt: str) -> int:
    """Bytes of one cached element."""
    return {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "int8": 1}[fmt]


def activation_bytes(elements: int, dtype: str) -> Fraction:
    """Bytes of activations that move at their own width."""
    return Fraction(elements * BITS[dtype], 8)
