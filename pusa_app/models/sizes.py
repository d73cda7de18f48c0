"""What a model weighs, what it needs beside its weights, and how much it computes: formulas, no torch.

Bytes are decimal (1 GB = 1e9). The activation formulas count the tensors that are alive at the worst moment of one
transformer block of this program, and the figures of the VAEs were counted the same way, from the allocations of
full-width models on torch's meta device (tests/unit/test_sizes.py counts them again). A GPU's own libraries may take
more for a moment, which is what the planner's margin is for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pusa_app.models.card import BackboneSpec

Quantization = Literal["none", "nf4", "int8-bnb", "int8", "fp8", "fp8-layerwise"]
Kind = Literal["mochi", "wan", "skyreels", "ltx", "hunyuan"]

# Bytes of a weight. nf4 keeps a float for every 64 weights beside their 4 bits.
BYTES: dict[str, float] = {"none": 2, "nf4": 0.5625, "int8-bnb": 1, "int8": 1, "fp8": 1, "fp8-layerwise": 1}
MIB = 1024 * 1024


@dataclass(frozen=True)
class Encoder:
    """A text encoder. Quantized linear layers leave `embedding` and, for the 4- and 8-bit formats, `kept` in bf16:
    transformers does not quantize the second half of T5's feed-forward."""

    params: float
    embedding: float
    kept: float
    tokens: int

    def bytes(self, quantization: str = "none", dtype_bytes: int = 2) -> float:
        if quantization == "none":
            return dtype_bytes * self.params
        exact = self.embedding + (0.0 if quantization == "fp8-layerwise" else self.kept)
        return BYTES[quantization] * (self.params - exact) + 2 * exact


T5_XXL = Encoder(params=4.762e9, embedding=0.132e9, kept=1.007e9, tokens=256)
UMT5_XXL = Encoder(params=5.681e9, embedding=1.050e9, kept=1.007e9, tokens=512)
# Without the last two layers, which HunyuanVideo does not read. Its second encoder is 0.12 B on the CPU.
LLAMA_8B = Encoder(params=7.069e9, embedding=0.525e9, kept=0.0, tokens=256)


@dataclass(frozen=True)
class Vae:
    """Bytes per pixel of the picture (or tile) that is worked on, and operations per pixel and frame.

    decode: one slot at a time, with what it keeps of the slots before; more_slots: each further slot that is decoded
    at once. encode: of clips; encode_picture: of one frame. whole: all frames are in memory at once, so bytes are per
    pixel and frame; encode_whole: the same of the encoder alone.
    """

    params: float
    dtype_bytes: int
    decode: float
    encode: float
    encode_picture: float
    decode_ops: float
    encode_ops: float
    more_slots: float = 0.0
    whole: bool = False
    encode_whole: bool = False

    @property
    def bytes(self) -> float:
        return self.params * self.dtype_bytes

    def decode_bytes(self, pixels: float, frames: int, slots: int = 1) -> float:
        return pixels * (self.decode * frames if self.whole else self.decode + self.more_slots * (slots - 1))

    def encode_bytes(self, pixels: float, frames: int) -> float:
        if frames == 1:
            return pixels * self.encode_picture
        return pixels * self.encode * (frames if self.encode_whole else 1)


# encode of Mochi is per frame too: its encoder attends to all of them.
VAES = {
    "mochi": Vae(0.4597e9, 2, 15_260, 655, 900, 15.8e6, 4.28e6, more_slots=7_730, encode_whole=True),
    "wan": Vae(0.1269e9, 4, 19_510, 14_250, 3_880, 8.56e6, 5.08e6),
    "wan-48": Vae(0.7047e9, 4, 21_560, 7_390, 3_000, 18.6e6, 3.54e6),
    "ltx": Vae(1.2469e9, 2, 101, 118, 182, 1.26e6, 2.93e6, whole=True, encode_whole=True),
    # Windows of five slots, or 17 frames.
    "hunyuan": Vae(0.2465e9, 2, 39_500, 22_450, 1_810, 24.3e6, 12.9e6),
}


