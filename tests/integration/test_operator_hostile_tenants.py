"""One hostile server of each kind beside ten good tenants, who notice nothing of it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from openworkflow_operator.api.spec import Key
from openworkflow_operator.database import connection, observatory, routes
from openworkflow_operator.database.answers import Question
from openworkflow_operator.database.bounded import MOST_IDLE_BYTES
from openworkflow_operator.database.connection import ConnectOptions, Database
from openworkflow_operator.database.diagnosis import AnswerTooLarge, CostlyLogin, diagnose
from openworkflow_operator.database.dsn import Dsn, InvalidUrl, TlsMode, parse
from openworkflow_operator.database.login import MOST_ITERATIONS, MOST_LOGIN_BYTES, Login
from openworkflow_operator.database.observatory import Observatory, Target
from openworkflow_operator.database.routes import Router
from openworkflow_operator.decide.observation import Observation
from openworkflow_operator.decide.rollout import Hold
from tests import hostile_servers as hostile
from tests.helpers import eventually
from tests.hostile_servers import READY, SASL, VERSION, WELCOME, HostileServer

LOCAL = ConnectOptions(allow_loopback=True)
#: The longest time for which the event loop of all tenants may stand still. The machine of a test
#: run may be slow; what this is about took forty seconds.
LONGEST_STALL_SECONDS = 3.0


class Stalls:
    """Measures for how long the event loop did nothing else."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def measure(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.01)
            now = time.monotonic()
            self.longest = max(self.longest, now - last)
            last = now


@pytest.fixture
async def stalls() -> AsyncIterator[Stalls]:
    stalls = Stalls()
    task = asyncio.create_task(stalls.measure())
    yield stalls
    task.cancel()


@pytest.fixture(autouse=True)
async def closed() -> AsyncIterator[None]:
    """What was cancelled closes its connections in the next turns of the loop."""
    yield
    for _ in range(5):
        await asyncio.sleep(0)


