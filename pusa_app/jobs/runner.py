"""What makes the jobs of a store: what every runner can be asked for, and the course of a job, the same for all."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Protocol

from pusa_app.errors import StoreError
from pusa_app.events import Cancelled, Done, Event, Failed
from pusa_app.jobs.job import Job, State
from pusa_app.jobs.store import JobStore

ATTEMPTS = 2
AGAIN = "Memory ran out at first: it was made with the smaller memory plan."
CLOSED = "The program was closed before this video was finished."
LEFT = "The page was closed before this video was finished."
UNEXPECTED = "The run failed unexpectedly. Try again; the log says more."
FOLLOW_SECONDS = 0.2

# One attempt at a job: yields what it tells, returns the last event, or None when the program stops first.
Attempt = Callable[[Job], Generator[Event, None, Event | None]]


class Runner(Protocol):
    """Makes the queued jobs of a store, in their order.

    inline: a job is made by whoever iterates `run`, and by nobody else; where it is False, jobs are made whether
    anybody iterates or not. at_once: how many jobs can run at the same time. Call any of it from any thread.
    """

    inline: bool

    @property
    def at_once(self) -> int: ...

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the living workers that this runner keeps."""

    def nudge(self) -> None:
        """Tell that a job may be started."""

    def warm(self, model: str) -> None:
        """Have a model loaded before the first job needs it, where that is possible."""

    def cancel(self, job_id: str) -> bool:
        """Ask for an end: at once if the job waits, at its next step if it runs. False when it had ended already."""

    def stop(self) -> None:
        """Start nothing more; running jobs become interrupted."""

    def run(self, job_id: str) -> Iterator[Event]:
        """The events of a job until it has ended. Progress("waiting") without a number may come while it waits."""


class BaseRunner:
    """What the runners share: cancelling, and what becomes of a job whatever makes it does.

    options(job): what is sent along with a job. on_event(job_id, event) is called before the job's state changes for a
    last event; only for a job that is cancelled while it waits it is called by whoever cancels, after the change. It
    may return the event with its number. events(job_id, since): what was told of a job, as EventLog.since.
    """

    def __init__(
        self,
        store: JobStore,
        *,
        on_event: Callable[[str, Event], Any],
        options: Callable[[Job], dict[str, Any]] = lambda job: {},
        events: Callable[[str, int], Sequence[Event]] = lambda job_id, since: (),
        grace_seconds: float = 15.0,
    ) -> None:
        self.store, self.on_event, self.options, self.events = store, on_event, options, events
        self.grace_seconds = grace_seconds
        self.wake = threading.Condition()
        self.stopping = False
        self.cancelled: set[str] = set()

    def cancel(self, job_id: str) -> bool:
        """See Runner."""
        if self.store.move(job_id, "queued", "cancelled"):
            self.on_event(job_id, Cancelled())
            with self.wake:
                self.wake.notify_all()
            return True
        with self.wake:
            job = self.store.get(job_id)
            if job is None or job.ended:
                return False
            self.cancelled.add(job_id)
        self._tell_to_cancel(job)
        return True

    def _tell_to_cancel(self, job: Job) -> None:
        """Have a running job know that it is to end, where it cannot look at `cancelled`."""

    def claim(self, among: set[str] | None = None) -> Job | None:
        """The next job, now running; None when there is none that may start, or when the disk refuses."""
        try:
            return self.store.claim(among)
        except StoreError:  # whoever looks at the queue is told; jobs go on when the disk can be written again
            logging.getLogger(__name__).exception("claiming a job")
            return None

    def course(self, job: Job, attempt: Attempt, renew: Callable[[], None]) -> Iterator[Event]:
        """See one running job to its end; yields its events. renew(): what made it must not make anything more.

        If memory runs out it is begun once more, with the smaller memory plan. If the iteration is broken off, the job
        is interrupted.
        """
        try:
            end = yield from self._heard(job, attempt)
            while isinstance(end, Failed) and end.memory and job.attempt < ATTEMPTS and job.id not in self.cancelled:
                if self.stopping:
                    end = None
                    break
                # What is left of it would keep its memory, and a CUDA context may be broken.
                renew()
                begun = self.store.again(job.id, AGAIN)
                if begun is None:
                    break
                job = begun
                end = yield from self._heard(job, attempt)
            if end is not None:
                end = self._told(job, end)
            self._settle(job, end)
        except GeneratorExit:
            self._move(job, "interrupted", CLOSED if self.stopping else LEFT)
            raise
        except Exception:
            # A fault of one job must not leave all later ones waiting.
            logging.getLogger(__name__).exception("job %s", job.id)
            renew()
            end = Failed(UNEXPECTED)
            with contextlib.suppress(Exception):
                end = self._told(job, end)
            self._settle(job, end)
        finally:
            with self.wake:
                self.cancelled.discard(job.id)
                self.wake.notify_all()
        if end is not None:
            yield end

    def _look(self, job_id: str) -> Job | None:
        """The job as it is now; None too when the program has ended meanwhile."""
        try:
            return None if self.stopping else self.store.get(job_id)
        except StoreError:
            if self.stopping:
                return None
            raise

    def _heard(self, job: Job, attempt: Attempt) -> Generator[Event, None, Event | None]:
        making = attempt(job)
        with contextlib.closing(making):
            while True:
                try:
                    event = next(making)
                except StopIteration as stop:
                    end: Event | None = stop.value
                    return end
                yield self._told(job, event)

    def _told(self, job: Job, event: Event) -> Event:
        numbered = self.on_event(job.id, event)
        return numbered if isinstance(numbered, type(event)) else event

    def _settle(self, job: Job, end: Event | None) -> None:
        if end is None:
            self._move(job, "interrupted", CLOSED)
        else:
            ends: dict[type, State] = {Done: "done", Failed: "failed", Cancelled: "cancelled"}
            # A job that went well keeps what had to be done for it.
            self._move(job, ends[type(end)], end.message if isinstance(end, Failed) else None)

    def _move(self, job: Job, state: State, message: str | None) -> None:
        """Write down how a job ended; a full disk only delays it."""
        while True:
            try:
                self.store.move(job.id, "running", state, message)
                return
            except StoreError:
                logging.getLogger(__name__).exception("job %s is %s", job.id, state)
                if self.stopping:
                    return
                time.sleep(1.0)

    def follow(self, job_id: str) -> Iterator[Event]:
        """The events of a job that something else makes, until it has ended or the program stops."""
        seen = 0
        while True:
            job = self._look(job_id)
            for event in self.events(job_id, seen):
                seen = event.sequence
                yield event
            if job is None or job.ended or self.stopping:
                return
            with self.wake:
                self.wake.wait(FOLLOW_SECONDS)
