"""Runs inside an event, with the fake model: in this process, and in forks as the platform makes them."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest

from pusa_app import media, testing, zerogpu
from pusa_app.events import Cancelled, Done, Event, Failed, Preview, Progress
from pusa_app.jobs import Job
from pusa_app.settings import Settings
from pusa_app.studio import Studio, new_recipe
from pusa_app.timeline import Recipe
from pusa_app.zerogpu import Making, seconds_needed

PATIENCE = 90.0
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")


def recipe(**fields: object) -> Recipe:
    return new_recipe(testing.card(), "text-to-video", **{"prompt": "blue", "num_frames": 7, "steps": 2, **fields})  # type: ignore[arg-type]


class Forking:
    """What `spaces.GPU` does with a generator: one fork per call, arguments and yields pickled, an end that is told.

    A fork that dies is an error of Gradio's that says so; a caller that leaves stops the generator at its next yield.
    """

    def __init__(self) -> None:
        self.durations: list[float] = []
        self.pids: list[int] = []

    def __call__(self, function: Callable[..., Iterator[Event]], duration: Callable[..., int]) -> Any:
        context = multiprocessing.get_context("fork")

        def serve(arguments: bytes, pipe: Any, stop: Any) -> None:
            import torch

            torch.set_num_threads(1)  # threads of the other side are not here
            running = function(*pickle.loads(arguments))
            for event in running:
                if stop.is_set():
                    running.close()  # type: ignore[attr-defined]
                    break
                pipe.send_bytes(pickle.dumps(event))
            pipe.close()
            os._exit(0)

        def lent(*arguments: Any) -> Iterator[Event]:
            self.durations.append(duration(*arguments))
            ours, theirs = context.Pipe(duplex=False)
            stop = context.Event()
            process = context.Process(target=serve, args=(pickle.dumps(arguments), theirs, stop), daemon=True)
            process.start()
            theirs.close()
            self.pids.append(process.pid or 0)
            try:
                while True:
                    try:
                        yield pickle.loads(ours.recv_bytes())
                    except EOFError:
                        break
            finally:
                stop.set()
                process.join(PATIENCE)
            if process.exitcode != 0:
                raise gr.Error("GPU task aborted", title="ZeroGPU worker error", print_exception=False)

        return lent


def plain(function: Any, duration: Any) -> Any:
    """What `spaces.GPU` does elsewhere."""
    return function


@pytest.fixture(params=["here", "forked"])
def making(request: pytest.FixtureRequest, tmp_path: Path) -> Making:
    made = Making(tmp_path / "worker.log", plain if request.param == "here" else Forking())
    made.warm(testing.FAKE)
    return made


@pytest.fixture
def studio(making: Making, tmp_path: Path) -> Iterator[Studio]:
    studio = Studio(Settings(data_dir=tmp_path / "data", cancel_grace_seconds=30.0), making=making)
    yield studio
    studio.close()


class Visitor:
    """Attends to his jobs in a thread."""

    def __init__(self, studio: Studio, owner: str = "me") -> None:
        self.told: list[tuple[str, Event]] = []
        self.left = False
        self._iterator = studio.attend(owner)
        self._thread = threading.Thread(target=self._attend, daemon=True)
        self._thread.start()

    def _attend(self) -> None:
        for one in self._iterator:
            self.told.append(one)
            if self.left:
                self._iterator.close()  # type: ignore[attr-defined]
                return

    def step(self, job: Job, step: int) -> None:
        wait_for(
            lambda: any(
                name == job.id and isinstance(e, Progress) and e.phase == "sampling" and e.step >= step
                for name, e in list(self.told)
            )
        )

    def end(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def now(studio: Studio, job: Job) -> Job:
    found = studio.job(job.id)
    assert found is not None
    return found


# --- through the studio ----------------------------------------------------------------------------------------------


def test_whoever_attends_makes_his_jobs(studio: Studio) -> None:
    assert studio.inline and studio.worker_pid is None
    mine = studio.submit_seeds(recipe(), "me", 2)
    yours = studio.submit(recipe(), "you")
    told = list(studio.attend("me"))
    assert [now(studio, job).state for job in mine] == ["done", "done"] and now(studio, yours).state == "queued"
    assert [type(event) for _, event in told if not isinstance(event, Progress | Preview)] == [Done, Done]
    for job in mine:
        numbers = [event.sequence for name, event in told if name == job.id]
        assert numbers == list(range(1, len(numbers) + 1)), "none is missing, in order"
        result = studio.result(now(studio, job))
        assert result is not None and media.check_clip(result).num_frames == 7
        assert studio.poster(now(studio, job)) is not None
        assert json.loads(result.with_suffix(".json").read_text())["seed"] == job.seed
    assert list(studio.attend("me")) == []
    assert not list(studio.settings.runs_dir.glob("*/*.cancel"))


def test_attending_ends_with_a_pause_and_goes_on_after_it(studio: Studio) -> None:
    jobs = studio.submit_seeds(recipe(), "me", 2)
    studio.pause("me")
    assert list(studio.attend("me")) == []
    studio.unpause("me")
    studio.hold(jobs[0].id, "me", True)
    assert {name for name, _ in studio.attend("me")} == {jobs[1].id}
    studio.hold(jobs[0].id, "me", False)
    assert {name for name, _ in studio.attend("me")} == {jobs[0].id}
    assert [now(studio, job).state for job in jobs] == ["done", "done"]


def test_another_tab_waits_and_takes_over(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE_DELAY", "0.05")
    first, second = studio.submit(recipe(steps=200), "me"), studio.submit(recipe(steps=3), "me")
    one = Visitor(studio)
    one.step(first, 1)
    other = Visitor(studio)
    wait_for(lambda: other.told)
    assert now(studio, second).state == "queued", "one visitor gets one GPU"
    one.left = True
    one.end()
    other.end()
    assert now(studio, first).state == "interrupted" and now(studio, second).state == "done"


def test_cancel_reaches_a_fork(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE_DELAY", "0.05")
    job = studio.submit(recipe(steps=200), "me")
    visitor = Visitor(studio)
    visitor.step(job, 2)
    started = time.monotonic()
    assert studio.cancel(job.id, "me")
    visitor.end()
    assert now(studio, job).state == "cancelled" and time.monotonic() - started < 20.0
    assert isinstance(visitor.told[-1][1], Cancelled)
    assert not list(studio.settings.runs_dir.glob("*/*.cancel"))


def test_memory_that_runs_out_once(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE_FAIL", "memory-once")
    job = studio.submit(recipe(), "me")
    list(studio.attend("me"))
    done = now(studio, job)
    assert (done.state, done.attempt, done.lean) == ("done", 2, 1) and "smaller memory plan" in done.message


def test_a_closed_page_interrupts_the_run_and_it_goes_on_to_the_same_video(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = studio.submit(recipe(steps=30), "me")
    list(studio.attend("me"))
    monkeypatch.setenv("PUSA_TEST_FAKE_DELAY", "0.15")
    job = studio.submit(recipe(steps=30), "me")
    visitor = Visitor(studio)
    visitor.step(job, 12)  # of the states one is kept after a second
    visitor.left = True
    visitor.end()
    left = now(studio, job)
    assert left.state == "interrupted" and "page was closed" in left.message
    assert studio.can_resume(left) > 0
    wait_for(lambda: not list(studio.settings.runs_dir.glob("*/*.cancel")))
    monkeypatch.setenv("PUSA_TEST_FAKE_DELAY", "0")
    resumed = studio.resume(job.id, "me")
    told = [event for _, event in studio.attend("me")]
    steps = [event.step for event in told if isinstance(event, Progress) and event.phase == "sampling"]
    assert now(studio, resumed).state == "done" and min(steps) > 0, "it went on where it was"
    videos = [studio.result(now(studio, one)) for one in (whole, resumed)]
    assert all(video is not None for video in videos)
    frames = [media.read_frames(video) for video in videos if video is not None]
    assert np.array_equal(*frames)


def test_closing_the_program_interrupts(making: Making, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE_DELAY", "0.05")
    settings = Settings(data_dir=tmp_path / "data")
    studio = Studio(settings, making=making)
    job, waiting = studio.submit(recipe(steps=200), "me"), studio.submit(recipe(), "me")
    visitor = Visitor(studio)
    visitor.step(job, 2)
    studio.close()
    visitor.end()
    with_next = Studio(settings, idle=True)
    try:
        assert now(with_next, job).state == "interrupted" and now(with_next, waiting).state == "queued"
        assert with_next.paused("me") == "restart"
    finally:
        with_next.close()


# --- the fork --------------------------------------------------------------------------------------------------------


def test_a_gpu_that_is_taken_back_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE_DELAY", "0.05")
    forking = Forking()
    studio = Studio(Settings(data_dir=tmp_path / "data"), making=Making(tmp_path / "log", forking))
    try:
        job = studio.submit(recipe(steps=200), "me")
        visitor = Visitor(studio)
        visitor.step(job, 2)
        os.kill(forking.pids[0], signal.SIGKILL)
        visitor.end()
        failed = now(studio, job)
        assert failed.state == "failed" and "GPU was taken back" in failed.message and failed.attempt == 1
        list(studio.attend("me"))
        monkeypatch.setenv("PUSA_TEST_FAKE_DELAY", "0")
        following = studio.submit(recipe(), "me")
        list(studio.attend("me"))
        assert now(studio, following).state == "done"
    finally:
        studio.close()


def test_what_goes_into_a_fork_is_small_and_the_time_is_asked_for(tmp_path: Path) -> None:
    forking = Forking()
    making = Making(tmp_path / "log", forking)
    options = {
        "state": str(tmp_path / "s"),
        "cancel": str(tmp_path / "c"),
        "seconds": 33.4,
        "embed": True,
        "lean": 0,
    }
    assert pickle.loads(pickle.dumps(options)) == options
    events = list(making("id", recipe().to_json(), str(tmp_path / "a.mp4"), options))
    assert isinstance(events[-1], Done) and (tmp_path / "a.mp4").is_file()
    assert forking.durations == [33] and forking.pids[0] != os.getpid()
    (tmp_path / "c").touch()
    assert [type(e) for e in making("id", recipe().to_json(), str(tmp_path / "b.mp4"), options)][-1] is Cancelled
    assert not (tmp_path / "b.mp4").exists()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (gr.Error("You have exceeded your <b>free</b> quota (60s requested vs. 20s left)."), "(60s requested vs. 20s"),
        (gr.Error("GPU task aborted"), "resume it"),
        (gr.Error("RuntimeError"), "unexpectedly"),
        (RuntimeError("a secret of the machine"), "unexpectedly (RuntimeError)"),
    ],
)
def test_what_lends_the_gpu_may_refuse(tmp_path: Path, error: Exception, words: str) -> None:
    def refusing(function: Any, duration: Any) -> Any:
        def lent(*arguments: Any) -> Iterator[Event]:
            raise error
            yield

        return lent

    events = list(Making(tmp_path / "log", refusing)("id", "{}", "a.mp4", {"cancel": "c", "seconds": 1}))
    assert len(events) == 1 and isinstance(events[0], Failed)
    message = events[0].message
    assert words in message and "\n" not in message and "secret" not in message and "<b>" not in message


# --- how long, and whether -------------------------------------------------------------------------------------------


def test_the_time_follows_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    card = testing.card()
    asked = seconds_needed([recipe(steps=10)], card, lambda _: 2.0)
    assert asked == pytest.approx(zerogpu.BEGIN_SECONDS + zerogpu.MARGIN * 20)
    assert seconds_needed([recipe(steps=10)] * 2, card, lambda _: 2.0) > asked
    rest = seconds_needed([recipe(steps=10)], card, lambda _: 2.0, share=0.25)
    assert rest == pytest.approx(zerogpu.BEGIN_SECONDS + zerogpu.MARGIN * 5), "the rest of a run that goes on"
    assert seconds_needed([recipe(steps=200)], card, lambda _: 60.0) == zerogpu.MAX_SECONDS
    monkeypatch.setenv("PUSA_ZEROGPU_SECONDS", "120")
    assert seconds_needed([recipe(steps=200)], card, lambda _: 60.0) == 120


def test_the_guess_follows_the_model_and_the_size(tmp_path: Path) -> None:
    """A model of Mochi's size at Mochi's size takes minutes, and twice the clip takes more."""
    (tmp_path / "transformer").mkdir()
    with open(tmp_path / "transformer" / "model.safetensors", "wb") as file:
        file.truncate(20_000_000_000)
    card = testing.card().model_copy(update={"folder": tmp_path})

    def asked(**fields: Any) -> float:
        return seconds_needed([recipe(size=(848, 480), **fields)], card, lambda _: None)

    short = asked(num_frames=19, steps=8)
    assert 20 < short < 120
    assert asked(num_frames=37, steps=8) > short and asked(num_frames=19, steps=16) > short
    assert asked(num_frames=19, steps=8, guidance=1) < short
    assert asked(num_frames=61, steps=60) == zerogpu.MAX_SECONDS


@pytest.mark.parametrize(("value", "there", "expected"), [("true", True, True), ("1", False, False), ("", True, False)])
def test_how_zerogpu_is_known(value: str, there: bool, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACES_ZERO_GPU", value)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if there else None)
    assert zerogpu.available() is expected
