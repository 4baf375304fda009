"""`step.patched`: two paths in one workflow function, and which one a run takes.

A run that has recorded what comes after the question was begun by the code from before it: it keeps
the old path. Any other takes the new one, and says so by a row like that of a step, so that every
replay answers the same. A run without the row has the old path's steps in its history instead; both
only grow, so no answer ever changes.
"""

from openworkflow.core.errors import ConfigurationError
from openworkflow.engine.history import PATCHED, History
from openworkflow.engine.recorder import Recorder, StepCall

NAME_LIMIT = 100


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
        if name not in self._answers:
            if not 0 < len(name) <= NAME_LIMIT or not name.isprintable():
                raise ConfigurationError(
                    f"a patch's name must be text of 1 to {NAME_LIMIT} characters, not {name!r:.80}"
                )
            self._answers[name] = self._decide(PATCHED + name)
        return self._answers[name]

    def _decide(self, key: str) -> bool:
        if self._history.is_recorded(key):
            return True
        if self._history.unrequested:
            return False
        call = StepCall(key, 1)
        self._recorder.begin(call)
        self._recorder.succeeded(call, "true")
        return True
