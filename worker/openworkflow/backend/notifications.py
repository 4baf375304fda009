"""Wake-ups by LISTEN and NOTIFY. They only save time: whoever listens also polls.

A NOTIFY makes commits of the whole database take turns, so busy enqueuers send one for many runs,
after their commits, and never more than one at a time.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, Self
from uuid import UUID

import asyncpg

from openworkflow.backend import liveness
from openworkflow.backend.connection import Connection
from openworkflow.backend.failures import DRIVER_ERRORS
from openworkflow.backend.liveness import Silences
from openworkflow.backend.namespace import Namespace
from openworkflow.core.errors import BackendError, OpenWorkflowError

logger = logging.getLogger(__name__)

RECONNECT_FIRST_SECONDS = 0.1
RECONNECT_MAX_SECONDS = 10.0
WORTH_HAVING_SECONDS = 1.0
"""A connection that ends sooner is no better than one that cannot be had: a session that may be
idle for milliseconds only would be opened again, and told of, many times a second."""
CANCELED = "canceled "
"""Begins the payload that tells workers of a canceled run."""
ORPHANS = "orphans"
"""The payload that tells workers of children to cancel; those of older versions look for work."""
WOKEN = "wake "
"""Begins the payload that tells workers of runs, among theirs, whose wait has ended."""


class Listener:
    """Hears of new work and of finished runs, over a connection that comes back by itself.

    After a reconnect everybody is woken once, since anything may have been missed.
    """

    def __init__(
        self,
        namespace: Namespace,
        connect: Callable[[], Awaitable[Connection]] | None,
        silences: Silences | None = None,
    ) -> None:
        self.healthy = False
        """Whether it hears anything just now; while it does not, poll more often."""
        self._namespace, self._connect = namespace, connect
        self._silences = silences or Silences()
        self._on_work: list[Callable[[], object]] = []
        self._on_canceled: list[Callable[[UUID], object]] = []
        self._on_woken: list[Callable[[UUID], object]] = []
        self._on_orphans: list[Callable[[], object]] = []
        self._on_finished: list[Callable[[UUID], object]] = []
        self._on_events: list[Callable[[UUID], object]] = []
        self._on_missed: list[Callable[[], object]] = []
        self._changed = asyncio.Event()
        """The connection was lost."""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:  # nobody else would end what was begun
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def start(self) -> asyncio.Future[None]:
        """Begin to listen; the future is done once the first try has succeeded or failed."""
        first = asyncio.get_running_loop().create_future()
        if self._connect is None:
            logger.warning(
                "cannot listen for wake-ups through a connection pooler, polling instead; "
                "OPENWORKFLOW_LISTEN_URL may name a direct connection"
            )
            first.set_result(None)
            return first
        self._task = asyncio.create_task(self._listen_forever(first), name="openworkflow listener")
        return first

    def on_work(self, callback: Callable[[], object]) -> None:
        """Call back whenever there may be work to claim."""
        self._on_work.append(callback)

    def on_canceled(self, callback: Callable[[UUID], object]) -> None:
        """Call back with the id of each run that is canceled."""
        self._on_canceled.append(callback)

    def on_woken(self, callback: Callable[[UUID], object]) -> None:
        """Call back with the id of each running run that is woken, whoever executes it."""
        self._on_woken.append(callback)

    def on_orphans(self, callback: Callable[[], object]) -> None:
        """Call back whenever there may be children to cancel."""
        self._on_orphans.append(callback)

    def on_finished(self, callback: Callable[[UUID], object], missed: Callable[[], object]) -> None:
        """Call back with the id of each run that may have finished; look at its row then.

        `missed` is called where any may have, unheard. To be asked for before the start: workers
        are spared this channel.
        """
        self._on_finished.append(callback)
        self._on_missed.append(missed)

    def on_events(self, callback: Callable[[UUID], object]) -> None:
        """Call back with the id of each run that may have emitted something.

        To be asked for before the start, together with `on_finished`.
        """
        self._on_events.append(callback)

    async def _listen_forever(self, first: asyncio.Future[None]) -> None:
        delay, told = RECONNECT_FIRST_SECONDS, False
        while True:
            heard, begun = False, time.monotonic()
            try:
                async with self._connection() as connection:
                    if told:
                        logger.info("wake-ups are heard again")
                    heard, told, begun = True, False, time.monotonic()
                    _resolve(first)
                    await self._until_lost(connection)
                logger.info("the connection for wake-ups was closed, opening another")
            except (BackendError, *DRIVER_ERRORS) as error:
                # One that was good may end for good reasons, such as idle_session_timeout: no
                # trouble unless the next cannot be had. That is told once, not at each try.
                level = logging.INFO if heard or told else logging.WARNING
                told = told or not heard
                logger.log(level, "no wake-ups for now, polling instead: %s", _words(error))
            _resolve(first)
            if heard and time.monotonic() - begun > WORTH_HAVING_SECONDS:
                delay = RECONNECT_FIRST_SECONDS
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, RECONNECT_MAX_SECONDS)

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        assert self._connect is not None
        connection = await self._connect()
        try:
            connection.add_termination_listener(lambda _: self._changed.set())
            await connection.add_listener(self._namespace.work_channel, self._hear_work)
            if self._on_finished:
                await connection.add_listener(self._namespace.done_channel, self._hear_done)
            if self._on_events:
                await connection.add_listener(self._namespace.events_channel, self._hear_events)
            self.healthy = True
            self._wake_all()
            yield connection
        finally:
            self.healthy = False
            connection.terminate()

    async def _until_lost(self, connection: Connection) -> None:
        """Or until others of its age are: it may lead to a server that another has replaced."""
        before = self._silences.count
        while not connection.is_closed() and self._silences.count == before:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(liveness.CHECK_SECONDS):
                    await self._changed.wait()
                continue
            await connection.execute("select 1", timeout=liveness.CHECK_ANSWER_SECONDS)

    def _hear_work(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        text = str(payload)
        if text.startswith(CANCELED):
            _call_with_ids(self._on_canceled, text.removeprefix(CANCELED))
        elif text.startswith(WOKEN):
            _call_with_ids(self._on_woken, text.removeprefix(WOKEN))
        else:
            for wake in self._on_orphans if text == ORPHANS else self._on_work:
                wake()

    def _hear_done(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        _call_with_ids(self._on_finished, str(payload))

    def _hear_events(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        _call_with_ids(self._on_events, str(payload))

    def _wake_all(self) -> None:
        for wake in (*self._on_work, *self._on_missed):
            wake()


class Waker:
    """Tells the workers of a namespace that there is work: one NOTIFY for all that asked."""

    def __init__(self, send: Callable[[], Awaitable[None]]) -> None:
        self._send = send
        self._wanted = False
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """A NOTIFY is under way."""
        return self._task is not None

    def wake(self) -> None:
        """Have a NOTIFY sent soon, after the one that may be under way."""
        self._wanted = True
        if self._task is None:
            self._task = asyncio.create_task(self._send_wanted(), name="openworkflow wake-up")

    def wake_after_commit(self, connection: Any) -> None:
        """Wake the workers once the caller's transaction commits, and not if it does not."""
        # The pool's proxy may be detached before the callback runs; what it wraps is not.
        real = getattr(connection, "_con", None) or connection

        def on_query(query: asyncpg.connection.LoggedQuery) -> None:
            command = query.query.lstrip().upper()
            if command.startswith("ROLLBACK TO") or not command.startswith(_ENDS):
                return
            real.remove_query_logger(on_query)
            if query.exception is None and command.startswith(_COMMITS):
                self.wake()

        real.add_query_logger(on_query)

    async def stop(self) -> None:
        """Let the last NOTIFY leave."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _send_wanted(self) -> None:
        try:
            while self._wanted:
                self._wanted = False
                await self._send()
        except OpenWorkflowError as error:  # a ConfigurationError: the backend was stopped
            logger.warning("could not wake the workers, they will poll: %s", error)
        finally:
            self._task = None


def _words(error: Exception) -> str:
    return str(error) or "it does not answer"


_COMMITS = ("COMMIT", "END")
_ENDS = (*_COMMITS, "ROLLBACK", "ABORT")


def _ids(text: str) -> Iterator[UUID]:
    """The ids in a payload; anybody may send one, so what is no id is passed over."""
    for word in text.split(","):
        with contextlib.suppress(ValueError):
            yield UUID(word)


def _call_with_ids(callbacks: Iterable[Callable[[UUID], object]], text: str) -> None:
    for run_id in _ids(text):
        for callback in callbacks:
            callback(run_id)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
