"""The video autoencoder: a start that already works, and its training on procedural clips.

Diffusers' `AutoencoderKLMochi` from its default initialisation learns far too slowly for a small budget. So it starts
as a block-average autoencoder: the mean colour of each 8x8x6 block goes through the strided convolutions into three
latent channels and comes back by nearest-neighbour upsampling; training adds the rest. The decoder then goes on alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLMochi
from diffusers.models.autoencoders.autoencoder_kl_mochi import MochiChunkedGroupNorm3D, MochiResnetBlock3D

from pusa_app.training.clips import NUM_FRAMES, draw, sample_spec
from pusa_app.training.run import TrainingRun

CHANNELS = (16, 32, 64, 128)
LAYERS = (0, 1, 1, 1, 1)
LATENT_CHANNELS = 12
LATENT_NOISE = 0.15  # of the latents' own deviation: the transformer's latents are never exact
START_LOG_VARIANCE = -6.0


def make_vae() -> AutoencoderKLMochi:
    """A small Mochi VAE, 8x8 in space and 6 in time, started as a block-average autoencoder."""
    vae = AutoencoderKLMochi(
        encoder_block_out_channels=CHANNELS,
        decoder_block_out_channels=CHANNELS,
        layers_per_block=LAYERS,
        add_attention_block=(False,) * 5,
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
    )
    for module in vae.modules():
        if isinstance(module, MochiChunkedGroupNorm3D):
            module.chunk_size = 1 << 20  # one call instead of one per eight frames; the result is the same
    _start_as_block_average(vae)
    return vae


@torch.no_grad()
def _start_as_block_average(vae: AutoencoderKLMochi) -> None:
    encoder, decoder = vae.encoder, vae.decoder
    for module in vae.modules():
        if isinstance(module, MochiResnetBlock3D):  # residual branches begin small
            module.conv2.conv.weight.mul_(0.1)
            module.conv2.conv.bias.zero_()

    # RGB passes in channels 0..2; the Fourier features of the input (columns 3 on) begin unused.
    encoder.proj_in.weight[:, 3:] = 0
    encoder.proj_in.weight[:, :3] *= 2
    encoder.proj_in.weight[:3] = 0
    encoder.proj_in.bias[:3] = 0
    for c in range(3):
        encoder.proj_in.weight[c, c] = 1

    # Strided convolutions average their window. The last one lays +RGB, -RGB and two constants into one GroupNorm
    # group each, so that the norm before the output keeps the amplitude.
    group = CHANNELS[-1] // 32
    for number, block in enumerate(encoder.down_blocks):
        weight, bias = block.conv_in.conv.weight, block.conv_in.conv.bias
        window = weight[0, 0].numel()
        weight.mul_(1.5)
        for c in range(3):
            if number < len(encoder.down_blocks) - 1:
                weight[c], bias[c] = 0, 0
                weight[c, c] = 1 / window
            else:
                o = c * group
                weight[o : o + 4], bias[o : o + 4] = 0, 0
                weight[o, c], weight[o + 1, c] = 1 / window, -1 / window
                bias[o + 2], bias[o + 3] = 0.7, -0.7
    out = encoder.proj_out.weight
    latents = out.shape[0] // 2
    out[:3] = 0
    out[latents:] *= 0.1
    for c in range(3):
        out[c, c * group], out[c, c * group + 1] = 1, -1  # silu(x) - silu(-x) = x
        out[latents:, c * group + 2] = START_LOG_VARIANCE / 2.4  # three constant channels of about 0.8 after the norm

    decoder.conv_in.weight[:3] = 0
    decoder.conv_in.bias[:3] = 0
    for c in range(3):
        decoder.conv_in.weight[c, c] = 0.8
    for number, block in enumerate(decoder.up_blocks):
        cells = block.temporal_expansion * block.spatial_expansion**2
        carried = 6 if number == len(decoder.up_blocks) - 1 else 3  # the last one carries +RGB and -RGB to the output
        block.proj.weight[: carried * cells] = 0
        block.proj.bias[: carried * cells] = 0
        for c in range(carried):
            block.proj.weight[c * cells : (c + 1) * cells, c % 3] = 1.0 if c < 3 else -1.0
    decoder.proj_out.weight.mul_(0.3)
    decoder.proj_out.weight[:, :6] = 0
    decoder.proj_out.bias.zero_()
    for c in range(3):
        decoder.proj_out.weight[c, c], decoder.proj_out.weight[c, c + 3] = 1, -1


def to_tensor(frames: np.ndarray) -> torch.Tensor:
    """uint8 (B, n, H, W, 3) -> float (B, 3, n, H, W) in [-1, 1], channels last in memory."""
    x = torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    return x.contiguous(memory_format=torch.channels_last_3d)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of videos in [-1, 1], the mean over the batch."""
    error = ((a - b) / 2).pow(2).flatten(1).mean(1)
    return float((-10 * torch.log10(error.clamp(min=1e-9))).mean())


