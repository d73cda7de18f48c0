"""The families of `bench speed`: one step of each with random weights, by stock diffusers and with a time per slot.

A family that this program does not have is left out; a new one is a row in FAMILIES.
"""

from __future__ import annotations

import importlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from pusa_app.backbones.mochi import VectorizedMochiTransformer3DModel
from pusa_app.bench.timing import Variants

STOCK, OURS = "stock diffusers", "a time per slot"
PADDED, REPEATED = "a time per slot, text padded", "the same, repeated per token"


@dataclass(frozen=True)
class StepSize:
    """A real width with so many layers (None: all), latents of slots x height x width, so many valid text tokens."""

    layers: int | None = 2
    slots: int = 6
    height: int = 16
    width: int = 24
    valid_text_tokens: int = 24
    rounds: int = 5


@dataclass(frozen=True)
class Inputs:
    """One sample. times: a model time for each slot (1, F); one_time (1,); text (1, L, D) as the pipeline pads it, of
    which the first `valid` tokens are; pooled (1, P)."""

    z: torch.Tensor
    times: torch.Tensor
    one_time: torch.Tensor
    text: torch.Tensor
    valid: int
    pooled: torch.Tensor | None = None

    @property
    def mask(self) -> torch.Tensor:
        return torch.arange(self.text.shape[1], device=self.text.device)[None] < self.valid

    @property
    def trimmed(self) -> torch.Tensor:
        return self.text[:, : self.valid]


