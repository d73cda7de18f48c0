"""The HunyuanVideo transformer with one time per latent frame (slot).

HunyuanVideo was trained with one time for the whole clip; this is the adaptation that Pusa V0.5 made of Mochi's
(FVDM, arXiv 2410.03160), ready to be fine-tuned. Same parameters as diffusers' HunyuanVideoTransformer3DModel, and the
same output when all slots have the same time, so weights go either way.

    temb[b, f] = time_mlp(t[b, f]) + guidance[b] + pooled_text[b]
    visual stream    modulated by temb[b, f], broadcast over the tokens of slot f, in blocks of two streams and of one
    text stream      modulated by the mean of temb over the slots (before SiLU), as in Mochi: a text belongs to no slot
    token refiner    the same with its own embedding of the time: its mean over the slots
    output norm      modulated by temb[b, f]

In shapes: B batch, F slots, S visual tokens per slot, L text tokens, D width.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from diffusers import HunyuanVideoTransformer3DModel
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.transformers.transformer_hunyuan_video import (
    HunyuanVideoSingleTransformerBlock,
    HunyuanVideoTransformerBlock,
)
from diffusers.utils import apply_lora_scale


class VectorizedHunyuanVideoTransformer3DModel(HunyuanVideoTransformer3DModel):
    """A HunyuanVideoTransformer3DModel that takes a time per slot; constructor, config and state dict are the stock
    ones. Raises ValueError for image-to-video checkpoints, whose first frame has a time of its own already."""

    _repeated_blocks: ClassVar = ["VectorizedHunyuanBlock", "VectorizedHunyuanSingleBlock"]
    _no_split_modules: ClassVar = [
        "VectorizedHunyuanBlock",
        "VectorizedHunyuanSingleBlock",
        "HunyuanVideoPatchEmbed",
        "HunyuanVideoTokenRefiner",
    ]

    # The wrapped signature is the stock one: diffusers reads it to know which config entries to pass.
    @functools.wraps(HunyuanVideoTransformer3DModel.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.config.image_condition_type is not None:
            raise ValueError("image-to-video checkpoints of HunyuanVideo cannot be given a time per slot")
        # Only the forwards differ; building the blocks a second time would double the start of a 13 B model.
        for block in self.transformer_blocks:
            block.__class__ = VectorizedHunyuanBlock
        for block in self.single_transformer_blocks:
            block.__class__ = VectorizedHunyuanSingleBlock

    @apply_lora_scale("attention_kwargs")
    def forward(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        encoder_attention_mask: torch.Tensor | None = None,
        pooled_projections: torch.Tensor | None = None,
        guidance: torch.Tensor | None = None,
        attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[torch.Tensor]:
        """Predict the velocity eps - z0, the opposite sign to Mochi's.

        hidden_states (B, C, F, h, w); timestep (B,) or (B, F), model time sigma * 1000, keep it in fp32;
        encoder_hidden_states (B, L, text dim), L > 0; encoder_attention_mask (B, L), 1 where a token is valid, valid
        ones first, or None when all are; pooled_projections (B, pooled dim); guidance (B,), 1000 times the guidance,
        for checkpoints with it distilled into them. attention_kwargs["scale"] scales LoRA layers. Output like
        hidden_states. Raises ValueError for times that fit no slots.
        """
        batch, _, frames, height, width = hidden_states.shape
        p, p_t = self.config.patch_size, self.config.patch_size_t
        slots, rows, columns = frames // p_t, height // p, width // p
        if timestep.ndim == 1:
            timestep = timestep[:, None]
        if timestep.shape[1] not in (1, slots):
            raise ValueError(f"timestep must hold one time or {slots}, one per slot, not {timestep.shape[1]}")

        rope = self.rope(hidden_states)
        temb = self._embed_conditions(timestep, pooled_projections, guidance)  # (B, F or 1, D)
        x = self.x_embedder(hidden_states)  # (B, F*S, D)
        text = self._refine_text(encoder_hidden_states, timestep, encoder_attention_mask)
        mask = None
        if encoder_attention_mask is not None:  # joint sequence: visual, then text
            mask = F.pad(encoder_attention_mask.bool(), (x.shape[1], 0), value=True)[:, None, None, :]

        for block in (*self.transformer_blocks, *self.single_transformer_blocks):
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                x, text = self._gradient_checkpointing_func(block, x, text, temb, mask, rope)
            else:
                x, text = block(x, text, temb, mask, rope)

        scale, shift = self.norm_out.linear(F.silu(temb).to(x.dtype)).chunk(2, dim=-1)
        x = self.proj_out(_modulated(self.norm_out.norm(x), shift, scale))
        x = x.reshape(batch, slots, rows, columns, -1, p_t, p, p).permute(0, 4, 1, 5, 2, 6, 3, 7)
        output = x.flatten(6, 7).flatten(4, 5).flatten(2, 3)
        return Transformer2DModelOutput(sample=output) if return_dict else (output,)

    def _embed_conditions(
        self, timestep: torch.Tensor, pooled: torch.Tensor | None, guidance: torch.Tensor | None
    ) -> torch.Tensor:
        """temb (B, F, D) of times (B, F)."""
        embed = self.time_text_embed
        if pooled is None or (guidance is None and embed.guidance_embedder is not None):
            missing = "pooled_projections" if pooled is None else "guidance"
            raise ValueError(f"this checkpoint of HunyuanVideo needs {missing}")
        dtype = pooled.dtype
        temb = embed.timestep_embedder(_waves(embed.time_proj, timestep, dtype))
        if embed.guidance_embedder is not None:
            temb = temb + embed.guidance_embedder(embed.time_proj(guidance.float()).to(dtype))[:, None]
        return temb + embed.text_embedder(pooled)[:, None]

    def _refine_text(self, text: torch.Tensor, timestep: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """What HunyuanVideoTokenRefiner does, with the mean over the slots of its embedding of the time."""
        refiner, dtype = self.context_embedder, text.dtype
        if mask is None:
            pooled = text.mean(dim=1)
        else:
            weights = mask.float().unsqueeze(-1)
            pooled = ((text * weights).sum(dim=1) / weights.sum(dim=1)).to(dtype)
        embed = refiner.time_text_embed
        times = embed.timestep_embedder(_waves(embed.time_proj, timestep, dtype))
        temb = times.mean(dim=1) + embed.text_embedder(pooled)
        return refiner.token_refiner(refiner.proj_in(text), temb, mask)


class VectorizedHunyuanBlock(HunyuanVideoTransformerBlock):
    """A HunyuanVideoTransformerBlock whose visual stream is modulated per slot."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        temb: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        freqs_cis: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """hidden_states (B, F*S, D), encoder_hidden_states (B, L, D), temb (B, F or 1, D), attention_mask
        (B, 1, 1, F*S + L). Returns both streams."""
        x, text = hidden_states, encoder_hidden_states
        shift1, scale1, gate1, shift2, scale2, gate2 = self.norm1.linear(F.silu(temb)).chunk(6, dim=-1)
        text_modulation = self.norm1_context.linear(F.silu(temb.mean(dim=1, keepdim=True)))  # (B, 1, 6 D)
        t_shift1, t_scale1, t_gate1, t_shift2, t_scale2, t_gate2 = text_modulation.chunk(6, dim=-1)

        attended, text_attended = self.attn(
            hidden_states=_modulated(self.norm1.norm(x), shift1, scale1),
            encoder_hidden_states=_modulated(self.norm1_context.norm(text), t_shift1, t_scale1),
            attention_mask=attention_mask,
            image_rotary_emb=freqs_cis,
        )
        x = x + _gated(attended, gate1)
        x = x + _gated(self.ff(_modulated(self.norm2(x), shift2, scale2)), gate2)
        text = text + _gated(text_attended, t_gate1)
        text = text + _gated(self.ff_context(_modulated(self.norm2_context(text), t_shift2, t_scale2)), t_gate2)
        return x, text


class VectorizedHunyuanSingleBlock(HunyuanVideoSingleTransformerBlock):
    """A HunyuanVideoSingleTransformerBlock that modulates visual tokens per slot and text tokens by the mean."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        temb: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See VectorizedHunyuanBlock.forward."""
        x, text = hidden_states, encoder_hidden_states
        shift, scale, gate = self.norm.linear(F.silu(temb)).chunk(3, dim=-1)
        t_shift, t_scale, t_gate = self.norm.linear(F.silu(temb.mean(dim=1, keepdim=True))).chunk(3, dim=-1)

        visual, words = _modulated(self.norm.norm(x), shift, scale), _modulated(self.norm.norm(text), t_shift, t_scale)
        attended, text_attended = self.attn(
            hidden_states=visual,
            encoder_hidden_states=words,
            attention_mask=attention_mask,
            image_rotary_emb=image_rotary_emb,
        )
        x = x + _gated(self._joined(attended, visual), gate)
        text = text + _gated(self._joined(text_attended, words), t_gate)
        return x, text

    def _joined(self, attended: torch.Tensor, normed: torch.Tensor) -> torch.Tensor:
        """The output projection of attention and feed-forward side by side, of one of the streams."""
        return self.proj_out(torch.cat((attended, self.act_mlp(self.proj_mlp(normed))), dim=2))


def _waves(time_proj: Any, timestep: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Sinusoids (B, F, 256) of times (B, F). They come from fp32: bf16 times are wrong by up to 2 of 1000."""
    return time_proj(timestep.float().flatten()).unflatten(0, timestep.shape).to(dtype)


def _modulated(normed: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Tokens (B, N, D) with one row of modulation per slot (B, F, D), broadcast over the slot's tokens."""
    x = normed.unflatten(1, (shift.shape[1], -1))
    return (x * (1 + scale.unsqueeze(2)) + shift.unsqueeze(2)).flatten(1, 2)


def _gated(x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """The same with a factor per slot."""
    return (x.unflatten(1, (gate.shape[1], -1)) * gate.unsqueeze(2)).flatten(1, 2)


# diffusers' caches (first block, MagCache) know blocks by their class. Not by `register`, which would import every
# transformer that diffusers has.
for _block in (VectorizedHunyuanBlock, VectorizedHunyuanSingleBlock):
    TransformerBlockRegistry._registry[_block] = TransformerBlockMetadata(
        return_hidden_states_index=0, return_encoder_hidden_states_index=1, _cls=_block
    )
