"""A model without weights, for tests of queue, page and faults: fast, deterministic, and its clips are readable.

Latents are block averages of the pixels, so a keyframe stays visible; free slots become the colour of the prompt.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from pusa_app.backbones.base import Text
from pusa_app.models.card import BackboneSpec
from pusa_app.timeline import ScheduleSpec

FAKE_SPEC = BackboneSpec(
    family="fake",
    latent_channels=3,
    fps=12,
    width=64,
    height=64,
    num_frames=37,
    max_frames=163,
    steps=4,
    guidance=4.5,
    schedule=ScheduleSpec(kind="linear-quadratic"),
)


class FakeBackbone:
    """delay: seconds that each velocity takes; fail_at: the velocity call, from 1, that raises RuntimeError."""

    version = FAKE_SPEC.family

    def __init__(self, spec: BackboneSpec = FAKE_SPEC, delay: float = 0.0, fail_at: int | None = None) -> None:
        self.spec, self.delay, self.fail_at = spec, delay, fail_at
        self.device = torch.device("cpu")
        self.calls = 0

    def encode_text(self, prompt: str) -> Text:
        """One colour in [-1, 1] per word."""
        codes = [zlib.crc32(word.encode()) for word in prompt.split()]
        colours = [[(code >> shift & 255) / 127.5 - 1 for shift in (0, 8, 16)] for code in codes]
        return Text(torch.tensor(colours).reshape(-1, 3))

    def encode_frames(self, frames: np.ndarray) -> torch.Tensor:
        block, stride = self.spec.spatial_stride, self.spec.temporal_stride
        x = torch.from_numpy(frames).permute(3, 0, 1, 2).float() / 127.5 - 1  # (3, n, H, W)
        x = torch.nn.functional.avg_pool3d(x, (1, block, block))
        later = x[:, 1:].unflatten(1, (-1, stride)).mean(2)
        return torch.cat((x[:, :1], later), dim=1)

    def velocity(self, z: torch.Tensor, sigma: torch.Tensor, texts: Sequence[Text]) -> list[torch.Tensor]:
        """Straight to the prompt's colour: z + sigma * v is that colour in every slot that has noise."""
        self.calls += 1
        if self.calls == self.fail_at:
            raise RuntimeError(f"the fake model fails at call {self.calls}, as asked")
        time.sleep(self.delay)
        sigma = sigma[:, None, None]
        return [
            torch.where(sigma > 0, (_colour(text)[:, None, None, None] - z) / sigma.clamp(min=1e-6), 0.0)
            for text in texts
        ]

    def decode(self, z: torch.Tensor) -> Iterator[np.ndarray]:
        block = self.spec.spatial_stride
        for slot, frame in enumerate(_to_uint8(z)):
            big = frame.repeat(block, axis=0).repeat(block, axis=1)
            yield np.repeat(big[None], 1 if slot == 0 else self.spec.temporal_stride, axis=0)

    def preview(self, z: torch.Tensor) -> np.ndarray:
        return _to_uint8(z)


def _colour(text: Text) -> torch.Tensor:
    return text.embeds.mean(0) if len(text.embeds) else torch.zeros(3)


def _to_uint8(z: torch.Tensor) -> np.ndarray:
    """(3, F, h, w) in [-1, 1] -> (F, h, w, 3)."""
    return ((z.permute(1, 2, 3, 0) + 1) * 127.5).round().clamp(0, 255).byte().numpy()
