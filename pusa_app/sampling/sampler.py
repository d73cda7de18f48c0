"""Euler over a noise matrix: the rectified flow sampler of Mochi with one sigma per slot (FVDM, arXiv 2410.03160)."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pusa_app import media
from pusa_app.backbones.base import Backbone, Text
from pusa_app.errors import RunCancelled

CACHE_SPAN = 5  # steps
OnStep = Callable[[int, int, torch.Tensor, torch.Tensor], None]


@dataclass(frozen=True)
class SamplerState:
    """Where a run is: its latents z (C, F, h, w), fp32, after `step` steps. `run` says which run it belongs to."""

    step: int
    z: torch.Tensor
    run: str = ""

    def save(self, path: Path) -> None:
        """Replace the file at `path` in one move and flush it to the disk, so that a crash or a power cut leaves the
        old state or the new one. Raises MediaError when it cannot be written."""
        from safetensors.torch import save

        z = self.z.detach().to("cpu", torch.float32).contiguous()
        notes = {"step": str(self.step), "run": self.run, "sum": _sum(self.step, self.run, z)}
        data = save({"z": z}, metadata=notes)
        # Not by save_file: on a disk that is full it would leave a file of the right size.
        with media.atomic_output(path) as part, media.writing(path.name):
            part.write_bytes(data)

    @classmethod
    def load(cls, path: Path) -> SamplerState:
        """Raises OSError, ValueError or SafetensorError when the file is not a state, or a damaged one."""
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            names, notes = file.keys(), file.metadata() or {}
            if "z" not in names or not notes.get("step", "").isdecimal():
                raise ValueError(f"{path.name} is not a sampler state")
            step, run, z = int(notes["step"]), notes.get("run", ""), file.get_tensor("z")
        if notes.get("sum") != _sum(step, run, z):  # safetensors does not see a flipped bit
            raise ValueError(f"{path.name} is damaged")
        return cls(step, z, run)


def _sum(step: int, run: str, z: torch.Tensor) -> str:
    """A checksum of a state."""
    found = hashlib.sha256(f"{step} {run} {tuple(z.shape)} ".encode())
    found.update(z.numpy().data)
    return found.hexdigest()


def draw_noise(seed: int, shape: tuple[int, int, int, int]) -> torch.Tensor:
    """eps (C, F, h, w): drawn on the CPU in fp32 with a batch of one, so it is the noise of diffusers' pipelines."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn((1, *shape), generator=generator, dtype=torch.float32)[0]


@torch.inference_mode()
def sample(
    backbone: Backbone,
    S: Sequence[Sequence[float]] | torch.Tensor,
    z0: torch.Tensor,
    noise: torch.Tensor,
    text: Text,
    null_text: Text,
    guidance: float | Sequence[float] = 1.0,
    on_step: OnStep | None = None,
    cancelled: Callable[[], bool] | None = None,
    state: SamplerState | None = None,
    *,
    sigmas: Sequence[float] | None = None,
    cache: float = 0.0,
) -> torch.Tensor:
    """Turn noise into latents; the task is all in S and z0.

    S (steps + 1, F): noise of every slot before each step, last row 0; z0 (C, F, h, w): keyframe latents in their
    slots, zeros elsewhere; noise (C, F, h, w). guidance: one for all steps, or one per step; 1 asks the model once
    instead of twice. `state` continues an earlier run and gives the same latents as one that was never stopped; with a
    cache, where that run was at a step that `may_go_on_from`. sigmas: the schedule that S was made of, for models that
    go by it; without it, the noise of the noisiest slot. cache: the threshold of First Block Cache, for backbones that
    have `set_cache`; 0 is off.

    on_step(i, steps, z, x0) after step i = 1..steps: the latents and the estimate of the clean clip from that step.
    Raises RunCancelled between two steps when `cancelled()` is true. Returns z (C, F, h, w) in fp32 on the CPU.
    """
    device = backbone.device
    S = torch.as_tensor(S, dtype=torch.float32).to(device)
    steps = len(S) - 1
    scales = [float(guidance)] * steps if isinstance(guidance, (int, float)) else list(guidance)
    levels = [float(row.max()) for row in S] if sigmas is None else sigmas
    takes_level, takes_guidance = (getattr(backbone, name, False) for name in ("takes_level", "takes_guidance"))

    def per_slot(row: torch.Tensor) -> torch.Tensor:
        return row[:, None, None]

    # 1. Noise each slot to its own level, or take up an earlier run.
    if state is None:
        first = per_slot(S[0])
        z, start = (1 - first) * z0.to(device, torch.float32) + first * noise.to(device, torch.float32), 0
    else:
        z, start = state.z.to(device, torch.float32), state.step

    with caching(backbone, cache) as start_span:
        for i in range(start, steps):
            if cancelled is not None and cancelled():
                raise RunCancelled("The run was cancelled.")
            if i == start or i % CACHE_SPAN == 0:
                start_span()
            # 2. Velocity z0 - eps, with classifier-free guidance.
            scale, more = scales[i], {"level": levels[i]} if takes_level else {}
            if takes_guidance:
                scale, more = 1, {**more, "guidance": scale}
            velocities = backbone.velocity(z, S[i], [text] if scale == 1 else [text, null_text], **more)
            v = velocities[0] if scale == 1 else velocities[1] + scale * (velocities[0] - velocities[1])
            # 3. Euler: each slot moves by as much noise as it loses; a clean slot stays what it is.
            x0 = z + per_slot(S[i]) * v
            z = z + per_slot(S[i] - S[i + 1]) * v
            if on_step is not None:
                on_step(i + 1, steps, z, x0)
    return z.cpu()


def may_go_on_from(step: int, steps: int, cache: float) -> bool:
    """Whether a run that goes on after `step` steps ends as one that was never stopped.

    A cache remembers tensors of gigabytes, which no checkpoint keeps. So it forgets them after every CACHE_SPAN steps,
    whether or not the run is stopped there; that also bounds how long an error can be carried along.
    """
    return cache == 0 or step % CACHE_SPAN == 0 or step == steps


@contextlib.contextmanager
def caching(backbone: Backbone, threshold: float) -> Iterator[Callable[[], None]]:
    """Inside, a backbone skips blocks by First Block Cache, from the first call of what is yielded on; every further
    call makes it forget what it remembers. Threshold 0: nothing is touched."""
    set_cache = getattr(backbone, "set_cache", None)
    if threshold == 0 or set_cache is None:
        yield lambda: None
        return
    try:
        yield lambda: set_cache(threshold)
    finally:
        set_cache(0.0)
