"""What a plan takes: memory in each phase, and time. No torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from pusa_app.models.machine import Gpu
from pusa_app.models.plan_types import (
    GB,
    PROCESS,
    MemoryPlan,
    Work,
)
from pusa_app.models.sizes import Architecture

# The assumptions of the time. ACHIEVED: of a GPU's peak, by the whole forward; corrected by what a machine was measured
# to do. Bytes a second: pinned memory over PCIe 4.0 x16, pageable memory, an ordinary NVMe disk.
ACHIEVED = 0.5
PCIE, PCIE_PAGEABLE, DISK = 20 * GB, 6 * GB, 2 * GB
CPU_OPS = 0.1e12
UNKNOWN_GPU = Gpu(teraflops=50, bandwidth=400 * GB)  # to compare plans on a GPU that is not in the table
# Time of a forward with such weights, as others measured it for images with Flux on an H100 (the table
# derekl35/diffusers-quantization-benchmarks on the Hugging Face hub).
SLOWER: dict[str, float] = {"none": 1, "nf4": 1.05, "int8-bnb": 2.25, "int8": 1.25, "fp8": 1.3, "fp8-layerwise": 1.08}
OVERLAP = 0.25


def worst(work: Work, choice: Mapping[str, Any]) -> tuple[float, float]:
    """Bytes of the GPU's memory and of the machine's at the worst moment."""
    phases, ram = memory(work, choice)
    return (max(phases.values()) if work.on_gpu else 0.0), ram


def predicted(work: Work, choice: Mapping[str, Any]) -> MemoryPlan:
    """A choice with what it takes."""
    phases, ram = memory(work, choice)
    step, seconds = times(work, choice)
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


def memory(work: Work, choice: Mapping[str, Any]) -> tuple[dict[str, float], float]:
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
    return times(work, plan.choice)[1]


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


def times(work: Work, choice: Mapping[str, Any]) -> tuple[float, float]:
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
