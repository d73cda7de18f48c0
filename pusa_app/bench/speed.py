"""`python -m pusa_app bench speed`: what a time per slot costs, what a whole run costs beside diffusers, and what the
ways to be faster bring.

One step of each family: the vectorized transformer, stock diffusers, and modulation repeated for every token, with the
same random weights and inputs, in turns within one process. SkyReels-V2-DF is run by diffusers' own class, so its step
has no goal. A forward is the same work every time, so its fastest round
is the one that other programs disturbed least: the goal is set on it. It is the step as the program makes it: where the
pipeline carries the padding of a prompt along, this program drops it beforehand. On the CPU some layers at the real
width; on a GPU all layers at the size of the catalogue, with the rate in TFLOP/s beside the best that a matrix product
reaches there.
A whole run: prompt to frames with the same weights, seed, steps, schedule and guidance as diffusers' MochiPipeline.
Fast paths: First Block Cache, guidance interval, compiled blocks, attention backends, on a model that is here.

What is not covered: memory (`bench memory`).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import MochiPipeline

from pusa_app.backbones.parts import silent_libraries
from pusa_app.bench.speed_device import can_run, full_size, matmul_peak, operations, wait
from pusa_app.bench.speed_families import FAMILIES, OURS, STOCK, Family, StepSize
from pusa_app.bench.speed_fast import PROMPTS, measure_fast, print_fast, recipe_of
from pusa_app.bench.timing import Seconds, best_ratio, print_table, ratio, take_turns, verdict
from pusa_app.cli import Parser, integer
from pusa_app.errors import UserError
from pusa_app.models import ModelCard, get_card, load_backbone
from pusa_app.models.entry import entries
from pusa_app.render import render
from pusa_app.timeline import MAX_STEPS, ScheduleSpec

STEP_GOAL = 1.03  # of the stock step's time
RUN_GOAL = 0.8  # of the pipeline's time
PIPELINE, RENDER = "MochiPipeline", "pusa_app.render"
USUAL = "mini"
QUICK = StepSize(layers=1, slots=3, height=8, width=12, rounds=2)


@dataclass(frozen=True)
class RunResult:
    """Seconds per variant and round, and the largest difference of a pixel in steps of 8-bit colour."""

    seconds: Seconds
    difference: int


@dataclass(frozen=True)
class StepResult:
    """Seconds per variant and round; which ones were too large for the device."""

    size: StepSize
    seconds: Seconds
    too_large: tuple[str, ...] = ()


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; 0 when the goals are met, 1 when one is missed."""
    parser = Parser(prog="python -m pusa_app bench speed", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="smaller sizes, fewer rounds: a smoke test, no measurement"
    )
    parser.add_argument(
        "--model",
        metavar="ID",
        help=f"only this family ({', '.join(FAMILIES)}), model of the catalogue, or model folder; by default the steps "
        f"of all families, and the rest with {USUAL}",
    )
    parser.add_argument(
        "--steps", type=integer(1, MAX_STEPS), help="sampling steps of the whole run; the model's own by default"
    )
    parser.add_argument("--rounds", type=integer(1, 1000), help="more of them on a busy machine; 5 by default")
    parser.add_argument("--only", choices=("step", "run", "fast"), help="measure one of the three")
    parser.add_argument("--no-compile", action="store_true", help="leave out compiled blocks, which take minutes")
    options = parser.parse_args(argv)
    families, card = chosen(options.model, options.only)
    passed, device = True, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    print(f"torch {torch.__version__}, {_device_words(device)}, {str(dtype).removeprefix('torch.')}")
    if options.only in (None, "step"):
        peak = matmul_peak(device, dtype)
        for family in families:
            size = QUICK if options.quick else full_size(family, device) if device.type == "cuda" else family.small
            result = measure_step(family, replace(size, rounds=options.rounds or size.rounds), device, dtype)
            peak = max(peak, matmul_peak(device, dtype))  # other programs may have been in its way before
            passed &= _print_step(family, result, peak)
    rounds = options.rounds or (1 if options.quick else 5)
    if card is not None and card.spec.family == "mochi" and options.only in (None, "run"):
        passed &= _print_run(card, measure_run(card, options.steps, rounds))
    if card is not None and options.only in (None, "fast"):
        print(f"\nFast paths: {card.id}, {card.spec.width}x{card.spec.height}, {card.spec.num_frames} frames")
        compiled = not (options.quick or options.no_compile)
        print_fast(measure_fast(card, options.steps, rounds, compiled))
    return 0 if passed else 1


