"""Any diffusers Mochi folder as a Backbone: text encoder, vectorized transformer, VAE."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLMochi
from transformers import T5EncoderModel

from pusa_app.backbones.base import Text
from pusa_app.backbones.folder import MODEL_TIME, FolderBackbone
from pusa_app.backbones.mochi.decoder import decode_chunks, enable_streaming
from pusa_app.backbones.mochi.transformer import VectorizedMochiTransformer3DModel
from pusa_app.backbones.preview import LatentPreview
from pusa_app.backbones.texts import Prompts, padded
from pusa_app.models.card import BackboneSpec


class MochiPrompts(Prompts):
    """null_is_empty: the empty prompt is no token at all, as Mochi was trained, not an end-of-text token."""

    encoder_class = T5EncoderModel

    def __init__(self, tokenizer: Any, spec: BackboneSpec, null_is_empty: bool = True) -> None:
        super().__init__(tokenizer, spec)
        self.null_is_empty = null_is_empty

    @classmethod
    def from_folder(cls, folder: Path, spec: BackboneSpec) -> MochiPrompts:
        prompts = super().from_folder(folder, spec)
        prompts.null_is_empty = _null_is_empty(folder)
        return prompts

    def takes_encoder(self, prompt: str) -> bool:
        return bool(prompt) or not self.null_is_empty


class MochiBackbone(FolderBackbone):
    """Mochi 1, Pusa V0.5, mini: whatever has MochiPipeline's parts.

    Lean, one slot is decoded at a time; the VAE encodes whole clips all the same: its encoder attends to all frames,
    and the norms of both halves go over whole pictures, so tiles in time or space would be another clip.
    """

    prompts_class = MochiPrompts
    transformer_class = VectorizedMochiTransformer3DModel
    vae_class = AutoencoderKLMochi

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """See FolderBackbone."""
        super().__init__(*args, **kwargs)
        enable_streaming(self.vae)

    def forward(self, expert: Any, x: torch.Tensor, time: torch.Tensor, texts: Sequence[Text]) -> torch.Tensor:
        embeds, mask = padded([text.embeds for text in texts])
        return expert(x, embeds, time, mask, return_dict=False)[0]

    def decoded(self, raw: torch.Tensor, slots: int | None) -> Iterator[torch.Tensor]:
        return decode_chunks(self.vae, raw, slots)

    @staticmethod
    def geometry(transformer: Any, vae: Any) -> Mapping[str, tuple[float, ...]]:
        return {
            "latent_channels": (transformer.config.in_channels, vae.config.latent_channels),
            "patch": (transformer.config.patch_size,),
            "temporal_stride": (vae.temporal_compression_ratio,),
            "spatial_stride": (vae.spatial_compression_ratio,),
        }

    @staticmethod
    def latent_statistics(vae: Any) -> tuple[torch.Tensor, torch.Tensor]:
        config = vae.config
        count = config.latent_channels
        mean, deviation = config.latents_mean or [0.0] * count, config.latents_std or [1.0] * count
        return torch.tensor(mean), torch.tensor(deviation) / config.scaling_factor

    def usual_preview(self) -> LatentPreview:
        return LatentPreview.neutral(self.spec.latent_channels)

    def finished(self, text: Text | None) -> Text:
        if text is not None:
            return text
        width = self.transformer.config.text_embed_dim
        return Text(torch.zeros(0, width, dtype=self.fit.dtype, device=self.device))

    def pixel_dtype(self) -> torch.dtype:
        return torch.float32  # see ExactFourierFeatures

    def normalized(self, raw: torch.Tensor) -> torch.Tensor:
        # Pusa V0.5's own sampler puts raw latents into z, though it decodes all of z as normalized.
        return raw if self.spec.latent_space == "pusa_raw" else super().normalized(raw)

    def model_time(self, sigma: torch.Tensor) -> torch.Tensor:
        return (1 - sigma) * MODEL_TIME

    def can_batch(self, texts: Sequence[Text]) -> bool:
        return self.fit.takes_masks or super().can_batch(texts)  # padded


def _null_is_empty(folder: Path) -> bool:
    """MochiPipeline's force_zeros_for_empty_prompt; the published Mochi has it on."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        return bool(index.get("force_zeros_for_empty_prompt", True))
    except (OSError, ValueError, AttributeError):
        return True
