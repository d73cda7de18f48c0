"""How long jobs take: what is left of one that runs, from its events; of one that waits, from steps made before."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import lru_cache

from pusa_app.errors import StoreError
from pusa_app.events import Done, Event, Preview, Progress
from pusa_app.jobs import EventLog, Job, JobStore
from pusa_app.pace import Pace
from pusa_app.timeline import Recipe, Sweep, is_sweep, plan_of


class Expectations:
    """Learns from the events of jobs (`hear`) how long a step of each kind of run takes; the store keeps that."""

    def __init__(self, store: JobStore, log: EventLog) -> None:
        self._store, self._log = store, log
        self._started: dict[str, float] = {}

    def hear(self, job_id: str, event: Event) -> None:
        if isinstance(event, Progress) and event.phase == "sampling" and event.step == 0 and event.part == 0:
            self._started[job_id] = time.monotonic()  # the model is loaded, the keyframes are read
        elif not isinstance(event, Progress | Preview):
            begun = self._started.pop(job_id, None)
            if isinstance(event, Done) and begun is not None:
                self._learn(job_id, time.monotonic() - begun)

    def progress(self, job_id: str) -> tuple[Progress | None, float | None]:
        """The latest progress of a job, and the seconds that are left where that can be told."""
        pace, latest = Pace(), None
        for event in self._log.since(job_id):
            if isinstance(event, Progress):
                pace.see(event)
                latest = event
        return latest, pace.remaining

    def step(self, recipe: Recipe) -> float | None:
        """Seconds of a step of such a run, decoding and writing shared out among the steps; None when none was made."""
        return self._store.pace(_kind(recipe))

    def of_all(self, at_once: int) -> dict[str, float | None]:
        """Seconds until each job that runs or waits is done, by its id; None where nothing is known.

        In one pass, since pages ask for all of them often. at_once: how many jobs run beside each other.
        """
        steps = _once(self._store.pace)
        before: float | None = 0.0
        expected = {}
        running = self._store.jobs(state="running")
        for job in [*running, *self._store.jobs(state="queued")]:
            alone = self._alone(job, steps)
            ahead = None if before is None else before / max(1, at_once)
            if job.state == "running":
                expected[job.id] = alone
            else:
                expected[job.id] = None if alone is None or ahead is None else alone + ahead
            before = None if alone is None or before is None else before + alone
        return expected

    def _alone(self, job: Job, step: Callable[[str], float | None]) -> float | None:
        """Seconds that the job itself needs from now on. step: seconds of a step of a kind."""
        if job.state == "running" and (left := self.progress(job.id)[1]) is not None:
            return left
        total = 0.0
        for kind, steps in _steps(job.recipe):
            if (seconds := step(kind)) is None:
                return None
            total += seconds * steps
        gone = time.time() - job.started if job.state == "running" and job.started else 0.0
        return max(0.0, total - gone)

    def _learn(self, job_id: str, seconds: float) -> None:
        with contextlib.suppress(StoreError):  # no reason to lose a video
            job = self._store.get(job_id)
            if job is None or job.source or job.attempt > 1:
                return
            recipe = work_of(job.recipe)
            if isinstance(recipe, Sweep):
                return
            took = seconds / (recipe.steps * len(plan_of(recipe).parts))
            before = self.step(recipe)
            # Every write to the disk is time that somebody waits for his video.
            if before is None or abs(took - before) > 0.1 * before:
                self._store.set_pace(_kind(recipe), took if before is None else 0.5 * (before + took))


@lru_cache(maxsize=512)
def work_of(recipe: str) -> Recipe | Sweep:
    """What a job makes, from its JSON: read once, however often it is asked for. Raises RecipeError."""
    return Sweep.from_json(recipe) if is_sweep(recipe) else Recipe.from_json(recipe)


def recipes_of(work: Recipe | Sweep) -> list[Recipe]:
    """The recipes of all videos that a job makes."""
    return [cell.recipe for cell in work.cells()] if isinstance(work, Sweep) else [work]


@lru_cache(maxsize=1024)
def _steps(recipe: str) -> tuple[tuple[str, int], ...]:
    """How many steps a job takes of which kind, from its JSON."""
    return tuple((_kind(one), one.steps * len(plan_of(one).parts)) for one in recipes_of(work_of(recipe)))


def _kind(recipe: Recipe) -> str:
    """What the time of a step depends on."""
    timeline = recipe.timeline
    size = f"{timeline.width}x{timeline.height}x{timeline.grid.num_slots}"
    return f"{recipe.model} {size} {'guided' if recipe.guidance != 1 else 'plain'}"


def _once(ask: Callable[[str], float | None]) -> Callable[[str], float | None]:
    """The same question answered from memory the second time."""
    return lru_cache(maxsize=None)(ask)
