"""Models of full size with random weights, as folders that the program opens like downloaded ones.

What the weights are plays no part in how much memory a model takes. Configs are the published ones: the defaults of the
classes but for what stands in PUBLISHED; tests compare their sizes with what the planner counts with. The second of two
experts is the first one again, and so takes no disk.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pusa_app.errors import UserError
from pusa_app.models.card import BackboneSpec
from pusa_app.models.catalogue import FAMILIES, INDEX_FILE
from pusa_app.models.convert import SHARD_BYTES
from pusa_app.models.entry import Entry
from pusa_app.models.home import CARD_FILE

Config = Mapping[str, Any]
POOL = 1 << 24  # random numbers that are written again and again
SPREAD = 0.02


@dataclass(frozen=True)
class Shapes:
    """What the parts of a model are made with, where it is not the default of their classes. text_2: of CLIP, which
    HunyuanVideo has besides."""

    text: Config
    transformer: Config = field(default_factory=dict)
    vae: Config = field(default_factory=dict)
    text_2: Config | None = None


T5 = {
    "d_model": 4096,
    "d_ff": 10240,
    "d_kv": 64,
    "num_heads": 64,
    "num_layers": 24,
    "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
}
UMT5 = T5 | {"vocab_size": 256_384}
LLAMA = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "vocab_size": 128_320,
}
CLIP = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "vocab_size": 49_408,
    # As in the small tokenizers below.
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
PUBLISHED: dict[str, Shapes] = {
    "mochi": Shapes(T5),
    "wan": Shapes(UMT5),
    "wan-48": Shapes(
        UMT5,
        transformer={
            "num_attention_heads": 24,
            "ffn_dim": 14336,
            "num_layers": 30,
            "in_channels": 48,
            "out_channels": 48,
        },
        vae={
            "base_dim": 160,
            "decoder_base_dim": 256,
            "z_dim": 48,
            "is_residual": True,
            "in_channels": 12,
            "out_channels": 12,
            "patch_size": 2,
            "scale_factor_spatial": 16,
            "latents_mean": [0.0] * 48,
            "latents_std": [1.0] * 48,
        },
    ),
    "skyreels": Shapes(UMT5, transformer={"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40}),
    "ltx": Shapes(
        T5,
        vae={
            "block_out_channels": (128, 256, 512, 1024, 2048),
            "down_block_types": ("LTXVideo095DownBlock3D",) * 4,
            "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
            "decoder_block_out_channels": (256, 512, 1024),
            "layers_per_block": (4, 6, 6, 2, 2),
            "decoder_layers_per_block": (5, 5, 5, 5),
            "spatio_temporal_scaling": (True,) * 4,
            "decoder_spatio_temporal_scaling": (True,) * 3,
            "decoder_inject_noise": (False,) * 4,
            "upsample_residual": (True,) * 3,
            "upsample_factor": (2, 2, 2),
            "timestep_conditioning": True,
            "spatial_compression_ratio": 32,
            "temporal_compression_ratio": 8,
        },
    ),
    "hunyuan": Shapes(LLAMA, text_2=CLIP),
}


def shapes_of(spec: BackboneSpec) -> Shapes:
    """The published shapes of the model that has this geometry, as models/sizes.py chooses them."""
    return PUBLISHED["wan-48" if spec.family == "wan" and spec.latent_channels == 48 else spec.family]


@dataclass(frozen=True)
class Part:
    """A folder of weights that is not written yet. model: on torch's meta device. stem: of the names of its files."""

    model: Any
    dtype: torch.dtype
    stem: str
    save_config: Callable[[Path], Any]

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """The shapes of what is in its files: every tensor once, whatever names it has."""
        found: dict[int, tuple[str, tuple[int, ...]]] = {}
        for name, tensor in self.model.state_dict(keep_vars=True).items():
            found.setdefault(id(tensor), (name, tuple(tensor.shape)))
        return dict(found.values())

    @property
    def bytes(self) -> int:
        return sum(map(_count, self.tensors.values())) * self.dtype.itemsize


@dataclass(frozen=True)
class RandomModel:
    """A model of the catalogue that can be written to a folder.

    parts: by the name of their folder; loras: by the name of their file, the shapes of what is in them.
    """

    entry: Entry
    parts: Mapping[str, Part]
    loras: Mapping[str, Mapping[str, tuple[int, ...]]]

    @property
    def bytes(self) -> int:
        """On the disk."""
        own = {id(part): part.bytes for part in self.parts.values()}
        return sum(own.values()) + sum(2 * sum(map(_count, tensors.values())) for tensors in self.loras.values())

    def write(self, folder: Path) -> None:
        """Write all of it. Raises UserError when the disk refuses."""
        try:
            self._write(folder)
        except OSError as error:
            raise UserError(f"A model cannot be written to {folder}: {error.strerror or error}.") from None

    def _write(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / INDEX_FILE).write_text(json.dumps({"_class_name": "random weights"}), encoding="utf-8")
        for name in ("tokenizer", "tokenizer_2") if "text_encoder_2" in self.parts else ("tokenizer",):
            _tokenizer().save_pretrained(folder / name)
        written: dict[int, Path] = {}
        for name, part in self.parts.items():
            if (same := written.get(id(part))) is not None:
                shutil.copytree(same, folder / name, copy_function=_link)
                continue
            (folder / name).mkdir()
            part.save_config(folder / name)
            write_weights(folder / name, part.stem, part.tensors, part.dtype)
            written[id(part)] = folder / name
        for file, tensors in self.loras.items():
            (folder / file).parent.mkdir(exist_ok=True)
            write_tensors(folder / file, tensors, torch.bfloat16)
        card = self.entry.card(None).model_dump(mode="json", exclude={"id", "folder"})
        (folder / CARD_FILE).write_text(json.dumps(card), encoding="utf-8")


