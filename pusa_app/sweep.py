"""Sweeps made: a video per cell with its own recipe, all of them side by side in one, and a contact sheet.

grid.mp4            the cells side by side, with the sweep's JSON inside
grid.png            a few frames of each
grid-cells/1-2.mp4  row 1, column 2: the video of a cell, with its recipe inside
grid-cells/report.json   what became of each cell
grid-cells/.state*       on the command line: what the next attempt need not make again, until all is done
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pusa_app import checkpoint, media
from pusa_app.checkpoint import FinishedCells
from pusa_app.errors import MediaError, RecipeError, RunCancelled, in_words
from pusa_app.events import Event, OnEvent, Preview, Progress
from pusa_app.timeline import Recipe, Sweep, is_sweep, plan_of

if TYPE_CHECKING:
    from pusa_app.backbones.base import Backbone

REPORT = "report.json"
CELL = r"\d+-\d+\.mp4"
SHEET_FRAMES = 4
CHUNK = 4  # frames of each cell that are in memory at once


@dataclass(frozen=True)
class CellResult:
    """What became of a cell: its video, or why there is none. Neither while it waits."""

    labels: tuple[str, ...]
    path: Path | None = None
    problem: str = ""


@dataclass(frozen=True)
class SweepResult:
    """The grid video, its contact sheet, and the cells row by row. num_frames: of the grid. seconds: that it took."""

    path: Path
    sheet: Path
    cells: tuple[CellResult, ...]
    num_frames: int
    seconds: float


def render_sweep(
    sweep: Sweep,
    backbone: Backbone,
    on_event: OnEvent | None = None,
    *,
    out: Path,
    cancelled: Callable[[], bool] | None = None,
    embed: Callable[[Any, Path], Any] | None = None,
    state_path: Path | None = None,
    fatal: Callable[[Exception], bool] | None = None,
    log: logging.Logger | None = None,
) -> SweepResult:
    """Make all cells of a sweep one after another, then the grid `out` (an MP4).

    A cell that fails is shown as failed and costs no other, unless `fatal` says of its error that the others would fail
    like it. What was made stays when the sweep is cancelled or fails; with a state_path the next run of the sweep to
    the same `out` makes none of its finished cells again and goes on in the midst of the one that it had begun.
    embed(recipe or sweep, folder): what a file in that folder holds inside, where it is not the thing itself: other
    names for the same sources, or None for nothing. log: where unforeseen faults of cells go. on_event gets Progress,
    whose parts are those of all cells, and Preview. Raises RunCancelled, RecipeError and MediaError when the grid
    cannot be written, and the error of the first cell when none could be made.
    """
    out = Path(out)
    check_out(sweep, out)
    grid = grid_of(sweep)
    run = _Run(sweep, on_event, cancelled)
    finished = FinishedCells(state_path, backbone.version)
    made = _made_before(sweep, out, finished, embed)
    with _folder_of_cells(out, set(made)) as folder:
        results, first_error = _make_cells(sweep, backbone, run, folder, finished, made, embed, state_path, fatal, log)
        if first_error is not None and all(result.path is None for result in results):
            raise first_error
    cells = [_opener(result, sweep) for result in results]
    inside = _inside(sweep, out.parent, embed)
    count, fps = 0, sweep.recipe.timeline.grid.fps
    with (
        media.ClipWriter(out, grid.width, grid.height, fps, recipe_text=inside) as writer,
        contextlib.closing(grid.tile([_heeding(cell, run) for cell in cells], scratch=out.parent)) as frames,
    ):
        run.tell(Progress("writing", 0, run.most_frames))
        for frame in frames:
            run.check()
            writer.write(frame)
            count += 1
            run.tell(Progress("writing", count, run.most_frames))
    try:
        media.save_poster(_sheet(sweep, cells), sheet_of(out))
    except MediaError:  # its lack is no reason to lose the videos
        (log or logging.getLogger(__name__)).exception("contact sheet of %s", out.name)
    if state_path is not None:
        checkpoint.remove(state_path)
    return SweepResult(out, sheet_of(out), tuple(results), count, run.seconds)


def grid_of(sweep: Sweep) -> media.Grid:
    """How the cells lie in the video, and what its edges say. Raises MediaError when it would be too large."""
    rows, columns = sweep.shape
    if len(sweep.axes) == 2:
        down, across = sweep.labels
    elif rows == 1:
        down, across = (), sweep.labels[0]
    else:
        names = sweep.labels[0]
        down, across = tuple(", ".join(names[i : i + columns]) for i in range(0, len(names), columns)), ()
    size = sweep.recipe.timeline.width, sweep.recipe.timeline.height
    return media.Grid(size, columns, rows, column_labels=across, row_labels=down)


def check_out(sweep: Sweep, out: Path) -> None:
    """Raises RecipeError when a file of the sweep, or a picture of no sweep, lies where it would be overwritten."""
    sheet = sheet_of(out)
    if os.path.lexists(sheet) and not _was_sweep(out):
        raise RecipeError(
            f"The sweep {out.name} would overwrite {sheet.name}, which is not its own: choose another name."
        )
    written, folder = [os.path.realpath(path) for path in (out, sheet)], os.path.realpath(cells_folder(out))
    for path in sweep.paths:
        real = os.path.realpath(path)
        if real in written or os.path.dirname(real) == folder:
            raise RecipeError(
                f"The sweep {out.name} would overwrite {Path(path).name}, its source: choose another name."
            )


def _was_sweep(out: Path) -> bool:
    """Whether a sweep was made, or begun, to `out`: its video says so, or what lies in the folder of cells."""
    with contextlib.suppress(OSError):
        if any(re.fullmatch(rf"{CELL}|{re.escape(REPORT)}|\.state.*", name) for name in os.listdir(cells_folder(out))):
            return True
    try:
        return is_sweep(media.read_recipe_text(out))
    except MediaError:
        return False


def cells_folder(out: Path) -> Path:
    """Where the videos of the cells of a grid video lie."""
    return out.with_name(f"{out.stem}-cells")


def state_of(out: Path) -> Path:
    """Where the checkpoint of a sweep lies that is no job."""
    return cells_folder(out) / ".state"


def sheet_of(out: Path) -> Path:
    """Where the contact sheet of a grid video lies."""
    return out.with_suffix(".png")


def cells_of(sweep: Sweep, out: Path) -> list[CellResult]:
    """The cells of a sweep, row by row, as far as they are made."""
    folder = cells_folder(out)
    try:
        problems = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        problems = {}
    results = []
    for number, cell in enumerate(sweep.cells()):
        path = folder / _name(sweep, number)
        problem = str(problems.get(path.name, "")) if isinstance(problems, dict) else ""
        results.append(CellResult(cell.labels, path if path.is_file() else None, problem))
    return results


def num_made(sweep: Sweep, out: Path) -> int:
    """How many cells of a sweep are made: as `cells_of` tells, for those who ask often."""
    try:
        there = set(os.listdir(cells_folder(out)))
    except OSError:
        return 0
    return sum(_name(sweep, number) in there for number in range(sweep.num_cells))


# --- cells -----------------------------------------------------------------------------------------------------------


def _make_cells(
    sweep: Sweep,
    backbone: Backbone,
    run: _Run,
    folder: Path,
    finished: FinishedCells,
    made: Mapping[Path, int],
    embed: Callable[[Any, Path], Any] | None,
    state_path: Path | None,
    fatal: Callable[[Exception], bool] | None,
    log: logging.Logger | None,
) -> tuple[list[CellResult], Exception | None]:
    """The results, and the first error of a cell."""
    from pusa_app.render import render

    results: list[CellResult] = []
    problems: dict[str, str] = {}
    first_error: Exception | None = None
    for number, (labels, recipe) in enumerate(sweep.cells()):
        run.begin(number)
        path = folder / _name(sweep, number)
        try:
            if not (num_frames := made.get(path.absolute(), 0)):
                state = checkpoint.cell_path(state_path, number)
                clip = render(
                    recipe, backbone, run.tell, out=path, cancelled=run.cancelled, state_path=state, embed=embed
                )
                num_frames = clip.num_frames
                finished.add(recipe, path, _inside(recipe, folder, embed), num_frames)
            run.most_frames = max(run.most_frames, num_frames)
            results.append(CellResult(labels, path))
        except RunCancelled:
            raise
        except Exception as error:  # whatever a cell does, the others are made
            if fatal is not None and fatal(error):
                raise
            if log is not None:
                log.exception("cell %s", ", ".join(labels))
            # The traceback would keep the tensors of this cell while the others are made.
            first_error = first_error or error.with_traceback(None)
            problems[path.name] = in_words(error)
            results.append(CellResult(labels, None, problems[path.name]))
            _report(folder, problems)
    return results, first_error


def _inside(work: Recipe | Sweep, folder: Path, embed: Callable[[Any, Path], Any] | None) -> str | None:
    """What a video of `work` in that folder holds."""
    held = work if embed is None else embed(work, folder)
    return None if held is None else held.to_json()


def _made_before(
    sweep: Sweep, out: Path, finished: FinishedCells, embed: Callable[[Any, Path], Any] | None
) -> dict[Path, int]:
    """The videos that an earlier attempt at this very sweep has made, and how many frames they have."""
    folder = cells_folder(out)
    cells = ((recipe, folder / _name(sweep, number)) for number, (_, recipe) in enumerate(sweep.cells()))
    found = ((path, finished.find(recipe, path, _inside(recipe, folder, embed))) for recipe, path in cells)
    return {path.absolute(): num_frames for path, num_frames in found if num_frames}


@contextlib.contextmanager
def _folder_of_cells(out: Path, keep: set[Path]) -> Iterator[Path]:
    """The folder, with nothing but `keep` of what an earlier sweep left in it; it goes again when nothing was made."""
    folder = cells_folder(out)
    with media.writing(folder.name):
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            if old.absolute() not in keep and (re.fullmatch(CELL, old.name) or old.name == REPORT):
                old.unlink()
    try:
        yield folder
    except BaseException:
        with contextlib.suppress(OSError):
            if [path.name for path in folder.iterdir()] == [REPORT]:
                (folder / REPORT).unlink()
            folder.rmdir()
        raise


def _name(sweep: Sweep, number: int) -> str:
    row, column = divmod(number, sweep.shape[1])
    return f"{row + 1}-{column + 1}.mp4"


def _report(folder: Path, problems: dict[str, str]) -> None:
    """Why cells are missing, by the names of their files."""
    part = folder / f".{REPORT}.part"
    with media.writing(REPORT):
        part.write_text(json.dumps(problems, indent=2), encoding="utf-8")
        os.replace(part, folder / REPORT)


# --- the grid --------------------------------------------------------------------------------------------------------


def _opener(result: CellResult, sweep: Sweep) -> media.Cell:
    timeline = sweep.recipe.timeline
    if result.path is None:
        return None
    return functools.partial(
        media.stream_clip, result.path, timeline.width, timeline.height, fps=timeline.grid.fps, chunk=CHUNK
    )


def _heeding(cell: media.Cell, run: _Run) -> media.Cell:
    """The cell, which ends with the run: of many, all are read before there is a first frame of the grid."""
    if cell is None:
        return None

    def pieces() -> Iterator[media.Frames]:
        with contextlib.closing(cell()) as stream:  # type: ignore[type-var]
            for piece in stream:
                run.check()
                yield piece

    return pieces


def _sheet(sweep: Sweep, cells: list[media.Cell]) -> media.Frames:
    """The contact sheet, with as many frames of each cell as fit into a picture."""
    grid = grid_of(sweep)
    for count in range(SHEET_FRAMES, 1, -1):
        with contextlib.suppress(MediaError):
            return grid.contact_sheet(cells, count)
    return grid.contact_sheet(cells, 1)


class _Run:
    """What a sweep tells and hears: the events of its cells as those of one run."""

    def __init__(self, sweep: Sweep, on_event: OnEvent | None, cancelled: Callable[[], bool] | None) -> None:
        self._on_event, self.cancelled = on_event, cancelled
        self._counts = [_parts(cell.recipe) for cell in sweep.cells()]
        self._before, self._sequence = 0, 0
        self._started = time.monotonic()
        self.most_frames = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def begin(self, number: int) -> None:
        """From here on the events are those of cell `number`."""
        self.check()
        self._before = sum(self._counts[:number])

    def tell(self, event: Event) -> None:
        if self._on_event is None or not isinstance(event, Progress | Preview):
            return
        self._sequence += 1
        changes: dict[str, Any] = {"sequence": self._sequence}
        if isinstance(event, Progress):
            parts = sum(self._counts)
            changes |= {"part": min(self._before + event.part, parts - 1), "parts": parts, "seconds": self.seconds}
        self._on_event(dataclasses.replace(event, **changes))

    def check(self) -> None:
        if self.cancelled is not None and self.cancelled():
            raise RunCancelled("The run was cancelled.")


def _parts(recipe: Recipe) -> int:
    try:
        return len(plan_of(recipe).parts)
    except RecipeError:
        return 1  # making it says why


__all__ = [
    "CellResult",
    "SweepResult",
    "cells_folder",
    "cells_of",
    "check_out",
    "grid_of",
    "num_made",
    "render_sweep",
    "sheet_of",
    "state_of",
]
