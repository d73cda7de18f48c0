"""Decode a Mochi clip piece by piece, with the result of decoding it whole.

diffusers' decoder carries a cache between pieces, but its convolutions use it only with zero padding at the borders
of the picture, and the published weights were trained with replicated borders. These convolutions do both.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLMochi
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import CogVideoXCausalConv3d
from diffusers.models.autoencoders.autoencoder_kl_mochi import FourierFeatures

PIXELS_PER_CHUNK = 5_000_000  # two slots of 848x480; small clips are decoded at once


class StreamingCausalConv3d(CogVideoXCausalConv3d):
    """Borders replicated in space; before the first frame it is replicated in time, later the cache stands there."""

    def forward(
        self, inputs: torch.Tensor, conv_cache: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """inputs (B, C, frames, H, W), conv_cache: the last frames of the piece before. Returns output and cache."""
        first = conv_cache is None
        if first:
            conv_cache = inputs[:, :, :1].expand(-1, -1, self.time_pad, -1, -1)
        inputs = torch.cat((conv_cache, inputs), dim=2)
        # In the place of the old cache: with two sets of them, decoding 848x480 would take 2.8 GB more. A copy in any
        # case, so that the cache does not keep the whole piece alive.
        last = inputs[:, :, -self.time_pad :]
        cache = last.clone() if first else conv_cache.copy_(last)
        borders = (self.width_pad, self.width_pad, self.height_pad, self.height_pad, 0, 0)
        inputs = F.pad(inputs, borders, mode="replicate")  # what it is made of goes before the convolution
        del last
        return self.conv(inputs), cache


class ExactFourierFeatures(FourierFeatures):
    """Waves of the pixels as Genmo's program makes them: of fp32, for an encoder of any dtype. The fastest goes round
    128 times between 0 and 1, so pixels that were rounded to bf16 are wrong by up to a quarter of it."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """inputs (B, 3, frames, H, W), fp32."""
        return super().forward(inputs).to(self.made_for)


def enable_streaming(vae: AutoencoderKLMochi) -> None:
    """Let `decode_chunks` work, and the encoder take fp32; decoding as a whole gives the same as before."""
    vae.encoder.fourier_features.__class__ = ExactFourierFeatures
    vae.encoder.fourier_features.made_for = vae.dtype
    for module in vae.decoder.modules():
        if type(module) is CogVideoXCausalConv3d and module.pad_mode == "replicate" and module.time_pad > 0:
            module.__class__ = StreamingCausalConv3d


def decode_chunks(
    vae: AutoencoderKLMochi, latents: torch.Tensor, slots_per_chunk: int | None = None
) -> Iterator[torch.Tensor]:
    """Raw latents (C, F, h, w) -> pieces of frames (3, n, H, W) in [-1, 1], stride*(F-1) + 1 frames in all."""
    stride, side = vae.temporal_compression_ratio, vae.spatial_compression_ratio
    if slots_per_chunk is None:
        pixels_per_slot = stride * side**2 * latents.shape[-1] * latents.shape[-2]
        slots_per_chunk = max(1, PIXELS_PER_CHUNK // pixels_per_slot)
    cache = None
    for number, piece in enumerate(latents[None].split(slots_per_chunk, dim=2)):
        frames, cache = vae.decoder(piece, conv_cache=cache)
        # The first slot holds a single frame: the last one that it decodes to.
        yield frames[0, :, stride - 1 :] if number == 0 else frames[0]
