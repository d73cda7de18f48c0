"""A plan in sentences. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pusa_app.models.machine import Machine
from pusa_app.models.plan_cost import (
    swaps,
)
from pusa_app.models.plan_types import (
    MemoryPlan,
    Work,
    gb_words,
)
from pusa_app.models.room import apart


def reason(work: Work, found: MemoryPlan, fixed: Mapping[str, Any]) -> str:
    where = (
        f"{gb_words(found.vram)} of the {gb_words(work.room)} that can be used of {_gpu_words(work.machine)}"
        if work.on_gpu
        else f"{gb_words(found.ram)} of this machine's memory"
    )
    by_hand = ", as chosen by hand" if fixed else ""
    return f"It takes {where}: {how(work, found)}{by_hand}."


def too_large(work: Work, found: MemoryPlan) -> str:
    needs = []
    if found.vram > work.room:
        needs.append("{} of GPU memory where {} can be used".format(*apart(found.vram, max(0, work.room), gb_words)))
    if found.ram > work.room_ram:
        needs.append("{} of memory where {} can be used".format(*apart(found.ram, work.room_ram, gb_words)))
    return f"It would take {' and '.join(needs)}: make it shorter or smaller, or close other programs."


def _gpu_words(machine: Machine) -> str:
    return machine.gpu_name or "this GPU"


def how(work: Work, found: MemoryPlan) -> str:
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
