"""The queue on the disk: order, pause, crashes, old and damaged files; a state machine against a small model."""

from __future__ import annotations

import dataclasses
import sqlite3
import threading
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pusa_app.errors import StoreError
from pusa_app.jobs import Job, JobStore
from pusa_app.jobs.job import MOVES
from pusa_app.jobs.store import MIGRATIONS

OWNERS = ("ann", "bob")


def job(**fields: object) -> Job:
    return Job(**{"owner": "ann", "recipe": "{}", "out": "a.mp4", **fields})  # type: ignore[arg-type]


def waiting(store: JobStore, owner: str | None = None) -> list[str]:
    return [j.id for j in store.jobs(owner, "queued")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


# --- what is written is there ----------------------------------------------------------------------------------------


def test_a_job_comes_back_from_the_disk_as_it_was(path: Path) -> None:
    store = JobStore(path)
    (kept,) = store.add(job(prompt="ünïcode 'quoted'", seed=2**62, embed=False, folder="f", task="loop", model="mini"))
    store.close()
    assert JobStore(path).get(kept.id) == kept


def test_a_commit_is_flushed_to_the_disk(path: Path) -> None:
    store = JobStore(path)
    connection = store._connection
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 3, "EXTRA"


def test_what_a_crash_cut_off_is_interrupted_and_the_rest_waits_paused(path: Path) -> None:
    store = JobStore(path)
    first, second, other = store.add(job(), job(), job(owner="bob"))
    assert store.claim().id == first.id  # type: ignore[union-attr]
    # no close: the program was killed
    store = JobStore(path)
    assert [j.id for j in store.recover("cut off")] == [first.id]
    cut = store.get(first.id)
    assert cut is not None and cut.state == "interrupted" and cut.message == "cut off" and cut.finished
    assert store.paused("ann") == store.paused("bob") == "restart"
    assert store.claim() is None
    store.unpause("bob")
    assert store.claim().id == other.id, "everybody goes on by himself"  # type: ignore[union-attr]
    assert store.claim() is None
    store.unpause("ann")
    assert store.claim().id == second.id  # type: ignore[union-attr]


def test_a_start_without_waiting_jobs_pauses_nobody(path: Path) -> None:
    store = JobStore(path)
    store.add(job())
    store.claim()
    store.recover("cut off")
    assert store.paused("ann") == ""


def test_a_user_who_had_paused_finds_it_so(path: Path) -> None:
    store = JobStore(path)
    store.add(job())
    store.pause("ann")
    store.close()
    store = JobStore(path)
    store.recover("cut off")
    assert store.paused("ann") == "user"


def test_the_database_itself_keeps_an_end(path: Path) -> None:
    store = JobStore(path)
    (kept,) = store.add(job())
    store.move(kept.id, "queued", "cancelled")
    with pytest.raises(sqlite3.IntegrityError, match="ended"):
        store._connection.execute("UPDATE job SET state = 'queued' WHERE id = ?", (kept.id,))


# --- order -----------------------------------------------------------------------------------------------------------


def test_an_owner_reorders_his_own_places_only() -> None:
    store = JobStore.in_memory()
    a, x, b, y, c = store.add(job(), job(owner="bob"), job(), job(owner="bob"), job())
    store.reorder("ann", [c.id, x.id, "nobody", a.id, c.id])
    assert waiting(store) == [c.id, x.id, a.id, y.id, b.id]
    store.reorder("bob", [y.id])
    assert waiting(store) == [c.id, y.id, a.id, x.id, b.id]


def test_a_held_job_lets_the_next_one_pass_and_an_edit_lets_it_go() -> None:
    store = JobStore.in_memory()
    first, second = store.add(job(), job())
    assert store.hold(first.id, True)
    assert store.claim().id == second.id  # type: ignore[union-attr]
    assert store.claim() is None
    changed = store.replace(dataclasses.replace(first, recipe='{"new": 1}', prompt="new", owner="bob", out="other"))
    assert changed is not None and changed.recipe == '{"new": 1}' and not changed.held
    assert (changed.owner, changed.out, changed.position) == (first.owner, "other", first.position)
    assert store.claim().id == first.id  # type: ignore[union-attr]
    assert store.replace(first) is None and store.hold(first.id, True) is None, "it waits no more"


def test_another_attempt_is_counted_and_keeps_the_job_running() -> None:
    store = JobStore.in_memory()
    (kept,) = store.add(job())
    assert store.again(kept.id, "why") is None, "it does not run"
    store.claim()
    again = store.again(kept.id, "why")
    assert again is not None and (again.state, again.attempt, again.lean, again.message) == ("running", 2, 1, "why")
    done = store.move(kept.id, "running", "done")
    assert done is not None and done.message == "why", "a finished job says what was done for it"


# --- the library -----------------------------------------------------------------------------------------------------


def finished(store: JobStore, **fields: object) -> Job:
    (kept,) = store.add(job(**fields))
    store.claim()
    done = store.move(kept.id, "running", "done")
    assert done is not None
    return done


def test_a_search_finds_every_word_in_any_case() -> None:
    store = JobStore.in_memory()
    straw = finished(store, prompt="Straße im REGEN", task="loop", model="mini", seed=7)
    red = finished(store, prompt="a red ball", task="text-to-video", model="mini", seed=8)
    finished(store, prompt="a red ball", owner="bob")
    store.add(job(prompt="a red ball, not yet made"))
    assert [j.id for j in store.search("ann")] == [red.id, straw.id]
    assert [j.id for j in store.search("ann", newest=False)] == [straw.id, red.id]
    assert [j.id for j in store.search("ann", text="regen STRASSE")] == [straw.id]
    assert [j.id for j in store.search("ann", text="mini 8")] == [red.id]
    assert [j.id for j in store.search("ann", task="loop")] == [straw.id]
    assert store.search("ann", text="100%_") == [] and store.search("ann", model="wan") == []
    assert [j.id for j in store.search("ann", limit=1, offset=1)] == [straw.id]


def test_marks_are_of_ended_jobs_of_the_owner() -> None:
    store = JobStore.in_memory()
    mine = finished(store)
    (queued,) = store.add(job())
    assert store.mark("bob", [mine.id], favourite=True) == 0
    assert store.mark("ann", [mine.id, queued.id, "nobody"], favourite=True) == 1
    assert [j.id for j in store.search("ann", favourite=True)] == [mine.id]
    assert store.mark("ann", [mine.id, queued.id], deleted=True) == 1
    assert store.search("ann") == [] and [j.id for j in store.search("ann", deleted=True)] == [mine.id]
    assert store.expired(before=0.0) == [] and [j.id for j in store.expired(before=1e12)] == [mine.id]
    assert store.mark("ann", [mine.id], deleted=False) == 1
    assert [j.id for j in store.search("ann")] == [mine.id]
    store.forget(queued.id)
    assert store.get(queued.id) is not None, "what waits is not forgotten"
    store.forget(mine.id)
    assert store.get(mine.id) is None


# --- faults ----------------------------------------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_put_aside(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)
    store = JobStore(path)
    assert store.broken is not None and store.broken.read_bytes().startswith(b"this is no database")
    store.add(job())
    store.close()
    assert JobStore(path).broken is None


def test_a_database_with_a_damaged_page_is_put_aside(path: Path) -> None:
    store = JobStore(path)
    store.add(*(job(recipe="x" * 3000) for _ in range(50)))
    store.close()
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 30] = b"\xff" * (4096 * 27)
    path.write_bytes(data)
    store = JobStore(path)
    assert store.broken is not None and store.jobs() == []


