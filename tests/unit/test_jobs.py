"""Jobs without a model: states, the store, the event log, and the supervisor with workers of a few lines."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import pytest

from pusa_app.events import Cancelled, Done, Event, Failed, Preview, Progress
from pusa_app.jobs import EventLog, Job, JobStore, Supervisor
from pusa_app.jobs.job import MOVES

PATIENCE = 60.0


def job(**fields: object) -> Job:
    return Job(**{"owner": "me", "recipe": "{}", "out": "a.mp4", **fields})  # type: ignore[arg-type]


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


# --- store and log ---------------------------------------------------------------------------------------------------


def test_jobs_are_claimed_in_the_order_of_arrival() -> None:
    store = JobStore.in_memory()
    first, second = store.add(job(), job())
    assert (first.number, second.number) == (1, 2)
    claimed = store.claim()
    assert claimed is not None and claimed.id == first.id and claimed.state == "running" and claimed.started
    assert store.claim().id == second.id  # type: ignore[union-attr]
    assert store.claim() is None


@pytest.mark.parametrize("end", ["done", "failed", "cancelled", "interrupted"])
def test_an_ended_job_never_changes(end: str) -> None:
    store = JobStore.in_memory()
    (kept,) = store.add(job())
    store.claim()
    ended = store.move(kept.id, "running", end, "why")  # type: ignore[arg-type]
    assert ended is not None and ended.ended and ended.finished and ended.message == "why"
    for state in ("queued", "running", "done", "failed", "cancelled", "interrupted"):
        for expected in ("queued", "running", end):
            assert store.move(kept.id, expected, state) is None  # type: ignore[arg-type]
    assert store.get(kept.id) == ended
    assert end not in MOVES


def test_a_move_needs_the_state_that_it_expects() -> None:
    store = JobStore.in_memory()
    (kept,) = store.add(job())
    assert store.move(kept.id, "running", "done") is None
    assert store.move(kept.id, "queued", "done") is None, "there is no such move"
    assert store.move("nobody", "queued", "cancelled") is None
    assert store.get(kept.id).state == "queued"  # type: ignore[union-attr]


def test_a_list_holds_one_owners_jobs() -> None:
    store = JobStore.in_memory()
    mine, yours = store.add(job(), job(owner="you"))
    store.claim()
    assert [j.id for j in store.jobs(owner="you")] == [yours.id]
    assert [j.id for j in store.jobs(state="running")] == [mine.id]
    assert len(store.jobs()) == 2


def test_only_one_of_many_threads_claims_a_job() -> None:
    store = JobStore.in_memory()
    for _ in range(20):
        store.add(job())
    claimed: list[str] = []

    def claim() -> None:
        while (one := store.claim()) is not None:
            claimed.append(one.id)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == len(set(claimed)) == 20


def test_events_are_numbered_and_the_log_stays_small() -> None:
    log = EventLog()
    for step in range(1, 4):
        log.add("a", Progress("sampling", step, 3))
        log.add("a", Preview(step, b"x"))
    log.add("b", Progress("loading"))
    seen = log.since("a")
    assert [e.sequence for e in seen] == [1, 3, 5, 6], "of the previews the latest stays"
    assert [e.sequence for e in log.since("a", 4)] == [5, 6]
    log.add("a", Done("a.mp4", "{}", 1.0, 7))
    assert [type(e) for e in log.since("a")] == [Preview, Done]
    assert log.since("a")[-1].sequence == 7
    assert log.since("nobody") == []


# --- supervisor ------------------------------------------------------------------------------------------------------


def obedient(pipe: Connection, steps: int = 3, seconds: float = 0.0) -> None:
    """Counts steps and hears a cancel between them. A recipe of "fail" fails, of "die" dies."""
    while True:
        verb, job_id, *rest = pipe.recv()
        if verb != "run":
            continue
        end: Event = Done(rest[1], rest[0], 0.0, 1)
        for step in range(1, steps + 1):
            if rest[0] == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if rest[0] == "fail":
                end = Failed("no")
                break
            time.sleep(seconds)
            pipe.send((job_id, Progress("sampling", step, steps)))
            if pipe.poll() and pipe.recv() == ("cancel", job_id):
                end = Cancelled()
                break
        pipe.send((job_id, end))


def stubborn(pipe: Connection) -> None:
    """Takes a job and hears nothing more, not even a polite request to end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pipe.recv()
    time.sleep(3600)