def train_vae(run: TrainingRun, vae: AutoencoderKLMochi, batch: int, seed: int, stop_after: float | None) -> bool:
    """Train until the run's budget is used; False when `stop_after` seconds ended it before."""
    rng = np.random.default_rng([seed, run.seen])

    def loss_of(_step: int) -> tuple[torch.Tensor, int]:
        x = to_tensor(_crops(rng, batch))
        with torch.autocast("cpu", torch.bfloat16):
            mean, log_variance = _encode(vae, x)
            y = _decode(vae, mean, log_variance)
        kl = 0.5 * (mean.pow(2) + log_variance.exp() - 1 - log_variance).mean()
        return _error(x, y) + 1e-4 * kl, batch

    return run.train(loss_of, _validation(vae, seed), stop_after)


def train_decoder(run: TrainingRun, vae: AutoencoderKLMochi, batch: int, seed: int, stop_after: float | None) -> bool:
    """Go on with the decoder alone: the latents stay those that the transformer knows. `run` is one of `vae.decoder`.

    Returns False when `stop_after` seconds ended it before the run's budget was used.
    """
    rng = np.random.default_rng([seed, 1, run.seen])

    def loss_of(_step: int) -> tuple[torch.Tensor, int]:
        x = to_tensor(_crops(rng, batch))
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                mean, log_variance = _encode(vae, x)
            y = _decode(vae, mean, log_variance)
        return _error(x, y, trembling=1.0), batch

    return run.train(loss_of, _validation(vae, seed), stop_after)


def _encode(vae: AutoencoderKLMochi, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Means and log variances of the latents of videos in [-1, 1]."""
    mean, log_variance = vae.encoder(x)[0].float().chunk(2, dim=1)
    return mean, log_variance.clamp(-30, 20)


def _decode(vae: AutoencoderKLMochi, mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Videos of latents drawn around `mean`, with some more noise, of another strength for each video."""
    strength = LATENT_NOISE * torch.rand(len(mean), 1, 1, 1, 1)
    spread = mean.detach().std((0, 2, 3, 4), keepdim=True)
    z = mean + torch.randn_like(mean) * ((0.5 * log_variance).exp() + strength * spread)
    return vae.decoder(z)[0][:, :, 5:].float()


def _error(x: torch.Tensor, y: torch.Tensor, trembling: float = 0.5) -> torch.Tensor:
    """How far videos y are from x: in each frame and, with this weight, from frame to frame, where it trembles."""
    weight, error = _edge_weight(x), y - x
    loss = (weight * error.abs()).mean() + 2 * (weight * error.pow(2)).mean()
    if x.shape[2] > 1:
        loss = loss + trembling * (weight[:, :, 1:] * (error[:, :, 1:] - error[:, :, :-1]).abs()).mean()
    return loss


def _validation(vae: AutoencoderKLMochi, seed: int) -> Callable[[], dict[str, float]]:
    held_out = np.random.default_rng([seed, 10**9])
    clips = to_tensor(np.stack([draw(sample_spec(held_out)) for _ in range(8)]))

    @torch.inference_mode()
    def validate() -> dict[str, float]:
        z = vae.encode(clips).latent_dist.mode()
        return {"psnr": psnr(vae.decode(z).sample.clamp(-1, 1), clips), "z_std": float(z.std())}

    return validate


def _crops(rng: np.random.Generator, batch: int) -> np.ndarray:
    """A batch of clips, mostly 13 frames, sometimes 25 or stills; the number of pixels stays about the same."""
    draw_of_length = rng.random()
    frames, count = (
        (13, batch) if draw_of_length < 0.7 else (25, batch // 2) if draw_of_length < 0.87 else (1, 4 * batch)
    )
    clips = []
    for _ in range(max(1, count)):
        start = int(rng.integers(0, NUM_FRAMES - frames + 1))
        clips.append(draw(sample_spec(rng).cut(start, start + frames)))
    return np.stack(clips)


@torch.no_grad()
def _edge_weight(x: torch.Tensor) -> torch.Tensor:
    """1 on flat ground, 4 near the outline of the shape: (B, 1, n, H, W). What a shape is shows at its edge."""
    y = x.transpose(1, 2).flatten(0, 1)
    contrast = (F.max_pool2d(y, 3, 1, 1) + F.max_pool2d(-y, 3, 1, 1)).amax(1, keepdim=True)
    edge = F.max_pool2d((contrast > 0.2).float(), 3, 1, 1)
    return (1 + 3 * edge).unflatten(0, (x.shape[0], -1)).transpose(1, 2)
