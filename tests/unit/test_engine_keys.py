"""How a call of a step is told from every other call, now and in a replay."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworkflow.core.errors import ConfigurationError
from openworkflow.engine.keys import NAME_LIMIT, Branch, Keys


def test_the_name_is_the_key_and_a_name_that_comes_again_gets_an_ordinal() -> None:
    keys, trunk = Keys(), Branch()

    assert ["a", "a:1", "b", "a:2"] == [keys.request(name, trunk) for name in "aaba"]
    assert {} == keys.context("a") == keys.context("a:1") == keys.context("b")


def test_a_task_s_path_is_its_place_in_the_program() -> None:
    trunk = Branch()
    first, second = trunk.child(), trunk.child()

    assert ("", "1", "2", "2.1", "2.2") == (
        trunk.path,
        first.path,
        second.path,
        second.child().path,
        second.child().path,
    )


def test_one_name_in_two_branches_has_two_keys_and_each_row_says_which_call_it_is() -> None:
    keys, trunk = Keys(), Branch()
    ann, bob = trunk.child(), trunk.child()

    assert ("send", "send:1") == (keys.request("send", ann), keys.request("send", bob))
    assert {"branch": "1", "nth": 0} == keys.context("send")
    assert {"branch": "2", "nth": 0, "name": "send"} == keys.context("send:1")


def test_a_replay_gives_each_branch_its_own_key_whoever_asks_first() -> None:
    first, trunk = Keys(), Branch()
    ann, bob = trunk.child(), trunk.child()
    recorded = {first.request("send", each): each for each in (ann, bob)}

    again = _recorded(first, recorded)
    trunk = Branch()
    ann, bob = trunk.child(), trunk.child()

    assert "send:1" == again.request("send", bob)
    assert "send" == again.request("send", ann)


def test_a_new_branch_does_not_take_the_key_that_another_one_has_recorded() -> None:
    keys, trunk = Keys({"send"}), Branch()
    keys.own("send", {"branch": "2", "nth": 0})
    other, owner = trunk.child(), trunk.child()

    assert "send:1" == keys.request("send", other)
    assert "send" == keys.request("send", owner)


def test_the_function_itself_finds_its_recorded_call_also_when_it_asks_before_the_branch() -> None:
    """A retry by hand changes who comes first."""
    keys, trunk = Keys({"send:1"}), Branch()
    keys.own("send:1", {"branch": "", "nth": 0, "name": "send"})

    assert "send:1" == keys.request("send", trunk)


def test_a_name_that_looks_like_the_ordinal_of_another_gets_a_key_of_its_own() -> None:
    keys, trunk = Keys(), Branch()

    found = [keys.request(name, trunk) for name in ["a:1", "a", "a", "a:1"]]

    assert len(set(found)) == 4, found


def test_rows_of_older_versions_say_nothing_of_branches_so_whoever_asks_first_has_them() -> None:
    keys, trunk = Keys({"send", "send:1"}, legacy=True), Branch()

    assert ("send", "send:1") == (
        keys.request("send", trunk.child()),
        keys.request("send", trunk.child()),
    )


def test_what_is_repeated_is_marked_since_it_could_be_mistaken() -> None:
    keys, trunk = Keys(), Branch()

    assert [False, True] == [keys.is_repeated(keys.request("a", trunk)) for _ in range(2)]


@pytest.mark.parametrize(
    "name", ["", "x" * (NAME_LIMIT + 1), "a\0b", "\ud800", None, 3, b"a", "patched:x"]
)
def test_an_unfit_name_is_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError):
        Keys().request(name, Branch())


@pytest.mark.parametrize("name", ["x" * NAME_LIMIT, "é", "日本", "a b", "a:1", "'", "\u202e"])
def test_a_name_is_any_text_that_can_be_stored(name: str) -> None:
    assert name == Keys().request(name, Branch())


CALLS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["a", "b", "a:1", "b:2"])))


@given(calls=CALLS, order=st.randoms(use_true_random=False), kept=st.floats(0, 1))
def test_calls_keep_their_keys_in_any_order_of_the_branches(
    calls: list[tuple[int, str]], order: Any, kept: float
) -> None:
    """Within a branch the order is given; between branches it is a matter of timing."""
    keys = Keys()
    branches = _branches()
    asked: dict[str, Branch] = {}
    calls_of: dict[tuple[int, str, int], str] = {}
    counts: dict[tuple[int, str], int] = {}
    for which, name in calls:
        key = keys.request(name, branches[which])
        assert key not in asked
        asked[key] = branches[which]
        nth = counts[which, name] = counts.get((which, name), -1) + 1
        calls_of[which, name, nth] = key
    recorded = {key: branch for key, branch in asked.items() if order.random() < kept}

    again = _recorded(keys, recorded)
    queues = [[name for w, name in calls if w == which] for which in range(4)]
    branches, counts, found = _branches(), {}, {}
    while any(queues):
        which = order.choice([i for i in range(4) if queues[i]])
        name = queues[which].pop(0)
        nth = counts[which, name] = counts.get((which, name), -1) + 1
        found[which, name, nth] = again.request(name, branches[which])

    assert len(found) == len(set(found.values()))
    for call, key in calls_of.items():
        if key in recorded:
            assert key == found[call]
        else:
            assert found[call] not in recorded


def _branches() -> list[Branch]:
    trunk = Branch()
    return [trunk, trunk.child(), trunk.child(), trunk.child()]


def _recorded(keys: Keys, rows: dict[str, Branch]) -> Keys:
    """The keys of the next execution, once these were recorded."""
    again = Keys(rows)
    for key in rows:
        if context := json.loads(json.dumps(keys.context(key))):
            again.own(key, context)
    return again
