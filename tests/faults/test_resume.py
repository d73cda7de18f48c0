"""The worker killed in the midst of a run, driven through its pipe as the supervisor does: the next one goes on."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pusa_app import media, testing, worker
from pusa_app.checkpoint import files, resumable_step, steps_of
from pusa_app.events import Cancelled, Done, Event, Failed, Progress
from pusa_app.models import get_card, list_cards
from pusa_app.studio import given_clip, new_recipe
from pusa_app.timeline import Options, Recipe, Sweep, get_task, new_sweep
from tests.faults.forked import Forked

PATIENCE = 180.0
MINI = pytest.mark.skipif(not any(c.id == "mini" for c in list_cards()), reason="the weights of mini are not here")


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # so that both processes add up in the same order
    (tmp_path / "run").mkdir()
    (tmp_path / "results").mkdir()


class Process:
    """A worker process and the other end of its pipe."""

    def __init__(self, log: Path) -> None:
        context = Forked()
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=worker.main, args=(theirs, str(log)), daemon=True)
        self._process.start()
        theirs.close()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def until(self, seen: Callable[[Event], bool]) -> list[Event]:
        """The events up to the one that was waited for. Raises EOFError when the worker is gone."""
        events: list[Event] = []
        deadline = time.monotonic() + PATIENCE
        while not events or not seen(events[-1]):
            assert time.monotonic() < deadline, "it did not happen in time"
            if self.pipe.poll(0.1):
                events.append(self.pipe.recv()[1])
        return events

    def end(self) -> list[Event]:
        return self.until(lambda event: isinstance(event, Done | Failed | Cancelled))

    def code(self) -> int | None:
        self._process.join(PATIENCE)
        return self._process.exitcode

    def close(self) -> None:
        self.pipe.close()
        self._process.kill()
        self._process.join(PATIENCE)


class Bench:
    """Starts workers on one job after another, and ends them all."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state, self.out = folder, folder / "run" / "x.state", folder / "results" / "a.mp4"
        self.log = folder / "worker.log"
        self._open: list[Process] = []

    def start(self) -> Process:
        self._open.append(Process(self.log))
        return self._open[-1]

    def run(self, work: Recipe | Sweep, process: Process | None = None, **options: Any) -> Process:
        process = process or self.start()
        told = {"state": str(self.state), "embed": True, "lean": 0, **options}
        process.pipe.send(("run", "job", work.to_json(), str(self.out), told))
        return process

    def untouched(self, work: Recipe | Sweep) -> bytes:
        """The video of a run that nobody disturbs. The fake model is the same in this process, and sooner there."""
        if work_model(work) == testing.FAKE:
            made = worker.Worker(lambda job_id, event: None, logging.getLogger(__name__))
            done = made.run("job", work.to_json(), str(self.out), lambda job_id: False)
        else:
            process = self.run(work, state="")
            done = process.end()[-1]
            process.close()
        assert isinstance(done, Done)
        video = self.out.read_bytes()
        shutil.rmtree(self.out.parent)
        self.out.parent.mkdir()
        return video

    def close(self) -> None:
        for process in self._open:
            process.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def work_model(work: Recipe | Sweep) -> str:
    return work.recipe.model if isinstance(work, Sweep) else work.model


def sampled(steps: int) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, Progress) and event.phase == "sampling" and event.step >= steps


def picture(folder: Path) -> dict[str, Any]:
    path = folder / "run" / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    return {"slot": 0, "source": {"kind": "image", "path": str(path)}, "noise": 0.2}


def recipe(folder: Path, **fields: Any) -> Recipe:
    values = {"prompt": "blue", "num_frames": 13, "steps": 8, "keyframes": [picture(folder)], **fields}
    return new_recipe(testing.card(), "image-to-video", **values)


def wait_for_state(bench: Bench, work: Recipe | Sweep, steps: int = 1) -> None:
    deadline = time.monotonic() + PATIENCE
    while resumable_step(bench.state, work) < steps:
        assert time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.02)


