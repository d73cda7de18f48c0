"""The last moments of a run: cancelled or cut off while it decodes and writes, and many runs one after another."""

from __future__ import annotations

import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil
import pytest

from pusa_app import media
from pusa_app.events import Cancelled, Done, Failed, Progress
from pusa_app.jobs import EventLog, Job, JobStore, Supervisor
from pusa_app.studio import Studio
from tests.faults.staging import end_of, recipe, wait_for

pytestmark = pytest.mark.usefixtures("fake")


def phase_of(studio: Studio, job: Job) -> str:
    progress, _ = studio.progress(job.id)
    return progress.phase if progress is not None else ""


@pytest.mark.usefixtures("forked")
def test_cancelled_while_it_decodes_nothing_is_left_but_the_latents(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoder hangs, so the worker is ended in the midst of writing the file."""
    switch = tmp_path / "fault"
    switch.touch()
    monkeypatch.setenv("PUSA_TEST_FAKE_FAIL", f"hang@decode:{switch}")
    job = studio.submit(recipe(4), "me")
    wait_for(lambda: phase_of(studio, job) == "decoding")
    assert studio.cancel(job.id, "me")
    cut = end_of(studio, job)
    assert cut.state == "cancelled" and studio.result(cut) is None
    made = studio.can_resume(cut)
    assert made >= 2
    switch.unlink()
    # ffmpeg ends by itself when nobody feeds it; what it and the worker leave is hidden, and swept at the next start.
    assert [p.name for p in studio.settings.results_dir.iterdir() if not p.name.startswith(".")] == []
    resumed = end_of(studio, studio.resume(job.id, "me"))
    whole = end_of(studio, studio.submit(recipe(4), "me"))
    assert resumed.state == whole.state == "done"
    frames = [media.read_frames(Path(each.out)) for each in (resumed, whole)]
    assert np.array_equal(*frames)
    studio.close()
    again = Studio(studio.settings, idle=True)
    again.close()
    assert [p.name for p in studio.settings.data_dir.rglob("*") if p.name.startswith(".pusa-")] == []


# --- a worker of a few lines, whose last moments take long -----------------------------------------------------------


def finishing(pipe: Connection, way: str) -> None:
    """Tells that it writes, and ends as `way` says when it is told to cancel, or after a while."""
    while True:
        _, job_id, recipe, out, _ = pipe.recv()
        pipe.send((job_id, Progress("writing", 0, 1)))
        cancelled = pipe.poll(0.5 if way == "quick" else 60) and pipe.recv() == ("cancel", job_id)
        if way == "too late" or not cancelled:  # the file came into its place in the same moment
            Path(out).write_text("a video")
            pipe.send((job_id, Done(out, recipe, 0.0, 1)))
        elif way == "fails":
            pipe.send((job_id, Failed("The disk is full.")))
        else:
            pipe.send((job_id, Cancelled()))


class Bench:
    def __init__(self, folder: Path, way: str) -> None:
        self.store, self.log, self.folder = JobStore.in_memory(), EventLog(), folder
        self.runner = Supervisor(self.store, finishing, (way,), on_event=self.log.add, grace_seconds=30)

    def writing(self) -> Job:
        """A job that has come so far."""
        (job,) = self.store.add(Job(owner="me", recipe="{}", out=str(self.folder / "a.mp4")))
        self.runner.nudge()
        wait_for(lambda: self.log.since(job.id))
        return job


@pytest.mark.parametrize(
    ("way", "state", "video"), [("too late", "done", True), ("heard", "cancelled", False), ("fails", "failed", False)]
)
def test_a_cancel_at_the_very_end_gives_a_video_or_none_and_says_which(
    tmp_path: Path, way: str, state: str, video: bool
) -> None:
    bench = Bench(tmp_path, way)
    try:
        job = bench.writing()
        assert bench.runner.cancel(job.id)
        assert end_of(bench.store, job).state == state and Path(job.out).exists() is video
        assert not bench.runner.cancel(job.id), "it has ended"
        wait_for(lambda: not bench.runner.cancelled)
    finally:
        bench.runner.stop()


@pytest.mark.parametrize(
    ("way", "state", "video"),
    [("too late", "done", True), ("heard", "interrupted", False), ("fails", "failed", False)],
)
def test_the_program_ends_while_a_job_does(tmp_path: Path, way: str, state: str, video: bool) -> None:
    bench = Bench(tmp_path, way)
    job = bench.writing()
    bench.runner.stop()
    assert end_of(bench.store, job).state == state and Path(job.out).exists() is video
    assert bench.runner.worker_pids == []


def test_a_worker_that_does_not_hear_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pusa_app.jobs.supervisor.STOP_SECONDS", 0.3)
    store, log = JobStore.in_memory(), EventLog()
    runner = Supervisor(store, deaf, on_event=log.add, grace_seconds=600)
    (job,) = store.add(Job(owner="me", recipe="{}", out=""))
    runner.nudge()
    wait_for(lambda: log.since(job.id))
    assert runner.cancel(job.id) is True  # which he does not hear either
    (pid,) = runner.worker_pids
    runner.stop()
    assert store.get(job.id).state == "cancelled"  # type: ignore[union-attr]
    wait_for(lambda: not psutil.pid_exists(pid))


def deaf(pipe: Connection) -> None:
    pipe.send((pipe.recv()[1], Progress("sampling", 1, 2)))
    time.sleep(3600)


@pytest.mark.parametrize("cancels", [1, 4])
def test_a_cancel_in_any_moment_ends_the_job_once(tmp_path: Path, cancels: int) -> None:
    """Cancels race with the end of runs that take half a second: whatever wins, there is one end, and the next runs."""
    bench = Bench(tmp_path, "quick")
    try:
        for delay in (0.0, 0.2, 0.45, 0.49, 0.5, 0.51, 0.55, 0.6):
            job = bench.writing()
            time.sleep(delay)
            threads = [threading.Thread(target=bench.runner.cancel, args=(job.id,)) for _ in range(cancels)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            ended = end_of(bench.store, job)
            assert ended.state in ("done", "cancelled")
            ends = [e for e in bench.log.since(job.id) if isinstance(e, Done | Failed | Cancelled)]
            assert [type(e).__name__.lower() for e in ends] == [ended.state]
    finally:
        bench.runner.stop()


# --- many ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(psutil.Process, "num_fds"), reason="counts open files")
def test_many_identical_runs_take_no_more_memory(studio: Studio) -> None:
    """Neither the program nor its worker, nor the number of their threads and open files."""

    def held() -> list[tuple[int, int, int]]:
        found = []
        for pid in (None, studio.worker_pid):
            process = psutil.Process(pid)
            found.append((process.memory_info().rss, process.num_fds(), process.num_threads()))
        return found

    work = recipe(steps=1, num_frames=37, size=(128, 128))  # 1.8 MB of frames
    for _ in range(10):
        last = studio.submit(work, "me")
    end_of(studio, last)
    before = held()
    for _ in range(40):
        last = studio.submit(work, "me")
    end_of(studio, last)
    after = held()
    assert {job.state for job in studio.jobs()} == {"done"}
    for (rss, files, threads), (rss_now, files_now, threads_now) in zip(before, after, strict=True):
        assert rss_now - rss < 12_000_000, "a fifth of what the frames of these runs take"
        assert files_now <= files + 3 and threads_now <= threads + 2
