"""Whether a live object still is what was applied, so that only differences cost an API call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    return live is None or next(_differences(live, wanted), None) is not None


def differences(wanted: Mapping[str, Any], live: Mapping[str, Any]) -> list[str]:
    """The fields that are not as wanted, as paths."""
    return list(_differences(live, wanted))


def _covers(live: Any, wanted: Any) -> bool:
    return next(_differences(live, wanted), None) is None


def _differences(live: Any, wanted: Any, path: str = "", quantity: bool = False) -> Iterator[str]:
    """Where `wanted` is not there; maps may hold more, lists may not be shorter."""
    if isinstance(wanted, Mapping):
        if not isinstance(live, Mapping):
            yield from () if not wanted and live is None else (path,)
            return
        for name, value in wanted.items():
            is_quantity = quantity or name in _QUANTITIES
            place = f"{path}.{name}" if path else str(name)
            yield from _differences(live.get(name), value, place, is_quantity)
    elif isinstance(wanted, Sequence) and not isinstance(wanted, str):
        yield from _differences_of_lists(live or [], wanted, path)
    elif quantity and (a := amount_of(live)) is not None and (b := amount_of(wanted)) is not None:
        yield from () if _kept(a) == _kept(b) else (path,)
    elif not (live == wanted or (not wanted and live is None)):
        yield path


def _differences_of_lists(live: Any, wanted: Sequence[Any], path: str) -> Iterator[str]:
    """Lists of named things merge by name, in any order; others are one value.

    Of one name there may be several, such as two places where one volume is mounted.
    """
    if not all(isinstance(item, Mapping) and "name" in item for item in wanted):
        if len(live) != len(wanted) or not all(map(_covers, live, wanted)):
            yield path
        return
    by_name: dict[Any, list[Any]] = {}
    for item in live:
        if isinstance(item, Mapping):
            by_name.setdefault(item.get("name"), []).append(item)
    for item in wanted:
        found, place = by_name.get(item["name"], []), f"{path}[{item['name']}]"
        if len(found) == 1:
            yield from _differences(found[0], item, place)
        elif not any(_covers(each, item) for each in found):
            yield place


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
