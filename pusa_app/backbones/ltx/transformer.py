"""The LTX-Video transformer with one time per latent frame (slot).

LTX-Video was trained with a time per token, so this is no adaptation: it gives what diffusers' own model gives when
each slot's time is repeated over its tokens, without six rows of modulation for every token.

In shapes: B batch, F slots, S tokens per slot, L text tokens, D width.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import torch
from diffusers import LTXVideoTransformer3DModel
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformerBlock
from diffusers.utils import apply_lora_scale

MASKED = -10_000.0  # what diffusers adds to the scores of a text's padding


class VectorizedLTXVideoTransformer3DModel(LTXVideoTransformer3DModel):
    """An LTXVideoTransformer3DModel that takes a time per slot; constructor, config and state dict are the stock
    ones."""

    _repeated_blocks: ClassVar = ["VectorizedLTXBlock"]
    _no_split_modules: ClassVar = ["VectorizedLTXBlock"]
    _cp_plan = None  # splitting the sequence over GPUs would part the tokens from their slots

    # The wrapped signature is the stock one: diffusers reads it to know which config entries to pass.
    @functools.wraps(LTXVideoTransformer3DModel.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for block in self.transformer_blocks:
            block.__class__ = VectorizedLTXBlock  # only the forward differs

    @apply_lora_scale("attention_kwargs")
    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        encoder_attention_mask: torch.Tensor | None = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        rope_interpolation_scale: tuple[float, float, float] | None = None,
        video_coords: torch.Tensor | None = None,
        attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[torch.Tensor]:
        """Predict the velocity eps - z0.

        hidden_states (B, F*S, C), slot after slot; encoder_hidden_states (B, L, text dim); timestep (B,), (B, F), or
        (B, F*S) for a time per token: model time sigma * 1000, keep it in fp32; encoder_attention_mask (B, L), 1 where
        a token is valid, None when all are; video_coords (B, 3, F*S), seconds, rows and columns in pixels of every
        token, or instead num_frames, height, width and what to scale them by. attention_kwargs["scale"] scales LoRA
        layers. Output like hidden_states. Raises ValueError for times that fit no slots.
        """
        batch, tokens, _ = hidden_states.shape
        timestep = timestep.reshape(batch, -1)
        if tokens % timestep.shape[1]:
            raise ValueError(f"timestep must hold one time or one per slot, and {timestep.shape[1]} are neither")

        rope = self.rope(hidden_states, num_frames, height, width, rope_interpolation_scale, video_coords)
        mask = encoder_attention_mask
        if mask is not None and mask.ndim == 2:
            mask = ((1 - mask.to(hidden_states.dtype)) * MASKED).unsqueeze(1)
        # The sinusoids come from fp32: bf16 times are wrong by up to 2 of 1000.
        modulation, temb = self.time_embed(
            timestep.float().flatten(), batch_size=batch, hidden_dtype=hidden_states.dtype
        )
        modulation, temb = (part.view(batch, timestep.shape[1], -1) for part in (modulation, temb))
        x = self.proj_in(hidden_states)
        text = self.caption_projection(encoder_hidden_states)

        for block in self.transformer_blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                x = self._gradient_checkpointing_func(block, x, text, modulation, rope, mask)
            else:
                x = block(x, text, modulation, rope, mask)

        shift, scale = (self.scale_shift_table + temb.unsqueeze(2)).unbind(2)
        output = self.proj_out(_modulated(self.norm_out(x), shift, scale))
        return Transformer2DModelOutput(sample=output) if return_dict else (output,)


class VectorizedLTXBlock(LTXVideoTransformerBlock):
    """An LTXVideoTransformerBlock that is modulated per slot."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        temb: torch.Tensor,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """hidden_states (B, F*S, D), encoder_hidden_states (B, L, D), temb (B, F, 6 D), the rest as stock."""
        x = hidden_states
        rows = self.scale_shift_table.to(temb.device) + temb.unflatten(2, (6, -1))  # (B, F, 6, D)
        shift1, scale1, gate1, shift2, scale2, gate2 = rows.unbind(2)
        attended = self.attn1(
            hidden_states=_modulated(self.norm1(x), shift1, scale1),
            encoder_hidden_states=None,
            image_rotary_emb=image_rotary_emb,
        )
        x = x + _gated(attended, gate1)
        x = x + self.attn2(
            x,
            encoder_hidden_states=encoder_hidden_states,
            image_rotary_emb=None,
            attention_mask=encoder_attention_mask,
        )
        return x + _gated(self.ff(_modulated(self.norm2(x), shift2, scale2)), gate2)


def _modulated(normed: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Tokens (B, N, D) with one row of modulation per slot (B, F, D), broadcast over the slot's tokens."""
    x = normed.unflatten(1, (shift.shape[1], -1))
    return (x * (1 + scale.unsqueeze(2)) + shift.unsqueeze(2)).flatten(1, 2)


def _gated(x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """The same with a factor per slot."""
    return (x.unflatten(1, (gate.shape[1], -1)) * gate.unsqueeze(2)).flatten(1, 2)


# diffusers' caches (first block, MagCache) know blocks by their class. Not by `register`, which would import every
# transformer that diffusers has.
TransformerBlockRegistry._registry[VectorizedLTXBlock] = TransformerBlockMetadata(
    return_hidden_states_index=0, _cls=VectorizedLTXBlock
)
