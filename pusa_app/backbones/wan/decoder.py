"""Decode a Wan clip slot by slot, with the result of decoding it whole: its VAE is causal and keeps a cache."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, unpatchify


def decode_slots(vae: AutoencoderKLWan, latents: torch.Tensor) -> Iterator[torch.Tensor]:
    """Raw latents (C, F, h, w) -> for each slot its frames (3, n, H, W) in [-1, 1], n = 1 and then the stride."""
    cache = [None] * sum(isinstance(module, WanCausalConv3d) for module in vae.decoder.modules())
    for number, slot in enumerate(latents[None].split(1, dim=2)):
        x = vae.post_quant_conv(slot)  # its kernel is one frame long
        frames = vae.decoder(x, feat_cache=cache, feat_idx=[0], first_chunk=number == 0)
        if vae.config.patch_size is not None:
            frames = unpatchify(frames, patch_size=vae.config.patch_size)
        yield frames[0].clamp(-1, 1)
