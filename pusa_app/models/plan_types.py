"""What a plan is for, and what it says; the assumptions that all of its predictions share. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from pusa_app.models.card import BackboneSpec
from pusa_app.models.machine import Machine
from pusa_app.models.sizes import Architecture, Quantization, architecture_of

Offload = Literal["none", "model", "group", "disk"]
Text = Literal["resident", "turns", "load", "stream", "cpu"]
Attention = Literal["native", "cudnn", "flash", "sage"]
GB = 1e9
# Of the GPU's memory a plan uses so much at most; the rest is for the allocator's holes, the libraries' workspaces and
# the screen. CONTEXT is what CUDA itself takes.
USABLE, CONTEXT = 0.90, 0.5 * GB
# Of the free memory of the machine; PROCESS is Python, torch and CUDA's libraries, and what loading needs for a moment.
USABLE_RAM, PROCESS = 0.90, 3.0 * GB
# How far the result is from the exact one, for comparison only.
LOSS: dict[str, float] = {"none": 0, "int8": 1, "int8-bnb": 1, "fp8": 2, "fp8-layerwise": 3, "nf4": 4}
TILE_LOSS = 0.5


class MemoryPlan(BaseModel):
    """How a model is loaded and run.

    quantization: of the transformer's weights; bitsandbytes: nf4, int8-bnb; torchao: int8, fp8; fp8-layerwise stores
    them in fp8 and computes in dtype. offload: where the weights wait: nowhere (none), each part in the machine's
    memory until its turn (model), blocks of the transformer in the machine's memory (group) or on the disk (disk).
    streams: the next block comes while one computes. text: the text encoder stays on the GPU (resident), waits in the
    machine's memory (turns), or is loaded for a prompt that is not known yet and goes again: to the GPU (load), block
    by block through it (stream), or it computes on the CPU (cpu). decode_slots: slots decoded at once. decode_tile,
    encode_tile: pixels of the side of a tile, None for whole pictures. batched: both texts of the guidance in one
    forward. vram, ram: bytes at the worst moment; phases: of the GPU's memory, by phase; step_seconds: of a step with
    guidance, if there is any; seconds: for one clip, None where it cannot be told. fits: whether it is expected to
    work. reason: one sentence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: Literal["bf16", "fp16", "fp32"] = "bf16"
    quantization: Quantization = "none"
    offload: Offload = "none"
    streams: bool = False
    text: Text = "resident"
    text_quantization: Quantization = "none"
    decode_slots: int = 1
    decode_tile: int | None = None
    encode_tile: int | None = None
    attention: Attention = "native"
    compile: bool = False
    batched: bool = False

    vram: int = 0
    ram: int = 0
    phases: dict[str, int] = {}
    step_seconds: float | None = None
    seconds: float | None = None
    fits: bool = True
    reason: str = ""

    @property
    def choice(self) -> dict[str, Any]:
        """What is chosen, without what is predicted of it."""
        return {name: getattr(self, name) for name in CHOICES}

    @property
    def exact(self) -> bool:
        """Whether the result is the one of the model as it was published, but for rounding."""
        return distance(self.choice) == 0


# What a model is loaded with; the other choices can change while it stays loaded.
LOADED = ("dtype", "quantization", "offload", "streams", "text", "text_quantization", "attention", "compile")
CHOICES = (
    "dtype",
    "quantization",
    "offload",
    "streams",
    "text",
    "text_quantization",
    "decode_slots",
    "decode_tile",
    "encode_tile",
    "attention",
    "compile",
    "batched",
)


@dataclass(frozen=True)
class Work:
    """What a plan is for: a model and a clip. guided_steps: in how many of the steps both texts are asked, None for all
    of them where there is guidance. clip_frames: of the longest clip among the keyframes, 1 for pictures. cached: with
    First Block Cache, for which there is room; how much time it saves shows only as the clip is made, so none of it is
    counted on."""

    machine: Machine
    spec: BackboneSpec
    architecture: Architecture
    size: tuple[int, int]
    num_frames: int
    steps: int
    guided: bool
    clip_frames: int = 1
    cached: bool = False
    guided_steps: int | None = None
    pace: float = 1.0  # measured seconds of a step by predicted ones, on this machine

    @property
    def slots(self) -> int:
        return (self.num_frames - 1) // self.spec.temporal_stride + 1

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1]

    @property
    def tokens(self) -> int:
        return self.slots * self.pixels // self.spec.size_multiple**2

    @property
    def on_gpu(self) -> bool:
        return self.machine.gpu_kind != "cpu"

    @property
    def room(self) -> float:
        """Bytes of GPU memory that a plan may use; without a GPU there is only the machine's memory."""
        return USABLE * self.machine.gpu_bytes - CONTEXT if self.on_gpu else math.inf

    @property
    def room_ram(self) -> float:
        return USABLE_RAM * self.machine.free_ram_bytes or math.inf  # 0: the system does not tell


def work_of(
    machine: Machine,
    spec: BackboneSpec,
    size: tuple[int, int] | None = None,
    num_frames: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    *,
    architecture: Architecture | None = None,
    clip_frames: int = 1,
    cached: bool = False,
    guided_steps: int | None = None,
    pace: float = 1.0,
) -> Work:
    """What a plan is for. size: (width, height) in pixels; what is None is the model's own. See `Work`."""
    guidance = spec.guidance if guidance is None else guidance
    return Work(
        machine=machine,
        spec=spec,
        architecture=architecture or architecture_of(spec),
        size=size or (spec.width, spec.height),
        num_frames=num_frames or spec.num_frames,
        steps=steps or spec.steps,
        guided=guidance != 1 and not spec.distilled,
        clip_frames=clip_frames,
        cached=cached,
        guided_steps=guided_steps,
        pace=pace,
    )


def distance(choice: Mapping[str, Any]) -> float:
    # Small tiles see less of the picture around them.
    tiles: float = sum(
        TILE_LOSS + 16 / choice[name] for name in ("decode_tile", "encode_tile") if choice[name] is not None
    )
    attention = 1.0 if choice["attention"] == "sage" else 0.0
    return LOSS[choice["quantization"]] + 0.5 * LOSS[choice["text_quantization"]] + tiles + attention


def gb_words(count: float) -> str:
    return f"{count / GB:.1f} GB" if count < 100 * GB else f"{count / GB:.0f} GB"
