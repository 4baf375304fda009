"""What a worker reads for runs that wait, in plain JSON: signals, and what children came to."""

from collections.abc import Awaitable, Callable, Mapping
from uuid import UUID

from openworkflow.backend.records import Delivery
from openworkflow.codecs.payloads import Payloads
from openworkflow.core.envelope import is_marked
from openworkflow.core.recorded import Awaited, ChildState, MapItem

ReadMap = Callable[[UUID, int, int], Awaitable[list[MapItem]]]


class OpenedMail:
    """An opener of mail. Its methods raise PayloadUnreadable."""

    def __init__(self, payloads: Payloads) -> None:
        self._payloads = payloads

    def has_to(self, delivery: Delivery, states: Mapping[Awaited, ChildState]) -> bool:
        """See Opener."""
        return any(is_marked(each.payload) for each in delivery.messages) or any(
            is_marked(each.output) for each in states.values()
        )

    async def open(self, delivery: Delivery, states: dict[Awaited, ChildState]) -> None:
        """See Opener."""
        for place, message in enumerate(delivery.messages):
            if is_marked(message.payload):
                text = await self._payloads.open(message.payload, "signal", message.name)
                delivery.messages[place] = message._replace(payload=text)
        for awaited, state in states.items():
            if is_marked(state.output):
                states[awaited] = await _opened(state, self._payloads)


def opened_maps(read_map: ReadMap, payloads: Payloads) -> ReadMap:
    """Reads the children of maps; raises PayloadUnreadable too."""

    async def read(step_id: UUID, start: int, limit: int) -> list[MapItem]:
        items = await read_map(step_id, start, limit)
        return [
            item._replace(state=await _opened(item.state, payloads))
            if is_marked(item.state.output)
            else item
            for item in items
        ]

    return read


async def _opened(state: ChildState, payloads: Payloads) -> ChildState:
    return state._replace(output=await payloads.open(state.output, "result"))
