"""The decorators: what a workflow knows of its function, and when a step is durable."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Any, assert_type

import pytest

from openworkflow.core.errors import ConfigurationError
from openworkflow.core.limits import Limit
from openworkflow.core.registry import Registry, collect
from openworkflow.core.retry import RetryPolicy
from openworkflow.core.workflow import DurableFunction, Workflow, current_run, step, workflow

if TYPE_CHECKING:
    from openworkflow.engine.step import Step, SyncStep


@dataclass
class Welcome:
    user_id: int


@workflow
async def send_welcome(input: Welcome, step: Step) -> list[Welcome]:
    return [input]


@workflow(name="bill", version="2", deadline="1h", retry=RetryPolicy(max_attempts=3))
def billing(order: Welcome, s: SyncStep) -> int:
    return order.user_id


@workflow
async def refers_forward(input: Later) -> Later:
    return input


@dataclass
class Later:
    n: int


def test_a_bare_workflow_is_named_after_its_function_with_dashes() -> None:
    assert ("send-welcome", None, ("send-welcome", "")) == (
        send_welcome.name,
        send_welcome.version,
        send_welcome.key,
    )


def test_the_options_of_a_workflow_are_kept() -> None:
    assert ("bill", "2") == billing.key
    assert timedelta(hours=1) == billing.deadline
    assert 3 == billing.retry.max_attempts
    assert not billing.is_async
    assert send_welcome.is_async


def test_type_checkers_know_input_and_output() -> None:
    assert_type(send_welcome, Workflow[Welcome, list[Welcome]])
    assert_type(billing, Workflow[Welcome, int])


def test_codecs_come_from_annotations_even_if_step_is_imported_for_type_checkers_only() -> None:
    welcome = Welcome(1)

    assert '{"user_id":1}' == send_welcome.input_codec.encode(welcome, "input")
    assert [welcome] == send_welcome.output_codec.decode('[{"user_id":1}]')
    assert welcome == billing.input_codec.decode('{"user_id":1}')


def test_annotations_may_name_classes_that_are_defined_later() -> None:
    assert Later(1) == refers_forward.input_codec.decode('{"n":1}')


def test_annotations_may_name_local_classes() -> None:
    @dataclass
    class Local:
        n: int

    @workflow
    async def bare(input: Local, step: Step) -> Local:
        return input

    @workflow(name="other")
    async def with_options(input: Local) -> list[Local]:
        return [input]

    assert Local(1) == bare.input_codec.decode('{"n":1}')
    assert [Local(1)] == with_options.output_codec.decode('[{"n":1}]')


def test_an_annotation_that_cannot_be_resolved_is_a_clear_error() -> None:
    @workflow
    async def broken(input: Missing) -> None:  # type: ignore[name-defined]  # noqa: F821
        return None

    with pytest.raises(ConfigurationError, match=r"workflow 'broken': .*Missing"):
        _ = broken.input_codec


def test_the_step_is_found_by_name_or_annotation_and_the_rest_is_the_input() -> None:
    def nothing() -> Any:
        return ()

    def only_step(step):  # type: ignore[no-untyped-def]
        return (step,)

    def annotated(order: int, s: Step) -> Any:
        return order, s

    def quoted(s: Step, order: int) -> Any:
        return order, s

    def only_input(order: int) -> Any:
        return (order,)

    quoted.__annotations__["s"] = "engine.step.Step"
    found = [
        Workflow(fn)._invoke((7,), "the step")
        for fn in (nothing, only_step, annotated, quoted, only_input)
    ]

    assert [(), ("the step",), (7, "the step"), (7, "the step"), (7,)] == found


def test_invoke_hands_over_what_the_function_takes() -> None:
    def reversed_order(s: SyncStep, order: int) -> Any:
        return order, s

    def nothing() -> Any:
        return "nothing"

    assert (5, "step") == Workflow(reversed_order)._invoke((5,), "step")
    assert "nothing" == Workflow(nothing)._invoke((), "step")


def test_calling_a_workflow_calls_its_function() -> None:
    assert 7 == billing(Welcome(7), None)


def _takes_three(a: int, b: int, step: Step) -> None: ...
def _takes_many(*args: int) -> None: ...
def _takes_named(**options: int) -> None: ...


@pytest.mark.parametrize("fn", [_takes_three, _takes_many, _takes_named])
def test_a_workflow_takes_at_most_one_input_and_the_step(fn: Any) -> None:
    with pytest.raises(ConfigurationError, match="at most one input"):
        workflow(fn)


class _Shop:
    async def ship(self, input: int, step: Step) -> None: ...
    async def ping(self, step: Step) -> None: ...
    @staticmethod
    async def close(step: Step) -> None: ...


async def _ctx(ctx, order): ...  # type: ignore[no-untyped-def]
async def _ctx_alone(ctx): ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    ("fn", "meant"),
    [
        ("ship", r"a workflow's name is an option: @workflow\(name='ship'\)"),
        (_Shop.ship, "'ship' is a method: .* make it a function of its module"),
        (_Shop.ping, "'ping' is a method: "),
        (vars(_Shop)["close"], "'close' is a method; make it a function"),
        (_ctx, "write `step: Step` instead"),
        (_ctx_alone, "write `step: Step` instead"),
    ],
)
def test_what_is_mistaken_for_a_workflow_is_told_what_was_meant(fn: Any, meant: str) -> None:
    """A method of the step alone was accepted, and got nothing for its `self` when it ran."""
    with pytest.raises(ConfigurationError, match=meant):
        workflow(fn)


@pytest.mark.parametrize("name", ["ctx", "context"])
def test_an_input_may_be_called_like_the_step_of_others_where_it_says_what_it_is(name: str) -> None:
    made: dict[str, Any] = {}
    exec(f"async def a({name}: int): ...\nasync def b({name}, step): ...", made)  # as a user's

    assert [True, True] == [workflow(made[each]).takes_input for each in "ab"]


@pytest.mark.parametrize(("fn", "meant"), [("charge", r"@step\(name='charge'\)"), (5, "not 5")])
def test_what_is_mistaken_for_a_step_is_told_what_was_meant(fn: Any, meant: str) -> None:
    """A text was taken for a function called `str`, which failed when it was called."""
    with pytest.raises(ConfigurationError, match=meant):
        step(fn)


async def _takes_a_default(input: int = 3, *, step: Step) -> None: ...
def _takes_a_default_plainly(count: str = "") -> None: ...


@pytest.mark.parametrize("fn", [_takes_a_default, _takes_a_default_plainly])
def test_a_default_of_the_input_that_no_run_would_get_is_refused(fn: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"default.*None"):
        workflow(fn)


def test_none_may_be_the_default_of_the_input_since_it_is_what_a_run_without_input_gets() -> None:
    @workflow
    def greet(name: str | None = None, step: Step | None = None) -> str:
        return name or "you"

    assert greet.takes_input
    assert "you" == greet()


async def _async_generator() -> AsyncIterator[int]:
    yield 1


def _generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize("fn", [_async_generator, _generator, lambda: None, 5])
def test_what_cannot_be_a_workflow_is_refused(fn: Any) -> None:
    with pytest.raises(ConfigurationError):
        workflow(fn)


@pytest.mark.parametrize("wrong", ["", "x" * 201, "a\0b", "a\ud800", 5])
def test_names_and_versions_that_cannot_be_stored_are_refused(wrong: Any) -> None:
    for options in ({"name": wrong}, {"version": wrong}):
        with pytest.raises(ConfigurationError, match=r"must be text of 1 to 200"):
            workflow(**options)(_nothing)
    with pytest.raises(ConfigurationError, match=r"a step's name must be text"):
        step(name=wrong)(_nothing)


def _nothing() -> None: ...


class Recorder:
    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, Any]] = []

    def _call(self, fn: DurableFunction[..., Any], args: Any, kwargs: Any) -> Any:
        self.calls.append((fn.name, args, kwargs))
        return "recorded"


@step
def fetch_user(user_id: int, *, cached: bool = False) -> str:
    """Fetch."""
    return f"user {user_id}"


@step(name="charge-card", timeout="30s", retry=RetryPolicy(max_attempts=2))
async def charge(amount: int) -> int:
    return amount


class Shop:
    @step
    def sell(self, item: str) -> str:
        return f"sold {item}"


def test_a_step_function_is_just_a_function_outside_a_workflow() -> None:
    assert "user 1" == fetch_user(1)
    assert ("fetch_user", "Fetch.") == (vars(fetch_user)["__name__"], fetch_user.__doc__)


def test_a_step_function_goes_through_the_run_inside_a_workflow() -> None:
    recorder = Recorder()
    token = current_run.set(recorder)
    try:
        result = fetch_user(1, cached=True)
        Shop().sell("tea")
    finally:
        current_run.reset(token)

    assert "recorded" == result
    assert [("fetch-user", (1,), {"cached": True}), ("sell", ("tea",), {})] == recorder.calls


def test_a_step_method_keeps_its_object() -> None:
    assert "sold tea" == Shop().sell("tea")


def test_the_options_of_a_step_are_kept() -> None:
    assert ("charge-card", timedelta(seconds=30)) == (charge.name, charge.timeout)
    assert charge.retry is not None
    assert 2 == charge.retry.max_attempts


def test_type_checkers_know_a_step_functions_parameters_and_result() -> None:
    assert_type(fetch_user(1), Any)  # in an async workflow it is a coroutine of its result
    if TYPE_CHECKING:
        fetch_user("1")  # type: ignore[arg-type]


def test_a_registry_finds_each_version() -> None:
    one, two = workflow(version="1")(_nothing), workflow(version="2")(_nothing)
    registry = Registry([one, two, send_welcome])

    assert one is registry.get("-nothing", "1")
    assert two is registry.get("-nothing", "2")
    assert send_welcome is registry.get("send-welcome", None)
    assert [("-nothing", "1"), ("-nothing", "2"), ("send-welcome", "")] == registry.keys()


@pytest.mark.parametrize(
    ("decorator", "options", "told"),
    [
        (workflow, {"retry": 5}, "workflow '-nothing': retry must be a RetryPolicy"),
        (workflow, {"build_policy": "free"}, "must be 'pinned' or 'moving'"),
        (step, {"retry": {"max_attempts": 3}}, "step '-nothing': retry must be"),
    ],
)
def test_policies_that_are_none_are_refused_where_they_are_written(
    decorator: Any, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        decorator(**options)(_nothing)


def test_two_workflows_of_one_name_and_version_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="two workflows are called 'same'; give"):
        Registry([workflow(name="same")(_nothing), workflow(name="same")(_nothing)])


def test_a_function_without_decorator_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="decorate it with @workflow"):
        Registry([_nothing])  # type: ignore[list-item]


def test_collect_finds_the_workflows_of_a_module_once() -> None:
    module = ModuleType("shop")
    vars(module).update(one=send_welcome, two=billing, again=send_welcome, other=5)

    assert [send_welcome, billing] == collect(module)


def test_a_worker_given_a_workflow_in_place_of_a_list_says_what_to_write() -> None:
    with pytest.raises(ConfigurationError, match=r"workflows=\[\.\.\.\]"):
        Registry(workflow(name="alone")(_nothing))  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [{"limits": Limit(2)}, {"limits": 3}, {"rate": 3}])
def test_limits_that_are_no_list_say_what_to_write(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="a list of them"):
        workflow(name="limited", **given)(_nothing)


def test_the_step_of_plain_functions_is_refused_in_an_async_one() -> None:
    """Its calls were coroutines, which nobody awaited."""
    with pytest.raises(ConfigurationError, match=r"'s' is annotated SyncStep.*: write Step"):

        @workflow
        async def ship(order: int, s: SyncStep) -> int:
            return order
