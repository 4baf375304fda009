"""Named statements: what includes and macros become."""

import pytest

from openworkflow_contract import statements


def test_a_macro_that_was_not_expanded_is_refused_before_a_database_sees_it() -> None:
    with pytest.raises(ValueError, match=r"statement 'late': \{instant due \+ 1\}"):
        statements.expand({"late": "select {instant due + 1} from {schema}.runs"}, "public")


def test_placeholders_that_are_filled_later_and_json_stay() -> None:
    blocks = {"claim": """select '{"a": 1}'::jsonb where {where} limit {limit}"""}

    assert blocks == statements.expand(blocks, "public")
