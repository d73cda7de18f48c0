"""A diffusers LTX-Video folder as a Backbone: T5, the transformer, VAE."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo, LTXPipeline
from transformers import T5EncoderModel

from pusa_app.backbones.base import Text
from pusa_app.backbones.folder import FolderBackbone
from pusa_app.backbones.ltx.transformer import VectorizedLTXVideoTransformer3DModel
from pusa_app.backbones.texts import Prompts, padded

# Of decoders that are told a noise level, and remove it: as Lightricks set them since 0.9.5.
DECODE_TIME, DECODE_NOISE, DECODE_SEED = 0.05, 0.025, 0


class LTXPrompts(Prompts):
    """As LTXConditionPipeline encodes. (LTXPipeline, of the versions before 0.9.5, lets T5 read the padding, which the
    authors' own program does not.)"""

    encoder_class = T5EncoderModel


class LTXBackbone(FolderBackbone):
    """LTX-Video 0.9 to 0.9.8 (2B and 13B): whatever has LTXPipeline's or LTXConditionPipeline's parts.

    Its decoder looks at the frames before and behind, so clips are decoded whole, or in tiles. Where it was trained to
    remove a little noise, it is given the same noise every time.
    """

    prompts_class = LTXPrompts
    transformer_class = VectorizedLTXVideoTransformer3DModel
    vae_class = AutoencoderKLLTXVideo

    def forward(self, expert: Any, x: torch.Tensor, time: torch.Tensor, texts: Sequence[Text]) -> torch.Tensor:
        slots, height, width = x.shape[2:]
        p, p_t = expert.config.patch_size, expert.config.patch_size_t
        embeds, mask = padded([text.embeds for text in texts])
        output = expert(
            hidden_states=LTXPipeline._pack_latents(x, p, p_t),
            encoder_hidden_states=embeds,
            timestep=time,
            encoder_attention_mask=mask,
            video_coords=self._places(slots, height // p, width // p, x.device).expand(len(x), -1, -1),
            return_dict=False,
        )[0]
        return -LTXPipeline._unpack_latents(output, slots, height // p, width // p, p, p_t)  # it predicts eps - z0

    def _places(self, slots: int, rows: int, columns: int, device: torch.device) -> torch.Tensor:
        """Where each token is: (1, 3, F*S), seconds and pixels.

        A slot is where its first frame is. Models before 0.9.5 count eight frames for every slot, also the first.
        """
        stride, side = self.spec.temporal_stride, self.spec.size_multiple
        frames = torch.arange(slots, device=device) * stride
        if is_causal_in_time(self.vae.config):
            frames = (frames + 1 - stride).clamp(min=0)
        axes = (frames / self.spec.fps, *(torch.arange(count, device=device) * side for count in (rows, columns)))
        return torch.stack(torch.meshgrid(*(axis.float() for axis in axes), indexing="ij")).flatten(1)[None]

    def raw(self, z: torch.Tensor) -> torch.Tensor:
        raw = super().raw(z)
        if not self.vae.config.timestep_conditioning:
            return raw
        generator = torch.Generator().manual_seed(DECODE_SEED)
        return (1 - DECODE_NOISE) * raw + DECODE_NOISE * torch.randn(raw.shape, generator=generator)

    def decoded(self, raw: torch.Tensor, slots: int | None) -> Iterator[torch.Tensor]:
        time = None
        if self.vae.config.timestep_conditioning:
            time = torch.tensor([DECODE_TIME], device=raw.device, dtype=raw.dtype)
        with _same_random_numbers(raw.device):  # decoders of 0.9.1 add some in every layer
            frames = self.vae.decode(raw[None], time, return_dict=False)[0][0]
        yield frames

    @staticmethod
    def geometry(transformer: Any, vae: Any) -> Mapping[str, tuple[float, ...]]:
        return {
            "latent_channels": (transformer.config.in_channels, vae.config.latent_channels),
            "patch": (transformer.config.patch_size,),
            "the patch in time": (1, transformer.config.patch_size_t),
            "temporal_stride": (vae.temporal_compression_ratio,),
            "spatial_stride": (vae.spatial_compression_ratio,),
        }

    @staticmethod
    def latent_statistics(vae: Any) -> tuple[torch.Tensor, torch.Tensor]:
        mean, deviation = (numbers.float().cpu() for numbers in (vae.latents_mean, vae.latents_std))
        return mean, deviation / vae.config.scaling_factor

    def can_batch(self, texts: Sequence[Text]) -> bool:
        return self.fit.takes_masks or super().can_batch(texts)  # padded


def is_causal_in_time(vae: Mapping[str, Any]) -> bool:
    """Whether a model counts one frame for the first slot, as those from 0.9.5 on: by the config of its VAE, which was
    new then. No config says it itself."""
    return any("095" in kind for kind in vae.get("down_block_types") or ())


@contextlib.contextmanager
def _same_random_numbers(device: torch.device) -> Iterator[None]:
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(DECODE_SEED)
        yield
