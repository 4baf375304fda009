"""Refuses options that a call does not have, with the one that was meant. Pure."""

import difflib
from collections.abc import Collection, Iterable


def refuse_unknown(call: str, given: Iterable[str], known: Collection[str] | None) -> None:
    """Raise TypeError for the first that is given and not known, as Python does of parameters."""
    known = known or ()
    for name in given:
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near!r}?" if near else f"there are {', '.join(known)}"
            raise TypeError(f"{call}() has no option {name!r}; {hint}")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of these that is spelt like it."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)
