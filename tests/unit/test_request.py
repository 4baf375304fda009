"""What a caller asks for wrongly is refused with what to do, before anything is stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from openworkflow import Worker, step, workflow
from openworkflow.backend.backend import BackendPostgres
from openworkflow.backend.namespace import Namespace
from openworkflow.client import ManyRunsOptions, OpenWorkflow, RunOptions
from openworkflow.core.errors import ConfigurationError
from openworkflow.engine.request import Request

LIMIT = 1_000


def rows(workflow: Any, key: Any = None) -> list[Any]:
    return Request(workflow, {}, LIMIT).runs([None], [key])


@dataclass
class Order:
    number: int


class Bill(BaseModel):
    number: int


def undecorated() -> None: ...


@pytest.mark.parametrize("value", [Order(7), Bill(number=7), {"number": 7}])
def test_the_input_of_a_workflow_given_by_name_says_itself_how_it_is_written(value: Any) -> None:
    (run,) = Request("orders", {}, LIMIT).runs([value], [None])
    assert run.input == '{"number":7}'


@pytest.mark.parametrize("workflow", [undecorated, None, 5])
def test_what_is_no_workflow_is_refused(workflow: Any) -> None:
    with pytest.raises(ConfigurationError, match="decorate it with @workflow, or give the name"):
        rows(workflow)


@pytest.mark.parametrize("key", [5, "", "a\0b", "k" * 501])
def test_an_idempotency_key_is_text(key: Any) -> None:
    with pytest.raises(ConfigurationError, match="idempotency_key must be text of 1 to 500"):
        rows("orders", key)


@pytest.mark.parametrize("name", [5, None, "", "a\0b"])
def test_a_namespace_and_a_schema_are_text(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="namespace_id must be text"):
        Namespace(name, "public")
    with pytest.raises(ConfigurationError, match="schema must be text"):
        Namespace("default", name)


async def test_an_option_that_does_not_exist_is_refused_with_those_that_do() -> None:
    nowhere = BackendPostgres.__new__(BackendPostgres)  # it is not asked for anything
    nowhere.namespace_id = "default"
    ow: Any = OpenWorkflow(nowhere)

    with pytest.raises(TypeError, match=r"run_workflow\(\) has no option 'deadlin'; did you mean"):
        await ow.run_workflow("orders", deadlin="1h")
    with pytest.raises(TypeError, match=r"run_workflows\(\) has no option 'idempotency_key'; "):
        await ow.run_workflows("orders", [1], idempotency_key="a")


def test_an_option_that_a_decorator_or_a_worker_does_not_have_is_answered_with_the_one_meant() -> (
    None
):
    decorate: Any = workflow
    decorate_step: Any = step
    make: Any = Worker

    with pytest.raises(
        TypeError, match=r"workflow\(\) has no option 'verison'; did you mean 'vers"
    ):
        decorate(verison="2")
    with pytest.raises(TypeError, match=r"step\(\) has no option 'timout'; did you mean 'timeout'"):
        decorate_step(timout="2s")
    with pytest.raises(
        TypeError, match=r"Worker\(\) has no option 'concurency'; did you mean 'con"
    ):
        make(None, [decorate(name="w")(lambda: None)], concurency=2)
    with pytest.raises(TypeError, match=r"has no option 'zzz'; there are workflows, worker_id, "):
        make(None, [decorate(name="w")(lambda: None)], zzz=2)


async def test_a_client_of_a_url_or_of_a_connect_that_was_not_awaited_is_refused() -> None:
    """It was an AttributeError from the inside, at the first call."""
    connecting: Any = BackendPostgres.connect("postgresql://localhost/x")
    url: Any = "postgresql://localhost/x"

    for wrong in (connecting, url):
        with pytest.raises(ConfigurationError, match=r"await BackendPostgres.connect\(url\)"):
            OpenWorkflow(wrong)
    connecting.close()


def test_one_run_and_many_take_the_same_options_but_for_their_keys() -> None:
    one, many = set(RunOptions.__annotations__), set(ManyRunsOptions.__annotations__)

    assert {"idempotency_key", "unique", "debounce"} == one - many
    assert {"idempotency_keys"} == many - one
    shared = {"version", "available_at", "deadline", "connection", "tags", "priority"}
    assert shared == one & many


def test_a_misspelt_option_of_a_worker_is_answered_with_the_one_that_was_meant() -> None:
    nowhere = BackendPostgres.__new__(BackendPostgres)
    nowhere.namespace_id = "default"
    worker: Any = OpenWorkflow(nowhere).new_worker
    for wrong, meant in {"concurency": "concurrency", "leese": "lease"}.items():
        with pytest.raises(TypeError, match=rf"no option {wrong!r}; did you mean {meant!r}"):
            worker(**{"workflows": [], wrong: 1})


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("abc", "a run's id is a UUID, .* not 'abc'"),
        ("0197a5be-7b3c-7c1e-9d59-6d5e8b1c2f3a", r"write UUID\('0197a5be-"),
        (5, "not 5"),
        (None, "not None"),
    ],
)
async def test_what_is_no_id_of_a_run_is_refused_by_every_call_that_takes_one(
    wrong: Any, meant: str
) -> None:
    """It was an error of the database driver, or of a look in the background."""
    nowhere = BackendPostgres.__new__(BackendPostgres)
    nowhere.namespace_id = "default"
    ow: Any = OpenWorkflow(nowhere)

    with pytest.raises(ConfigurationError, match=meant):
        ow.handle(wrong)
    for call in (ow.get_run, ow.explain, ow.cancel, ow.retry, ow.fork, ow.wait):
        with pytest.raises(ConfigurationError, match=meant):
            await call(wrong)
    if wrong is not None:
        with pytest.raises(ConfigurationError, match=meant):
            await ow.pause(wrong)
    with pytest.raises(ConfigurationError, match=r"its \.id"):
        ow.handle(ow.handle(UUID(int=1)))
