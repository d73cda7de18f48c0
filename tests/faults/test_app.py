"""The whole program, killed and asked to end in the midst of a run and started again, without a browser."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from pusa_app import media, testing
from pusa_app.checkpoint import resumable_step
from pusa_app.control import Remote
from pusa_app.errors import StoreError
from pusa_app.settings import Settings
from pusa_app.studio import Studio, new_recipe
from pusa_app.timeline import Recipe
from tests.faults.staging import PATIENCE, wait_for

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill so"),
]


def _hear_all() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class App:
    """The program on a data folder of its own, asked as the command line asks it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.settings = folder, Settings(data_dir=folder / "data")
        self.data, self.log = self.settings.data_dir, folder / "log"
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = int(s.getsockname()[1])
        self.environment = {
            **os.environ,
            "PUSA_TEST_FAKE": "1",
            "PUSA_DATA_DIR": str(self.data),
            "OMP_NUM_THREADS": "1",
            "GRADIO_TEMP_DIR": str(folder / "cache"),
            "GRADIO_ANALYTICS_ENABLED": "False",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, delay: float = 0.0) -> None:
        """delay: seconds that a step takes."""
        command = [sys.executable, str(ROOT / "app.py"), "--port", str(self.port), "--data-dir", str(self.data)]
        # Tests that run in the background or under nohup inherit ignored signals; a user's terminal has none.
        heard: dict[str, Any] = {"preexec_fn": _hear_all}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command,
                env={**self.environment, "PUSA_TEST_FAKE_DELAY": str(delay)},
                stdout=log,
                stderr=log,
                **heard,
            )
        wait_for(self._listens)

    def _listens(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.log.read_text()
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=30).close()
            return True
        except OSError:
            return False

    def end(self, number: int) -> int:
        """Send a signal; returns the exit code when the program and its worker are gone."""
        assert self.process is not None
        workers = self.workers()
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        wait_for(lambda: not any(w.is_running() and w.status() != psutil.STATUS_ZOMBIE for w in workers))
        return code

    def workers(self) -> list[psutil.Process]:
        assert self.process is not None
        return [c for c in psutil.Process(self.process.pid).children(recursive=True) if "python" in c.name()]

    def ask(self, verb: str, **more: Any) -> Any:
        return Remote(self.settings).ask(verb, **more)

    def submit(self, recipe: Recipe) -> str:
        return str(self.ask("submit", recipe=recipe.to_json())["id"])

    def jobs(self) -> dict[str, dict[str, Any]]:
        return {job["id"]: job for job in self.ask("list", all=True)["jobs"]}

    def states(self) -> dict[str, str]:
        return {job_id: job["state"] for job_id, job in self.jobs().items()}

    def leftovers(self) -> list[str]:
        """Unfinished files, checkpoints, and folders of no job."""
        with sqlite3.connect(self.settings.queue_file) as connection:
            folders = {row[0] for row in connection.execute("SELECT folder FROM job")}
        connection.close()
        found = [path for path in self.data.rglob("*") if path.name.startswith(".pusa-") or ".state" in path.name]
        found += [path for path in self.settings.runs_dir.iterdir() if path.name not in folders]
        return [str(path.relative_to(self.data)) for path in found]


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")
    app = App(tmp_path)
    yield app
    if app.process is not None:
        app.process.kill()
        app.process.wait(PATIENCE)


def recipe(folder: Path, steps: int, **more: Any) -> Recipe:
    """Of a picture, so that there is a source to keep."""
    picture = folder / "picture.png"
    if not picture.exists():
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(picture)
    keyframes = [{"slot": 0, "source": {"kind": "image", "path": str(picture)}, "noise": 0.2}]
    fields = {"prompt": "blue", "num_frames": 13, "steps": steps, "keyframes": keyframes, **more}
    return new_recipe(testing.card(), "image-to-video", **fields)


