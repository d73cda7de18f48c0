"""`python -m pusa_app bench memory`: how much memory each model takes on GPUs from 8 to 80 GB, measured and predicted.

On a machine with a GPU of NVIDIA: models of full size with random weights, no download, each loaded and run for two
steps by the plan that every profile would get, as far as this GPU can stand for it (memory_measure.py). Anywhere, with
--predict: what models/plan.py expects; docs/memory.md holds what that prints.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pusa_app.arguments import to_path
from pusa_app.cli import Parser
from pusa_app.errors import UserError
from pusa_app.models.entry import Entry, entries
from pusa_app.models.fitting import work_for
from pusa_app.models.machine import GIB, Machine, imagined
from pusa_app.models.plan import best
from pusa_app.models.plan_cost import ACHIEVED, DISK, PCIE, swaps
from pusa_app.models.plan_types import CONTEXT, PROCESS, USABLE, USABLE_RAM, MemoryPlan, Work
from pusa_app.outputs import writable
from pusa_app.pace import clock
from pusa_app.settings import default_data_dir

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
MEASURE = "python -m pusa_app bench memory"
COMMAND = f"{MEASURE} --predict"
LOG = "bench-memory.log"


def main(argv: Sequence[str] | None = None) -> int:
    """Print or write a table; of the measured one 0 when the goal is met, 1 when not. Raises UserError."""
    parser = Parser(prog=MEASURE, description=__doc__.splitlines()[0])
    parser.add_argument("--predict", action="store_true", help="print what the planner expects, for every profile")
    parser.add_argument("--model", nargs="+", metavar="ID", help="only these models of the catalogue")
    parser.add_argument(
        "--profile", nargs="+", type=int, choices=[profile[0] for profile in PROFILES], help="only these, in GB"
    )
    usual = str(default_data_dir()).replace("%", "%%")
    parser.add_argument(
        "--folder",
        type=to_path,
        help=f"where models are written while they are measured, up to 140 GB; by default the data folder, {usual}",
    )
    parser.add_argument("--out", type=to_path, help="write the table to a file")
    options = parser.parse_args(argv)
    models = chosen(options.model)
    profiles = [profile for profile in PROFILES if options.profile is None or profile[0] in options.profile]
    with contextlib.nullcontext() if options.out is None else writable(options.out.parent):
        if not options.predict:
            return _measure(models, profiles, options.folder, options.out)
        text = "".join(f"{line}\n" for line in lines(models, profiles))
        if options.out is None:
            print(text, end="")
        else:
            Path(options.out).write_text(text, encoding="utf-8")
            print(options.out)
    return 0


def chosen(names: Sequence[str] | None = None) -> list[Entry]:
    """The models of the catalogue that the planner knows, or those of them that are named. Raises UserError."""
    known = {name: entry for name, entry in entries().items() if entry.kind == "model" and entry.spec is not None}
    for name in names or ():
        if name not in known:
            raise UserError(f"There is no model {name[:100]!r} to measure: choose among {', '.join(known)}.")
    return [entry for name, entry in known.items() if names is None or name in names]


def clips_of(entry: Entry) -> tuple[tuple[tuple[int, int], int], ...]:
    """Sizes and lengths that a model is looked at with."""
    spec = entry.spec
    assert spec is not None
    return CLIPS.get(entry.id, (((spec.width, spec.height), spec.num_frames),))


# --- measured ---------------------------------------------------------------------------------------------------------


def _measure(
    models: Sequence[Entry], profiles: Sequence[tuple[int, int, str]], chosen_folder: Path | None, out: Path | None
) -> int:
    from pusa_app.bench.memory_measure import Profile, cases_of, check_disk, ended_by_signals, folder_of, gpu_here, held
    from pusa_app.bench.memory_models import random_model

    machine = gpu_here()
    there = held([Profile(*profile) for profile in profiles], machine)
    work = [
        (random_model(entry), [case for clip in clips_of(entry) for case in cases_of(entry, *clip, there, machine)])
        for entry in models
    ]
    folder = folder_of(chosen_folder)
    for model, cases in work:  # before hours have passed
        check_disk(folder, model, cases)
    said: list[str] = []

    def say(line: str = "") -> None:
        said.append(line)
        print(line, flush=True)

    try:
        with ended_by_signals():
            return _table(work, machine, folder, say)
    finally:
        if out is not None:
            out.write_text("".join(f"{line}\n" for line in said), encoding="utf-8")


def _table(work: Sequence[tuple[Any, Sequence[Any]]], machine: Machine, folder: Path, say: Callable[..., None]) -> int:
    """Measure all of it, and say every row as it comes. work: models and their cases."""
    import torch

    from pusa_app.bench.memory_measure import HEAD, Row, measure_model, row_text, verdict

    for line in (
        "# Memory, measured",
        "",
        f"What `{MEASURE}` measured on {machine.gpu_name} ({machine.gpu_bytes / GIB:.0f} GB)",
        f"with torch {torch.__version__} and random weights of full size: measured / predicted. Every row is a process",
        "whose tensors have what its profile leaves beside CUDA, and its plan needs no package that is not here. GPU",
        f"memory: tensors and what CUDA takes, which is expected to be {CONTEXT / 1e9:g} GB; taken: with the holes",
        "between them. Memory: of the process, with mapped files. A step: of this GPU, once it is warm.",
    ):
        say(line)
    rows: list[Row] = []
    log = default_data_dir() / "logs" / LOG
    for model, cases in work:
        for row in measure_model(model, cases, folder, log):
            before = rows[-1].case if rows else None
            if before is None or (before.entry, before.work.size, before.work.num_frames) != _kind(row.case):
                say()
                say(f"## {model.entry.title}: {_size(row.case.work.size)}, {row.case.work.num_frames} frames")
                say()
                for line in HEAD:
                    say(line)
            say(row_text(row, _words))
            rows.append(row)
    text, met = verdict(rows)
    say()
    for line in text:
        say(line)
    if not met:
        print(f"What the processes said is in {log}.")
    return 0 if met else 1


def _kind(case: Any) -> tuple[Entry, tuple[int, int], int]:
    """What the rows of one table have in common."""
    return case.entry, case.work.size, case.work.num_frames


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


# --- predicted --------------------------------------------------------------------------------------------------------


def lines(models: Sequence[Entry], profiles: Sequence[tuple[int, int, str]] = PROFILES) -> Iterator[str]:
    """The document, line by line."""
    packages = imagined(*PROFILES[0]).packages
    yield "# Memory"
    yield ""
    yield f"This file is what `{COMMAND}` prints; do not edit it. **No GPU has measured these figures yet**:"
    yield "all are predicted by `pusa_app/models/plan.py`, from parameter counts, from the allocations of the models as"
    yield "counted on torch's meta device, and from peak rates of GPUs (`models/machine.py`), most of them unverified."
    yield f"`{MEASURE}` measures them on a machine with a GPU of NVIDIA, with random weights of full"
    yield "size and without a download; nobody has run it on one yet."
    yield ""
    yield f"A plan uses at most {USABLE:.0%} of the GPU's memory less {CONTEXT / 1e9:g} GB for CUDA, and"
    yield f"{USABLE_RAM:.0%} of free memory: the program takes {PROCESS / 1e9:g} GB, the system 4 GB. Times"
    yield f"assume {ACHIEVED:.0%} of the peak rate, {PCIE / 1e9:g} GB/s from the machine's memory to the GPU and"
    yield f"{DISK / 1e9:g} GB/s from the disk; they are for the card's own steps and guidance. The packages"
    yield f"{', '.join(packages[:-1])} and {packages[-1]} are taken to be installed; int8 and fp8 need torchao, which"
    yield "the program does not install. `models plan ID` does the same for one machine with what it has, tells why,"
    yield "and what would be done if memory ran out."
    for entry in models:
        for size, frames in clips_of(entry):
            steps = entry.spec.steps if entry.spec is not None else 0
            yield ""
            yield f"## {entry.title}: {_size(size)}, {frames} frames, {steps} steps"
            yield ""
            yield "| GPU memory | memory | plan | GPU memory used | memory used | time |"
            yield "|---|---|---|---|---|---|"
            for vram, ram, gpu in profiles:
                work = work_for(entry.id, imagined(vram, ram, gpu), size, frames)
                yield _row(vram, ram, gpu, work, best(work))


def _row(vram: int, ram: int, gpu: str, work: Work, found: MemoryPlan) -> str:
    if not found.fits:
        return f"| {vram} GB | {ram} GB | does not fit | {found.vram / 1e9:.1f} GB | {found.ram / 1e9:.1f} GB | |"
    time = f"{clock(found.seconds)} ({gpu})" if found.seconds is not None else ""
    used = f"{found.vram / 1e9:.1f} of {vram * GIB / 1e9:.1f} GB"
    return f"| {vram} GB | {ram} GB | {_words(found, work)} | {used} | {found.ram / 1e9:.1f} GB | {time} |"


def _words(found: MemoryPlan, work: Work) -> str:
    """A plan in the fewest words."""
    one_waits = swaps(work.architecture, found.quantization, found.offload)
    stays = "experts take turns" if one_waits else "all on the GPU"
    parts = [
        "bf16" if found.quantization == "none" else found.quantization,
        {"none": stays, "model": "parts take turns", "group": "blocks streamed", "disk": "from disk"}[found.offload],
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
