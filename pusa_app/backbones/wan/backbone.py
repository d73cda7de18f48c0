"""A diffusers folder of the Wan family as a Backbone: Wan 2.1, Wan 2.2 (two experts), TI2V-5B, SkyReels-V2-DF."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan, SkyReelsV2Transformer3DModel
from transformers import UMT5EncoderModel

from pusa_app.backbones.base import Text
from pusa_app.backbones.folder import FolderBackbone
from pusa_app.backbones.texts import Prompts
from pusa_app.backbones.wan.decoder import decode_slots
from pusa_app.backbones.wan.transformer import VectorizedWanTransformer3DModel
from pusa_app.models.card import BackboneSpec

SECOND = "transformer_2"


class WanPrompts(Prompts):
    encoder_class = UMT5EncoderModel

    def ids(self, prompt: str) -> torch.Tensor:
        return super().ids(_clean(prompt))


class WanBackbone(FolderBackbone):
    """Wan 2.1 and 2.2, and what Pusa V1 makes of them: whatever has WanPipeline's parts.

    Of two experts the second is for a schedule below spec.boundary, and only the one in use is on a GPU. The VAE is
    fp32 everywhere, as its authors run it.
    """

    takes_level = True
    prompts_class = WanPrompts
    transformer_class = VectorizedWanTransformer3DModel
    vae_class = AutoencoderKLWan
    vae_dtype = torch.float32

    def forward(self, expert: Any, x: torch.Tensor, time: torch.Tensor, texts: Sequence[Text]) -> torch.Tensor:
        return -self.predicted(expert, x, time, torch.stack([text.embeds for text in texts]))

    def predicted(self, expert: Any, x: torch.Tensor, time: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
        """x (B, C, F, h, w), time (B, F), embeds (B, L, D) -> eps - z0, which Wan predicts."""
        return expert(x, time, embeds, return_dict=False)[0]

    def decoded(self, raw: torch.Tensor, slots: int | None) -> Iterator[torch.Tensor]:
        return decode_slots(self.vae, raw)

    @staticmethod
    def geometry(transformer: Any, vae: Any) -> Mapping[str, tuple[float, ...]]:
        return {
            "latent_channels": (transformer.config.in_channels, vae.config.z_dim),
            "patch": tuple(transformer.config.patch_size[1:]),
            "the patch in time": (1, transformer.config.patch_size[0]),
            "temporal_stride": (vae.config.scale_factor_temporal,),
            "spatial_stride": (vae.config.scale_factor_spatial,),
        }

    @staticmethod
    def latent_statistics(vae: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor(vae.config.latents_mean), torch.tensor(vae.config.latents_std)

    @classmethod
    def expert_parts(cls, spec: BackboneSpec) -> tuple[str, ...]:
        return ("transformer",) if spec.boundary is None else ("transformer", SECOND)

    @staticmethod
    def dtype_of(transformer: Any) -> torch.dtype:
        # Not transformer.dtype: its norms and time embedding are fp32 whatever the rest is.
        return transformer.patch_embedding.weight.dtype

    def finished(self, text: Text | None) -> Text:
        """As WanPipeline does it: padded with zeros behind the text, which the model attends to."""
        text = super().finished(text)
        return Text(F.pad(text.embeds, (0, 0, 0, self.spec.max_text_tokens - len(text.embeds))))

    def expert(self, level: float) -> Any:
        """As in WanPipeline the first works down to the boundary, the second below it."""
        return self.experts[0 if self.spec.boundary is None or level >= self.spec.boundary else -1]

    def model_time(self, sigma: torch.Tensor) -> torch.Tensor:
        time = super().model_time(sigma)
        return time.trunc() if self.spec.integer_time else time


class SkyReelsBackbone(WanBackbone):
    """SkyReels-V2 diffusion forcing: diffusers' own class takes a time per slot, and repeats it for every token."""

    transformer_class = SkyReelsV2Transformer3DModel

    def predicted(self, expert: Any, x: torch.Tensor, time: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
        more = {}
        if expert.config.inject_sample_info:  # it knows two frame rates: 16 and 24
            more["fps"] = [0 if self.spec.fps == 16 else 1] * len(x)
        return expert(x, time, embeds, enable_diffusion_forcing=True, return_dict=False, **more)[0]

    def can_batch(self, texts: Sequence[Text]) -> bool:
        return False  # with a frame rate it takes one clip at a time


def _clean(prompt: str) -> str:
    """What WanPipeline makes of a prompt where ftfy is not installed: entities resolved, one space between words."""
    return " ".join(html.unescape(html.unescape(prompt)).split())
