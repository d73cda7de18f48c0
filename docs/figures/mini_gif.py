"""The GIF of the README: six clips made with mini. Run from the repository's root: python docs/figures/mini_gif.py"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from pusa_app.media import write_gif
from pusa_app.models import load_backbone
from pusa_app.render import render
from pusa_app.timeline import Recipe

PROMPTS = (
    "a big red star moves up right over a dark blue background",
    "a yellow circle bounces over a dark green background",
    "a cyan triangle moves right over a black background",
    "a green cross orbits clockwise over a dark purple background",
    "a pink square pulses over a gray background",
    "an orange ring sways over a black background",
)
COLUMNS, SCALE, GAP = 3, 2, 4


def main() -> None:
    backbone = load_backbone("mini")
    spec = backbone.spec
    clips = []
    for seed, prompt in enumerate(PROMPTS):
        recipe = Recipe(
            task="text-to-video",
            prompt=prompt,
            timeline=spec.timeline(),
            steps=spec.steps,
            guidance=spec.guidance,
            seed=seed,
        )
        clips.append(render(recipe, backbone).frames)
    tiles = [clip.repeat(SCALE, axis=1).repeat(SCALE, axis=2) for clip in clips]
    tiles = [np.pad(tile, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255) for tile in tiles]
    rows = [np.concatenate(tiles[i : i + COLUMNS], axis=2) for i in range(0, len(tiles), COLUMNS)]
    write_gif(np.concatenate(rows, axis=1), Path(__file__).with_name("mini.gif"), spec.fps)


if __name__ == "__main__":
    main()
