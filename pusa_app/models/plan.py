"""How a model is fitted to a machine: which dtype, quantization, offload, tiles, and what that takes. No torch.

`plan` looks at every combination that can work on a machine, predicts the memory of its four phases (text, encoding
of keyframes, denoising, decoding) and its time, and takes the best: one that gives the exact result if there is one and
it is not much slower than what changes the result a little, else the gentlest change. `options` says of every choice
whether it can be had, and if not why. `ladder` has the ever smaller plans for when memory runs out after all.

Everything here is predicted: `docs/memory.md` holds the table, and says what was measured.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from pusa_app.errors import ModelError
from pusa_app.models.card import BackboneSpec
from pusa_app.models.machine import Gpu, Machine
from pusa_app.models.room import apart
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
# The assumptions of the time. ACHIEVED: of a GPU's peak, by the whole forward; corrected by what a machine was measured
# to do. Bytes a second: pinned memory over PCIe 4.0 x16, pageable memory, an ordinary NVMe disk.
ACHIEVED = 0.5
PCIE, PCIE_PAGEABLE, DISK = 20 * GB, 6 * GB, 2 * GB
CPU_OPS = 0.1e12
UNKNOWN_GPU = Gpu(teraflops=50, bandwidth=400 * GB)  # to compare plans on a GPU that is not in the table
# Time of a forward with such weights, as others measured it for images with Flux on an H100 (the table
# derekl35/diffusers-quantization-benchmarks on the Hugging Face hub).
SLOWER: dict[str, float] = {"none": 1, "nf4": 1.05, "int8-bnb": 2.25, "int8": 1.25, "fp8": 1.3, "fp8-layerwise": 1.08}
# How far the result is from the exact one, for comparison only.
LOSS: dict[str, float] = {"none": 0, "int8": 1, "int8-bnb": 1, "fp8": 2, "fp8-layerwise": 3, "nf4": 4}
TILE_LOSS = 0.5
# An exact plan may take so many times the time of one that changes the result.
PATIENCE = 1.5
MOVING = {"none": 1.0, "model": 1.03, "group": 1.05, "disk": 1.15}
TILES = (None, 768, 512, 384, 256, 192, 128)
OVERLAP = 0.25
SMALL_TOKENS = 1024  # below this many a step is mostly overhead, so texts share one batch
PIXELS_AT_ONCE = 5_000_000  # that are decoded together: two slots of 848x480; small clips at once
SMALL_BYTES = 1 * GB  # a text encoder below this stays where it is


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
        return _loss(self.choice) == 0


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


def plan(
    machine: Machine,
    spec: BackboneSpec,
    size: tuple[int, int] | None = None,
    num_frames: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    override: Mapping[str, Any] | None = None,
    *,
    architecture: Architecture | None = None,
    clip_frames: int = 1,
    pace: float = 1.0,
) -> MemoryPlan:
    """The plan for a clip. size: (width, height) in pixels; what is None is the model's own.

    override: choices by hand, by the names of MemoryPlan; the rest is fitted to them. When nothing fits, the plan that
    needs least comes with fits=False. Raises ModelError with one sentence when a choice does not exist or cannot be had
    on this machine.
    """
    work = work_of(
        machine,
        spec,
        size,
        num_frames,
        steps,
        guidance,
        architecture=architecture,
        clip_frames=clip_frames,
        pace=pace,
    )
    return best(work, override)


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
    """See `plan` and `Work`."""
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


def best(work: Work, override: Mapping[str, Any] | None = None) -> MemoryPlan:
    """See `plan`."""
    fixed = checked_override(work, override or {})
    fastest: dict[float, tuple[float, dict[str, Any]]] = {}  # by how far the result is from the exact one
    least: tuple[float, dict[str, Any]] | None = None
    for choice in _candidates(work, fixed):
        vram, ram = _worst(work, choice)
        if vram <= work.room and ram <= work.room_ram:
            # Where it makes no difference, what moves less.
            loss, seconds = _loss(choice), _time(work, choice)[1] * MOVING[choice["offload"]]
            if loss not in fastest or seconds < fastest[loss][0]:
                fastest[loss] = seconds, choice
        excess = max(vram / work.room, ram / work.room_ram)
        if least is None or excess < least[0]:
            least = excess, choice
    if fastest:
        found = predicted(work, _gentlest(fastest))
        return found.model_copy(update={"reason": _reason(work, found, fixed)})
    assert least is not None, "there is always a candidate"
    found = predicted(work, least[1])
    return found.model_copy(update={"reason": _too_large(work, found)})


def _gentlest(fastest: dict[float, tuple[float, dict[str, Any]]]) -> dict[str, Any]:
    """The one nearest to the exact result that takes no more than PATIENCE times as long as any that is farther."""
    losses = sorted(fastest)
    for number, loss in enumerate(losses):
        if all(fastest[loss][0] <= PATIENCE * fastest[other][0] for other in losses[number + 1 :]):
            break
    return fastest[loss][1]


def text_beside(work: Work, plan: MemoryPlan) -> bool:
    """Whether the machine's memory holds a text encoder that is loaded for a prompt beside the transformer that waits
    there; where not, the transformer goes first."""
    model = work.architecture
    if plan.text == "load" or plan.offload not in ("model", "group"):
        return True
    weights = model.experts * model.weights(plan.quantization, 4 if plan.dtype == "fp32" else 2)
    return PROCESS + weights + model.vae.bytes + model.encoder.bytes(plan.text_quantization) <= work.room_ram


def _worst(work: Work, choice: Mapping[str, Any]) -> tuple[float, float]:
    """Bytes of the GPU's memory and of the machine's at the worst moment."""
    phases, ram = _memory(work, choice)
    return (max(phases.values()) if work.on_gpu else 0.0), ram


def _loss(choice: Mapping[str, Any]) -> float:
    # Small tiles see less of the picture around them.
    tiles: float = sum(
        TILE_LOSS + 16 / choice[name] for name in ("decode_tile", "encode_tile") if choice[name] is not None
    )
    attention = 1.0 if choice["attention"] == "sage" else 0.0
    return LOSS[choice["quantization"]] + 0.5 * LOSS[choice["text_quantization"]] + tiles + attention


# --- what can be chosen -----------------------------------------------------------------------------------------------


def _candidates(work: Work, fixed: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All combinations that can work, whether they fit or not."""

    def values(name: str, all_of_them: tuple[Any, ...]) -> tuple[Any, ...]:
        return (fixed[name],) if name in fixed else all_of_them

    def free(name: str) -> tuple[Any, ...]:
        return tuple(v for v in get_args(ANNOTATIONS[name]) if name in fixed or not blocked(work, name, v))

    dtype = fixed.get("dtype", _dtype(work.machine))
    small = work.tokens < SMALL_TOKENS
    for quantization in values("quantization", free("quantization")):
        for offload in values("offload", free("offload")):
            if clash(quantization, offload):
                continue
            streams = fixed.get("streams", offload in ("group", "disk") and work.machine.gpu_kind == "cuda")
            if streams and offload not in ("group", "disk"):
                continue
            base = {
                "dtype": dtype,
                "quantization": quantization,
                "offload": offload,
                "streams": streams,
                "attention": fixed.get("attention", "native"),
                "compile": fixed.get("compile", False),
            }
            batched = (small,) if small or offload not in ("group", "disk") else (False, True)
            for both in values("batched", tuple(b and work.guided and _batches(work) for b in batched)):
                for text, text_quantization in _texts(work, fixed, offload):
                    for decode in _decoding(work, fixed):
                        yield (
                            base
                            | decode
                            | {
                                "batched": both,
                                "text": text,
                                "text_quantization": text_quantization,
                            }
                        )


