"""What every model family must be able to do, and nothing more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from pusa_app.models.card import BackboneSpec


@dataclass(frozen=True)
class Text:
    """An encoded prompt: embeds (L, D), and pooled (P,) of families that have a second encoder (HunyuanVideo).

    embeds are trimmed to their valid tokens, so there is no mask; L = 0 is Mochi's empty prompt. Only families that
    read their padding (Wan) keep it.
    """

    embeds: torch.Tensor
    pooled: torch.Tensor | None = None

    def to(self, *where: Any) -> Text:
        """On another device, or in another dtype: as torch.Tensor.to."""
        return Text(self.embeds.to(*where), None if self.pooled is None else self.pooled.to(*where))


class Backbone(Protocol):
    """A loaded model. Latents are unbatched: (C, F, h, w), F slots, fp32, in the space that the transformer sees.

    Things that only some families have: where `takes_level` is true, `velocity` has a keyword `level`, the sigma of
    the schedule, which a slot's own may be far below (Wan 2.2 chooses one of its experts by it); where
    `takes_guidance` is true, a keyword `guidance` that the transformer reads itself (HunyuanVideo);
    `set_loras(loras)` of families that take LoRAs (pusa_app.models.lora); and `set_cache(threshold)` of those whose
    blocks can be left out (pusa_app.backbones.cache), where 0 is off and every call makes it forget.
    """

    spec: BackboneSpec
    device: torch.device
    version: str  # changes when the weights do, so that no run goes on with others than it began with

    def encode_text(self, prompt: str) -> Text:
        """Encode one prompt; the empty string is the model's null text."""

    def encode_frames(self, frames: np.ndarray) -> torch.Tensor:
        """uint8 (n, H, W, 3) with n = stride*k + 1 -> latents (C, k + 1, h, w)."""

    def velocity(self, z: torch.Tensor, sigma: torch.Tensor, texts: Sequence[Text]) -> list[torch.Tensor]:
        """z (C, F, h, w), sigma (F,) in [0, 1] -> one fp32 velocity (C, F, h, w) per text, in the sign z0 - eps."""

    def decode(self, z: torch.Tensor) -> Iterator[np.ndarray]:
        """Latents (C, F, h, w) -> chunks of uint8 frames (n, H, W, 3), stride*(F-1) + 1 frames in all."""

    def preview(self, z: torch.Tensor) -> np.ndarray:
        """A cheap look at latents (C, F, h, w): uint8 (F, h', w', 3)."""
