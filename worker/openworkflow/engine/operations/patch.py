"""`step.patched`: two paths in one workflow function, and which one a run takes.

A run that has recorded what comes after the question was begun by the code from before it: it keeps
the old path. Any other takes the new one, and says so by a row like that of a step, so that every
replay answers the same. A run without the row has events that come after the question instead; both
only grow, so no answer ever changes.
"""

from openworkflow.core.errors import ConfigurationError
from openworkflow.core.names import PATCH_LIMIT
from openworkflow.core.shown import shown
from openworkflow.engine.history import History
from openworkflow.engine.keys import PATCHED
from openworkflow.engine.recorder import Recorder
from openworkflow.engine.step_call import StepCall


class Patches:
    """The answers of one execution."""

    __slots__ = ("_answers", "_history", "_recorder")

    def __init__(self, history: History, recorder: Recorder) -> None:
        self._history, self._recorder = history, recorder
        self._answers: dict[str, bool] = {}

    @property
    def asked(self) -> list[str]:
        """The names asked for."""
        return list(self._answers)

    def ask(self, name: str) -> bool:
        """Whether this run takes the new path. Raises ConfigurationError for an unfit name."""
        if type(name) is not str or name not in self._answers:
            if type(name) is not str or not 0 < len(name) <= PATCH_LIMIT or not name.isprintable():
                raise ConfigurationError(
                    f"a patch's name must be text of 1 to {PATCH_LIMIT} characters, "
                    f"not {shown(name)}"
                )
            self._answers[name] = self._decide(PATCHED + name)
        return self._answers[name]

    def _decide(self, key: str) -> bool:
        if self._history.is_recorded(key):
            return True
        if self._history.pending:
            return False
        self._recorder.mark(StepCall(key, 1), "true")
        return True
