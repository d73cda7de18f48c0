"""The service behind the page and the command line: takes recipes, keeps jobs, hands out events and results."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock, Timeout

from pusa_app import media, worker, zerogpu
from pusa_app.checks import (
    card_of,
    cards,
    check_recipe,
    check_sweep,
    default_card,
    given_clip,
    new_recipe,
)
from pusa_app.errors import ModelError, RecipeError, StoreError, UserError
from pusa_app.events import Event, Preview, Progress
from pusa_app.expectations import Expectations, recipes_of, work_of
from pusa_app.jobs import EventLog, InlineRunner, Job, JobStore, Runner, Supervisor, new_id
from pusa_app.results import Results, words_of
from pusa_app.settings import LOCAL, Settings
from pusa_app.timeline import MAX_SEED, NoiseSchedule, Recipe, Sweep, plan_of

if TYPE_CHECKING:
    from pusa_app.sweep import CellResult

Work = TypeVar("Work", Recipe, Sweep)

INTERRUPTED = "The program ended before this video was finished."
GONE = "This video is no longer there."
NOT_WAITING = "This video is no longer waiting: its settings were not changed."
HOUSEKEEPING_SECONDS = 3600.0

__all__ = [
    "Studio",
    "card_of",
    "cards",
    "check_recipe",
    "check_sweep",
    "default_card",
    "given_clip",
    "new_recipe",
]


class InUse(StoreError):
    """Another program has the data folder."""


class Studio:
    """Thread safe. Owners are opaque strings; an owner sees only his own jobs. No worker starts before the first job.

    One program uses a data folder at a time. Whatever was waiting or running when the last one ended waits paused.
    Raises InUse when another one has it, StoreError when it cannot be used; all else raises UserErrors of one sentence.
    idle: jobs are taken and none is started. making: jobs are made by it, inside the events of those who asked (see
    `attend`), and not by worker processes.
    """

    def __init__(
        self, settings: Settings | None = None, *, idle: bool = False, making: zerogpu.Making | None = None
    ) -> None:
        self.settings = settings or Settings()
        self._lock = _locked(self.settings)
        try:
            self._store = JobStore(self.settings.queue_file)
            self._results = Results(self.settings)
            self._log = EventLog()
            self._submitting = threading.RLock()  # who adds jobs, or removes what others may be made from
            self._expectations = Expectations(self._store, self._log)
            self._attending: dict[str, object] = {}  # whose jobs are made inline, and by whom
            self._recover()
        except BaseException:
            self._lock.release()
            raise
        self._runner = self._new_runner(making)
        self._closing = threading.Event()
        if idle:
            self._runner.stop()
        threading.Thread(target=self._housekeeping, name="housekeeping", daemon=True).start()

    def _new_runner(self, making: zerogpu.Making | None) -> Runner:
        settings = self.settings
        hear: dict[str, Any] = {
            "on_event": self._hear,
            "options": self._options,
            "events": self._log.since,
            "grace_seconds": settings.cancel_grace_seconds,
        }
        if making is not None:
            return InlineRunner(self._store, making, at_once=settings.workers, **hear)
        devices = [("",)] if settings.workers == 1 else [(str(gpu),) for gpu in range(settings.workers)]
        return Supervisor(self._store, worker.main, (str(settings.log_file),), workers=devices, **hear)

    def close(self) -> None:
        """End the workers. A running job becomes interrupted."""
        self._closing.set()
        self._runner.stop()
        self._store.close()
        self._lock.release()

    # --- asking for videos -------------------------------------------------------------------------------------------

    def submit(self, recipe: Recipe, owner: str, *, embed: bool = True) -> Job:
        """Queue a recipe. Its pictures and clips are copied first, since where they lie now may be a cache.

        embed: the recipe is written into the video. Raises RecipeError, ModelError or MediaError, and then nothing is
        left behind.
        """
        return self._submit([recipe], owner, embed)[0]

    def submit_seeds(self, recipe: Recipe, owner: str, count: int, *, embed: bool = True) -> list[Job]:
        """Queue a recipe `count` times, with its seed and the ones that follow; all of them or none."""
        if not 1 <= count <= self.settings.max_seeds:
            raise RecipeError(f"{count} seeds cannot be made at once: use 1 to {self.settings.max_seeds}.")
        if recipe.seed > MAX_SEED - (count - 1):
            raise RecipeError(f"Seeds go up to {MAX_SEED}: begin with a lower one.")
        return self._submit([recipe.model_copy(update={"seed": recipe.seed + n}) for n in range(count)], owner, embed)

    def submit_sweep(self, sweep: Sweep, owner: str, *, embed: bool = True) -> Job:
        """Queue a sweep as one job, whose video is the grid; otherwise as `submit`. Every cell is checked first."""
        self._check(sweep, owner)
        return self._add([sweep], owner, embed)[0]

    def _submit(self, recipes: Sequence[Recipe], owner: str, embed: bool) -> list[Job]:
        self._check(recipes[0], owner)
        for recipe in recipes[1:]:  # they differ in their seed
            check_recipe(recipe, self.settings.max_steps, sources=False)
        return self._add(recipes, owner, embed)

    def _check(self, work: Recipe | Sweep, owner: str) -> None:
        self._check_model(work.recipe.model if isinstance(work, Sweep) else work.model)
        self._check_loras(work, owner)
        if isinstance(work, Sweep):
            check_sweep(work, self.settings.max_steps)
        else:
            check_recipe(work, self.settings.max_steps)

    def _check_model(self, model: str) -> None:
        # The catalogue takes paths too, which is for whoever sits at the machine and not for a visitor of its page.
        if model not in {card.id for card in cards()}:
            raise ModelError(f"There is no model {model[:60]!r} here.")

    def _check_loras(self, work: Recipe | Sweep, owner: str) -> None:
        # As with models: a visitor may name what is here, and only whoever sits at the machine any file of it.
        recipes = [work] if isinstance(work, Recipe) else work.recipes
        if owner != LOCAL and not all(lora.named for recipe in recipes for lora in recipe.loras):
            raise ModelError("A LoRA is chosen by its name here, not by a path.")

    def _add(self, works: Sequence[Work], owner: str, embed: bool) -> list[Job]:
        """Queue what was checked."""
        with self._submitting:
            self._check_room(works, owner)
            folder = new_id()
            taken = self._results.take(works[0], folder)
            paths = dict(zip(works[0].paths, taken.paths, strict=True))
            jobs = []
            try:
                for number, work in enumerate(works):
                    job_id = folder if number == 0 else new_id()
                    own = taken if number == 0 else work.with_paths(paths.__getitem__)
                    jobs.append(self._job(own, owner, id=job_id, folder=folder, embed=embed))
                jobs = self._store.add(*jobs)
            except UserError:
                self._results.remove_folder(folder)
                raise
        return self._queued(jobs)

    def _job(self, work: Recipe | Sweep, owner: str, **fields: object) -> Job:
        text, job_id = work.to_json(), str(fields["id"])
        out = str(self._results.new_out(work, job_id))
        return Job(**{"owner": owner, "recipe": text, "out": out, **words_of(text), **fields})  # type: ignore[arg-type]

    def _queued(self, jobs: list[Job]) -> list[Job]:
        for job in jobs:
            self._results.write_card(job)
        self._runner.nudge()
        return jobs

    def _check_room(self, works: Sequence[Recipe | Sweep], owner: str, instead_of: Job | None = None) -> None:
        """Raises RecipeError when too many wait, the owner keeps too much, or the disk is full.

        instead_of: a waiting job that is not counted, neither among those that wait nor with what it keeps.
        """

        def others(jobs: Iterable[Job]) -> list[Job]:
            return [job for job in jobs if instead_of is None or job.id != instead_of.id]

        def kept() -> int:
            return self._results.used(others(self._store.jobs(owner=owner)))

        limits, waiting = self.settings, others(self._store.jobs(state="queued"))
        own = sum(job.owner == owner for job in waiting)
        if len(waiting) + len(works) > limits.max_queue:
            raise RecipeError(f"{len(waiting)} videos are waiting already: try again when some are done.")
        if own + len(works) > limits.max_queue_per_owner:
            raise RecipeError(
                f"You have {own} videos waiting, and {limits.max_queue_per_owner} may wait: "
                "try again when some are done, or cancel some."
            )
        # Without a quota nobody counts: that takes the longer the more a library holds.
        quota = limits.quota_bytes
        used = 0 if quota is None else kept()
        if quota is not None and used >= quota and self.purge(time.time() + 1, owner):  # what he has deleted goes first
            used = kept()
        if quota is not None and used >= quota:
            raise RecipeError(
                f"Your videos take {_megabytes(used)} of {_megabytes(quota)}: delete some in the library first."
            )
        needed = limits.reserve_bytes + sum(_needed(work) for work in works)
        free = media.free_bytes(limits.data_dir)
        if free < needed:
            raise RecipeError(
                f"The disk has {_megabytes(free)} left and {_megabytes(needed)} may be needed: make room first."
            )

    # --- changing what waits -----------------------------------------------------------------------------------------

    def replace(self, job_id: str, work: Work, owner: str, *, embed: bool = True) -> Job:
        """Give a waiting job another recipe or sweep, in its place in the queue.

        What goes on from an earlier job keeps what that one had made, as long as it asks for the same. When it asks for
        something else, the earlier job comes back with it. Raises RecipeError when it waits no more, else as `submit`
        and `submit_sweep`; then nothing has changed.
        """
        from pusa_app.checkpoint import same

        self._waiting(job_id, owner)
        self._check(work, owner)
        with self._submitting:
            old = self._waiting(job_id, owner)
            self._check_room([work], owner, instead_of=old)
            folder = new_id()
            taken = self._results.take(work, folder)
            try:
                # As it came, or as a copy of what the old one is a copy of.
                if any(same(one, self._work(old)) for one in (work, taken)):
                    self._results.remove_folder(folder)
                    changed = self._replaced(dataclasses.replace(old, embed=embed))
                else:
                    job = self._job(taken, owner, id=job_id, folder=folder, embed=embed)
                    changed = self._made_into(old, dataclasses.replace(job, created=old.created))
            except UserError:
                self._results.remove_folder(folder)
                raise
        self._runner.nudge()
        return changed

    def _made_into(self, old: Job, job: Job) -> Job:
        """A waiting job asks for something else from now on; what it went on from comes back."""
        # What goes on from another one has that one's place, where finished cells of it may lie.
        if not old.source and (self.sweep(job) is None) == (self.sweep(old) is None):
            job = dataclasses.replace(job, out=old.out)
        source = self._store.get(old.source) if self._results.states(old) or self.made(old)[0] else None
        try:
            if source is not None:
                self._results.copy_state(old, source)
            changed = self._replaced(job, source)
        except UserError:
            if source is not None:
                self._results.remove_state(source)
            raise
        with contextlib.suppress(OSError):
            self._results.remove(old, not self._store.of_folder(old.folder), False)
        return changed

    def _replaced(self, job: Job, back: Job | None = None) -> Job:
        changed = self._store.replace(job, back)
        if changed is None:
            raise RecipeError(NOT_WAITING)
        self._results.write_card(changed)
        return changed

    def hold(self, job_id: str, owner: str, held: bool) -> bool:
        """Keep a waiting job from being started while it is edited; False when it waits no more."""
        changed = self.job(job_id, owner) is not None and self._store.hold(job_id, held) is not None
        self._runner.nudge()
        return changed

    def reorder(self, owner: str, ids: Sequence[str]) -> None:
        """The owner's waiting jobs take, in this order, the places that they have among all."""
        self._store.reorder(owner, ids)

    def pause(self, owner: str) -> None:
        """Start none of the owner's waiting jobs until he goes on; the running one is finished."""
        self._store.pause(owner)

    def unpause(self, owner: str) -> None:
        self._store.unpause(owner)
        self._runner.nudge()

    def paused(self, owner: str) -> str:
        """Why the owner's jobs are not started: "user", "restart" of the program, or ""."""
        return self._store.paused(owner)

    def cancel(self, job_id: str, owner: str | None = None) -> bool:
        """True when the job was waiting or running and will end; False when there is nothing to stop."""
        return self.job(job_id, owner) is not None and self._runner.cancel(job_id)

    def clear(self, owner: str) -> int:
        """Cancel all jobs of the owner that wait; returns how many."""
        return sum(self._runner.cancel(job.id) for job in self._store.jobs(owner=owner, state="queued"))

    # --- again -------------------------------------------------------------------------------------------------------

    def can_resume(self, job: Job) -> int:
        """The step from which a job that has ended without a video can go on; 0 when there is no checkpoint."""
        if not job.ended or job.state == "done" or not self._results.states(job):
            return 0
        from pusa_app.checkpoint import resumable_step

        return resumable_step(self._results.state(job), self._work(job))

    def resume(self, job_id: str, owner: str) -> Job:
        """A new job that goes on from the checkpoint of one that ended without a video, before the owner's others.

        The old one leaves the lists. Without a checkpoint it begins anew. Asked for twice it happens once.
        """
        with self._submitting:
            if (heir := self._heir(self._mine(job_id, owner))) is not None:
                return heir
            old = self._again(job_id, owner)
            if old.state == "done":
                raise RecipeError("This video is finished: there is nothing to resume.")
            new = self._copy(old, out=old.out, source=old.id)
            try:
                # The old one keeps its own until the new one is sure to be there.
                self._results.copy_state(old, new)
                new = self._go_first(old, new)
            except StoreError:
                self._results.remove_state(new)
                raise
            self._results.remove_state(old)
            return new

    def _heir(self, job: Job) -> Job | None:
        """The job that goes on from this one, as long as it is not known how it ends."""
        heirs = [other for other in self._store.of_out(job.out) if other.source == job.id and not other.ended]
        return heirs[-1] if heirs else None

    def retry(self, job_id: str, owner: str) -> Job:
        """A new job that makes the same from the start; one that ended without a video leaves the lists."""
        with self._submitting:
            old = self._again(job_id, owner)
            return self._go_first(old, self._copy(old))

    def duplicate(self, job_id: str, owner: str) -> Job:
        """The same once more, at the end of the queue, whatever state the job is in."""
        with self._submitting:
            job = self._mine(job_id, owner)
            self._check_room([self._work(job)], owner)
            return self._queued(self._store.add(self._copy(job)))[0]

    def resume_all(self, owner: str) -> int:
        """Go on after a restart: resume what was interrupted, then start what waits; returns how many jobs that are.

        What cannot be resumed stays as it is and keeps nothing else from going on; its reason is raised when there is
        nothing else.
        """
        interrupted, refused = self.interrupted(owner), None
        # Still paused, so that the order is right before the first one starts.
        self._store.pause(owner, "restart")
        for job in reversed(interrupted):
            try:
                self.resume(job.id, owner)
            except UserError as error:
                refused = error
        count = len(self._store.jobs(owner=owner, state="queued"))
        self.unpause(owner)
        if refused is not None and not count:
            raise refused
        return count

    def interrupted(self, owner: str) -> list[Job]:
        """Jobs that the end of the program cut off, and that nobody has resumed or dismissed yet."""
        return [
            job
            for job in self._store.jobs(owner=owner, state="interrupted")
            if job.deleted is None and Path(self._results.folder(job)).is_dir()
        ]

    def _again(self, job_id: str, owner: str) -> Job:
        old = self._mine(job_id, owner)
        if not old.ended:
            raise RecipeError("This video is still being made: cancel it first.")
        if old.deleted is not None and old.state != "done":  # another one is made in its place already
            raise RecipeError(GONE)
        card_of(old.model)
        missing = [path for path in self._work(old).paths if not os.path.exists(path)]
        if missing:
            raise RecipeError("The pictures or clips of this video are gone: set it up again.")
        self._check_room([self._work(old)], owner)
        return old

    def _copy(self, job: Job, **changes: object) -> Job:
        """A new job with the recipe and the sources of another."""
        fields = {"id": new_id(), "folder": job.folder, "embed": job.embed, **changes}
        return self._job(self._work(job), job.owner, **fields)

    def _go_first(self, old: Job, new: Job) -> Job:
        """Queue a job before the others of its owner, in the place of the old one."""
        return self._queued([self._store.add_again(new, old)])[0]

    # --- looking -----------------------------------------------------------------------------------------------------

    def job(self, job_id: str, owner: str | None = None) -> Job | None:
        """The job as it is now; None when there is none, or when it is somebody else's."""
        job = self._store.get(job_id)
        return job if job is not None and owner in (None, job.owner) else None

    def jobs(self, owner: str | None = None) -> list[Job]:
        """Jobs of an owner, or of all, oldest first, without those that were deleted."""
        return [job for job in self._store.jobs(owner=owner) if job.deleted is None]

    def recent(self, owner: str, limit: int) -> list[Job]:
        """The owner's latest jobs, newest first."""
        return self._store.latest(owner, limit)

    def queue(self, owner: str | None = None) -> list[Job]:
        """What runs, then what waits, in order; of one owner, or of all."""
        return [*self._store.jobs(owner, "running"), *self._store.jobs(owner, "queued")]

    def ahead(self, job: Job) -> int:
        """How many jobs come before a waiting one."""
        if job.state != "queued":
            return 0
        waiting = sum(other.position < job.position for other in self._store.jobs(state="queued"))
        return len(self._store.jobs(state="running")) + waiting

    def expected(self, job: Job) -> float | None:
        """Seconds until a job is done, from the times that steps took before; None where nothing is known."""
        return self.expectations().get(job.id)

    def expectations(self) -> dict[str, float | None]:
        """`expected` of every job that runs or waits, by its id."""
        return self._expectations.of_all(self._runner.at_once)

    def events(self, job_id: str, since: int = 0) -> list[Event]:
        """Events of a job with a sequence number above `since`."""
        return self._log.since(job_id, since)

    def progress(self, job_id: str) -> tuple[Progress | None, float | None]:
        """The latest progress of a job, and the seconds that are left where that can be told."""
        return self._expectations.progress(job_id)

    def preview(self, job_id: str) -> Preview | None:
        """The latest look at a job's clip."""
        return next((e for e in reversed(self._log.since(job_id)) if isinstance(e, Preview)), None)

    def noise_now(self, job: Job) -> list[float] | None:
        """The noise that each slot has at this step of a running job; None before it samples. For a sweep: None."""
        progress, _ = self.progress(job.id)
        if progress is None or self.sweep(job) is not None or progress.phase not in ("sampling", "decoding", "writing"):
            return None
        recipe = self.recipe(job)
        timeline = plan_of(recipe).parts[progress.part]
        schedule = recipe.schedule or card_of(recipe.model).spec.schedule
        sigmas = schedule.sigmas(recipe.steps)
        matrix = NoiseSchedule(sigmas=sigmas, multipliers=timeline.noise_multipliers()).matrix()
        row = progress.step if progress.phase == "sampling" else recipe.steps
        return list(matrix[min(row, recipe.steps)])

    def recipe(self, job: Job) -> Recipe:
        """What a job makes; of a sweep, the recipe that it varies."""
        work = work_of(job.recipe)
        return work.recipe if isinstance(work, Sweep) else work

    def sweep(self, job: Job) -> Sweep | None:
        """The sweep of a job that is one."""
        work = work_of(job.recipe)
        return work if isinstance(work, Sweep) else None

    def _work(self, job: Job) -> Recipe | Sweep:
        return work_of(job.recipe)

    def _recipes(self, job: Job) -> list[Recipe]:
        return recipes_of(work_of(job.recipe))

    def cells(self, job: Job) -> list[CellResult]:
        """The cells of a sweep, row by row, as far as they are made, in whatever state the job is; else none."""
        from pusa_app.sweep import cells_of

        sweep = self.sweep(job)
        return [] if sweep is None else cells_of(sweep, Path(job.out))

    def made(self, job: Job) -> tuple[int, int]:
        """How many cells of a sweep are made, of how many; (0, 0) where it is none. Cheaper than `cells`."""
        from pusa_app.sweep import num_made

        sweep = self.sweep(job)
        return (0, 0) if sweep is None else (num_made(sweep, Path(job.out)), sweep.num_cells)

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

    # --- the library -------------------------------------------------------------------------------------------------

    def library(
        self,
        owner: str,
        *,
        text: str = "",
        task: str = "",
        model: str = "",
        favourite: bool = False,
        deleted: bool = False,
        newest: bool = True,
        limit: int = 60,
        offset: int = 0,
    ) -> list[Job]:
        """Finished videos whose prompt, task, model or seed hold every word of `text`."""
        return self._store.search(
            owner,
            text=text,
            task=task,
            model=model,
            favourite=favourite,
            deleted=deleted,
            newest=newest,
            limit=limit,
            offset=offset,
        )

    def favourite(self, job_id: str, owner: str, favourite: bool) -> bool:
        """Mark a finished video, or take the mark away; False when nothing changed."""
        return self._store.mark(owner, [job_id], favourite=favourite) > 0

    def delete(self, ids: Iterable[str], owner: str) -> int:
        """Take ended jobs out of the lists; their files go a day later, and `restore` brings them back until then."""
        return self._store.mark(owner, ids, deleted=True)

    def restore(self, ids: Iterable[str], owner: str) -> int:
        with self._submitting:  # not in the midst of a purge
            return self._store.mark(owner, ids, deleted=False)

    def usage(self, owner: str) -> tuple[int, int | None]:
        """Bytes that the owner's videos, sources and checkpoints take, and how many they may."""
        return self._results.used(self._store.jobs(owner=owner)), self.settings.quota_bytes

    def purge(self, before: float | None = None, owner: str | None = None) -> int:
        """Remove the files of what was deleted before a time, by default a day ago; returns how many jobs that were.

        owner: only his.
        """
        expired = self._store.expired(time.time() - self.settings.trash_seconds if before is None else before)
        count = 0
        for job in expired:
            with self._submitting:
                now = self._store.get(job.id)
                if now is None or now.deleted is None or owner not in (None, job.owner):
                    continue
                heir = self._heir(now)
                if (
                    heir is not None and heir.state == "queued"
                ):  # which may be made into something else: then it comes back
                    continue
                alone = [len(self._store.of_folder(job.folder)) == 1, len(self._store.of_out(job.out)) == 1]
                # What cannot be removed now is tried again at the next purge, so the job is forgotten last.
                with contextlib.suppress(OSError):
                    self._results.remove(job, *alone)
                    self._store.forget(job.id)
                    count += 1
        return count

    # --- the worker --------------------------------------------------------------------------------------------------

    def warm(self, model: str) -> None:
        """Load a model ahead of the first job, if no worker lives."""
        self._runner.warm(model)

    @property
    def worker_pid(self) -> int | None:
        """Process id of a living worker."""
        pids = self._runner.worker_pids
        return pids[0] if pids else None

    @property
    def inline(self) -> bool:
        """Whether jobs are made by whoever attends to them, and by nobody else."""
        return self._runner.inline

    def run(self, job_id: str) -> Iterator[Event]:
        """The events of a job until it has ended; where jobs are made inline, this makes it."""
        return self._runner.run(job_id)

    def attend(self, owner: str) -> Iterator[tuple[str, Event]]:
        """Make the owner's waiting jobs that may start, one after the other: (job id, event), about once a second.

        Only where jobs are made inline; whoever iterates is whose GPU time is used. Whoever comes second, such as
        another tab of his, waits and takes over when the first one leaves.
        """
        me = object()
        try:
            while self.inline and not self._closing.is_set() and (job := self._startable(owner)) is not None:
                if self._attending.setdefault(owner, me) is not me:
                    self._closing.wait(1.0)
                    yield job.id, Progress("waiting")
                    continue
                told = False
                with contextlib.closing(self.run(job.id)) as events:  # type: ignore[type-var]
                    for event in events:
                        told = True
                        yield job.id, event
                        # Paused, held or overtaken while it waited: look again which one comes next.
                        if event == Progress("waiting") and self._startable(owner) != job:
                            break
                if not told and self._startable(owner) == job:  # nothing is started any more
                    return
        finally:
            if self._attending.get(owner) is me:
                del self._attending[owner]

    def _startable(self, owner: str) -> Job | None:
        """The first waiting job of the owner that may start."""
        try:
            paused, waiting = self._store.paused(owner), self._store.jobs(owner=owner, state="queued")
        except StoreError:
            if self._closing.is_set():  # by another thread
                return None
            raise
        return None if paused else next((job for job in waiting if not job.held), None)

    def _options(self, job: Job) -> dict[str, Any]:
        options = {"state": str(self._results.state(job)), "embed": job.embed, "lean": job.lean}
        if not self.inline:
            return options
        from pusa_app.checkpoint import resumable_step, steps_of

        work = self._work(job)
        share = 1 - resumable_step(self._results.state(job), work) / max(1, steps_of(work))
        seconds = zerogpu.seconds_needed(self._recipes(job), card_of(job.model), self._expectations.step, share)
        return options | {"cancel": str(self._results.folder(job) / f"{job.id}.cancel"), "seconds": seconds}

    def _hear(self, job_id: str, event: Event) -> Event:
        """Keep an event; returns it with its number."""
        numbered = self._log.add(job_id, event)
        self._expectations.hear(job_id, event)
        return numbered

    # --- keeping the house -------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        for job in self._store.jobs(state="running"):
            # Videos come into their place when they are whole. The program ended before it could write that down.
            if Path(job.out).is_file() and self._store.move(job.id, "running", "done"):
                self._results.remove_state(job)
                with contextlib.suppress(UserError):
                    worker.save_beside(Path(job.out), self._work(job))
        self._store.recover(INTERRUPTED)
        if self._store.broken is not None and (lost := self._results.lost()):
            self._store.add(*lost)
        with contextlib.suppress(OSError):
            self._results.tidy(self._store.jobs())

    def _housekeeping(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(UserError):
                self.purge()
            self._closing.wait(HOUSEKEEPING_SECONDS)

    @property
    def notice(self) -> str:
        """What whoever started the program should know about his data folder; empty as a rule."""
        broken = self._store.broken
        return "" if broken is None else f"The queue was damaged: it was put aside as {broken.name} and begun anew."

    def secret(self) -> str:
        """A random string that stays the same on this data folder; it keeps visitors' marks valid over a restart."""
        return secret_of(self.settings)

    def _mine(self, job_id: str, owner: str) -> Job:
        job = self.job(job_id, owner)
        if job is None:
            raise RecipeError(GONE)
        return job

    def _waiting(self, job_id: str, owner: str) -> Job:
        job = self._mine(job_id, owner)
        if job.state != "queued":
            raise RecipeError(NOT_WAITING)
        return job


def secret_of(settings: Settings) -> str:
    """The secret of a data folder, made at its first use; only this account may read it."""
    path = settings.data_dir / "secret"
    with contextlib.suppress(OSError):
        if kept := path.read_text().strip():
            return kept
    fresh = secrets.token_hex(16)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w") as file:
        file.write(fresh)
    return fresh


def _locked(settings: Settings) -> FileLock:
    """The lock of a data folder, held until the program ends, however it ends."""
    lock = FileLock(settings.lock_file)
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise InUse(
            f"Another Pusa Studio uses the data folder {settings.data_dir}: close it, or choose another --data-dir."
        ) from None
    except OSError as error:
        raise StoreError(f"The data folder {settings.data_dir} cannot be written: {error.strerror or error}.") from None
    return lock


def _needed(work: Recipe | Sweep) -> int:
    recipes = [cell.recipe for cell in work.cells()] if isinstance(work, Sweep) else [work]
    timeline, cells = recipes[0].timeline, len(recipes)  # all are of one size
    frames = max(sum(part.grid.num_frames for part in plan_of(recipe).parts) for recipe in recipes)
    needed = media.needed_bytes(timeline.width, timeline.height, frames, cells)
    if not isinstance(work, Sweep):
        return needed
    from pusa_app.sweep import grid_of

    return needed + grid_of(work).spool_bytes(cells, frames)


def _megabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
