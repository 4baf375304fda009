"""What a worker reads for runs that wait, in plain JSON: signals, and what children came to."""

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from openworkflow.backend.records import Delivery, Waiting
from openworkflow.codecs.payloads import Payloads
from openworkflow.core.envelope import is_marked
from openworkflow.core.recorded import Awaited, ChildState, MapItem
from openworkflow.engine.inbox import Family, Post

ReadMap = Callable[[UUID, int, int], Awaitable[list[MapItem]]]


class OpenedPost:
    """The mail of a worker. What cannot be opened is an error of the runs that are read with it,

    which are then read one by one. All methods raise as those of `post` do.
    """

    def __init__(self, post: Post, payloads: Payloads) -> None:
        self._post, self._payloads = post, payloads
        self.subscribe, self.await_children = post.subscribe, post.await_children
        self.read_wakes = post.read_wakes

    async def read_inboxes(self, waiting: Sequence[Waiting]) -> dict[UUID, Delivery]:
        """See Post. Raises PayloadUnreadable."""
        found = await self._post.read_inboxes(waiting)
        for delivery in found.values():
            for place, message in enumerate(delivery.messages):
                if is_marked(message.payload):
                    text = await self._payloads.open(message.payload, "signal", message.name)
                    delivery.messages[place] = message._replace(payload=text)
        return found

    async def read_children(self, pairs: Sequence[tuple[UUID, Awaited]]) -> Family:
        """See Post. Raises PayloadUnreadable."""
        family = await self._post.read_children(pairs)
        for _, states in family.values():
            for awaited, state in states.items():
                if is_marked(state.output):
                    states[awaited] = await _opened(state, self._payloads)
        return family


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
