"""The threads that own the worker processes: start them, feed them, listen to them, and outlive their death."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from pusa_app.events import Cancelled, Done, Event, Failed
from pusa_app.jobs.job import Job
from pusa_app.jobs.runner import BaseRunner
from pusa_app.jobs.store import JobStore

POLL_SECONDS = 0.1
TERMINATE_SECONDS = 5.0
# When the program ends, a running job has so long to come to its next step and to leave a checkpoint there.
STOP_SECONDS = 3.0
# What ends a whole group of processes. The worker may be gone before the program has heard of it.
FAREWELLS = {-getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)}
FAREWELL_SECONDS = 2.0

# What the two sides say to each other over the pipe: tuples, first the verb.
#   to the worker    ("run", job id, recipe JSON, output path, options) | ("cancel", job id) | ("warm", model id)
#                    options: {"state": where the checkpoint is, "embed": bool, "lean": 0 or 1}
#   from the worker  (job id, Event), the last one of a job being Done, Failed or Cancelled
Target = Callable[..., None]


class Supervisor(BaseRunner):
    """Runs the queued jobs of a store, one at a time in each of its worker processes, which live as long as they can.

    `target(connection, *args)` is the worker's main function, importable by name because the process is spawned.
    workers: further arguments of each worker, such as its GPU; their number is that of the workers. `on_event` is
    called in a worker's thread. The rest as BaseRunner says.
    """

    inline = False

    def __init__(
        self,
        store: JobStore,
        target: Target,
        args: tuple[Any, ...] = (),
        *,
        workers: Sequence[tuple[Any, ...]] = ((),),
        **more: Any,
    ) -> None:
        super().__init__(store, **more)
        self.nudges = 0
        self._lanes = [_Lane(self, target, (*args, *one)) for one in workers]

    # --- what others call, from any thread --------------------------------------------------------------------------

    @property
    def at_once(self) -> int:
        return len(self._lanes)

    def nudge(self) -> None:
        """Tell that a job may be started; the first call starts the threads."""
        with self.wake:
            if self.stopping:
                return
            for lane in self._lanes:
                lane.start()
            self.nudges += 1
            self.wake.notify_all()

    def warm(self, model: str) -> None:
        """Start a worker and have it load a model, unless one lives already."""
        if not self.worker_pids:
            self._lanes[0].warm = model
            self.nudge()

    def stop(self) -> None:
        """End the workers and the threads; running jobs become interrupted, with a checkpoint if they hear of it."""
        with self.wake:
            self.stopping = True
            self.wake.notify_all()
        for lane in self._lanes:
            lane.join()

    def run(self, job_id: str) -> Iterator[Event]:
        """The events of a job until it has ended; it is made whether anybody iterates or not."""
        self.nudge()
        return self.follow(job_id)

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the living workers."""
        return [pid for lane in self._lanes if (pid := lane.pid) is not None]


class _Lane:
    """One worker process and the thread that drives it."""

    def __init__(self, owner: Supervisor, target: Target, args: tuple[Any, ...]) -> None:
        self._owner, self._target, self._args = owner, target, args
        self.warm: str | None = None
        self._thread: threading.Thread | None = None
        self._process: Any = None
        self._pipe: Connection | None = None

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name="supervisor", daemon=True)
            self._thread.start()

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join()

    @property
    def pid(self) -> int | None:
        process = self._process
        try:
            return process.pid if process is not None and process.is_alive() else None
        except ValueError:  # the lane's thread closed it just now
            return None

    # --- the thread --------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        owner = self._owner
        while not owner.stopping:
            nudges = owner.nudges
            job = owner.claim()
            if job is not None:
                for _ in owner.course(job, self._attempt, self._end_worker):
                    pass
                continue
            self._warm_up()
            with owner.wake:
                if owner.nudges == nudges and not owner.stopping:
                    # The timeout is for what nobody tells, such as room on a disk that was full.
                    owner.wake.wait(timeout=1.0)
        self._end_worker()

    def _warm_up(self) -> None:
        model, self.warm = self.warm, None
        if model is None:
            return
        # A worker that cannot start says so when a job needs it.
        with contextlib.suppress(OSError):
            self._connected().send(("warm", model))

    def _attempt(self, job: Job) -> Generator[Event, None, Event | None]:
        """Yields what the worker tells; returns the last event of the job, or None when the program stops first."""
        owner = self._owner
        try:
            pipe = self._connected()
            pipe.send(("run", job.id, job.recipe, job.out, owner.options(job)))
            return (yield from self._follow(job, pipe))
        except (EOFError, OSError):
            code = self._exit_code()
            if job.id in owner.cancelled:
                return Cancelled()
            if code in FAREWELLS:
                with owner.wake:
                    owner.wake.wait_for(lambda: owner.stopping, FAREWELL_SECONDS)
            return None if owner.stopping else Failed(_why(code), memory=code == -signal.SIGKILL)

    def _follow(self, job: Job, pipe: Connection) -> Generator[Event, None, Event | None]:
        owner = self._owner
        asked: float | None = None
        while True:
            cancelled = job.id in owner.cancelled
            if cancelled or owner.stopping:
                now = time.monotonic()
                if asked is None:
                    pipe.send(("cancel", job.id))
                    asked = now
                elif now > asked + (STOP_SECONDS if owner.stopping else owner.grace_seconds):
                    self._end_worker()
                    return Cancelled() if cancelled else None
            if not pipe.poll(POLL_SECONDS):
                continue
            job_id, event = pipe.recv()
            if job_id != job.id:
                continue
            if isinstance(event, Cancelled) and not cancelled:
                return None  # it was the program that asked
            if isinstance(event, Done | Failed | Cancelled):
                return event
            yield event

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