def test_an_old_database_is_brought_up_to_date(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript((MIGRATIONS / "0001_jobs.sql").read_text() + "PRAGMA user_version = 1;")
    connection.execute(
        "INSERT INTO job (id, number, position, owner, state, recipe, out, folder, created) "
        "VALUES ('old', 1, 1, 'ann', 'queued', '{}', 'a.mp4', 'old', 5.0)"
    )
    connection.commit()
    connection.close()
    store = JobStore(path)
    old = store.get("old")
    assert old is not None and old.state == "queued" and old.task == "" and not old.favourite
    assert store.claim().id == "old"  # type: ignore[union-attr]


def test_a_database_of_a_newer_version_is_refused_and_not_touched(path: Path) -> None:
    JobStore(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 999")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="newer version"):
        JobStore(path)
    assert path.read_bytes() == before


def test_a_full_disk_is_said_and_nothing_is_lost(path: Path) -> None:
    store = JobStore(path)
    kept = store.add(job())
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="disk is full"):
        store.add(*(job(recipe="x" * 100_000) for _ in range(3)))
    assert store.jobs() == kept, "all or none"
    store._connection.execute("PRAGMA max_page_count = 100000")
    store.add(job(recipe="x" * 100_000))
    assert len(store.jobs()) == 2


def test_a_folder_without_permission_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        JobStore(tmp_path / "missing" / "queue.db")


def test_only_one_of_many_threads_claims_a_job(path: Path) -> None:
    store = JobStore(path)
    store.add(*(job() for _ in range(20)))
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


# --- any order of operations, with crashes ---------------------------------------------------------------------------


class Queue(RuleBasedStateMachine):
    """The store against a model: a dictionary of states, a list of the waiting, and sets of the held and the paused."""

    folder: Path

    @initialize()
    def begin(self) -> None:
        self.path = Queue.folder / "queue.db"
        self.path.unlink(missing_ok=True)
        self.store = JobStore(self.path)
        self.states: dict[str, str] = {}
        self.owners: dict[str, str] = {}
        self.order: list[str] = []
        self.held: set[str] = set()
        self.paused: set[str] = set()

    def pick(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(list(self.states)))  # as they came: ids are random, a test must not be

    @rule(owner=st.sampled_from(OWNERS), count=st.integers(1, 3))
    def add(self, owner: str, count: int) -> None:
        for kept in self.store.add(*(job(owner=owner) for _ in range(count))):
            self.states[kept.id], self.owners[kept.id] = "queued", owner
            self.order.append(kept.id)

    @rule()
    def claim(self) -> None:
        free = [i for i in self.order if i not in self.held and self.owners[i] not in self.paused]
        claimed = self.store.claim()
        assert (None if claimed is None else claimed.id) == (free[0] if free else None)
        if claimed is not None:
            self.states[claimed.id] = "running"
            self.order.remove(claimed.id)

    @precondition(lambda self: self.states)
    @rule(
        data=st.data(),
        expected=st.sampled_from(sorted(MOVES)),
        state=st.sampled_from(["running", "done", "failed", "cancelled", "interrupted"]),
    )
    def move(self, data: st.DataObject, expected: str, state: str) -> None:
        job_id = self.pick(data)
        moved = self.store.move(job_id, expected, state)  # type: ignore[arg-type]
        may = self.states[job_id] == expected and state in MOVES[expected]  # type: ignore[index]
        assert (moved is not None) == may
        if may:
            self.states[job_id] = state
            if job_id in self.order:
                self.order.remove(job_id)

    @rule(owner=st.sampled_from(OWNERS), data=st.data())
    def reorder(self, owner: str, data: st.DataObject) -> None:
        own = [i for i in self.order if self.owners[i] == owner]
        wanted = data.draw(st.permutations(own))[: data.draw(st.integers(0, len(own)))]
        self.store.reorder(owner, wanted)
        new = iter([*wanted, *(i for i in own if i not in wanted)])
        self.order = [next(new) if self.owners[i] == owner else i for i in self.order]

    @precondition(lambda self: self.states)
    @rule(data=st.data(), held=st.booleans())
    def hold(self, data: st.DataObject, held: bool) -> None:
        job_id = self.pick(data)
        assert (self.store.hold(job_id, held) is not None) == (self.states[job_id] == "queued")
        if self.states[job_id] == "queued":
            (self.held.add if held else self.held.discard)(job_id)

    @rule(owner=st.sampled_from(OWNERS), paused=st.booleans())
    def pause(self, owner: str, paused: bool) -> None:
        if paused:
            self.store.pause(owner)
            self.paused.add(owner)
        else:
            self.store.unpause(owner)
            self.paused.discard(owner)

    @precondition(lambda self: self.states)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        job_id = self.pick(data)
        changed = self.store.mark(self.owners[job_id], [job_id], deleted=True)
        assert not changed or self.states[job_id] not in MOVES, "nothing that goes on is deleted"

    @rule()
    def crash(self) -> None:
        """The program is killed: its file is as it was, its connection gone."""
        self.store._connection.close()
        self.store = JobStore(self.path)
        cut = {j.id for j in self.store.recover("cut off")}
        assert cut == {i for i, state in self.states.items() if state == "running"}
        self.states.update(dict.fromkeys(cut, "interrupted"))
        self.held.clear()
        self.paused |= {self.owners[i] for i in self.order}

    @invariant()
    def nothing_is_lost(self) -> None:
        if not hasattr(self, "store"):
            return
        assert {j.id: j.state for j in self.store.jobs()} == self.states
        assert waiting(self.store) == self.order
        assert {j.id for j in self.store.jobs(state="queued") if j.held} == self.held & set(self.order)
        assert {o for o in OWNERS if self.store.paused(o)} == self.paused


def test_any_order_of_operations_and_crashes(tmp_path: Path) -> None:
    Queue.folder = tmp_path
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Queue, settings=settings(max_examples=40, stateful_step_count=25, deadline=None))
