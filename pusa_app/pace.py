"""How long a run still takes, from its own events."""

from __future__ import annotations

from pusa_app.events import Progress


class Pace:
    """Feed it the Progress events of one run; it says in seconds what is left of the sampling and the decoding.

    decoding: how long decoding takes beside sampling, as an earlier run of this kind told; without it, it counts from
    when it was seen: in the decoding itself, and in a run of several parts from the second part on.
    """

    def __init__(self, decoding: float | None = None) -> None:
        self.decoding = decoding
        self._first: Progress | None = None
        self._last: Progress | None = None
        self._per_step: float | None = None
        self._steps = 0  # of one part

    def see(self, event: Progress) -> None:
        if self._last is None or (event.phase, event.part) != (self._last.phase, self._last.part):
            self._first = None
        # The first step also pays for warming up, so the clock starts when it is done.
        if self._first is None and (event.step > 0 or event.phase != "sampling"):
            self._first = event
        self._last = event
        if event.phase == "sampling":
            self._steps = event.steps
            if (rate := self._rate) is not None:
                self._per_step = rate
        elif event.phase == "decoding" and event.step == event.steps and self._per_step and self._first is not None:
            self.decoding = (event.seconds - self._first.seconds) / (self._per_step * self._steps)

    @property
    def per_step(self) -> float | None:
        """Seconds that a step of the sampling takes, or None while fewer than two were measured."""
        return self._per_step

    @property
    def remaining(self) -> float | None:
        """Seconds left, or None while too little was measured."""
        last, per_step = self._last, self._per_step
        if last is None or last.phase not in ("encoding", "sampling", "decoding"):
            return None
        later = last.parts - last.part - 1
        if per_step is None:
            # Nothing was sampled here, as after a stop while decoding: that alone can be told, when it is the last.
            return self._decoding_left(None) if last.phase == "decoding" and not later else None
        part = per_step * self._steps * (1 + (self.decoding or 0.0))
        if last.phase == "decoding":
            left = self._decoding_left(per_step)
            return None if left is None else left + later * part
        done = last.step if last.phase == "sampling" else 0
        return max(0.0, part - per_step * done + later * part)

    @property
    def _rate(self) -> float | None:
        """Seconds per step of the present phase."""
        if self._first is None or self._last is None or self._last.step <= self._first.step:
            return None
        return (self._last.seconds - self._first.seconds) / (self._last.step - self._first.step)

    def _decoding_left(self, per_step: float | None) -> float | None:
        assert self._last is not None
        left = self._last.steps - self._last.step
        if (rate := self._rate) is not None:
            return rate * left
        if self.decoding is None or per_step is None or not self._last.steps:
            return None
        return self.decoding * per_step * self._steps * left / self._last.steps


def clock(seconds: float) -> str:
    """Minutes and seconds as people read them: 0:07, 12:30, 1:02:03."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"
