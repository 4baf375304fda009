"""Ids: version 7, ordered by the time they were made."""

from __future__ import annotations

import time
import uuid

from openworkflow.core.ids import child_id, tick_of, uuid7


def test_ids_are_uuids_of_version_7() -> None:
    made = uuid7()

    assert 7 == made.version
    assert uuid.RFC_4122 == made.variant


def test_ids_of_one_process_only_grow() -> None:
    made = [uuid7() for _ in range(5_000)]

    assert sorted(set(made)) == made


def test_an_id_says_when_it_was_made() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid7().int >> 80
    after = time.time_ns() // 1_000_000

    # A burst of ids may run a moment ahead of the clock.
    assert before <= made <= after + 100


def test_ids_of_runs_and_of_children_tell_what_was_made_first() -> None:
    made = [uuid7(), child_id(3), uuid7(), child_id(1), child_id(9), uuid7()]
    shuffled = made[3:] + made[:3]
    assert sorted(shuffled, key=tick_of) == made
