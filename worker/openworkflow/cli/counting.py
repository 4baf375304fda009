"""Numbers of things in sentences: `1 run was`, `2 runs were`."""


def counted(number: int, what: str, many: str | None = None) -> str:
    """`1 run`, `2 runs`; `many` is the plural where it is not made by an s."""
    return f"{number} {what if number == 1 else many or what + 's'}"


def were(number: int) -> str:
    """`was` of one, `were` of others."""
    return "was" if number == 1 else "were"
