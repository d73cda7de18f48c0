"""The files of jobs: a folder per run, and the finished videos. What may be removed, and when."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pusa_app import media
from pusa_app.errors import RecipeError, StoreError
from pusa_app.jobs import Job
from pusa_app.settings import Settings
from pusa_app.timeline import Recipe, Sweep, is_sweep

Work = TypeVar("Work", Recipe, Sweep)
CARD = ".job.json"
STATE = ".state"
# Folders of runs that we made, and checkpoints in them.
_FOLDER, _STATE = re.compile(r"[0-9a-f]{24}"), re.compile(r"([0-9a-f]{24})\.state.*")


class Results:
    """Where the files of a job are. Nothing of a job is removed before it has ended."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    # --- places ------------------------------------------------------------------------------------------------------

    def folder(self, job: Job) -> Path:
        """Sources, recipe and checkpoints."""
        return self._settings.runs_dir / (job.folder or job.id)

    def state(self, job: Job) -> Path:
        """The checkpoint; those of later parts have a number behind."""
        return self.folder(job) / f"{job.id}{STATE}"

    def states(self, job: Job) -> list[Path]:
        """The checkpoints that there are."""
        return sorted(self.folder(job).glob(f"{job.id}{STATE}*"))

    def new_out(self, work: Recipe | Sweep, job_id: str) -> Path:
        """Where the video of a new job will be."""
        return self._settings.results_dir / f"{_title(work)}-{job_id[:8]}.mp4"

    # --- making ------------------------------------------------------------------------------------------------------

    def take(self, work: Work, folder: str) -> Work:
        """A new folder with copies of all sources; the recipe that names them. Raises RecipeError or MediaError.

        Where the sources lie now may be a cache, and they may change. Nothing is left behind when one cannot be taken.
        """
        place = self._settings.runs_dir / folder
        try:
            place.mkdir(parents=True)
            self._settings.results_dir.mkdir(parents=True, exist_ok=True)
            taken = _with_own_sources(work, place)
            (place / "recipe.json").write_text(taken.to_json(), encoding="utf-8")
        except OSError as error:
            shutil.rmtree(place, ignore_errors=True)
            raise RecipeError(f"The data folder cannot be written: {error.strerror or error}.") from None
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        return taken

    def write_card(self, job: Job) -> None:
        """What the library needs to know again if the database is lost. Without it the job runs all the same."""
        names = ("id", "owner", "out", "created", "embed", "recipe")
        card = {name: getattr(job, name) for name in names}
        with contextlib.suppress(OSError):
            (self.folder(job) / f"{job.id}{CARD}").write_text(json.dumps(card), encoding="utf-8")

    def remove_folder(self, folder: str) -> None:
        shutil.rmtree(self._settings.runs_dir / folder, ignore_errors=True)

    def copy_state(self, old: Job, new: Job) -> None:
        """The checkpoints of a job are from now on those of one that goes on from it too. Raises StoreError."""
        for path in self.states(old):
            copy = path.with_name(new.id + path.name.removeprefix(old.id))
            try:
                os.link(path, copy)
            except OSError:  # not every file system has links
                try:
                    shutil.copyfile(path, copy)
                except OSError as error:
                    reason = error.strerror or error
                    raise StoreError(
                        f"The checkpoint cannot be taken over: {reason}. See to that, then try again."
                    ) from None

    def remove_state(self, job: Job) -> None:
        for path in self.states(job):
            with contextlib.suppress(OSError):
                path.unlink()

    # --- removing ----------------------------------------------------------------------------------------------------

    def remove(self, job: Job, alone_in_folder: bool, alone_with_video: bool) -> None:
        """Remove the files of a job that are not another one's too."""
        if alone_with_video:
            out = Path(job.out)
            for path in (out, *companions(out)):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if alone_in_folder:
            shutil.rmtree(self.folder(job), ignore_errors=True)
            return
        for path in (*self.states(job), self.folder(job) / f"{job.id}{CARD}"):
            path.unlink(missing_ok=True)

    def tidy(self, jobs: Iterable[Job]) -> None:
        """Remove what a killed program left: unfinished files, folders of runs that nobody asked for in the end, and
        checkpoints that nothing goes on from.

        jobs: all that there are. Only for the program that holds the data folder, before it makes anything.
        """
        jobs = list(jobs)
        folders, heirs = {self.folder(job).name for job in jobs}, {job.source for job in jobs}
        needed = {job.id: job.state != "done" and job.id not in heirs for job in jobs}
        for place in (self._settings.results_dir, self._settings.runs_dir):
            for folder in (place, *_folders(place)):
                media.remove_leftovers(folder, older_than=0)
        for folder in _folders(self._settings.runs_dir):
            names = {path.name for path in folder.iterdir()}
            # One with a card was a job's: it stays, whatever became of the database.
            ours = _FOLDER.fullmatch(folder.name) and not any(CARD in name for name in names)
            if ours and folder.name not in folders:
                shutil.rmtree(folder, ignore_errors=True)
                continue
            for name in names:
                state = _STATE.fullmatch(name)
                if state and not needed.get(state[1], f"{state[1]}{CARD}" in names):
                    (folder / name).unlink(missing_ok=True)

    # --- looking -----------------------------------------------------------------------------------------------------

    def used(self, jobs: Iterable[Job]) -> int:
        """Bytes of the videos, sources and checkpoints of jobs."""
        paths: set[Path] = set()
        for job in jobs:
            out = Path(job.out)
            paths |= {out, *companions(out), self.folder(job)}
        return sum(_bytes(path) for path in paths)

    def lost(self) -> list[Job]:
        """Jobs as their cards tell, oldest first, when there is no database to ask: ended, with a video or without."""
        found: dict[str, Job] = {}
        for path in self._settings.runs_dir.glob(f"*/*{CARD}"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                card = json.loads(path.read_text(encoding="utf-8"))
                out = self._settings.results_dir / Path(card["out"]).name
                # Older cards have none: the jobs of a folder differ in their seeds at most.
                text = card.get("recipe") or (path.parent / "recipe.json").read_text(encoding="utf-8")
                there = out.is_file()
                job = Job(
                    id=str(card["id"]),
                    owner=str(card["owner"]),
                    out=str(out),
                    created=float(card["created"]),
                    embed=bool(card["embed"]),
                    folder=path.parent.name,
                    recipe=text,
                    state="done" if there else "interrupted",
                    finished=out.stat().st_mtime if there else float(card["created"]),
                    message="" if there else "The queue was damaged and begun anew.",
                    **words_of(text),
                )
                # Of those that were resumed one after the other, the last one has the video and the checkpoint.
                if job.out not in found or found[job.out].created < job.created:
                    found[job.out] = job
        return sorted(found.values(), key=lambda job: job.created)


def companions(out: Path) -> list[Path]:
    """What lies beside a video: poster, recipe, and of a sweep its contact sheet and its cells."""
    beside = [out.with_suffix(".jpg"), out.with_suffix(".json"), out.with_suffix(".png")]
    return [path for path in (*beside, out.with_name(f"{out.stem}-cells")) if path.exists()]


def _folders(place: Path) -> list[Path]:
    return [path for path in place.iterdir() if path.is_dir()] if place.is_dir() else []


def words_of(recipe_json: str) -> dict[str, Any]:
    """What the library searches of a recipe or a sweep."""
    sweep = Sweep.from_json(recipe_json) if is_sweep(recipe_json) else None
    recipe = Recipe.from_json(recipe_json) if sweep is None else sweep.recipe
    return {"task": recipe.task, "model": recipe.model, "prompt": recipe.prompt, "seed": recipe.seed}


def _with_own_sources(work: Work, folder: Path) -> Work:
    """A recipe or a sweep with checked copies of its sources in `folder`, whose names the user did not choose.

    Pictures become PNG, clips MP4, both with exactly the pixels that they had; what was uploaded is not opened again.
    """
    recipes = [work] if isinstance(work, Recipe) else [work.recipe, *(cell.recipe for cell in work.cells())]
    kinds: dict[str, set[str]] = {path: set() for path in work.paths}
    for recipe in recipes:
        for keyframe in recipe.timeline.keyframes:
            if keyframe.source.kind != "part":
                kinds[keyframe.source.path].add(keyframe.source.kind)
    copies: dict[str, str] = {}
    for number, (path, kind) in enumerate(kinds.items()):  # a file that stands in several slots is copied once
        ending = ".png" if kind == {"image"} else ".mp4" if kind == {"clip"} else _ending(path)
        copy = folder / f"source-{number}{ending}"
        if kind == {"image"}:
            media.take_image(path, copy)
        elif kind == {"clip"}:
            media.take_clip(path, copy)
        else:  # a GIF that is a picture in one slot and a clip in another: both readings check it each time
            shutil.copyfile(path, copy)
        copies[path] = str(copy)
    return work.with_paths(copies.__getitem__)


def _ending(path: str) -> str:
    ending = Path(path).suffix.lower()
    return ending if re.fullmatch(r"[.][a-z0-9]{1,5}", ending) else ""


def _title(work: Recipe | Sweep) -> str:
    """The beginning of a result's file name."""
    recipe = work.recipe if isinstance(work, Sweep) else work
    return (_slug(recipe.prompt) or recipe.task) + ("-sweep" if isinstance(work, Sweep) else "")


def _slug(text: str) -> str:
    """A prompt as the beginning of a file name."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))[:48].strip("-")


def _bytes(path: Path) -> int:
    total = 0
    with contextlib.suppress(OSError):
        if path.is_dir():
            return sum(_bytes(Path(entry)) for entry in os.scandir(path))
        total = path.stat().st_size
    return total
