"""Steady state of continuous batching, from its definition: of every `output_tokens` steps, N are mixed."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from oracle.formats import up

if TYPE_CHECKING:
    from collections.abc import Callable

Requests = list[tuple[int, int]]


@dataclass
class Steady:
    ttft_s: Fraction
    tpot_s: Fraction
    itl_max_s: Fraction
    mixed_steps: int


def steady(step_s: Callable[[Requests], float], batch: int, inputs: int, outputs: int, budget: int) -> Steady | None:
    """None where the prompts do not fit between the decodes."""
    room = budget - batch
    if room <= 0:
        return None
    mixed_steps = up(batch * inputs, room)
    if mixed_steps > outputs:
        return None
    decodes = [(1, inputs + up(outputs, 2))] * batch
    whole, part = divmod(up(batch * inputs, mixed_steps), inputs)
    prompts = [(inputs, inputs)] * whole + ([(part, up(part + inputs, 2))] if part else [])
    mixed, pure = Fraction(step_s(decodes + prompts)), Fraction(step_s(decodes))
    mean = (mixed_steps * mixed + (outputs - mixed_steps) * pure) / outputs
    return Steady(up(inputs, room) * mixed, mean, mixed, mixed_steps)
