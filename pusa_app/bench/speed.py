"""`python -m pusa_app bench speed`: what a time per slot costs, and what a whole run costs beside diffusers.

One step: the vectorized transformer, stock diffusers, and modulation repeated for every token, with the same weights
and inputs, in turns within one process. Ratios are medians over the rounds, as a busy machine slows both sides. The
goal is set on "text trimmed": this program drops the padding of a prompt beforehand, the pipeline carries it along.
A whole run: prompt to frames with the same weights, seed, steps, schedule and guidance as diffusers' MochiPipeline.

What is not covered: a GPU, and memory.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import MochiPipeline, MochiTransformer3DModel

from pusa_app.backbones.mochi import VectorizedMochiTransformer3DModel
from pusa_app.cli import Parser, integer
from pusa_app.models import ModelCard, get_card, load_backbone
from pusa_app.render import render
from pusa_app.timeline import MAX_STEPS, Recipe, ScheduleSpec

STEP_GOAL = 1.03  # of the stock step's time
RUN_GOAL = 0.8  # of the pipeline's time
PIPELINE_TEXT_TOKENS = 256  # what MochiPipeline pads every prompt to
STOCK, OURS = "stock diffusers", "a time per slot, text trimmed"
PIPELINE, RENDER = "MochiPipeline", "pusa_app.render"
PROMPT = "a red ball moves to the right"

Seconds = dict[str, list[float]]


@dataclass(frozen=True)
class StepSize:
    """Mochi's shape with fewer layers: 24 heads of 128, latents 12 x slots x height x width."""

    layers: int = 2
    slots: int = 6
    height: int = 16
    width: int = 24
    valid_text_tokens: int = 24
    rounds: int = 5


@dataclass(frozen=True)
class RunResult:
    """Seconds per variant and round, and the largest difference of a pixel in steps of 8-bit colour."""

    seconds: Seconds
    difference: int


def main(argv: Sequence[str] | None = None) -> int:
    """Print both tables; 0 when the goals are met, 1 when one is missed."""
    parser = Parser(prog="python -m pusa_app bench speed", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="smaller sizes, fewer rounds: a smoke test, no measurement"
    )
    parser.add_argument("--model", default="mini", help="model or diffusers Mochi folder for the whole run")
    parser.add_argument(
        "--steps", type=integer(1, MAX_STEPS), help="sampling steps of the whole run; the model's own by default"
    )
    parser.add_argument("--only", choices=("step", "run"), help="measure one of the two")
    options = parser.parse_args(argv)
    card = None if options.only == "step" else get_card(options.model)  # complain of it before minutes have passed
    passed = True
    print(f"torch {torch.__version__}, {torch.get_num_threads()} CPU threads, fp32")
    if options.only != "run":
        size = StepSize(layers=1, slots=3, height=8, width=12, rounds=2) if options.quick else StepSize()
        passed &= _print_step(size, measure_step(size))
    if card is not None:
        rounds = 1 if options.quick else 5
        passed &= _print_run(card, measure_run(card, options.steps, rounds))
    return 0 if passed else 1


# One step


def measure_step(size: StepSize) -> Seconds:
    """Seconds of one forward, per variant and round."""
    torch.manual_seed(0)
    stock = MochiTransformer3DModel(num_layers=size.layers).eval()
    torch.nn.init.normal_(stock.pos_frequencies, std=0.02)
    with torch.device("meta"):
        ours = VectorizedMochiTransformer3DModel.from_config(stock.config)
    ours.load_state_dict(stock.state_dict(), assign=True)
    ours.eval()

    z = torch.randn(1, 12, size.slots, size.height, size.width)
    text = torch.randn(1, PIPELINE_TEXT_TOKENS, stock.config.text_embed_dim)
    mask = torch.arange(PIPELINE_TEXT_TOKENS)[None] < size.valid_text_tokens
    one_time, times = torch.tensor([500.0]), torch.linspace(0, 1000, size.slots)[None]
    trimmed = text[:, : size.valid_text_tokens]
    variants: dict[str, Callable[[], Any]] = {
        STOCK: lambda: stock(z, text, one_time, mask, return_dict=False),
        "a time per slot, text padded": lambda: ours(z, text, times, mask, return_dict=False),
        OURS: lambda: ours(z, trimmed, times, return_dict=False),
        "the same, repeated per token": lambda: forward_repeated_per_token(ours, z, text, times, mask),
    }
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "In CPU autocast")  # stock's RoPE on any CPU
        return _take_turns(variants, size.rounds)


