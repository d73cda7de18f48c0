"""The transformers with a time per slot beside diffusers' own: tiny, with the same random weights, and inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

SLOTS = {"mochi": 4, "wan": 4, "ltx": 3, "hunyuan": 3}
MOCHI = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 3,
    "pooled_projection_dim": 24,
    "text_embed_dim": 32,
    "max_sequence_length": 8,
}
WAN = {
    "num_attention_heads": 2,
    "attention_head_dim": 24,
    "text_dim": 32,
    "freq_dim": 64,
    "ffn_dim": 96,
    "num_layers": 2,
}


@dataclass(frozen=True)
class Pair:
    """diffusers' model, and ours with its weights; large enough that every part matters. Leave them as they are.
    inputs(): of a batch at one time per sample, with texts of several lengths where the family masks them."""

    family: str
    stock: Any
    ours: Any
    inputs: Callable[[], dict[str, Any]]

    @property
    def slots(self) -> int:
        return SLOTS[self.family]

    def times(self, batch: int = 2) -> torch.Tensor:
        """A time for every slot: (batch, slots)."""
        return torch.rand(batch, self.slots, generator=torch.Generator().manual_seed(3)) * 1000

    def copy(self) -> Any:
        """Ours once more, to be changed."""
        made = type(self.ours).from_config(self.ours.config).eval()
        made.load_state_dict(self.ours.state_dict())
        return made


@cache
def pair(family: str) -> Pair:
    stock, ours, inputs = {"mochi": _mochi, "wan": _wan, "ltx": _ltx, "hunyuan": _hunyuan}[family]()
    made = ours.from_config(stock.config).eval()
    made.load_state_dict(stock.state_dict())
    return Pair(family, stock, made, inputs)


def mochi_inputs(batch: int = 3, lengths: tuple[int, ...] = (5, 0, 8)) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "hidden_states": torch.randn(batch, 12, SLOTS["mochi"], 4, 6, generator=generator),
        "encoder_hidden_states": torch.randn(batch, 8, 32, generator=generator),
        "timestep": torch.rand(batch, generator=generator) * 1000,
        "encoder_attention_mask": torch.arange(8)[None] < torch.tensor(lengths)[:, None],
    }


def wan_inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "hidden_states": torch.randn(2, 16, SLOTS["wan"], 4, 6, generator=generator),
        "encoder_hidden_states": torch.randn(2, 8, 32, generator=generator),
        "timestep": torch.rand(2, generator=generator) * 1000,
    }


def ltx_inputs() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(2, 5)
    mask[-1, 3:] = 0
    return {
        "hidden_states": torch.randn(2, SLOTS["ltx"] * 2 * 3, 16, generator=generator),
        "encoder_hidden_states": torch.randn(2, 5, 32, generator=generator),
        "timestep": torch.tensor([250.0, 777.5]),
        "encoder_attention_mask": mask,
        "num_frames": SLOTS["ltx"],
        "height": 2,
        "width": 3,
        "rope_interpolation_scale": (8 / 25, 32, 32),
    }


def hunyuan_inputs(batch: int = 2, masked: bool = False) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    data = {
        "hidden_states": torch.randn(batch, 16, SLOTS["hunyuan"], 4, 6, generator=generator),
        "timestep": torch.tensor([250.0, 777.5])[:batch],
        "encoder_hidden_states": torch.randn(batch, 5, 32, generator=generator),
        "encoder_attention_mask": torch.ones(batch, 5),
        "pooled_projections": torch.randn(batch, 24, generator=generator),
        "guidance": torch.tensor([6000.0, 1000.0])[:batch],
    }
    if masked:
        data["encoder_attention_mask"][-1, 3:] = 0
    return data


def _mochi() -> tuple[Any, Any, Any]:
    from diffusers import MochiTransformer3DModel

    from pusa_app.backbones.mochi import VectorizedMochiTransformer3DModel

    torch.manual_seed(0)
    stock = MochiTransformer3DModel(**MOCHI).eval()
    with torch.no_grad():
        for name, parameter in stock.named_parameters():
            torch.nn.init.normal_(parameter, std=0.02 if name == "pos_frequencies" else 0.1)
    return stock, VectorizedMochiTransformer3DModel, mochi_inputs


def _wan() -> tuple[Any, Any, Any]:
    from diffusers import WanTransformer3DModel

    from pusa_app.backbones.wan import VectorizedWanTransformer3DModel

    torch.manual_seed(0)
    stock = WanTransformer3DModel(**WAN).eval()
    with torch.no_grad():
        for parameter in stock.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return stock, VectorizedWanTransformer3DModel, wan_inputs


def _ltx() -> tuple[Any, Any, Any]:
    from pusa_app.backbones.ltx import VectorizedLTXVideoTransformer3DModel
    from tests.ltx import tiny_transformer

    return tiny_transformer(), VectorizedLTXVideoTransformer3DModel, ltx_inputs


def _hunyuan() -> tuple[Any, Any, Any]:
    from pusa_app.backbones.hunyuan import VectorizedHunyuanVideoTransformer3DModel
    from tests.hunyuan import tiny_transformer

    return tiny_transformer(), VectorizedHunyuanVideoTransformer3DModel, lambda: hunyuan_inputs(masked=True)
