"""The environment of a worker: what is read, what is refused, and with which words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from openworkflow.core.errors import ConfigurationError
from openworkflow.settings import Settings
from openworkflow.worker.options import WorkerOptions

OTHERS = Settings(
    database_url="postgresql:///a",
    namespace="production",
    schema="workflows",
    listen_url="postgresql:///direct",
    concurrency=7,
    processes=2,
    build_id="3f2a1c",
    build_policy="pinned",
    port=0,
    log_format="json",
    log_level="DEBUG",
    lease_seconds=2.5,
    drain_seconds=0.0,
    rest_seconds=0.5,
    resident_runs=5,
    payload_limit_bytes=1000,
    codec="shop.codecs:codec",
    max_crashes=1,
    max_step_attempts=0,
    dashboard_tokens="viewer:a-token-of-somebody",
    dashboard_openid_secret="a-secret-of-the-client",
    otel="on",
    traces="parent",
)
"""Every setting, other than by default."""


def test_an_empty_environment_gives_the_documented_defaults() -> None:
    settings = Settings.from_env({})

    assert Settings() == settings
    assert settings.database_url is None
    assert ("default", "public", 100, None) == (
        settings.namespace,
        settings.schema,
        settings.concurrency,
        settings.port,
    )
    assert (30.0, 30.0, 1_048_576, 5) == (
        settings.lease_seconds,
        settings.drain_seconds,
        settings.payload_limit_bytes,
        settings.max_crashes,
    )


def test_every_variable_is_read() -> None:
    environment = {f"OPENWORKFLOW_{name.upper()}": str(value) for name, value in _told(OTHERS)}
    environment["DATABASE_URL"] = environment.pop("OPENWORKFLOW_DATABASE_URL")

    assert Settings.from_env(environment) == OTHERS
    defaults = dict(_told(Settings()))
    assert [] == [name for name, value in _told(OTHERS) if value == defaults[name]]


def test_the_environment_decides_every_option_of_a_worker() -> None:
    """`concurrency` is an option of the command too, and `codec` names what is to be loaded."""
    defaults, others = Settings().worker_options(), OTHERS.worker_options()

    assert {each.name for each in dataclasses.fields(WorkerOptions)} == {
        "codec",
        "concurrency",
        *others,
    }
    assert WorkerOptions() == WorkerOptions(**defaults | {"build_id": None})
    assert [] == [name for name, value in others.items() if value == defaults[name]]


def _told(settings: Settings) -> Iterator[tuple[str, Any]]:
    return ((each.name, getattr(settings, each.name)) for each in dataclasses.fields(Settings))


def test_empty_variables_count_as_unset() -> None:
    """A chart writes the variable whether or not it has a value for it."""
    settings = Settings.from_env({"DATABASE_URL": "", "OPENWORKFLOW_CONCURRENCY": " "})

    assert Settings() == settings


def test_choices_are_read_in_any_case() -> None:
    settings = Settings.from_env(
        {"OPENWORKFLOW_LOG_FORMAT": "JSON", "OPENWORKFLOW_LOG_LEVEL": "debug"}
    )

    assert ("json", "DEBUG") == (settings.log_format, settings.log_level)


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("OPENWORKFLOW_CONCURENCY", "OPENWORKFLOW_CONCURRENCY"),
        ("OPENWORKFLOW_NAMESPACE_ID", "OPENWORKFLOW_NAMESPACE"),
        ("OPENWORKFLOW_DATABASE_URL", "DATABASE_URL"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_known_one(
    variable: str, nearest: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Settings.from_env({variable: "x"})

    assert f"unknown environment variable {variable}; did you mean {nearest}?" == str(raised.value)


def test_an_unknown_variable_that_is_near_to_none_is_refused_with_all() -> None:
    with pytest.raises(ConfigurationError, match="known are OPENWORKFLOW_BUILD_ID, "):
        Settings.from_env({"OPENWORKFLOW_ZZZZ": "x"})


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("CONCURRENCY", "0", "must be a whole number from 1 to 10,000, not '0'"),
        ("CONCURRENCY", "1.5", "must be a whole number from 1 to 10,000, not '1.5'"),
        ("PORT", "65536", "must be a whole number from 0 to 65,535, not '65536'"),
        ("LEASE_SECONDS", "nan", "must be a number from 1 to 86,400, not 'nan'"),
        ("REST_SECONDS", "86401", "must be a number from 0 to 86,400, not '86401'"),
        ("MAX_STEP_ATTEMPTS", "-1", "must be a whole number from 0 to 1,000,000, not '-1'"),
        ("DRAIN_SECONDS", "-1", "must be a number from 0 to 86,400, not '-1'"),
        ("LOG_FORMAT", "xml", "must be one of auto, json, human, not 'xml'"),
    ],
)
def test_a_value_out_of_range_is_refused_with_what_is_allowed(
    variable: str, text: str, message: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Settings.from_env({f"OPENWORKFLOW_{variable}": text})

    assert f"OPENWORKFLOW_{variable} {message}" == str(raised.value)


def test_what_kubernetes_adds_for_a_service_of_our_name_is_no_setting() -> None:
    """A Service `openworkflow` gives every pod an OPENWORKFLOW_PORT that is no port."""
    links = {
        "OPENWORKFLOW_SERVICE_HOST": "10.0.0.1",
        "OPENWORKFLOW_SERVICE_PORT": "9090",
        "OPENWORKFLOW_SERVICE_PORT_METRICS": "9090",
        "OPENWORKFLOW_PORT": "tcp://10.0.0.1:9090",
        "OPENWORKFLOW_PORT_9090_TCP": "tcp://10.0.0.1:9090",
        "OPENWORKFLOW_PORT_9090_TCP_ADDR": "10.0.0.1",
        "OPENWORKFLOW_METRICS_SERVICE_HOST": "10.0.0.2",
        "OPENWORKFLOW_METRICS_PORT": "tcp://10.0.0.2:80",
    }

    assert Settings() == Settings.from_env(links)
    assert 8080 == Settings.from_env(links | {"OPENWORKFLOW_PORT": "8080"}).port


def test_the_operators_settings_are_not_ours_to_refuse() -> None:
    """Its pod is where `kubectl exec` finds the command at any time."""
    assert Settings() == Settings.from_env({"OPENWORKFLOW_OPERATOR_LEASE_SECONDS": "15"})


def test_settings_do_not_show_passwords() -> None:
    url = "postgresql://me:secret@db/app"
    settings = Settings.from_env({"DATABASE_URL": url, "OPENWORKFLOW_LISTEN_URL": url})

    assert "secret" not in repr(settings)
