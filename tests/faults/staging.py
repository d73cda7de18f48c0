"""What the tests of faults have in common: a short run, and waiting for what will happen."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pusa_app import testing
from pusa_app.jobs import Job, JobStore
from pusa_app.studio import Studio, new_recipe
from pusa_app.timeline import Recipe

PATIENCE = 180.0  # seconds; a busy machine is slow, not wrong


def recipe(steps: int = 2, **more: Any) -> Recipe:
    """A run of the fake model: a short clip from words."""
    fields = {"prompt": "blue", "num_frames": 7, "steps": steps, **more}
    return new_recipe(testing.card(), "text-to-video", **fields)


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something is so; fails when it takes too long."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def end_of(jobs: JobStore | Studio, job: Job) -> Job:
    """A job when it has ended."""
    found = jobs.get if isinstance(jobs, JobStore) else jobs.job
    wait_for(lambda: found(job.id).ended)  # type: ignore[union-attr]
    return found(job.id)  # type: ignore[return-value]