class Names:
    """Stands in for the system's look-up: names that have addresses, and names that are dead."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.addresses: dict[str, list[str]] = {}
        self.over = threading.Event()

    def look_up(self, host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        self.asked[str(host)] += 1
        if str(host).startswith("dead"):
            self.over.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        known = self.addresses.get(str(host), [str(host)])
        address = known.pop(0) if len(known) > 1 else known[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names.look_up)
    yield names
    names.over.set()


async def test_ten_good_tenants_notice_nothing_of_one_hostile_server_of_each_kind(
    database_url: str, names: Names, stalls: Stalls
) -> None:
    looks: Counter[str] = Counter()
    seen = Observatory(lambda key: looks.update([key.name]), LOCAL)
    behaviours = {
        "silent": hostile.silent,
        "slow": hostile.slow,
        "flooding": hostile.flooding,
        "hanging-up": hostile.hanging_up,
        "notifying": hostile.notifying,
        "laborious": hostile.laborious(150_000_000),
        "often-laborious": hostile.laborious(MOST_ITERATIONS, times=500),
    }
    good = [f"good-{number}" for number in range(10)]
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(seen)
        for name, behaviour in behaviours.items():
            server = stack.enter_context(HostileServer(behaviour))
            watch(seen, name, server.dsn())
        for number in range(40):  # more than any pool of threads has
            watch(seen, f"dead-{number}", Dsn((f"dead-{number}",), (5432,), "d", "u", "p"))
        url = parse(database_url)
        for name in good:
            # A password that nobody asks for makes it a database of its own.
            watch(seen, name, dataclasses.replace(url, password=name))
        assert "read" == await asyncio.wait_for(asyncio.to_thread(lambda: "read"), 25)
        await eventually(lambda: min(looks[name] for name in good) >= 10, deadline=60)
        for name in good:
            assert isinstance(seen.view(Key("shop", name)), Observation)
    # All had their turn, and nobody else had more of them.
    assert max(looks[name] for name in good) <= 3 * min(looks[name] for name in good)
    assert max(looks[name] for name in behaviours) <= max(looks[name] for name in good)
    assert all(names.asked[f"dead-{number}"] == 1 for number in range(40))
    assert stalls.longest < LONGEST_STALL_SECONDS


def watch(seen: Observatory, name: str, dsn: Dsn) -> None:
    question = Question(name, 100, 100, 20)
    seen.watch(Key("shop", name), Target(dsn, "public", question, 0.3, idle=True))


# -- the login ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "behaviour",
    [
        hostile.laborious(150_000_000),
        hostile.laborious(150_000_000, piece=7),
        hostile.laborious(10**30),
        hostile.laborious(MOST_ITERATIONS // 2, times=3),
    ],
    ids=["at once", "in pieces", "more than a number", "often"],
)
async def test_a_login_that_asks_for_too_much_is_refused_before_it_is_computed(
    behaviour: hostile.Behaviour, stalls: Stalls
) -> None:
    with HostileServer(behaviour) as server, pytest.raises(CostlyLogin) as refused:
        await Database.connect(server.dsn(), "public", LOCAL)

    assert "AuthenticationFailed" == diagnose(refused.value).reason
    assert "scram_iterations" in diagnose(refused.value).message
    assert stalls.longest < LONGEST_STALL_SECONDS


def test_a_login_is_passed_on_as_it_is_however_it_is_cut() -> None:
    sent = SASL + WELCOME + b"what comes later is nobody's concern"
    for size in (1, 2, 3, 5, 11, len(sent)):
        login, passed = Login(), b""
        for place in range(0, len(sent), size):
            passed += login.take(sent[place : place + size])

        assert sent == passed


def test_a_login_without_an_end_is_cut() -> None:
    login = Login()
    for _ in range(MOST_LOGIN_BYTES // len(VERSION)):
        assert VERSION == login.take(VERSION)
    with pytest.raises(AnswerTooLarge):
        login.take(VERSION)

    with pytest.raises(AnswerTooLarge):
        Login().take(b"R" + (2**31 - 1).to_bytes(4, "big"))
    with pytest.raises(AnswerTooLarge):
        Login().take(b"R" + (0).to_bytes(4, "big"))
    assert READY == Login().take(READY)


# -- names --------------------------------------------------------------------------------------


async def test_a_name_is_looked_up_once_and_connected_to_where_it_was_checked(
    names: Names,
) -> None:
    with HostileServer(hostile.hanging_up) as server:
        names.addresses["db.example"] = ["192.0.2.1", "127.0.0.1"]  # the second answer is another
        address: list[str] = []

        async def checked(self: ConnectOptions, host: str, port: int) -> list[str]:
            found = list(await self.resolver.addresses(host, port))
            address.extend(found)
            return ["127.0.0.1"]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ConnectOptions, "addresses", checked)
            with contextlib.suppress(Exception):
                await Database.connect(server.dsn("db.example"), "public", LOCAL)
        assert ["192.0.2.1"] == address
        assert 1 == server.clients == names.asked["db.example"]


async def test_a_name_that_leads_back_to_the_operator_is_never_connected_to(names: Names) -> None:
    names.addresses["db.example"] = ["127.0.0.1"]
    with HostileServer(hostile.hanging_up) as server:
        with pytest.raises(InvalidUrl):
            await Database.connect(server.dsn("db.example"), "public", ConnectOptions())
        assert 0 == server.clients


async def test_a_name_that_is_being_looked_up_is_not_looked_up_again(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.1)
    monkeypatch.setattr(connection, "LOOK_SECONDS", 0.1)
    options = ConnectOptions(allow_loopback=True)
    dead = Dsn(("dead-for-ever",), (5432,), "d", "u", "p")
    assert {"Unreachable"} == {await failure(dead, options) for _ in range(5)}
    assert 1 == names.asked["dead-for-ever"] == options.resolver.under_way
    names.over.set()
    await eventually(lambda: options.resolver.under_way == 0)
    # The condition does not change with who gave up first, the system's look-up or the operator.
    assert "Unreachable" == await failure(dead, options)


async def test_a_server_that_is_silent_is_not_taken_for_a_name_that_nobody_answers_for(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.5)
    names.addresses["db.example"] = ["127.0.0.1"]
    with HostileServer(hostile.silent) as server:
        assert "TimedOut" == await failure(server.dsn("db.example"), LOCAL)


async def failure(dsn: Dsn, options: ConnectOptions) -> str:
    """The reason for which it cannot be connected to."""
    with pytest.raises(Exception) as failed:
        await Database.connect(dsn, "public", options)
    return diagnose(failed.value).reason


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of db.example, which is its own authority, and its key."""
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=db.example", "-addext", "subjectAltName=DNS:db.example"]
    command += ["-keyout", str(file), "-out", str(file.with_suffix(".c"))]
    subprocess.run(command, check=True, capture_output=True)
    with file.open("a") as whole:
        whole.write(file.with_suffix(".c").read_text())
    return file


