"""The service behind the page and the command line: takes recipes, keeps jobs, hands out events and results."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pusa_app import testing, worker
from pusa_app.errors import MediaError, ModelError, RecipeError, UserError
from pusa_app.events import Event, Preview, Progress
from pusa_app.jobs import EventLog, Job, JobStore, MemoryStore, Supervisor, new_id
from pusa_app.models import ModelCard, get_card, list_cards
from pusa_app.pace import Pace
from pusa_app.settings import Settings
from pusa_app.timeline import (
    FrameGrid,
    Given,
    Kept,
    Keyframe,
    Options,
    Recipe,
    Sweep,
    Timeline,
    build,
    get_task,
    is_sweep,
    plan_of,
)

if TYPE_CHECKING:
    from pusa_app.sweep import CellResult

Work = TypeVar("Work", Recipe, Sweep)

# A clip may have this many times the pixels that its model was made for; more is noise and hours of waiting.
MAX_AREA = 4
MAX_STEPS = Settings.max_steps


def cards() -> list[ModelCard]:
    """All models on this machine, the one to begin with first."""
    return [*([testing.card()] if testing.enabled() else []), *list_cards()]


def default_card() -> ModelCard:
    """The model to begin with; raises ModelError with what to do when there is none at all."""
    found = cards()
    return found[0] if found else get_card("mini")


def card_of(model: str) -> ModelCard:
    """The card of a model; raises ModelError when it is unknown or not on this machine."""
    card = testing.card() if testing.enabled() and model == testing.FAKE else get_card(model)
    if card.folder is None:
        raise ModelError(f"The model {card.id} is not on this machine.")
    return card


def new_recipe(
    card: ModelCard,
    task: str,
    *,
    prompt: str = "",
    negative_prompt: str = "",
    keyframes: Sequence[Keyframe | dict[str, Any]] = (),
    num_frames: int | None = None,
    size: tuple[int, int] | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    seed: int = 0,
    schedule: dict[str, Any] | None = None,
    options: Options | dict[str, Any] | None = None,
    color_match: bool | None = None,
) -> Recipe:
    """A recipe for a model; what is None is the model's own. size is (width, height) in pixels.

    Raises RecipeError when a number cannot be; `check_recipe` says whether the model can do it.
    """
    spec = card.spec
    frames = spec.num_frames if num_frames is None else num_frames
    if (frames - 1) % spec.temporal_stride:
        raise RecipeError(
            f"A length of {frames} frames does not fit {card.id}: "
            f"it must be {spec.temporal_stride}*n + 1, for example {spec.nearest_length(frames)}."
        )
    width, height = size or (spec.width, spec.height)
    fields = {
        "task": get_task(task).name,
        "model": card.id,
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "timeline": {
            "grid": {"num_frames": frames, "temporal_stride": spec.temporal_stride, "fps": spec.fps},
            "width": width,
            "height": height,
            "keyframes": list(keyframes),
        },
        "steps": spec.steps if steps is None else steps,
        "guidance": spec.guidance_for(get_task(task).name) if guidance is None else guidance,
        "seed": seed,
        "schedule": schedule,
        "options": options or {},
        "color_match": get_task(task).color_match if color_match is None else color_match,
    }
    return build(Recipe, fields, what="recipe")


def check_recipe(recipe: Recipe, max_steps: int = MAX_STEPS, sources: bool = True) -> ModelCard:
    """Everything that can be said against a recipe without loading its model, its pictures and clips included.

    sources False: only the numbers are looked at, not the keyframes. Returns the model's card; raises RecipeError,
    ModelError or MediaError.
    """
    card = card_of(recipe.model)
    spec, timeline = card.spec, recipe.timeline
    task = get_task(recipe.task)
    if recipe.task not in card.tasks:
        raise RecipeError(f"The model {card.id} does not do {task.title.lower()}: it does {', '.join(card.tasks)}.")
    if timeline.grid.temporal_stride != spec.temporal_stride:
        raise RecipeError(
            f"This recipe has {timeline.grid.temporal_stride} frames a slot and the model {card.id} has "
            f"{spec.temporal_stride}: it was made for another model."
        )
    low, high = min(spec.lengths()), max(spec.lengths())
    if not low <= timeline.grid.num_frames <= high:
        raise RecipeError(
            f"A length of {timeline.grid.num_frames} frames is outside what {card.id} does: use {low} to {high}."
        )
    if timeline.width * timeline.height > MAX_AREA * spec.width * spec.height:
        raise RecipeError(
            f"The size {timeline.width}x{timeline.height} is too large for {card.id}, "
            f"which was made for {spec.width}x{spec.height}."
        )
    if recipe.steps > max_steps:
        raise RecipeError(f"{recipe.steps} steps are too many: use at most {max_steps}.")
    if problems := timeline.problems(spec.size_multiple):
        raise RecipeError(problems[0])
    if sources:
        plan = plan_of(recipe)
        for part in plan.parts:
            _check_part(part)
        for piece in plan.pieces:
            if piece.kind == "kept":
                _check_kept(piece, recipe)
    return card


def check_sweep(sweep: Sweep, max_steps: int = MAX_STEPS) -> ModelCard:
    """As `check_recipe`, for every cell of a sweep; the message begins with the cell that cannot be made.

    Raises MediaError too when the grid would be too large for a video.
    """
    from pusa_app.sweep import grid_of

    grid_of(sweep)
    card, seen = card_of(sweep.recipe.model), set()
    for labels, recipe in sweep.cells():
        # Cells that differ in their seed have the same files, and looking at a file takes its time.
        what = recipe.model_dump_json(include={"task", "timeline", "options"})
        try:
            check_recipe(recipe, max_steps, sources=what not in seen)
        except UserError as error:
            raise type(error)(f"{', '.join(labels)}: {error}") from None
        seen.add(what)
    for path in sweep.paths:  # files that every preset leaves out are copied all the same
        if not Path(path).is_file():
            raise MediaError(f"{Path(path).name} is no longer there: add it again.")
    return card


def given_clip(path: str | Path, fps: float, **more: Any) -> Given:
    """A clip as a task takes it, with its exact length at `fps`; `more` are further fields of Given.

    Raises MediaError when it is not a clip, RecipeError when a field cannot be.
    """
    from pusa_app.media import count_frames

    return build(Given, {"path": str(path), "frames": count_frames(path, fps), **more}, what="clip")


def _check_part(part: Timeline) -> None:
    """Raises RecipeError or MediaError for keyframes that collide or whose files do not hold what is asked of them."""
    if problems := part.problems():
        raise RecipeError(problems[0])
    for keyframe in part.keyframes:
        _check_source(keyframe, part.grid)


def _check_kept(piece: Kept, recipe: Recipe) -> None:
    from pusa_app.media import count_frames

    have = count_frames(piece.path, recipe.timeline.grid.fps)
    wanted = piece.start if piece.stop is None else piece.stop
    if have < wanted:
        what = "the gap ends" if recipe.task == "complete" else "the part to be kept ends"
        raise RecipeError(f"{Path(piece.path).name} has {have} frames, but {what} at frame {wanted}: end it earlier.")


def _check_source(keyframe: Keyframe, grid: FrameGrid) -> None:
    from pusa_app.media import check_image, count_frames

    source = keyframe.source
    if source.kind == "image":
        check_image(source.path)
    if source.kind != "clip":
        return
    have = count_frames(source.path, grid.fps)
    wanted = source.start + keyframe.num_frames(grid.temporal_stride)
    if have < wanted:
        raise RecipeError(
            f"{Path(source.path).name} has {have} frames at {grid.fps:g} frames a second, but {wanted} are "
            "needed: use a longer clip, an earlier start or a shorter span."
        )


class Studio:
    """Thread safe. Owners are opaque strings; an owner sees only his own jobs. Nothing starts before the first job."""

    def __init__(self, settings: Settings | None = None, store: JobStore | None = None) -> None:
        self.settings = settings or Settings()
        self._store = store or MemoryStore()
        self._log = EventLog()
        self._submitting = threading.Lock()
        self._supervisor = Supervisor(
            self._store,
            worker.main,
            (str(self.settings.log_file),),
            on_event=self._log.add,
            grace_seconds=self.settings.cancel_grace_seconds,
        )

    def submit(self, recipe: Recipe, owner: str) -> Job:
        """Queue a recipe. Its pictures and clips are copied first, since where they lie now may be a cache.

        Raises RecipeError, ModelError or MediaError, and then nothing is left behind.
        """
        self._check_model(recipe.model)
        check_recipe(recipe, self.settings.max_steps)
        return self._add(recipe, owner)

    def submit_sweep(self, sweep: Sweep, owner: str) -> Job:
        """Queue a sweep as one job, whose video is the grid; otherwise as `submit`. Every cell is checked first."""
        self._check_model(sweep.recipe.model)
        check_sweep(sweep, self.settings.max_steps)
        return self._add(sweep, owner)

    def _check_model(self, model: str) -> None:
        # The catalogue takes paths too, which is for whoever sits at the machine and not for a visitor of its page.
        if model not in {card.id for card in cards()}:
            raise ModelError(f"There is no model {model[:60]!r} here.")

    def _add(self, work: Work, owner: str) -> Job:
        """Queue what was checked."""
        with self._submitting:
            waiting = len(self._store.list(state="queued"))
            if waiting >= self.settings.max_queue:
                raise RecipeError(f"{waiting} videos are waiting already: try again when some are done.")
            job_id = new_id()
            folder = self.settings.runs_dir / job_id
            try:
                folder.mkdir(parents=True)
                self.settings.results_dir.mkdir(parents=True, exist_ok=True)
                work = _with_own_sources(work, folder)
                (folder / "recipe.json").write_text(work.to_json(), encoding="utf-8")
            except OSError as error:
                shutil.rmtree(folder, ignore_errors=True)
                raise RecipeError(f"The data folder cannot be written: {error.strerror or error}.") from None
            out = self.settings.results_dir / f"{_title(work)}-{job_id[:8]}.mp4"
            job = self._store.add(Job(id=job_id, owner=owner, recipe=work.to_json(), out=str(out)))
        self._supervisor.nudge()
        return job

    def warm(self, model: str) -> None:
        """Load a model ahead of the first job, if no worker lives."""
        self._supervisor.warm(model)

    def cancel(self, job_id: str, owner: str | None = None) -> bool:
        """True when the job was waiting or running and will end; False when there is nothing to stop."""
        return self.job(job_id, owner) is not None and self._supervisor.cancel(job_id)

    def job(self, job_id: str, owner: str | None = None) -> Job | None:
        """The job as it is now; None when there is none, or when it is somebody else's."""
        job = self._store.get(job_id)
        return job if job is not None and owner in (None, job.owner) else None

    def jobs(self, owner: str) -> list[Job]:
        """An owner's jobs, oldest first."""
        return self._store.list(owner=owner)

    def ahead(self, job: Job) -> int:
        """How many jobs come before a waiting one."""
        if job.state != "queued":
            return 0
        waiting = [*self._store.list(state="running"), *self._store.list(state="queued")]
        return sum(other.number < job.number for other in waiting)

    def events(self, job_id: str, since: int = 0) -> list[Event]:
        """Events of a job with a sequence number above `since`."""
        return self._log.since(job_id, since)

    def progress(self, job_id: str) -> tuple[Progress | None, float | None]:
        """The latest progress of a job, and the seconds that are left where that can be told."""
        pace, latest = Pace(), None
        for event in self._log.since(job_id):
            if isinstance(event, Progress):
                pace.see(event)
                latest = event
        return latest, pace.remaining

    def preview(self, job_id: str) -> Preview | None:
        """The latest look at a job's clip."""
        return next((e for e in reversed(self._log.since(job_id)) if isinstance(e, Preview)), None)

    def recipe(self, job: Job) -> Recipe:
        """What a job makes; of a sweep, the recipe that it varies."""
        sweep = self.sweep(job)
        return Recipe.from_json(job.recipe) if sweep is None else sweep.recipe

    def sweep(self, job: Job) -> Sweep | None:
        """The sweep of a job that is one."""
        return Sweep.from_json(job.recipe) if is_sweep(job.recipe) else None

    def cells(self, job: Job) -> list[CellResult]:
        """The cells of a sweep, row by row, as far as they are made, in whatever state the job is; else none."""
        from pusa_app.sweep import cells_of

        sweep = self.sweep(job)
        return [] if sweep is None else cells_of(sweep, Path(job.out))

    def sheet(self, job: Job) -> Path | None:
        """The contact sheet of a sweep that is done."""
        from pusa_app.sweep import sheet_of

        path = sheet_of(Path(job.out))
        return path if job.state == "done" and path.is_file() else None

    def result(self, job: Job) -> Path | None:
        """The video of a job that is done."""
        path = Path(job.out)
        return path if job.state == "done" and path.is_file() else None

    def poster(self, job: Job) -> Path | None:
        """A small picture of a job that is done."""
        path = worker.poster_of(Path(job.out))
        return path if job.state == "done" and path.is_file() else None

    def secret(self) -> str:
        """A random string that stays the same on this data folder; it keeps visitors' marks valid over a restart."""
        path = self.settings.data_dir / "secret"
        with contextlib.suppress(OSError):
            if kept := path.read_text().strip():
                return kept
        fresh = secrets.token_hex(16)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w") as file:
            file.write(fresh)
        return fresh

    @property
    def worker_pid(self) -> int | None:
        return self._supervisor.worker_pid

    def close(self) -> None:
        """End the worker. A running job becomes interrupted."""
        self._supervisor.stop()


def _with_own_sources(work: Work, folder: Path) -> Work:
    """A recipe or a sweep with its sources copied into `folder`; the copy never has a name that the user chose."""
    copies: dict[str, str] = {}
    for number, path in enumerate(dict.fromkeys(work.paths)):  # a file that stands in several slots is copied once
        suffix = Path(path).suffix.lower()
        copy = folder / f"source-{number}{suffix if re.fullmatch(r'[.][a-z0-9]{1,5}', suffix) else ''}"
        shutil.copyfile(path, copy)
        copies[path] = str(copy)
    return work.with_paths(copies.__getitem__)


def _title(work: Recipe | Sweep) -> str:
    """The beginning of a result's file name."""
    recipe = work.recipe if isinstance(work, Sweep) else work
    return (_slug(recipe.prompt) or recipe.task) + ("-sweep" if isinstance(work, Sweep) else "")


def _slug(text: str) -> str:
    """A prompt as the beginning of a file name."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))[:48].strip("-")
