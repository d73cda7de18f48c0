"""Checkpoints: how far an unfinished run has come, on the disk. No torch at import, for the page asks too.

state           the latents of part 0, after which step they are, and of which run (a safetensors file)
state.2         those of part 2
state.cell5     those of cell 5 of a sweep; .cell5.1 is its part 1
state.cells     the finished cells of a sweep, JSON
"""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import json
import logging
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pusa_app import media
from pusa_app.errors import UserError
from pusa_app.models import get_card, version_of
from pusa_app.models.lora import mark_of
from pusa_app.timeline import Recipe, Sweep, plan_of

if TYPE_CHECKING:
    import torch

    from pusa_app.sampling import SamplerState

FORMAT = 1  # another number where the sampler would go on in another way
# States are written this often at most, and so rarely that it takes a hundredth of the time, however slow the disk.
SECONDS_BETWEEN = 1.0
COST = 0.01

_log = logging.getLogger(__name__)


def fingerprint(recipe: Recipe, version: str) -> str:
    """What run a state belongs to: the recipe, the contents of its files wherever they lie, the model's version."""
    text = recipe.with_paths(_content).to_json()
    if recipe.loras:
        text += mark_of(recipe.loras)
    return hashlib.sha256(f"{FORMAT}\n{version}\n{text}".encode()).hexdigest()


def same(one: Recipe | Sweep, other: Recipe | Sweep) -> bool:
    """Whether two ask for the same, wherever the contents of their files lie: then they have the same checkpoint."""
    return type(one) is type(other) and one.with_paths(_content).to_json() == other.with_paths(_content).to_json()


def resumable_step(state_path: Path, work: Recipe | Sweep) -> int:
    """How many steps of a recipe or a sweep need not be made again, over all parts and cells; 0 when none is left.

    Looks at the heads of the files only; never raises.
    """
    state_path = Path(state_path)
    if not files(state_path):
        return 0
    try:
        if isinstance(work, Sweep):
            return _resumable_steps_of_cells(state_path, work)
        return _resumable_steps(state_path, work)
    except (UserError, OSError, ValueError):
        return 0


def steps_of(work: Recipe | Sweep) -> int:
    """All steps of a recipe or a sweep, over its parts and cells: what `resumable_step` is a share of."""
    if isinstance(work, Sweep):
        return sum(steps_of(cell.recipe) for cell in work.cells())
    try:
        return work.steps * len(plan_of(work).parts)
    except UserError:
        return work.steps


def files(state_path: Path) -> list[Path]:
    """All files of a checkpoint."""
    name = re.compile(re.escape(state_path.name) + r"(\.cell\d+)?(\.\d+)?|" + re.escape(state_path.name) + r"\.cells")
    found = state_path.parent.glob(glob.escape(state_path.name) + "*")
    return sorted(path for path in found if name.fullmatch(path.name))


def remove(state_path: Path) -> None:
    """Remove a checkpoint."""
    for path in files(state_path):
        with contextlib.suppress(OSError):
            path.unlink()


def cell_path(state_path: Path | None, number: int) -> Path | None:
    """Where the checkpoint of a sweep's cell lies."""
    return None if state_path is None else state_path.with_name(f"{state_path.name}.cell{number}")


# --- states of a run -------------------------------------------------------------------------------------------------


class Checkpoint:
    """The states of one run, a file per part. Without a path nothing is kept.

    A disk that is full costs the checkpoint and not the run: nothing here raises but for a fault in this program.
    """

    def __init__(self, path: Path | None, recipe: Recipe, version: str) -> None:
        self._path, self._steps = path, recipe.steps
        self._run = "" if path is None else fingerprint(recipe, version)
        self._waiting: dict[int, tuple[int, torch.Tensor]] = {}
        self._due = time.monotonic() + SECONDS_BETWEEN
        self._told = False

    def load(self, part: int, shape: tuple[int, int, int, int]) -> SamplerState | None:
        """The state (C, F, h, w) of a part to go on from; None when there is none of this very run."""
        if self._path is None:
            return None
        from safetensors import SafetensorError

        from pusa_app.sampling import SamplerState

        try:
            state = SamplerState.load(_part_path(self._path, part))
        except (OSError, ValueError, SafetensorError):
            return None  # a damaged state costs the time of a fresh start, not the run
        fits = state.run == self._run and state.z.shape == shape and 0 < state.step <= self._steps
        return state if fits else None

    def keep(self, part: int, step: int, z: torch.Tensor) -> None:
        """Take the latents (C, F, h, w) of a part after a step; they are written when it is time."""
        if self._path is not None:
            self._waiting[part] = step, z
            self.tick()

    def tick(self) -> None:
        """Write what waits, if it is time."""
        if self._waiting and time.monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        """Write what waits now."""
        started = time.monotonic()
        for part, (step, z) in list(self._waiting.items()):
            if self._write(part, step, z):
                del self._waiting[part]
        ended = time.monotonic()
        self._due = ended + max(SECONDS_BETWEEN, (ended - started) / COST)

    def remove(self) -> None:
        """Remove the states, those of parts that an earlier attempt began too."""
        self._waiting.clear()
        if self._path is not None:
            remove(self._path)

    def _write(self, part: int, step: int, z: torch.Tensor) -> bool:
        from pusa_app.sampling import SamplerState

        assert self._path is not None
        try:
            SamplerState(step, z, self._run).save(_part_path(self._path, part))
        except (UserError, OSError, MemoryError, RuntimeError) as error:  # a full disk, a GPU that is lost
            if not self._told:
                _log.warning("The run goes on without checkpoints: %s", str(error).splitlines()[0])
            self._told = True
            return False
        return True


