"""The old way to keep keyframes, for comparison: replacement, with the same weights.

Before vectorized timesteps a video model knew one noise level for a whole clip. Keyframes were kept by replacing, at
every step, the latents in their slots by the keyframe's latents with as much noise as the rest of the clip has then
(Song et al., "Score-Based Generative Modeling through SDEs", 2021, imputation; RePaint without resampling).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from pusa_app.backbones.base import Backbone, Text
from pusa_app.sampling import draw_noise
from pusa_app.timeline import Timeline

NOISE_SEED = 1_000_000  # more than a run's own, so far from the seeds of its free slots


class Replacement:
    """A Backbone that sees one sigma in all slots; the sampler around it stays as it is.

    It takes timelines whose keyframes are clean (`clean`). Their slots then have sigma 0 in every row of S, and hold
    the keyframe's latents: they are noised here to the sigma of the free slots, before the model sees them. The sampler
    does not move them, so they are clean at the end. The noise is the same at every step, as in diffusers' inpainting
    pipelines, and another for each seed of a run: one pattern for all clips would be one draw of luck for all of them.
    """

    def __init__(self, inner: Backbone, seed: int) -> None:
        self._inner, self._seed = inner, NOISE_SEED + seed
        self.spec, self.device, self.version = inner.spec, inner.device, inner.version

    def encode_text(self, prompt: str) -> Text:
        return self._inner.encode_text(prompt)

    def encode_frames(self, frames: np.ndarray) -> torch.Tensor:
        return self._inner.encode_frames(frames)

    def velocity(self, z: torch.Tensor, sigma: torch.Tensor, texts: Sequence[Text]) -> list[torch.Tensor]:
        now = sigma.max()
        known = (sigma == 0)[:, None, None]
        channels, slots, height, width = z.shape
        eps = draw_noise(self._seed, (channels, slots, height, width)).to(z.device)
        z = torch.where(known, (1 - now) * z + now * eps, z)
        return self._inner.velocity(z, now.expand_as(sigma).contiguous(), texts)

    def decode(self, z: torch.Tensor) -> Iterator[np.ndarray]:
        return self._inner.decode(z)

    def preview(self, z: torch.Tensor) -> np.ndarray:
        return self._inner.preview(z)


def clean(timeline: Timeline) -> Timeline:
    """The same timeline with keyframes that are kept as they are."""
    return timeline.having(*(k.model_copy(update={"noise": 0.0}) for k in timeline.keyframes))
