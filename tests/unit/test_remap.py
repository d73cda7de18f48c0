"""A timeline on another grid: nothing lost in silence, nothing on top of each other, no clip asked for more."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pusa_app.timeline import (
    ClipSource,
    FrameGrid,
    Given,
    ImageSource,
    Keyframe,
    Options,
    Timeline,
    frames_for_slots,
    get_task,
    remap,
)

units = st.floats(0, 1)


def grid(slots: int = 7, stride: int = 6, fps: float = 12) -> FrameGrid:
    return FrameGrid(num_frames=frames_for_slots(slots, stride), temporal_stride=stride, fps=fps)


grids = st.builds(grid, st.integers(1, 40), st.sampled_from([1, 4, 6, 8]), st.sampled_from([8, 12, 16, 24, 29.97, 30]))


@st.composite
def timelines(draw) -> Timeline:
    """Keyframes one behind the other, with or without free slots between."""
    where, placed, slot = draw(grids), [], draw(st.integers(0, 2))
    while slot < where.num_slots and draw(st.integers(0, 4)):
        if draw(st.booleans()):
            placed.append(Keyframe(slot=slot, source=ImageSource(path="a.png"), noise=draw(units)))
        else:
            span = draw(st.integers(1, where.num_slots - slot))
            begin = draw(st.integers(0, 20))
            start = begin + draw(st.integers(0, 50))
            source = ClipSource(path="a.mp4", start=start, begin=begin, end=draw(st.sampled_from([None, start + 500])))
            noise = draw(units | st.lists(units, min_size=span, max_size=span).map(tuple))
            placed.append(Keyframe(slot=slot, span=span, source=source, noise=noise))
        slot = placed[-1].slots.stop + draw(st.integers(0, 3))
    return Timeline(grid=where, width=64, height=64, keyframes=tuple(draw(st.permutations(placed))))


def matched(before: Timeline, after: Timeline, notes: list[str]) -> list[tuple[int, Keyframe, Keyframe]]:
    """Keyframes that were kept: number, before, after; those that were left out are noted."""
    numbers = range(1, len(before.keyframes) + 1)
    kept = [n for n in numbers if not any(note.startswith(f"Keyframe {n} ") and "left out" in note for note in notes)]
    assert len(kept) == len(after.keyframes), "none is lost without a note"
    return [(n, before.keyframes[n - 1], new) for n, new in zip(kept, after.keyframes, strict=True)]


@settings(max_examples=400)
@given(timelines(), grids)
def test_any_timeline_on_any_grid(before, new) -> None:
    after, notes = remap(before, new, 128, 96)
    assert (after.grid, after.width, after.height) == (new, 128, 96)
    assert [p for p in after.problems() if "Every slot" not in p] == [], "nothing overlaps, nothing is outside"
    assert Timeline.model_validate_json(after.model_dump_json()) == after
    for number, old_key, new_key in matched(before, after, notes):
        assert type(new_key.source) is type(old_key.source)
        old_at, new_at = (old_key.slot, old_key.span), (new_key.slot, new_key.span)
        said = [note for note in notes if note.startswith(f"Keyframe {number} ")]
        assert bool(said) == (old_at != new_at), "notes name what moved, and only that"
        if old_key.still:
            continue
        # In seconds of the source: not before what was used, and not behind it.
        begins, ends = old_key.source.start, old_key.source.start + old_key.num_frames(before.grid.temporal_stride)
        first, stop = new_key.source.start, new_key.source.start + new_key.num_frames(new.temporal_stride)
        rate = new.fps / before.grid.fps
        assert first >= begins * rate - 1e-6 and stop <= round(ends * rate)
    left_out = [note for note in notes if "no free slot" in note]
    assert not left_out or len({s for k in after.keyframes for s in k.slots}) == new.num_slots


@settings(max_examples=300)
@given(timelines(), grids)
def test_ends_stay_ends(before, new) -> None:
    after, notes = remap(before, new)
    for _, old_key, new_key in matched(before, after, notes):
        if old_key.slot == 0:
            assert new_key.slot == 0
        elif old_key.slots.stop == before.grid.num_slots:
            assert new_key.slots.stop == new.num_slots


@given(timelines())
def test_the_same_grid_changes_nothing(timeline) -> None:
    assert remap(timeline, timeline.grid) == (timeline, [])


@given(timelines(), grids)
def test_a_free_slot_stays_free(before, new) -> None:
    if (
        new.num_slots > len(before.keyframes)
        and len({s for k in before.keyframes for s in k.slots}) < before.grid.num_slots
    ):
        after, _ = remap(before, new)
        assert len({s for k in after.keyframes for s in k.slots}) < new.num_slots


def test_what_a_clip_leads_to_is_not_cut_off() -> None:
    """On a shorter grid an extension still goes on from the clip's last frame, and clip B starts with its first."""
    a, b = Given(path="a.mp4", frames=100), Given(path="b.mp4", frames=100)
    blank = Timeline(grid=grid(7), width=64, height=64)
    timeline = get_task("transition").timeline(blank, {"clip": a, "clip_b": b})
    for slots in (3, 4, 5, 6, 9):
        shorter, notes = remap(timeline, grid(slots))
        first, last = shorter.keyframes
        assert first.source.start + first.num_frames(6) == 100 and last.source.start == 0  # type: ignore[union-attr]
        assert shorter.problems() == [] and bool(notes) == (slots != 7)
    ramp = timeline.keyframes[0].model_copy(update={"noise": (0.1, 0.2, 0.3)})
    assert remap(timeline.having(ramp), grid(3))[0].keyframes[0].noises == (0.2, 0.3), "the joint keeps its noise"


