"""The Wan transformer with one time per latent frame (slot).

Vectorized timesteps: FVDM (arXiv 2410.03160), Pusa V1. Same parameters as diffusers' WanTransformer3DModel, and the
same output when all slots have the same time, so weights go either way. diffusers' own model takes a time per token
(Wan 2.2 TI2V) and gives what this one does when each slot's time is repeated over its tokens, but it makes six rows of
modulation for every token: 6 GB more at 832x480 and 81 frames.

    temb[b, f] = time_mlp(t[b, f])
    blocks, output norm    modulated by temb[b, f], broadcast over the tokens of slot f

In shapes: B batch, F slots, S tokens per slot, L text tokens, D width.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import torch
from diffusers import WanTransformer3DModel
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from diffusers.utils import apply_lora_scale


class VectorizedWanTransformer3DModel(WanTransformer3DModel):
    """A WanTransformer3DModel that takes a time per slot; constructor, config and state dict are the stock ones."""

    _repeated_blocks: ClassVar = ["VectorizedWanBlock"]
    _no_split_modules: ClassVar = ["VectorizedWanBlock"]
    _cp_plan = None  # splitting the sequence over GPUs would part the tokens from their slots

    # The wrapped signature is the stock one: diffusers reads it to know which config entries to pass.
    @functools.wraps(WanTransformer3DModel.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for block in self.blocks:
            # Only the forward differs; building the blocks a second time would double the start of a 14 B model.
            block.__class__ = VectorizedWanBlock

    @apply_lora_scale("attention_kwargs")
    def forward(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        encoder_hidden_states_image: torch.Tensor | None = None,
        return_dict: bool = True,
        attention_kwargs: dict[str, Any] | None = None,
    ) -> Transformer2DModelOutput | tuple[torch.Tensor]:
        """Predict the velocity eps - z0, the opposite sign to Mochi's.

        hidden_states (B, C, F, h, w); timestep (B,) or (B, F), model time sigma * 1000, keep it in fp32;
        encoder_hidden_states (B, L, text dim), padded with zeros to the length that the model was trained with, for it
        has no mask; encoder_hidden_states_image: of image-to-video checkpoints. attention_kwargs["scale"] scales LoRA
        layers. Output like hidden_states.
        """
        batch, _, frames, height, width = hidden_states.shape
        p_t, p_h, p_w = self.config.patch_size
        slots, rows, columns = frames // p_t, height // p_h, width // p_w
        if timestep.ndim == 1:
            timestep = timestep[:, None]
        if timestep.shape[1] not in (1, slots):
            raise ValueError(f"timestep must hold one time or {slots}, one per slot, not {timestep.shape[1]}")

        rope = self.rope(hidden_states)
        x = self.patch_embedding(hidden_states).flatten(2).transpose(1, 2).contiguous()  # (B, F*S, D)
        # The sinusoids come from fp32: bf16 times are wrong by up to 2 of 1000.
        temb, modulation, text, image = self.condition_embedder(
            timestep.float().flatten(),
            encoder_hidden_states,
            encoder_hidden_states_image,
            timestep_seq_len=timestep.shape[1],
        )
        modulation = modulation.unflatten(2, (6, -1))  # (B, F or 1, 6, D)
        if image is not None:
            text = torch.cat((image, text), dim=1)

        for block in self.blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                x = self._gradient_checkpointing_func(block, x, text, modulation, rope)
            else:
                x = block(x, text, modulation, rope)

        shift, scale = (self.scale_shift_table.to(temb.device) + temb.unsqueeze(2)).chunk(2, dim=2)  # (B, F, 1, D)
        x = _per_slot(x, shift.shape[1])
        shift, scale = shift.to(x.device), scale.to(x.device)
        x = (self.norm_out(x.float()) * (1 + scale) + shift).type_as(x)
        x = self.proj_out(x).reshape(batch, slots, rows, columns, p_t, p_h, p_w, -1)
        output = x.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)
        return Transformer2DModelOutput(sample=output) if return_dict else (output,)


class VectorizedWanBlock(WanTransformerBlock):
    """A WanTransformerBlock that is modulated per slot."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        temb: torch.Tensor,
        rotary_emb: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """hidden_states (B, F*S, D), encoder_hidden_states (B, L, D), temb (B, F or 1, 6, D), rotary_emb as stock."""
        # One row per slot: (B, F, 1, D) broadcasts over the slot's S tokens.
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.scale_shift_table + temb.float()).chunk(6, dim=2)
        slots = temb.shape[1]
        x = hidden_states

        normed = self.norm1(_per_slot(x, slots).float()) * (1 + scale1) + shift1
        attended = self.attn1(normed.type_as(x).flatten(1, 2), None, None, rotary_emb)
        x = (_per_slot(x, slots).float() + _per_slot(attended, slots) * gate1).type_as(x).flatten(1, 2)

        normed = self.norm2(x.float()).type_as(x)
        x = x + self.attn2(normed, encoder_hidden_states, None, None)

        normed = self.norm3(_per_slot(x, slots).float()) * (1 + scale2) + shift2
        change = _per_slot(self.ffn(normed.type_as(x).flatten(1, 2)), slots)
        return (_per_slot(x, slots).float() + change.float() * gate2).type_as(x).flatten(1, 2)


def _per_slot(x: torch.Tensor, slots: int) -> torch.Tensor:
    """(B, N, D) -> (B, slots, N / slots, D), a view."""
    return x.unflatten(1, (slots, -1))


# diffusers' caches (first block, MagCache) know blocks by their class. Not by `register`, which would import every
# transformer that diffusers has.
TransformerBlockRegistry._registry[VectorizedWanBlock] = TransformerBlockMetadata(
    return_hidden_states_index=0, _cls=VectorizedWanBlock
)
