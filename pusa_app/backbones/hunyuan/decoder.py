"""Decode a HunyuanVideo clip piece by piece, with the result of diffusers' decoding of it.

The norms of this VAE go over all frames that are decoded together, so a clip cannot be decoded slot by slot as it would
be whole. Its authors decode windows of a few slots that overlap and fade into each other; diffusers does so too, and
holds the whole clip. Here every window leaves as soon as the next one needs no more of it.

Its attention is causal by a mask as large as the square of the tokens, 20 GB for a window at 1280x720; a frame that
attends to itself and those before it needs no mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLHunyuanVideo
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import HunyuanVideoMidBlock3D


class MaskFreeMidBlock(HunyuanVideoMidBlock3D):
    """A HunyuanVideoMidBlock3D that attends frame by frame."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """hidden_states (B, C, F, h, w)."""
        x = self.resnets[0](hidden_states)
        for attention, resnet in zip(self.attentions, self.resnets[1:], strict=True):
            if attention is not None:
                x = _attend(attention, x)
            x = resnet(x)
        return x


def _attend(attention: Any, x: torch.Tensor) -> torch.Tensor:
    """Causal attention over frames (B, C, F, h, w), as diffusers' Attention with its mask of this VAE gives it."""
    frames, size = x.shape[2], x.shape[3] * x.shape[4]
    tokens = x.permute(0, 2, 3, 4, 1).flatten(1, 3)  # (B, F*h*w, C)
    normed = attention.group_norm(tokens.transpose(1, 2)).transpose(1, 2)
    query, key, value = (
        layer(normed).unflatten(2, (attention.heads, -1)).transpose(1, 2)
        for layer in (attention.to_q, attention.to_k, attention.to_v)
    )
    attended = torch.empty_like(query)
    for frame in range(frames):
        here, seen = slice(frame * size, (frame + 1) * size), slice((frame + 1) * size)
        attended[:, :, here] = F.scaled_dot_product_attention(query[:, :, here], key[:, :, seen], value[:, :, seen])
    output = attention.to_out[0](attended.transpose(1, 2).flatten(2, 3))
    output = (output + tokens) / attention.rescale_output_factor
    return output.unflatten(1, (frames, *x.shape[3:])).permute(0, 4, 1, 2, 3)


def enable_streaming(vae: AutoencoderKLHunyuanVideo) -> None:
    """Encode and decode without masks; the result is the same."""
    for half in (vae.encoder, vae.decoder):
        half.mid_block.__class__ = MaskFreeMidBlock


def decode_windows(vae: AutoencoderKLHunyuanVideo, latents: torch.Tensor) -> Iterator[torch.Tensor]:
    """Raw latents (C, F, h, w) -> pieces of frames (3, n, H, W), about [-1, 1], stride*(F-1) + 1 frames in all."""
    stride = vae.temporal_compression_ratio
    window, step = vae.tile_sample_min_num_frames // stride, vae.tile_sample_stride_num_frames // stride
    slots = latents.shape[1]
    if not vae.use_framewise_decoding or slots <= window:
        yield _decode(vae, latents)
        return
    fade = (window - step) * stride
    before: torch.Tensor | None = None  # the frames of the last window that fade into the next
    for start in range(0, slots, step):
        frames = _decode(vae, latents[:, start : start + window + 1])
        if before is not None:
            frames = frames[:, 1:]
            _fade(before, frames)
        stop = step * stride + (before is None)
        if frames[:, :stop].shape[1]:
            yield frames[:, :stop]
        before = frames[:, -fade:]


def _decode(vae: AutoencoderKLHunyuanVideo, latents: torch.Tensor) -> torch.Tensor:
    return vae.decoder(vae.post_quant_conv(latents[None]))[0]


def _fade(before: torch.Tensor, frames: torch.Tensor) -> None:
    """Blend the end of a window into the beginning of the next one, in place."""
    length = min(before.shape[1], frames.shape[1])
    weights = torch.arange(length, device=frames.device).view(1, -1, 1, 1) / max(1, length)
    weights = weights.to(frames.dtype)
    frames[:, :length] = before[:, before.shape[1] - length :] * (1 - weights) + frames[:, :length] * weights
