"""Not audited is not clean, and a bill of materials names what is locked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.supply_chain import LOCKS, ROOT, Audit, audit, components, locked

CLEAN = {"name": "Click", "version": "8.1", "vulns": []}
BROKEN = {
    "name": "rich",
    "version": "13.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["13.1"], "aliases": [], "description": ""}],
}
# As pip-audit 2.10 says it, with exit code 0 and "No known vulnerabilities found".
SKIPPED = {"name": "rich", "skip_reason": "Dependency not found on PyPI and could not be audited"}
WANTED = {"click 8.1", "rich 13.0"}


def report(*dependencies: object) -> str:
    return json.dumps({"dependencies": dependencies, "fixes": []})


@pytest.mark.parametrize("strict", [False, True])
def test_all_audited_and_nothing_known_is_clean(strict: bool) -> None:
    found = Audit(set(WANTED))
    found.add("pypi", report(CLEAN, BROKEN | {"vulns": []}))

    assert (0, "2 of 2 locked packages audited") == found.verdict(strict=strict)


def test_an_advisory_fails_and_names_the_version_that_mends_it() -> None:
    found = Audit(set(WANTED))
    found.add("pypi", report(CLEAN, BROKEN))

    code, text = found.verdict(strict=False)

    assert 1 == code
    assert "rich 13.0: PYSEC-1 (fixed: 13.1)" in text


@pytest.mark.parametrize("answer", [report(CLEAN, SKIPPED), "", "<html>", "[]", report()])
def test_what_could_not_be_asked_is_said_loudly_and_fails_where_it_is_to(answer: str) -> None:
    found = Audit(set(WANTED))
    found.add("pypi", answer, "ConnectionError: nobody there")

    code, text = found.verdict(strict=False)

    assert 0 == code
    assert "NOT AUDITED" in text
    assert "rich 13.0" in text
    assert 1 == found.verdict(strict=True)[0]


def test_a_second_service_fills_what_the_first_did_not_know() -> None:
    found = Audit(set(WANTED))
    found.add("pypi", report(CLEAN, SKIPPED))
    found.add("osv", report(BROKEN))

    assert set() == found.missing
    assert 1 == found.verdict(strict=False)[0]


def test_a_tool_that_is_not_there_is_nothing_audited(capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == audit("/no/such/pip-audit", strict=False)
    assert "NOT AUDITED" in capsys.readouterr().out
    assert 1 == audit("/no/such/pip-audit", strict=True)


def test_a_lock_and_a_bill_are_compared_by_the_same_names() -> None:
    text = "typing_extensions==4.1 ; python_version < '4' \\\n    --hash=sha256:0\nClick==8.1\n"
    bill = {"components": [{"name": "typing.extensions", "version": "4.1"}, CLEAN]}

    assert {"typing-extensions 4.1", "click 8.1"} == locked(text) == components(bill)


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_of_a_lock_is_read(name: str) -> None:
    text = Path(ROOT / "requirements" / f"{name}.txt").read_text()

    assert text.count("==") - text.count("=='") - text.count("== '") == len(locked(text))
