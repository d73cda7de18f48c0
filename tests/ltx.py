"""A tiny LTX-Video with random weights, in the folder format of its pipelines: 0.9.0 and what came with 0.9.5."""

from __future__ import annotations

from pathlib import Path

CONFIG = {
    "in_channels": 16,
    "out_channels": 16,
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "cross_attention_dim": 24,
    "num_layers": 2,
    "caption_channels": 32,
}
# The widths are small, the shapes those of the published configs.
VAES = {
    "0.9.0": {
        "block_out_channels": (8, 8, 8, 8),
        "decoder_block_out_channels": (8, 8, 8, 8),
        "layers_per_block": (1, 1, 1, 1, 1),
        "decoder_layers_per_block": (1, 1, 1, 1, 1),
    },
    "0.9.1": {
        "block_out_channels": (8, 8, 8, 8),
        "decoder_block_out_channels": (8, 16, 32),
        "layers_per_block": (1, 1, 1, 1, 1),
        "decoder_layers_per_block": (1, 1, 1, 1),
        "decoder_spatio_temporal_scaling": (True, True, True),
        "decoder_inject_noise": (True, True, True, False),
        "upsample_residual": (True, True, True),
        "upsample_factor": (2, 2, 2),
        "timestep_conditioning": True,
    },
    "0.9.5": {
        "block_out_channels": (8, 8, 8, 16, 16),
        "down_block_types": ("LTXVideo095DownBlock3D",) * 4,
        "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
        "decoder_block_out_channels": (8, 16, 32),
        "layers_per_block": (1, 1, 1, 1, 1),
        "decoder_layers_per_block": (1, 1, 1, 1),
        "spatio_temporal_scaling": (True, True, True, True),
        "decoder_spatio_temporal_scaling": (True, True, True),
        "decoder_inject_noise": (False, False, False, False),
        "upsample_residual": (True, True, True),
        "upsample_factor": (2, 2, 2),
        "timestep_conditioning": True,
        "spatial_compression_ratio": 32,
        "temporal_compression_ratio": 8,
    },
}


def tiny_transformer(seed: int = 0):
    import torch
    from diffusers import LTXVideoTransformer3DModel

    torch.manual_seed(seed)
    model = LTXVideoTransformer3DModel(**CONFIG).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def tiny_vae(version: str = "0.9.5"):
    import torch
    from diffusers import AutoencoderKLLTXVideo

    torch.manual_seed(1)
    vae = AutoencoderKLLTXVideo(latent_channels=16, **VAES[version]).eval()
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            if "per_channel_scale" in name:
                torch.nn.init.constant_(parameter, 0.1)
    vae.latents_mean += 0.1
    vae.latents_std *= 0.5
    return vae


def build_tiny_ltx(folder: Path, words: tuple[str, ...], version: str = "0.9.5", shift: float = 1.0) -> None:
    """Save a whole pipeline as diffusers does; `words` are what its tokenizer knows."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, LTXConditionPipeline, LTXPipeline
    from transformers import T5Config, T5EncoderModel

    from tests.wan import tiny_tokenizer

    tokenizer = tiny_tokenizer(words)
    torch.manual_seed(0)
    encoder = T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    )
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    pipeline = LTXConditionPipeline if version == "0.9.5" else LTXPipeline
    pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        vae=tiny_vae(version),
        text_encoder=encoder,
        tokenizer=tokenizer,
        transformer=tiny_transformer(),
    ).save_pretrained(folder)
