"""The Mochi transformer with one time per latent frame (slot).

Vectorized timesteps: FVDM (arXiv 2410.03160), Pusa V0.5. Same parameters as diffusers' MochiTransformer3DModel, and the
same output when all slots have the same time, so weights go either way.

    temb[b, f] = time_mlp(t[b, f]) + pooled_caption[b]
    visual stream    modulated by temb[b, f], broadcast over the tokens of slot f
    text stream      modulated by the mean of temb over the slots (before SiLU)
    output norm      modulated by temb[b, f]

In shapes: B batch, F slots, S visual tokens per slot, L text tokens, D width, H heads.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from diffusers import MochiTransformer3DModel
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.attention_processor import MochiAttention
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.transformers.transformer_mochi import MochiTransformerBlock
from diffusers.utils import apply_lora_scale

VISUAL_NORM_EPS = 1e-6


class VectorizedMochiTransformer3DModel(MochiTransformer3DModel):
    """A MochiTransformer3DModel that takes a time per slot; constructor, config and state dict are the stock ones."""

    _repeated_blocks: ClassVar = ["VectorizedMochiBlock"]
    _no_split_modules: ClassVar = ["VectorizedMochiBlock"]

    # The wrapped signature is the stock one: diffusers reads it to know which config entries to pass.
    @functools.wraps(MochiTransformer3DModel.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for block in self.transformer_blocks:
            # Only the forward differs; building the blocks a second time would double the start of a 10 B model.
            block.__class__ = VectorizedMochiBlock
            block.attn1.processor = JointAttentionProcessor()

    @apply_lora_scale("attention_kwargs")
    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        encoder_attention_mask: torch.Tensor | None = None,
        attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[torch.Tensor]:
        """Predict the velocity z0 - eps.

        hidden_states (B, C, F, h, w); encoder_hidden_states (B, L, text dim), L may be 0; timestep (B,) or (B, F),
        model time (1 - sigma) * 1000, keep it in fp32; encoder_attention_mask (B, L), True where a token is valid, or
        None when all are. attention_kwargs["scale"] scales LoRA layers. Output like hidden_states. Raises ValueError
        for times that fit no slots.
        """
        batch, _, slots, height, width = hidden_states.shape
        p = self.config.patch_size
        rows, columns = height // p, width // p
        if timestep.ndim > 1 and timestep.shape[1] not in (1, slots):
            raise ValueError(f"timestep must hold one time or {slots}, one per slot, not {timestep.shape[1]}")

        mask, dtype = encoder_attention_mask, hidden_states.dtype
        temb, text = self._embed_conditions(timestep, encoder_hidden_states, mask, dtype)
        x = self.patch_embed(hidden_states.transpose(1, 2).flatten(0, 1)).unflatten(0, (batch, slots))  # (B, F, S, D)
        # Under autocast the projections return half precision; the residual streams keep the caller's.
        x, text = x.to(dtype), text.to(encoder_hidden_states.dtype)
        rope = self._rotations(slots, rows, columns)
        if mask is not None:
            mask = F.pad(mask.bool(), (slots * rows * columns, 0), value=True)  # joint sequence: visual, then text

        for block in self.transformer_blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                x, text = self._gradient_checkpointing_func(block, x, text, temb, mask, rope)
            else:
                x, text = block(x, text, temb, mask, rope)

        scale, shift = self.norm_out.linear(F.silu(temb).to(x.dtype)).unsqueeze(2).chunk(2, dim=-1)
        x = self.proj_out(self.norm_out.norm(x) * (1 + scale) + shift)  # (B, F, S, p*p*C)
        x = x.reshape(batch, slots, rows, columns, p, p, -1).permute(0, 6, 1, 2, 4, 3, 5)
        output = x.reshape(batch, -1, slots, height, width)
        return Transformer2DModelOutput(sample=output) if return_dict else (output,)

    def _embed_conditions(
        self, timestep: torch.Tensor, text: torch.Tensor, mask: torch.Tensor | None, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """temb (B, F, D), with F = 1 for a time per sample, and the projected text (B, L, text width)."""
        if timestep.ndim == 1:
            timestep = timestep[:, None]
        embed = self.time_embed
        # bf16 times are wrong by up to 1.9 of 1000, so the sinusoids come from fp32.
        waves = embed.time_proj(timestep.float().flatten()).unflatten(0, timestep.shape)
        pool_mask = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device) if mask is None else mask
        caption = embed.pooler(text, pool_mask)
        return embed.timestep_embedder(waves.to(dtype)) + caption[:, None], embed.caption_proj(text)

    def _rotations(self, slots: int, rows: int, columns: int) -> torch.Tensor:
        """RoPE as (cos, sin) pairs in fp32: (F*S, H, head dim / 2, 2).

        Learned frequencies times positions, linear in (slot, row, column); rows and columns are centred on 0 and
        scaled so that every frame covers the same area (genmo mochi, `create_position_matrix`).
        """
        frequencies = self.pos_frequencies.float()  # (3, H, head dim / 2)
        scale = (self.rope.target_area / (rows * columns)) ** 0.5

        def axis(count: int, start: float, step: float) -> torch.Tensor:
            index = torch.arange(count, device=frequencies.device, dtype=torch.float32)
            return ((index + start) * step)[:, None, None]

        t = axis(slots, 0, 1) * frequencies[0]
        y = axis(rows, 0.5 - rows / 2, scale) * frequencies[1]
        x = axis(columns, 0.5 - columns / 2, scale) * frequencies[2]
        angles = (t[:, None, None] + y[:, None] + x).flatten(0, 2)
        return torch.stack((angles.cos(), angles.sin()), dim=-1)


class VectorizedMochiBlock(MochiTransformerBlock):
    """A MochiTransformerBlock whose visual stream is modulated per slot."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        temb: torch.Tensor,
        encoder_attention_mask: torch.Tensor | None = None,
        image_rotary_emb: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """hidden_states (B, F, S, D), encoder_hidden_states (B, L, text width), temb (B, F or 1, D), mask (B, F*S + L).

        image_rotary_emb: (cos, sin) pairs (F*S, H, head dim / 2, 2). Returns both streams.
        """
        x, text = hidden_states, encoder_hidden_states
        # One row of modulation per slot: unsqueeze(2) lets it broadcast over the slot's S tokens.
        scale1, gate1, scale2, gate2 = self.norm1.linear(F.silu(temb)).unsqueeze(2).chunk(4, dim=-1)
        condition = F.silu(temb.mean(dim=1, keepdim=True))  # (B, 1, D)
        if self.context_pre_only:
            text_scale1 = self.norm1_context.linear_1(condition)
        else:
            text_scale1, text_gate1, text_scale2, text_gate2 = self.norm1_context.linear(condition).chunk(4, dim=-1)

        attended, text_attended = self.attn1(
            _norm(x, 1 + scale1.float()).flatten(1, 2),
            encoder_hidden_states=_norm(text, 1 + text_scale1.float()),
            attention_mask=encoder_attention_mask,
            image_rotary_emb=image_rotary_emb,
        )
        x = x + _norm(attended.unflatten(1, x.shape[1:3]), torch.tanh(gate1))
        x = x + _norm(self.ff(_norm(x, 1 + scale2.float())), torch.tanh(gate2))
        if not self.context_pre_only:
            text = text + _norm(text_attended, torch.tanh(text_gate1))
            text = text + _norm(self.ff_context(_norm(text, 1 + text_scale2.float())), torch.tanh(text_gate2))
        return x, text


