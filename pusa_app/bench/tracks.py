"""Where the object of a clip is in every frame, and measures on that which clamping cannot game.

All measures take frame numbers of the result, so that a bench can leave out the frames that were given. A frame in
which no object is seen counts as LOST pixels away, as a jump of as much, and as a colour that is LOST_LEVELS off. Only
the truth makes a NaN, a clip that does not count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pusa_app.bench import geometry
from pusa_app.training.clips import COLORS, ClipSpec

LOST = 20.0  # pixels
LOST_LEVELS = 255.0  # of colours: no colour is further from another
MOVES = 2.0  # pixels; over less the direction of a way is noise
SETTLED = 3  # frames on either side of a seam that say how much a frame usually differs from the next


@dataclass(frozen=True, eq=False)
class View:
    """A clip, uint8 (n, H, W, 3), what geometry sees in it, and the centre of its object: (n, 2) pixels, or NaN."""

    frames: np.ndarray
    seen: geometry.Seen
    track: np.ndarray

    @classmethod
    def of(cls, frames: np.ndarray) -> View:
        seen = geometry.look(frames)
        return cls(frames, seen, np.stack((seen.x, seen.y), axis=1))


def dissolve(view: View, before: int, after: int) -> View:
    """The straight line from frame `before` to frame `after`: a cross-dissolve of the two, which shows two ghosts, and
    a centre that goes evenly from one to the other (better than what can be seen of the ghosts).

    after may be one past the last frame, which is the first again, as in a loop.
    """
    frames, track, end = view.frames.copy(), view.track.copy(), after % len(view.frames)
    for t in range(before + 1, after):
        share = (t - before) / (after - before)
        mixed = frames[before] * (1 - share) + frames[end].astype(np.float32) * share
        frames[t] = np.rint(mixed).astype(np.uint8)
        track[t] = track[before] * (1 - share) + track[end] * share
    return View(frames, geometry.look(frames), track)


# --- movement --------------------------------------------------------------------------------------------------------


def jump(view: View, at: int, to: int | None = None) -> float:
    """Pixels that the centre moves from frame `at` to the next one (or to frame `to`)."""
    return _length(view.track[at + 1 if to is None else to] - view.track[at])


def leap(view: View, frames: range) -> float:
    """The largest jump from one of these frames to the next."""
    return max(jump(view, t) for t in frames)


def jumps(view: View, joints: Iterable[int]) -> float:
    """Mean jump over several joints."""
    return float(np.mean([jump(view, at) for at in joints]))


def off(view: View, truth: View, frames: Iterable[int]) -> float:
    """Mean distance of the centre from the truth's, in pixels, over some frames."""
    return float(np.mean([_length(view.track[t] - truth.track[t]) for t in frames]))


def way(view: View, frames: range) -> float:
    """Length of the way of the centre from the first of these frames to the last, in pixels."""
    return math.fsum(jump(view, t) for t in frames[:-1])


def way_share(view: View, truth: View, frames: range) -> float:
    """The length of the way as a share of the truth's: 0 is frozen; NaN where the truth stands."""
    whole = way(truth, frames)
    return way(view, frames) / whole if whole >= MOVES else math.nan


def cosine(view: View, truth: View, start: int, stop: int) -> float:
    """Cosine between the ways of the centre from frame `start` to `stop` here and in the truth; NaN where that stands,
    0 where nothing moves or is seen."""
    right, here = truth.track[stop] - truth.track[start], view.track[stop] - view.track[start]
    if not _length(right) >= MOVES:
        return math.nan
    length = float(np.hypot(*here))
    return float(here @ right) / (length * _length(right)) if length > 0.1 else 0.0


def slope(there: View, back: View, frame: int, full: np.ndarray) -> float:
    """How much of the way to its end picture a clip has gone at a frame, relative to an even way (1).

    `there` and `back` start from the same picture and end `full` (x, y) and -`full` pixels from it.
    """
    apart = there.track[frame] - back.track[frame]
    share = frame / (len(there.track) - 1)
    return float(np.nan_to_num(apart) @ full / (2 * share * full @ full))


def pace(view: View, frames: range) -> float:
    """Mean jump from these frames to the next ones, as a share of that from the other frames of a loop.

    0 is a loop that stands still there. From the last frame the next one is the first. Where the others go less than
    MOVES together, a share of that: 0 where nothing moves.
    """
    size = len(view.frames)
    steps = np.array([jump(view, t, (t + 1) % size) for t in range(size)])
    inside = np.isin(np.arange(size), frames)
    usual = max(steps[~inside].sum(), MOVES) / (~inside).sum()
    return float(steps[inside].mean() / usual)


# --- pictures --------------------------------------------------------------------------------------------------------


def levels(view: View, at: int, to: int | None = None) -> float:
    """Mean difference of a frame from the next one (or from frame `to`), in levels of 0 to 255; a flash shows here."""
    return _difference(view.frames[at], view.frames[at + 1 if to is None else to])


def seam(view: View) -> float:
    """Difference of the last frame from the first, as a share of what frames around there differ by from the next.

    1 is a loop that nobody sees, 0 a frame that stands twice, more than about 2 a jump.
    """
    last = len(view.frames) - 1
    usual = [levels(view, t) for t in (*range(SETTLED), *range(last - SETTLED, last))]
    return levels(view, last, 0) / max(float(np.mean(usual)), 1e-9)


def shape_held(view: View, spec: ClipSpec, frames: Iterable[int]) -> float:
    """Share of frames in which the shape is recognised."""
    return float(np.mean([geometry.shape_of(view.seen, (t,)) == spec.shape for t in frames]))


def color_held(view: View, spec: ClipSpec, frames: Iterable[int]) -> float:
    """Share of frames in which the palette colour is recognised."""
    return float(np.mean([geometry.color_of(view.seen, t) == spec.color for t in frames]))


def motion_right(view: View, spec: ClipSpec) -> float:
    """1 when the clip shows the motion, else 0."""
    return float(geometry.motion_of(view.seen) == spec.motion)


def color_error(view: View, spec: ClipSpec, frame: int) -> float:
    """Mean distance of the object's colour in one frame from what it should be, in levels; LOST_LEVELS where none
    is seen."""
    mask, contrast = view.seen.mask[frame], view.seen.contrast[frame]
    if mask.sum() < geometry.SMALLEST:
        return LOST_LEVELS
    core = mask & (contrast > 0.7 * contrast.max())
    return float(np.abs(np.median(view.frames[frame][core], axis=0) - COLORS[spec.color]).mean())


def ground_error(view: View, truth: View, frame: int) -> float:
    """Mean distance of the background from the truth's in one frame, in levels, in columns that no object reaches;
    LOST_LEVELS where nothing there is background, as in a flash."""
    here, right = (v.frames[frame].astype(np.float32) for v in (view, truth))
    free = ~(view.seen.mask[frame] | truth.seen.mask[frame])
    free[:, 4:-4] = False
    return float(np.abs(here - right)[free].mean()) if free.any() else LOST_LEVELS


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(np.float32) - b.astype(np.float32)).mean())


def _length(way: np.ndarray) -> float:
    """Pixels; LOST when an end is not seen."""
    length = float(np.hypot(*way))
    return LOST if math.isnan(length) else length