def chosen(model: str | None, only: str | None = None) -> tuple[list[Family], ModelCard | None]:
    """The families to measure a step of, and the model that is here for the rest, if any. Complains before minutes
    have passed: raises UserError for what there is not, ModelError when a model is needed that is not here."""
    if model is None:
        return [family for family in FAMILIES.values() if family.there], None if only == "step" else get_card(USUAL)
    if model in FAMILIES:
        if only in ("run", "fast"):
            raise UserError("A whole run takes a model and not a family: give its id or its folder.")
        family, card = model, None
    else:
        entry, card = entries().get(model), None
        if entry is None or only in ("run", "fast"):
            card = get_card(model)
        elif only is None:
            try:
                card = get_card(model)
            except UserError:
                print(f"{model} is not on this machine: only a step with random weights is measured.")
        spec = card.spec if card is not None else entry.spec if entry is not None else None
        family = spec.family if spec is not None else ""
    if family not in FAMILIES or not FAMILIES[family].there:
        if only in (None, "step") and card is None:
            raise UserError(f"There is no step of {model[:100]!r} to measure: choose {', '.join(FAMILIES)}.")
        return [], card
    return [FAMILIES[family]], card


def _device_words(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads"


# One step


def measure_step(
    family: Family, size: StepSize, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> StepResult:
    """Seconds of one forward, per variant and round."""
    device = device or torch.device("cpu")
    stock, ours = family.pair(size.layers, device, dtype)
    variants = family.variants(stock, ours, family.inputs(size, device, dtype))
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "In CPU autocast")  # stock Mochi's RoPE on any CPU
        tried = variants if device.type == "cuda" else {}
        too_large = tuple(name for name, call in tried.items() if not can_run(call, device))
        if {OURS, STOCK} & set(too_large):
            raise UserError("This size does not fit into the memory of this GPU: close other programs.")
        fitting = {name: call for name, call in variants.items() if name not in too_large}
        return StepResult(size, take_turns(fitting, size.rounds, lambda: wait(device)), too_large)


def _print_step(family: Family, result: StepResult, peak: float) -> bool:
    size = result.size
    depth = "all layers" if size.layers is None else f"{size.layers} layer{'s' if size.layers > 1 else ''}"
    tokens = size.slots * family.tokens(size.height, size.width)
    print(
        f"\nOne step of {type(family).__name__}: width {family.width}, {depth}, {tokens} visual tokens, "
        f"{size.valid_text_tokens} of {family.text[0]} text tokens valid, median of {size.rounds}"
    )
    base = STOCK if STOCK in result.seconds else OURS
    print_table(result.seconds, base)
    for name in result.too_large:
        print(f"  {name}: does not fit into the memory of this GPU")
    rate = operations(family, size) / min(result.seconds[OURS])
    print(f"  {OURS}: {rate / 1e12:.2f} TFLOP/s; matrix products reach {peak / 1e12:.2f}, so {rate / peak:.0%} of it")
    if base == OURS:
        print("  no goal: it is run by diffusers' own class, as diffusers' pipeline runs it")
        return True
    return verdict(OURS, best_ratio(result.seconds, OURS, STOCK), STEP_GOAL)


# A whole run


def measure_run(card: ModelCard, steps: int | None = None, rounds: int = 5) -> RunResult:
    """Text to video with our render and with MochiPipeline; loading is not timed, encoding and decoding are."""
    spec = card.spec
    schedule = ScheduleSpec(kind="linear-quadratic")
    recipe = recipe_of(card, PROMPTS[0], steps).model_copy(update={"schedule": schedule})
    with silent_libraries():
        pipeline = _open_pipeline(card.folder)
    frames: dict[str, np.ndarray] = {}
    backbone = load_backbone(card, "cpu")

    def run_ours() -> None:
        made = render(recipe, backbone).frames
        assert made is not None
        frames["ours"] = made

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
        seconds = take_turns({PIPELINE: run_pipeline, RENDER: run_ours}, rounds)
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
    print_table(result.seconds, PIPELINE)
    print(f"  largest difference of the frames: {result.difference} of 255")
    return verdict(RENDER, ratio(result.seconds, RENDER, PIPELINE), RUN_GOAL)


if __name__ == "__main__":
    sys.exit(main())
