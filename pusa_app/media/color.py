"""Colour correction: made frames brought to the colours of the keyframes that they were made from.

A model gives a keyframe back a little darker, paler or warmer than it was, and the frames between keyframes share that
cast. Where a frame is known it is compared with its made version, and what brings the one to the other is applied to
the frames around it. This is the transfer of mean and deviation of Reinhard et al., "Color Transfer between Images"
(2001), per channel of RGB as displayed: in this space a decoder errs, and clipping is at 0 and 255.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pusa_app.media.fit import Frames

MAX_GAIN = 1.25
MIN_GAIN = 0.8
MAX_SHIFT = 24.0

_Floats = NDArray[np.float64]

# Deviations in levels are compared on top of this one: a gain that is read off three dark levels is wrong for a bright
# frame, and a flat channel tells none.
_PRIOR_DEVIATION = 6.0
# Below this correlation the two pictures show different things, and their colours are no measure of each other's.
_MIN_CORRELATION = 0.5
_ROUNDS = 4


@dataclass(frozen=True, eq=False)
class ColorMatch:
    """Corrected level = gain * level + offset, per channel; between the places of known frames both change linearly.

    places: (k,) frame indices, ascending.  gains, offsets: (k, 3), offsets in levels. No place: the identity.
    """

    places: NDArray[np.int64]
    gains: _Floats
    offsets: _Floats

    @classmethod
    def fit(cls, pairs: Sequence[tuple[int, Frames, Frames]]) -> ColorMatch:
        """The correction that brings made frames to known ones.

        pairs: (frame index, made, known), both uint8 (height, width, 3) and of the same moment: the made version of a
        keyframe and the keyframe itself. Parts that differ, such as a thing that moved, are left out of the
        comparison; a pair that differs altogether is left out of the match. The gain stays within MIN_GAIN and
        MAX_GAIN, the mean of a channel moves by MAX_SHIFT levels at most. Identical frames give exactly the identity.
        Raises ValueError for arrays of another kind, for two of different shapes and for an index given twice.
        """
        found: dict[int, tuple[_Floats, _Floats] | None] = {}
        for index, made, known in pairs:
            for name, frame in (("made", made), ("known", known)):
                _check(frame, 3, f"the {name} frame {index}", "(height, width, 3)")
            if made.shape != known.shape:
                raise ValueError(f"frame {index}: made is {made.shape} and known is {known.shape}")
            if index in found:
                raise ValueError(f"frame {index} is given twice")
            found[index] = _compare(made, known)
        matches = [(index, *match) for index, match in sorted(found.items()) if match is not None]
        return cls(
            np.array([index for index, _, _ in matches], np.int64),
            np.array([gain for _, gain, _ in matches]).reshape(-1, 3),
            np.array([offset for _, _, offset in matches]).reshape(-1, 3),
        )

    def at(self, index: int) -> tuple[_Floats, _Floats]:
        """Gain and offset, (3,) and (3,), at a frame: before the first place and after the last as there."""
        if not len(self.places):
            return np.ones(3), np.zeros(3)
        gain, offset = (
            np.array([np.interp(index, self.places, values[:, channel]) for channel in range(3)])
            for values in (self.gains, self.offsets)
        )
        return gain, offset

    def apply(self, frames: Frames, first_index: int = 0) -> Frames:
        """The frames, corrected: uint8 (n, height, width, 3), of which the first is frame `first_index` of the clip.

        A clip may be given piece by piece. The input is left as it is. Raises ValueError for arrays of another kind.
        """
        _check(frames, 4, "frames", "(n, height, width, 3)")
        corrected = np.empty_like(frames)
        levels = np.arange(256)
        for number, frame in enumerate(frames):
            for channel, (gain, offset) in enumerate(zip(*self.at(first_index + number), strict=True)):
                table = np.clip(np.rint(gain * levels + offset), 0, 255).astype(np.uint8)
                corrected[number, ..., channel] = table[frame[..., channel]]
        return corrected


def _compare(made: Frames, known: Frames) -> tuple[_Floats, _Floats] | None:
    """Gain and offset per channel that bring `made` to `known`; None when they show different things."""
    x, y = _blocks(made), _blocks(known)
    if not _alike(x.mean(1), y.mean(1)):
        return None
    # A clipped block does not say how far beyond the end it was meant to be.
    inside = ((np.minimum(x, y) > 1) & (np.maximum(x, y) < 254)).all(1)
    if inside.sum() >= 0.1 * len(x):
        x, y = x[inside], y[inside]
    gain, offset = np.ones(3), np.median(y - x, axis=0)
    for _ in range(_ROUNDS):
        # What moved or appeared is far from the line in some channel; 1.48 MAD is the deviation of the others.
        errors = np.abs(y - (gain * x + offset))
        kept = (errors <= np.maximum(2.5 * 1.48 * np.median(errors, axis=0), 1.0)).all(1)
        if kept.sum() < 0.1 * len(x):
            break
        gain, offset = _moments(x[kept], y[kept])
    return gain, offset


def _moments(x: _Floats, y: _Floats) -> tuple[_Floats, _Floats]:
    """The limited gain and offset that give `x` (blocks, channels) the means and deviations of `y`."""
    prior = _PRIOR_DEVIATION**2
    gain = np.clip(np.sqrt((y.var(0) + prior) / (x.var(0) + prior)), MIN_GAIN, MAX_GAIN)
    mean = x.mean(0)
    # The limit is on the way of the mean: a mere gain around it has a large offset at level 0.
    shift = np.clip(y.mean(0) - mean, -MAX_SHIFT, MAX_SHIFT)
    return gain, mean + shift - gain * mean


def _alike(x: _Floats, y: _Floats) -> bool:
    """Whether two pictures, given as the grey levels of their blocks, show the same thing."""
    if abs(x.mean() - y.mean()) > 2 * MAX_SHIFT:
        return False  # no cast is that strong
    if max(x.std(), y.std()) < _PRIOR_DEVIATION:
        return True  # two plain fields
    deviation = x.std() * y.std()
    return bool(deviation > 0 and np.mean((x - x.mean()) * (y - y.mean())) >= _MIN_CORRELATION * deviation)


def _blocks(frame: Frames) -> _Floats:
    """Means of square blocks, (blocks, 3), about 24 along the shorter side.

    Fine detail that a decoder blurs, and its noise, would pass for contrast pixel by pixel; in means they are gone.
    """
    height, width = frame.shape[:2]
    edge = min(max(4, min(height, width) // 24), height, width)
    rows, columns = height // edge, width // edge
    whole = frame[: rows * edge, : columns * edge].reshape(rows, edge, columns, edge, 3)
    means: _Floats = whole.mean((1, 3), dtype=np.float64).reshape(-1, 3)
    return means


def _check(array: Frames, ndim: int, name: str, shape: str) -> None:
    right = isinstance(array, np.ndarray) and array.dtype == np.uint8 and array.ndim == ndim and array.shape[-1] == 3
    if not right or 0 in array.shape[-3:]:
        kind = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"{name} must be uint8 {shape}, not {kind}")
