"""The worker process under fire: killed, crashed, hanging, out of memory, orphaned."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pusa_app.jobs import Job
from pusa_app.studio import Studio
from tests.faults.staging import PATIENCE, end_of, recipe, wait_for

pytestmark = pytest.mark.usefixtures("fake")

ROOT = Path(__file__).parents[2]


def sampling(studio: Studio, job: Job) -> bool:
    progress, _ = studio.progress(job.id)
    return progress is not None and progress.phase == "sampling" and progress.step > 0


def kill_worker(studio: Studio, job: Job, but: int | None = None) -> int:
    """Kill the worker, once it is another one than `but`, in the middle of the job."""
    wait_for(lambda: sampling(studio, job) and studio.worker_pid not in (None, but))
    killed = studio.worker_pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    return killed


def test_kill_9_in_the_middle_tries_again_once_with_less_memory_and_then_fails_in_words(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE_DELAY", "0.2")
    long, following = studio.submit(recipe(100), "me"), studio.submit(recipe(), "me")
    killed = kill_worker(studio, long)
    wait_for(lambda: studio.job(long.id).attempt == 2)  # type: ignore[union-attr]
    assert studio.job(long.id).state == "running" and studio.job(long.id).lean == 1  # type: ignore[union-attr]
    kill_worker(studio, long, but=killed)
    failed = end_of(studio, long)
    assert failed.state == "failed" and "memory" in failed.message and failed.attempt == 2
    assert "\n" not in failed.message and "Traceback" not in failed.message
    assert end_of(studio, following).state == "done"
    assert studio.worker_pid not in (None, killed)
    assert not Path(long.out).exists()


def test_a_job_that_was_killed_once_is_finished_and_says_what_was_done(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE_DELAY", "0.1")
    job = studio.submit(recipe(30), "me")
    kill_worker(studio, job)
    done = end_of(studio, job)
    assert done.state == "done" and done.attempt == 2 and "smaller memory plan" in done.message
    assert studio.result(done) is not None


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("user", "The fake model was told to refuse."),
        ("error", "failed unexpectedly (RuntimeError)"),
        ("memory", "not enough memory"),
        ("segv", "crashed (SIGSEGV)"),
    ],
)
def test_whatever_a_model_does_is_one_line_and_the_next_job_runs(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, words: str
) -> None:
    switch = tmp_path / "fault"
    switch.touch()
    monkeypatch.setenv("PUSA_TEST_FAKE_FAIL", f"{fault}:{switch}")
    failed = end_of(studio, studio.submit(recipe(), "me"))
    assert failed.state == "failed" and words in failed.message
    assert "\n" not in failed.message and "secret of the machine" not in failed.message
    if fault == "error":
        assert "secret of the machine" in studio.settings.log_file.read_text(), "the log has the traceback"
    switch.unlink()
    assert end_of(studio, studio.submit(recipe(), "me")).state == "done"


def test_a_hanging_model_is_ended_by_a_cancel(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switch = tmp_path / "fault"
    switch.touch()
    monkeypatch.setenv("PUSA_TEST_FAKE_FAIL", f"hang:{switch}")
    hanging = studio.submit(recipe(), "me")
    wait_for(lambda: (studio.progress(hanging.id)[0] or 0) and studio.progress(hanging.id)[0].phase == "sampling")  # type: ignore[union-attr]
    studio.cancel(hanging.id)
    assert end_of(studio, hanging).state == "cancelled"
    switch.unlink()
    assert end_of(studio, studio.submit(recipe(), "me")).state == "done"


def test_a_cancel_in_the_middle_keeps_the_worker_and_leaves_no_file(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE_DELAY", "0.1")
    running = studio.submit(recipe(150), "me")
    wait_for(lambda: sampling(studio, running))
    worker = studio.worker_pid
    studio.cancel(running.id)
    assert end_of(studio, running).state == "cancelled"
    assert studio.worker_pid == worker
    assert list(studio.settings.results_dir.iterdir()) == []


ORPHAN = """
import sys, time
from pathlib import Path
from pusa_app import testing
from pusa_app.settings import Settings
from pusa_app.studio import Studio, new_recipe
if __name__ == "__main__":
    studio = Studio(Settings(data_dir=Path(sys.argv[1])))
    studio.submit(new_recipe(testing.card(), "text-to-video", prompt="blue", steps=200), "me")
    while studio.worker_pid is None:
        time.sleep(0.05)
    print(studio.worker_pid, flush=True)
    time.sleep(3600)
"""


def test_a_worker_ends_when_its_program_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE_DELAY", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    script = tmp_path / "program.py"
    script.write_text(ORPHAN)
    command = [sys.executable, str(script), str(tmp_path / "data")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        worker = psutil.Process(int(program.stdout.readline()))
        program.kill()
    wait_for(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)


def test_ctrl_c_stops_the_command_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE_DELAY", "0.2")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    options = ["--model", "fake", "--prompt", "blue", "--steps", "150", "--out", "a.mp4"]
    command = [sys.executable, "-m", "pusa_app", "generate", *options]
    # Tests that a shell runs in the background inherit that Ctrl-C is ignored; a user's terminal does not.
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)} if os.name == "posix" else {}
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, **heard) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("sampling 2/"):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(PATIENCE) == 130
    assert rest.splitlines()[-1] == "Stopped." and "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []
