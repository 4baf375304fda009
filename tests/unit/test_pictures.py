"""The picture of the comparison says what its tables say."""

from __future__ import annotations

import pytest

from benchmarks.pictures import PANELS, PICTURE, README, Bar, bars, picture

REPORT = """
#### W1, costs of one run

|  | runs/s | least to most |
| --- | ---: | ---: |
| ours | 19,654 | 19,253 to 20,310 |
| nobody | - | - |

#### W4, idle

|  | p50 | least to most | p99 |
| --- | ---: | ---: | ---: |
| ours | 4.22 | 4.16 to 4.22 | 7.86 |
"""


def test_the_picture_is_that_of_the_tables() -> None:
    assert picture(README.read_text()) == PICTURE.read_text(), "python -m benchmarks.pictures"


def test_figures_are_read_from_their_table_and_column() -> None:
    rates, _, latency = PANELS

    assert [Bar("ours", 19654.0)] == bars(REPORT, rates)
    assert [Bar("ours", 4.22, 7.86)] == bars(REPORT, latency)


def test_a_report_without_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="no table 'W2,'"):
        bars(REPORT, PANELS[1])
