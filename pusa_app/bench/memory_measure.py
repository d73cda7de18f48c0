"""The measured half of `bench memory`: models of full size with random weights, a process for every plan, a table.

A profile's plan is the one that the planner gives for a GPU of that size, with the packages that are here; it is
carried out on the GPU that is here, by a process whose tensors have what the profile leaves beside CUDA. So what does
not fit runs out of memory, and that is a row.
What is compared is what must be on the GPU at the worst moment: tensors, and what CUDA takes for itself. What the
process took besides, the holes between tensors, is told.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pusa_app.bench.memory_models import RandomModel
from pusa_app.bench.memory_run import Outcome, Request
from pusa_app.errors import UserError
from pusa_app.models.catalogue import ROOT
from pusa_app.models.entry import Entry
from pusa_app.models.fitting import work_for
from pusa_app.models.machine import GIB, Machine, imagined
from pusa_app.models.plan import best
from pusa_app.models.plan_cost import predicted
from pusa_app.models.plan_types import CONTEXT, MemoryPlan, Work
from pusa_app.settings import default_data_dir

WITHIN = 0.15  # of what was predicted
# A card of 48 GB may have 45 for programs; a plan uses no more than this share of what it says on the box.
HELD = 0.9
PATIENCE_SECONDS = 2 * 3600.0
SPARE_DISK = 2_000_000_000
COMMAND = (sys.executable, "-m", "pusa_app.bench.memory_run")
PHASES = ("text", "encoding", "denoising", "decoding")
# CUDA counts GPUs from the fastest on unless it is told; nvidia-smi counts them as they sit on the bus.
ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


@dataclass(frozen=True)
class Profile:
    """GPU memory and the machine's in GiB, and a GPU that has so much, for the choice of a plan."""

    vram: int
    ram: int
    gpu: str


@dataclass(frozen=True)
class Case:
    """A model at a size on a profile, and its plan. work: with the time of the GPU that is here."""

    entry: Entry
    profile: Profile
    work: Work
    plan: MemoryPlan

    @property
    def disk(self) -> float:
        """Bytes that its run takes of the disk."""
        model = self.work.architecture
        return 1.05 * model.experts * model.weights() if self.plan.offload == "disk" else 0.0


@dataclass(frozen=True)
class Row:
    """What became of a case; outcome None: it was not tried, and words say why."""

    case: Case
    outcome: Outcome | None
    words: str = ""

    @property
    def ratio(self) -> float | None:
        """Measured by predicted, of the whole; None where nothing came to its end."""
        if self.outcome is None or self.outcome.status != "done":
            return None
        return self.outcome.vram / (self.case.plan.vram + CONTEXT)

    @property
    def met(self) -> bool | None:
        """Whether it is within the goal; None where it was not tried."""
        if self.outcome is None:
            return None
        return self.ratio is not None and abs(self.ratio - 1) <= WITHIN


def gpu_here() -> Machine:
    """This machine. Raises UserError when it has no GPU to measure on."""
    import torch

    from pusa_app.worker import machine_here

    os.environ.update(ORDER)  # before CUDA is there
    if not torch.cuda.is_available():
        raise UserError(
            "Measuring memory needs a GPU of NVIDIA that torch can use, and there is none here: "
            "`bench memory --predict` prints what is expected."
        )
    return machine_here()


def held(profiles: Sequence[Profile], machine: Machine) -> list[Profile]:
    """The profiles that the GPU can stand for. Raises UserError when it is none of them."""
    found = [profile for profile in profiles if HELD * profile.vram * GIB <= machine.gpu_bytes]
    if not found:
        least = min(profile.vram for profile in profiles)
        raise UserError(
            f"This GPU has {machine.gpu_bytes / GIB:.0f} GB, and the smallest profile asked for {least} GB."
        )
    return found


def cases_of(
    entry: Entry, size: tuple[int, int], frames: int, profiles: Sequence[Profile], machine: Machine
) -> list[Case]:
    """A case for every profile. What a GPU can compute with is asked of the one that is here, and so are the packages:
    a plan that lacks one could not be carried out."""
    found, known = [], {"packages": machine.packages, "platform": machine.platform}
    for profile in profiles:
        there = imagined(profile.vram, profile.ram, profile.gpu, machine.compute)
        work = work_for(entry.id, there.model_copy(update=known), size, frames)
        found.append(Case(entry, profile, replace(work, machine=machine), best(work)))
    return found


def folder_of(chosen: Path | None) -> Path:
    """Where models are written: a folder that is chosen, or the data folder, since the usual one for temporary files
    may be in memory. An absolute path. Raises UserError when nothing can be written there."""
    folder = (chosen or default_data_dir()).absolute()
    if chosen is None:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
    with _scratch(folder):
        return folder


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """An absolute folder below another that goes again. Raises UserError when it cannot be made."""
    try:
        # Absolute, because the processes of the rows work elsewhere.
        made = tempfile.TemporaryDirectory(prefix="pusa-memory-", dir=folder.absolute(), ignore_cleanup_errors=True)
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be written: {error.strerror or error}. Name another one with --folder."
        ) from None
    with made as path:
        yield Path(path)