@dataclass(frozen=True)
class Architecture:
    """A model's transformer and its companions.

    layers, width, ff: blocks, model width, width of the feed-forward; doubles: how many of HunyuanVideo's blocks have
    two streams; text: width of Mochi's text stream. experts: how many transformers there are, of which one works at a
    time. lora_bytes: of the LoRAs that stay beside the weights of one transformer.
    """

    kind: Kind
    layers: int
    width: int
    ff: int
    encoder: Encoder
    vae: Vae
    doubles: int = 0
    text: int = 0
    text_ff: int = 0
    text_input: int = 4096
    experts: int = 1
    lora_bytes: float = 0.0

    # --- weights ------------------------------------------------------------------------------------------------------

    @property
    def block_params(self) -> float:
        """Of one block, on average."""
        return self._block(self.doubles / self.layers)[0]

    def _block(self, doubles: float) -> tuple[float, float]:
        """Parameters of a block, and how many of them are in the layers that make scales and gates of the time, where
        it has its own. doubles: 1 for a block of HunyuanVideo with two streams, 0 for one with a single stream, between
        them for their average."""
        D, ff, t = self.width, self.ff, self.text
        if self.kind == "mochi":
            modulation: float = 4 * D * (D + t)
            return 4 * D * D + 3 * D * ff + 4 * t * D + 3 * t * self.text_ff + modulation, modulation
        if self.kind == "hunyuan":  # three rows of scales and gates, or six for each of two streams
            modulation = (3 + 9 * doubles) * D * D
            return (4 * D * D + 2 * D * ff) * (1 + doubles) + modulation, modulation
        return 8 * D * D + 2 * D * ff, 0.0

    @property
    def rest_params(self) -> float:
        """Outside the blocks."""
        D, T = self.width, self.text_input
        if self.kind == "mochi":
            return 3 * T * T + T * D + T * self.text + 256 * D + 3 * D * D
        if self.kind == "hunyuan":  # the token refiner
            return 35 * D * D + 2 * T * D + 1536 * D
        return T * D + 8 * D * D + 256 * D

    @property
    def params(self) -> float:
        """Of one transformer, without LoRAs."""
        return self.layers * self.block_params + self.rest_params

    def block_bytes(self, quantization: str = "none", dtype_bytes: int = 2) -> float:
        """Of the largest block with its share of the LoRAs: what must have room where blocks come one by one."""
        return self._block_bytes(1.0 if self.doubles else 0.0, quantization, dtype_bytes)

    def _block_bytes(self, doubles: float, quantization: str, dtype_bytes: int) -> float:
        params, modulation = self._block(doubles)
        if quantization == "none":
            weights = dtype_bytes * params
        else:
            # Layerwise casting leaves alone what is called norm, which is where modulation is.
            exact = modulation if quantization == "fp8-layerwise" else 0.0
            weights = BYTES[quantization] * (params - exact) + 2 * exact
        return weights + self.lora_bytes / self.layers * params / self.block_params

    def rest_bytes(self, quantization: str = "none", dtype_bytes: int = 2) -> float:
        if quantization in ("none", "fp8-layerwise"):
            return dtype_bytes * self.rest_params
        return BYTES[quantization] * self.rest_params

    def weights(self, quantization: str = "none", dtype_bytes: int = 2) -> float:
        """Bytes of one transformer with its LoRAs."""
        blocks = self.layers * self._block_bytes(self.doubles / self.layers, quantization, dtype_bytes)
        return blocks + self.rest_bytes(quantization, dtype_bytes)

    # --- activations and operations -----------------------------------------------------------------------------------

    def activations(self, tokens: int, batch: int = 1, dtype_bytes: int = 2) -> float:
        """Bytes at the worst moment of one forward. tokens: of the picture, of one sample.

        Mochi: in the feed-forward. Four tensors of the model's width (the block's input, the stream, what attention
        gave, the normed stream), four of the feed-forward's (SwiGLU: two halves, the gate's activation, the product),
        and the rotations in fp32. Wan: in the rotation of queries and keys 24 bytes per width, or in the feed-forward
        12 with the normed stream in fp32. SkyReels' class of diffusers repeats its modulation for every token: 40 more.
        LTX-Video: in the rotation too. HunyuanVideo: in blocks of one stream, where attention and feed-forward meet.
        """
        D, ff, b = self.width, self.ff, dtype_bytes / 2
        fixed = 0.0
        if self.kind == "mochi":
            per_token = b * 2 * (4 * D + 4 * ff)
            fixed = 4.0 * D * tokens
        elif self.kind == "wan":
            per_token = b * max(24.2 * D, 12.2 * D + 4 * ff)
        elif self.kind == "skyreels":
            per_token = b * 64.2 * D
        elif self.kind == "ltx":
            per_token = b * 32.5 * D
        else:
            per_token = b * 26.4 * D
        return tokens * per_token * batch + fixed

    def cache_bytes(self, tokens: int, texts: int, batch: int = 1, dtype_bytes: int = 2) -> float:
        """Bytes that First Block Cache holds: what the blocks added, for each text, and a quarter of it to compare; and
        in a forward what the first block gave."""
        return (1.25 * texts + batch) * dtype_bytes * self.width * tokens

    def ops(self, tokens: int) -> float:
        """Floating point operations of one forward of one sample: 2 per weight and token, 4 D per pair of tokens."""
        D, N, L = self.width, tokens, self.encoder.tokens
        if self.kind == "mochi":
            text = 2 * L * (4 * self.text * D + 3 * self.text * self.text_ff)
            return self.layers * (2 * N * (4 * D * D + 3 * D * self.ff) + text + 4 * (N + L) ** 2 * D)
        if self.kind == "hunyuan":
            return self.layers * (2 * (N + L) * 12 * D * D + 4 * (N + L) ** 2 * D)
        cross = 2 * L * 2 * D * D + 4 * N * L * D
        return self.layers * (2 * N * (6 * D * D + 2 * D * self.ff) + 4 * N * N * D + cross)


