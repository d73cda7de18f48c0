"""Jobs made by whoever asks for them, inside the event that asks: where a GPU is lent to one visitor's request."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from pusa_app.events import Cancelled, Done, Event, Failed, Progress
from pusa_app.jobs.job import Job
from pusa_app.jobs.runner import CLOSED, LEFT, BaseRunner
from pusa_app.jobs.store import JobStore

WAIT_SECONDS = 1.0
STOP_SECONDS = 5.0
ENDED = "The run ended unexpectedly. Try again; the log says more."

# target(job id, recipe JSON, output path, options) yields events, the last one being Done, Failed or Cancelled.
#   options: as for a worker process, and "cancel": a file; when it is there, the run is to end at its next step
Target = Callable[[str, str, str, dict[str, Any]], Iterator[Event]]


class InlineRunner(BaseRunner):
    """Makes a job while somebody iterates `run`, in his thread; no worker and no thread lives beside that.

    Jobs that nobody iterates keep their place and are passed over: a page that was closed must not stop the others.
    When the iteration is broken off, a running job becomes interrupted, and a waiting one goes on waiting. target: see
    above; it may run in another process, hence the file.
    """

    inline = True

    def __init__(self, store: JobStore, target: Target, *, at_once: int = 1, **more: Any) -> None:
        super().__init__(store, **more)
        self._target, self._at_once = target, at_once
        self._attended: set[str] = set()
        self._running: dict[str, Job] = {}
        self._turns: dict[str, Job] = {}  # claimed for somebody who iterates, and not begun yet
        self._flags: dict[str, Path] = {}

    @property
    def at_once(self) -> int:
        return self._at_once

    @property
    def worker_pids(self) -> list[int]:
        return []

    def nudge(self) -> None:
        """Wake whoever waits for a turn."""
        with self.wake:
            self.wake.notify_all()

    def warm(self, model: str) -> None:
        """Nothing: a model is loaded before the page is served, or by the job that needs it."""

    def stop(self) -> None:
        """Start nothing more; running jobs become interrupted, at their next step if they hear of it in time."""
        with self.wake:
            self.stopping = True
            running = list(self._running.values())
            self.wake.notify_all()
        for job in running:
            self._tell_to_cancel(job)
        with self.wake:
            self.wake.wait_for(lambda: not self._running, timeout=STOP_SECONDS)
        for job in running:
            self._move(job, "interrupted", CLOSED)

    def run(self, job_id: str) -> Iterator[Event]:
        """Wait for the job's turn, make it, and yield its events; whoever comes second only follows."""
        with self.wake:
            first = job_id not in self._attended
            self._attended.add(job_id)
        if not first:
            yield from self.follow(job_id)
            return
        try:
            while (job := self._turn(job_id)) is None:
                waiting = self._look(job_id)
                if waiting is None or waiting.state != "queued":
                    return
                yield Progress("waiting")
            yield from self.course(job, self._attempt, lambda: None)
        finally:
            with self.wake:
                self._attended.discard(job_id)
                self._running.pop(job_id, None)
                unbegun = self._turns.pop(job_id, None)
                self.wake.notify_all()
            if unbegun is not None:  # he left in the very moment in which it was his turn
                self._move(unbegun, "interrupted", LEFT)

    def _turn(self, job_id: str) -> Job | None:
        """The job, now running, when it is its turn; waits a moment for that."""
        with self.wake:
            job = self._given(job_id)
            if job is None and not self.stopping:
                self.wake.wait(WAIT_SECONDS)
                job = self._given(job_id)
            return job

    def _given(self, job_id: str) -> Job | None:
        """The job when it is its turn. Whoever looks gives all the turns that there are."""
        while not self.stopping and len(self._running) < self._at_once:
            job = self.claim(self._attended - self._running.keys())
            if job is None:
                break
            self._running[job.id] = self._turns[job.id] = job
            self.wake.notify_all()
        return self._turns.pop(job_id, None)

    def _attempt(self, job: Job) -> Generator[Event, None, Event | None]:
        options = self.options(job)
        self._flags[job.id] = Path(options["cancel"])
        if job.id in self.cancelled:  # before it could be told so
            return Cancelled()
        making = iter(self._target(job.id, job.recipe, job.out, options))
        end: Event | None = None
        deadline: float | None = None
        try:
            for event in making:
                if isinstance(event, Done | Failed | Cancelled):
                    end = event  # and on, so that what lent the GPU sees the end too
                    continue
                if self.stopping:
                    return None
                if job.id in self.cancelled:
                    deadline = deadline or time.monotonic() + self.grace_seconds
                    if time.monotonic() > deadline:
                        return Cancelled()
                yield event
        finally:
            if end is None:
                self._break_off(job, making)
            else:
                self._forget(job)
        # A run that was told to end since the program stops can be resumed.
        if end is None or (isinstance(end, Cancelled) and self.stopping and job.id not in self.cancelled):
            return None if self.stopping else Failed(ENDED)
        return end

    def _break_off(self, job: Job, making: Iterator[Event]) -> None:
        """Leave a run that goes on; in a thread, since it may be waited for, and ours may be the one of all pages."""
        self._tell_to_cancel(job)

        def close() -> None:
            with contextlib.suppress(Exception):
                making.close()  # type: ignore[attr-defined]
            self._forget(job)

        threading.Thread(target=close, name="break-off", daemon=True).start()

    def _tell_to_cancel(self, job: Job) -> None:
        flag = self._flags.get(job.id)
        if flag is not None:
            with contextlib.suppress(OSError):
                flag.touch()

    def _forget(self, job: Job) -> None:
        flag = self._flags.pop(job.id, None)
        if flag is not None:
            with contextlib.suppress(OSError):
                flag.unlink(missing_ok=True)