def check_disk(folder: Path, model: RandomModel, cases: Sequence[Case]) -> None:
    """Raises UserError when a model and what its plans put on the disk have no room there."""
    tried = [case for case in cases if not _not_tried(case)]
    if not tried:
        return
    need = model.bytes + max(case.disk for case in tried) + SPARE_DISK
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be used: {error.strerror or error}.") from None
    if free < need:
        raise UserError(
            f"Measuring {model.entry.id} takes {need / 1e9:.0f} GB of disk in {folder}, and {free / 1e9:.0f} GB are "
            "free: make room, name another folder with --folder, or choose with --model and --profile."
        )


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Inside, SIGTERM and a closed terminal are a KeyboardInterrupt: dozens of gigabytes must not stay on the disk."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    known = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, end) for number in known}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def measure_model(
    model: RandomModel,
    cases: Sequence[Case],
    folder: Path,
    log: Path,
    *,
    command: Sequence[str] | None = None,
    device: str = "cuda",
    patience: float = PATIENCE_SECONDS,
) -> Iterator[Row]:
    """Write a model below a folder, carry out its cases one after the other, and remove it. log: what the processes
    say is put there. command: instead of COMMAND. Raises UserError when one of them cannot be written."""
    with _scratch(folder) as scratch:
        written = scratch / "model"
        for case in cases:
            if why := _not_tried(case):
                yield Row(case, None, why)
                continue
            if not written.exists():
                model.write(written)
            with _scratch(scratch) as own:
                request = Request(
                    folder=written,
                    plan=case.plan,
                    width=case.work.size[0],
                    height=case.work.size[1],
                    num_frames=case.work.num_frames,
                    limit=case.profile.vram * GIB,
                    device=device,
                )
                yield Row(case, *_run(request, own, log, command or COMMAND, patience))


def _not_tried(case: Case) -> str:
    """Why a plan is not carried out here, or ""."""
    if not case.plan.fits:
        return "does not fit, by the planner"
    free = case.work.machine.free_ram_bytes
    if free and case.plan.ram > free:
        return f"needs {case.plan.ram / 1e9:.0f} GB of memory, {free / 1e9:.0f} GB are free here"
    return ""


def _run(request: Request, own: Path, log: Path, command: Sequence[str], patience: float) -> tuple[Outcome, str]:
    """One process for a request, with a data folder of its own: what it leaves there must not help the next one."""
    asked, answer = own / "request.json", own / "outcome.json"
    environment = {**os.environ, **ORDER, "PUSA_DATA_DIR": str(own / "data"), "HF_HUB_OFFLINE": "1"}
    try:
        asked.write_text(request.model_dump_json(), encoding="utf-8")
        log.parent.mkdir(parents=True, exist_ok=True)
        writer = log.open("a", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{error.filename or own} cannot be written: {error.strerror or error}.") from None
    with writer as out:
        out.write(f"\n{request.model_dump_json()}\n")
        out.flush()
        try:
            code = subprocess.run(
                [*command, str(asked), str(answer)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=ROOT,
                timeout=patience,
                check=False,
            ).returncode
            ended = _how(code)
        except subprocess.TimeoutExpired:
            ended = f"was stopped after {patience / 60:.0f} minutes"
    try:
        outcome = Outcome.model_validate_json(answer.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        outcome = Outcome()
    if outcome.status == "running":
        return outcome, f"its process {ended} in the phase {outcome.phase}"
    if outcome.status == "memory":
        return outcome, f"out of memory in the phase {outcome.phase}"
    return outcome, outcome.words


def _how(code: int) -> str:
    """The end of a process in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    name = next((known.name for known in signal.Signals if known.value == -code), str(-code))
    return f"was killed by {name}" + (", perhaps for lack of memory" if name == "SIGKILL" else "")


# --- the table --------------------------------------------------------------------------------------------------------

HEAD = (
    "| profile | plan | GPU memory | of predicted | text | encoding | denoising | decoding | taken | memory | a step |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)


def row_text(row: Row, words: Callable[[MemoryPlan, Work], str]) -> str:
    """A line of the table: measured / predicted. words: of a plan for a clip."""
    case, outcome, plan = row.case, row.outcome, row.case.plan
    start = f"| {case.profile.vram} GB | {words(plan, case.work) if plan.fits else 'none'} "
    if outcome is None:
        return f"{start}| not tried: {row.words} |" + " |" * 8
    phases = "".join(f"| {_pair(outcome.phases.get(name), plan.phases[name] + CONTEXT)} " for name in PHASES)
    whole = _pair(outcome.vram, plan.vram + CONTEXT)
    ratio = row.words if row.ratio is None else f"{row.ratio:.2f}" + ("" if row.met else ", outside")
    expected = predicted(case.work, plan.choice).step_seconds
    step = f"{_seconds(outcome.step_seconds)} / {_seconds(expected)}"
    return f"{start}| {whole} | {ratio} {phases}| {_gb(outcome.taken)} | {_pair(outcome.ram, plan.ram)} | {step} |"


def verdict(rows: Sequence[Row]) -> tuple[list[str], bool]:
    """What is to be said below the table, and whether all that was tried met the goal."""
    tried = [row for row in rows if row.met is not None]
    if not tried:
        return ["Nothing was measured."], False
    missed = [row for row in tried if not row.met]
    met = len(tried) - len(missed)
    lines = [
        f"goal: GPU memory within {WITHIN:.0%} of what was predicted: {'FAIL' if missed else 'pass'} "
        f"({met} of {len(tried)} plans)"
    ]
    for row in missed:
        why = row.words if row.ratio is None else f"{row.ratio:.2f} of what was predicted"
        size = "x".join(map(str, row.case.work.size))
        lines.append(f"  {row.case.entry.id}, {size}x{row.case.work.num_frames}, {row.case.profile.vram} GB: {why}")
    return lines, not missed


def _pair(measured: int | None, expected: float) -> str:
    return f"{'-' if measured is None else f'{measured / 1e9:.1f}'} / {expected / 1e9:.1f} GB"


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"