MOCHI = Architecture(
    kind="mochi", layers=48, width=3072, ff=8192, text=1536, text_ff=4096, encoder=T5_XXL, vae=VAES["mochi"]
)
WAN_14B = Architecture(kind="wan", layers=40, width=5120, ff=13824, encoder=UMT5_XXL, vae=VAES["wan"])
WAN_5B = Architecture(kind="wan", layers=30, width=3072, ff=14336, encoder=UMT5_XXL, vae=VAES["wan-48"])
SKYREELS_14B = replace(WAN_14B, kind="skyreels")
LTX_2B = Architecture(kind="ltx", layers=28, width=2048, ff=8192, encoder=T5_XXL, vae=VAES["ltx"])
HUNYUAN = Architecture(
    kind="hunyuan", layers=60, doubles=20, width=3072, ff=12288, encoder=LLAMA_8B, vae=VAES["hunyuan"]
)


def architecture_of(spec: BackboneSpec, folder: Path | None = None, lora_bytes: float = 0.0) -> Architecture:
    """The architecture of a model: from the configs in its folder where it is here, else the published one that has
    its geometry. lora_bytes: of all LoRAs that belong to it."""
    if spec.family in ("mochi", "fake"):
        found = MOCHI
    elif spec.family == "wan":
        found = WAN_5B if spec.latent_channels == 48 else WAN_14B
    else:
        found = {"skyreels": SKYREELS_14B, "ltx": LTX_2B, "hunyuan": HUNYUAN}[spec.family]
    experts = 1 if spec.boundary is None else 2
    found = replace(found, experts=experts, encoder=replace(found.encoder, tokens=spec.max_text_tokens))
    if folder is not None:
        found = _from_configs(found, folder)
    return replace(found, lora_bytes=lora_bytes / experts)


def _from_configs(found: Architecture, folder: Path) -> Architecture:
    """What the configs say; what cannot be read stays as published, and the file sizes have the last word."""
    config = _config(folder / "transformer")
    heads, head = config.get("num_attention_heads"), config.get("attention_head_dim")
    if isinstance(heads, int) and isinstance(head, int):
        width = heads * head
        ff = config.get("ffn_dim") or (4 * width * 2 // 3 if found.kind == "mochi" else 4 * width)
        found = replace(found, width=width, ff=ff, layers=config.get("num_layers", found.layers))
    if found.kind == "hunyuan" and isinstance(doubles := config.get("num_layers"), int):
        layers = doubles + config.get("num_single_layers", 40)
        found = replace(found, layers=layers, doubles=doubles, text_input=config.get("text_embed_dim", 4096))
    if found.kind == "ltx":
        found = replace(found, text_input=config.get("caption_channels", found.text_input))
    if found.kind == "mochi" and isinstance(text := config.get("pooled_projection_dim"), int):
        found = replace(
            found, text=text, text_ff=4 * text * 2 // 3, text_input=config.get("text_embed_dim", found.text_input)
        )
    config = _config(folder / "text_encoder")
    if isinstance(config.get("d_model"), int):
        width = int(config["d_model"])
        inner = config.get("num_heads", 64) * config.get("d_kv", 64)
        matrices = 3 if "gated" in str(config.get("feed_forward_proj", "relu")) else 2
        layer = 4 * width * inner + matrices * width * config.get("d_ff", 10240)
        layers, embedding = config.get("num_layers", 24), float(config.get("vocab_size", 32128) * width)
        kept = float(layers * width * config.get("d_ff", 10240))
        found = replace(
            found,
            encoder=replace(found.encoder, params=layers * layer + embedding, embedding=embedding, kept=kept),
        )
    if isinstance(config.get("num_hidden_layers"), int) and isinstance(config.get("hidden_size"), int):
        found = replace(found, encoder=_llama(config, found.encoder.tokens))
    config = _config(folder / "vae")
    channels = config.get("decoder_block_out_channels")
    if found.kind == "mochi" and isinstance(channels, list) and channels:
        share = channels[0] / 128  # activations grow with the width of the last block
        vae = VAES["mochi"]
        weights = sum(path.stat().st_size for path in (folder / "vae").glob("*.safetensors"))
        found = replace(
            found,
            vae=replace(
                vae,
                params=weights / 4 if weights else vae.params,
                **{name: getattr(vae, name) * share for name in ("decode", "more_slots", "encode", "encode_picture")},
                decode_ops=vae.decode_ops * share**2,
                encode_ops=vae.encode_ops * share**2,
            ),
        )
    return found


def _llama(config: dict[str, Any], tokens: int) -> Encoder:
    """The text encoder of HunyuanVideo by its config, as far as it is read."""
    width, heads = int(config["hidden_size"]), config.get("num_attention_heads", 32)
    shared = config.get("num_key_value_heads", heads) / heads
    layer = width * width * (2 + 2 * shared) + 3 * width * config.get("intermediate_size", 14336)
    embedding = float(config.get("vocab_size", 128_320) * width)
    return Encoder((config["num_hidden_layers"] - 2) * layer + embedding, embedding, kept=0.0, tokens=tokens)


def _config(folder: Path) -> dict[str, Any]:
    try:
        data = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
