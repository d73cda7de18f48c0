"""Two hundred jobs through the queue: all of them are made, and neither process grows with their number."""

from __future__ import annotations

import os
import time

import psutil
import pytest

from pusa_app import testing
from pusa_app.studio import Studio, new_recipe

JOBS, FIRST = 200, 40
GROWTH = 12.0  # MB over the later jobs: 75 kB a job, which the frames of one clip are already
PATIENCE = 600.0


def megabytes(pid: int | None) -> float:
    return psutil.Process(pid).memory_info().rss / 2**20


@pytest.mark.slow
def test_memory_stays_flat_over_two_hundred_jobs(studio: Studio) -> None:
    recipe = new_recipe(testing.card(), "text-to-video", prompt="blue", num_frames=7, steps=1)
    deadline = time.monotonic() + PATIENCE

    def make(count: int) -> None:
        studio.pause("me")
        jobs = [studio.submit(recipe.model_copy(update={"seed": seed}), "me") for seed in range(count)]
        studio.unpause("me")
        while any(not studio.job(job.id).ended for job in jobs[-1:]):  # type: ignore[union-attr]
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.05)
        assert {studio.job(job.id).state for job in jobs} == {"done"}  # type: ignore[union-attr]

    make(FIRST)
    worker = studio.worker_pid
    before = megabytes(os.getpid()), megabytes(worker)
    threads, files = psutil.Process().num_threads(), psutil.Process().num_fds()
    make(JOBS - FIRST)
    after = megabytes(os.getpid()), megabytes(worker)
    assert studio.worker_pid == worker, "one worker made them all"
    growth = [b - a for a, b in zip(before, after, strict=True)]
    assert max(growth) < GROWTH, f"page and worker have grown by {growth} MB"
    assert psutil.Process().num_threads() <= threads + 1 and psutil.Process().num_fds() <= files + 2
    assert len(studio.jobs("me")) == JOBS
    assert len(list(studio.settings.results_dir.glob("*.mp4"))) == JOBS
