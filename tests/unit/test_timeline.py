from __future__ import annotations

import json
import math
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pusa_app.errors import RecipeError
from pusa_app.timeline import (
    ClipSource,
    FrameGrid,
    ImageSource,
    Keyframe,
    NoiseSchedule,
    Recipe,
    ScheduleSpec,
    Timeline,
    frames_for_slots,
    nearest_length,
)

units = st.floats(0, 1)
paths = st.text(min_size=1, max_size=20)


@st.composite
def grids(draw) -> FrameGrid:
    stride = draw(st.integers(1, 8))
    slots = draw(st.integers(1, 40))
    fps = draw(st.floats(1, 60))
    return FrameGrid(num_frames=frames_for_slots(slots, stride), temporal_stride=stride, fps=fps)


@st.composite
def keyframes(draw, last: int = 60) -> Keyframe:
    slot, fit, focus = (
        draw(st.integers(0, last)),
        draw(st.sampled_from(["crop", "pad"])),
        draw(st.tuples(units, units)),
    )
    if draw(st.booleans()):
        return Keyframe(slot=slot, source=ImageSource(path=draw(paths)), noise=draw(units), fit=fit, focus=focus)
    span = draw(st.integers(1, 6))
    noise = draw(units | st.lists(units, min_size=span, max_size=span).map(tuple))
    source = ClipSource(path=draw(paths), start=draw(st.integers(0, 1000)))
    return Keyframe(slot=slot, source=source, noise=noise, span=span, fit=fit, focus=focus)


@st.composite
def timelines(draw) -> Timeline:
    sides = st.integers(1, 64).map(lambda n: 16 * n)
    placed = tuple(draw(st.lists(keyframes(), max_size=5)))
    return Timeline(grid=draw(grids()), width=draw(sides), height=draw(sides), keyframes=placed)


@st.composite
def valid_timelines(draw) -> Timeline:
    """Keyframes one after the other, at least one slot free."""
    grid = draw(grids().filter(lambda g: g.num_slots > 1))
    placed, slot = [], draw(st.integers(0, 3))
    while slot < grid.num_slots - 1 and draw(st.booleans()):
        keyframe = draw(keyframes(last=0))
        span = min(keyframe.span, grid.num_slots - 1 - slot)
        noise = keyframe.noise[:span] if isinstance(keyframe.noise, tuple) else keyframe.noise
        placed.append(keyframe.model_copy(update={"slot": slot, "span": span, "noise": noise}))
        slot += span + draw(st.integers(0, 3))
    return Timeline(grid=grid, width=64, height=64, keyframes=tuple(placed))


schedules = st.builds(
    ScheduleSpec,
    kind=st.sampled_from(["linear-quadratic", "shift"]),
    threshold=st.floats(0.001, 0.5),
    shift=st.floats(0.01, 20),
)


class TestGrid:
    @given(grids())
    def test_every_frame_is_in_exactly_one_slot(self, grid):
        frames = [frame for slot in range(grid.num_slots) for frame in grid.frames_of(slot)]
        assert frames == list(range(grid.num_frames))
        assert all(frame in grid.frames_of(grid.slot_of(frame)) for frame in frames)

    @given(grids(), st.floats(-100, 1e6))
    def test_time_is_clamped_to_the_clip(self, grid, seconds):
        slot = grid.slot_at(seconds)
        assert 0 <= slot < grid.num_slots
        if seconds <= 0:
            assert slot == 0
        if seconds >= grid.seconds:
            assert slot == grid.num_slots - 1

    @given(st.integers(-10, 10_000), st.integers(1, 64))
    def test_nearest_length_is_valid_and_near(self, frames, stride):
        near = nearest_length(frames, stride)
        assert near >= 1
        assert (near - 1) % stride == 0
        assert frames < 1 or abs(near - frames) <= stride / 2

    def test_mochi(self):
        grid = FrameGrid(num_frames=163, temporal_stride=6, fps=30)
        assert grid.num_slots == 28
        assert (list(grid.frames_of(0)), list(grid.frames_of(1))) == ([0], [1, 2, 3, 4, 5, 6])

    def test_odd_length_says_what_fits(self):
        with pytest.raises(ValidationError, match="for example 19"):
            FrameGrid(num_frames=20, temporal_stride=6, fps=30)
        for outside in (-1, 4):
            with pytest.raises(IndexError):
                FrameGrid(num_frames=19, temporal_stride=6, fps=30).frames_of(outside)


