"""What people write who know Celery, Temporal, DBOS, Inngest or Hatchet is answered with ours."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from openworkflow import (
    BackendPostgres,
    ConfigurationError,
    Cron,
    OpenWorkflow,
    RunHandle,
    Step,
    SyncOpenWorkflow,
    SyncRunHandle,
    SyncStep,
    Worker,
    Workflow,
    step,
    workflow,
)
from openworkflow.core.guesses import ATTRIBUTES, CALLS, OF_TEMPORAL
from openworkflow.core.limits import step_rate
from openworkflow.engine.child_request import ChildOptions
from openworkflow.engine.mapping import items_given
from openworkflow.engine.request import ManyRunsOptions, RunOptions, check_options
from openworkflow.testing import Environment
from openworkflow.worker.options import WorkerSettings

KINDS = (Workflow, OpenWorkflow, RunHandle, Step, Worker, BackendPostgres, Environment)
BLOCKING = (SyncOpenWorkflow, SyncRunHandle, SyncStep)
anything: Any = workflow


@workflow
async def ship(number: int, step: Step) -> None: ...


def blank(kind: Any) -> Any:
    """One of this kind without what it is made of."""
    return kind.__new__(kind)


@pytest.mark.parametrize("kind", [*KINDS, *BLOCKING])
def test_no_guess_stands_before_what_there_is(kind: type) -> None:
    guesses = ATTRIBUTES.get(kind.__name__.removeprefix("Sync"), {})
    assert not [name for name in guesses if hasattr(kind, name)]


@pytest.mark.parametrize("kind", [*KINDS, *BLOCKING])
def test_what_a_guess_is_answered_with_is_there(kind: type) -> None:
    for name, example in CALLS.get(kind.__name__.removeprefix("Sync"), {}).items():
        if hasattr(kind, name):  # a blocking client makes no workers
            assert f"{name}(" in example
            pays = "function, argument" not in example  # but for the call that every step is
            assert pays is hasattr(getattr(kind, name), "_answers")


@pytest.mark.parametrize("kind", [*KINDS, *BLOCKING])
def test_an_attribute_that_there_is_not_says_what_was_meant(kind: type) -> None:
    for name, hint in ATTRIBUTES.get(kind.__name__.removeprefix("Sync"), {}).items():
        with pytest.raises(AttributeError) as raised:
            getattr(blank(kind), name)
        assert str(raised.value) == f"{kind.__name__!r} object has no attribute {name!r}: {hint}"


def test_what_is_spelt_alike_is_named_and_what_is_private_is_not() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'slepe': did you mean 'sleep'\?$"):
        _ = blank(Step).slepe
    with pytest.raises(AttributeError, match=r"no attribute 'xyz'$"):
        _ = blank(Step).xyz
    with pytest.raises(AttributeError, match=r"no attribute '_program'$"):
        _ = blank(Step)._program
    assert not hasattr(ship, "delay")
    assert getattr(ship, "delay", 5) == 5


def test_an_error_of_a_property_is_not_taken_for_one_of_its_name() -> None:
    with pytest.raises(AttributeError, match="_execution"):
        _ = blank(Step).run_id


def test_what_answers_guesses_is_copied_as_it_was() -> None:
    assert copy.copy(ship).name == "ship"
    with pytest.raises((TypeError, pickle.PicklingError)):
        pickle.dumps(ship)


@pytest.mark.parametrize("name", OF_TEMPORAL)
def test_what_workflow_has_in_temporal_says_what_is_written_here(name: str) -> None:
    found: Any = getattr(workflow, name)
    uses: list[Callable[[], object]] = [lambda: found(), lambda: found.anything]
    for use in uses:
        with pytest.raises(AttributeError) as raised:
            use()
        assert OF_TEMPORAL[name] in str(raised.value)


def test_a_class_is_told_that_a_workflow_is_a_function() -> None:
    with pytest.raises(AttributeError, match="which is Temporal's: a workflow is a function"):

        @anything.defn
        class Transfer: ...


def test_a_client_is_not_connected_by_itself() -> None:
    kind: Any = OpenWorkflow
    with pytest.raises(AttributeError, match=r"OpenWorkflow\(await BackendPostgres\.connect\("):
        kind.connect("postgresql://localhost/x")
    assert not hasattr(OpenWorkflow, "connect")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda s: s.sleep(60), '\'duration\'; write step.sleep("name", "1h")'),
        (lambda s: s.sleep_until(60), 'write step.sleep_until("name", moment)'),
        (lambda s: s.run(print), "missing 1 required positional argument: 'fn'"),
        (lambda s: s.map(print, [1]), 'write step.map("name", function, items)'),
        (lambda s: s.run_workflow("c", ship, 1, 2), "write step.run_workflow("),
        (lambda s: s.wait_for_signal("a", int), 'write step.wait_for_signal("name", type='),
        (lambda s: s.wait_for_signal("a", timout=1), "did you mean 'timeout'?"),
        (lambda s: s.tag({"a": "b"}), "write step.tag(name=text)"),
        (lambda s: s.set_status(), "write step.set_status(value)"),
    ],
)
@pytest.mark.parametrize("kind", [Step, SyncStep])
def test_a_call_that_cannot_be_made_says_how_it_is(
    kind: type, call: Callable[[Any], object], said: str
) -> None:
    with pytest.raises(TypeError) as raised:
        call(blank(kind))
    assert said in str(raised.value)
    assert "Family" not in str(raised.value)


async def test_a_call_of_a_client_that_cannot_be_made_says_how_it_is() -> None:
    ow, backend = blank(OpenWorkflow), BackendPostgres
    for call, said in (
        (lambda: ow.run_workflow(ship, 1, 2), "several values go into a dataclass"),
        (lambda: ow.list_runs(status="failed"), 'write list_runs(where="status:failed")'),
        (lambda: backend.connect("x", namespace="y"), "did you mean 'namespace_id'?"),  # type: ignore[call-arg]
    ):
        with pytest.raises(TypeError) as raised:
            await call()
        assert said in str(raised.value)
    with pytest.raises(TypeError, match=r"write await env.run\(workflow, input\); several"):
        await blank(Environment).run(ship, 1, 2)
    with pytest.raises(TypeError, match=r"write new_worker\(workflows=\[\.\.\.\]\)"):
        ow.new_worker([ship])


async def test_a_moment_of_a_test_is_a_datetime() -> None:
    skip_to: Any = inspect.unwrap(Environment.skip_to)
    for moment in ("2030-01-01", datetime(2030, 1, 1)):
        with pytest.raises(ConfigurationError, match="is no datetime with a time zone; give one"):
            await skip_to(blank(Environment), moment)


def test_an_error_from_within_a_call_is_as_it_was() -> None:
    with pytest.raises(TypeError, match=r"did you mean 'concurrency'\?$"):
        blank(OpenWorkflow).new_worker(workflows=[ship], slots=5)
    assert inspect.iscoroutinefunction(OpenWorkflow.run_workflow)
    assert list(inspect.signature(Step.sleep).parameters) == ["self", "name", "duration"]


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ("countdown", RunOptions, "did you mean 'available_at'?"),
        ("id", RunOptions, "did you mean 'idempotency_key'?"),
        ("id", ManyRunsOptions, "did you mean 'idempotency_keys'?"),
        ("session", RunOptions, "did you mean 'connection'?"),
        ("task_queue", RunOptions, "there are no queues"),
        ("number", RunOptions, "the input is one value, which follows the workflow"),
        ("id", ChildOptions, "there are version"),
        ("activities", WorkerSettings, "functions of steps need no list"),
        ("slots", WorkerSettings, "did you mean 'concurrency'?"),
    ],
)
def test_an_option_of_another_program_is_answered_with_ours(
    given: str, kind: type, said: str
) -> None:
    call = "new_worker" if kind is WorkerSettings else "run_workflow"
    with pytest.raises(TypeError) as raised:
        check_options(call, {given: 1}, kind, *(["concurrency"] if call == "new_worker" else []))
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Cron(minute=0), 'the expression says it: Cron("0 3 * * *")'),  # type: ignore[call-arg]
        (lambda: step(autoretry_for=(OSError,)), "did you mean 'retry'?"),  # type: ignore[call-overload]
        (lambda: step(schedule_to_close_timeout="1m"), "did you mean 'timeout'?"),  # type: ignore[call-overload]
        (lambda: workflow(queue="mail"), "there are no queues"),  # type: ignore[call-overload]
        (lambda: workflow(bind=True), "current_step()"),  # type: ignore[call-overload]
        (lambda: workflow(on_crons=["@daily"]), "did you mean 'schedule'?"),  # type: ignore[call-overload]
    ],
)
def test_a_keyword_of_another_program_is_answered(make: Callable[[], object], said: str) -> None:
    with pytest.raises(TypeError) as raised:
        make()
    assert said in str(raised.value)


@pytest.mark.parametrize("text", ["10/m", "10 / s", "100/1h", "5 per minute"])
def test_a_rate_that_is_text_is_no_name_of_a_limit(text: str) -> None:
    """It was taken for the name of a limit, and limited nothing."""
    with pytest.raises(ConfigurationError, match=r"Rate\(20, per='1m', name='stripe'\), not"):
        step_rate("charge", text)


@pytest.mark.parametrize("name", ["stripe", "10k-a-day", "v2/charges", "5percent"])
def test_a_name_of_a_limit_stays_one(name: str) -> None:
    assert step_rate("charge", name).name == name


def test_text_is_not_mapped_over_letter_by_letter() -> None:
    with pytest.raises(ConfigurationError, match="items is a list of them, not 'abc'"):
        items_given("m", "abc")
    assert items_given("m", ("a", "b")) == ["a", "b"]
