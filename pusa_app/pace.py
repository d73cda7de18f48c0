"""How long a run still takes, from its own events."""

from __future__ import annotations

from pusa_app.events import Progress


class Pace:
    """Feed it the Progress events of one run; it says in seconds what is left of the sampling."""

    def __init__(self) -> None:
        self._first: Progress | None = None
        self._last: Progress | None = None

    def see(self, event: Progress) -> None:
        if event.phase != "sampling":
            self._first = self._last = None
            return
        # The first step also pays for warming up, so the clock starts when it is done.
        if self._first is None and event.step > 0:
            self._first = event
        self._last = event

    @property
    def remaining(self) -> float | None:
        """Seconds left, or None while fewer than two steps were measured."""
        if self._first is None or self._last is None or self._last.step <= self._first.step:
            return None
        per_step = (self._last.seconds - self._first.seconds) / (self._last.step - self._first.step)
        later = self._last.parts - self._last.part - 1
        return max(0.0, per_step * (self._last.steps - self._last.step + later * self._last.steps))


def clock(seconds: float) -> str:
    """Minutes and seconds as people read them: 0:07, 12:30, 1:02:03."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"
