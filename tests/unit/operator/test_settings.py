"""The operator's environment: what is read, what is refused, and with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from openworkflow_operator import settings
from openworkflow_operator.settings import PREFIX, InvalidSetting, Settings


@pytest.fixture(autouse=True)
def not_in_a_pod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file with the pod's namespace, which is not there."""
    file = tmp_path / "namespace"
    monkeypatch.setattr(settings, "_OWN_NAMESPACE_FILE", file)
    return file


def read(**variables: str) -> Settings:
    return Settings.from_env({PREFIX + name: value for name, value in variables.items()})


def test_an_empty_environment_gives_the_defaults() -> None:
    found = Settings.from_env({"PATH": "/bin"})

    assert Settings(identity=found.identity) == found
    assert found.identity
    assert ((), "default", 15.0, 8080) == (
        found.namespaces,
        found.namespace,
        found.lease_seconds,
        found.port,
    )
    assert (8, 60.0, 1000) == (found.workers, found.resync_seconds, found.max_replicas)


def test_every_variable_is_read() -> None:
    found = read(
        NAMESPACES="shop, billing,",
        NAMESPACE="system",
        IDENTITY="me",
        LEASE_SECONDS="2.5",
        PORT="0",
        WORKERS="3",
        RESYNC_SECONDS="30",
        MAX_REPLICAS="50",
        CA_FILE=__file__,
        ALLOW_LOOPBACK="true",
        LOG_LEVEL="DEBUG",
    )

    expected = Settings(
        ("shop", "billing"), "system", "me", 2.5, 0, 3, 30.0, 50, __file__, True, "DEBUG"
    )
    assert expected == found


def test_in_a_pod_the_lease_is_in_the_pods_own_namespace(not_in_a_pod: Path) -> None:
    not_in_a_pod.write_text("openworkflow-system\n")

    assert "openworkflow-system" == read().namespace
    assert "elsewhere" == read(NAMESPACE="elsewhere").namespace


def test_empty_variables_and_those_of_a_service_are_no_mistake() -> None:
    assert 8080 == read(PORT="", SERVICE_HOST="10.0.0.1", PORT_8080_TCP="tcp://10.0.0.1").port


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PORT", "http", "must be a whole number from 0 to 65535"),
        ("PORT", "65536", "must be a whole number from 0 to 65535"),
        ("WORKERS", "1.5", "must be a whole number from 1 to 256"),
        ("LEASE_SECONDS", "1", "must be a number from 2 to 3600"),
        ("RESYNC_SECONDS", "nan", "must be a number from 1 to 3600"),
        ("MAX_REPLICAS", "0", "must be a whole number from 1 to 1000"),
        ("ALLOW_LOOPBACK", "yes", "must be true or false"),
        ("LOG_LEVEL", "debug", "must be one of DEBUG, INFO, WARNING, ERROR"),
        ("NAMESPACES", "shop,Billing", "must be names of namespaces, separated by commas"),
        ("CA_FILE", "/no/such/file", "must be a file with CA certificates"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_can(name: str, value: str, message: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        read(**{name: value})

    assert f"{PREFIX}{name} {message}" == str(refused.value)


def test_an_unknown_variable_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidSetting) as refused:
        read(PROT="8080")

    assert str(refused.value).startswith(f"{PREFIX}PROT is not one of {PREFIX}NAMESPACES, ")
