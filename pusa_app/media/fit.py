"""Where a picture of one size lands in a frame of another."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Fit = Literal["crop", "pad"]
Focus = tuple[float, float]
Frames: TypeAlias = NDArray[np.uint8]


def crop_box(source: tuple[int, int], target: tuple[int, int], focus: Focus) -> tuple[float, float, float, float]:
    """The largest box of the target's shape inside the source: left, top, right, bottom, in source pixels.

    focus (x, y) in [0, 1] says what to keep: (0.5, 0.5) the middle, (0, 0) the top left. The box never leaves the
    source.
    """
    (width, height), (target_width, target_height) = source, target
    scale = min(width / target_width, height / target_height)
    box_width, box_height = min(scale * target_width, width), min(scale * target_height, height)
    left, top = (width - box_width) * _unit(focus[0]), (height - box_height) * _unit(focus[1])
    return left, top, min(left + box_width, width), min(top + box_height, height)


def scaled_size(source: tuple[int, int], target: tuple[int, int], fit: Fit) -> tuple[int, int]:
    """Width and height of the whole source when it covers the target (crop) or lies inside it (pad)."""
    ratios = target[0] / source[0], target[1] / source[1]
    if fit == "pad":
        scale = min(ratios)
        return min(max(1, round(source[0] * scale)), target[0]), min(max(1, round(source[1] * scale)), target[1])
    scale = max(ratios)
    return max(round(source[0] * scale), target[0]), max(round(source[1] * scale), target[1])


def _unit(value: float) -> float:
    return min(max(value, 0.0), 1.0)
