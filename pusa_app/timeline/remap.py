"""A timeline on another grid: another length, another model."""

from __future__ import annotations

from pusa_app.timeline.grid import FrameGrid
from pusa_app.timeline.timeline import Keyframe, Timeline


def remap(
    timeline: Timeline, grid: FrameGrid, width: int | None = None, height: int | None = None
) -> tuple[Timeline, list[str]]:
    """The keyframes of a timeline on `grid`, and a sentence for each that could not stay as it was.

    A keyframe keeps its place in time where the grid has the same clock, else its share of the length; one that ends
    with the old clip ends with the new one. What would meet another moves to the nearest free place; a clip loses slots
    where there is no room for all of them. A keyframe is left out only when no slot is free at all.
    """
    old, notes = timeline.grid, []
    taken: set[int] = set()
    placed: list[tuple[int, Keyframe]] = []
    # Ends first, since they are what a task stands on; the others in their order.
    order = sorted(enumerate(timeline.keyframes), key=lambda pair: not _at_an_end(pair[1], old))
    for index, keyframe in order:
        span = _span(keyframe, old, grid)
        wanted = _wanted(keyframe, span, old, grid)
        spot = _nearest(wanted, span, grid.num_slots, taken)
        if spot is None:
            notes.append(f"Keyframe {index + 1} (slot {keyframe.slot}) found no free slot and was left out.")
            continue
        slot, span = spot
        taken.update(range(slot, slot + span))
        moved = _moved(keyframe, slot, span)
        placed.append((index, moved))
        if slot != keyframe.slot or span != keyframe.span:
            notes.append(_note(index + 1, keyframe, moved))
    size = {"width": width or timeline.width, "height": height or timeline.height}
    kept = tuple(keyframe for _, keyframe in sorted(placed, key=lambda pair: pair[0]))
    return timeline.model_copy(update={"grid": grid, **size, "keyframes": kept}), notes


def _at_an_end(keyframe: Keyframe, grid: FrameGrid) -> bool:
    return keyframe.slot == 0 or keyframe.slots.stop >= grid.num_slots


def _span(keyframe: Keyframe, old: FrameGrid, new: FrameGrid) -> int:
    """Slots of the new grid that the frames of a clip fill, counted so that the source is never asked for more."""
    if keyframe.still:
        return 1
    seconds = keyframe.num_frames(old.temporal_stride) / old.fps
    have = int(seconds * new.fps + 1e-6)
    fits = (have - 1) // new.temporal_stride + 1 if keyframe.slot == 0 else have // new.temporal_stride
    return max(1, min(fits, new.num_slots))


def _wanted(keyframe: Keyframe, span: int, old: FrameGrid, new: FrameGrid) -> int:
    if keyframe.slot == 0:
        return 0
    if keyframe.slots.stop >= old.num_slots:
        return max(0, new.num_slots - span)
    same_clock = (old.temporal_stride, old.fps) == (new.temporal_stride, new.fps)
    if same_clock:
        return min(keyframe.slot, max(0, new.num_slots - span))
    share = keyframe.slot / max(1, old.num_slots - 1)
    return min(round(share * (new.num_slots - 1)), max(0, new.num_slots - span))


def _nearest(wanted: int, span: int, slots: int, taken: set[int]) -> tuple[int, int] | None:
    """The free place nearest to `wanted`, for as many slots of the span as have room somewhere."""
    for width in range(span, 0, -1):
        free = [s for s in range(slots - width + 1) if taken.isdisjoint(range(s, s + width))]
        if free:
            return min(free, key=lambda s: (abs(s - wanted), s)), width
    return None


def _moved(keyframe: Keyframe, slot: int, span: int) -> Keyframe:
    noises = (keyframe.noises + (keyframe.noises[-1],) * span)[:span]
    noise = noises[0] if len(set(noises)) == 1 else noises
    return keyframe.model_copy(update={"slot": slot, "span": span, "noise": noise})


def _note(number: int, before: Keyframe, after: Keyframe) -> str:
    what = []
    if after.slot != before.slot:
        what.append(f"moved from slot {before.slot} to {after.slot}")
    if after.span != before.span:
        what.append(f"fills {after.span} slot{'s' if after.span > 1 else ''} instead of {before.span}")
    return f"Keyframe {number} {' and '.join(what)}."
