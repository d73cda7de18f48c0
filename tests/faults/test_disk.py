"""A disk that fills up: in the midst of a run, while a run ends, and for the worker alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from pusa_app import media
from pusa_app.errors import RecipeError
from pusa_app.events import Progress
from pusa_app.jobs import Job
from pusa_app.studio import Studio
from tests.faults.staging import PATIENCE, end_of, recipe, wait_for

pytestmark = pytest.mark.usefixtures("forked")

ROOT = Path(__file__).parents[2]


def step_of(studio: Studio, job: Job) -> int:
    progress, _ = studio.progress(job.id)
    return progress.step if isinstance(progress, Progress) and progress.phase == "sampling" else 0


def unfinished(studio: Studio) -> list[str]:
    return [p.name for p in studio.settings.data_dir.rglob("*") if p.name.startswith(".pusa-")]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sets a limit of another process")
def test_a_worker_that_may_write_no_more_fails_its_job_in_one_line_and_lives_on(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import resource

    monkeypatch.setenv("PUSA_TEST_FAKE_DELAY", "0.05")
    job = studio.submit(recipe(30), "me")
    wait_for(lambda: step_of(studio, job) >= 1)
    worker = studio.worker_pid
    assert worker is not None
    for process in (psutil.Process(worker), *psutil.Process(worker).children()):  # ffmpeg waits for frames already
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
    failed = end_of(studio, job)
    assert failed.state == "failed" and "cannot be written" in failed.message
    assert "\n" not in failed.message and failed.message.endswith(".") and ".part" not in failed.message
    assert unfinished(studio) == [] and list(studio.settings.results_dir.iterdir()) == []
    assert "Traceback" not in capfd.readouterr().err, "the log cannot be written either, and says nothing of it"
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    again = studio.resume(job.id, "me")
    done = end_of(studio, again)
    assert done.state == "done", done.message
    assert media.check_clip(studio.result(done)).num_frames == 7  # type: ignore[arg-type]
    assert studio.worker_pid == worker


def test_a_disk_without_room_takes_no_job_until_there_is_some(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    real = media.free_bytes
    monkeypatch.setattr(media, "free_bytes", lambda folder: 1000)
    with pytest.raises(RecipeError, match=r"The disk has 0 MB left and .* MB may be needed: make room first"):
        studio.submit(recipe(), "me")
    assert studio.jobs() == [] and not studio.settings.runs_dir.exists()
    monkeypatch.setattr(media, "free_bytes", real)
    assert end_of(studio, studio.submit(recipe(), "me")).state == "done"


def test_a_database_that_is_full_while_a_job_ends_only_delays_it(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words of the real thing; test_a_disk_that_is_really_full has the thing itself where a disk can be made."""
    from pusa_app.errors import StoreError

    real, refused = studio._store.move, []

    def move(job_id: str, expected: Any, state: Any, message: str | None = None) -> Job | None:
        if state == "done" and len(refused) < 2:
            refused.append(job_id)
            raise StoreError("The disk is full, so the queue cannot be written: make room, then try again.")
        return real(job_id, expected, state, message)

    monkeypatch.setattr(studio._store, "move", move)
    job, following = studio.submit(recipe(), "me"), studio.submit(recipe(), "me")
    done = end_of(studio, job)
    assert done.state == "done" and studio.result(done) is not None and refused == [job.id] * 2
    assert end_of(studio, following).state == "done"


# What happens on a disk of 70 megabytes; prints one JSON object.
ON_A_TINY_DISK = """
import json, os, sys, threading, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from pusa_app.errors import UserError
from pusa_app.events import Done, Failed
from pusa_app.settings import Settings
from tests.faults.staging import end_of, recipe, wait_for
from tests.faults.test_disk import step_of, unfinished

def fill():
    with open(ballast, "wb", buffering=0) as file:
        for size in (1 << 20, 65536, 4096, 512, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass

def refused(call, *args):
    try:
        call(*args)
    except UserError as error:
        return str(error)

if __name__ == "__main__":
    from pusa_app.studio import Studio
    data = Path(sys.argv[1])
    ballast, said = data / "ballast", {}
    studio = Studio(Settings(data_dir=data, reserve_bytes=100_000))

    # In the midst of a run.
    job, following = studio.submit(recipe(60), "me"), studio.submit(recipe(), "me")
    wait_for(lambda: step_of(studio, job) >= 1)
    fill()
    said["submit"] = refused(studio.submit, recipe(), "me")
    said["pause"] = refused(studio.pause, "me")
    wait_for(lambda: any(isinstance(e, Failed) for e in studio.events(job.id)))
    time.sleep(0.5)
    said["while full"] = [studio.job(job.id).state, studio.job(following.id).state]
    said["unfinished"] = unfinished(studio)
    said["results"] = [p.name for p in studio.settings.results_dir.iterdir()]
    ballast.unlink()
    failed = end_of(studio, job)
    said["failed"] = [failed.state, failed.message]
    said["following"] = end_of(studio, following).state
    resumed = end_of(studio, studio.resume(job.id, "me"))
    said["resumed"] = [resumed.state, resumed.message, studio.result(resumed) is not None]

    # While it ends: the video is there, and the database cannot say so.
    hear = studio._runner.on_event
    def on_event(job_id, event):
        if isinstance(event, Done):
            fill()
        return hear(job_id, event)
    studio._runner.on_event = on_event
    last = studio.submit(recipe(), "me")
    wait_for(lambda: any(isinstance(e, Done) for e in studio.events(last.id)))
    time.sleep(0.5)
    said["last while full"] = [studio.job(last.id).state, Path(last.out).is_file()]
    studio.close()
    studio = None
    said["start while full"] = refused(lambda: Studio(Settings(data_dir=data)))
    ballast.unlink()
    studio = Studio(Settings(data_dir=data), idle=True)
    last = studio.job(last.id)
    said["last"] = [last.state, studio.result(last) is not None, studio.notice]
    studio.close()
    print(json.dumps(said))
"""


def _may_mount() -> bool:
    if not sys.platform.startswith("linux") or shutil.which("unshare") is None or shutil.which("mount") is None:
        return False
    tried = ["unshare", "--mount", "--map-root-user", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_a_disk_that_is_really_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not _may_mount():
        pytest.skip("no disk can be mounted here")
    monkeypatch.setenv("PUSA_TEST_FAKE_DELAY", "0.05")
    disk, script = tmp_path / "disk", tmp_path / "program.py"
    disk.mkdir()
    script.write_text(ON_A_TINY_DISK)
    inside = 'mount -t tmpfs -o size=70m tmpfs "$1" && exec "$2" "$3" "$1" "$4"'
    words = ["sh", "-c", inside, "sh", str(disk), sys.executable, str(script), str(ROOT)]
    command = ["unshare", "--mount", "--map-root-user", *words]
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    assert "make room first" in said["submit"] and "The disk is full" in said["pause"]
    assert said["while full"] == ["running", "queued"], "how it ended cannot be written down yet"
    assert said["unfinished"] == said["results"] == []
    state, message = said["failed"]
    assert state == "failed" and message.endswith("cannot be written: the disk is full."), message
    assert said["following"] == "done" and said["resumed"] == ["done", "", True]
    assert said["last while full"] == ["running", True]
    assert "The disk is full" in said["start while full"]
    assert said["last"] == ["done", True, ""], "an hour's work, and nothing of it is made again"
    assert os.listdir(disk) == []
