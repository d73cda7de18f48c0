"""One thread that owns the worker process: starts it, feeds it, listens to it, and outlives its death."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from pusa_app.events import Cancelled, Done, Event, Failed
from pusa_app.jobs.job import Job, State
from pusa_app.jobs.store import JobStore

POLL_SECONDS = 0.1
TERMINATE_SECONDS = 5.0

# What the two sides say to each other over the pipe: tuples, first the verb.
#   to the worker    ("run", job id, recipe JSON, output path) | ("cancel", job id) | ("warm", model id)
#   from the worker  (job id, Event), the last one of a job being Done, Failed or Cancelled
Target = Callable[..., None]


class Supervisor:
    """Runs the queued jobs of a store, one at a time, in a worker process that lives as long as it can.

    `target(connection, *args)` is the worker's main function, importable by name because the process is spawned.
    `on_event(job_id, event)` is called in the supervisor's thread, before the job's state changes for a last event;
    only for a job that is cancelled while it waits it is called in the thread of whoever cancels, after the change.
    """

    def __init__(
        self,
        store: JobStore,
        target: Target,
        args: tuple[Any, ...] = (),
        *,
        on_event: Callable[[str, Event], Any],
        grace_seconds: float = 15.0,
    ) -> None:
        self._store, self._target, self._args = store, target, args
        self._on_event, self._grace = on_event, grace_seconds
        self._wake = threading.Condition()
        self._stopping = False
        self._cancelled: set[str] = set()
        self._warm: str | None = None
        self._thread: threading.Thread | None = None
        self._process: Any = None
        self._pipe: Connection | None = None

    # --- what others call, from any thread --------------------------------------------------------------------------

    def nudge(self) -> None:
        """Tell that a job was added; the first call starts the thread."""
        with self._wake:
            if self._stopping:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="supervisor", daemon=True)
                self._thread.start()
            self._wake.notify_all()

    def warm(self, model: str) -> None:
        """Start the worker and have it load a model, unless it lives already."""
        if self.worker_pid is None:
            self._warm = model
            self.nudge()

    def cancel(self, job_id: str) -> bool:
        """Ask for an end: at once if the job waits, at its next step if it runs. False when it had ended already."""
        if self._store.move(job_id, "queued", "cancelled"):
            self._on_event(job_id, Cancelled())
            return True
        with self._wake:
            job = self._store.get(job_id)
            if job is None or job.ended:
                return False
            self._cancelled.add(job_id)
            return True

    def stop(self) -> None:
        """End the worker and the thread; a running job becomes interrupted."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join()

    @property
    def worker_pid(self) -> int | None:
        """Process id of the living worker."""
        process = self._process
        try:
            return process.pid if process is not None and process.is_alive() else None
        except ValueError:  # the supervisor's thread closed it just now
            return None

    # --- the thread --------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while not self._stopping:
            job = self._store.claim()
            if job is not None:
                try:
                    self._run(job)
                except Exception:
                    # A fault of one job must not leave all later ones waiting.
                    logging.getLogger(__name__).exception("job %s", job.id)
                    self._give_up(job)
                continue
            self._warm_up()
            with self._wake:
                # A job added between claim and here has notified too early, hence the timeout.
                self._wake.wait(timeout=1.0)
        self._end_worker()

    def _warm_up(self) -> None:
        model, self._warm = self._warm, None
        if model is None:
            return
        # A worker that cannot start says so when a job needs it.
        with contextlib.suppress(OSError):
            self._connected().send(("warm", model))

    def _run(self, job: Job) -> None:
        """See one job to its end, whatever the worker does."""
        end = self._start_and_follow(job)
        ends: dict[type, State] = {Done: "done", Failed: "failed", Cancelled: "cancelled"}
        if end is None:
            self._store.move(job.id, "running", "interrupted", "The program was closed before this video was finished.")
        else:
            self._on_event(job.id, end)
            message = end.message if isinstance(end, Failed) else ""
            self._store.move(job.id, "running", ends[type(end)], message)
        with self._wake:
            self._cancelled.discard(job.id)

    def _give_up(self, job: Job) -> None:
        """End a job that something unforeseen happened to; the worker may be in any state."""
        self._end_worker()
        message = "The run failed unexpectedly. Try again; the log says more."
        with contextlib.suppress(Exception):
            self._on_event(job.id, Failed(message))
        self._store.move(job.id, "running", "failed", message)

    def _start_and_follow(self, job: Job) -> Event | None:
        """The last event of the job; None when the program stops first."""
        try:
            pipe = self._connected()
            pipe.send(("run", job.id, job.recipe, job.out))
            return self._follow(job, pipe)
        except (EOFError, OSError):
            code = self._exit_code()
            if job.id in self._cancelled:
                return Cancelled()
            return Failed(_why(code))

    def _follow(self, job: Job, pipe: Connection) -> Event | None:
        deadline: float | None = None
        while not self._stopping:
            if job.id in self._cancelled:
                if deadline is None:
                    pipe.send(("cancel", job.id))
                    deadline = time.monotonic() + self._grace
                elif time.monotonic() > deadline:
                    self._end_worker()
                    return Cancelled()
            if not pipe.poll(POLL_SECONDS):
                continue
            job_id, event = pipe.recv()
            if job_id != job.id:
                continue
            if isinstance(event, Done | Failed | Cancelled):
                return event
            self._on_event(job.id, event)
        return None

    # --- the process -------------------------------------------------------------------------------------------------

    def _connected(self) -> Connection:
        """The pipe to a living worker; starts one where there is none."""
        if self._process is not None and self._process.is_alive() and self._pipe is not None:
            return self._pipe
        self._end_worker()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=self._target, args=(theirs, *self._args), name="worker", daemon=True)
        self._process.start()
        # Ours must be the only open copy, or the death of the worker would never read as end of file.
        theirs.close()
        self._pipe = ours
        return ours

    def _exit_code(self) -> int | None:
        """The exit code of a worker that closed its pipe; such a worker is ended if it lives on."""
        self._process.join(TERMINATE_SECONDS)
        code: int | None = self._process.exitcode
        self._end_worker()
        return code

    def _end_worker(self) -> None:
        process, pipe, self._process, self._pipe = self._process, self._pipe, None, None
        if pipe is not None:
            pipe.close()
        if process is None:
            return
        if process.is_alive():
            process.terminate()
            process.join(TERMINATE_SECONDS)
        if process.is_alive():
            process.kill()
            process.join(TERMINATE_SECONDS)
        with contextlib.suppress(ValueError):
            process.close()


def _why(code: int | None) -> str:
    """The end of a worker, in words. A negative exit code is the signal that ended it."""
    if code == -9:
        return (
            "The worker process was stopped from outside, most likely because memory ran out: "
            "try a shorter or smaller video."
        )
    if code is not None and code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"The worker process crashed ({name}). The next video starts in a new one; try again."
    return f"The worker process ended unexpectedly (exit code {code}). Try again; its log says more."
