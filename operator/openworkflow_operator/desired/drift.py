"""Whether a live object still is what was applied, so that only differences cost an API call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Any, Final

_SUFFIXES: Final = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
}


_MOST: Final = Decimal(2**63 - 1)
_QUANTITIES: Final = ("requests", "limits", "sizeLimit")


def has_drifted(wanted: Mapping[str, Any], live: Mapping[str, Any] | None) -> bool:
    """Whether `wanted` has to be applied. The API server's defaults are no drift."""
    return live is None or not _covers(live, wanted)


def _covers(live: Any, wanted: Any, quantity: bool = False) -> bool:
    """Whether everything wanted is there; maps may hold more, lists may not be shorter."""
    if isinstance(wanted, Mapping):
        if not isinstance(live, Mapping):
            return not wanted and live is None
        return all(
            _covers(live.get(name), value, quantity or name in _QUANTITIES)
            for name, value in wanted.items()
        )
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        return _covers_list(live or [], wanted)
    if quantity and (a := amount_of(live)) is not None and (b := amount_of(wanted)) is not None:
        return _kept(a) == _kept(b)
    return bool(live == wanted or (not wanted and live is None))


def _covers_list(live: Any, wanted: Sequence[Any]) -> bool:
    """Lists of named things merge by name, in any order; others are one value.

    Of one name there may be several, such as two places where one volume is mounted.
    """
    if all(isinstance(item, Mapping) and "name" in item for item in wanted):
        by_name: dict[Any, list[Any]] = {}
        for item in live:
            if isinstance(item, Mapping):
                by_name.setdefault(item.get("name"), []).append(item)
        return all(
            any(_covers(each, item) for each in by_name.get(item["name"], ())) for item in wanted
        )
    return len(live) == len(wanted) and all(map(_covers, live, wanted))


def _kept(amount: Decimal) -> Decimal:
    """The amount as the API server keeps it: in thousandths, rounded up, and 63 bits at most."""
    return min(amount, _MOST).quantize(Decimal("0.001"), ROUND_CEILING)


def amount_of(value: Any) -> Decimal | None:
    """`500m`, `0.5`, `1Gi` and the like as one number; None for anything else."""
    text = str(value)
    digits = text.rstrip("numkMGTPEKi")
    try:
        return Decimal(digits) * _SUFFIXES[text[len(digits) :]]
    except (InvalidOperation, KeyError):
        return None
