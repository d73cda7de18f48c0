"""Any order of what can be asked of a studio, with crashes and purges between: no file is lost, none is left."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from PIL import Image

from pusa_app import testing, worker
from pusa_app.errors import RecipeError
from pusa_app.jobs import Job
from pusa_app.settings import Settings
from pusa_app.studio import Studio, new_recipe
from pusa_app.timeline import Recipe

OWNERS = ("ann", "bob")
LIMIT = 6


class Asked(RuleBasedStateMachine):
    """A studio that starts no job; the rules are also what its worker would do."""

    folder: Path
    numbers: Iterator[int] = itertools.count()

    @initialize()
    def begin(self) -> None:
        self.data = Asked.folder / str(next(Asked.numbers))
        self.studio = self.opened()

    def opened(self) -> Studio:
        return Studio(Settings(data_dir=self.data, max_queue_per_owner=LIMIT), idle=True)

    def teardown(self) -> None:
        if hasattr(self, "studio"):
            self.studio.close()

    def every(self) -> list[Job]:
        return self.studio._store.jobs()

    def pick(self, data: st.DataObject) -> Job:
        return data.draw(st.sampled_from(self.every()))

    def recipe(self, pictured: bool, seed: int) -> Recipe:
        source = {"kind": "image", "path": str(Asked.folder / "picture.png")}
        keyframes: list[Any] = [{"slot": 0, "source": source}] if pictured else []
        task = "image-to-video" if pictured else "text-to-video"
        return new_recipe(testing.card(), task, prompt="blue", num_frames=7, steps=2, seed=seed, keyframes=keyframes)  # type: ignore[arg-type]

    # --- what is asked -----------------------------------------------------------------------------------------------

    @rule(owner=st.sampled_from(OWNERS), count=st.integers(1, 3), pictured=st.booleans())
    def submit(self, owner: str, count: int, pictured: bool) -> None:
        waiting = sum(job.state == "queued" and job.owner == owner for job in self.every())
        try:
            self.studio.submit_seeds(self.recipe(pictured, 5), owner, count)
            assert waiting + count <= LIMIT
        except RecipeError:
            assert waiting + count > LIMIT

    @precondition(lambda self: self.every())
    @rule(data=st.data(), verb=st.sampled_from(["resume", "resume", "retry", "duplicate"]), twice=st.booleans())
    def again(self, data: st.DataObject, verb: str, twice: bool) -> None:
        job = self.pick(data)
        states = self.contents(job)
        with contextlib.suppress(RecipeError):
            new = getattr(self.studio, verb)(job.id, job.owner)
            if verb == "resume" and states and new.state == "queued":
                assert self.contents(new) == states, "it goes on from there"
            if twice and verb == "resume":
                assert self.studio.resume(job.id, job.owner).id == new.id

    @precondition(lambda self: self.every())
    @rule(data=st.data(), pictured=st.booleans())
    def replace(self, data: st.DataObject, pictured: bool) -> None:
        job = self.pick(data)
        with contextlib.suppress(RecipeError):
            assert self.studio.replace(job.id, self.recipe(pictured, 9), job.owner).position == job.position
            assert job.state == "queued"

    @precondition(lambda self: self.every())
    @rule(data=st.data(), deleted=st.booleans())
    def delete_or_restore(self, data: st.DataObject, deleted: bool) -> None:
        job = self.pick(data)
        (self.studio.delete if deleted else self.studio.restore)([job.id], job.owner)

    @precondition(lambda self: self.every())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = self.pick(data)
        if job.state == "queued":
            assert self.studio.cancel(job.id, job.owner)

    @rule(owner=st.sampled_from(OWNERS))
    def go_on(self, owner: str) -> None:
        with contextlib.suppress(RecipeError):
            self.studio.resume_all(owner)
        assert self.studio.paused(owner) == ""

    @rule()
    def purge(self) -> None:
        self.studio.purge(before=1e12)

    # --- what the worker does ----------------------------------------------------------------------------------------

    @rule(steps=st.integers(0, 2))
    def start(self, steps: int) -> None:
        job = self.studio._store.claim()
        for part in range(steps if job else 0):
            name = f"{job.id}.state" + (f".{part}" if part else "")  # type: ignore[union-attr]
            (self.studio.settings.runs_dir / job.folder / name).write_text(f"{job.out} {part}")  # type: ignore[union-attr]

    @precondition(lambda self: any(job.state == "running" for job in self.every()))
    @rule(data=st.data(), state=st.sampled_from(["done", "failed", "cancelled"]))
    def end(self, data: st.DataObject, state: Any) -> None:
        job = data.draw(st.sampled_from([job for job in self.every() if job.state == "running"]))
        if state == "done":
            Path(job.out).write_text(job.id)
            for path in (self.studio.settings.runs_dir / job.folder).glob(f"{job.id}.state*"):
                path.unlink()
        self.studio._store.move(job.id, "running", state)

    @rule(video=st.booleans(), rest=st.booleans())
    def crash(self, video: bool, rest: bool) -> None:
        """The program is killed, maybe in the moment in which a video was written, maybe in the midst of writing."""
        running = [job for job in self.every() if job.state == "running"]
        if video and running:
            Path(running[0].out).write_text(running[0].id)
        if rest:
            for place in (self.studio.settings.results_dir, *self.studio.settings.runs_dir.glob("*")):
                if place.is_dir():
                    (place / ".pusa-0.part").write_text("a half")
        before = {job.id: job for job in self.every()}
        self.studio._closing.set()
        self.studio._store.close()
        self.studio._lock.release()
        self.studio = self.opened()
        after = {job.id: job for job in self.every()}
        assert set(after) == set(before)
        for job in running:
            made = video and job == running[0]
            assert after[job.id].state == ("done" if made or Path(job.out).exists() else "interrupted")
        ended = {i: job.state for i, job in before.items() if job.ended}
        assert {i: after[i].state for i in ended} == ended, "an end is an end"

    # --- what is always so -------------------------------------------------------------------------------------------

    def contents(self, job: Job) -> list[str]:
        return sorted(p.read_text() for p in self.studio._results.states(job))

    @invariant()
    def every_job_has_its_files(self) -> None:
        if not hasattr(self, "studio"):
            return
        jobs, runs = self.every(), self.studio.settings.runs_dir
        folders = {p.name for p in runs.iterdir()} if runs.is_dir() else set()
        assert folders == {job.folder for job in jobs}, "none is missing, and none is left"
        for job in jobs:
            assert all(Path(path).is_file() for path in self.studio.recipe(job).paths)
            assert job.state != "done" or Path(job.out).read_text(), "its video"
            assert all(text.startswith(job.out) for text in self.contents(job)), "its own checkpoints"
        results = self.studio.settings.results_dir
        videos = {str(p) for p in results.glob("*.mp4")} if results.is_dir() else set()
        assert videos <= {job.out for job in jobs}
        going_on = [job.out for job in jobs if not job.ended]
        assert len(going_on) == len(set(going_on)), "no two write the same video"
        ids = {job.id for job in jobs}
        cards = {p.name.removesuffix(".job.json") for p in runs.glob("*/*.job.json")}
        states = {p.name.partition(".state")[0] for p in runs.glob("*/*.state*")}
        assert cards <= ids and states <= ids
        for owner in OWNERS:
            own = [job for job in jobs if job.owner == owner]
            assert [job.id for job in self.studio.interrupted(owner)] == [
                job.id for job in own if job.state == "interrupted" and job.deleted is None
            ]


def test_any_order_of_what_can_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")
    monkeypatch.setattr(worker, "save_beside", lambda out, work: None)
    Asked.folder = tmp_path
    Image.new("RGB", (16, 16)).save(tmp_path / "picture.png")
    run_state_machine_as_test(Asked, settings=settings(max_examples=25, stateful_step_count=25, deadline=None))
