"""What a user changed on a timeline, on the one that his task makes next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pusa_app.timeline import ClipSource, FrameGrid, ImageSource, Keyframe, Timeline, frames_for_slots, remap
from pusa_app.ui.carried import Fit, carried, same


def on(slots: int, *keyframes: Keyframe, stride: int = 6, fps: float = 12.0) -> Timeline:
    grid = FrameGrid(num_frames=frames_for_slots(slots, stride), temporal_stride=stride, fps=fps)
    return Timeline(grid=grid, width=64, height=64, keyframes=keyframes)


def to(new: Timeline) -> Fit:
    return lambda timeline: remap(timeline, new.grid, new.width, new.height)


def picture(slot: int, name: str, noise: float = 0.0) -> Keyframe:
    return Keyframe(slot=slot, source=ImageSource(path=f"/cache/{name}/a.png"), noise=noise)


def clip(slot: int, span: int, noise: float | tuple[float, ...] = 0.0, start: int = 0) -> Keyframe:
    return Keyframe(slot=slot, span=span, source=ClipSource(path="/cache/c/c.mp4", start=start), noise=noise)


def test_a_ramp_stays_where_the_new_frames_join() -> None:
    made = on(8, clip(0, 3), clip(5, 3, start=40))
    own = on(8, clip(0, 3, (0.1, 0.2, 0.3)), clip(5, 3, (0.3, 0.2, 0.1), start=40))
    longer = on(10, clip(0, 4), clip(6, 4, start=40))
    got, whole = carried(made, own, longer, to(longer))
    assert whole and [k.noise for k in got.keyframes] == [(0.1, 0.1, 0.2, 0.3), (0.3, 0.2, 0.1, 0.1)]
    shorter = on(6, clip(0, 2, start=6), clip(4, 2, start=40))
    got, whole = carried(made, own, shorter, to(shorter))
    assert whole and [k.noise for k in got.keyframes] == [(0.2, 0.3), (0.3, 0.2)]
    assert got.keyframes[0].source == shorter.keyframes[0].source


def test_at_the_other_end_a_ramp_is_not_the_same() -> None:
    made, own = on(7, clip(0, 3)), on(7, clip(0, 3, (0.1, 0.2, 0.3)).model_copy(update={"fit": "pad"}))
    new = on(7, clip(4, 3, 0.2))
    got, whole = carried(made, own, new, to(new))
    assert not whole and got.keyframes[0] == new.keyframes[0].model_copy(update={"fit": "pad"})


def test_what_the_task_makes_as_before_stays_where_the_user_put_it() -> None:
    made, own = on(7, picture(0, "a")), on(7, picture(2, "a", 0.3))
    new = on(7, picture(0, "a"), picture(6, "b", 0.1))
    assert carried(made, own, new, to(new)) == (on(7, own.keyframes[0], new.keyframes[1]), True)
    # The place is another's now, and only the noise can be kept.
    taken = on(7, picture(0, "a"), picture(2, "b"))
    assert carried(made, own, taken, to(taken)) == (on(7, picture(0, "a", 0.3), picture(2, "b")), False)
    # A slot of another model is another time.
    other = on(10, picture(0, "a"), stride=4, fps=16.0)
    assert carried(made, own, other, to(other)) == (other.having(picture(0, "a", 0.3)), False)


def test_one_file_at_several_places() -> None:
    made = on(7, picture(0, "a"), picture(6, "a", 0.3))
    own = on(7, picture(0, "a"), picture(3, "a", 0.5), picture(6, "a", 0.7))
    new = on(5, picture(0, "a"), picture(4, "a", 0.3))
    assert carried(made, own, new, to(new)) == (
        on(5, picture(0, "a"), picture(3, "a", 0.5), picture(4, "a", 0.7)),
        True,
    )


def test_what_was_taken_out_and_comes_back_is_told() -> None:
    made, new = on(7, picture(0, "a"), picture(6, "b")), on(5, picture(0, "a"), picture(4, "b"))
    assert carried(made, on(7, picture(0, "a")), new, to(new)) == (new, False)
    less = on(7, picture(0, "a"))
    assert carried(made, less, less, to(less)) == (less, True), "the task does without it too"


slots = st.integers(3, 12)


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    count, keyframes, at = draw(slots), list[Keyframe](), 0
    while at < count and draw(st.booleans()):
        span = draw(st.integers(1, min(3, count - at)))
        name = draw(st.sampled_from("abc"))
        noise = draw(st.floats(0, 1))
        keyframes.append(picture(at, name, noise) if draw(st.booleans()) else clip(at, span, noise))
        at += keyframes[-1].span + draw(st.integers(0, 2))
    return on(count, *keyframes)


@given(timelines(), timelines(), timelines())
def test_nothing_ever_meets_or_is_outside(made: Timeline, own: Timeline, new: Timeline) -> None:
    own = own.model_copy(update={"grid": made.grid})
    got, _ = carried(made, own, new, to(new))
    assert got.grid == new.grid
    assert not [p for p in got.problems() if "nothing to generate" not in p] or new.problems()
    assert len(got.keyframes) >= len(new.keyframes)
    assert carried(made, made, new, to(new)) == (new, True)
    assert same(carried(made, own, made, to(made))[0], own) or not carried(made, own, made, to(made))[1]
