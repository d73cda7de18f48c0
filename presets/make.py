"""The pictures and clips that the examples of the presets start from. Run in the root folder: python -m presets.make

All of them are drawn; the same run gives the same bytes. (Three older pictures, red-circle, white-ring and
yellow-cross, are frames of such clips too.)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from pusa_app.media import ClipWriter
from pusa_app.training.clips import SIDE, ClipSpec, draw, sample_spec

HERE = Path(__file__).parent
FPS = 12

# name: (seed, shape, motion, colour, background, frames)
CLIPS = {
    "circle-right": (186, "circle", "right", "yellow", "dark blue", 37),
    "star-spinning": (4, "star", "spins", "pink", "dark green", 37),
    "square-swaying": (92, "square", "sways", "cyan", "black", 37),
    "cross-orbiting": (6, "cross", "orbits clockwise", "orange", "dark purple", 37),
    "circle-bouncing": (221, "circle", "bounces", "red", "gray", 61),
}
# name: (seed, shape, motion, colour, background, frame of 37)
PICTURES = {
    "square-start": (278, "square", "up right", "cyan", "black", 0),
    "square-end": (278, "square", "up right", "cyan", "black", 36),
    "circle-start": (211, "circle", "right", "green", "dark purple", 0),
    "circle-middle": (211, "circle", "right", "green", "dark purple", 18),
    "circle-end": (211, "circle", "right", "green", "dark purple", 36),
    "star-start": (278, "star", "sways", "yellow", "dark blue", 0),
}


def spec_of(seed: int, shape: str, motion: str, color: str, background: str, frames: int) -> ClipSpec:
    """A clip of the training grammar with chosen words; the seed decides size and path."""
    spec = sample_spec(np.random.default_rng(seed), frames, motion=motion, shape=shape)
    return replace(spec, color=color, background=background, gradient=False)


def main() -> None:
    for name, (*words, count) in CLIPS.items():
        with ClipWriter(HERE / "clips" / f"{name}.mp4", SIDE, SIDE, FPS) as clip:
            clip.write(draw(spec_of(*words, count)))
    for name, (*words, frame) in PICTURES.items():
        Image.fromarray(draw(spec_of(*words, 37))[frame]).save(HERE / "pictures" / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
