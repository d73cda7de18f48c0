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
LED_SPANS = (3, 2, 1)  # slots at the end of a clip that are also encoded as a keyframe of their own
TRUTH = ("shape", "color", "background", "gradient", "size", "motion")


@dataclass
class LatentSet:
    """N clips of F slots.

    latents (N, C, F, h, w): the clips. stills (N, C, F, h, w): in slot k the latent of its last frame alone, encoded
    as a picture, which is what a user's keyframe gives. led (N, C, sum(LED_SPANS), h, w): the last 3, 2 and 1 slots,
    each encoded behind a copy of its own first frame, which is what `render` makes of a clip in a later slot. All
    normalized by mean and std (C,). truth: what is seen, a ClipSpec without its path; captions are drawn anew each time
    a clip is used.
    """

    latents: torch.Tensor
    stills: torch.Tensor
    led: torch.Tensor
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


@torch.inference_mode()
def encode_led(vae: AutoencoderKLMochi, frames: np.ndarray) -> torch.Tensor:
    """uint8 (B, n, H, W, 3) -> raw latents (B, C, sum(LED_SPANS), h, w) of the clips' ends."""
    x = to_tensor(frames).to(vae.dtype)
    found = []
    for span in LED_SPANS:
        end = x[:, :, -span * TEMPORAL_STRIDE :]
        with torch.autocast("cpu", torch.bfloat16, enabled=vae.dtype == torch.float32):
            latents = vae.encoder(torch.cat((end[:, :, :1], end), dim=2))[0].float().chunk(2, dim=1)[0]
        found.append(latents[:, :, 1:])
    return torch.cat(found, dim=2)


def led_end(led: torch.Tensor, span: int) -> torch.Tensor:
    """The part (..., C, span, h, w) of `LatentSet.led` for a keyframe of `span` slots, one of LED_SPANS."""
    start = sum(LED_SPANS[: LED_SPANS.index(span)])
    return led[..., start : start + span, :, :]


@torch.no_grad()  # inference mode would make weights that a loss cannot be trained with
def visibility(vae: AutoencoderKLMochi, data: LatentSet, clips: int = 3, nudge: float = 0.3) -> torch.Tensor:
    """How much an error of each channel shows, (C,) with a mean of 1.

    Measured on the first clips: the root mean square by which decoded pixels change when noise of deviation `nudge` is
    added to one channel of the normalized latents.
    """
    mean, std = data.mean.view(-1, 1, 1, 1), data.std.view(-1, 1, 1, 1)
    generator = torch.Generator().manual_seed(0)

    def decode(latents: torch.Tensor) -> torch.Tensor:
        return vae.decode(latents[None] * std + mean).sample

    channels = data.latents.shape[1]
    changes = torch.zeros(channels)
    for latents in data.latents[:clips].float():
        noise = nudge * torch.randn(latents.shape[1:], generator=generator)
        plain = decode(latents)
        for channel in range(channels):
            moved = latents.clone()
            moved[channel] += noise
            changes[channel] += (decode(moved) - plain).pow(2).mean()
    return changes.sqrt() / changes.sqrt().mean()


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
        latents, stills, led = [], [], []
        for start in range(0, len(specs), 10):
            frames = np.stack([draw(spec) for spec in specs[start : start + 10]])
            z, s = encode_clips(vae, frames)
            latents.append(z.half())
            stills.append(s.half())
            led.append(encode_led(vae, frames).half())
        truth = [{key: getattr(spec, key) for key in TRUTH} for spec in specs]
        parts = {"latents": latents, "stills": stills, "led": led}
        tensors = {name: torch.cat(part).contiguous() for name, part in parts.items()}
        save_file(tensors, path.with_suffix(".tmp"), metadata={"truth": json.dumps(truth)})
        os.replace(path.with_suffix(".tmp"), path)
        print(f"data  {number + 1} of {count} shards  {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return True


def read_shards(folder: Path) -> LatentSet:
    """All shards of a folder in memory, normalized by the mean and deviation of the first ten."""
    from safetensors import safe_open

    latents, stills, led, truth = [], [], [], []
    nowhere = np.zeros(0, np.float32)
    for path in sorted(folder.glob("shard-*.safetensors")):
        tensors = load_file(path)
        latents.append(tensors["latents"])
        stills.append(tensors["stills"])
        led.append(tensors["led"])
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

    return LatentSet(normalized(latents), normalized(stills), normalized(led), truth, mean, std)
