"""What a server may ask of the operator while it logs in.

asyncpg computes what the server asks for on the one event loop of all tenants: the answer to SCRAM
takes as many rounds as the server likes. So whole messages are read before they are passed on.
"""

from __future__ import annotations

import re
from typing import Final

from openworkflow_operator.database.diagnosis import AnswerTooLarge, CostlyLogin

#: PostgreSQL's own default is 4096; a hundred thousand take about 50 ms.
MOST_ITERATIONS: Final = 100_000
#: Of a whole login; PostgreSQL's takes less than 1 KiB.
MOST_LOGIN_BYTES: Final = 64 * 2**10

_TOO_MANY: Final = (
    f"the server asks for more than {MOST_ITERATIONS} rounds of SCRAM: lower `scram_iterations` "
    "and set the role's password again"
)
_ITERATIONS: Final = re.compile(rb"i=(\d+)")
_SCRAM_CONTINUES: Final = (11).to_bytes(4, "big")


class Login:
    """Reads what a server sends until it is ready for queries."""

    def __init__(self) -> None:
        self._rest = b""
        self._bytes = self._iterations = 0
        self._is_over = False

    def take(self, data: bytes) -> bytes:
        """Returns what of it, and of what was held back, may be passed on.

        Raises CostlyLogin, AnswerTooLarge.
        """
        if self._is_over:
            return data
        self._bytes += len(data)
        self._rest += data
        passed = 0
        while (end := self._end_of_message(passed)) is not None:
            self._is_over = self._is_last(self._rest[passed:end])
            passed = len(self._rest) if self._is_over else end
        if self._bytes > MOST_LOGIN_BYTES and not self._is_over:
            raise AnswerTooLarge
        ready, self._rest = self._rest[:passed], self._rest[passed:]
        return ready

    def _end_of_message(self, start: int) -> int | None:
        if len(self._rest) < start + 5:
            return None
        length = int.from_bytes(self._rest[start + 1 : start + 5], "big")
        if not 4 <= length <= MOST_LOGIN_BYTES:
            raise AnswerTooLarge
        end = start + 1 + length
        return end if len(self._rest) >= end else None

    def _is_last(self, message: bytes) -> bool:
        if message[:1] == b"R" and message[5:9] == _SCRAM_CONTINUES:
            # Wherever the driver may find it, and all of them together.
            for digits in _ITERATIONS.findall(message):
                self._iterations += int(digits) if len(digits) < 10 else MOST_ITERATIONS + 1
            if self._iterations > MOST_ITERATIONS:
                raise CostlyLogin(_TOO_MANY)
        return message[:1] == b"Z"