def test_kill_9_in_the_midst_and_the_next_worker_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    work = recipe(bench.folder)
    whole = bench.untouched(work)
    monkeypatch.setenv("PUSA_TEST_FAKE_FAIL", "hang@4")  # however slow this machine is, that is where it will be
    process = bench.run(work)
    wait_for_state(bench, work, 3)
    os.kill(process.pid, signal.SIGKILL)
    assert process.code() == -signal.SIGKILL
    assert (resumable_step(bench.state, work), steps_of(work)) == (3, 8) and not bench.out.exists()
    monkeypatch.delenv("PUSA_TEST_FAKE_FAIL")
    events = bench.run(work).end()
    assert isinstance(events[-1], Done) and bench.out.read_bytes() == whole
    assert next(e.step for e in events if isinstance(e, Progress) and e.phase == "sampling") == 3
    assert files(bench.state) == []


def test_killed_in_the_midst_of_writing_a_checkpoint_there_is_an_old_one_or_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed wherever it is, a few times over: a state is whole or not there, and the end is the same."""
    work = recipe(bench.folder, steps=60)
    whole = bench.untouched(work)
    monkeypatch.setenv("PUSA_TEST_FAKE_DELAY", "0.01")
    for moment in (0.03 + 0.003 * n for n in range(8)):
        process = bench.run(work)
        process.until(sampled(1))
        time.sleep(moment)
        os.kill(process.pid, signal.SIGKILL)
        process.code()
        assert {path.name for path in bench.state.parent.glob("x.*")} <= {"x.state"}
    monkeypatch.setenv("PUSA_TEST_FAKE_DELAY", "0")
    assert isinstance(bench.run(work).end()[-1], Done) and bench.out.read_bytes() == whole


@pytest.mark.parametrize("fault", ["kill@decode", "segv@6"])
def test_crashes_of_the_model(bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    work = recipe(bench.folder)
    whole = bench.untouched(work)
    monkeypatch.setenv("PUSA_TEST_FAKE_FAIL", fault)
    process = bench.run(work)
    with pytest.raises(EOFError):
        process.end()
    assert process.code() in (-signal.SIGKILL, -signal.SIGSEGV)
    assert resumable_step(bench.state, work) > 0
    monkeypatch.delenv("PUSA_TEST_FAKE_FAIL")
    assert isinstance(bench.run(work).end()[-1], Done) and bench.out.read_bytes() == whole


def test_memory_that_runs_out_is_told_and_the_smaller_plan_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = recipe(bench.folder)
    whole = bench.untouched(work)
    monkeypatch.setenv("PUSA_TEST_FAKE_FAIL", "memory-once@5")
    process = bench.run(work)
    failed = process.end()[-1]
    assert isinstance(failed, Failed) and failed.memory and "not enough memory" in failed.message
    assert resumable_step(bench.state, work) == 4
    process.close()
    events = bench.run(work, lean=1).end()
    assert isinstance(events[-1], Done) and bench.out.read_bytes() == whole
    assert next(e.step for e in events if isinstance(e, Progress) and e.phase == "sampling") == 4


def test_a_sweep_whose_memory_runs_out_goes_on_with_the_smaller_plan(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = new_sweep(recipe(bench.folder), {"kind": "seed", "values": [1, 2]})
    whole = bench.untouched(work)
    monkeypatch.setenv("PUSA_TEST_FAKE_FAIL", "memory-once@11")
    process = bench.run(work)
    failed = process.end()[-1]
    assert isinstance(failed, Failed) and failed.memory and resumable_step(bench.state, work) == 8 + 2
    assert isinstance(bench.run(work, process, lean=1).end()[-1], Done), "the same worker would do as well"
    assert bench.out.read_bytes() == whole and files(bench.state) == []


def test_a_cancel_leaves_a_state_and_the_worker(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    work = recipe(bench.folder, steps=24)
    whole = bench.untouched(work)
    monkeypatch.setenv("PUSA_TEST_FAKE_DELAY", "0.05")
    process = bench.run(work)
    process.until(sampled(2))
    process.pipe.send(("cancel", "job"))
    started = time.monotonic()
    assert isinstance(process.end()[-1], Cancelled)
    assert time.monotonic() - started < 10
    assert resumable_step(bench.state, work) >= 2
    assert isinstance(bench.run(work, process).end()[-1], Done), "a late cancel is not that of the next run"
    assert bench.out.read_bytes() == whole


def test_a_killed_sweep_keeps_its_finished_cells(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    work = new_sweep(recipe(bench.folder, steps=4), {"kind": "seed", "values": [1, 2, 3]})
    whole = bench.untouched(work)
    monkeypatch.setenv("PUSA_TEST_FAKE_FAIL", "hang@6")  # in the second cell
    process = bench.run(work)
    process.until(lambda event: isinstance(event, Progress) and event.part == 1 and event.phase == "sampling")
    wait_for_state(bench, work, 5)
    os.kill(process.pid, signal.SIGKILL)
    process.code()
    assert (resumable_step(bench.state, work), steps_of(work)) == (5, 12)
    monkeypatch.delenv("PUSA_TEST_FAKE_FAIL")
    first = bench.out.parent / "a-cells" / "1-1.mp4"
    before = first.stat().st_mtime_ns
    assert isinstance(bench.run(work).end()[-1], Done) and bench.out.read_bytes() == whole
    assert first.stat().st_mtime_ns == before


def test_a_killed_chain_goes_on_in_its_second_part(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bench.folder / "run" / "clip.mp4"
    tiles = np.random.default_rng(1).integers(60, 180, (30, 4, 4, 3)).astype(np.uint8)
    with media.ClipWriter(path, 64, 64, 12, quality=0) as writer:
        writer.write(tiles.repeat(16, axis=1).repeat(16, axis=2))
    options = Options(frames=48)
    blank = testing.card().spec.timeline(37)
    timeline = get_task("extend").timeline(blank, {"clip": given_clip(path, 12)}, options)
    work = recipe(bench.folder, keyframes=[]).model_copy(
        update={"task": "extend", "timeline": timeline, "options": options, "color_match": True, "steps": 4}
    )
    whole = bench.untouched(work)
    monkeypatch.setenv("PUSA_TEST_FAKE_FAIL", "hang@6")  # in the second part
    process = bench.run(work)
    wait_for_state(bench, work, 5)
    os.kill(process.pid, signal.SIGKILL)
    process.code()
    assert (resumable_step(bench.state, work), steps_of(work)) == (5, 8)
    monkeypatch.delenv("PUSA_TEST_FAKE_FAIL")
    assert isinstance(bench.run(work).end()[-1], Done) and bench.out.read_bytes() == whole


@MINI
@pytest.mark.slow
def test_mini_killed_in_the_midst_makes_the_same_video(bench: Bench) -> None:
    prompt = "a red circle moves right over a black background"
    for steps in (12, 48, 150):  # a fast machine may come to the end before a checkpoint is seen
        work = new_recipe(get_card("mini"), "text-to-video", prompt=prompt, num_frames=13, steps=steps, seed=3)
        process = bench.run(work)
        while not (kept := resumable_step(bench.state, work)) and not bench.out.exists():
            assert process.pipe.poll(PATIENCE), "nothing was heard of it"
            process.pipe.recv()
        os.kill(process.pid, signal.SIGKILL)
        process.code()
        if kept and not bench.out.exists():
            break
        bench.out.unlink()
    assert 0 < kept <= steps
    assert isinstance(bench.run(work).end()[-1], Done)
    resumed = bench.out.read_bytes()
    assert resumed == bench.untouched(work)