class JointAttentionProcessor:
    """Self-attention over visual and text tokens together, through diffusers' attention backends."""

    _attention_backend = None
    _parallel_config = None

    def __call__(
        self,
        attn: MochiAttention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """hidden_states (B, F*S, D), encoder_hidden_states (B, L, text width), attention_mask (B, F*S + L) or None.

        Visual tokens are always valid, so no softmax row is ever empty: a fully masked text gives no NaN.
        """
        tokens = hidden_states.shape[1]

        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(2, (attn.heads, -1))

        query = _rotate(attn.norm_q(heads(attn.to_q(hidden_states))), image_rotary_emb)
        key = _rotate(attn.norm_k(heads(attn.to_k(hidden_states))), image_rotary_emb)
        value = heads(attn.to_v(hidden_states))
        text_key = attn.norm_added_k(heads(attn.add_k_proj(encoder_hidden_states)))
        text_value = heads(attn.add_v_proj(encoder_hidden_states))
        # The last block throws its text away, so there text is only looked at.
        if not attn.context_pre_only:
            text_query = attn.norm_added_q(heads(attn.add_q_proj(encoder_hidden_states)))
            query = torch.cat((query, text_query), dim=1)

        output = dispatch_attention_fn(
            query,
            torch.cat((key, text_key), dim=1),
            torch.cat((value, text_value), dim=1),
            attn_mask=None if attention_mask is None else attention_mask[:, None, None, :],
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )
        output = output.flatten(2, 3).to(hidden_states.dtype)
        visual = attn.to_out[1](attn.to_out[0](output[:, :tokens]))
        text = None if attn.context_pre_only else attn.to_add_out(output[:, tokens:])
        return visual, text


def _norm(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """RMS norm over the last dimension in fp32, times a scale that broadcasts."""
    return (F.rms_norm(x.float(), x.shape[-1:], eps=VISUAL_NORM_EPS) * scale).to(x.dtype)


def _rotate(x: torch.Tensor, rope: torch.Tensor | None) -> torch.Tensor:
    """Rotate neighbouring pairs of x (B, N, H, head dim) by rope (N, H, head dim / 2, 2), in fp32."""
    if rope is None:
        return x
    pairs = x.float().unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():  # inductor fuses real arithmetic but not complex
        (even, odd), (cos, sin) = pairs.unbind(-1), rope.unbind(-1)
        rotated = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    else:  # one complex product: 9 times faster than the above on the CPU
        rotated = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(rope))
    return rotated.flatten(-2).to(x.dtype)
