"""What is said about a timeline: warnings where it will fail, silence where it will not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pusa_app import testing
from pusa_app.errors import RecipeError
from pusa_app.models import BackboneSpec, ModelCard, get_card
from pusa_app.presets import Preset, presets
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
        (on(7, picture(0), picture(1, 0.01)), "No slot is free between the nearly clean slots 0 and 1"),
        (on(7, picture(0, 0.1), picture(2, 0.29)), "Only 1 slot is free between the nearly clean slots 0 and 2"),
        (on(7, clip(0, 2, noise=(0.5, 0.1)), picture(2)), "No slot is free between the nearly clean slots 1 and 2"),
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
        on(7, picture(0, 0.11), picture(2)),
        on(7, picture(0), picture(6, 0.97)),
        on(7, clip(0, 2, 0), clip(2, 2, 7)),  # one clip in two pieces
        on(7, clip(0, 3), clip(4, 3, 19, noise=(0.5, 0.2, 0))),
    ],
)
def test_what_works_is_not_talked_about(timeline: Timeline) -> None:
    assert advise("keyframes", timeline).warnings == ()


def cards() -> list[ModelCard]:
    return [testing.card(), *(card for card in [get_card("mini")] if card.folder)]


def specs() -> list[BackboneSpec]:
    """Of mini among others, and the grids of Wan and Mochi."""
    own = testing.card().spec
    wan = own.model_copy(update={"temporal_stride": 4, "fps": 16.0, "num_frames": 81, "max_frames": 81})
    mochi = own.model_copy(update={"fps": 30.0, "num_frames": 163, "max_frames": 163})
    return [*(card.spec for card in cards()), TINY_SPEC, wan, mochi]


@pytest.mark.parametrize("task", TASKS)
def test_what_a_task_builds_by_itself_needs_no_warning_and_is_as_advised(task: str) -> None:
    """Every length but the shortest, which leaves one free slot at most."""
    for spec in specs():
        for frames in (n for n in spec.lengths() if n > 3 * spec.temporal_stride):
            for options, timeline in built(task, spec, frames):
                said = advise(task, timeline, options)
                assert said.warnings == (), (task, frames, options)
                assert said.text
                noises = timeline.noise_multipliers()
                outside = [b for b in said.bands if not b.low <= noises[b.slot] <= b.high]
                assert not outside, (task, frames, options, noises)


def built(task: str, spec: BackboneSpec, frames: int) -> Iterator[tuple[Options, Timeline]]:
    """What a task makes of long clips and short ones, in every style."""
    pictures = {"image": Given(path="a.png"), "end": Given(path="b.png")}
    for length in (400, 4 * spec.temporal_stride):
        clip = Given(path="a.mp4", frames=length)
        given = {**pictures, "clip": clip, "clip_b": clip}
        for other in ("image", "clip") if task == "loop" else ("",):
            things = {name: thing for name, thing in given.items() if name != other}
            for style in ("bridge", "cross"):
                begin = spec.temporal_stride + 1
                options = Options(gap=(begin, begin + spec.temporal_stride), style=style)  # type: ignore[arg-type]
                with contextlib.suppress(RecipeError):  # a short clip cannot be restyled at every length
                    yield options, TASKS[task].timeline(spec.timeline(frames), things, options, spec.noise)


@pytest.mark.parametrize(("slots", "meeting"), [(3, 1), (7, 3), (21, 10), (28, 13)])
def test_where_clips_cross_their_ramp_is_advised(slots: int, meeting: int) -> None:
    timeline = on(slots, clip(0, meeting + 1), clip(meeting + 1, slots - meeting - 1, 50))
    said = advise("transition", timeline, Options(style="cross"))
    bands = {band.slot: (round(band.low, 6), round(band.high, 6)) for band in said.bands}
    assert bands[0] == bands[slots - 1] == (0, 0.1) and bands[meeting] == (0.8, 0.95)
    lows = [bands[slot][0] for slot in range(slots)]
    assert lows[: meeting + 1] == sorted(lows[: meeting + 1]) and lows[meeting:] == sorted(lows[meeting:], reverse=True)
    assert "0.9" in said.text and said.text != advise("transition", timeline).text
    # A picture between is no part of the crossing.
    (band,) = advise("transition", on(7, picture(3)), Options(style="cross")).bands
    assert (band.low, band.high) == (0.2, 0.7)


@pytest.mark.parametrize(
    ("task", "timeline", "bands"),
    [
        ("image-to-video", on(7, picture(0)), [(0, 0.4)]),
        ("start-end", on(7, picture(0), picture(6)), [(0, 0.3), (0.3, 0.7)]),
        ("keyframes", on(7, picture(0), picture(3), picture(6)), [(0, 0.4), (0.2, 0.7), (0.3, 0.7)]),
        ("transition", on(7, clip(0, 1), clip(6, 1, 50)), [(0, 0.3), (0, 0.8)]),
        ("loop", on(7, picture(0), picture(6)), [(0, 0.3), (0.3, 0.8)]),
        ("extend", on(7, clip(0, 1)), [(0, 0.4)]),
        ("restyle", on(7, clip(0, 1)), [(0.5, 0.85)]),
    ],
)
def test_what_is_drawn_is_what_is_said(task: str, timeline: Timeline, bands: list[tuple[float, float]]) -> None:
    said = advise(task, timeline, Options())
    assert [(band.low, band.high) for band in said.bands] == bands
    assert all(f"{high:g}" in said.text for _, high in bands)


@pytest.mark.parametrize("preset", presets(), ids=lambda preset: preset.name)
def test_a_built_in_preset_needs_no_warning(preset: Preset) -> None:
    for card in cards():
        recipe = preset.example(card)
        assert advise(recipe.task, recipe.timeline, recipe.options).warnings == ()


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
