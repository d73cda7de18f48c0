"""What is said about a timeline: warnings where it will fail, silence where it will not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pusa_app import testing
from pusa_app.models import get_card
from pusa_app.timeline import (
    TASKS,
    ClipSource,
    FrameGrid,
    Given,
    ImageSource,
    Keyframe,
    Options,
    Timeline,
    advise,
    frames_for_slots,
)
from pusa_app.timeline.advice import TEXTS
from tests.conftest import TINY_SPEC


def picture(slot: int, noise: float = 0.0) -> Keyframe:
    return Keyframe(slot=slot, source=ImageSource(path=f"{slot}.png"), noise=noise)


def clip(slot: int, span: int, start: int = 0, noise: float | tuple[float, ...] = 0.0) -> Keyframe:
    return Keyframe(slot=slot, span=span, source=ClipSource(path="a.mp4", start=start), noise=noise)


def on(slots: int, *keyframes: Keyframe) -> Timeline:
    grid = FrameGrid(num_frames=frames_for_slots(slots, 6), temporal_stride=6, fps=12)
    return Timeline(grid=grid, width=64, height=64, keyframes=keyframes)


@pytest.mark.parametrize(
    ("timeline", "words"),
    [
        (on(3, picture(0), picture(1), picture(2)), "Every slot is clean"),
        (on(7, clip(0, 7)), "Every slot is clean"),
        (on(7, picture(0), picture(2)), "Only 1 slot is free between the clean slots 0 and 2"),
        (on(7, picture(6), clip(0, 5)), "Only 1 slot is free between the clean slots 4 and 6"),
        (on(7, picture(3), picture(4)), "No slot is free between the clean slots 3 and 4"),
        (on(7, clip(0, 2, 0), clip(2, 2, 50)), "No slot is free"),
        (on(7, picture(0, 0.95), picture(6, 1)), "nearly pure noise"),
        (on(7, clip(0, 7, noise=0.97)), "nearly pure noise"),
    ],
)
def test_what_will_fail_is_said(timeline: Timeline, words: str) -> None:
    (warning,) = advise("keyframes", timeline).warnings
    assert words in warning and warning.endswith(".")


@pytest.mark.parametrize(
    "timeline",
    [
        on(7),
        on(7, picture(0), picture(3)),
        on(7, picture(0), picture(2, 0.3)),
        on(7, picture(0, 0.1), picture(2)),
        on(7, picture(0), picture(6, 0.97)),
        on(7, clip(0, 2, 0), clip(2, 2, 7)),  # one clip in two pieces
        on(7, clip(0, 3), clip(4, 3, 19, noise=(0.5, 0.2, 0))),
    ],
)
def test_what_works_is_not_talked_about(timeline: Timeline) -> None:
    assert advise("keyframes", timeline).warnings == ()


def specs():
    return [testing.card().spec, TINY_SPEC, *(card.spec for card in [get_card("mini")] if card.folder)]


@pytest.mark.parametrize("task", TASKS)
def test_what_a_task_builds_by_itself_needs_no_warning(task: str) -> None:
    """Every length but the shortest, which leaves one free slot at most."""
    long = Given(path="a.mp4", frames=400)
    given = {"clip": long, "clip_b": long, "image": Given(path="a.png"), "end": Given(path="b.png")}
    for spec in specs():
        for frames in (n for n in spec.lengths() if n > 3 * spec.temporal_stride):
            for other in ("image", "clip") if task == "loop" else ("",):
                things = {name: thing for name, thing in given.items() if name != other}
                for style in ("bridge", "cross"):
                    options = Options(gap=(100, 110), style=style)
                    timeline = TASKS[task].timeline(spec.timeline(frames), things, options, spec.noise)
                    said = advise(task, timeline)
                    assert said.warnings == (), (task, frames, style)
                    assert said.text
                    noises = timeline.noise_multipliers()
                    if style == "bridge":
                        assert all(b.low <= noises[b.slot] <= b.high or noises[b.slot] == 0 for b in said.bands)


@given(st.sampled_from(sorted(TASKS)), st.lists(st.tuples(st.integers(0, 12), st.integers(1, 4), st.floats(0, 1))))
def test_bands_are_there_for_every_slot_with_a_keyframe(task, placed) -> None:
    """Even while a keyframe reaches beyond the end, or two are in one slot: the user is still moving them."""
    timeline = on(7, *(clip(slot, span, noise=noise) for slot, span, noise in placed))
    said = advise(task, timeline)
    assert sorted(b.slot for b in said.bands) == sorted(s for k in timeline.keyframes for s in k.slots if s < 7)
    assert all(0 <= b.low <= b.high <= 1 for b in said.bands)


def behind(
    length: int, *keyframes: Keyframe, gap: tuple[int, int] = (13, 25), end: int | None = None
) -> tuple[str, ...]:
    """What is said of a clip of so many frames with a gap."""
    ended = [
        k.model_copy(update={"source": k.source.model_copy(update={"end": end})}) if k.source.kind == "clip" else k
        for k in keyframes
    ]
    return advise("complete", on(7, *ended), Options(gap=gap), lambda path, fps: length).warnings


def test_what_the_model_does_not_see_behind_a_gap_is_said() -> None:
    start, rest = clip(0, 3), clip(5, 1, 25)
    for few in (1, 5):
        (warning,) = behind(25 + few, start)
        assert warning.startswith(f"Only {few} frame") and "so that 6 follow it" in warning
    (warning,) = behind(31, start)
    assert warning.startswith("The model does not see what follows the gap")
    assert behind(31, start, rest) == behind(25, start) == behind(24, start) == behind(31, start, end=25) == ()
    assert behind(31, picture(0)) == (), "the planner says that there is no clip"
    assert behind(50, start, end=28) == behind(28, start)
    timeline = on(7, start)
    assert advise("complete", timeline).warnings == advise("complete", timeline, Options(gap=(13, 25))).warnings == ()
    assert advise("extend", timeline, Options(), lambda path, fps: 31).warnings == ()


def test_every_task_has_its_text() -> None:
    assert set(TEXTS) == set(TASKS) and all(TEXTS.values())
