"""Broken copies of what composes runs, counts them, and of what people do with them."""

from __future__ import annotations

from collections.abc import Mapping

from openworkflow.engine import undoing
from openworkflow.engine.history import History
from openworkflow.engine.operations.child import ChildWait
from openworkflow.engine.operations.map import MapOperation
from openworkflow.engine.recorded import context_of
from openworkflow.engine.undone import OVER, Undone
from tests.chaos import evidence
from tests.chaos.defects import Mutation, function, nothing, patch, statement, trigger


def forget_history() -> None:
    """Have no execution know what was recorded."""
    init = History.__init__
    patch(History, "__init__", lambda self, attempts=(): init(self))


def _start_again() -> None:
    patch(ChildWait, "_adopted", lambda self: None)


def _start_all() -> None:
    patch(MapOperation, "_window", property(lambda self: len(self._requests)))


def _undo_in_order() -> None:
    owed = Undone.owed
    patch(Undone, "owed", lambda self, recorded: owed(self, recorded)[::-1])


def _undo_nothing() -> None:
    patch(undoing, "begin", lambda recorder, outcome: outcome)


def _undo_again() -> None:
    add = Undone.add

    def forget(self: Undone, row: object) -> None:
        if OVER in context_of(row) or row.step_name == "undo":  # type: ignore[arg-type, attr-defined]
            add(self, row)  # type: ignore[arg-type]

    patch(Undone, "add", forget)


MORE_MUTATIONS: Mapping[str, Mutation] = {
    "child-started-again": Mutation(
        "a replay starts another child", _start_again, "families", evidence.KIN
    ),
    "map-without-window": Mutation(
        "a map starts all at once", _start_all, "families", evidence.WINDOW
    ),
    "undone-in-order": Mutation(
        "the first step is undone first", _undo_in_order, "sagas", evidence.UNDONE
    ),
    "undone-never": Mutation("a failed run ends", _undo_nothing, "sagas", evidence.UNDONE),
    "undone-again": Mutation("nobody knows what was undone", _undo_again, "sagas", evidence.UNDONE),
    "slots-uncounted": Mutation(
        "there is always a slot",
        nothing,
        "counted",
        evidence.LIMITS,
        function("openworkflow_limits_room", "coalesce(used.taken, 0) < said.slots", "true"),
    ),
    "rate-forgotten": Mutation(
        "nobody knows when a run has begun",
        nothing,
        "counted",
        evidence.RATES,
        function("openworkflow_limits_room", "THEN used.arrival_at +", "THEN to_timestamp(0) +"),
    ),
    "key-forgotten": Mutation(
        "nobody has a key",
        nothing,
        "counted",
        evidence.UNIQUE,
        trigger("workflow_keys", "INSERT", "new.key := new.key || random();"),
    ),
    "newest-forgotten": Mutation(
        "the first input stays",
        nothing,
        "counted",
        evidence.NEWEST,
        trigger("workflow_runs", "UPDATE OF input", "new.input := old.input;"),
    ),
    "instants-anew": Mutation(
        "an instant that is over has any number of runs",
        nothing,
        "scheduled",
        evidence.OCCURRENCES,
        trigger(
            "workflow_runs",
            "INSERT",
            """IF new.scheduled_for < now() - interval '30 min' THEN  -- of a backfill
                   new.id := md5(random()::text)::uuid;
               END IF;""",
        ),
    ),
    "numbers-skipped": Mutation(
        "every second number is left out",
        statement(
            ("flush_events", "select run_id, event_no, topic", "select run_id, 2 * event_no, topic")
        ),
        "by hand",
        evidence.READ,
    ),
    "pause-ignored": Mutation(
        "what is paused is due",
        statement(("claim_held", "(paused or exists", "(false and exists")),
        "by hand",
        evidence.PAUSED,
        trigger(
            "workflow_runs",
            "UPDATE",
            "IF new.paused AND new.status = 'pending' THEN new.available_at := new.due_at; END IF;",
        ),
    ),
    "forks-forget": Mutation("a fork knows nothing", forget_history, "by hand", evidence.FORKED),
    "retries-forget": Mutation(
        "a retry knows nothing", forget_history, "by hand", evidence.REOPENED
    ),
}
