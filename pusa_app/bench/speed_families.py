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
ONE_TIME = "one time for all slots"


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
    """model: of the catalogue, for the size of a clip on a GPU. stock, ours: (module, class). channels: of latents.
    trims: this program drops the padding of a text, which the family does not read."""

    model: str
    stock: tuple[str, str]
    ours: tuple[str, str]
    channels: int
    patch: int = 2
    text: tuple[int, int]  # tokens that its pipeline pads to, and their width
    pooled: int | None = None
    trims: bool = True

    @property
    def width(self) -> int:
        """Of its streams."""
        known = {name: one.default for name, one in inspect.signature(_class(self.stock)).parameters.items()}
        known |= self.config(None)
        return int(known["num_attention_heads"] * known["attention_head_dim"])

    @property
    def small(self) -> StepSize:
        """For a CPU: as many tokens in every family."""
        return StepSize(height=8 * self.patch, width=12 * self.patch)

    def tokens(self, height: int, width: int) -> int:
        """Of a slot of height x width latents."""
        return height * width // self.patch**2

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

    def variants(self, stock: Any, ours: Any, given: Inputs) -> Variants:
        """STOCK as its pipeline calls it, OURS, REPEATED, and what else there is to compare; without STOCK where this
        program runs diffusers' own class as the pipeline does."""
        text, mask = given.text, given.mask
        found: Variants = {STOCK: lambda: self.forward(stock, given, given.one_time, text, mask)}
        if self.trims:
            found[PADDED] = lambda: self.forward(ours, given, given.times, text, mask)
        return found | {OURS: lambda: self.step(ours, given), REPEATED: lambda: self.repeated(stock, ours, given)}

    def step(self, ours: Any, given: Inputs) -> torch.Tensor:
        """One forward as the program makes it."""
        text, mask = (given.trimmed, None) if self.trims else (given.text, given.mask)
        return self.forward(ours, given, given.times, text, mask)

    def repeated(self, stock: Any, ours: Any, given: Inputs) -> torch.Tensor:
        """With a row of modulation for every token: diffusers' own way for families that take a time per token."""
        times = given.times.repeat_interleave(self.tokens(*given.z.shape[3:]), dim=1)
        return self.forward(stock, given, times, given.text, given.mask)

    @abstractmethod
    def forward(
        self, model: Any, given: Inputs, times: torch.Tensor, text: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Of stock's model or ours. times: (1,), (1, F), or (1, tokens)."""


class Mochi(Family):
    model = "pusa-v0.5"
    stock = "diffusers", "MochiTransformer3DModel"
    ours = "pusa_app.backbones.mochi", "VectorizedMochiTransformer3DModel"
    channels = 12
    text = 256, 4096

    def forward(self, model: Any, given: Inputs, times: torch.Tensor, text: Any, mask: Any) -> torch.Tensor:
        return model(given.z, text, times, mask, return_dict=False)[0]

    def repeated(self, stock: Any, ours: Any, given: Inputs) -> torch.Tensor:
        return forward_repeated_per_token(ours, given.z, given.text, given.times, given.mask)


class Wan(Family):
    """Its text is padded whatever the program: the model reads the padding."""

    model = "pusa-v1"
    stock = "diffusers", "WanTransformer3DModel"
    ours = "pusa_app.backbones.wan", "VectorizedWanTransformer3DModel"
    channels = 16
    text = 512, 4096
    trims = False

    def forward(self, model: Any, given: Inputs, times: torch.Tensor, text: Any, mask: Any) -> torch.Tensor:
        return model(given.z, times, text, return_dict=False)[0]


class SkyReels(Wan):
    """This program runs diffusers' own class as its pipeline for diffusion forcing does, with modulation repeated for
    every token: there is no other step to compare it with. What a time per slot costs there shows beside one time for
    all slots, which the class takes too."""

    model = "skyreels-v2-df"
    stock = ours = "diffusers", "SkyReelsV2Transformer3DModel"

    def config(self, layers: int | None) -> dict[str, Any]:
        """Of SkyReels-V2-DF-14B, which is not told the frame rate."""
        return {"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": layers or 40}

    def variants(self, stock: Any, ours: Any, given: Inputs) -> Variants:
        return {
            OURS: lambda: self.step(ours, given),
            ONE_TIME: lambda: self.forward(stock, given, given.one_time, given.text, None),
        }

    def forward(self, model: Any, given: Inputs, times: torch.Tensor, text: Any, mask: Any) -> torch.Tensor:
        return model(given.z, times, text, enable_diffusion_forcing=times.ndim == 2, return_dict=False)[0]


class LTX(Family):
    """Its pipeline gives every token a time where there are keyframes (REPEATED), and else one to all."""

    model = "ltx-video"
    stock = "diffusers", "LTXVideoTransformer3DModel"
    ours = "pusa_app.backbones.ltx", "VectorizedLTXVideoTransformer3DModel"
    channels = 128
    patch = 1
    text = 256, 4096
    scale = (8 / 25, 32, 32)  # seconds and pixels of a latent

    def forward(self, model: Any, given: Inputs, times: torch.Tensor, text: Any, mask: Any) -> torch.Tensor:
        x, places = given.z.flatten(2).transpose(1, 2), (*given.z.shape[2:], self.scale)
        return model(x, text, times, mask, *places, return_dict=False)[0]


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

    def forward(self, model: Any, given: Inputs, times: torch.Tensor, text: Any, mask: Any) -> torch.Tensor:
        guidance = torch.full((1,), 6000.0, dtype=given.z.dtype, device=given.z.device)
        return model(given.z, times, text, mask, given.pooled, guidance, return_dict=False)[0]

    def repeated(self, stock: Any, ours: Any, given: Inputs) -> torch.Tensor:
        embed, tokens = ours._embed_conditions, self.tokens(*given.z.shape[3:])
        ours._embed_conditions = lambda *some: embed(*some).repeat_interleave(tokens, dim=1)
        try:
            return self.forward(ours, given, given.times, given.text, given.mask)
        finally:
            del ours._embed_conditions


FAMILIES: dict[str, Family] = {
    "mochi": Mochi(),
    "wan": Wan(),
    "skyreels": SkyReels(),
    "ltx": LTX(),
    "hunyuan": Hunyuan(),
}


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