class Bench:
    """A store, a log and a supervisor around one worker function."""

    def __init__(self, target: Callable[..., None], *args: object, grace: float = 15.0) -> None:
        self.store, self.log = JobStore.in_memory(), EventLog()
        self.supervisor = Supervisor(self.store, target, args, on_event=self.log.add, grace_seconds=grace)

    def add(self, recipe: str = "{}") -> str:
        (added,) = self.store.add(job(recipe=recipe))
        self.supervisor.nudge()
        return added.id

    def state(self, job_id: str) -> str:
        return self.store.get(job_id).state  # type: ignore[union-attr]

    def end_of(self, job_id: str) -> Job:
        wait_for(lambda: self.store.get(job_id).ended)  # type: ignore[union-attr]
        return self.store.get(job_id)  # type: ignore[return-value]


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(*args: object, **more: object) -> Bench:
        made.append(Bench(*args, **more))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.supervisor.stop()


def test_jobs_run_one_after_the_other_in_one_worker(bench: Callable[..., Bench]) -> None:
    b = bench(obedient)
    first = b.add()
    assert b.end_of(first).state == "done"
    pids = b.supervisor.worker_pids
    second, third = b.add("fail"), b.add()
    assert b.end_of(second).message == "no" and b.state(second) == "failed"
    assert b.end_of(third).state == "done"
    assert pids and b.supervisor.worker_pids == pids, "the worker lives on"
    assert [type(e).__name__ for e in b.log.since(first)] == ["Done"]


def test_a_waiting_job_is_cancelled_at_once_and_a_running_one_at_its_next_step(bench: Callable[..., Bench]) -> None:
    b = bench(obedient, 1000, 0.05)
    running, waiting = b.add(), b.add()
    wait_for(lambda: b.log.since(running))
    assert b.supervisor.cancel(waiting) and b.state(waiting) == "cancelled"
    pids = b.supervisor.worker_pids
    assert b.supervisor.cancel(running)
    assert b.end_of(running).state == "cancelled"
    assert b.supervisor.worker_pids == pids, "a cancel costs no worker"
    assert not b.supervisor.cancel(running) and not b.supervisor.cancel("nobody")


def test_a_worker_that_hears_nothing_is_killed_after_its_grace(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pusa_app.jobs.supervisor.TERMINATE_SECONDS", 0.5)
    b = bench(stubborn, grace=0.3)
    hanging = b.add()
    wait_for(lambda: b.supervisor.worker_pids)
    time.sleep(0.5)
    b.supervisor.cancel(hanging)
    assert b.end_of(hanging).state == "cancelled"
    wait_for(lambda: b.supervisor.worker_pids == [])


def test_the_death_of_a_worker_fails_its_job_in_words_and_the_next_one_runs(bench: Callable[..., Bench]) -> None:
    b = bench(obedient)
    dying, following = b.add("die"), b.add()
    failed = b.end_of(dying)
    assert failed.state == "failed" and "memory" in failed.message and "\n" not in failed.message
    assert b.end_of(following).state == "done"


def test_a_worker_that_died_while_idle_is_replaced(bench: Callable[..., Bench]) -> None:
    b = bench(obedient)
    b.end_of(b.add())
    pids = b.supervisor.worker_pids
    assert pids
    os.kill(pids[0], signal.SIGKILL)
    wait_for(lambda: b.supervisor.worker_pids == [])
    assert b.end_of(b.add()).state == "done"


def babbling(pipe: Connection) -> None:
    """Answers its first job with something that is no event, and later ones well."""
    while True:
        _, job_id, *rest = pipe.recv()
        pipe.send("nonsense" if rest[0] == "odd" else (job_id, Done(rest[1], rest[0], 0.0, 1)))


def test_a_worker_that_talks_nonsense_fails_its_job_and_the_next_one_runs(bench: Callable[..., Bench]) -> None:
    b = bench(babbling)
    odd, following = b.add("odd"), b.add()
    failed = b.end_of(odd)
    assert failed.state == "failed" and "unexpectedly" in failed.message
    assert b.end_of(following).state == "done"
    assert [type(e).__name__ for e in b.log.since(odd)] == ["Failed"]


def test_stop_interrupts_the_running_job_and_ends_the_worker(bench: Callable[..., Bench]) -> None:
    b = bench(obedient, 1000, 0.05)
    running = b.add()
    wait_for(lambda: b.log.since(running))
    b.supervisor.stop()
    assert b.state(running) == "interrupted"
    assert b.supervisor.worker_pids == []
    assert not [t for t in threading.enumerate() if t.name == "supervisor" and t.is_alive()]
