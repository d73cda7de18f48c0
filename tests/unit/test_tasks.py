"""Every task on any grid: what a builder places and what a planner runs, checked frame by frame, without a model."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pusa_app import testing
from pusa_app.errors import RecipeError
from pusa_app.models import get_card
from pusa_app.timeline import (
    TASKS,
    ClipSource,
    FrameGrid,
    Given,
    ImageSource,
    Kept,
    Keyframe,
    Made,
    Options,
    PartSource,
    Plan,
    Recipe,
    TaskNoise,
    Timeline,
    frames_for_slots,
    get_task,
    plan_of,
)
from tests.conftest import TINY_SPEC

units = st.floats(0, 1)
ramps = st.lists(units, min_size=1, max_size=8).map(tuple)
noises = st.builds(TaskNoise, start=units, middle=units, end=units, before=ramps, after=ramps, restyle=units)


def blank(slots: int = 7, stride: int = 6) -> Timeline:
    grid = FrameGrid(num_frames=frames_for_slots(slots, stride), temporal_stride=stride, fps=12)
    return Timeline(grid=grid, width=64, height=64)


@st.composite
def blanks(draw, least: int = 1) -> Timeline:
    return blank(draw(st.integers(least, 40)), draw(st.sampled_from([4, 6])))


@st.composite
def clips(draw, path: str = "a.mp4") -> Given:
    frames = draw(st.integers(1, 60) | st.integers(1, 400))
    start = draw(st.just(0) | st.integers(0, frames - 1))
    stop = draw(st.none() | st.integers(start + 1, frames))
    return Given(path=path, frames=frames, start=start, stop=stop, noise=draw(st.none() | units))


@st.composite
def options_of(draw, clip: Given) -> Options:
    frames = draw(st.none() | st.integers(1, 300))
    gap = None
    if draw(st.booleans()):
        first = draw(st.integers(0, clip.frames))
        gap = (first, first + draw(st.integers(1, 60)))
    return Options(
        direction=draw(st.sampled_from(["forwards", "backwards", "both"])),
        frames=frames,
        result=draw(st.sampled_from(["joined", "made"])),
        style=draw(st.sampled_from(["bridge", "cross"])),
        gap=gap,
        closing=draw(units),
    )


def length(clip: Given) -> int:
    return clip.end - clip.start


def pieces_of(plan: Plan, given: dict[str, Given]) -> list[tuple[str, range]]:
    """Where each piece comes from and its frames; an open end is the end of the clip."""
    ends = {clip.path: clip.end for clip in given.values()}
    return [
        ("part", range(p.start, p.stop))
        if p.kind == "made"
        else (p.path, range(p.start, ends[p.path] if p.stop is None else p.stop))
        for p in plan.pieces
    ]


def count(plan: Plan, given: dict[str, Given]) -> int:
    return sum(len(frames) for _, frames in pieces_of(plan, given))


def check_parts(plan: Plan, lengths: dict[str, int]) -> None:
    """Every part can be made, from frames that exist by then; every made piece lies inside its part."""
    for number, part in enumerate(plan.parts):
        assert part.problems() == []
        multipliers = part.noise_multipliers()
        assert len(multipliers) == part.grid.num_slots and all(0 <= m <= 1 for m in multipliers)
        for keyframe in part.keyframes:
            Keyframe.model_validate(keyframe.model_dump())  # model_copy does not look
            source, used = keyframe.source, keyframe.num_frames(part.grid.temporal_stride)
            if source.kind == "part":
                assert source.part < number
                assert source.start + used <= plan.parts[source.part].grid.num_frames
            if source.kind == "clip":
                assert source.begin <= source.start
                assert source.start + used <= (lengths[source.path] if source.end is None else source.end)
    for piece in plan.pieces:
        if piece.kind == "made":
            assert 0 <= piece.start < piece.stop <= plan.parts[piece.part].grid.num_frames
        else:
            assert 0 <= piece.start <= lengths[piece.path]
            assert piece.stop is None or piece.start < piece.stop <= lengths[piece.path]


def check_time(plan: Plan, seam: bool = False) -> None:
    """The pieces follow each other without a gap or a doubled frame.

    Each part and each clip has a place in time: a keyframe says that frames of its source are frames of its part. seam:
    the clip at the end of part 0 is the clip at its start once more.
    """
    at: dict[object, int] = {}
    links: list[tuple[object, object, int]] = []  # where b is, seen from a
    for number, part in enumerate(plan.parts):
        for keyframe in part.keyframes:
            if keyframe.still:
                continue
            source = keyframe.source
            other: object = source.part if isinstance(source, PartSource) else source.path  # type: ignore[union-attr]
            if seam and keyframe.slot > 0:
                other = "once more"
            links.append((number, other, keyframe.frames(part.grid.temporal_stride).start - source.start))  # type: ignore[union-attr]
    at[plan.pieces[0].part if plan.pieces[0].kind == "made" else plan.pieces[0].path] = 0
    for _ in range(len(links) + 1):
        for a, b, shift in links:
            if a in at:
                assert at.setdefault(b, at[a] + shift) == at[a] + shift, "two keyframes disagree about the time"
            elif b in at:
                at[a] = at[b] - shift
    ends = []
    for piece in plan.pieces:
        place = at[piece.part if piece.kind == "made" else piece.path]
        ends.append((place + piece.start, None if piece.stop is None else place + piece.stop))
    for (_, stop), (start, _) in pairwise(ends):
        assert stop == start
    if seam and (first := plan.pieces[0]).kind == "kept":
        assert ends[-1][1] == at["once more"] + first.start, "after the last frame comes the first"


# --- any timeline that a task builds ----------------------------------------------------------------------------------


@st.composite
def anything(draw):
    """A task with what it asks for."""
    task = get_task(draw(st.sampled_from(sorted(TASKS))))
    clip = draw(clips())
    things = {
        "clip": clip,
        "clip_b": draw(clips("b.mp4")),
        "image": Given(path="a.png", noise=draw(st.none() | units)),
        "end": Given(path="b.png"),
    }
    given = {ask.name: things[ask.name] for ask in task.asks if ask.missing or draw(st.booleans())}
    return task, draw(blanks()), given, draw(options_of(clip)), draw(noises)


@settings(max_examples=600)
@given(anything())
def test_a_task_builds_what_can_be_run_or_says_why_not(case) -> None:
    task, empty, given, options, noise = case
    try:
        timeline = task.timeline(empty, given, options, noise)
        if timeline.problems():  # noise of 0 everywhere is a wish that only the user can take back
            assert "Every slot" in timeline.problems()[0] and not any(timeline.noise_multipliers())
            return
        if not timeline.keyframes and task.name == "keyframes":
            return
        plan = task.plan(timeline, options)
    except RecipeError as error:
        assert str(error).endswith(".") and "\n" not in str(error)
        return
    lengths = {g.path: g.frames for g in given.values() if g.frames}
    assume(not any(not any(part.noise_multipliers()) for part in plan.parts))
    check_parts(plan, lengths)
    check_time(plan, seam=task.name == "loop" and ("clip" in given or not given))
    for made in (Recipe, Plan, Options):
        whole = {Recipe: recipe(task.name, timeline, options), Plan: plan, Options: options}[made]
        assert made.model_validate_json(whole.model_dump_json()) == whole


def recipe(task: str, timeline: Timeline, options: Options | None = None) -> Recipe:
    values = {"task": task, "timeline": timeline, "options": options or Options()}
    return Recipe(**values, prompt="blue", steps=2, guidance=3, seed=1)


@given(blanks(3), clips(), st.data())
def test_extend_adds_what_was_asked(empty, clip, data) -> None:
    options = data.draw(options_of(clip))
    assume(options.direction != "both" or options.result == "joined")
    assume(options.direction == "forwards" or length(clip) >= empty.grid.temporal_stride)
    timeline = get_task("extend").timeline(empty, {"clip": clip}, options)
    plan = get_task("extend").plan(timeline, options)
    anchor = timeline.keyframes[0].num_frames(empty.grid.temporal_stride)
    added = options.frames or empty.grid.num_frames - anchor
    added *= 2 if options.direction == "both" and options.frames else 1
    if options.direction == "both" and not options.frames:
        mirrored = next(k for k in plan.parts[0].keyframes if k.slot > 0)
        added += empty.grid.num_frames - mirrored.num_frames(empty.grid.temporal_stride)
    kept = length(clip) if options.result == "joined" else 0
    assert count(plan, {"clip": clip}) == kept + added
    forwards = [p.part for p in plan.pieces if p.kind == "made"]
    if options.direction != "both":
        assert len(forwards) == len(plan.parts)


@given(blanks(3), clips(), clips("b.mp4"), st.data())
def test_transition_keeps_both_clips_whole(empty, a, b, data) -> None:
    options = data.draw(options_of(a))
    stride, slots = empty.grid.temporal_stride, empty.grid.num_slots
    assume(length(b) >= stride)
    given = {"clip": a, "clip_b": b}
    timeline = get_task("transition").timeline(empty, given, options)
    first, last = timeline.keyframes
    assert (first.slot, last.slots.stop) == (0, slots)
    assert first.source.start + first.num_frames(stride) == a.end and last.source.start == b.start
    plan = get_task("transition").plan(timeline, options)
    used = first.num_frames(stride) + last.num_frames(stride)
    joined = length(a) + length(b) + empty.grid.num_frames - used
    made = empty.grid.num_frames - (0 if options.style == "cross" else used)
    assert count(plan, given) == (joined if options.result == "joined" else made)
    if options.style == "cross" and a.noise is None and b.noise is None:
        assert (first.noises[0], last.noises[-1]) == (0, 0), "the ends are the clips themselves"
        assert list(first.noises) == sorted(first.noises) and list(last.noises) == sorted(last.noises, reverse=True)


@given(blanks(3), st.data())
def test_complete_makes_exactly_the_gap(empty, data) -> None:
    clip = data.draw(clips())
    assume(length(clip) > 1)
    first = data.draw(st.integers(clip.start, clip.end - 1))
    stop = data.draw(st.integers(first + 1, min(clip.end, first + empty.grid.num_frames)))
    options = Options(gap=(first, stop), result=data.draw(st.sampled_from(["joined", "made"])))
    try:
        timeline = get_task("complete").timeline(empty, {"clip": clip}, options)
    except RecipeError as error:
        long = stop - first > empty.grid.num_frames - 2 * empty.grid.temporal_stride - 1
        alone = (stop - first) == length(clip) or (first == clip.start and clip.end - stop < empty.grid.temporal_stride)
        assert long or alone, error
        return
    plan = get_task("complete").plan(timeline, options)
    check_parts(plan, {"a.mp4": clip.frames})
    check_time(plan)
    (made,) = (p for p in plan.pieces if p.kind == "made")
    for keyframe in timeline.keyframes:
        frames = keyframe.frames(empty.grid.temporal_stride)
        assert made.start - frames.start == first - keyframe.source.start, "the gap is at its place in the clip"
        assert frames.stop <= made.start or made.stop <= frames.start, "and no keyframe is in it"
    stride = empty.grid.temporal_stride
    hidden = -(-(stop - first) // stride) * stride - (stop - first)  # frames that the free slots hold beside the gap
    if clip.end - stop >= stride and length(clip) - (stop - first) > hidden + stride:
        assert any(k.source.start >= stop for k in timeline.keyframes), "what follows fills a slot, so it is seen"
    assert count(plan, {"clip": clip}) == (length(clip) if options.result == "joined" else stop - first)
    kept = [frame for where, frames in pieces_of(plan, {"clip": clip}) if where != "part" for frame in frames]
    wanted = [t for t in range(clip.start, clip.end) if not first <= t < stop]
    assert kept == (wanted if options.result == "joined" else [])


@given(blanks(3), st.integers(0, 30), st.integers(1, 600))
def test_restyle_has_the_length_that_was_asked(empty, start, frames) -> None:
    clip = Given(path="a.mp4", frames=start + max(frames, empty.grid.num_frames), start=start)
    options = Options(frames=frames)
    plan = get_task("restyle").plan(get_task("restyle").timeline(empty, {"clip": clip}, options), options)
    check_parts(plan, {"a.mp4": clip.frames})
    check_time(plan)
    assert plan.num_frames == frames
    used = {
        (k.source.path, k.source.start - k.frames(empty.grid.temporal_stride).start) for k in plan.parts[0].keyframes
    }
    assert used == {("a.mp4", start)}


@pytest.mark.parametrize("things", [(), ("image",), ("clip",)])
@given(empty=blanks(3), clip=clips())
def test_a_loop_has_no_doubled_frame(things, empty, clip) -> None:
    assume(things != ("clip",) or length(clip) >= empty.grid.temporal_stride)
    given = {"clip": clip, "image": Given(path="a.png")}
    given = {name: given[name] for name in things}
    timeline = get_task("loop").timeline(empty, given)
    plan = get_task("loop").plan(timeline)
    if things == ("clip",):
        check_time(plan, seam=True)
        between = empty.grid.num_frames - sum(k.num_frames(empty.grid.temporal_stride) for k in timeline.keyframes)
        assert count(plan, given) == length(clip) + between
        return
    assert plan.num_frames == empty.grid.num_frames - 1
    first, last = plan.parts[-1].keyframes
    assert (first.slot, last.slots.stop) == (0, empty.grid.num_slots)
    if things:
        assert last.still and last.source.path == first.source.path
    else:  # the frame that is left out is the first one
        assert last.source.start + last.num_frames(empty.grid.temporal_stride) - 1 == first.source.start


def test_a_loop_goes_around_a_picture_or_leads_a_clip_back() -> None:
    given = {"clip": Given(path="a.mp4", frames=50), "image": Given(path="a.png")}
    with pytest.raises(RecipeError, match=r"^A loop goes around a picture or leads a clip back: .* not both\.$"):
        get_task("loop").timeline(blank(), given)


# --- what the user changes on the timeline ----------------------------------------------------------------------------


def at(slot: int, noise: float = 0.0, path: str = "x.png") -> Keyframe:
    return Keyframe(slot=slot, source=ImageSource(path=path), noise=noise)


@given(blanks(5), st.integers(1, 200), st.sampled_from(["forwards", "backwards"]))
def test_a_further_keyframe_of_a_long_extension_is_in_the_result(empty, frames, direction) -> None:
    """A picture where the extension shall end stays in what is kept of the last part."""
    one_run = empty.grid.num_frames - (1 if direction == "forwards" else empty.grid.temporal_stride)
    frames = max(frames, one_run)  # of fewer it is not the end
    clip, options = Given(path="a.mp4", frames=100), Options(frames=frames, direction=direction)
    timeline = get_task("extend").timeline(empty, {"clip": clip}, options, TaskNoise(before=(0.0,), after=(0.0,)))
    slot = empty.grid.num_slots - 1 if direction == "forwards" else 0
    timeline = timeline.having(*timeline.keyframes, at(slot))
    plan = get_task("extend").plan(timeline, options)
    check_parts(plan, {"a.mp4": 100})
    check_time(plan)
    made = [p for p in plan.pieces if p.kind == "made"]
    assert sum(p.stop - p.start for p in made) == frames
    ends = [n for n, part in enumerate(plan.parts) if any(k.still for k in part.keyframes)]
    assert ends == [len(plan.parts) - 1]
    piece = next(p for p in made if p.part == ends[0])
    assert (piece.start == 0) if direction == "backwards" else (piece.stop == empty.grid.num_frames)


@given(
    blanks(5),
    st.integers(1, 200),
    st.sampled_from(["forwards", "backwards", "both"]),
    st.integers(0, 39),
    st.integers(1, 3),
)
def test_no_keyframe_of_an_extension_is_cut_off_in_silence(empty, frames, direction, slot, span) -> None:
    """It is in the result, or the words say what would bring it there."""
    clip, stride, slots = Given(path="a.mp4", frames=100), empty.grid.temporal_stride, empty.grid.num_slots
    assume(1 <= slot < slots - span if direction != "backwards" else slot < slots - 1 - span)
    known = TaskNoise(before=(0.0,), after=(0.0,))
    options = Options(frames=frames, direction=direction)
    timeline = get_task("extend").timeline(empty, {"clip": clip}, options, known)
    further = clip_at(slot, span, 0, "b.mp4")

    def plan_of_a(further: Keyframe, frames: int) -> Plan:
        changed = options.model_copy(update={"frames": frames})
        return get_task("extend").plan(timeline.having(*timeline.keyframes, further), changed)

    def is_seen(plan: Plan, further: Keyframe) -> bool:
        (number,) = (n for n, part in enumerate(plan.parts) if further in part.keyframes)
        (piece,) = (p for p in plan.pieces if p.kind == "made" and p.part == number)
        wanted = further.frames(stride)
        return piece.start <= wanted.start and wanted.stop <= piece.stop

    try:
        assert is_seen(plan_of_a(further, frames), further)
    except RecipeError as error:
        words = (
            rf"The clip in slot {slot} would be cut off: ask for at least (\d+) frames(, or move it to slot (\d+))?\."
        )
        found = re.fullmatch(words, str(error))
        assert found is not None, error
        least, _, move = found.groups()
        assert int(least) > frames and is_seen(plan_of_a(further, int(least)), further)
        with pytest.raises(RecipeError, match="cut off"):
            plan_of_a(further, int(least) - 1)
        if move is not None:
            moved = further.model_copy(update={"slot": int(move)})
            assert is_seen(plan_of_a(moved, frames), moved)


@pytest.mark.parametrize(
    ("direction", "frames", "further", "words"),
    [
        (
            "forwards",
            20,
            (6,),
            "The picture in slot 6 would be cut off: ask for at least 24 frames, or move it to slot 5.",
        ),
        (
            "forwards",
            12,
            (6,),
            "The picture in slot 6 would be cut off: ask for at least 24 frames, or move it to slot 4.",
        ),
        ("forwards", 5, (6,), "The picture in slot 6 would be cut off: ask for at least 24 frames."),
        ("forwards", 20, (5, 6), "The picture in slot 6 would be cut off: ask for at least 24 frames."),
        (
            "backwards",
            20,
            (0,),
            "The picture in slot 0 would be cut off: ask for at least 25 frames, or move it to slot 1.",
        ),
        (
            "backwards",
            12,
            (0,),
            "The picture in slot 0 would be cut off: ask for at least 25 frames, or move it to slot 3.",
        ),
        (
            "backwards",
            4,
            (2,),
            "The picture in slot 2 would be cut off: ask for at least 13 frames, or move it to slot 4.",
        ),
    ],
)
def test_a_picture_that_an_extension_would_cut_off_is_named(direction, frames, further, words) -> None:
    options = Options(direction=direction, frames=frames)
    timeline = get_task("extend").timeline(blank(), {"clip": Given(path="a.mp4", frames=60)}, options)
    with pytest.raises(RecipeError, match=f"^{re.escape(words)}$"):
        get_task("extend").plan(timeline.having(*timeline.keyframes, *map(at, further)), options)


@given(blanks(3), st.integers(1, 600))
def test_parts_overlap_by_slots_and_not_more_are_run_than_needed(empty, frames) -> None:
    options = Options(frames=frames)
    timeline = get_task("extend").timeline(empty, {"clip": Given(path="a.mp4", frames=50)}, options)
    plan = get_task("extend").plan(timeline, options)
    new = empty.grid.num_frames - timeline.keyframes[0].num_frames(empty.grid.temporal_stride)
    assert len(plan.parts) == -(-frames // new)
    assert all(part.grid == empty.grid for part in plan.parts)


MISTAKES = {
    "gap missing": ("complete", {}, "which frames"),
    "gap behind the clip": ("complete", {"gap": (45, 55)}, "not inside the clip"),
    "gap too long": ("complete", {"gap": (2, 48)}, "gap shorter"),
    "gap is all": ("complete", {"gap": (0, 50)}, "whole clip"),
    "gap with too little behind it": ("complete", {"gap": (0, 47)}, "3 frames follow"),
    "both ends without the middle": ("extend", {"direction": "both", "result": "made"}, "choose joined"),
    "an absurd extension": ("extend", {"frames": 100_000}, "ask for fewer frames"),
    "more than there is to restyle": ("restyle", {"frames": 60}, "50 frames .* but 60 are asked for"),
}


@pytest.mark.parametrize(("task", "fields", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told(task: str, fields: dict[str, object], words: str) -> None:
    options = Options(**fields)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=words):
        made = get_task(task)
        made.plan(made.timeline(blank(), {"clip": Given(path="a.mp4", frames=50)}, options), options)


@pytest.mark.parametrize(
    ("frames", "words"),
    [(2, "use a clip of at least 37"), (6, "use a clip of at least 37"), (7, "a length of at most 7 frames")],
)
def test_a_clip_too_short_to_restyle_is_told_what_helps(frames: int, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        get_task("restyle").timeline(blank(), {"clip": Given(path="a.mp4", frames=frames)})


@pytest.mark.parametrize(
    "fields",
    [
        {"frames": 0},
        {"frames": 10**9},
        {"frames": -5},
        {"gap": (5, 5)},
        {"gap": (9, 3)},
        {"gap": (-1, 3)},
        {"closing": 2},
    ],
)
def test_options_that_cannot_be_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Options(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", ["start-end", "transition", "loop", "extend"])
@pytest.mark.parametrize("slots", [1, 2])
def test_a_length_without_room_between_is_refused(task: str, slots: int) -> None:
    given = {"image": Given(path="a.png"), "end": Given(path="b.png")}
    if task in ("transition", "extend"):
        given = {name: Given(path="a.mp4", frames=50) for name in ("clip", "clip_b")}
    with pytest.raises(RecipeError, match="use at least 13"):
        get_task(task).timeline(blank(slots), given)


def clip_at(slot: int, span: int, start: int, path: str = "a.mp4") -> Keyframe:
    return Keyframe(slot=slot, span=span, source=ClipSource(path=path, start=start))


@pytest.mark.parametrize(
    ("task", "keyframes", "words"),
    [
        ("loop", (clip_at(0, 2, 20), clip_at(5, 2, 0, "b.mp4")), "same clip"),
        ("loop", (clip_at(0, 2, 3), clip_at(5, 2, 30)), "behind its last"),
        ("loop", (at(0), at(6, path="y.png")), "same picture"),
        ("loop", (at(0),), "at both ends"),
        ("loop", (clip_at(0, 7, 0),), "at both ends"),
        ("transition", (clip_at(0, 7, 0),), "one at its end"),
        ("transition", (clip_at(0, 3, 0), clip_at(3, 4, 0, "b.mp4")), "leave no slot"),
        ("transition", (clip_at(0, 3, 0), at(6)), "one at its end"),
        ("extend", (clip_at(0, 7, 0),), "fills the whole timeline"),
        ("extend", (clip_at(1, 2, 0),), "at the start"),
        ("complete", (at(0),), "needs the clip"),
        ("complete", (clip_at(0, 2, 6), clip_at(5, 2, 30)), "keep their places"),
        ("complete", (clip_at(0, 2, 60),), "not on the timeline"),
        ("restyle", (clip_at(1, 2, 0),), "from slot 0 on"),
        ("start-end", (at(0), at(5)), "one in slot 6"),
        ("image-to-video", (clip_at(0, 1, 0),), "picture in slot 0"),
        ("text-to-video", (at(3),), "words alone"),
        ("keyframes", (), "no keyframe yet"),
    ],
)
def test_a_timeline_that_a_task_cannot_use_is_refused(task: str, keyframes, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        get_task(task).plan(blank().having(*keyframes), Options(gap=(13, 25)))


@pytest.mark.parametrize(
    ("task", "keyframes", "what"),
    [
        ("loop", (clip_at(0, 2, 20), clip_at(5, 2, 0)), "clip"),
        ("loop", (at(0), at(6)), "picture"),
        ("complete", (clip_at(0, 3, 0), clip_at(5, 2, 25)), "clip"),
    ],
)
def test_keyframes_of_one_thing_that_are_cropped_differently_are_refused(task: str, keyframes, what: str) -> None:
    """What stands on both sides of a seam would jump there."""

    def plan(**changed) -> Plan:
        later = keyframes[1].model_copy(update=changed)
        return get_task(task).plan(blank().having(keyframes[0], later), Options(gap=(13, 25)))

    for changed in ({"focus": (0.5, 0.2)}, {"fit": "pad"}):
        with pytest.raises(RecipeError, match=f"show different parts of the {what}: .* same fit and focus"):
            plan(**changed)
    assert plan()
    keyframes = tuple(k.model_copy(update={"fit": "pad"}) for k in keyframes)
    assert plan(focus=(0.5, 0.2)), "where nothing is cut off the focus says nothing"


def test_frames_of_other_parts_are_no_keyframes_of_a_recipe() -> None:
    timeline = blank().having(Keyframe(slot=0, source=PartSource(part=0)))
    with pytest.raises(RecipeError, match="another part"):
        plan_of(recipe("keyframes", timeline))


def test_a_range_that_is_not_in_the_clip_is_refused() -> None:
    for values in ({"start": 50}, {"stop": 51}, {"start": 9, "stop": 9}, {"frames": None}):
        clip = Given(**{"path": "a.mp4", "frames": 50, **values})
        with pytest.raises(RecipeError):
            get_task("extend").timeline(blank(), {"clip": clip})
    for source in ({"start": 5, "begin": 6}, {"start": 5, "end": 5}):
        with pytest.raises(ValidationError):
            ClipSource(path="a.mp4", **source)


@pytest.mark.parametrize("direction", ["forwards", "backwards", "both"])
def test_a_range_of_a_clip_is_the_clip(direction: str) -> None:
    """What lies outside the range is neither seen nor kept."""
    clip, options = Given(path="a.mp4", frames=90, start=20, stop=60), Options(direction=direction, frames=12)  # type: ignore[arg-type]
    plan = get_task("extend").plan(get_task("extend").timeline(blank(), {"clip": clip}, options), options)
    (kept,) = (p for p in plan.pieces if p.kind == "kept")
    assert (kept.start, kept.stop) == (20, 60)


# --- by the numbers --------------------------------------------------------------------------------------------------


def test_extend_by_hand() -> None:
    """37 frames a run, 13 of them known: 24 new ones; 60 more take three runs of which the last makes 12."""
    options = Options(frames=60)
    timeline = get_task("extend").timeline(blank(), {"clip": Given(path="a.mp4", frames=40)}, options)
    plan = get_task("extend").plan(timeline, options)
    assert timeline.keyframes == (clip_at(0, 3, 27).model_copy(update={"noise": 0.0}),)
    assert plan.pieces == (
        Kept(path="a.mp4", start=0, stop=40),
        Made(part=0, start=13, stop=37),
        Made(part=1, start=13, stop=37),
        Made(part=2, start=25, stop=37),
    )
    assert [part.keyframes[0].source for part in plan.parts[1:]] == [
        PartSource(part=0, start=24),
        PartSource(part=1, start=12),
    ]
    assert [part.keyframes[0].span for part in plan.parts] == [3, 3, 5]


def test_complete_by_hand() -> None:
    """The gap of frames 13 to 24 is two slots; three are before it, two behind it, as in the clip."""
    options = Options(gap=(13, 25))
    timeline = get_task("complete").timeline(blank(), {"clip": Given(path="a.mp4", frames=37)}, options)
    assert [(k.slot, k.span, k.source.start) for k in timeline.keyframes] == [(0, 3, 0), (5, 2, 25)]  # type: ignore[union-attr]
    assert get_task("complete").plan(timeline, options).pieces == (
        Kept(path="a.mp4", start=0, stop=13),
        Made(part=0, start=13, stop=25),
        Kept(path="a.mp4", start=25, stop=None),
    )


@pytest.mark.parametrize(("stride", "slots"), [(6, 7), (6, 28), (4, 21)], ids=["mini", "mochi", "wan"])
@pytest.mark.parametrize("excess", [0, 1, 3])
def test_what_follows_a_gap_is_seen_where_it_fills_a_slot(stride: int, slots: int, excess: int) -> None:
    """The gap need not begin with a slot: frames before it are made too and not used, as few of them as will do."""
    empty = blank(slots, stride)
    frames = empty.grid.num_frames
    for tail in range(stride, 3 * stride):
        gap = (frames - tail - 2 * stride - excess, frames - tail)
        options, clip = Options(gap=gap), Given(path="a.mp4", frames=frames)
        timeline = get_task("complete").timeline(empty, {"clip": clip}, options)
        before, after = timeline.keyframes
        seen_until, seen_from = before.source.start + before.num_frames(stride), after.source.start  # type: ignore[union-attr]
        assert after.slots.stop <= slots and gap[1] <= seen_from
        free = 2 * stride if excess == 0 else 3 * stride
        assert seen_from - seen_until == free
        assert gap[0] - seen_until == max(0, free + stride - (frames - gap[0])), "no more is hidden than must be"
        plan = get_task("complete").plan(timeline, options)
        assert pieces_of(plan, {"clip": clip}) == [
            ("a.mp4", range(gap[0])),
            (
                "part",
                range(
                    gap[0] - seen_until + before.frames(stride).stop, gap[1] - seen_until + before.frames(stride).stop
                ),
            ),
            ("a.mp4", range(gap[1], frames)),
        ]


@pytest.mark.parametrize("tail", [1, 3, 5])
def test_a_gap_near_the_end_leaves_the_last_frames(tail: int) -> None:
    """Frames behind the gap that fill no slot are not seen by the model; they are kept all the same."""
    options = Options(gap=(15, 27))
    clip = Given(path="a.mp4", frames=27 + tail)
    timeline = get_task("complete").timeline(blank(), {"clip": clip}, options)
    assert len(timeline.keyframes) == 1
    assert get_task("complete").plan(timeline, options).pieces[-1] == Kept(path="a.mp4", start=27, stop=None)


def specs():
    return [testing.card().spec, TINY_SPEC, *(card.spec for card in [get_card("mini")] if card.folder)]


@pytest.mark.parametrize("spec", specs(), ids=lambda spec: f"{spec.family}-{spec.max_frames}")
def test_the_noise_that_a_model_advises_fits_every_task(spec) -> None:
    long = Given(path="a.mp4", frames=200)
    things = {"clip": long, "clip_b": long, "image": Given(path="a.png"), "end": Given(path="b.png")}
    for task in TASKS.values():
        given = {ask.name: things[ask.name] for ask in task.asks if ask.missing}
        options = Options(gap=(50, 62))
        timeline = task.timeline(spec.timeline(), given, options, spec.noise)
        if task.name != "keyframes":
            check_parts(task.plan(timeline, options), {"a.mp4": 200})
