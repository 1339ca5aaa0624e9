"""Prices of a device-hour: the caller's own, or typical ones of a kind, never of two kinds without saying so."""

from __future__ import annotations

import math
from collections.abc import Mapping

from roofsim import _core
from roofsim.errors import RoofsimError, SpecError

__all__ = ["PRICE_KINDS", "choose_kind", "device_prices"]

PRICE_KINDS = ("on-demand", "reserved", "cost-of-ownership")
"""Kinds of price, the one that `auto` prefers first."""


def choose_kind(devices: list[_core.Accelerator], prices: Mapping[str, float] | None, kind: str) -> str:
    """Return the kind of price in force.

    ``auto`` is the kind that is known for most of the devices without a price of the caller's own; of several such
    kinds the first of `PRICE_KINDS`.

    Raises
    ------
    SpecError
        The kind does not exist.
    """
    if not isinstance(kind, str) or kind not in ("auto", *PRICE_KINDS):
        raise SpecError("price_kind", kind, f"must be auto or one of {', '.join(PRICE_KINDS)}")
    if kind != "auto":
        return kind
    own = _own_prices(devices, prices)
    unpriced = [device for device in devices if device.name not in own]
    # `max` keeps the first of equals.
    return max(PRICE_KINDS, key=lambda kind: sum(device.usd_per_hour(kind) is not None for device in unpriced))


def device_prices(
    devices: list[_core.Accelerator], prices: Mapping[str, float] | None, kind: str
) -> list[tuple[float | None, str]]:
    """Return the price of a device-hour and its kind, one per device: ``given`` by the caller, else of ``kind``.

    Raises
    ------
    SpecError
        A price is no finite number of at least 0, or names no device of the call.
    """
    own = _own_prices(devices, prices)
    return [(own[d.name], "given") if d.name in own else (d.usd_per_hour(kind), kind) for d in devices]


def _own_prices(devices: list[_core.Accelerator], prices: Mapping[str, float] | None) -> dict[str, float]:
    """Return the caller's prices by the names of the devices."""
    if prices is not None and not isinstance(prices, Mapping):
        raise SpecError("prices", repr(prices), "must map accelerator names to US dollars per device-hour")
    known = {device.name for device in devices}
    own: dict[str, float] = {}
    for name, price in (prices or {}).items():
        canonical = name if name in known else _canonical(name)
        if canonical not in known:
            raise SpecError("prices", name, f"names no accelerator of this call: {', '.join(sorted(known))}")
        if isinstance(price, bool) or not isinstance(price, (int, float)) or not 0 <= price < math.inf:
            raise SpecError(f"prices.{name}", repr(price), "must be a finite number of at least 0")
        own[canonical] = float(price) + 0.0  # + 0.0 turns -0.0 into 0.0
    return own


def _canonical(name: str) -> str:
    """Return the catalogue's name for a name as people type it; the name itself where the catalogue knows none."""
    try:
        return _core.Accelerator.load(name).name
    except RoofsimError:
        return name
