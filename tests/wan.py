"""Tiny models of the Wan family with random weights, in the folder format of each one's pipeline."""

from __future__ import annotations

from pathlib import Path

KINDS = ("wan2.1", "wan2.2", "ti2v-5b", "skyreels")
CONFIG = {
    "num_attention_heads": 2,
    "attention_head_dim": 24,
    "text_dim": 32,
    "freq_dim": 64,
    "ffn_dim": 64,
    "num_layers": 2,
}


def tiny_vae(kind: str = "wan2.1"):
    import torch
    from diffusers import AutoencoderKLWan

    torch.manual_seed(1)
    common = {"base_dim": 4, "num_res_blocks": 1, "dim_mult": [1, 1, 1, 1]}
    if kind == "ti2v-5b":
        return AutoencoderKLWan(
            **common,
            decoder_base_dim=4,
            z_dim=48,
            is_residual=True,
            in_channels=12,
            out_channels=12,
            patch_size=2,
            scale_factor_spatial=16,
            latents_mean=[0.1] * 48,
            latents_std=[0.5] * 48,
        )
    return AutoencoderKLWan(**common)


def tiny_transformer(kind: str = "wan2.1", seed: int = 0):
    import torch
    from diffusers import SkyReelsV2Transformer3DModel, WanTransformer3DModel

    torch.manual_seed(seed)
    if kind == "skyreels":
        model = SkyReelsV2Transformer3DModel(**CONFIG, inject_sample_info=True)
    else:
        channels = 48 if kind == "ti2v-5b" else 16
        model = WanTransformer3DModel(**CONFIG, in_channels=channels, out_channels=channels)
    with torch.no_grad():
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def build_tiny_wan(folder: Path, kind: str, words: tuple[str, ...]) -> None:
    """Save a whole pipeline of this kind as diffusers does; `words` are what its tokenizer knows."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, SkyReelsV2DiffusionForcingPipeline, WanPipeline
    from transformers import UMT5Config, UMT5EncoderModel

    tokenizer = tiny_tokenizer(words)
    torch.manual_seed(0)
    size = len(tokenizer)
    encoder = UMT5EncoderModel(
        UMT5Config(vocab_size=size, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, num_decoder_layers=1)
    )
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    parts = {
        "tokenizer": tokenizer,
        "text_encoder": encoder,
        "vae": tiny_vae(kind),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=5.0),
        "transformer": tiny_transformer(kind),
    }
    if kind == "skyreels":
        pipeline = SkyReelsV2DiffusionForcingPipeline(**parts)
    elif kind == "wan2.2":
        pipeline = WanPipeline(**parts, transformer_2=tiny_transformer(kind, seed=7), boundary_ratio=0.875)
    else:
        pipeline = WanPipeline(**parts, expand_timesteps=kind == "ti2v-5b")
    pipeline.save_pretrained(folder)


def tiny_tokenizer(words: tuple[str, ...]):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(("<pad>", "</s>", "<unk>", *words))}
    made = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = Whitespace()
    made.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )
