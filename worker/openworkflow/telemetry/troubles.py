"""What goes wrong again and again, such as each beat of a heartbeat, said once for each reason."""

import logging

MOST_REASONS = 20
"""Most reasons told apart until it is over: each may have words of its own."""


class Troubles:
    """One thing that is tried again: what keeps it from succeeding, and how often.

    The first refusal of each reason is a warning, and every one whose number is a power of ten, so
    that who looks at the end of a log finds it; the others are seen with the level DEBUG.
    """

    def __init__(self, logger: logging.Logger, what: str, *, level: int = logging.WARNING) -> None:
        self.count = 0
        """Failures in a row."""
        self._logger, self._what, self._level = logger, what, level
        self._reasons: set[str] = set()

    def failed(self, error: object) -> None:
        """Note that it went wrong, and why."""
        self.count += 1
        reason = str(error) or repr(error)
        new = reason not in self._reasons and len(self._reasons) < MOST_REASONS
        self._reasons.update([reason] if new else [])
        is_round = set(str(self.count)) == {"1", "0"} and str(self.count).count("1") == 1
        level = self._level if new or is_round else logging.DEBUG
        times = f" ({self.count} times in a row)" if self.count > 1 else ""
        self._logger.log(level, "%s%s: %s", self._what, times, reason)

    def succeeded(self) -> None:
        """Note that it went well: what went wrong is over."""
        if self.count:
            times = "once" if self.count == 1 else f"{self.count} times"
            self._logger.info("it is over, after it went wrong %s: %s", times, self._what)
        self.count = 0
        self._reasons.clear()