class TestTimeline:
    @given(timelines())
    def test_one_multiplier_per_slot_between_0_and_1(self, timeline):
        multipliers = timeline.noise_multipliers()
        assert len(multipliers) == timeline.grid.num_slots
        assert all(0 <= m <= 1 for m in multipliers)
        covered = {slot for keyframe in timeline.keyframes for slot in keyframe.slots}
        assert all(m == 1 for slot, m in enumerate(multipliers) if slot not in covered)

    @given(timelines())
    def test_json_round_trip(self, timeline):
        assert Timeline.model_validate_json(timeline.model_dump_json()) == timeline

    @given(valid_timelines())
    def test_what_fits_has_no_problems(self, timeline):
        assert timeline.problems(16) == []
        expected = [1.0] * timeline.grid.num_slots
        for keyframe in timeline.keyframes:
            expected[keyframe.slot : keyframe.slot + keyframe.span] = keyframe.noises
        assert timeline.noise_multipliers() == tuple(expected)

    @given(timelines())
    def test_problems_are_found_exactly_when_there_are_some(self, timeline):
        slots = [slot for keyframe in timeline.keyframes for slot in keyframe.slots]
        wrong = (
            any(slot >= timeline.grid.num_slots for slot in slots)
            or len(set(slots)) < len(slots)
            or not any(timeline.noise_multipliers())
        )
        found = timeline.problems(16)
        assert bool(found) == wrong
        assert all(sentence.endswith(".") and "\n" not in sentence for sentence in found)

    @given(valid_timelines())
    def test_a_clip_covers_the_frames_of_its_slots_and_a_picture_the_last(self, timeline):
        grid = timeline.grid
        for keyframe in timeline.keyframes:
            frames = list(keyframe.frames(grid.temporal_stride))
            covered = [frame for slot in keyframe.slots for frame in grid.frames_of(slot)]
            assert frames == (covered[-1:] if keyframe.still else covered)
            assert keyframe.num_frames(grid.temporal_stride) == len(frames)

    def test_huge_spans_cost_no_time(self):
        clips = tuple(Keyframe(slot=0, source=ClipSource(path="a.mp4"), span=100_000) for _ in range(1000))
        grid = FrameGrid(num_frames=13, temporal_stride=6, fps=30)
        began = time.monotonic()
        assert len(Timeline(grid=grid, width=64, height=64, keyframes=clips).problems()) == 1999
        assert time.monotonic() - began < 2

    def test_problems_say_where(self):
        def at(slot, noise=0.0):
            return Keyframe(slot=slot, source=ImageSource(path="x.png"), noise=noise)

        grid = FrameGrid(num_frames=13, temporal_stride=6, fps=30)
        timeline = Timeline(grid=grid, width=64, height=72, keyframes=(at(1), at(1), at(7)))
        size, end, both = sorted(timeline.problems(16), key=lambda s: ("size" not in s, "reaches" not in s))
        assert "64x72" in size
        assert "multiples of 16" in size
        assert "Keyframe 3 reaches slot 7" in end
        assert "Keyframes 1 and 2 are both in slot 1" in both
        full = Timeline(grid=grid, width=64, height=64, keyframes=(at(0), at(1), at(2)))
        assert "nothing to generate" in full.problems(16)[0]

    @pytest.mark.parametrize(
        "values",
        [
            {"slot": -1},
            {"noise": 1.5},
            {"noise": math.nan},
            {"noise": (0.1, 0.2)},
            {"span": 2},
            {"focus": (0.5, 2.0)},
            {"fit": "stretch"},
            {"colour": "red"},
        ],
    )
    def test_bad_keyframes_are_refused(self, values):
        with pytest.raises(ValidationError):
            Keyframe(**{"slot": 0, "source": ImageSource(path="x.png"), **values})


