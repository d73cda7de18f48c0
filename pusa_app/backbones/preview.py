"""Latents to rough pictures by one small matrix, for previews while a clip is sampled."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

PREVIEW_FILE = "preview.json"


@dataclass(frozen=True)
class LatentPreview:
    """rgb = latent @ matrix + bias, in [0, 1]; matrix (C, 3), bias (3,). One pixel per latent."""

    matrix: torch.Tensor
    bias: torch.Tensor

    def __call__(self, z: torch.Tensor) -> np.ndarray:
        """z (C, F, h, w) -> uint8 (F, h, w, 3)."""
        rgb = z.detach().float().cpu().permute(1, 2, 3, 0) @ self.matrix + self.bias
        return (rgb.nan_to_num() * 255).round().clamp(0, 255).byte().numpy()

    @classmethod
    def neutral(cls, channels: int) -> LatentPreview:
        """What there is without a fitted map: the first three channels around grey."""
        return cls(torch.eye(channels, 3) / 6, torch.full((3,), 0.5))

    @classmethod
    def measured(cls, encode: Callable[[np.ndarray], torch.Tensor], block: int, stride: int) -> LatentPreview:
        """What the encoder itself tells: fitted to pictures of soft clouds of colour, the same ones every time.

        encode: uint8 (stride + 1, H, W, 3) -> (C, 2, H / block, W / block). A few hundred thousand pixels are encoded.
        """
        clips, side = 12, max(64, 4 * block)
        generator = torch.Generator().manual_seed(0)
        clouds = torch.rand(clips, 3, 4, 4, generator=generator)
        clouds = torch.nn.functional.interpolate(clouds, size=(side, side), mode="bicubic", align_corners=False)
        pictures = (clouds * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
        frames = pictures[:, None].expand(-1, stride + 1, -1, -1, -1).numpy()
        latents = torch.stack([encode(clip) for clip in frames])
        return fit_preview(latents, frames) if latents.isfinite().all() else cls.neutral(latents.shape[1])

    @classmethod
    def from_folder(cls, folder: Path, channels: int) -> LatentPreview:
        """The map in the model folder, or the neutral one. Raises ValueError when the file is not a map."""
        path = folder / PREVIEW_FILE
        if not path.is_file():
            return cls.neutral(channels)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            found = cls(torch.tensor(data["matrix"]).float(), torch.tensor(data["bias"]).float())
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{PREVIEW_FILE} is not a preview map") from None
        if found.matrix.shape != (channels, 3) or found.bias.shape != (3,):
            raise ValueError(f"{PREVIEW_FILE} does not fit latents of {channels} channels")
        return found

    def save(self, folder: Path) -> None:
        data = {"matrix": self.matrix.tolist(), "bias": self.bias.tolist()}
        (folder / PREVIEW_FILE).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def fit_preview(latents: torch.Tensor, frames: np.ndarray) -> LatentPreview:
    """The least-squares map from latents (C, F, h, w) to frames, uint8 (n, H, W, 3), n = stride*(F-1) + 1.

    Both may have one more dimension in front: several clips. Every latent is paired with the mean of its pixels.
    """
    if latents.ndim == 4:
        latents, frames = latents[None], frames[None]
    clips, channels, slots, height, width = latents.shape
    pixels = torch.from_numpy(frames).float() / 255  # (N, n, H, W, 3)
    stride = (pixels.shape[1] - 1) // max(1, slots - 1)
    blocks = pixels.reshape(clips, pixels.shape[1], height, pixels.shape[2] // height, width, -1, 3).mean((3, 5))
    later = blocks[:, 1:].reshape(clips, slots - 1, stride, height, width, 3).mean(2)
    target = torch.cat((blocks[:, :1], later), dim=1).reshape(-1, 3)
    source = latents.detach().float().cpu().permute(0, 2, 3, 4, 1).reshape(-1, channels)
    source = torch.cat((source, torch.ones(len(source), 1)), dim=1)
    # gelsd copes with channels that do not vary
    solution = torch.linalg.lstsq(source, target, driver="gelsd").solution
    return LatentPreview(solution[:-1].contiguous(), solution[-1].contiguous())
