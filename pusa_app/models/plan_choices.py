"""What can be chosen for a plan, and why something cannot. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

from pusa_app.errors import ModelError
from pusa_app.models.machine import Machine
from pusa_app.models.plan_types import (
    CHOICES,
    GB,
    MemoryPlan,
    Offload,
    Text,
    Work,
    gb_words,
)
from pusa_app.models.sizes import Quantization

TILES = (None, 768, 512, 384, 256, 192, 128)
SMALL_TOKENS = 1024  # below this many a step is mostly overhead, so texts share one batch
PIXELS_AT_ONCE = 5_000_000  # that are decoded together: two slots of 848x480; small clips at once
SMALL_BYTES = 1 * GB  # a text encoder below this stays where it is


def candidates(work: Work, fixed: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All combinations that can work, whether they fit or not."""

    def values(name: str, all_of_them: tuple[Any, ...]) -> tuple[Any, ...]:
        return (fixed[name],) if name in fixed else all_of_them

    def free(name: str) -> tuple[Any, ...]:
        return tuple(v for v in get_args(ANNOTATIONS[name]) if name in fixed or not blocked(work, name, v))

    dtype = fixed.get("dtype", dtype_of(work.machine))
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
            for both in values("batched", tuple(b and work.guided and batches(work) for b in batched)):
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


def batches(work: Work) -> bool:
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
    if name == "batched" and value and not batches(work):
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
        return f"it needs {gb_words(need)} of free disk"
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
            known = values_of(name)
            what = ", ".join(map(word_of, known)) if known else "a whole number"
            raise ModelError(f"The memory option {name} cannot be {str(value)[:40]!r}: choose {what}.") from None
        if why := blocked(work, name, checked):
            raise ModelError(f"{name}={word_of(checked)} cannot be had here: {why}.")
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


def values_of(name: str) -> tuple[Any, ...]:
    """The values of an option that has few."""
    annotation = ANNOTATIONS[name]
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if annotation is bool:
        return (False, True)
    return TILES if name.endswith("_tile") else ()


def dtype_of(machine: Machine) -> str:
    if machine.gpu_kind == "cpu":
        return "fp32"
    return "fp16" if machine.gpu_kind == "cuda" and (0, 0) < machine.compute < (8, 0) else "bf16"


def word_of(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "on", False: "off"}[value]
    return str(value)
