"""Native Wan transformers (Wan 2.1 and 2.2, text to video and TI2V, and what is made of them)."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

from pusa_app.errors import ModelError
from pusa_app.models.native import Cut, Family, Shapes, layers_of, linear

HEAD_DIM = 128  # of every published Wan
ROPE_LENGTH = 1024


def infer_config(shapes: Shapes, hints: dict[str, Any], name: str) -> dict[str, Any]:
    """The diffusers config that fits these tensor shapes; ModelError when key tensors are missing or odd.

    No tensor tells the number of heads: it comes from `hints` (num_heads or num_attention_heads), else from heads as
    wide as those of the published models; what is narrower than two of these is taken to have two.
    """
    try:
        width, in_channels, *patch = shapes["patch_embedding.weight"]
        ffn_dim, _ = shapes["blocks.0.ffn.0.weight"]
        _, text_dim = shapes["text_embedding.0.weight"]
        _, freq_dim = shapes["time_embedding.0.weight"]
        out_features, _ = shapes["head.head.weight"]
        layers = layers_of(shapes)
        heads = _heads(hints) or max(2, width // HEAD_DIM)
        out_channels = out_features // prod(patch)
        if len(patch) != 3 or width % heads:
            raise ValueError
    except (KeyError, ValueError, ZeroDivisionError) as error:
        what = f"{error.args[0]} is missing" if isinstance(error, KeyError) else "its tensors have other shapes"
        raise ModelError(f"{name} is not a Wan transformer in its native format: {what}.") from None
    return {
        "patch_size": list(patch),
        "num_attention_heads": heads,
        "attention_head_dim": width // heads,
        "in_channels": in_channels,
        "out_channels": out_channels,
        "text_dim": text_dim,
        "freq_dim": freq_dim,
        "ffn_dim": ffn_dim,
        "num_layers": layers,
        "cross_attn_norm": "blocks.0.norm3.weight" in shapes,
        "qk_norm": "rms_norm_across_heads",
        "eps": 1e-6,
        "image_dim": None,
        "added_kv_proj_dim": None,
        "rope_max_seq_len": ROPE_LENGTH,
        "pos_embed_seq_len": None,
    }


def _heads(hints: dict[str, Any]) -> int | None:
    value = hints.get("num_heads", hints.get("num_attention_heads"))
    return value if isinstance(value, int) and value > 0 else None


def mapping(config: dict[str, Any]) -> dict[str, Cut]:
    """diffusers name -> where it is in the native file: only names differ."""
    cuts = dict(linear("patch_embedding", "patch_embedding"))
    for i in (0, 2):
        cuts.update(linear(f"condition_embedder.time_embedder.linear_{i // 2 + 1}", f"time_embedding.{i}"))
        cuts.update(linear(f"condition_embedder.text_embedder.linear_{i // 2 + 1}", f"text_embedding.{i}"))
    cuts.update(linear("condition_embedder.time_proj", "time_projection.1"))
    for i in range(config["num_layers"]):
        cuts.update(_block(f"blocks.{i}", config["cross_attn_norm"]))
    cuts["scale_shift_table"] = Cut("head.modulation")
    cuts.update(linear("proj_out", "head.head"))
    return cuts


def _block(block: str, cross_norm: bool) -> Iterator[tuple[str, Cut]]:
    yield f"{block}.scale_shift_table", Cut(f"{block}.modulation")
    for ours, theirs in (("attn1", "self_attn"), ("attn2", "cross_attn")):
        for letter in "qkv":
            yield from linear(f"{block}.{ours}.to_{letter}", f"{block}.{theirs}.{letter}")
        yield from linear(f"{block}.{ours}.to_out.0", f"{block}.{theirs}.o")
        for letter in "qk":
            yield f"{block}.{ours}.norm_{letter}.weight", Cut(f"{block}.{theirs}.norm_{letter}.weight")
    if cross_norm:  # the second norm in both, but Wan numbers it as the third
        yield from linear(f"{block}.norm2", f"{block}.norm3")
    yield from linear(f"{block}.ffn.net.0.proj", f"{block}.ffn.0")
    yield from linear(f"{block}.ffn.net.2", f"{block}.ffn.2")


WAN = Family(
    what="a Wan transformer in its native format",
    class_name="WanTransformer3DModel",
    mark="patch_embedding.weight",
    infer=infer_config,
    mapping=mapping,
)
