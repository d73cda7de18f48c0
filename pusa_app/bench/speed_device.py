"""What a device can do: operations of a forward, counted; the best rate of a matrix product, measured; memory."""

from __future__ import annotations

import time
from typing import Any

import torch

from pusa_app.bench.speed_families import Family, StepSize
from pusa_app.models.plan_types import CONTEXT, USABLE

PEAK_SECONDS = 1.0
PEAK_SIDE = {"cuda": 8192, "cpu": 1024}


def operations(family: Family, size: StepSize) -> int:
    """Of one forward of the program's model, counted by torch on its meta device: 2 per multiplication and addition of
    every matrix product, attention included. Needs no memory and no time, whatever the size."""
    from torch.utils.flop_counter import FlopCounterMode

    model = family.on_meta(size.layers)
    counter = FlopCounterMode(display=False)
    # Math attention is matrix products like all others; what a GPU's kernels do is the same count.
    with torch.inference_mode(), counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        family.step(model, family.inputs(size, torch.device("meta"), torch.float32))
    return int(counter.get_total_flops())


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """The most operations a second that a large matrix product reaches."""
    side = PEAK_SIDE.get(device.type, 4096)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best, until = 0.0, time.perf_counter() + PEAK_SECONDS
    while time.perf_counter() < until or best == 0:
        started = time.perf_counter()
        a @ b
        wait(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - started))
    return best


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def full_size(family: Family, device: torch.device) -> StepSize:
    """All layers at the size of the family's clip in the catalogue; fewer layers, and a shorter clip, where the memory
    of the GPU is too small for them."""
    from pusa_app.models.entry import entries
    from pusa_app.models.sizes import architecture_of

    entry = entries()[family.model]
    spec, model = entry.spec, architecture_of(entry.spec)
    room = USABLE * torch.cuda.mem_get_info(device)[0] - CONTEXT
    slots = spec.grid().num_slots
    area = spec.width * spec.height // spec.size_multiple**2
    # Modulation for each token, which is measured too, takes more than the model's own; it may fail alone.
    while slots > 1 and 1.5 * model.activations(slots * area) > 0.5 * room:
        slots //= 2
    left = room - 1.5 * model.activations(slots * area) - model.rest_bytes()
    blocks = model.weights() - model.rest_bytes()
    layers = int(max(1, min(model.layers, left * model.layers / blocks)))
    return StepSize(
        layers=None if layers >= model.layers else layers,
        slots=slots,
        height=spec.height // spec.spatial_stride,
        width=spec.width // spec.spatial_stride,
        rounds=5,
    )


def can_run(call: Any, device: torch.device) -> bool:
    """Whether a call fits into the device's memory."""
    try:
        call()
        wait(device)
    except torch.OutOfMemoryError:
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return False
    return True
