"""Django's tasks, as runs: by `django.tasks` where Django has it, else by django-tasks."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from openworkflow import OpenWorkflow
from openworkflow.backend.url import parse
from openworkflow.codecs import Encryption
from openworkflow.core.envelope import described
from openworkflow.core.errors import ConfigurationError


def test_a_site_enqueues_works_and_reads_results(database_url: str) -> None:
    """In a program of its own: Django is set up once in a process."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.django_site.program"],
        env={**os.environ, "DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "before the commit": "not there",
        "after a rollback": "not there",
        "ready": "READY",
        "status": ["SUCCESSFUL", "SUCCESSFUL", "SUCCESSFUL", "FAILED", "READY"],
        "returned": [3, 2, "ada at attempt 2"],
        "attempts": [1, 1, 2, 2, 0],
        "errors": ["builtins.ValueError", "builtins.LookupError", "builtins.LookupError"],
    }


def test_a_database_of_djangos_settings_is_the_one_that_is_connected_to() -> None:
    from openworkflow.django import url_of

    found = parse(
        url_of(
            {
                "NAME": "a b",
                "USER": "me",
                "PASSWORD": "p@ss/w%rd&",
                "HOST": "db",
                "PORT": 5433,
                "OPTIONS": {"sslmode": "require", "pool": True},
            }
        )
    )
    assert (found.database, found.user, found.password) == ("a b", "me", "p@ss/w%rd&")
    assert (found.hosts, found.sslmode) == ((("db", 5433),), "require")


def test_options_that_are_not_known_are_refused() -> None:
    from openworkflow.django import OpenWorkflowBackend

    with pytest.raises(ConfigurationError, match="unknown OPTIONS dsn; known are"):
        OpenWorkflowBackend("default", {"OPTIONS": {"dsn": "x"}})


def test_tasks_are_encoded_by_the_codec_of_the_options(database_url: str) -> None:
    from openworkflow.django import OpenWorkflowBackend

    options = {"url": database_url, "codec": [Encryption({"k1": bytes(32)})]}
    clients = [OpenWorkflowBackend("default", {"OPTIONS": options})._client() for _ in range(2)]

    run = clients[0].run_workflow("task", {"args": ["hunter2"]})

    assert clients[0] is clients[1]
    assert clients[1].get_workflow_run(run.id).input == {"args": ["hunter2"]}
    with OpenWorkflow.sync(database_url) as plain:
        assert described(plain.get_workflow_run(run.id).input) == "encrypted with key 'k1'"
    clients[0].stop()


@pytest.mark.parametrize(("given", "priority"), [(-100, 0), (0, 0), (1, 1), (50, 5), (100, 9)])
def test_priorities_of_tasks_are_those_of_runs(given: int, priority: int) -> None:
    from openworkflow.django import _priority

    assert _priority(given) == priority