def random_model(entry: Entry, shapes: Shapes | None = None) -> RandomModel:
    """A model of the catalogue, of full size where nobody gives other shapes. Takes no memory."""
    spec = entry.spec
    assert spec is not None, "only models with a spec have parts"
    shapes = shapes or shapes_of(spec)
    package, name = FAMILIES[spec.family]
    family = getattr(importlib.import_module(f"pusa_app.backbones.{package}"), name)
    bf16 = torch.bfloat16
    transformer = _of_diffusers(family.transformer_class, shapes.transformer, bf16)
    parts = {"text_encoder": _of_transformers(family.prompts_class.encoder_class, shapes.text, bf16)}
    if shapes.text_2 is not None:
        from transformers import CLIPTextModel

        parts["text_encoder_2"] = _of_transformers(CLIPTextModel, shapes.text_2, bf16)
    parts |= dict.fromkeys(family.expert_parts(spec), transformer)
    parts["vae"] = _of_diffusers(family.vae_class, shapes.vae, family.vae_dtype or bf16)
    loras = {
        f"loras/{part.into}.safetensors": _lora(transformer.model, part.size or 0)
        for part in entry.parts
        if part.use == "lora"
    }
    return RandomModel(entry, parts, loras)


def _of_diffusers(cls: Any, config: Config, dtype: torch.dtype) -> Part:
    with torch.device("meta"):
        model = cls(**config)
    return Part(model, dtype, "diffusion_pytorch_model", model.save_config)


def _of_transformers(cls: Any, config: Config, dtype: torch.dtype) -> Part:
    made = cls.config_class(**config)
    with torch.device("meta"):
        model = cls(made)
    return Part(model, dtype, "model", made.save_pretrained)


def _lora(transformer: Any, size: int) -> dict[str, tuple[int, ...]]:
    """The shapes of a LoRA on all linear layers of the blocks, of the rank that makes it so many bytes in bf16."""
    linear = {
        name: module.weight.shape
        for name, module in transformer.named_modules()
        if "blocks." in name and isinstance(module, torch.nn.Linear)
    }
    rank = max(1, round(size / 2 / sum(sum(shape) for shape in linear.values())))
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (rows, columns) in linear.items():
        shapes[f"transformer.{name}.lora_A.weight"] = (rank, columns)
        shapes[f"transformer.{name}.lora_B.weight"] = (rows, rank)
    return shapes


def _tokenizer() -> Any:
    """One that knows no word, and so makes as many tokens of a prompt as it has words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>"))
    made.pre_tokenizer = Whitespace()
    made.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


# --- safetensors without the tensors ----------------------------------------------------------------------------------


def write_weights(folder: Path, stem: str, tensors: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> None:
    """Random tensors in one file, or in several with an index, as models are published."""
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    filled = 0
    for name, shape in tensors.items():
        size = _count(shape) * dtype.itemsize
        if filled and filled + size > SHARD_BYTES:
            shards.append({})
            filled = 0
        shards[-1][name] = shape
        filled += size
    if len(shards) == 1:
        write_tensors(folder / f"{stem}.safetensors", shards[0], dtype)
        return
    places = {}
    for number, shard in enumerate(shards, 1):
        file = f"{stem}-{number:05}-of-{len(shards):05}.safetensors"
        write_tensors(folder / file, shard, dtype)
        places.update(dict.fromkeys(shard, file))
    index = {"metadata": {"total_size": sum(map(_count, tensors.values())) * dtype.itemsize}, "weight_map": places}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> None:
    """A safetensors file with normal numbers of deviation SPREAD, a few megabytes of memory at a time."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    kind, at = {torch.bfloat16: "BF16", torch.float32: "F32"}[dtype], 0
    for name, shape in tensors.items():
        end = at + _count(shape) * dtype.itemsize
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    numbers = min(POOL, max(1, at // dtype.itemsize))
    pool = torch.randn(numbers, generator=torch.Generator().manual_seed(0)).mul_(SPREAD).to(dtype)
    pieces = memoryview(pool.view(torch.uint8).numpy())
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, at, len(pieces)):
            file.write(pieces[: at - start])


def _count(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def _link(source: str, to: str) -> None:
    """The same file once more, where the disk can do that."""
    try:
        os.link(source, to)
    except OSError:
        shutil.copy2(source, to)
