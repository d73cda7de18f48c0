"""`python -m pusa_app bench memory --predict`: how each model would be fitted to GPUs from 8 to 80 GB.

Everything in the table is computed by models/plan.py; docs/memory.md holds what this prints.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pusa_app.arguments import to_path
from pusa_app.cli import Parser
from pusa_app.errors import UserError
from pusa_app.models.entry import entries
from pusa_app.models.fitting import work_for
from pusa_app.models.machine import GIB, imagined
from pusa_app.models.plan import ACHIEVED, CONTEXT, DISK, PCIE, PROCESS, USABLE, USABLE_RAM, MemoryPlan, best
from pusa_app.outputs import writable
from pusa_app.pace import clock

# GPU memory, the machine's memory in GB, and a GPU that has so much, for the time.
PROFILES = (
    (8, 32, "RTX 4060"),
    (12, 32, "RTX 4070"),
    (16, 32, "RTX 4080"),
    (24, 64, "RTX 4090"),
    (48, 128, "RTX 6000 Ada"),
    (80, 256, "H100"),
)
# Where the card's own length is not the largest one. None: size and length of the card.
CLIPS: dict[str, tuple[tuple[tuple[int, int], int], ...]] = {
    "pusa-v0.5": (((848, 480), 163), ((848, 480), 85)),
    "pusa-v1": (((832, 480), 81), ((1280, 720), 81)),
}
COMMAND = "python -m pusa_app bench memory --predict"


def main(argv: Sequence[str] | None = None) -> int:
    """Print or write the table."""
    parser = Parser(prog="python -m pusa_app bench memory", description=__doc__.splitlines()[0])
    parser.add_argument("--predict", action="store_true", help="print what the planner expects, for every profile")
    parser.add_argument("--out", type=to_path, help="write it to a file")
    options = parser.parse_args(argv)
    if not options.predict:
        raise UserError("Measuring needs a GPU and is not written yet: --predict prints what is expected.")
    text = "".join(f"{line}\n" for line in lines())
    if options.out is None:
        print(text, end="")
    else:
        with writable(options.out.parent):
            Path(options.out).write_text(text, encoding="utf-8")
        print(options.out)
    return 0


def lines() -> Iterator[str]:
    """The document, line by line."""
    yield "# Memory"
    yield ""
    yield f"This file is what `{COMMAND}` prints; do not edit it. **No GPU has measured these figures yet**:"
    yield "all are predicted by `pusa_app/models/plan.py`, from parameter counts, from the allocations of the models as"
    yield "counted on torch's meta device, and from peak rates of GPUs (`models/machine.py`), most of them unverified."
    yield ""
    yield f"A plan uses at most {USABLE:.0%} of the GPU's memory less {CONTEXT / 1e9:g} GB for CUDA, and"
    yield f"{USABLE_RAM:.0%} of free memory: the program takes {PROCESS / 1e9:g} GB, the system 4 GB. Times"
    yield f"assume {ACHIEVED:.0%} of the peak rate, {PCIE / 1e9:g} GB/s from the machine's memory to the GPU and"
    yield f"{DISK / 1e9:g} GB/s from the disk; they are for the card's own steps and guidance. `models plan ID` does"
    yield "the same for one machine, tells why, and what would be done if memory ran out."
    for model, entry in entries().items():
        if entry.kind != "model" or entry.spec is None:
            continue
        spec = entry.spec
        for size, frames in CLIPS.get(model, (((spec.width, spec.height), spec.num_frames),)):
            yield ""
            yield f"## {entry.title}: {size[0]}x{size[1]}, {frames} frames, {spec.steps} steps"
            yield ""
            yield "| GPU memory | memory | plan | GPU memory used | memory used | time |"
            yield "|---|---|---|---|---|---|"
            for vram, ram, gpu in PROFILES:
                work = work_for(model, imagined(vram, ram, gpu), size, frames)
                yield _row(vram, ram, gpu, best(work))


def _row(vram: int, ram: int, gpu: str, found: MemoryPlan) -> str:
    if not found.fits:
        return f"| {vram} GB | {ram} GB | does not fit | {found.vram / 1e9:.1f} GB | {found.ram / 1e9:.1f} GB | |"
    time = f"{clock(found.seconds)} ({gpu})" if found.seconds is not None else ""
    used = f"{found.vram / 1e9:.1f} of {vram * GIB / 1e9:.1f} GB"
    return f"| {vram} GB | {ram} GB | {_words(found)} | {used} | {found.ram / 1e9:.1f} GB | {time} |"


def _words(found: MemoryPlan) -> str:
    """A plan in the fewest words."""
    parts = [
        "bf16" if found.quantization == "none" else found.quantization,
        {"none": "all on the GPU", "model": "parts take turns", "group": "blocks streamed", "disk": "from disk"}[
            found.offload
        ],
        {
            "resident": "text encoder stays",
            "turns": "text encoder in turn",
            "load": "text encoder loaded and freed",
            "stream": "text encoder streamed and freed",
            "cpu": "text on the CPU",
        }[found.text]
        + ("" if found.text_quantization == "none" else f" in {found.text_quantization}"),
    ]
    if found.decode_tile:
        parts.append(f"tiles of {found.decode_tile}")
    return ", ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
