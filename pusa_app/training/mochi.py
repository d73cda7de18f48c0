"""Training of a vectorized Mochi transformer: flow matching with a noise level per slot.

    z_t = (1 - sigma) * z0 + sigma * eps        sigma (B, F) from a Mixture, one value per slot
    v   = transformer(z_t, text, (1 - sigma) * 1000)
    loss = mean over slots with weight of |v - (z0 - eps)|^2      (FVDM eq. 11 in flow-matching form, Mochi's sign)

mini trains all of it from nothing, text encoder included; a fine-tune hands in loaded modules and frozen text.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Callable

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from pusa_app.backbones.mochi import VectorizedMochiTransformer3DModel
from pusa_app.training.clips import ClipSpec
from pusa_app.training.latents import LED_SPANS, LatentSet, led_end
from pusa_app.training.muon import Muon, Optimizers
from pusa_app.training.run import TrainingRun
from pusa_app.training.timesteps import Mixture, NoiseDraw

GATE = 0.2
AREA = 192 * 192  # Mochi's RoPE spreads every frame over this area, so small grids have wide steps


class TextToVelocity(torch.nn.Module):
    """Text encoder and transformer as one module: what is trained together is saved and averaged together."""

    def __init__(self, transformer: VectorizedMochiTransformer3DModel, text_encoder: T5EncoderModel) -> None:
        super().__init__()
        self.transformer = transformer
        self.text_encoder = text_encoder

    def forward(self, z: torch.Tensor, sigma: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """z (B, C, F, h, w), sigma (B, F), tokens and mask (B, L) -> velocity like z."""
        text = self.text_encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
        return self.transformer(z, text, (1 - sigma) * 1000, mask, return_dict=False)[0]


@torch.no_grad()
def init_transformer(transformer: VectorizedMochiTransformer3DModel, grid: tuple[int, int]) -> None:
    """Start for training from nothing: small open gates, zero output, RoPE frequencies for a grid of tokens.

    A fresh diffusers model has pos_frequencies of zero (no positions at all), since it expects to be loaded.
    """
    width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
    for block in transformer.transformer_blocks:
        layers = [(block.norm1.linear, width)]
        if not block.context_pre_only:
            layers.append((block.norm1_context.linear, block.norm1_context.linear.out_features // 4))
        for linear, part in layers:  # rows: scale, gate, scale, gate
            torch.nn.init.normal_(linear.weight, std=0.01)
            torch.nn.init.zeros_(linear.bias)
            linear.bias[part : 2 * part] = GATE
            linear.bias[3 * part :] = GATE
    torch.nn.init.normal_(transformer.norm_out.linear.weight, std=0.01)
    torch.nn.init.zeros_(transformer.norm_out.linear.bias)
    torch.nn.init.zeros_(transformer.proj_out.weight)
    torch.nn.init.zeros_(transformer.proj_out.bias)

    frequencies = transformer.pos_frequencies  # (3, heads, head dim / 2): time, rows, columns
    step = math.sqrt(AREA / (grid[0] * grid[1]))
    pairs = frequencies.shape[2]
    in_space = pairs // 3
    in_time = pairs - 2 * in_space
    frequencies.normal_(0, 0.02)
    frequencies[1:] /= step
    frequencies[0, :, :in_time] += torch.logspace(math.log10(1.6), math.log10(0.12), in_time)
    waves = torch.logspace(math.log10(2.0), math.log10(0.25), in_space) / step
    frequencies[1, :, in_time : in_time + in_space] += waves
    frequencies[2, :, in_time + in_space :] += waves


def make_optimizer(model: TextToVelocity) -> torch.optim.Optimizer:
    """AdamW; RoPE frequencies learn fifty times slower and without decay: small changes move everything."""
    slow = [model.transformer.pos_frequencies]
    rest = [p for p in model.parameters() if p is not slow[0]]
    return _adamw(rest, slow)


def make_muon(model: TextToVelocity) -> torch.optim.Optimizer:
    """Muon for the matrices of the blocks, AdamW for the rest."""
    slow = [model.transformer.pos_frequencies]
    matrices, rest = [], []
    for name, p in model.named_parameters():
        if p is not slow[0]:
            (matrices if _in_block(name) and p.ndim == 2 else rest).append(p)
    return Optimizers(Muon(matrices, lr=1.0), _adamw(rest, slow))


def _in_block(name: str) -> bool:
    """Whether a parameter is a block's; T5's table of relative positions lies there too, and is no map of features."""
    return ("transformer_blocks." in name or "encoder.block." in name) and "relative_attention_bias" not in name


def _adamw(parameters: list[torch.nn.Parameter], slow: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    groups = [{"params": parameters, "lr": 1.0}, {"params": slow, "lr": 0.02, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01, fused=True)


def flow_loss(
    model: Callable[..., torch.Tensor],
    latents: torch.Tensor,
    stills: torch.Tensor,
    led: torch.Tensor | None,
    noise: NoiseDraw,
    tokens: torch.Tensor,
    mask: torch.Tensor,
    eps: torch.Tensor,
    channels: torch.Tensor | None = None,
) -> torch.Tensor:
    """The loss of the module's head for a batch of normalized latents (B, C, F, h, w), see `LatentSet`.

    channels: weights (C,) of the channels, None for all alike. What is best for each channel by itself stays best.
    """
    sigma = noise.sigma[:, None, :, None, None]
    source = torch.where(noise.still[:, None, :, None, None], stills, latents)
    for b, span in enumerate(noise.led.tolist()):
        if led is not None and span in LED_SPANS:
            source[b, :, -span:] = led_end(led[b], span)
    z = (1 - sigma) * source + sigma * eps
    tokens = tokens * ~noise.drop_text[:, None]  # no text: zero tokens and a mask that is False throughout
    mask = mask & ~noise.drop_text[:, None]
    with torch.autocast("cpu", torch.bfloat16):
        velocity = model(z, noise.sigma, tokens, mask)
    error = (velocity.float() - (latents - eps)).pow(2)
    if channels is not None:
        error = error * channels.view(-1, 1, 1, 1)
    error = error.mean((1, 3, 4))  # (B, F)
    return (error * noise.weight).sum() / noise.weight.sum()


def train_transformer(
    run: TrainingRun,
    model: TextToVelocity,
    tokenizer: PreTrainedTokenizerBase,
    data: LatentSet,
    mixture: Mixture,
    *,
    batch: int,
    max_tokens: int,
    seed: int,
    held_out: int = 64,
    shorter: tuple[float, ...] = (),
    emphasis: Callable[[ClipSpec], float] | None = None,
    channels: torch.Tensor | None = None,
    compiled: bool = True,
    stop_after: float | None = None,
) -> bool:
    """Train until the run's budget is used; False when `stop_after` seconds ended it before.

    The last `held_out` clips are kept for the validation loss. shorter: how often to train on the first F-1, F-2, ...
    slots only, so that shorter clips are known too (a causal VAE's first slots are those of the shorter clip).
    emphasis: how often a clip is drawn, relative to others. channels: see `flow_loss`.
    """
    slots = data.latents.shape[2]
    count = len(data) - held_out
    rng = np.random.default_rng([seed, 2, run.seen])
    shares = np.array([emphasis(spec) if emphasis else 1.0 for spec in data.truth[:count]])
    shares /= shares.sum()
    # On the CPU the backward pass of the fused attention in bf16 is several times slower than plain matrix products.
    model.transformer.set_attention_backend("_native_math")
    fast = torch.compile(model, dynamic=False) if compiled and _has_compiler() else model

    def tokenize(captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        out = tokenizer(captions, padding="max_length", max_length=max_tokens, truncation=True, return_tensors="pt")
        return out.input_ids, out.attention_mask.bool()

    def loss_of(_step: int) -> tuple[torch.Tensor, int]:
        indices = rng.choice(count, batch, p=shares)
        length = _length(rng, slots, shorter)
        tokens, mask = tokenize(data.captions(indices, rng))
        latents = data.latents[indices, :, :length].float()
        stills = data.stills[indices, :, :length].float()
        led = data.led[indices].float() if length == slots else None
        network = fast if length == slots else model
        noise = mixture.draw(batch, length)
        return flow_loss(network, latents, stills, led, noise, tokens, mask, torch.randn_like(latents), channels), batch

    validation = range(count, len(data))
    words = tokenize(data.captions(validation, np.random.default_rng(0)))

    @torch.inference_mode()
    def validate() -> dict[str, float]:
        kept = torch.get_rng_state()
        torch.manual_seed(0)
        latents, stills, led = (part[count:].float() for part in (data.latents, data.stills, data.led))
        eps = torch.randn_like(latents)
        losses = {}
        for name, part in (("text", Mixture(mixture.draw_sigma, 0, 0)), ("tasks", Mixture(mixture.draw_sigma, 0, 1))):
            noise = part.draw(len(latents), slots)
            losses[name] = float(flow_loss(model, latents, stills, led, noise, *words, eps, channels))
        torch.set_rng_state(kept)
        return losses

    return run.train(loss_of, validate, stop_after)


def _has_compiler() -> bool:
    """torch.compile needs a C++ compiler on the CPU; without one training is slower and works all the same."""
    names = (os.environ.get("CXX"), "g++", "clang++")
    found = any(name and shutil.which(name) for name in names)
    if not found:
        print("No C++ compiler was found, so training runs uncompiled, at about half the speed.", file=sys.stderr)
    return found


def _length(rng: np.random.Generator, slots: int, shorter: tuple[float, ...]) -> int:
    """`slots`, or with probability shorter[k - 1] k slots less."""
    u = rng.random()
    for less, share in enumerate(shorter, 1):
        if u < share:
            return slots - less
        u -= share
    return slots
