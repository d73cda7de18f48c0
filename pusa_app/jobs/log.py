"""The events of every job, numbered, in memory: whoever comes back asks for those since the last one seen."""

from __future__ import annotations

import dataclasses
import threading

from pusa_app.events import Event, Preview, Progress

KEPT_JOBS = 100  # that have ended


class EventLog:
    """Numbers events per job, from 1 on. Only the latest preview of a job is kept, and few events of ended jobs."""

    def __init__(self, kept_jobs: int = KEPT_JOBS) -> None:
        self._events: dict[str, list[Event]] = {}
        self._counts: dict[str, int] = {}
        self._ended: dict[str, None] = {}  # in the order in which they ended
        self._kept_jobs = kept_jobs
        self._lock = threading.Lock()

    def add(self, job_id: str, event: Event) -> Event:
        """Keep the event; returns it with its sequence number."""
        with self._lock:
            number = self._counts[job_id] = self._counts.get(job_id, 0) + 1
            event = dataclasses.replace(event, sequence=number)
            events = self._events.setdefault(job_id, [])
            if isinstance(event, Preview):
                events[:] = [e for e in events if not isinstance(e, Preview)]
            elif not isinstance(event, Progress):
                # The run is over: what remains of interest is how it ended and what it last looked like.
                events[:] = [e for e in events if isinstance(e, Preview)]
                self._ended[job_id] = None
            events.append(event)
            while len(self._ended) > self._kept_jobs:
                oldest = next(iter(self._ended))
                del self._ended[oldest], self._events[oldest], self._counts[oldest]
            return event

    def since(self, job_id: str, sequence: int = 0) -> list[Event]:
        """Events with a higher number, oldest first."""
        with self._lock:
            return [e for e in self._events.get(job_id, ()) if e.sequence > sequence]
