"""A data set of encoded procedural clips, written in shards that a stopped run goes on from."""

from __future__ import annotations

import copy
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLMochi
from safetensors.torch import load_file, save_file

from pusa_app.training.captions import sample_caption
from pusa_app.training.clips import ClipSpec, draw, sample_spec
from pusa_app.training.vae import to_tensor

SHARD = 500
TEMPORAL_STRIDE = 6
TRUTH = ("shape", "color", "background", "gradient", "size", "motion")


@dataclass
class LatentSet:
    """N clips of F slots.

    latents (N, C, F, h, w): the clips. stills (N, C, F, h, w): in slot k the latent of its last frame alone, encoded
    as a picture, which is what a user's keyframe gives. Both normalized by mean and std (C,). truth: what is seen, a
    ClipSpec without its path; captions are drawn anew each time a clip is used.
    """

    latents: torch.Tensor
    stills: torch.Tensor
    truth: list[ClipSpec]
    mean: torch.Tensor
    std: torch.Tensor

    def __len__(self) -> int:
        return len(self.truth)

    def captions(self, indices: Sequence[int], rng: np.random.Generator) -> list[str]:
        return [sample_caption(rng, self.truth[i]) for i in indices]


@torch.inference_mode()
def encode_clips(vae: AutoencoderKLMochi, frames: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 (B, n, H, W, 3) -> raw latents and stills, both (B, C, F, h, w)."""
    x = to_tensor(frames).to(vae.dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=vae.dtype == torch.float32):
        latents = vae.encoder(x)[0].float().chunk(2, dim=1)[0]
        last_frames = x[:, :, TEMPORAL_STRIDE::TEMPORAL_STRIDE].transpose(1, 2).flatten(0, 1).unsqueeze(2)
        pictures = vae.encoder(last_frames)[0].float().chunk(2, dim=1)[0]
    pictures = pictures[:, :, 0].unflatten(0, (len(x), -1)).transpose(1, 2)
    return latents, torch.cat((latents[:, :, :1], pictures), dim=2)


def write_shards(vae: AutoencoderKLMochi, folder: Path, clips: int, seed: int, stop_after: float | None) -> bool:
    """Encode `clips` clips into shards of SHARD; finished shards are kept. False when `stop_after` ended it before."""
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    count = -(-clips // SHARD)
    vae = copy.deepcopy(vae).bfloat16()  # twice as fast as autocast; its rounding is far below the noise of training
    for number in range(count):
        path = folder / f"shard-{number:04d}.safetensors"
        if path.exists():
            continue
        if stop_after is not None and time.monotonic() - began > stop_after:
            return False
        rng = np.random.default_rng([seed, 1, number])
        specs = [sample_spec(rng) for _ in range(min(SHARD, clips - number * SHARD))]
        latents, stills = [], []
        for start in range(0, len(specs), 10):
            z, s = encode_clips(vae, np.stack([draw(spec) for spec in specs[start : start + 10]]))
            latents.append(z.half())
            stills.append(s.half())
        truth = [{key: getattr(spec, key) for key in TRUTH} for spec in specs]
        tensors = {"latents": torch.cat(latents).contiguous(), "stills": torch.cat(stills).contiguous()}
        save_file(tensors, path.with_suffix(".tmp"), metadata={"truth": json.dumps(truth)})
        os.replace(path.with_suffix(".tmp"), path)
        print(f"data  {number + 1} of {count} shards  {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return True


def read_shards(folder: Path) -> LatentSet:
    """All shards of a folder in memory, normalized by the mean and deviation of the first ten."""
    from safetensors import safe_open

    latents, stills, truth = [], [], []
    nowhere = np.zeros(0, np.float32)
    for path in sorted(folder.glob("shard-*.safetensors")):
        tensors = load_file(path)
        latents.append(tensors["latents"])
        stills.append(tensors["stills"])
        with safe_open(path, "pt") as file:
            truth += [
                ClipSpec(**row, x=nowhere, y=nowhere, radius=nowhere, angle=nowhere)
                for row in json.loads(file.metadata()["truth"])
            ]
    first = torch.cat(latents[:10]).float()
    mean, std = first.mean((0, 2, 3, 4)), first.std((0, 2, 3, 4))

    def normalized(parts: list[torch.Tensor]) -> torch.Tensor:
        for part in parts:
            part.copy_((part.float() - mean.view(-1, 1, 1, 1)) / std.view(-1, 1, 1, 1))
        return torch.cat(parts)

    return LatentSet(normalized(latents), normalized(stills), truth, mean, std)