def test_killed_in_the_midst_of_a_run_nothing_is_lost(app: App, tmp_path: Path) -> None:
    app.start(delay=0.15)
    quick, long = recipe(tmp_path, 2), recipe(tmp_path, 60, seed=5)
    done, cut, *waiting = [app.submit(work) for work in (quick, long, quick, quick)]
    (tmp_path / "picture.png").rename(tmp_path / "elsewhere.png")  # its copy is what counts
    state = app.settings.runs_dir / cut / f"{cut}.state"
    kept: list[int] = []

    def came_far() -> bool:
        own = Recipe.from_file(app.settings.runs_dir / cut / "recipe.json")
        kept[:] = [resumable_step(state, own)]
        return kept[0] >= 5

    wait_for(came_far)
    assert app.states() == {done: "done", cut: "running", waiting[0]: "queued", waiting[1]: "queued"}
    assert app.workers(), "there is one that could outlive the program"
    assert app.end(signal.SIGKILL) == -signal.SIGKILL

    app.start(delay=0.05)
    before = app.jobs()
    assert {job_id: job["state"] for job_id, job in before.items()} == {
        done: "done", cut: "interrupted", waiting[0]: "queued", waiting[1]: "queued",
    }  # fmt: skip
    assert Path(before[done]["out"]).is_file() and "ended before" in before[cut]["message"]
    assert app.ask("list")["paused"] == "restart"
    second = [sys.executable, str(ROOT / "app.py"), "--data-dir", str(app.data), "--port", "0"]
    refused = subprocess.run(second, env=app.environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert refused.returncode == 2 and refused.stdout == "" and len(refused.stderr.splitlines()) == 1
    assert "Another Pusa Studio uses the data folder" in refused.stderr
    assert app.states() == {job_id: job["state"] for job_id, job in before.items()}, "nothing starts by itself"

    command = [sys.executable, "-m", "pusa_app", "jobs", "resume"]
    said = subprocess.run(command, env=app.environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "3 waiting" in said.stderr
    seen: list[int] = []

    def all_done() -> bool:
        jobs = app.jobs()
        seen.extend(job["step"] for job in jobs.values() if job["prompt"] == "blue" and job["steps"] == 60)
        return set(jobs) >= {done, *waiting} and {job["state"] for job in jobs.values()} == {"done"}

    wait_for(all_done)
    jobs = app.jobs()
    (resumed,) = set(jobs) - {done, *waiting}
    assert min(step for step in seen if step) >= kept[0], "it went on and did not begin anew"
    assert jobs[resumed]["out"] == before[cut]["out"]
    (tmp_path / "elsewhere.png").rename(tmp_path / "picture.png")
    whole = app.submit(long)
    wait_for(lambda: app.states()[whole] == "done")
    frames = [media.read_frames(Path(app.jobs()[job_id]["out"])) for job_id in (resumed, whole)]
    assert np.array_equal(*frames), "as if nothing had happened"
    assert app.leftovers() == []
    assert len(list(app.settings.results_dir.glob("*.mp4"))) == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_asked_to_end_it_leaves_a_checkpoint_and_nothing_else(app: App, tmp_path: Path, name: str) -> None:
    app.start(delay=0.05)
    long = app.submit(recipe(tmp_path, 200))
    waiting = app.submit(recipe(tmp_path, 2))
    wait_for(lambda: app.jobs()[long]["step"] >= 25)
    step = app.jobs()[long]["step"]
    assert app.end(getattr(signal, name)) == 0
    assert "Traceback" not in app.log.read_text()
    assert not (app.data / "control.json").exists()
    studio = Studio(app.settings, idle=True)  # the lock is free
    try:
        cut = studio.job(long)
        assert cut is not None and cut.state == "interrupted" and "was closed before" in cut.message
        assert studio.job(waiting).state == "queued"  # type: ignore[union-attr]
        assert studio.can_resume(cut) >= step, "not what was written last, but the step that it was at"
        assert list(app.settings.results_dir.iterdir()) == []
    finally:
        studio.close()
    with pytest.raises(StoreError):
        app.ask("list")


def test_what_ends_the_whole_group_of_processes_interrupts_too(app: App, tmp_path: Path) -> None:
    """As a service manager does it: the worker is gone before the program has heard that it is to end."""
    app.start(delay=0.05)
    long = app.submit(recipe(tmp_path, 200))
    wait_for(lambda: app.jobs()[long]["step"] >= 1)
    for worker in app.workers():
        worker.terminate()
    time.sleep(0.3)
    assert app.end(signal.SIGTERM) == 0
    with sqlite3.connect(app.settings.queue_file) as connection:
        assert connection.execute("SELECT state FROM job").fetchall() == [("interrupted",)]
    connection.close()


def test_no_file_of_the_data_folder_is_served(app: App, tmp_path: Path) -> None:
    app.start()
    done = app.submit(recipe(tmp_path, 2))
    wait_for(lambda: app.states()[done] == "done")
    video = Path(app.jobs()[done]["out"])
    asked = [app.data / "secret", app.data / "queue.db", app.data / "control.json", video, app.data / "logs/worker.log"]
    roots = ["gradio_api/file=", "gradio_api/file/", "static/", "assets/", "theme.css/../", ""]
    for path in [*asked, *(app.settings.runs_dir / done).iterdir()]:
        assert path.is_file()
        twisted = [str(path), f"{tmp_path}/cache/../data/{path.relative_to(app.data)}", f"../../../../../..{path}"]
        for name in [*twisted, *(urllib.parse.quote(name, safe="") for name in twisted)]:
            for root in roots:
                url = f"http://127.0.0.1:{app.port}/{root}{name}"
                try:
                    with urllib.request.urlopen(url, timeout=30) as answer:
                        assert answer.read() != path.read_bytes(), url
                except urllib.error.HTTPError as error:
                    assert error.code < 500 or b"Traceback" not in error.read(), url
