"""One contract for both runners, worker processes and the event that asked. Every job here has somebody watching."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from pusa_app.events import Cancelled, Done, Event, Failed, Progress
from pusa_app.jobs import EventLog, InlineRunner, Job, JobStore, Supervisor

PATIENCE = 60.0


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


# --- what is run: steps as the recipe says, with a checkpoint after each --------------------------------------------


def steps_of(recipe: str, out: str, options: dict[str, Any], cancelled: Callable[[], object]) -> Iterator[Event]:
    """recipe: {"steps", "seconds" each, "fault", "at" the step}; the end of the run is its last event."""
    plan = {"steps": 3, "seconds": 0.0, "fault": "", "at": 2, **json.loads(recipe)}
    state = Path(options["state"])
    done = int(state.read_text()) if state.exists() else 0
    for step in range(done + 1, plan["steps"] + 1):
        time.sleep(plan["seconds"])
        if cancelled():
            yield Cancelled()
            return
        if step == plan["at"] and plan["fault"]:
            if plan["fault"] == "fail":
                yield Failed("It was told to fail.")
                return
            if plan["fault"] == "memory" or (plan["fault"] == "memory-once" and options["lean"] == 0):
                yield Failed("There is not enough memory.", memory=True)
                return
            if plan["fault"] == "die":
                die()
        state.write_text(str(step))
        yield Progress("sampling", step, plan["steps"])
    Path(out).write_text(f"{options['lean']}")
    yield Done(out, recipe, 0.0, 1)


def die() -> None:
    """The worst that can happen to a run; inline it would be the end of the whole program."""
    if os.environ.get("PUSA_TEST_INLINE") == "1":
        raise RuntimeError("a secret of the machine")
    os.kill(os.getpid(), signal.SIGSEGV)


def worker(pipe: Connection) -> None:
    while True:
        try:
            verb, job_id, *rest = pipe.recv()
        except EOFError:
            return
        if verb == "run":
            told = False

            def cancelled(job_id: str = job_id) -> bool:
                nonlocal told
                told = told or (pipe.poll() and pipe.recv() == ("cancel", job_id))
                return told

            for event in steps_of(*rest, cancelled):
                pipe.send((job_id, event))


def inline(job_id: str, recipe: str, out: str, options: dict[str, Any]) -> Iterator[Event]:
    yield from steps_of(recipe, out, options, Path(options["cancel"]).exists)


# --- who watches -----------------------------------------------------------------------------------------------------


class Visitor:
    """Iterates a job in a thread of his own, as the event of a page would."""

    def __init__(self, runner: Any, job_id: str) -> None:
        self.events: list[Event] = []
        self.left = False
        self._iterator = runner.run(job_id)
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        for event in self._iterator:
            if event != Progress("waiting"):
                self.events.append(event)
            if self.left:
                self._iterator.close()
                return

    def leave(self) -> None:
        self.left = True
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


class Bench:
    """A store, a log, a runner, and a visitor for every job."""

    def __init__(self, kind: str, folder: Path, **more: Any) -> None:
        self.folder, self.store, self.log = folder, JobStore.in_memory(), EventLog()
        hear: dict[str, Any] = {"on_event": self.log.add, "options": self.options, "events": self.log.since, **more}
        if kind == "inline":
            self.runner: Any = InlineRunner(self.store, inline, **hear)
        else:
            self.runner = Supervisor(self.store, worker, **hear)
        self.visitors: dict[str, Visitor] = {}

    def options(self, job: Job) -> dict[str, Any]:
        state, flag = self.folder / f"{job.source or job.id}.state", self.folder / f"{job.id}.cancel"
        return {"state": str(state), "cancel": str(flag), "lean": job.lean}

    def add(self, owner: str = "me", source: str = "", **recipe: Any) -> str:
        new = Job(owner=owner, recipe=json.dumps(recipe), out="", source=source)
        (job,) = self.store.add(dataclasses.replace(new, out=str(self.folder / f"{new.id}.mp4")))
        self.visitors[job.id] = Visitor(self.runner, job.id)
        self.runner.nudge()
        return job.id

    def job(self, job_id: str) -> Job:
        job = self.store.get(job_id)
        assert job is not None
        return job

    def end_of(self, job_id: str) -> Job:
        wait_for(lambda: self.job(job_id).ended)
        return self.job(job_id)

    def seen(self, job_id: str) -> list[Event]:
        """What the visitor of an ended job was told."""
        self.visitors[job_id].thread.join(PATIENCE)
        assert not self.visitors[job_id].thread.is_alive(), "he waits for a job that has ended"
        return self.visitors[job_id].events

    def at_step(self, job_id: str, step: int) -> None:
        wait_for(lambda: any(isinstance(e, Progress) and e.step >= step for e in self.log.since(job_id)))


@pytest.fixture(params=["supervisor", "inline"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PUSA_TEST_INLINE", "1" if request.param == "inline" else "0")
    return str(request.param)


@pytest.fixture
def bench(kind: str, tmp_path: Path) -> Iterator[Bench]:
    b = Bench(kind, tmp_path)
    yield b
    b.runner.stop()


# --- the contract ----------------------------------------------------------------------------------------------------


def test_what_every_runner_offers(bench: Bench, kind: str) -> None:
    assert bench.runner.inline is (kind == "inline") and bench.runner.at_once == 1
    assert bench.runner.worker_pids == []


def test_a_job_is_made_and_its_events_are_numbered(bench: Bench) -> None:
    first = bench.add(steps=3, seconds=0.05)
    done = bench.end_of(first)
    assert done.state == "done" and done.message == "" and done.started and done.finished
    seen = bench.seen(first)
    numbers = [event.sequence for event in seen]
    assert numbers == sorted(set(numbers)) and numbers[-1] == 4, "three steps and the end"
    assert isinstance(seen[-1], Done) and Path(done.out).read_text() == "0"
    assert isinstance(bench.log.since(first)[-1], Done)
    second = bench.add()
    assert bench.end_of(second).state == "done", "and the next one runs"


def test_a_failure_is_told_in_words(bench: Bench) -> None:
    failing = bench.add(fault="fail")
    failed = bench.end_of(failing)
    assert failed.state == "failed" and failed.message == "It was told to fail." and failed.attempt == 1
    assert isinstance(bench.seen(failing)[-1], Failed)
    assert bench.end_of(bench.add()).state == "done"


def test_what_nobody_foresaw_is_told_in_words(bench: Bench) -> None:
    failed = bench.end_of(bench.add(fault="die"))
    assert failed.state == "failed" and failed.message and "\n" not in failed.message
    assert "secret" not in failed.message and "Traceback" not in failed.message
    assert bench.end_of(bench.add()).state == "done"


def test_cancelling_what_waits_and_what_runs(bench: Bench) -> None:
    running = bench.add(steps=2000, seconds=0.02)
    bench.at_step(running, 1)
    waiting = bench.add()
    assert bench.runner.cancel(waiting) and bench.job(waiting).state == "cancelled"
    started = time.monotonic()
    assert bench.runner.cancel(running)
    assert bench.end_of(running).state == "cancelled"
    assert time.monotonic() - started < 10.0, "at its next step"
    assert isinstance(bench.seen(running)[-1], Cancelled)
    assert bench.seen(waiting) == [] or isinstance(bench.seen(waiting)[-1], Cancelled)
    assert not bench.runner.cancel(running) and not bench.runner.cancel(waiting) and not bench.runner.cancel("nobody")
    wait_for(lambda: not list(bench.folder.glob("*.cancel")))
    assert bench.end_of(bench.add()).state == "done"


def test_memory_that_runs_out_once_is_made_again_with_the_smaller_plan_from_the_checkpoint(bench: Bench) -> None:
    job_id = bench.add(fault="memory-once", at=3, steps=5)
    done = bench.end_of(job_id)
    assert (done.state, done.attempt, done.lean) == ("done", 2, 1) and "smaller memory plan" in done.message
    assert Path(done.out).read_text() == "1"
    # The log forgets the steps of what has ended; its last number counts them all.
    assert bench.log.since(job_id)[-1].sequence == 6, "five steps, none made twice, and the end"


def test_memory_that_runs_out_again_fails_in_words(bench: Bench) -> None:
    failed = bench.end_of(bench.add(fault="memory"))
    assert (failed.state, failed.attempt) == ("failed", 2) and failed.message == "There is not enough memory."


def test_order_and_pause(bench: Bench) -> None:
    bench.store.pause("me")
    mine = [bench.add() for _ in range(3)]
    yours = bench.add(owner="you")
    assert bench.end_of(yours).state == "done", "another owner's pause is not mine"
    assert [bench.job(job_id).state for job_id in mine] == ["queued"] * 3
    order = [mine[2], mine[0], mine[1]]
    bench.store.reorder("me", order)
    bench.store.unpause("me")
    bench.runner.nudge()
    for job_id in mine:
        assert bench.end_of(job_id).state == "done"
    begun = sorted(mine, key=lambda job_id: bench.job(job_id).started or 0.0)
    assert begun == order


def test_a_job_that_is_held_is_passed_over(bench: Bench) -> None:
    bench.store.pause("me")
    held, other = bench.add(), bench.add()
    bench.store.hold(held, True)
    bench.store.unpause("me")
    bench.runner.nudge()
    assert bench.end_of(other).state == "done" and bench.job(held).state == "queued"
    bench.store.hold(held, False)
    bench.runner.nudge()
    assert bench.end_of(held).state == "done"


def test_an_end_is_an_end(bench: Bench) -> None:
    ended = {bench.add(): "done", bench.add(fault="fail"): "failed"}
    running = bench.add(steps=2000, seconds=0.02)
    bench.at_step(running, 1)
    bench.runner.cancel(running)
    ended[running] = "cancelled"
    kept = {job_id: bench.end_of(job_id) for job_id in ended}
    assert {job_id: job.state for job_id, job in kept.items()} == ended
    for job_id in kept:
        bench.seen(job_id)
        assert not bench.runner.cancel(job_id)
        late = list(bench.runner.run(job_id))
        assert all(isinstance(event, Done | Failed | Cancelled) for event in late), "nothing is made again"
    bench.runner.stop()
    assert {job_id: bench.job(job_id) for job_id in kept} == kept


def test_stop_interrupts_what_runs_and_leaves_what_waits(bench: Bench) -> None:
    running = bench.add(steps=2000, seconds=0.02)
    bench.at_step(running, 1)
    waiting = bench.add()
    bench.runner.stop()
    assert bench.job(running).state == "interrupted" and bench.job(running).message
    assert bench.job(waiting).state == "queued"
    bench.seen(running)
    assert bench.seen(waiting) == []
    assert bench.runner.worker_pids == []


def test_the_checkpoint_is_handed_on(bench: Bench) -> None:
    first = bench.add(steps=400, seconds=0.02)
    bench.at_step(first, 3)
    bench.runner.cancel(first)
    assert bench.end_of(first).state == "cancelled"
    made = int((bench.folder / f"{first}.state").read_text())
    assert 3 <= made < 400
    second = bench.add(source=first, steps=made + 2)
    assert bench.end_of(second).state == "done"
    assert bench.log.since(second)[-1].sequence == 3, "two steps and the end"


def test_a_crash_of_the_program_interrupts_what_ran(kind: str, tmp_path: Path) -> None:
    """What the next program finds in the store, when the last one has had no time to write anything."""
    bench = Bench(kind, tmp_path)
    running = bench.add(steps=2000, seconds=0.02)
    bench.at_step(running, 1)
    waiting = bench.add()
    bench.store.recover("The program ended.")  # as the next one does
    assert bench.job(running).state == "interrupted" and bench.store.paused("me") == "restart"
    bench.runner.cancel(running)
    bench.runner.stop()
    assert bench.job(running).state == "interrupted", "whatever the old run still says"
    assert bench.job(waiting).state == "queued"


def test_a_second_visitor_sees_the_same_run(bench: Bench) -> None:
    job_id = bench.add(steps=40, seconds=0.02)
    bench.at_step(job_id, 1)
    second = Visitor(bench.runner, job_id)
    assert bench.end_of(job_id).state == "done"
    second.thread.join(PATIENCE)
    assert not second.thread.is_alive() and isinstance(second.events[-1], Done)
    assert bench.seen(job_id)[-1].sequence == second.events[-1].sequence == 41, "it was made once"


# --- what only one of them does --------------------------------------------------------------------------------------


def test_worker_processes_make_jobs_that_nobody_watches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench("supervisor", tmp_path)
    job_id = bench.add(steps=40, seconds=0.02)
    bench.at_step(job_id, 1)
    bench.visitors[job_id].leave()
    assert bench.end_of(job_id).state == "done"
    bench.runner.stop()


def test_inline_who_leaves_interrupts_his_run_and_stops_nobody_else(tmp_path: Path) -> None:
    bench = Bench("inline", tmp_path)
    mine = bench.add(steps=2000, seconds=0.02)
    bench.at_step(mine, 1)
    left, stays = bench.add(), bench.add()
    bench.visitors[left].leave()
    bench.visitors[mine].leave()
    assert bench.job(mine).state == "interrupted" and "page was closed" in bench.job(mine).message
    assert bench.end_of(stays).state == "done"
    assert bench.job(left).state == "queued", "nobody watched it, and nobody else was stopped by it"
    wait_for(lambda: not list(tmp_path.glob("*.cancel")))
    again = Visitor(bench.runner, left)
    assert bench.end_of(left).state == "done"
    again.thread.join(PATIENCE)
    bench.runner.stop()


def test_inline_several_at_once(tmp_path: Path) -> None:
    bench = Bench("inline", tmp_path, at_once=2)
    both = [bench.add(steps=2000, seconds=0.02) for _ in range(2)]
    third = bench.add()
    for job_id in both:
        bench.at_step(job_id, 1)
    assert bench.job(third).state == "queued"
    bench.runner.cancel(both[1])
    assert bench.end_of(third).state == "done" and bench.job(both[0]).state == "running"
    bench.runner.stop()
    assert bench.job(both[0]).state == "interrupted"


def test_inline_a_run_that_hears_nothing_is_left_after_its_grace(tmp_path: Path) -> None:
    ended = threading.Event()

    def deaf(job_id: str, recipe: str, out: str, options: dict[str, Any]) -> Iterator[Event]:
        try:
            while True:
                time.sleep(0.02)
                yield Progress("sampling", 1, 2)
        finally:
            ended.set()

    store, log = JobStore.in_memory(), EventLog()
    runner = InlineRunner(
        store, deaf, on_event=log.add, options=lambda job: {"cancel": str(tmp_path / "flag")}, grace_seconds=0.2
    )
    (job,) = store.add(Job(owner="me", recipe="{}", out=""))
    visitor = Visitor(runner, job.id)
    wait_for(lambda: visitor.events)
    runner.cancel(job.id)
    wait_for(lambda: store.get(job.id).ended)  # type: ignore[union-attr]
    assert store.get(job.id).state == "cancelled"  # type: ignore[union-attr]
    assert ended.wait(PATIENCE), "and what had the GPU was told to end"


@pytest.mark.parametrize("way", ["silent", "raises"])
def test_inline_a_run_without_an_end_fails_in_words(tmp_path: Path, way: str) -> None:
    def odd(job_id: str, recipe: str, out: str, options: dict[str, Any]) -> Iterator[Event]:
        yield Progress("loading")
        if way == "raises":
            raise RuntimeError("a secret of the machine")

    store, log = JobStore.in_memory(), EventLog()
    runner = InlineRunner(store, odd, on_event=log.add, options=lambda job: {"cancel": str(tmp_path / "flag")})
    (job,) = store.add(Job(owner="me", recipe="{}", out=""))
    events = list(runner.run(job.id))
    failed = store.get(job.id)
    assert failed is not None and failed.state == "failed" and "unexpectedly" in failed.message
    assert isinstance(events[-1], Failed) and "secret" not in failed.message
