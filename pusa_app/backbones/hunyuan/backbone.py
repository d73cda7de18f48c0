"""A diffusers HunyuanVideo folder as a Backbone: LLaMA and CLIP, vectorized transformer, VAE."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLHunyuanVideo
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from transformers import CLIPTextModel, LlamaConfig, LlamaModel

from pusa_app.backbones.base import Text
from pusa_app.backbones.folder import FolderBackbone
from pusa_app.backbones.hunyuan.decoder import decode_windows, enable_streaming
from pusa_app.backbones.hunyuan.transformer import VectorizedHunyuanVideoTransformer3DModel
from pusa_app.backbones.parts import load_weights
from pusa_app.backbones.texts import Hidden, Prompts, load_tokenizer
from pusa_app.models.card import BackboneSpec

UNUSED_LAYERS = 2  # of LLaMA: HunyuanVideo reads the state before them
POOLED_TOKENS = 77
GUIDANCE_UNIT = 1000


class PromptLlama(LlamaModel):
    """A LlamaModel that ends where HunyuanVideo reads it: without its last two layers and the norm after them, which
    are a gigabyte. `last_hidden_state` is the stock model's `hidden_states[-3]`."""

    def __init__(self, config: LlamaConfig) -> None:
        config = copy.deepcopy(config)
        config.num_hidden_layers -= UNUSED_LAYERS
        super().__init__(config)
        self.norm = torch.nn.Identity()


class HunyuanPrompts(Prompts):
    """As HunyuanVideoPipeline encodes: LLaMA reads the prompt in a template, of which the beginning is cut off
    afterwards, and CLIP gives one vector for the whole.

    LLaMA and CLIP look back only, and the transformer leaves padding out, so there is none. encoder_2: CLIP, which is
    small: it stays on the CPU in fp32, and a prompt takes it a fraction of a second.
    """

    encoder_class = PromptLlama

    def __init__(self, tokenizer: Any, spec: BackboneSpec, tokenizer_2: Any, encoder_2: Any) -> None:
        super().__init__(tokenizer, spec)
        self.tokenizer_2, self.encoder_2 = tokenizer_2, encoder_2.eval()

    @classmethod
    def from_folder(cls, folder: Path, spec: BackboneSpec) -> HunyuanPrompts:
        encoder_2 = load_weights(CLIPTextModel, folder / "text_encoder_2", torch.float32)
        return cls(load_tokenizer(folder / "tokenizer"), spec, load_tokenizer(folder / "tokenizer_2"), encoder_2)

    def ids(self, prompt: str) -> torch.Tensor:
        """The ids of the template with the prompt in it."""
        length = self.spec.max_text_tokens + DEFAULT_PROMPT_TEMPLATE["crop_start"]
        text = DEFAULT_PROMPT_TEMPLATE["template"].format(prompt)
        return self.tokenizer(text, max_length=length, truncation=True, return_tensors="pt", verbose=False).input_ids

    def text(self, prompt: str, hidden: Hidden) -> Text:
        embeds = hidden(self.ids(prompt))[0]
        # The template is longer than what is cut off; of another tokenizer's at least one token stays.
        embeds = embeds[min(DEFAULT_PROMPT_TEMPLATE["crop_start"], len(embeds) - 1) :]
        return Text(embeds, self._pooled(prompt).to(embeds))

    def _pooled(self, prompt: str) -> torch.Tensor:
        ids = self.tokenizer_2(
            prompt,
            padding="max_length",
            max_length=POOLED_TOKENS,
            truncation=True,
            return_tensors="pt",
            verbose=False,
        ).input_ids
        return self.encoder_2(ids).pooler_output[0]


class HunyuanBackbone(FolderBackbone):
    """HunyuanVideo: whatever has HunyuanVideoPipeline's parts.

    Its guidance is distilled into the transformer, which reads it as a number (spec.distilled): one forward a step,
    and no negative prompt. A checkpoint without that takes classifier-free guidance as the other families do.
    """

    parts = ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2", "transformer", "vae")
    prompts_class = HunyuanPrompts
    transformer_class = VectorizedHunyuanVideoTransformer3DModel
    vae_class = AutoencoderKLHunyuanVideo

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """See FolderBackbone."""
        super().__init__(*args, **kwargs)
        self.takes_guidance = self.spec.distilled
        self._guidance = self.spec.guidance
        enable_streaming(self.vae)

    def velocity(
        self,
        z: torch.Tensor,
        sigma: torch.Tensor,
        texts: Sequence[Text],
        *,
        level: float | None = None,
        guidance: float | None = None,
    ) -> list[torch.Tensor]:
        """See Backbone. guidance: what the transformer is told; None is the model's own."""
        self._guidance = self.spec.guidance if guidance is None else guidance
        return super().velocity(z, sigma, texts, level=level)

    def forward(self, expert: Any, x: torch.Tensor, time: torch.Tensor, texts: Sequence[Text]) -> torch.Tensor:
        embeds, pooled = (torch.stack([getattr(text, name) for text in texts]) for name in ("embeds", "pooled"))
        guidance = None
        if self.takes_guidance:
            guidance = torch.full((len(texts),), self._guidance * GUIDANCE_UNIT, device=x.device)
        output = expert(
            hidden_states=x,
            timestep=time,
            encoder_hidden_states=embeds,
            pooled_projections=pooled,
            guidance=guidance,
            return_dict=False,
        )
        return -output[0]  # HunyuanVideo predicts eps - z0

    def decoded(self, raw: torch.Tensor, slots: int | None) -> Iterator[torch.Tensor]:
        return decode_windows(self.vae, raw)

    @staticmethod
    def geometry(transformer: Any, vae: Any) -> Mapping[str, tuple[float, ...]]:
        return {
            "latent_channels": (transformer.config.in_channels, vae.config.latent_channels),
            "patch": (transformer.config.patch_size,),
            "the patch in time": (1, transformer.config.patch_size_t),
            "temporal_stride": (vae.config.temporal_compression_ratio,),
            "spatial_stride": (vae.config.spatial_compression_ratio,),
            "distilled": (bool(transformer.config.guidance_embeds),),
        }

    @staticmethod
    def latent_statistics(vae: Any) -> tuple[torch.Tensor, torch.Tensor]:
        count = vae.config.latent_channels
        return torch.zeros(count), torch.full((count,), 1 / vae.config.scaling_factor)