def test_another_rate_counts_other_frames() -> None:
    """Two seconds into a clip stay two seconds."""
    source = ClipSource(path="a.mp4", start=24, begin=12, end=61)
    timeline = Timeline(grid=grid(7), width=64, height=64).having(Keyframe(slot=4, span=3, source=source))
    after, notes = remap(timeline, grid(28, 6, 30))
    (moved,) = after.keyframes
    assert (moved.source.start, moved.source.begin) == (60, 30) and moved.slots.stop == 28  # type: ignore[union-attr]
    assert moved.num_frames(6) <= 18 * 2.5 and moved.span == 7
    assert notes == ["Keyframe 1 moved from slot 4 to 21 and fills 7 slots instead of 3."]


def frames_at(fps: float, seconds: float = 2) -> int:
    return round(seconds * fps)


@pytest.mark.parametrize(
    "new", [grid(21, 4, 16), grid(28, 6, 30), grid(21, 4, 24), grid(7, 6, 8)], ids=lambda g: str(g.fps)
)
@pytest.mark.parametrize("task", ["extend", "loop", "transition"])
def test_a_clip_that_is_used_to_its_end_still_is_at_another_rate(task: str, new: FrameGrid) -> None:
    """Its last frame at the old rate stands for several at a higher one; how many, only the file knows."""
    clip = Given(path="a.mp4", frames=frames_at(12))
    timeline = get_task(task).timeline(
        Timeline(grid=grid(7), width=64, height=64), {"clip": clip, "clip_b": clip.model_copy(update={"path": "b.mp4"})}
    )
    after, _ = remap(timeline, new, length=lambda path, fps: frames_at(fps))
    before = after.keyframes[0]
    assert before.source.start + before.num_frames(new.temporal_stride) == frames_at(new.fps)  # type: ignore[union-attr]
    kept = next(p for p in get_task(task).plan(after).pieces if p.kind == "kept")
    assert kept.start <= kept.stop == frames_at(new.fps)


@given(timelines(), grids)
def test_what_ends_inside_its_file_is_not_drawn_out(before, new) -> None:
    assert remap(before, new, length=lambda path, fps: frames_at(fps, 10_000)) == remap(before, new)


@given(timelines(), grids)
def test_no_more_is_asked_for_than_the_file_has(before, new) -> None:
    """Whichever of the keyframes ends with the file."""
    stride = before.grid.temporal_stride
    ends = [k.source.start + k.num_frames(stride) for k in before.keyframes if not k.still]
    seconds = max(ends, default=1) / before.grid.fps
    after, _ = remap(before, new, length=lambda path, fps: frames_at(fps, seconds))
    for keyframe in after.keyframes:
        if not keyframe.still:
            assert keyframe.source.start + keyframe.num_frames(new.temporal_stride) <= frames_at(new.fps, seconds)


def test_a_task_can_still_be_run_after_the_length_changed() -> None:
    clip = Given(path="a.mp4", frames=100)
    for task in ("extend", "transition", "loop"):
        blank = Timeline(grid=grid(7), width=64, height=64)
        options = Options(frames=24) if task == "extend" else Options()
        timeline = get_task(task).timeline(blank, {"clip": clip, "clip_b": clip}, options)
        for slots in range(3, 30):
            get_task(task).plan(remap(timeline, grid(slots))[0], options)


def test_too_many_keyframes_are_left_out_and_named() -> None:
    full = Timeline(grid=grid(7), width=64, height=64).having(
        *(Keyframe(slot=slot, source=ImageSource(path="a.png")) for slot in range(7))
    )
    after, notes = remap(full, grid(3))
    assert [k.slot for k in after.keyframes] == [0, 1, 2]
    assert sum("left out" in note for note in notes) == 4
    one_frame = full.having(Keyframe(slot=3, span=1, source=ClipSource(path="a.mp4")))
    assert remap(one_frame, grid(7, 8, 12))[1] == [
        "Keyframe 1 (slot 3) has too few frames to fill a slot and was left out."
    ]
