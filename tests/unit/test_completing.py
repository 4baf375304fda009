"""What may come next in a filter that somebody types."""

from __future__ import annotations

import pytest

from openworkflow.core.completing import MOST, completions
from openworkflow.core.filters import parse_filter

SEEN = {
    "workflow": ["order", "order refund", 'say "hi"'],
    "tag.customer": ["acme", "Ajax"],
}


def test_nothing_typed_offers_fields() -> None:
    assert completions("", {})[:3] == ["status:", "workflow:", "version:"]
    assert len(completions("", SEEN)) == MOST


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("wo", ["workflow:", "worker:"]),
        ("flow", ["workflow:"]),
        ("sta", ["status:", "started>"]),
        ("status:f", ["status:failed"]),
        ("status:failed,can", ["status:failed,canceled"]),
        ("-status:s", ["-status:succeeded"]),
        ("workflow:or", ["workflow:order", 'workflow:"order refund"']),
        ("status:failed workflow:order", ['status:failed workflow:"order refund"']),
        ('workflow:"order r', ['workflow:"order refund"']),
        ('workflow:"order refund",s', ['workflow:"order refund","say \\"hi\\""']),
        ('workflow:"order refund" status:r', ['workflow:"order refund" status:running']),
        ("tag.c", ["tag.customer:"]),
        ("tag.customer:a", ["tag.customer:acme", "tag.customer:Ajax"]),
        ("paused:", ["paused:yes", "paused:no"]),
        ("created>", ["created>15m", "created>1h", "created>1d", "created>7d"]),
        ("error~tim", []),
        ("nonsense:", []),
    ],
)
def test_the_last_term_is_completed(typed: str, offered: list[str]) -> None:
    assert completions(typed, SEEN) == offered


def test_each_value_that_is_offered_can_be_read() -> None:
    for typed in ("workflow:", "tag.customer:", "status:", "created<", "paused:"):
        for each in completions(typed, SEEN):
            (term,) = parse_filter(each)
            assert term.values