def _part_path(path: Path, part: int) -> Path:
    return path if part == 0 else path.with_name(f"{path.name}.{part}")


def _resumable_steps(path: Path, recipe: Recipe) -> int:
    from safetensors import SafetensorError, safe_open

    run, total = None, 0
    for part in range(len(plan_of(recipe).parts)):
        file = _part_path(path, part)
        if not file.is_file():
            continue
        try:
            with safe_open(file, framework="np") as state:
                notes = state.metadata() or {}
        except (OSError, SafetensorError):
            continue
        run = run or fingerprint(recipe, _version(recipe.model))
        if notes.get("run") == run and notes.get("step", "").isdecimal():
            total += min(int(notes["step"]), recipe.steps)
    return total


# --- finished cells of a sweep ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FinishedCell:
    """A cell's video: where it is, how many frames it has, its sha256, and that of what it holds inside."""

    path: str
    num_frames: int
    content: str
    inside: str


class FinishedCells:
    """Which cells of a sweep an earlier attempt has made. Without a path nothing is kept."""

    def __init__(self, state_path: Path | None, version: str) -> None:
        self._path, self._version = None if state_path is None else _cells_path(state_path), version
        self._cells = {} if self._path is None else _read_cells(self._path)

    def find(self, recipe: Recipe, path: Path, inside: str | None) -> int:
        """The frames of the video at `path` when it is that of the recipe, unchanged and with that inside; else 0."""
        if self._path is None:
            return 0
        cell = self._cells.get(fingerprint(recipe, self._version))
        if cell is None or Path(cell.path) != path.absolute() or cell.inside != _sha256(inside or ""):
            return 0
        return cell.num_frames if cell.content == _content(str(path)) else 0

    def add(self, recipe: Recipe, path: Path, inside: str | None, num_frames: int) -> None:
        """Note a video that was made just now."""
        if self._path is None:
            return
        cell = FinishedCell(str(path.absolute()), num_frames, _content(str(path)), _sha256(inside or ""))
        self._cells[fingerprint(recipe, self._version)] = cell
        try:
            with media.atomic_output(self._path) as part, media.writing(self._path.name):
                text = json.dumps({run: vars(cell) for run, cell in self._cells.items()}, indent=1)
                part.write_text(text, encoding="utf-8")
        except UserError as error:
            _log.warning("A cell of the sweep is not noted as finished: %s", error)


def _cells_path(state_path: Path) -> Path:
    return state_path.with_name(f"{state_path.name}.cells")


def _read_cells(path: Path) -> dict[str, FinishedCell]:
    try:
        return {run: FinishedCell(**cell) for run, cell in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _resumable_steps_of_cells(state_path: Path, sweep: Sweep) -> int:
    version, finished, total = _version(sweep.recipe.model), _read_cells(_cells_path(state_path)), 0
    for number, (_, recipe) in enumerate(sweep.cells()):
        path = cell_path(state_path, number)
        cell = finished.get(fingerprint(recipe, version)) if finished else None
        if cell is not None and Path(cell.path).is_file():
            total += steps_of(recipe)
        elif path is not None and files(path):
            total += _resumable_steps(path, recipe)
    return total


# --- what a run is ---------------------------------------------------------------------------------------------------


def _version(model: str) -> str:
    """The version of a model as its backbone has it. Raises ModelError or OSError when it is not on this machine."""
    from pusa_app import testing

    if testing.enabled() and model == testing.FAKE:
        return testing.FAKE
    folder = get_card(model).folder
    return "" if folder is None else version_of(folder)


def _content(path: str) -> str:
    """The sha256 of a file; something else when it cannot be read."""
    try:
        status = os.stat(path)
        return _content_of(os.path.abspath(path), status.st_size, status.st_mtime_ns)
    except OSError:
        return f"missing {path}"


@functools.lru_cache(maxsize=1024)
def _content_of(path: str, size: int, changed: int) -> str:
    """The sha256 of a file that had this size and was changed at that time, so that it is read once."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


__all__ = [
    "Checkpoint",
    "FinishedCells",
    "cell_path",
    "files",
    "fingerprint",
    "remove",
    "resumable_step",
    "same",
    "steps_of",
]