class TestSchedule:
    @given(schedules, st.integers(1, 200))
    def test_sigmas_fall_from_1_to_0(self, spec, steps):
        sigmas = spec.sigmas(steps)
        assert len(sigmas) == steps + 1
        assert (sigmas[0], sigmas[-1]) == (1, 0)
        assert all(a >= b for a, b in pairwise(sigmas))

    def test_small_shifts_start_at_exactly_1(self):
        sigmas = ScheduleSpec(kind="shift", shift=0.1).sigmas(4)
        assert NoiseSchedule(sigmas=sigmas, multipliers=(1.0,)).matrix()[0] == (1.0,)

    @pytest.mark.parametrize("steps", [2, 3, 10, 30, 64])
    def test_linear_quadratic_is_mochis(self, steps):
        pipeline = pytest.importorskip("diffusers.pipelines.mochi.pipeline_mochi")
        expected = [*pipeline.linear_quadratic_schedule(steps, 0.025), 0.0]
        assert ScheduleSpec(kind="linear-quadratic").sigmas(steps) == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize("steps", [1, 2, 3, 5, 20, 999, 1000])
    @pytest.mark.parametrize("threshold", [1e-6, 0.5])
    def test_no_threshold_leaves_the_range(self, steps, threshold):
        sigmas = ScheduleSpec(kind="linear-quadratic", threshold=threshold).sigmas(steps)
        assert NoiseSchedule(sigmas=sigmas, multipliers=(1.0,)).steps == steps
        with pytest.raises(ValidationError, match="threshold"):
            ScheduleSpec(kind="linear-quadratic", threshold=0.51)

    @given(valid_timelines(), schedules, st.integers(1, 50))
    def test_noise_matrix(self, timeline, spec, steps):
        multipliers = timeline.noise_multipliers()
        S = NoiseSchedule(sigmas=spec.sigmas(steps), multipliers=multipliers).matrix()
        assert len(S) == steps + 1
        assert S[0] == multipliers
        assert not any(S[-1])
        for before, after in pairwise(S):
            assert len(after) == timeline.grid.num_slots
            assert all(0 <= b <= a <= 1 for a, b in zip(before, after, strict=True))

    @pytest.mark.parametrize("sigmas", [(1.0,), (1.0, 0.5), (0.5, 1.0, 0.0), (math.nan, 0.0), (2.0, 0.0)])
    def test_bad_sigmas_are_refused(self, sigmas):
        with pytest.raises(ValidationError):
            NoiseSchedule(sigmas=sigmas, multipliers=(1.0,))

    @pytest.mark.parametrize("steps", [0, -3, 1001])
    def test_bad_steps_are_refused(self, steps):
        with pytest.raises(ValueError, match="steps must be from 1 to 1000"):
            ScheduleSpec(kind="shift").sigmas(steps)


class TestRecipe:
    @given(
        valid_timelines(), st.text(max_size=200), st.integers(0, 2**63 - 1), schedules | st.none(), st.floats(0, 100)
    )
    def test_json_round_trip(self, timeline, prompt, seed, schedule, guidance):
        recipe = Recipe(
            task="keyframes",
            timeline=timeline,
            prompt=prompt,
            steps=5,
            guidance=guidance,
            seed=seed,
            schedule=schedule,
        )
        assert Recipe.from_json(recipe.to_json()) == recipe

    @given(st.text(max_size=300))
    def test_any_text_is_refused_in_one_line(self, text):
        with pytest.raises(RecipeError) as caught:
            Recipe.from_json(text)
        assert "\n" not in str(caught.value)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
        )
    )
    def test_any_json_is_refused_in_one_line(self, data):
        with pytest.raises(RecipeError) as caught:
            Recipe.from_json(json.dumps(data))
        assert "\n" not in str(caught.value)

    def test_mistakes_name_the_field(self, tmp_path):
        timeline = Timeline(grid=FrameGrid(num_frames=7, temporal_stride=6, fps=30), width=64, height=64)
        recipe = Recipe(task="text-to-video", timeline=timeline, steps=5, guidance=4, seed=1)
        with pytest.raises(RecipeError, match="not valid at steps"):
            Recipe.from_json(recipe.to_json().replace('"steps": 5', '"steps": 0'))
        with pytest.raises(RecipeError, match="version 9"):
            Recipe.from_json(recipe.to_json().replace('"version": 2', '"version": 9'))
        first = Keyframe(slot=0, source=ClipSource(path="a.mp4"))
        later = first.model_copy(update={"slot": 1})
        for keyframe, fits in ((first, True), (later, False)):
            old = recipe.model_copy(update={"task": "keyframes", "timeline": timeline.having(keyframe), "version": 1})
            if fits:
                assert Recipe.from_json(old.to_json()) == old
                continue
            with pytest.raises(RecipeError, match="of version 1, where clips in later slots meant other frames"):
                Recipe.from_json(old.to_json())
        with pytest.raises(RecipeError, match="far too long"):
            Recipe.from_json(" " * 2_000_000)
        for key, data in (("x" * 500_000, 1), ("version", 10**4000)):
            with pytest.raises(RecipeError) as caught:
                Recipe.from_json(json.dumps(json.loads(recipe.to_json()) | {key: data}))
            assert len(str(caught.value)) < 300
        (tmp_path / "r.json").write_text(recipe.to_json(), encoding="utf-8-sig")
        assert Recipe.from_file(tmp_path / "r.json") == recipe
        (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
        for name in ("b.json", "none.json"):
            with pytest.raises(RecipeError, match=name):
                Recipe.from_file(tmp_path / name)
