"""What a procedural clip shows, decided from its pixels by plain geometry: colour, background, shape, motion.

No network and no knowledge of how the clip was made. `python -m pusa_app bench quality` prints how often these rules
are right on clips whose truth is known.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from pusa_app.training.clips import BACKGROUNDS, COLORS, DIRECTIONS, ROUND, SHAPES, SIDE, distance

CONTRAST = 45  # levels between object and background
SMALLEST = 12  # pixels; less is no object
MOVES = 5.5  # pixels; less is standing
TURN_OVERLAP = 0.87  # a shape whose overlap with its first frame falls below this has turned


@dataclass(frozen=True)
class Seen:
    """The object in each frame: mask (n, H, W); x, y (n,) centre in pixels, NaN where nothing is seen; area (n,)."""

    frames: np.ndarray
    contrast: np.ndarray
    mask: np.ndarray
    x: np.ndarray
    y: np.ndarray
    area: np.ndarray
    background: str


def look(frames: np.ndarray) -> Seen:
    """uint8 (n, H, W, 3): the background is the median of the border columns of each row over time, the object is what
    differs from it."""
    pixels = frames.astype(np.float32)
    _, height, width, _ = pixels.shape
    border = np.concatenate((pixels[:, :, :3], pixels[:, :, -3:]), axis=2)
    ground = np.median(border.transpose(1, 0, 2, 3).reshape(height, -1, 3), axis=1)  # (H, 3)
    contrast = np.abs(pixels - ground[None, :, None]).max(-1)
    mask = contrast > CONTRAST
    area = mask.sum((1, 2)).astype(np.float32)
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    with np.errstate(invalid="ignore", divide="ignore"):
        x = np.where(area >= SMALLEST, (mask * columns).sum((1, 2)) / area, np.nan)
        y = np.where(area >= SMALLEST, (mask * rows).sum((1, 2)) / area, np.nan)
    return Seen(frames, contrast, mask, x, y, area, _nearest(np.median(ground, axis=0), BACKGROUNDS))


def color_of(seen: Seen, frame: int | None = None) -> str:
    """The palette colour of the object in one frame, or over the clip; "none" where nothing is seen."""
    part = slice(None) if frame is None else slice(frame, frame + 1)
    mask, contrast = seen.mask[part], seen.contrast[part]
    if mask.sum() < SMALLEST:
        return "none"
    core = mask & (contrast > 0.7 * contrast.max())  # without the blended edge
    return _nearest(np.median(seen.frames[part][core], axis=0), COLORS)


def motion_of(seen: Seen) -> str:
    """One of clips.MOTIONS, from the track of the centre, the area, and for standing objects the overlap in time."""
    if np.isnan(seen.x).mean() > 0.3:
        return "none"
    x, y, area = _smooth(seen.x), _smooth(seen.y), _smooth(np.maximum(seen.area, 1))
    wide, high = np.ptp(x), np.ptp(y)
    if max(wide, high) < MOVES:
        return _standing(seen, area)
    dx, dy = x[-1] - x[0], y[-1] - y[0]
    if math.hypot(dx, dy) > 0.7 * math.hypot(wide, high):
        heading = math.atan2(dy, dx)
        return min(DIRECTIONS, key=lambda name: abs(_wrap(math.atan2(*DIRECTIONS[name][::-1]) - heading)))
    if min(wide, high) > 0.45 * max(wide, high):
        angle = np.arctan2(y - (y.max() + y.min()) / 2, x - (x.max() + x.min()) / 2)
        return "orbits clockwise" if _wrap(np.diff(angle)).sum() > 0 else "orbits counterclockwise"
    return "bounces" if high > wide else "sways"


def _standing(seen: Seen, area: np.ndarray) -> str:
    growth = area[-1] / area[0]
    if growth > 1.7:
        return "grows"
    if growth < 1 / 1.7:
        return "shrinks"
    if area.max() / area.min() > 1.9:
        return "pulses"
    return "spins" if _least_overlap(seen) < TURN_OVERLAP else "still"


def _least_overlap(seen: Seen) -> float:
    """The smallest intersection over union of a recentred mask with that of the first frame."""
    first, least = seen.mask[0], 1.0
    for t in range(3, len(seen.mask), 3):
        if np.isnan(seen.x[t]) or np.isnan(seen.x[0]):
            continue
        shift = (round(float(seen.y[0] - seen.y[t])), round(float(seen.x[0] - seen.x[t])))
        mask = np.roll(seen.mask[t], shift, (0, 1))
        least = min(least, float((mask & first).sum() / (mask | first).sum()))
    return least


def shape_of(seen: Seen, frames: tuple[int, ...]) -> str:
    """The shape whose template, at the same area and centre and its best turn, overlaps best over some frames."""
    scores = dict.fromkeys(SHAPES, 0.0)
    counted = 0
    for t in frames:
        if np.isnan(seen.x[t]):
            continue
        counted += 1
        for name, score in shape_scores(seen.mask[t], float(seen.x[t]), float(seen.y[t])).items():
            scores[name] += score
    return max(scores, key=lambda name: scores[name]) if counted else "none"


def shape_scores(mask: np.ndarray, x: float, y: float) -> dict[str, float]:
    """Best intersection over union of a mask (H, W) centred on (x, y) with each shape, over all turns."""
    rows, columns = np.mgrid[0 : mask.shape[0], 0 : mask.shape[1]] + 0.5
    down, across = rows - y, columns - x
    size = math.sqrt(mask.sum())
    scores = {}
    for name in SHAPES:
        radius, off_x, off_y = size / _unit(name)[0], *_unit(name)[1:]
        best = 0.0
        for turn in _turns(name):
            c, s = math.cos(turn), math.sin(turn)
            # The centroid of a drawn shape is not its origin (a triangle's is close, a star's is exact).
            u = across * c + down * s + off_x * radius
            v = down * c - across * s + off_y * radius
            template = distance(name, u, v, radius) < 0
            best = max(best, float((template & mask).sum() / (template | mask).sum()))
        scores[name] = best
    return scores


def _turns(name: str) -> list[float]:
    """Turns to try, over one symmetry of the shape."""
    if name in ROUND:
        return [0.0]
    symmetry = {"square": 90, "cross": 90, "triangle": 120, "star": 72}[name]
    return [math.radians(degrees) for degrees in range(0, symmetry, 6)]


@functools.cache
def _unit(name: str) -> tuple[float, float, float]:
    """Square root of the area and the centroid of a shape of radius 1, measured at radius 20."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] + 0.5 - SIDE / 2
    inside = distance(name, columns, rows, 20.0) < 0
    return math.sqrt(inside.sum()) / 20, columns[inside].mean() / 20, rows[inside].mean() / 20


def _nearest(color: np.ndarray, palette: dict[str, tuple[int, int, int]]) -> str:
    return min(palette, key=lambda name: float(((color - np.array(palette[name])) ** 2).sum()))


def _smooth(track: np.ndarray) -> np.ndarray:
    """Mean over three frames, with gaps filled from their neighbours."""
    good = ~np.isnan(track)
    filled = np.interp(np.arange(len(track)), np.flatnonzero(good), track[good])
    return np.convolve(filled, np.ones(3) / 3, "valid")


def _wrap(angle: np.ndarray | float) -> np.ndarray:
    """To -pi..pi."""
    return np.remainder(np.asarray(angle) + math.pi, 2 * math.pi) - math.pi
