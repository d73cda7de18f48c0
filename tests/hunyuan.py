"""A tiny HunyuanVideo with random weights, in the folder format of its pipeline."""

from __future__ import annotations

import re
from pathlib import Path

CONFIG = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "num_refiner_layers": 1,
    "text_embed_dim": 32,
    "pooled_projection_dim": 24,
    "rope_axes_dim": (4, 6, 6),
}


def tiny_transformer(seed: int = 0, **more):
    import torch
    from diffusers import HunyuanVideoTransformer3DModel

    torch.manual_seed(seed)
    model = HunyuanVideoTransformer3DModel(**{**CONFIG, **more}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.07)
    return model


def tiny_vae():
    import torch
    from diffusers import AutoencoderKLHunyuanVideo

    torch.manual_seed(1)
    return AutoencoderKLHunyuanVideo(
        block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4, scaling_factor=0.5
    ).eval()


def build_tiny_hunyuan(folder: Path, words: tuple[str, ...]) -> None:
    """Save a whole pipeline as diffusers does; `words` are what its tokenizers know beside the template's."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoPipeline
    from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
    from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel

    from tests.wan import tiny_tokenizer

    template = dict.fromkeys(re.findall(r"\w+|[^\w\s]+", DEFAULT_PROMPT_TEMPLATE["template"]))
    tokenizer = tiny_tokenizer((*(word for word in template if word not in words), *words))
    tokenizer_2 = tiny_tokenizer(words)
    torch.manual_seed(0)
    llama = LlamaModel(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            pad_token_id=0,
        )
    )
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer_2),
            hidden_size=24,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            eos_token_id=1,
            bos_token_id=2,
            pad_token_id=0,
        )
    )
    for model in (llama, clip):
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    HunyuanVideoPipeline(
        text_encoder=llama,
        tokenizer=tokenizer,
        transformer=tiny_transformer(),
        vae=tiny_vae(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=clip,
        tokenizer_2=tokenizer_2,
    ).save_pretrained(folder)
