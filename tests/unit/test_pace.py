"""What is left of a run, told from its events."""

from __future__ import annotations

import pytest

from pusa_app.events import Phase, Progress
from pusa_app.pace import Pace


def fed(pace: Pace, phase: Phase, steps: int, start: float, each: float, upto: int | None = None, **more: int) -> float:
    """Feed a phase; returns the time at its end."""
    for step in range((steps if upto is None else upto) + 1):
        pace.see(Progress(phase, step, steps, start + step * each, **more))
    return start + (steps if upto is None else upto) * each


def test_steps_are_measured_from_the_second_on() -> None:
    pace = Pace()
    assert (pace.per_step, pace.remaining) == (None, None)
    pace.see(Progress("loading"))
    pace.see(Progress("sampling", 0, 10, 20.0))
    pace.see(Progress("sampling", 1, 10, 50.0))  # warming up
    assert (pace.per_step, pace.remaining) == (None, None)
    pace.see(Progress("sampling", 2, 10, 52.0))
    assert (pace.per_step, pace.remaining) == (2.0, 16.0)


def test_a_run_that_goes_on_is_measured_by_its_own_steps() -> None:
    pace = Pace()
    pace.see(Progress("sampling", 6, 10, 1.0))
    pace.see(Progress("sampling", 7, 10, 3.0))
    assert (pace.per_step, pace.remaining) == (2.0, 6.0)


def test_decoding_counts_while_it_goes_on() -> None:
    pace = Pace()
    end = fed(pace, "sampling", 10, 0.0, 1.0)
    assert pace.remaining == 0.0
    fed(pace, "decoding", 37, end, 0.1, upto=0)
    assert pace.remaining is None, "nobody knows yet"
    fed(pace, "decoding", 37, end, 0.1, upto=7)
    assert pace.remaining == pytest.approx(3.0)
    fed(pace, "decoding", 37, end, 0.1)
    assert pace.decoding == pytest.approx(0.37) and pace.remaining == 0.0


def test_decoding_of_an_earlier_run_is_counted_from_the_start() -> None:
    pace = Pace(decoding=0.5)
    end = fed(pace, "sampling", 10, 0.0, 1.0, upto=4)
    assert pace.remaining == 6.0 + 5.0
    end = fed(pace, "sampling", 10, 0.0, 1.0)
    fed(pace, "decoding", 37, end, 0.1, upto=0)
    assert pace.remaining == 5.0


def test_later_parts_are_counted_with_what_was_measured() -> None:
    pace = Pace()
    end = fed(pace, "sampling", 10, 0.0, 1.0, part=0, parts=3)
    assert pace.remaining == 20.0
    end = fed(pace, "decoding", 20, end, 0.1, part=0, parts=3)
    assert pace.decoding == pytest.approx(0.2) and pace.remaining == pytest.approx(24.0)
    pace.see(Progress("encoding", 1, 2, end, part=1, parts=3))
    assert pace.remaining == pytest.approx(24.0), "it does not vanish between parts"
    fed(pace, "sampling", 10, end, 1.0, upto=5, part=1, parts=3)
    assert pace.remaining == pytest.approx(5 + 2 + 12)


def test_what_was_only_decoded_says_nothing_of_steps() -> None:
    pace = Pace()
    pace.see(Progress("sampling", 8, 8, 0.1))
    fed(pace, "decoding", 10, 0.2, 1.0, upto=4)
    assert pace.per_step is None and pace.decoding is None
    assert pace.remaining == pytest.approx(6.0)


def test_while_it_waits_or_writes_there_is_nothing_to_tell() -> None:
    pace = Pace(decoding=0.1)
    fed(pace, "sampling", 10, 0.0, 1.0)
    for phase in ("writing", "waiting", "loading"):
        pace.see(Progress(phase, 0, 1, 12.0))
        assert pace.remaining is None
