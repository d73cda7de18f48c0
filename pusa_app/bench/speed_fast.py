"""The fast paths of `bench speed`, one line each: how long a run takes with it, and how far its frames are from those
without."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from pusa_app.bench.timing import best_ratio, take_turns
from pusa_app.errors import ModelError, UserError
from pusa_app.models import ModelCard, load_backbone
from pusa_app.models.fitting import work_for
from pusa_app.models.plan_choices import blocked
from pusa_app.models.plan_types import Attention, MemoryPlan
from pusa_app.render import render
from pusa_app.timeline import Recipe

PROMPTS = ("a red ball moves to the right", "a blue square moves up", "a green triangle grows")
CACHES = (0.05, 0.1, 0.2)
INTERVAL = (0.4, 1.0)  # where it is worth least: at the end
BACKENDS: tuple[Attention, ...] = ("cudnn", "flash", "sage")
PLAIN = "as it is"
SAME = 99.0  # dB, of equal frames
TOO_LARGE = "does not fit into the memory"
TOO_LARGE_BESIDE = "does not fit into the memory beside the model as it is"


@dataclass
class Line:
    """ratio: of the time as it is, fastest rounds. psnr: dB, mean over the runs; None where there was no run. said: in
    words."""

    name: str
    ratio: float | None = None
    psnr: float | None = None
    said: str = ""


@dataclass
class Runs:
    """The frames of each run of a variant, the share of forwards whose blocks were left out, and whether its memory ran
    out."""

    frames: dict[str, np.ndarray] = field(default_factory=dict)
    skipped: float = 0.0
    too_large: bool = False


def measure_fast(card: ModelCard, steps: int | None = None, rounds: int = 3, compiled: bool = True) -> Iterator[Line]:
    """Text to video with a model, in the ways that a recipe or a plan can make it faster. Raises UserError when the
    memory is too small for the model as it is."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    backbone = load_backbone(card, device)
    plain = recipe_of(card, PROMPTS[0], steps)
    ways: dict[str, dict[str, Any]] = {PLAIN: {}}
    ways |= {f"First Block Cache {threshold:g}": {"cache": threshold} for threshold in CACHES}
    low, high = INTERVAL
    ways[f"guidance from {low:g} to {high:g}"] = {"guidance_interval": INTERVAL}
    made = {name: Runs() for name in ways}

    def run(name: str, prompt: str) -> None:
        if made[name].too_large:
            return
        try:
            frames = render(plain.model_copy(update={"prompt": prompt, **ways[name]}), backbone).frames
        except torch.OutOfMemoryError:
            if name == PLAIN:
                raise UserError("This model does not fit into the memory here: close other programs.") from None
            made[name].too_large = True
            return
        assert frames is not None
        made[name].frames[prompt] = frames
        if cache := getattr(backbone, "cache", None):
            made[name].skipped = cache.skipped / max(1, cache.forwards) if "cache" in ways[name] else 0.0

    seconds = take_turns({name: lambda name=name: run(name, PROMPTS[0]) for name in ways}, rounds)  # type: ignore[misc]
    for name in ways:
        for prompt in PROMPTS[1:]:
            run(name, prompt)
        if made[name].too_large:
            yield Line(name, said=TOO_LARGE)
            continue
        said = f"{made[name].skipped:.0%} of the forwards were left out" if "cache" in ways[name] else ""
        quality = statistics.mean(psnr(made[name].frames[prompt], made[PLAIN].frames[prompt]) for prompt in PROMPTS)
        yield Line(name, best_ratio(seconds, name, PLAIN), quality, said)
    if compiled:
        yield _planned(card, backbone, {"compile": True}, "compiled blocks", rounds)
    work = work_for(card)
    for kind in BACKENDS:
        why = blocked(work, "attention", kind)
        name = f"attention {kind}"
        yield Line(name, said=why) if why else _planned(card, backbone, {"attention": kind}, name, rounds)


def recipe_of(card: ModelCard, prompt: str, steps: int | None = None) -> Recipe:
    """Text to video as the model's card has it."""
    spec = card.spec
    return Recipe(
        task="text-to-video",
        model=card.id,
        prompt=prompt,
        timeline=spec.timeline(),
        steps=steps or spec.steps,
        guidance=spec.guidance,
        seed=0,
    )


def _planned(card: ModelCard, backbone: Any, choices: dict[str, Any], name: str, rounds: int) -> Line:
    """One step of a model that is loaded otherwise, beside the same step as it is."""
    try:
        return _compared(card, backbone, choices, name, rounds)
    except ModelError as error:
        return Line(name, said=str(error))
    except torch.OutOfMemoryError:
        return Line(name, said=TOO_LARGE_BESIDE)
    finally:
        _let_go()


def _compared(card: ModelCard, backbone: Any, choices: dict[str, Any], name: str, rounds: int) -> Line:
    spec, fit = card.spec, backbone.fit
    stride = spec.spatial_stride
    shape = spec.latent_channels, spec.grid().num_slots, spec.height // stride, spec.width // stride
    # What nobody planned batches small clips only: the other model does with this clip as this one does.
    batched = fit.batches(math.prod(shape[1:]) // spec.patch**2)
    plan = MemoryPlan.model_validate(fit.plan.choice | {"batched": batched} | choices)
    other = load_backbone(card, str(backbone.device), plan=plan)
    z = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(backbone.device)
    sigma = torch.full(shape[1:2], 0.7, device=backbone.device)
    found: dict[str, torch.Tensor] = {}

    def step(which: str, model: Any) -> None:
        texts = [model.encode_text(PROMPTS[0]), model.encode_text("")]
        found[which] = torch.stack(model.velocity(z, sigma, texts)).cpu()

    started = time.perf_counter()
    step(name, other)
    first = time.perf_counter() - started
    seconds = take_turns({PLAIN: lambda: step(PLAIN, backbone), name: lambda: step(name, other)}, 2 * rounds)
    error = ((found[name] - found[PLAIN]).norm() / found[PLAIN].norm()).item()
    said = f"of a step; velocities differ by {error:.1g} of their size"
    if plan.compile:
        said += f"; the first one took {first:.0f} s"
    if plan.compile and not other.fit.is_compiled:
        said = "there is no compiler here: the blocks run as they are"
    return Line(name, best_ratio(seconds, name, PLAIN), said=said)


def _let_go() -> None:
    """Give back the memory of a model that is no longer used, before the next one comes."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def psnr(frames: np.ndarray, other: np.ndarray) -> float:
    """dB between clips of 8-bit pixels; SAME for equal ones."""
    error = float(np.square(frames.astype(float) - other).mean())
    return SAME if error == 0 else min(SAME, 10 * math.log10(255**2 / error))


def print_fast(lines: Iterator[Line]) -> None:
    for line in lines:
        text = f"  {line.name:<24}"
        text += f" {line.ratio:5.2f} x" if line.ratio is not None else "        "
        text += "" if line.psnr is None else "   same frames" if line.psnr == SAME else f"   {line.psnr:.1f} dB"
        print(f"{text}   {line.said}".rstrip(), flush=True)
