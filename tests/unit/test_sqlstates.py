"""Whose fault a SQLSTATE is: one table, read by everybody."""

from __future__ import annotations

import asyncpg
import pytest

from openworkflow.backend.sqlstates import FAULTS, fault_of
from openworkflow.core.errors import Fault


@pytest.mark.parametrize(
    ("state", "fault"),
    [
        ("22P02", Fault.VALUE),
        ("22P05", Fault.VALUE),
        ("54000", Fault.VALUE),
        ("54001", Fault.VALUE),
        ("40001", Fault.MOMENT),
        ("40P01", Fault.MOMENT),
        ("55P03", Fault.MOMENT),
        ("57014", Fault.SIZE),
        ("53200", Fault.SIZE),
        ("53300", Fault.SERVER),
        ("53400", Fault.SIZE),
        ("53100", Fault.SERVER),
        ("57P01", Fault.SERVER),
        ("08006", Fault.SERVER),
        ("28P01", Fault.SERVER),
        ("25006", Fault.SERVER),
        ("42501", Fault.TABLE),
        ("42P01", Fault.TABLE),
        ("23514", Fault.TABLE),
        ("58030", Fault.TABLE),
        ("P0001", Fault.TABLE),
        ("XX000", Fault.TABLE),
        ("0A000", Fault.TABLE),
        ("42804", Fault.TABLE),
        ("42883", Fault.TABLE),
        ("42601", Fault.OURS),
        ("25P02", Fault.OURS),
    ],
)
def test_the_state_decides_whose_fault_it_is(state: str, fault: Fault) -> None:
    assert fault is fault_of(state)


@pytest.mark.parametrize("state", ["", None, "ZZ999", "F0001", "HV000"])
def test_what_is_not_known_is_not_taken_for_the_fault_of_a_value(state: str | None) -> None:
    assert Fault.TABLE is fault_of(state)


def test_of_all_that_postgresql_can_say_only_two_classes_fail_a_run() -> None:
    errors = [error for error in vars(asyncpg.exceptions).values() if isinstance(error, type)]
    found = {getattr(error, "sqlstate", None) for error in errors}
    states = [state for state in found if isinstance(state, str)]

    assert 200 < len(states)
    failing = {state[:2] for state in states if fault_of(state) is Fault.VALUE}
    assert {"22", "54"} == failing


def test_every_entry_has_a_reason_and_is_a_code_or_a_class() -> None:
    assert {2, 5} == {len(state) for state in FAULTS}
    assert all(reason for _, reason in FAULTS.values())
