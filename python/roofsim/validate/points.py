"""A measurement point, its identity, and the seeded order in which points are measured."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Point", "Scalar", "class_of", "interleave", "rounds", "thin", "unique"]

Scalar = int | float | str | bool | None


@dataclass(frozen=True)
class Point:
    """One thing to measure.

    Parameters
    ----------
    family
        Name of the operation family ("gemm", "decode_attention", ...).
    params
        What defines the operation: sizes, formats, layouts. They are the identity of the point.
    labels
        Where the point comes from (model, shape group); carried into the record, no part of the identity.
    """

    family: str
    params: Mapping[str, Scalar]
    labels: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def point_id(self) -> str:
        """Short stable hash of family and parameters: the key by which a resumed run skips a point."""
        text = json.dumps([self.family, dict(self.params)], sort_keys=True)
        return hashlib.blake2s(text.encode(), digest_size=8).hexdigest()

    def integer(self, name: str) -> int:
        """Return a parameter that must be an integer."""
        value = self.params[name]
        if not isinstance(value, int):
            raise TypeError(f"{self.family}.{name} = {value!r}: must be an integer")
        return value

    def text(self, name: str) -> str:
        """Return a parameter as text."""
        return str(self.params[name])


def unique(points: Iterable[Point]) -> list[Point]:
    """Drop later points of the same identity."""
    seen: dict[str, Point] = {}
    for point in points:
        seen.setdefault(point.point_id, point)
    return list(seen.values())


def thin(points: Sequence[Point], count: int, rng: random.Random) -> list[Point]:
    """Return `count` points, spread evenly over the shape groups and drawn at random within each group."""
    groups: dict[object, list[Point]] = {}
    for point in points:
        groups.setdefault(point.labels.get("shape_group"), []).append(point)
    for members in groups.values():
        rng.shuffle(members)
    order = list(groups.values())
    rng.shuffle(order)
    taken: list[Point] = []
    while len(taken) < count and any(order):
        for members in order:
            if members and len(taken) < count:
                taken.append(members.pop())
    return taken


def interleave(families: Mapping[str, Sequence[Point]], rng: random.Random) -> list[Point]:
    """Shuffle each family and merge them evenly, so that any prefix of the order is balanced.

    Points of the family "system" come first: the constants that everything else leans on, and the idle power, which
    is only idle before the device is warm. Collectives come last, since one measures all of them. Steps keep their
    order and stay together by shape group, that is by model: a model's weights are drawn once.
    """
    placed: list[tuple[float, str, int, Point]] = []
    for family in sorted(families):
        members = list(families[family])
        if family == "system":
            placed += [(-1.0, family, i, point) for i, point in enumerate(members)]
            continue
        if family == "collective":
            placed += [(2.0, family, i, point) for i, point in enumerate(members)]
            continue
        if family == "step":
            blocks = list(dict.fromkeys(point.labels.get("shape_group") for point in members))
            at = {block: (i + 0.5) / len(blocks) for i, block in enumerate(blocks)}
            placed += [(at[point.labels.get("shape_group")], family, i, point) for i, point in enumerate(members)]
            continue
        rng.shuffle(members)
        placed += [((i + 0.5) / len(members), family, i, point) for i, point in enumerate(members)]
    placed.sort(key=lambda item: item[:3])
    return [point for *_, point in placed]


def class_of(point: Point) -> str:
    """Return the class that a fit puts the point in: family and operand type."""
    dtype = point.params.get("dtype")
    return point.family if dtype is None else f"{point.family}.{dtype}"


FIRST_STEPS, STEPS_APART = 2, 5


def rounds(families: Mapping[str, Sequence[Point]]) -> list[Point]:
    """Merge families so that a run cut short holds as many points of each class as of any other.

    Each round takes the next point of every class; those of a class stay in the order in which they came, which
    `thin` made the most telling first. Classes of few points are the dear ones: they are done early, and what a short
    budget cuts off is the last of the cheap ones. System points come first and collectives last; all steps of a model
    are one turn, since its weights are drawn once.
    """
    classes: dict[str, list[list[Point]]] = {}
    for family in sorted(families):
        for point in families[family]:
            group = point.labels.get("shape_group")
            turns = classes.setdefault("step" if family == "step" else class_of(point), [])
            if family == "step" and turns and turns[-1][-1].labels.get("shape_group") == group:
                turns[-1].append(point)
            else:
                turns.append([point])
    placed: list[tuple[float, int, list[Point]]] = []
    for order, (name, turns) in enumerate(classes.items()):
        for index, turn in enumerate(turns):
            at = float(index)
            if name == "step":
                at = FIRST_STEPS + STEPS_APART * index
            elif turn[0].family == "system":
                at = -1.0
            elif turn[0].family == "collective":
                at = float("inf")
            placed.append((at, order, turn))
    placed.sort(key=lambda item: item[:2])
    return [point for *_, turn in placed for point in turn]
