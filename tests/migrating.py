"""Programs of other versions, as tests need them: by the migrations that they know."""

import pytest

from openworkflow.backend import ledger, migrations
from openworkflow.backend.blueprint import Migration


class Program:
    """The migrations that every program of this test knows."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def knows(self, *some: Migration) -> None:
        """From now on these."""
        for module in (ledger, migrations):
            self._patch.setattr(module, "known", lambda: some)


def migration(version: int, name: str, sql: str, words: str = "additive") -> Migration:
    """A migration with such a head."""
    return Migration(version, name, f"-- openworkflow: {words}\n{sql}")
