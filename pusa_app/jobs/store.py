"""Where jobs are kept: an interface, and the one that forgets when the program ends."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Any, Protocol

from pusa_app.jobs.job import MOVES, Job, State


class JobStore(Protocol):
    """Every method is atomic and may be called from any thread."""

    def add(self, job: Job) -> Job:
        """Keep a new job; returns it with its number, which rises from 1 in the order of arrival."""

    def get(self, job_id: str) -> Job | None:
        """The job as it is now."""

    def list(self, owner: str | None = None, state: State | None = None) -> list[Job]:
        """Jobs in order of arrival, of one owner and in one state where given."""

    def claim(self) -> Job | None:
        """Take the oldest queued job and make it running; None when nothing waits."""

    def move(self, job_id: str, expected: State, state: State, message: str = "") -> Job | None:
        """Change the state of a job that is in `expected`; None when it is not, or when no such move exists."""


class MemoryStore:
    """A JobStore in a dictionary."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def add(self, job: Job) -> Job:
        with self._lock:
            job = dataclasses.replace(job, number=len(self._jobs) + 1)
            self._jobs[job.id] = job
            return job

    def get(self, job_id: str) -> Job | None:
        with self._lock:
            return self._jobs.get(job_id)

    def list(self, owner: str | None = None, state: State | None = None) -> list[Job]:
        with self._lock:
            return [
                job
                for job in self._jobs.values()
                if (owner is None or job.owner == owner) and (state is None or job.state == state)
            ]

    def claim(self) -> Job | None:
        with self._lock:
            waiting = next((job for job in self._jobs.values() if job.state == "queued"), None)
            return None if waiting is None else self._change(waiting, state="running", started=time.time())

    def move(self, job_id: str, expected: State, state: State, message: str = "") -> Job | None:
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None or job.state != expected or state not in MOVES.get(expected, ()):
                return None
            return self._change(job, state=state, message=message, finished=None if state == "running" else time.time())

    def _change(self, job: Job, **changes: Any) -> Job:
        self._jobs[job.id] = dataclasses.replace(job, **changes)
        return self._jobs[job.id]