def forward_repeated_per_token(
    model: VectorizedMochiTransformer3DModel,
    hidden_states: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    timestep: torch.Tensor,
    encoder_attention_mask: torch.Tensor,
) -> torch.Tensor:
    """The way not taken: temb repeated to one row per token in front of every modulation. Same result, more work.

    Arguments and result as the model's forward.
    """
    batch, _, slots, height, width = hidden_states.shape
    p = model.config.patch_size
    rows, columns = height // p, width // p
    temb, text = model._embed_conditions(timestep, encoder_hidden_states, encoder_attention_mask, hidden_states.dtype)
    temb = temb.repeat_interleave(rows * columns, dim=1)
    x = model.patch_embed(hidden_states.transpose(1, 2).flatten(0, 1)).unflatten(0, (batch, -1)).flatten(1, 2)
    x = x.unsqueeze(2)  # every token is a slot of its own
    rope = model._rotations(slots, rows, columns)
    mask = F.pad(encoder_attention_mask, (x.shape[1], 0), value=True)
    for block in model.transformer_blocks:
        x, text = block(x, text, temb, mask, rope)
    x = model.proj_out(model.norm_out(x.flatten(0, 1), temb.flatten(0, 1)))
    x = x.reshape(batch, slots, rows, columns, p, p, -1).permute(0, 6, 1, 2, 4, 3, 5)
    return x.reshape(batch, -1, slots, height, width)


def _print_step(size: StepSize, seconds: Seconds) -> bool:
    tokens = size.slots * size.height * size.width // 4
    print(
        f"\nOne step: width 3072, {size.layers} layers, {tokens} visual tokens, "
        f"{size.valid_text_tokens} of {PIPELINE_TEXT_TOKENS} text tokens valid, median of {size.rounds}"
    )
    _print_table(seconds, STOCK)
    return _verdict(OURS, _ratio(seconds, OURS, STOCK), STEP_GOAL)


# A whole run


def measure_run(card: ModelCard, steps: int | None = None, rounds: int = 5) -> RunResult:
    """Text to video with our render and with MochiPipeline; loading is not timed, encoding and decoding are."""
    spec = card.spec
    recipe = Recipe(
        task="text-to-video",
        model=card.id,
        prompt=PROMPT,
        timeline=spec.timeline(),
        steps=steps or spec.steps,
        guidance=spec.guidance,
        seed=0,
        schedule=ScheduleSpec(kind="linear-quadratic"),
    )
    pipeline = _open_pipeline(card.folder)
    frames: dict[str, np.ndarray] = {}
    backbone = load_backbone(card, "cpu")

    def run_ours() -> None:
        frames["ours"] = render(recipe, backbone).frames

    def run_pipeline() -> None:
        made = pipeline(
            recipe.prompt,
            height=spec.height,
            width=spec.width,
            num_frames=spec.num_frames,
            num_inference_steps=recipe.steps,
            guidance_scale=recipe.guidance,
            generator=torch.Generator("cpu").manual_seed(recipe.seed),
            output_type="np",
        ).frames[0]
        frames["pipeline"] = (made * 255).round().astype(np.uint8)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "In CPU autocast")
        seconds = _take_turns({PIPELINE: run_pipeline, RENDER: run_ours}, rounds)
    difference = np.abs(frames["ours"].astype(int) - frames["pipeline"].astype(int)).max()
    return RunResult(seconds, int(difference))


def _open_pipeline(folder: Path | None) -> MochiPipeline:
    # a folder in fp16 must not run in it: the text encoder would, the rest would not
    pipeline = MochiPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _print_run(card: ModelCard, result: RunResult) -> bool:
    spec = card.spec
    print(f"\nWhole run: {card.id}, {spec.width}x{spec.height}, {spec.num_frames} frames, guidance {spec.guidance:g}")
    _print_table(result.seconds, PIPELINE)
    print(f"  largest difference of the frames: {result.difference} of 255")
    return _verdict(RENDER, _ratio(result.seconds, RENDER, PIPELINE), RUN_GOAL)


def _print_table(seconds: Seconds, base: str) -> None:
    for name, values in seconds.items():
        print(f"  {name:<32} {statistics.median(values):8.3f} s   {_ratio(seconds, name, base):5.2f} x")


def _ratio(seconds: Seconds, name: str, base: str) -> float:
    """Median over the rounds of the time relative to `base` in the same round."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[base], strict=True))


def _verdict(name: str, ratio: float, goal: float) -> bool:
    print(f"  goal: {name} at most {goal:g} x: {'pass' if ratio <= goal else 'FAIL'} ({ratio:.3f})")
    return ratio <= goal


def _take_turns(variants: dict[str, Callable[[], Any]], rounds: int) -> Seconds:
    """Time every variant once per round after one warm-up each; every round starts with another variant."""
    seconds: Seconds = {name: [] for name in variants}
    names = list(variants)
    for number in range(-1, rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            started = time.perf_counter()
            variants[name]()
            if number >= 0:
                seconds[name].append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    sys.exit(main())