class Family(ABC):
    """model: of the catalogue, for the size of a clip on a GPU. stock, ours: (module, class). channels: of latents."""

    model: str
    stock: tuple[str, str]
    ours: tuple[str, str]
    channels: int
    text: tuple[int, int]  # tokens that its pipeline pads to, and their width
    pooled: int | None = None

    @property
    def width(self) -> int:
        """Of its streams."""
        parameters = inspect.signature(_class(self.stock)).parameters
        return int(parameters["num_attention_heads"].default * parameters["attention_head_dim"].default)

    @property
    def there(self) -> bool:
        """Whether this program has it."""
        try:
            _class(self.ours)
        except (ImportError, AttributeError):
            return False
        return True

    def config(self, layers: int | None) -> dict[str, Any]:
        """What the constructor takes; None: all layers of the published model."""
        return {} if layers is None else {"num_layers": layers}

    def pair(self, layers: int | None, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
        """The stock model and ours with the same random weights, once in memory."""
        torch.manual_seed(0)
        with _default(dtype), device:
            stock = _class(self.stock)(**self.config(layers)).eval()
        for name, parameter in stock.named_parameters():
            if any(part in name.split(".") for part in stock._keep_in_fp32_modules or ()):
                parameter.data = parameter.data.float()
            if name == "pos_frequencies":  # Mochi leaves it as memory was
                torch.nn.init.normal_(parameter, std=0.02)
        with torch.device("meta"):
            ours = _class(self.ours).from_config(stock.config)
        ours.load_state_dict(stock.state_dict(), assign=True)
        for name, buffer in stock.named_buffers():  # those that are not saved
            owner, _, last = name.rpartition(".")
            ours.get_submodule(owner)._buffers[last] = buffer
        return stock, ours.eval()

    def on_meta(self, layers: int | None) -> Any:
        """Ours without memory, for counting."""
        with torch.device("meta"):
            return _class(self.ours)(**self.config(layers)).eval()

    def inputs(self, size: StepSize, device: torch.device, dtype: torch.dtype) -> Inputs:
        """Random ones; of every slot another time."""
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        return Inputs(
            z=torch.randn(1, self.channels, size.slots, size.height, size.width, **options),
            times=torch.linspace(0, 1000, size.slots, device=device)[None],
            one_time=torch.full((1,), 500.0, device=device),
            text=torch.randn(1, *self.text, **options),
            valid=min(size.valid_text_tokens, self.text[0]),
            pooled=None if self.pooled is None else torch.randn(1, self.pooled, **options),
        )

    @abstractmethod
    def variants(self, stock: Any, ours: Any, given: Inputs) -> Variants:
        """STOCK, OURS, REPEATED and what else there is to compare."""

    @abstractmethod
    def step(self, ours: Any, given: Inputs) -> torch.Tensor:
        """One forward as the program makes it."""


class Mochi(Family):
    model = "pusa-v0.5"
    stock = "diffusers", "MochiTransformer3DModel"
    ours = "pusa_app.backbones.mochi", "VectorizedMochiTransformer3DModel"
    channels = 12
    text = 256, 4096

    def variants(self, stock: Any, ours: Any, given: Inputs) -> Variants:
        z, text, mask = given.z, given.text, given.mask
        return {
            STOCK: lambda: stock(z, text, given.one_time, mask, return_dict=False),
            PADDED: lambda: ours(z, text, given.times, mask, return_dict=False),
            OURS: lambda: self.step(ours, given),
            REPEATED: lambda: forward_repeated_per_token(ours, z, text, given.times, mask),
        }

    def step(self, ours: Any, given: Inputs) -> torch.Tensor:
        return ours(given.z, given.trimmed, given.times, return_dict=False)[0]


class Wan(Family):
    """Its text is padded whatever the program: the model reads the padding."""

    model = "pusa-v1"
    stock = "diffusers", "WanTransformer3DModel"
    ours = "pusa_app.backbones.wan", "VectorizedWanTransformer3DModel"
    channels = 16
    text = 512, 4096

    def variants(self, stock: Any, ours: Any, given: Inputs) -> Variants:
        tokens = given.z[0, 0, 0].numel() // 4
        return {
            STOCK: lambda: stock(given.z, given.one_time, given.text, return_dict=False),
            OURS: lambda: self.step(ours, given),
            # diffusers' own way, for TI2V
            REPEATED: lambda: stock(
                given.z, given.times.repeat_interleave(tokens, dim=1), given.text, return_dict=False
            ),
        }

    def step(self, ours: Any, given: Inputs) -> torch.Tensor:
        return ours(given.z, given.times, given.text, return_dict=False)[0]


class Hunyuan(Family):
    model = "hunyuan-video"
    stock = "diffusers", "HunyuanVideoTransformer3DModel"
    ours = "pusa_app.backbones.hunyuan", "VectorizedHunyuanVideoTransformer3DModel"
    channels = 16
    text = 256, 4096
    pooled = 768

    def config(self, layers: int | None) -> dict[str, Any]:
        config: dict[str, Any] = {"guidance_embeds": True}
        if layers is not None:  # a third of the published ones have two streams
            double = max(1, layers // 3)
            config |= {"num_layers": double, "num_single_layers": max(1, layers - double)}
        return config

    def variants(self, stock: Any, ours: Any, given: Inputs) -> Variants:
        z, pooled, mask = given.z, given.pooled, given.mask
        guidance = torch.full((1,), 6000.0, dtype=z.dtype, device=z.device)
        tokens = z[0, 0, 0].numel() // 4

        def repeated() -> Any:
            embed = ours._embed_conditions
            ours._embed_conditions = lambda *some: embed(*some).repeat_interleave(tokens, dim=1)
            try:
                return ours(z, given.times, given.text, mask, pooled, guidance, return_dict=False)
            finally:
                del ours._embed_conditions

        return {
            STOCK: lambda: stock(z, given.one_time, given.text, mask, pooled, guidance, return_dict=False),
            PADDED: lambda: ours(z, given.times, given.text, mask, pooled, guidance, return_dict=False),
            OURS: lambda: self.step(ours, given),
            REPEATED: repeated,
        }

    def step(self, ours: Any, given: Inputs) -> torch.Tensor:
        guidance = torch.full((1,), 6000.0, dtype=given.z.dtype, device=given.z.device)
        return ours(given.z, given.times, given.trimmed, None, given.pooled, guidance, return_dict=False)[0]


FAMILIES: dict[str, Family] = {"mochi": Mochi(), "wan": Wan(), "hunyuan": Hunyuan()}


def forward_repeated_per_token(
    model: VectorizedMochiTransformer3DModel,
    hidden_states: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    timestep: torch.Tensor,
    encoder_attention_mask: torch.Tensor,
) -> torch.Tensor:
    """The way not taken: temb repeated to one row per token in front of every modulation. Same result, more work.

    Arguments and result as the model's forward.
    """
    batch, _, slots, height, width = hidden_states.shape
    p = model.config.patch_size
    rows, columns = height // p, width // p
    temb, text = model._embed_conditions(timestep, encoder_hidden_states, encoder_attention_mask, hidden_states.dtype)
    temb = temb.repeat_interleave(rows * columns, dim=1)
    x = model.patch_embed(hidden_states.transpose(1, 2).flatten(0, 1)).unflatten(0, (batch, -1)).flatten(1, 2)
    x = x.unsqueeze(2)  # every token is a slot of its own
    rope = model._rotations(slots, rows, columns)
    mask = F.pad(encoder_attention_mask, (x.shape[1], 0), value=True)
    for block in model.transformer_blocks:
        x, text = block(x, text, temb, mask, rope)
    x = model.proj_out(model.norm_out(x.flatten(0, 1), temb.flatten(0, 1)))
    x = x.reshape(batch, slots, rows, columns, p, p, -1).permute(0, 6, 1, 2, 4, 3, 5)
    return x.reshape(batch, -1, slots, height, width)


def _class(where: tuple[str, str]) -> Any:
    return getattr(importlib.import_module(where[0]), where[1])


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
