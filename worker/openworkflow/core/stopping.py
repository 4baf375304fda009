"""`async with` for what has to be stopped."""

from typing import Protocol, Self


class StopsAtExit(Protocol):
    """Is stopped at the end of an `async with`, however that ends."""

    async def stop(self) -> None:
        """Stop it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
