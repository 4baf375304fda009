"""Every place where text or data from outside is read: it is understood, or refused as documented.

    make fuzz                    # FUZZ_EXAMPLES examples of each, 20,000 by default

Each target answers, or raises one of the errors that it names; anything else is a bug. The figures
of a long run are in docs/security.md.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openworkflow.backend import roles, url
from openworkflow.backend.backend import BackendPostgres
from openworkflow.backend.namespace import Namespace
from openworkflow.backend.notifications import Listener
from openworkflow.backend.records import RunFilter
from openworkflow.cli import histories
from openworkflow.core import cursor
from openworkflow.core.cron import Cron, recurrence
from openworkflow.core.duration import LONGEST, parse_duration
from openworkflow.core.errors import (
    ConfigurationError,
    InputValidationError,
    NonDeterminism,
    SerializationError,
)
from openworkflow.core.failure import Failure
from openworkflow.core.recorded import RecordedStep
from openworkflow.core.serialization import codec_for
from openworkflow.core.step_attempt import StepKind
from openworkflow.engine.history import History
from openworkflow.engine.keys import Branch
from openworkflow.settings import Settings
from openworkflow.telemetry import logs
from openworkflow_contract.statements import quoted
from openworkflow_operator.api.spec import WorkflowNamespace
from openworkflow_operator.cluster import credentials
from openworkflow_operator.database import answers, dsn
from openworkflow_operator.database.diagnosis import UnusableAnswer
from openworkflow_operator.settings import InvalidSetting
from openworkflow_operator.settings import Settings as OperatorSettings
from tests.postgres import DatabaseServer

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
ROUNDS = 10
SLOWEST = 1.0
"""Seconds for one example of any target: nobody may stop a process by a clever text."""
ROOT = Path(__file__).parents[2]


@dataclass
class Target:
    """What reads, what it is given, and how it may refuse."""

    read: Callable[[Any], object]
    given: st.SearchStrategy[Any]
    refusals: tuple[type[Exception], ...] = ()
    divisor: int = 1
    """Of the number of examples, for one that is slow."""
    found: Counter[str] = field(default_factory=Counter)


def pieces(*words: str) -> st.SearchStrategy[str]:
    """Texts made of what the parser looks for, and of anything else in between."""
    part = st.sampled_from(words) | st.text(max_size=6) | st.integers().map(str)
    return st.lists(part, max_size=12).map("".join) | st.text(max_size=60)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**31, 2**63, -1, 10**400])
    | st.floats()
    | st.text(max_size=8)
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner)
)
json_texts = json_values.map(lambda value: json.dumps(value)) | pieces(
    *"[]{}:,\"'0\\", "null", "true", "NaN", "Infinity", "1e999", "\\ud800", "\\u0000", "[" * 2000
)
urls = st.sampled_from(
    ["postgresql://u:p@h:5432/db", "postgresql://u@h/d?sslmode=require", "postgres://u@h?port=7"]
).flatmap(lambda whole: st.just(whole) | st.text(max_size=4).map(whole.__add__)) | pieces(
    *("postgresql://", "postgres://", "user", ":", "@", "/", "?", "&", "=", "#", "%", "%00", "%zz"),
    *("[", "]", "[::1]", ",", "host", "localhost", "5432", "65536", "db", "sslmode", "require"),
    *("host=", "port=", "pool_size=", "connect_timeout=", "options=", "password=", "\n", " "),
)
durations = pieces(
    "ms", "s", "m", "h", "d", "w", "1", "0", ".", "-", "+", " ", "e", "inf", "nan", "_"
)

fields = pieces(
    "*", "/", "-", ",", "#", "L", "W", "LW", "0", "1", "5", "29", "31", "59", "MON", "FEB"
)
expressions = st.lists(fields | st.just("*"), min_size=5, max_size=5).map(" ".join) | pieces(
    "@daily", "@reboot", "@", "* ", "0 ", "29 2 ", "30 2 ", "\n", "\x00", "é"
)
zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Beirut"]) | pieces(
    "UTC", "Europe", "/", "..", ".", "Berlin", "\x00", "é", "tzdata.zi"
)


def a_duration(value: Any) -> None:
    assert timedelta(0) <= parse_duration(value) <= LONGEST


def a_schedule(given: tuple[Any, Any]) -> None:
    expression, tz = given
    cron = Cron(expression, tz)
    found = recurrence(cron.expression, cron.tz)
    now = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)
    first = found.after(now)
    second = found.after(first)
    assert now < first < second
    assert [first] == found.between(first, second, 9)
    assert found.words


def a_url(text: str) -> None:
    found = url.parse(text)
    assert found.hosts
    assert all(0 < port < 65536 for _, port in found.hosts)
    if found.password and len(found.password) > 6:
        assert found.password not in repr(found) + str(found) or found.password in (
            found.address + found.database + found.user
        )
    found.arguments()


def a_binding(text: str) -> None:
    assert roles.Kind.OWNER not in roles.parse_binding(text, "a").kinds


def a_log_line(text: str) -> None:
    once = logs.mask(text)
    assert "kanarienvogel" not in logs.mask(f"postgresql://u:kanarienvogel{'x'}@h/d {text}")
    assert isinstance(once, str)


def a_payload(payload: str) -> None:
    async def hear() -> None:
        listener = Listener(Namespace("a", "public"), None)
        heard: list[object] = []
        listener.on_canceled(heard.append)
        listener.on_woken(heard.append)
        listener.on_finished(heard.append, lambda: None)
        listener._hear_work(None, 0, "", payload)
        listener._hear_done(None, 0, "", payload)
        assert all(isinstance(each, UUID) for each in heard)

    asyncio.run(hear())


def _is_jsonb(value: Any) -> bool:
    """Whether JSON has it: other text cannot be in the column."""
    return not re.search(r"\b(NaN|Infinity)\b", json.dumps(value))


NAMES = st.sampled_from(["a", "b", "a:1", "", "__openworkflow_patched__"]) | st.text(max_size=5)
contexts = (
    st.none()
    | json_texts
    | st.sampled_from(["[" * 3000 + "]" * 3000, "1" * 5000, '{"branch": ' + "9" * 5000 + "}"])
    | st.dictionaries(
        st.sampled_from(
            ["branch", "nth", "call", "reopened_at", "final", "name", "sleep", "until"]
        ),
        json_values.filter(_is_jsonb) | st.sampled_from(["", "1", "1.2", 0, 1, -1]),
    ).map(json.dumps)
)
recorded_steps = st.builds(
    RecordedStep,
    step_name=NAMES,
    kind=st.sampled_from(["run", "sleep", "timer", "patch", "run", "newer"]),
    status=st.sampled_from(["running", "succeeded", "failed", "succeeded", "newer"]),
    attempt=st.integers(-1, 5) | st.just(2**31 - 1),
    claim_no=st.integers(-1, 5),
    output=st.none() | json_texts,
    error=st.none() | json_texts,
    context=contexts,
    resume_at=st.none() | st.datetimes(timezones=st.just(UTC)),
    id=st.uuids(),
    completion_no=st.none() | st.integers(-1, 8) | st.just(2**31 - 1),
    final=st.booleans(),
    interrupted=st.booleans(),
    reopened=st.booleans(),
    canceled=st.booleans(),
)


def a_history(steps: list[RecordedStep]) -> None:
    history = History(steps)
    if history.unreadable:
        return
    branch, handed = Branch(), 0
    for step in steps:
        if step.step_name:
            key = history.keys.request("x" if ":" in step.step_name else step.step_name, branch)
            history.request(key, StepKind.RUN)
        while history.next_event() is not None:
            handed += 1
    history.leftovers()
    if history.pending and history.unasked() is not None:
        history.mismatch([])
    assert handed <= len(steps)


def an_error(text: str) -> None:
    failure = Failure.from_json(text)
    stored = failure.to_json()
    assert failure.summary is not None
    assert "\0" not in str(json.loads(stored)["message"])


def a_value(given: tuple[Any, str]) -> None:
    annotation, text = given
    codec_for(annotation).decode(text)


def a_file_of_histories(text: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        list(histories.read(Path(file.name)))


LINE = json.loads((ROOT / "tests/golden/history-1.jsonl").read_text().splitlines()[0])
lines = json_texts | st.dictionaries(
    st.sampled_from(sorted(LINE)), json_values | st.just([{}]), max_size=2
).map(lambda odd: json.dumps(LINE | odd))
MINIMAL = yaml.safe_load((ROOT / "manifests/examples/minimal.yaml").read_text())
FULL = yaml.safe_load((ROOT / "manifests/examples/full.yaml").read_text())


@st.composite
def resources(draw: st.DrawFn) -> Any:
    """An example with some of its parts replaced by anything."""
    raw = json.loads(json.dumps(draw(st.sampled_from([MINIMAL, FULL]))))
    raw["metadata"] |= {"namespace": "n", "uid": "u"}
    for _ in range(draw(st.integers(0, 3))):
        place = raw
        while True:
            key = draw(st.sampled_from(sorted(place)))
            if isinstance(place[key], dict) and place[key] and draw(st.booleans()):
                place = place[key]
                continue
            place[key] = draw(json_values)
            break
    return raw


ROW = {
    **dict.fromkeys(("due", "waking", "running", "share", "ended", "failed", "new_due"), 1),
    **dict.fromkeys(("oldest_due_age", "mean_running_age", "next_wake_seconds"), 1.0),
    **dict.fromkeys(("seconds_since_promotion", "canary_age", "oldest_new_age"), 1.0),
    **dict.fromkeys(("is_main", "is_promoted", "is_held"), True),
    "by_pod": "{}",
    "canary": None,
    "is_cut": False,
}


def an_answer(row: dict[str, Any]) -> None:
    question = answers.Question("a", 10, 10, 1.0)
    answers.observation(row, question, datetime.now(UTC), 1)
    answers.build_view(row, question)
    answers.new_runs(row, question)


def a_secret(value: bytes) -> None:
    found = credentials._interpret(value, "uid")
    shown = f"{found!r}"
    text = value.decode("utf-8", "ignore")
    assert (found.dsn is None) == (found.problem is not None)
    assert len(text) < 12 or text not in shown


PREFIX = "OPENWORKFLOW_"
names = st.sampled_from(
    [PREFIX + name.upper() for name in Settings.__dataclass_fields__]
    + [f"{PREFIX}OPERATOR_{name.upper()}" for name in OperatorSettings.__dataclass_fields__]
    + ["DATABASE_URL", PREFIX + "PORT", PREFIX + "SERVICE_HOST", PREFIX, "PATH"]
) | pieces(PREFIX, "OPERATOR_", "PORT", "_SERVICE_HOST", "_TCP")
environments = st.dictionaries(
    names,
    pieces("1", "0", ".", "true", "json", "tcp://", "pinned", ",", "e9", "nan", "inf", "_", " "),
    max_size=4,
)
value_types = st.sampled_from(
    [Any, int, float, str, bool, dict[str, int], list[float], datetime, timedelta, UUID, bytes]
)

TARGETS: dict[str, Target] = {
    "durations": Target(a_duration, durations | scalars, (ConfigurationError,)),
    "schedules": Target(
        a_schedule,
        st.tuples(st.sampled_from(["0 9 * * 1-5", "*/7 2 29 2 *"]) | expressions, zones)
        | st.tuples(expressions | scalars, zones | scalars),
        (ConfigurationError,),
    ),
    "database URLs": Target(a_url, urls, (ConfigurationError,)),
    "the operator's URLs": Target(dsn.parse, urls, (dsn.InvalidUrl,)),
    "contents of a Secret": Target(
        a_secret, urls.map(lambda text: text.encode("utf-8", "replace")) | st.binary(), (), 20
    ),
    "settings of a worker": Target(Settings.from_env, environments, (ConfigurationError,)),
    "settings of the operator": Target(OperatorSettings.from_env, environments, (InvalidSetting,)),
    "namespaces and schemas": Target(
        lambda pair: Namespace(*pair).work_channel,
        st.tuples(st.text() | scalars, st.text() | scalars),
        (ConfigurationError,),
    ),
    "bindings of roles": Target(
        a_binding,
        pieces("=", ",", *roles.Kind)
        | st.tuples(st.text(max_size=3), st.lists(st.sampled_from(roles.Kind), max_size=2)).map(
            lambda pair: f"{pair[0]}={','.join(pair[1])}"
        ),
        (ConfigurationError,),
    ),
    "cursors": Target(
        cursor.read_cursor,
        pieces("=", "MjAyNi0", "-", "_", "A")
        | st.tuples(st.datetimes().map(str) | st.text(max_size=9), st.uuids() | st.text(max_size=9))
        .map(lambda pair: f"{pair[0].replace(' ', 'T')} {pair[1]}".encode("utf-8", "replace"))
        .map(lambda given: base64.urlsafe_b64encode(given).decode().rstrip("=")),
        (ConfigurationError,),
    ),
    "NOTIFY payloads": Target(
        a_payload,
        pieces("canceled ", "wake ", ",", "01a21991-21c8-7cf8-b3c0-70fe3c68f4d5", "{", "urn:uuid:"),
        (),
        5,
    ),
    "stored values": Target(
        a_value, st.tuples(value_types, json_texts), (SerializationError, InputValidationError)
    ),
    "stored errors": Target(an_error, json_texts),
    "histories and step contexts": Target(
        a_history, st.lists(recorded_steps, max_size=6), (NonDeterminism, ConfigurationError)
    ),
    "exported histories": Target(
        a_file_of_histories,
        st.lists(lines, max_size=3).map("\n".join),
        (ConfigurationError,),
        5,
    ),
    "resources (CRD specs)": Target(
        WorkflowNamespace.parse, resources(), (KeyError, TypeError, AttributeError, ValueError)
    ),
    "answers of a tenant's database": Target(
        an_answer,
        st.dictionaries(st.sampled_from(sorted(ROW)), json_values | json_texts, max_size=3).map(
            lambda odd: ROW | odd
        ),
        (UnusableAnswer,),
    ),
    "lines of logs": Target(
        a_log_line, pieces("postgresql://", ":", "@", "password=", "'", '"', "\\", " ", "x" * 500)
    ),
}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.timeout(3600)
def test_it_is_understood_or_refused_as_documented(name: str) -> None:
    target = TARGETS[name]
    count = max(20, EXAMPLES // target.divisor)

    @settings(
        max_examples=count, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(target.given)
    def fuzz(value: Any) -> None:
        began = time.thread_time()
        try:
            target.read(value)
            target.found["understood"] += 1
        except target.refusals:
            target.found["refused"] += 1
        if time.thread_time() - began > SLOWEST:  # once may be a collection of garbage
            began = time.thread_time()
            with contextlib.suppress(*target.refusals):
                target.read(value)
            assert time.thread_time() - began < SLOWEST

    for _ in range(ROUNDS):  # a few dozen examples may be of one kind only
        fuzz()
        if target.found["understood"] and (target.found["refused"] or not target.refusals):
            break
    if EXAMPLES > 1000:
        tried = sum(target.found.values())
        print(f"| {name} | {tried:,} | {target.found['understood']:,} |")
    assert target.found["understood"], "never understood: the examples are too far off"
    assert target.found["refused"] or not target.refusals, "never refused"


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.mark.timeout(3600)
def test_a_filter_and_a_name_of_any_text_are_texts_to_postgresql_too(
    postgres: DatabaseServer, template_database: str, loop: asyncio.Runner
) -> None:
    """Whatever it holds, it ends no statement, and it is found again as it was."""
    name = "openworkflow_fuzz_filters"
    postgres.create_database(name, template=template_database)
    backend = loop.run(BackendPostgres.connect(postgres.url(name)))
    connection = loop.run(asyncpg.connect(postgres.url(name)))
    texts = pieces("'", '"', "\\", ";", "--", "$1", "$$", "E'", "%", "{role}", "\n", ":name", "\0")

    @settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(texts, texts)
    def fuzz(text: str, other: str) -> None:
        with contextlib.suppress(ConfigurationError):  # NUL and lone surrogates are refused
            wanted = RunFilter(workflow_name=text, version=other, worker_id=text, build_id=other)
            assert [] == loop.run(backend.list_workflow_runs(wanted)).runs
        if "\0" not in text + other and (text + other).isprintable():
            row = loop.run(
                connection.fetchrow(f"select {roles.literal(text)} as {quoted('x' + other)}")
            )
            assert row is not None
            assert [text] == list(row.values())

    try:
        fuzz()
    finally:
        loop.run(connection.close())
        loop.run(backend.stop())
        postgres.drop_database(name)
