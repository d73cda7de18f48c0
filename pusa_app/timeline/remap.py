"""A timeline on another grid: another length, another model."""

from __future__ import annotations

import math

from pusa_app.timeline.grid import FrameGrid
from pusa_app.timeline.timeline import ClipSource, Keyframe, Length, Timeline


def remap(
    timeline: Timeline,
    grid: FrameGrid,
    width: int | None = None,
    height: int | None = None,
    length: Length | None = None,
) -> tuple[Timeline, list[str]]:
    """The keyframes of a timeline on `grid`, and a sentence for each that could not stay as it was.

    A keyframe keeps its place in time where the grid has the same clock, else its share of the length; one that ends
    with the old clip ends with the new one. What would meet another moves to the nearest free place; a clip loses slots
    where there is no room for all of them, away from the end that new frames join. No clip is asked for frames that it
    was not asked for before. A keyframe is left out only when no slot is free at all, or when its frames do not fill
    one.

    length: asked at another frame rate only, about clips that may be used to the end of their file. Without it the last
    frame counts as shown for half its time, so that up to a frame's worth of the file's end is lost at a higher rate.
    """
    old, notes = timeline.grid, []
    used = [_source_frames(keyframe, old, grid, length) for keyframe in timeline.keyframes]
    taken: set[int] = set()
    placed: dict[int, Keyframe] = {}
    spans = _spans(timeline, used, grid)
    # Ends first, since they are what a task stands on; the others in their order.
    for index in sorted(range(len(spans)), key=lambda i: _rank(timeline.keyframes[i], old)):
        keyframe, span = timeline.keyframes[index], spans[index]
        moved = None
        if span and (spot := _nearest(_wanted(keyframe, span, old, grid), span, grid.num_slots, taken)):
            moved = _moved(keyframe, *spot, used[index], old, grid)
        if moved is None:
            why = "found no free slot" if span else "has too few frames to fill a slot"
            notes.append(f"Keyframe {index + 1} (slot {keyframe.slot}) {why} and was left out.")
            continue
        taken.update(moved.slots)
        placed[index] = moved
        if (moved.slot, moved.span) != (keyframe.slot, keyframe.span):
            notes.append(_note(index + 1, keyframe, moved))
    size = {"width": width or timeline.width, "height": height or timeline.height}
    kept = tuple(placed[index] for index in sorted(placed))
    return timeline.model_copy(update={"grid": grid, **size, "keyframes": kept}), notes


def _rank(keyframe: Keyframe, grid: FrameGrid) -> int:
    return 0 if keyframe.slot == 0 else 1 if keyframe.slots.stop >= grid.num_slots else 2


def _spans(timeline: Timeline, used: list[range], new: FrameGrid) -> list[int]:
    """Slots of the new grid for each keyframe; 0 for a clip whose frames fill none.

    Together they leave a slot free where one was, and none takes the only slot of another.
    """
    old, stride = timeline.grid, new.temporal_stride
    spans = [min(_most(k, k.slot, u, stride), new.num_slots) for k, u in zip(timeline.keyframes, used, strict=True)]
    covered = {slot for k in timeline.keyframes for slot in range(k.slot, min(k.slots.stop, old.num_slots))}
    room = new.num_slots - (len(covered) < old.num_slots)
    while sum(spans) > room and max(spans) > 1:
        spans[spans.index(max(spans))] -= 1
    return spans


def _most(keyframe: Keyframe, slot: int, used: range, stride: int) -> int:
    """Slots of the new grid, from `slot` on, that the frames of a keyframe fill."""
    if keyframe.still:
        return 1
    return (len(used) - 1) // stride + 1 if slot == 0 else len(used) // stride


def _source_frames(keyframe: Keyframe, old: FrameGrid, new: FrameGrid, length: Length | None) -> range:
    """The frames of its source that a keyframe uses, counted at the new rate; none that was not used before."""
    source = keyframe.source
    if source.kind == "image":
        return range(1)
    begin = math.ceil(source.start * new.fps / old.fps - 1e-6)
    stop = source.start + keyframe.num_frames(old.temporal_stride)
    if length and source.kind == "clip" and source.end is None and old.fps != new.fps:
        at_end = stop == length(source.path, old.fps)
        return range(begin, length(source.path, new.fps) if at_end else _stop(stop, old, new))
    return range(begin, _stop(stop, old, new))


def _stop(stop: int, old: FrameGrid, new: FrameGrid) -> int:
    """One past a last frame, at the new rate; the last frame may have been shown for half its time only."""
    return math.floor((stop - 0.5) * new.fps / old.fps + 0.5 + 1e-6)


def _wanted(keyframe: Keyframe, span: int, old: FrameGrid, new: FrameGrid) -> int:
    if keyframe.slot == 0:
        return 0
    if keyframe.slots.stop >= old.num_slots:
        return max(0, new.num_slots - span)
    if _same_clock(old, new):
        return min(keyframe.slot, max(0, new.num_slots - span))
    share = keyframe.slot / max(1, old.num_slots - 1)
    return min(round(share * (new.num_slots - 1)), max(0, new.num_slots - span))


def _same_clock(old: FrameGrid, new: FrameGrid) -> bool:
    return (old.temporal_stride, old.fps) == (new.temporal_stride, new.fps)


def _nearest(wanted: int, span: int, slots: int, taken: set[int]) -> tuple[int, int] | None:
    """The free place nearest to `wanted`, for as many slots of the span as have room somewhere."""
    for width in range(span, 0, -1):
        free = [s for s in range(slots - width + 1) if taken.isdisjoint(range(s, s + width))]
        if free:
            return min(free, key=lambda s: (abs(s - wanted), s)), width
    return None


def _moved(keyframe: Keyframe, slot: int, span: int, used: range, old: FrameGrid, new: FrameGrid) -> Keyframe | None:
    """The keyframe in its new slots; None when its frames do not fill one there."""
    span = min(span, _most(keyframe, slot, used, new.temporal_stride))
    if span < 1:
        return None
    if (slot, span) == (keyframe.slot, keyframe.span) and _same_clock(old, new):
        return keyframe
    # What a video starts with is joined at its end, everything else at its beginning.
    at_start = keyframe.slot == 0 and keyframe.slots.stop < old.num_slots
    known, more = keyframe.noises, max(0, span - keyframe.span)
    noises = ((known[0],) * more + known)[-span:] if at_start else (known + (known[-1],) * more)[:span]
    noise = noises[0] if len(set(noises)) == 1 else noises
    moved = keyframe.model_copy(update={"slot": slot, "span": span, "noise": noise})
    if keyframe.still:
        return moved
    start = used.stop - moved.num_frames(new.temporal_stride) if at_start else used.start
    changes: dict[str, int | None] = {"start": start}
    if isinstance(keyframe.source, ClipSource):
        end = keyframe.source.end
        changes["begin"] = math.ceil(keyframe.source.begin * new.fps / old.fps - 1e-6)
        changes["end"] = None if end is None else _stop(end, old, new)
    return moved.model_copy(update={"source": keyframe.source.model_copy(update=changes)})


def _note(number: int, before: Keyframe, after: Keyframe) -> str:
    what = []
    if after.slot != before.slot:
        what.append(f"moved from slot {before.slot} to {after.slot}")
    if after.span != before.span:
        what.append(f"fills {after.span} slot{'s' if after.span > 1 else ''} instead of {before.span}")
    return f"Keyframe {number} {' and '.join(what)}."