def _batches(work: Work) -> bool:
    """SkyReels takes one clip at a time; Mochi would need a mask, without which attention is much faster."""
    family = work.architecture.kind
    return family != "skyreels" and (family != "mochi" or work.tokens < SMALL_TOKENS)


def _texts(work: Work, fixed: Mapping[str, Any], offload: Offload) -> Iterator[tuple[Text, Quantization]]:
    places: tuple[Text, ...] = tuple(t for t in get_args(Text) if not blocked(work, "text", t))
    if work.architecture.encoder.bytes() < SMALL_BYTES:
        places = ("resident",) if offload == "none" else ("turns",)
    else:
        places = tuple(t for t in places if t != "resident" and (t != "turns" or offload != "disk"))
    quantizations = tuple(
        q
        for q in get_args(Quantization)
        if q in ("none", "nf4", "int8-bnb") and not blocked(work, "text_quantization", q)
    )
    for place in (fixed["text"],) if "text" in fixed else places:
        for quantization in (fixed["text_quantization"],) if "text_quantization" in fixed else quantizations:
            # bitsandbytes' layers live on the GPU, so a quantized encoder is loaded onto it.
            if quantization == "none" or place in ("resident", "load") or "text" in fixed:
                yield place, quantization


def _decoding(work: Work, fixed: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Ways to decode and to encode, from the fastest: of each the first that fits beside anything is the one to take,
    so only those with a tile that is smaller than the picture come after the whole one."""
    largest = max(work.size)
    tiles = tuple(tile for tile in TILES if tile is None or tile < largest)
    whole = work.architecture.vae.whole
    many = max(1, min(work.slots, PIXELS_AT_ONCE // (work.spec.temporal_stride * work.pixels)))
    slots = (1,) if whole or work.architecture.kind != "mochi" else tuple(dict.fromkeys((many, 1)))
    for decode_tile in (fixed["decode_tile"],) if "decode_tile" in fixed else tiles:
        for encode_tile in (fixed["encode_tile"],) if "encode_tile" in fixed else (None, *tiles[1:]):
            if encode_tile is not None and "encode_tile" not in fixed and not _needs_tiles(work):
                continue
            for count in (fixed["decode_slots"],) if "decode_slots" in fixed else slots:
                if decode_tile is None or count == slots[-1] or "decode_slots" in fixed:
                    yield {"decode_tile": decode_tile, "encode_tile": encode_tile, "decode_slots": count}


def _needs_tiles(work: Work) -> bool:
    """Whether encoding whole pictures would not fit even alone."""
    vae = work.architecture.vae
    need = vae.bytes + vae.encode_bytes(work.pixels, work.clip_frames)
    return need > 0.5 * (work.room if work.on_gpu else work.room_ram)


def clash(quantization: str, offload: str) -> str:
    """Why two choices cannot go together, or ""."""
    if quantization in ("nf4", "int8-bnb") and offload in ("group", "disk"):
        return "bitsandbytes' weights with offloaded blocks are not tried yet: choose int8 or fp8-layerwise instead"
    if quantization == "int8-bnb" and offload == "model":
        return "bitsandbytes' 8-bit weights cannot leave the GPU: choose no offload, or nf4"
    if quantization in ("int8", "fp8") and offload == "disk":
        return "torchao's weights cannot be read from the disk block by block: choose fp8-layerwise or none"
    return ""


def blocked(work: Work, name: str, value: Any) -> str:
    """Why a choice cannot be had on this machine whatever else is chosen, or ""."""
    machine = work.machine
    cuda, has = machine.gpu_kind == "cuda", machine.packages.__contains__
    if name in ("quantization", "text_quantization"):
        return _blocked_quantization(machine, str(value), text=name == "text_quantization")
    if name in ("offload", "streams", "text"):
        return _blocked_place(work, name, value)
    if name == "dtype" and value == "bf16" and cuda and machine.compute < (8, 0):
        return "this GPU has no bf16: it takes fp16"
    if name == "attention" and value != "native":
        return _blocked_attention(machine, str(value), has)
    if name == "compile" and value:
        if not cuda or machine.platform == "win32" or not has("triton"):
            return "it needs a GPU of NVIDIA, Linux and the package triton"
        if work.tokens < SMALL_TOKENS:
            return "compiling takes longer than it saves for clips this small"
    if name == "batched" and value and not _batches(work):
        return "with a clip of this size this model runs one text after the other, which is faster and needs less"
    if name == "batched" and value and not work.guided:
        return "without guidance there is one text only"
    return ""


def _blocked_place(work: Work, name: str, value: Any) -> str:
    """The same of where weights wait and the text encoder computes."""
    cuda, need = work.machine.gpu_kind == "cuda", 1.1 * work.architecture.experts * work.architecture.weights()
    if name == "offload" and value != "none" and not work.on_gpu:
        return "without a GPU everything is in the machine's memory already"
    if name == "text" and value in ("load", "stream", "turns") and not work.on_gpu:
        return "there is no GPU: the text encoder computes on the CPU"
    if value in ("group", "disk", "stream", True) and not cuda:
        return "it needs a GPU of NVIDIA"
    if value == "disk" and work.machine.disk_bytes < need:
        return f"it needs {_gb(need)} of free disk"
    return ""


def _blocked_quantization(machine: Machine, value: str, text: bool) -> str:
    cuda = machine.gpu_kind == "cuda"
    if value == "none":
        return ""
    if text and value in ("int8", "fp8", "fp8-layerwise"):
        return "text encoders are quantized with bitsandbytes: nf4 or int8-bnb"
    if value in ("nf4", "int8-bnb"):
        if not cuda:
            return "bitsandbytes needs a GPU of NVIDIA"
        return "" if "bitsandbytes" in machine.packages else "install it with `pip install bitsandbytes`"
    if value in ("int8", "fp8"):
        if "torchao" not in machine.packages:
            return "install it with `pip install torchao`"
        if value == "fp8" and machine.compute < (8, 9):
            return "it needs a GPU of the RTX 40 series or newer"
        return "" if machine.gpu_kind != "mps" else "it needs a GPU of NVIDIA"
    return "" if machine.gpu_kind != "mps" else "Apple's GPUs have no fp8"


def _blocked_attention(machine: Machine, value: str, has: Callable[[object], bool]) -> str:
    if machine.gpu_kind != "cuda":
        return "it needs a GPU of NVIDIA"
    if machine.compute < (8, 0):
        return "it needs a GPU of the RTX 30 series or newer"
    if value == "flash" and not (has("flash_attn") or has("flash_attn_interface")):
        return "install it with `pip install flash-attn`"
    if value == "sage" and not has("sageattention"):
        return "install it with `pip install sageattention`"
    return ""


ANNOTATIONS: dict[str, Any] = {
    name: field.annotation for name, field in MemoryPlan.model_fields.items() if name in CHOICES
}


def checked_override(work: Work, override: Mapping[str, Any]) -> dict[str, Any]:
    """Choices by hand; raises ModelError with one sentence when one cannot be made."""
    for name, value in override.items():
        if name not in CHOICES:
            raise ModelError(f"There is no memory option {str(name)[:40]!r}: choose among {', '.join(CHOICES)}.")
        try:
            checked = getattr(MemoryPlan.model_validate({name: value}), name)
        except ValidationError:
            known = _values(name)
            what = ", ".join(map(_word, known)) if known else "a whole number"
            raise ModelError(f"The memory option {name} cannot be {str(value)[:40]!r}: choose {what}.") from None
        if why := blocked(work, name, checked):
            raise ModelError(f"{name}={_word(checked)} cannot be had here: {why}.")
        multiple = work.spec.size_multiple
        if name.endswith("_tile") and checked is not None and (checked < 64 or checked % multiple):
            raise ModelError(f"{name} must be a multiple of {multiple} pixels, and 64 at least.")
        if name == "decode_slots" and checked < 1:
            raise ModelError("decode_slots must be 1 or more.")
    fixed = {name: getattr(MemoryPlan.model_validate({name: value}), name) for name, value in override.items()}
    if why := clash(fixed.get("quantization", "none"), fixed.get("offload", "none")):
        raise ModelError(f"These two do not go together: {why}.")
    if fixed.get("streams") and fixed.get("offload", "group") not in ("group", "disk"):
        raise ModelError("streams needs offload=group or offload=disk.")
    return fixed


def _values(name: str) -> tuple[Any, ...]:
    """The values of an option that has few."""
    annotation = ANNOTATIONS[name]
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if annotation is bool:
        return (False, True)
    return TILES if name.endswith("_tile") else ()


@dataclass(frozen=True)
class Option:
    """One value of one choice: whether it can be had, and if not, why in words."""

    name: str
    value: Any
    available: bool
    reason: str = ""


def options(work: Work) -> list[Option]:
    """Every value of every choice, so that none is hidden without a reason."""
    found = []
    for name in CHOICES:
        for value in _values(name):
            why = blocked(work, name, value)
            if not why:
                fitted = best(work, {name: value})
                why = "" if fitted.fits else fitted.reason
            found.append(Option(name, value, not why, why))
    return found


# --- what it takes ----------------------------------------------------------------------------------------------------


def predicted(work: Work, choice: Mapping[str, Any]) -> MemoryPlan:
    """A choice with what it takes."""
    phases, ram = _memory(work, choice)
    step, seconds = _time(work, choice)
    known = work.machine.gpu is not None or work.pace != 1.0
    vram = max(phases.values()) if work.on_gpu else 0.0
    return MemoryPlan(
        **choice,
        vram=round(vram),
        ram=round(ram),
        phases={name: round(value) for name, value in phases.items()},
        step_seconds=step if known else None,
        seconds=seconds if known else None,
        fits=vram <= work.room and ram <= work.room_ram,
    )


def _memory(work: Work, choice: Mapping[str, Any]) -> tuple[dict[str, float], float]:
    """Bytes of GPU memory in each phase, and of the machine's at the worst moment."""
    model, vae = work.architecture, work.architecture.vae
    width = 4 if choice["dtype"] == "fp32" else 2
    quantization, offload, text = choice["quantization"], choice["offload"], choice["text"]
    one = model.weights(quantization, width)
    pinned_to_gpu = quantization in ("nf4", "int8-bnb")  # bitsandbytes' weights take no turns
    both = one * (model.experts if pinned_to_gpu else 1)
    encoder = model.encoder.bytes(choice["text_quantization"], width)
    vae_bytes = vae.params * (4 if choice["dtype"] == "fp32" else vae.dtype_bytes)
    scale = 2.0 if choice["dtype"] == "fp32" and vae.dtype_bytes == 2 else 1.0

    # 1. What works in each phase.
    active = model.activations(work.tokens, 2 if choice["batched"] else 1, width)
    if work.cached:
        active += model.cache_bytes(work.tokens, 2 if work.guided else 1, 2 if choice["batched"] else 1, width)
    if offload in ("group", "disk"):
        # The block that computes, and with streams the one that comes; the one before may not be gone yet.
        moving = (3 if choice["streams"] else 1) * model.block_bytes(quantization, width)
        transformer = moving + model.rest_bytes(quantization, width)
    else:
        transformer = both
    text_active = 0.5 * GB * min(1.0, encoder / (9 * GB))
    text_there = {"cpu": 0.0, "stream": encoder / 8 + text_active}.get(text, encoder + text_active)
    decode = scale * vae.decode_bytes(_tile(work, choice["decode_tile"]), work.num_frames, choice["decode_slots"])
    encode = scale * vae.encode_bytes(_tile(work, choice["encode_tile"]), work.clip_frames)

    # 2. What is there besides: with no offload everything that stays, else what never leaves (see Fit.place).
    one_waits = swaps(model, quantization, offload)
    stays = {"text": encoder if text == "resident" else 0.0, "transformer": 0.0, "vae": 0.0}
    if offload == "none":
        stays |= {"transformer": both, "vae": vae_bytes}
    elif pinned_to_gpu:
        stays["transformer"] = both
    # A text encoder that takes turns with two experts has their place; it comes beside one that never moves.
    beside = stays["vae"] if one_waits and text == "turns" else sum(stays.values())
    phases = {
        "text": (text_active if text == "resident" else text_there) + beside,
        "encoding": encode + vae_bytes + stays["text"] + stays["transformer"],
        "denoising": transformer + active + stays["text"] + stays["vae"],
        "decoding": decode + vae_bytes + stays["text"] + stays["transformer"],
    }

    # 3. The machine's memory.
    if not work.on_gpu:
        held = model.experts * one + (encoder if text == "resident" else 0) + vae_bytes
        peak = max(phases[name] for name in ("encoding", "decoding")) - vae_bytes - stays["transformer"] - stays["text"]
        work_bytes = max(active, peak, 0 if text == "resident" else encoder)
        return phases, PROCESS + held + work_bytes
    waiting = {
        "none": model.experts * one if one_waits else 0,  # all of them, where one has gone and the next is to come
        "model": (0 if pinned_to_gpu else model.experts * one) + vae_bytes,
        "group": model.experts * one + vae_bytes,
        "disk": 4 * model.block_bytes(quantization, width) + vae_bytes,
    }[offload]
    # A text encoder that is loaded for a prompt comes while no transformer waits in memory (see texts.py).
    alone = {"turns": waiting + encoder, "stream": encoder, "cpu": encoder}.get(text, 0.0)
    return phases, PROCESS + max(waiting, alone)


def swaps(architecture: Architecture, quantization: str, offload: str) -> bool:
    """Whether one of two experts waits in the machine's memory though nothing else does. bitsandbytes' weights take no
    turns."""
    return offload == "none" and architecture.experts > 1 and quantization not in ("nf4", "int8-bnb")


def _tile(work: Work, tile: int | None) -> float:
    """Pixels that are worked on at once."""
    width, height = work.size
    return float(work.pixels if tile is None else min(width, tile) * min(height, tile))


def _tiling(work: Work, tile: int | None) -> float:
    """How many times the pixels of the picture are computed."""
    if tile is None:
        return 1.0
    share = 1.0
    for side in work.size:
        starts = tile_starts(side, tile)
        share *= (side + sum(min(tile, side) - (b - a) for a, b in itertools.pairwise(starts))) / side
    return share


def tile_starts(side: int, tile: int, multiple: int = 1) -> list[int]:
    """Where the tiles of a side begin, in pixels, so that neighbours overlap by OVERLAP of a tile or more and no tile
    ends outside. multiple: of which every beginning is one."""
    if side <= tile:
        return [0]
    count = math.ceil((side - tile) / (tile * (1 - OVERLAP))) + 1
    return [multiple * round(number * (side - tile) / (count - 1) / multiple) for number in range(count)]


def rough_seconds(work: Work, plan: MemoryPlan) -> float:
    """Seconds of a clip, on a machine of which nothing is known too: to tell minutes from days."""
    return _time(work, plan.choice)[1]


def _step(work: Work, choice: Mapping[str, Any], passes: int) -> float:
    """Seconds of a step in which so many texts are asked."""
    model = work.architecture
    compute = passes * model.ops(work.tokens) * SLOWER[choice["quantization"]] / _rate(work)
    if choice["compile"]:
        compute *= 0.95
    transfer = 0.0
    if choice["offload"] in ("group", "disk"):
        speed = DISK if choice["offload"] == "disk" else PCIE if choice["streams"] else PCIE_PAGEABLE
        moves = 1 if choice["batched"] else passes
        transfer = moves * model.weights(choice["quantization"], 4 if choice["dtype"] == "fp32" else 2) / speed
    return work.pace * (max(compute, transfer) if choice["streams"] else compute + transfer)


def _rate(work: Work) -> float:
    """Operations a second that a forward is expected to reach."""
    gpu = work.machine.gpu or UNKNOWN_GPU
    return ACHIEVED * gpu.teraflops * 1e12 if work.on_gpu else CPU_OPS


def _time(work: Work, choice: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds of a step with guidance, if there is any, and of a clip: text, keyframes, steps, decoding, and what moves
    between them."""
    model, vae, rate = work.architecture, work.architecture.vae, _rate(work)
    width = 4 if choice["dtype"] == "fp32" else 2
    weights = model.weights(choice["quantization"], width)
    passes = 2 if work.guided else 1
    step = _step(work, choice, passes)
    guided = work.steps if work.guided_steps is None else min(work.guided_steps, work.steps)
    steps = guided * step + (work.steps - guided) * _step(work, choice, 1)

    encoder = model.encoder.bytes(choice["text_quantization"], width)
    computing = 2 * model.encoder.params * model.encoder.tokens * passes
    text = {
        "resident": computing / rate,
        "turns": 2 * encoder / PCIE_PAGEABLE + computing / rate,
        "load": model.encoder.bytes() / DISK + computing / rate,
        "stream": encoder / DISK + passes * encoder / PCIE_PAGEABLE + computing / rate,
        "cpu": encoder / DISK + computing / CPU_OPS,
    }[choice["text"]]
    if choice["offload"] == "model":
        text += 2 * model.experts * weights / PCIE_PAGEABLE
    elif model.experts > 1 and choice["offload"] == "none":
        text += 2 * weights / PCIE_PAGEABLE
    # fp32 convolutions run at half the rate.
    pixels = work.pixels * 2 * (vae.dtype_bytes / 2 if work.on_gpu else 1) / 2
    decode = pixels * work.num_frames * vae.decode_ops * _tiling(work, choice["decode_tile"]) / rate
    encode = pixels * work.clip_frames * vae.encode_ops * _tiling(work, choice["encode_tile"]) / rate
    return step, text + encode + steps + decode


def _dtype(machine: Machine) -> str:
    if machine.gpu_kind == "cpu":
        return "fp32"
    return "fp16" if machine.gpu_kind == "cuda" and (0, 0) < machine.compute < (8, 0) else "bf16"


# --- when memory runs out ---------------------------------------------------------------------------------------------


def ladder(work: Work, start: MemoryPlan) -> list[MemoryPlan]:
    """Ever smaller plans, from the next one below `start`: first what costs only time, then what changes the result.

    Each rung keeps the savings of those before it. What this machine cannot have is left out, and so is what would not
    need less in any phase.
    """
    rungs: list[MemoryPlan] = []
    now = start.choice
    for change in _rungs(work):
        then = now | {name: value for name, value in change.items() if _is_smaller(name, value, now[name])}
        if then == now or clash(then["quantization"], then["offload"]):
            continue
        if any(blocked(work, name, value) for name, value in then.items() if value != now[name]):
            continue
        found = predicted(work, then)
        below = rungs[-1] if rungs else predicted(work, now)
        if not _saves(found, below, work):
            continue
        now = then
        rungs.append(found.model_copy(update={"reason": f"Memory ran out before: {_how(work, found)}."}))
    return rungs


def _rungs(work: Work) -> Iterator[dict[str, Any]]:
    streams = work.machine.gpu_kind == "cuda"
    yield {"batched": False, "decode_slots": 1}
    yield {"offload": "model", "text": "load"}
    yield {"offload": "group", "streams": streams, "text": "stream"}
    yield {"text": "cpu"}
    for tile in (512, 256, 128):
        yield {"decode_tile": tile, "encode_tile": tile}
    yield {"offload": "disk", "streams": streams}
    yield {"quantization": "fp8-layerwise"}


# From the one that needs most memory on.
_ORDER: dict[str, tuple[Any, ...]] = {
    "batched": (True, False),
    "offload": ("none", "model", "group", "disk"),
    "text": ("resident", "turns", "load", "stream", "cpu"),
    "quantization": ("none", "fp8-layerwise"),
    "streams": (False, True),
}


def _is_smaller(name: str, value: Any, now: Any) -> bool:
    if name in _ORDER:
        order = _ORDER[name]
        return value in order and now in order and order.index(value) > order.index(now)
    return now is None or value < now


def _saves(found: MemoryPlan, below: MemoryPlan, work: Work) -> bool:
    if not work.on_gpu:
        return found.ram < below.ram
    less = any(found.phases[name] < 0.99 * below.phases[name] for name in found.phases)
    return (less or found.ram < below.ram) and found.ram <= max(work.room_ram, below.ram)


# --- in words ---------------------------------------------------------------------------------------------------------


def _reason(work: Work, found: MemoryPlan, fixed: Mapping[str, Any]) -> str:
    where = (
        f"{_gb(found.vram)} of the {_gb(work.room)} that can be used of {_gpu_words(work.machine)}"
        if work.on_gpu
        else f"{_gb(found.ram)} of this machine's memory"
    )
    by_hand = ", as chosen by hand" if fixed else ""
    return f"It takes {where}: {_how(work, found)}{by_hand}."


def _too_large(work: Work, found: MemoryPlan) -> str:
    needs = []
    if found.vram > work.room:
        needs.append("{} of GPU memory where {} can be used".format(*apart(found.vram, max(0, work.room), _gb)))
    if found.ram > work.room_ram:
        needs.append("{} of memory where {} can be used".format(*apart(found.ram, work.room_ram, _gb)))
    return f"It would take {' and '.join(needs)}: make it shorter or smaller, or close other programs."


def _gpu_words(machine: Machine) -> str:
    return machine.gpu_name or "this GPU"


def _how(work: Work, found: MemoryPlan) -> str:
    """What is done, in a phrase."""
    one_waits = swaps(work.architecture, found.quantization, found.offload)
    stays = "all but the expert that waits stays on the GPU" if one_waits else "the whole model stays on the GPU"
    parts = [
        {
            "none": stays if found.vram else "everything is in memory",
            "model": "text encoder, transformer and VAE take turns on the GPU",
            "group": "the transformer's blocks come to the GPU one after the other",
            "disk": "the transformer's blocks come from the disk one after the other",
        }[found.offload]
    ]
    if not found.vram and not found.batched and found.decode_slots == 1:
        parts.append("one text and one slot at a time")
    if found.quantization != "none":
        parts.append(f"its weights in {found.quantization}")
    if found.text_quantization != "none":
        parts.append(f"the text encoder in {found.text_quantization}")
    if found.text == "cpu" and found.vram:
        parts.append("the text is encoded on the CPU")
    if found.decode_tile is not None:
        parts.append(f"decoded in tiles of {found.decode_tile} pixels")
    if found.encode_tile is not None:
        parts.append(f"clips encoded in tiles of {found.encode_tile} pixels")
    return ", ".join(parts)


def _gb(count: float) -> str:
    return f"{count / GB:.1f} GB" if count < 100 * GB else f"{count / GB:.0f} GB"


def _word(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "on", False: "off"}[value]
    return str(value)
