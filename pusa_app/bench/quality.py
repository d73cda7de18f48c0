"""`python -m pusa_app bench quality`: what mini obeys, beside the ground truth and what its VAE can show at all.

Held-out procedural clips and prompts with fixed seeds go through `render`, the path that every user's run takes. What
a clip shows is decided from its pixels (geometry.py). Only frames that nobody clamped are scored, but for the PSNR of
the clean first frame, which says so.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pusa_app.bench import geometry
from pusa_app.bench.outputs import check_outputs
from pusa_app.cli import Parser, integer, number
from pusa_app.timeline import MAX_STEPS
from pusa_app.training.captions import plain_caption
from pusa_app.training.clips import MOTIONS, ClipSpec, draw, sample_spec

SEED = 20_000_001  # far from every seed of the training
SHAPE_FRAMES = (8, 30)
FEWEST, MOST = 1, 1000


@dataclass(frozen=True)
class Obeyed:
    """Shares of clips that show what the prompt says."""

    color: float
    background: float
    shape: float
    motion: float
    all_four: float


@dataclass(frozen=True)
class Kept:
    """Image to video. jump: pixels that the centre moves from frame 0 to 1 and, mean, over frames 1 to 6; color and
    shape: shares of clips whose last frame still shows those of the picture; psnr: of frame 0, which is clamped."""

    psnr: float
    jump: float
    jump_after: float
    color_last: float
    shape_last: float
    motion: float


def main(argv: Sequence[str]) -> int:
    parser = Parser(prog="python -m pusa_app bench quality", description=__doc__.splitlines()[0])
    clips = "how many held-out clips (default 68: 4 of each motion)"
    parser.add_argument("--clips", type=integer(FEWEST, MOST), default=68, help=clips)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--steps", type=integer(1, MAX_STEPS))
    parser.add_argument("--guidance", type=number(0, 100))
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="also write contact sheets")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    args = parser.parse_args(argv)
    check_outputs(args.json, args.pictures)
    figures = measure(args.clips, args.model, args.steps, args.guidance, args.pictures)
    print(report(figures))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2, default=asdict) + "\n", encoding="utf-8")
    return 0


def held_out(count: int) -> list[ClipSpec]:
    """Clips that no training has seen, with all motions in turn."""
    rng = np.random.default_rng(SEED)
    return [sample_spec(rng, motion=MOTIONS[i % len(MOTIONS)]) for i in range(count)]


def measure(
    count: int,
    model: str = "mini",
    steps: int | None = None,
    guidance: float | None = None,
    pictures: Path | None = None,
) -> dict[str, Any]:
    """All figures of the report; see `report` for the goals."""
    from pusa_app.models import load_backbone

    backbone = load_backbone(model)
    specs = held_out(count)
    truth = [draw(spec) for spec in specs]
    rebuilt = [np.concatenate(list(backbone.decode(backbone.encode_frames(frames)))) for frames in truth]
    began = time.perf_counter()
    from_text = [_generate(backbone, model, spec, None, seed, steps, guidance) for seed, spec in enumerate(specs)]
    seconds = (time.perf_counter() - began) / count
    from_image = []
    with tempfile.TemporaryDirectory() as folder:
        for seed, (spec, frames) in enumerate(zip(specs, truth, strict=True)):
            picture = Path(folder) / f"{seed}.png"
            Image.fromarray(frames[0]).save(picture)
            from_image.append(_generate(backbone, model, spec, picture, seed, steps, guidance))
    if pictures:
        pictures.mkdir(parents=True, exist_ok=True)
        _sheet(pictures / "text-to-video.png", specs, from_text)
        _sheet(pictures / "image-to-video.png", specs, from_image, truth)
    return {
        "clips": count,
        "seconds_per_clip": seconds,
        "vae_psnr": float(np.mean([psnr(a, b) for a, b in zip(rebuilt, truth, strict=True)])),
        "text_to_video": {
            "ground truth": obeyed(specs, truth),
            "VAE round trip": obeyed(specs, rebuilt),
            "mini": obeyed(specs, from_text),
        },
        "image_to_video": {
            "ground truth": kept(specs, truth, truth),
            "VAE round trip": kept(specs, rebuilt, truth),
            "mini": kept(specs, from_image, truth),
        },
    }


def _generate(
    backbone: Any,
    model: str,
    spec: ClipSpec,
    picture: Path | None,
    seed: int,
    steps: int | None,
    guidance: float | None,
) -> np.ndarray:
    from pusa_app.render import render
    from pusa_app.timeline import ImageSource, Keyframe, Recipe

    keyframes = (Keyframe(slot=0, source=ImageSource(path=str(picture)), noise=0.0),) if picture else ()
    recipe = Recipe(
        task="image-to-video" if picture else "text-to-video",
        model=model,
        prompt=plain_caption(spec),
        timeline=backbone.spec.timeline(keyframes=keyframes),
        steps=steps or backbone.spec.steps,
        guidance=backbone.spec.guidance if guidance is None else guidance,
        seed=seed,
    )
    print(f"{recipe.task} {seed + 1}", end="\r", file=sys.stderr, flush=True)
    frames = render(recipe, backbone).frames
    assert frames is not None
    return frames


def obeyed(specs: Sequence[ClipSpec], clips: Sequence[np.ndarray]) -> Obeyed:
    """Shares over clips, uint8 (n, H, W, 3) each."""
    right = []
    for spec, frames in zip(specs, clips, strict=True):
        seen = geometry.look(frames)
        right.append(
            (
                geometry.color_of(seen) == spec.color,
                seen.background == spec.background,
                geometry.shape_of(seen, SHAPE_FRAMES) == spec.shape,
                geometry.motion_of(seen) == spec.motion,
            )
        )
    table = np.array(right, dtype=float)
    return Obeyed(*table.mean(0).tolist(), all_four=float(table.all(1).mean()))


def kept(specs: Sequence[ClipSpec], clips: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> Kept:
    rows = []
    for spec, frames, real in zip(specs, clips, truth, strict=True):
        seen = geometry.look(frames)
        step = np.nan_to_num(np.hypot(np.diff(seen.x), np.diff(seen.y)), nan=20.0)  # a lost object has jumped
        last = len(frames) - 1
        rows.append(
            (
                psnr(frames[:1], real[:1]),
                step[0],
                step[1:6].mean(),
                geometry.color_of(seen, last) == spec.color,
                geometry.shape_of(seen, (last,)) == spec.shape,
                geometry.motion_of(seen) == spec.motion,
            )
        )
    return Kept(*np.array(rows, dtype=float).mean(0).tolist())


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """dB between uint8 frames; 60 at most."""
    error = np.mean((a.astype(np.float32) - b.astype(np.float32)) ** 2)
    return float(min(60.0, 10 * np.log10(255**2 / max(error, 1e-9))))


def goals(figures: dict[str, Any]) -> list[tuple[str, float, float, bool]]:
    """(what, reached, goal, met) for each goal of the project."""
    text, vae_text = figures["text_to_video"]["mini"], figures["text_to_video"]["VAE round trip"]
    image, vae_image = figures["image_to_video"]["mini"], figures["image_to_video"]["VAE round trip"]
    lines = [
        ("text to video: colour", text.color, 0.95),
        ("text to video: background", text.background, 0.95),
        ("text to video: motion", text.motion, 0.95),
        ("text to video: shape, share of the VAE's", _share(text.shape, vae_text.shape), 0.9),
        (
            "image to video: shape in the last frame, share of the VAE's",
            _share(image.shape_last, vae_image.shape_last),
            0.9,
        ),
    ]
    checked = [(what, reached, goal, reached >= goal) for what, reached, goal in lines]
    jump = _share(image.jump, vae_image.jump)
    return [*checked, ("image to video: jump at the joint, times the VAE's (at most)", jump, 1.3, jump <= 1.3)]


def _share(value: float, whole: float) -> float:
    """value / whole; nothing of nothing is NaN, which meets no goal."""
    return value / whole if whole else math.nan


def report(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"{figures['clips']} held-out clips, {figures['seconds_per_clip']:.1f} s per text-to-video run, "
        f"VAE round trip {figures['vae_psnr']:.1f} dB",
        "",
        "| text to video | colour | background | shape | motion | all four |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in figures["text_to_video"].items():
        values = (row.color, row.background, row.shape, row.motion, row.all_four)
        lines.append(f"| {name} | " + " | ".join(f"{value:.0%}" for value in values) + " |")
    lines += [
        "",
        "| image to video | PSNR of frame 0, dB | jump 0 to 1, px | jump 1 to 6, px a frame | colour, last frame "
        "| shape, last frame | motion |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in figures["image_to_video"].items():
        lines.append(
            f"| {name} | {row.psnr:.1f} | {row.jump:.2f} | {row.jump_after:.2f} | {row.color_last:.0%} "
            f"| {row.shape_last:.0%} | {row.motion:.0%} |"
        )
    lines += ["", "| goal | reached | asked | met |", "|---|---|---|---|"]
    for what, reached, goal, met in goals(figures):
        lines.append(f"| {what} | {reached:.2f} | {goal:.2f} | {'yes' if met else 'no'} |")
    return "\n".join(lines)


def _sheet(
    path: Path, specs: Sequence[ClipSpec], clips: Sequence[np.ndarray], truth: Sequence[np.ndarray] | None = None
) -> None:
    """A row of seven frames per clip (every sixth), above it the truth where given; the prompts beside it as text."""
    rows = []
    for i, frames in enumerate(clips[:17]):
        if truth is not None:
            rows.append(np.concatenate(list(truth[i][::6]), axis=1))
        rows.append(np.concatenate(list(frames[::6]), axis=1))
    picture = Image.fromarray(np.concatenate(rows)).quantize(256, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)
    prompts = "\n".join(plain_caption(spec) for spec in specs[:17])
    path.with_suffix(".txt").write_text(prompts + "\n", encoding="utf-8")
