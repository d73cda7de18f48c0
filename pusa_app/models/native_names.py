"""What the layers of HunyuanVideo and LTX-Video are called in their authors' files, as most LoRAs call them too.

The same kind of table as convert.py has for Mochi and convert_wan.py for Wan; whole native checkpoints of these two are
not converted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pusa_app.models.native import Cut, linear


def hunyuan_mapping(config: dict[str, Any]) -> dict[str, Cut]:
    """diffusers name -> where it is in a native HunyuanVideo file (tencent/HunyuanVideo)."""
    cuts = dict(linear("x_embedder.proj", "img_in.proj"))
    for ours, theirs in (("timestep_embedder", "time_in"), ("guidance_embedder", "guidance_in")):
        for number in (0, 2):
            cuts.update(linear(f"time_text_embed.{ours}.linear_{number // 2 + 1}", f"{theirs}.mlp.{number}"))
    cuts.update(linear("time_text_embed.text_embedder.linear_1", "vector_in.in_layer"))
    cuts.update(linear("time_text_embed.text_embedder.linear_2", "vector_in.out_layer"))
    cuts.update(_refiner(config["num_refiner_layers"]))
    for i in range(config["num_layers"]):
        block, native = f"transformer_blocks.{i}", f"double_blocks.{i}"
        cuts.update(_stream(block, f"{native}.img", "to_{}", "to_out.0", "norm1.linear", "ff"))
        cuts.update(_stream(block, f"{native}.txt", "add_{}_proj", "to_add_out", "norm1_context.linear", "ff_context"))
    mlp = int(config["mlp_ratio"])
    for i in range(config["num_single_layers"]):
        cuts.update(_single(f"single_transformer_blocks.{i}", f"single_blocks.{i}", mlp))
    cuts.update(linear("proj_out", "final_layer.linear"))
    cuts.update(linear("norm_out.linear", "final_layer.adaLN_modulation.1", swapped=True))
    return cuts


def _refiner(layers: int) -> Iterator[tuple[str, Cut]]:
    embed = "context_embedder.time_text_embed"
    yield from linear("context_embedder.proj_in", "txt_in.input_embedder")
    for number in (1, 2):
        yield from linear(f"{embed}.timestep_embedder.linear_{number}", f"txt_in.t_embedder.mlp.{2 * number - 2}")
        yield from linear(f"{embed}.text_embedder.linear_{number}", f"txt_in.c_embedder.linear_{number}")
    for i in range(layers):
        block = f"context_embedder.token_refiner.refiner_blocks.{i}"
        native = f"txt_in.individual_token_refiner.blocks.{i}"
        for part, letter in enumerate("qkv"):
            yield from linear(f"{block}.attn.to_{letter}", f"{native}.self_attn_qkv", part=part, parts=3)
        yield from linear(f"{block}.attn.to_out.0", f"{native}.self_attn_proj")
        yield from linear(f"{block}.norm_out.linear", f"{native}.adaLN_modulation.1")
        yield from linear(f"{block}.ff.net.0.proj", f"{native}.mlp.fc1")
        yield from linear(f"{block}.ff.net.2", f"{native}.mlp.fc2")


def _stream(block: str, native: str, qkv: str, out: str, norm: str, ff: str) -> Iterator[tuple[str, Cut]]:
    """One of the two streams of a block."""
    for part, letter in enumerate("qkv"):
        yield from linear(f"{block}.attn.{qkv.format(letter)}", f"{native}_attn_qkv", part=part, parts=3)
    yield from linear(f"{block}.attn.{out}", f"{native}_attn_proj")
    yield from linear(f"{block}.{norm}", f"{native}_mod.linear")
    yield from linear(f"{block}.{ff}.net.0.proj", f"{native}_mlp.fc1")
    yield from linear(f"{block}.{ff}.net.2", f"{native}_mlp.fc2")


def _single(block: str, native: str, mlp: int) -> Iterator[tuple[str, Cut]]:
    """A block of one stream, whose first layer is attention's three and the feed-forward's one, `mlp` times as wide."""
    for part, letter in enumerate("qkv"):
        yield from linear(f"{block}.attn.to_{letter}", f"{native}.linear1", part=part, parts=3 + mlp)
    yield from linear(f"{block}.proj_mlp", f"{native}.linear1", part=3, parts=3 + mlp, span=mlp)
    yield from linear(f"{block}.proj_out", f"{native}.linear2")
    yield from linear(f"{block}.norm.linear", f"{native}.modulation.linear")


def ltx_mapping(config: dict[str, Any]) -> dict[str, Cut]:
    """diffusers name -> where it is in a native LTX-Video file (Lightricks/LTX-Video). Its blocks have the same names
    in both but for two norms, which LoRAs leave alone."""
    cuts = dict(linear("proj_in", "patchify_proj"))
    cuts.update(linear("time_embed.linear", "adaln_single.linear"))
    for number in (1, 2):
        name = f"emb.timestep_embedder.linear_{number}"
        cuts.update(linear(f"time_embed.{name}", f"adaln_single.{name}"))
    return cuts
