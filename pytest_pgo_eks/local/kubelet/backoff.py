"""The crash-loop back-off of one container: none, 10 s, 20 s … 5 min, forgotten after 10 min."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class BackOff:
    """Kubernetes' rule: the first restart is immediate, each later one waits twice as long.

    The wait counts from the end of the container. A container that ran for twice the longest
    wait starts afresh.
    """

    first_s: float = 10.0
    longest_s: float = 300.0
    _delay_s: float = 0.0
    _updated: float = 0.0

    def next_delay_s(self, finished_at: float, now: float) -> float:
        """Return how long a container that ended at ``finished_at`` must still wait."""
        if self._delay_s and finished_at - self._updated > 2 * self.longest_s:
            self._delay_s = 0.0
        wait_s = max(0.0, finished_at + self._delay_s - now)
        self._delay_s = min(self.longest_s, self._delay_s * 2 or self.first_s)
        self._updated = now + wait_s
        return wait_s

    @property
    def current_s(self) -> float:
        """The wait that follows the next end, as Events and statuses say it."""
        return self._delay_s or self.first_s