@pytest.mark.parametrize(("host", "reason"), [("db.example", ""), ("other.example", "TLSFailed")])
async def test_the_certificate_is_compared_with_the_name_and_not_with_the_address(
    names: Names, certificate: Path, host: str, reason: str
) -> None:
    names.addresses |= {"db.example": ["127.0.0.1"], "other.example": ["127.0.0.1"]}
    options = ConnectOptions(str(certificate.with_suffix(".c")), allow_loopback=True)
    with HostileServer(hostile.secured(certificate)) as server:
        dsn = server.dsn(host, TlsMode.VERIFY_FULL)
        with pytest.raises(Exception) as failed:
            await Database.connect(dsn, "public", options)
    assert ("TLSFailed" == diagnose(failed.value).reason) == bool(reason)


# -- what comes without being asked for ---------------------------------------------------------


async def test_a_server_may_notify_only_so_much_between_two_looks() -> None:
    with HostileServer(hostile.notifying) as server:
        with pytest.raises(Exception) as failed:
            await Database.connect(server.dsn(), "public", LOCAL)
        assert "QueryFailed" == diagnose(failed.value).reason
    assert MOST_IDLE_BYTES < connection.MOST_BYTES


def test_what_a_look_costs_is_paid_for_in_time() -> None:
    observer: Any = object.__new__(observatory._Observer)
    observer._database, observer._received, observer._reconnects = None, 0, 0
    assert observatory.SHORTEST_PAUSE_SECONDS == observer._shortest_pause()

    class Large:
        received = 4 * 2**20

    observer._database = Large()
    assert 8.0 == observer._shortest_pause()
    assert observatory.SHORTEST_PAUSE_SECONDS == observer._shortest_pause()  # nothing more came

    pauses = []
    for observer._reconnects in range(1, 8):  # a server that hangs up after each look
        pauses.append(observer._shortest_pause())
    assert [0.2, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] == pauses


# -- what is written ----------------------------------------------------------------------------


async def test_a_rollout_in_a_database_that_never_answers_holds_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routes, "ROUTE_SECONDS", 0.3)
    ended: list[Key] = []
    orders = Key("shop", "orders")
    with HostileServer(hostile.silent) as server:
        async with Observatory(lambda _: None, LOCAL) as seen, Router(seen, ended.append) as router:
            assert -1 == router.acted(orders)
            for _ in range(3):
                router.start(orders, [Hold("b")], server.dsn(), "public", "orders")
            assert router.acted(orders) > 2**62, "no look counts meanwhile"
            await eventually(lambda: ended == [orders])
            assert router.acted(orders) == seen.serial
            problem = router.problem(orders)
            assert problem is not None
            assert "TimedOut" == problem.reason
            router.settle(orders)
            assert router.problem(orders) is None
            router.start(orders, [Hold("b")], server.dsn(), "public", "orders")
            router.forget(orders)
            assert -1 == router.acted(orders)
