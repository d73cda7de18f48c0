"""The queue under haste, strangers and bad luck: everything at once, twice, half done, of somebody else, or hostile."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pusa_app import control, media, testing
from pusa_app.errors import RecipeError, StoreError, UserError
from pusa_app.jobs import Job
from pusa_app.settings import Settings
from pusa_app.studio import Studio, new_recipe
from pusa_app.timeline import Recipe, new_sweep

Opener = Callable[..., Studio]


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opener]:
    """Makes studios on one data folder that start no job; all are closed at the end."""
    made: list[Studio] = []

    def make(**limits: Any) -> Studio:
        made.append(Studio(Settings(data_dir=tmp_path / "data", **limits), idle=True))
        return made[-1]

    yield make
    for studio in made:
        studio.close()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.new("RGB", (64, 64), (200, 30, 30)).save(path)
    return path


def recipe(picture: Path | None = None, **more: Any) -> Recipe:
    keyframes = [{"slot": 0, "source": {"kind": "image", "path": str(picture)}}] if picture else []
    fields = {"prompt": "blue", "num_frames": 7, "steps": 2, "keyframes": keyframes, **more}
    return new_recipe(testing.card(), "image-to-video" if picture else "text-to-video", **fields)


def cancelled(studio: Studio, work: Recipe, owner: str = "me") -> Job:
    """A job that ended without a video, and left a checkpoint."""
    job = studio.submit(work, owner)
    studio.cancel(job.id)
    (studio.settings.runs_dir / job.folder / f"{job.id}.state").write_bytes(b"latents")
    (studio.settings.runs_dir / job.folder / f"{job.id}.state.1").write_bytes(b"of the second part")
    return studio.job(job.id)  # type: ignore[return-value]


def finished(studio: Studio, work: Recipe, owner: str = "me") -> Job:
    """A job that is done, as far as the studio can tell."""
    job = studio.submit(work, owner)
    assert studio._store.claim({job.id}) is not None
    Path(job.out).write_bytes(b"a video")
    return studio._store.move(job.id, "running", "done")  # type: ignore[return-value]


def ids(jobs: list[Job]) -> list[str]:
    return [job.id for job in jobs]


def states(studio: Studio) -> set[str]:
    return {path.name for path in studio.settings.runs_dir.glob("*/*.state*")}


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """What each call gave, or the UserError that it raised; all begin at the same moment."""
    said: list[Any] = [None] * len(calls)
    gate = threading.Barrier(len(calls))

    def run(number: int) -> None:
        gate.wait()
        try:
            said[number] = calls[number]()
        except UserError as error:
            said[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


# --- at the same time, and twice -------------------------------------------------------------------------------------


def test_limits_hold_exactly_however_many_ask_at_once(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    studio = opened(max_queue_per_owner=6)
    old = [cancelled(studio, recipe(seed=seed)) for seed in range(6)]
    first = studio.submit(recipe(), "me")
    real = media.free_bytes

    def slow(folder: Path) -> int:  # whoever looks and whoever acts upon it are not the same moment
        time.sleep(0.02)
        return real(folder)

    monkeypatch.setattr(media, "free_bytes", slow)
    said = at_once(
        *(lambda: studio.submit(recipe(), "me") for _ in range(4)),
        *(lambda: studio.duplicate(first.id, "me") for _ in range(4)),
        *(lambda job=job: studio.retry(job.id, "me") for job in old[:3]),
        *(lambda job=job: studio.resume(job.id, "me") for job in old[3:]),
    )
    refused = [words for words in said if isinstance(words, RecipeError)]
    assert len(refused) == 14 - 5 and all("may wait" in str(words) for words in refused)
    waiting = studio.queue("me")
    assert len(waiting) == 6 and len(set(ids(waiting))) == 6
    assert {job.folder for job in studio._store.jobs()} == {p.name for p in studio.settings.runs_dir.iterdir()}


def test_the_same_asked_for_twice_at_once_are_two_videos(opened: Opener, picture: Path) -> None:
    studio = opened()
    one, two = at_once(*(lambda: studio.submit(recipe(picture), "me") for _ in range(2)))
    assert (one.id, one.out, one.folder) != (two.id, two.out, two.folder) and one.out != two.out
    assert sorted(ids(studio.queue("me"))) == sorted([one.id, two.id])
    assert {job.number for job in (one, two)} == {1, 2}


def test_resumed_twice_it_happens_once(opened: Opener) -> None:
    studio = opened()
    old = cancelled(studio, recipe())
    said = at_once(*(lambda: studio.resume(old.id, "me") for _ in range(6)))
    (new,) = {job.id for job in said}
    assert ids(studio.queue("me")) == [new]
    assert studio.resume(old.id, "me").id == new, "and later too"
    assert states(studio) == {f"{new}.state", f"{new}.state.1"}
    studio.cancel(new)
    with pytest.raises(RecipeError, match="no longer there"):
        studio.resume(old.id, "me")
    assert studio.resume(new, "me").source == new, "it goes on from the last one"


def test_retried_twice_it_happens_once(opened: Opener) -> None:
    studio = opened()
    old = cancelled(studio, recipe())
    said = at_once(*(lambda: studio.retry(old.id, "me") for _ in range(3)))
    assert len([job for job in said if isinstance(job, Job)]) == 1 == len(studio.queue("me"))
    done = finished(studio, recipe())
    assert studio.retry(done.id, "me").id != studio.retry(done.id, "me").id, "a finished one is made as often as asked"


def test_edited_and_duplicated_at_once_every_job_has_its_sources(opened: Opener, picture: Path) -> None:
    studio = opened()
    for seed in range(6):
        job = studio.submit(recipe(picture, seed=seed), "me")
        at_once(
            lambda job=job: studio.replace(job.id, recipe(picture, seed=99), "me"),
            lambda job=job: studio.duplicate(job.id, "me"),
        )
    for job in studio.queue("me"):
        assert all(os.path.isfile(path) for path in studio.recipe(job).paths)


# --- the disk is full when something is asked for --------------------------------------------------------------------


def full(studio: Studio, is_full: bool = True) -> None:
    """No page may be added to the database, and none of those that it has is free."""
    connection = studio._store._connection
    if is_full:
        connection.execute("VACUUM")
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages if is_full else 10**6}")


@pytest.mark.parametrize("link", [True, False])
def test_a_full_disk_costs_no_checkpoint(opened: Opener, monkeypatch: pytest.MonkeyPatch, link: bool) -> None:
    studio = opened()
    if not link:
        monkeypatch.setattr(os, "link", lambda *names: (_ for _ in ()).throw(OSError("no links here")))
    old = cancelled(studio, recipe(prompt="x" * 3000))
    before = studio._store.jobs(), states(studio)
    full(studio)
    for again in (studio.resume, studio.retry, studio.duplicate):
        with pytest.raises(StoreError, match="disk is full"):
            again(old.id, "me")
        assert (studio._store.jobs(), states(studio)) == before, "nothing happened"
    full(studio, False)
    monkeypatch.setattr(
        shutil, "copyfile", lambda *names: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    if not link:
        with pytest.raises(StoreError, match="checkpoint cannot be taken over: No space left on device"):
            studio.resume(old.id, "me")
        assert (studio._store.jobs(), states(studio)) == before
        monkeypatch.undo()
        monkeypatch.setenv("PUSA_TEST_FAKE", "1")
    new = studio.resume(old.id, "me")
    assert states(studio) == {f"{new.id}.state", f"{new.id}.state.1"}
    assert (studio.settings.runs_dir / new.folder / f"{new.id}.state").read_bytes() == b"latents"


def test_what_cannot_be_queued_leaves_no_folder(opened: Opener, picture: Path) -> None:
    studio = opened()
    first = studio.submit(recipe(), "me")
    full(studio)
    with pytest.raises(StoreError, match="disk is full"):
        studio.submit_seeds(recipe(picture, prompt="x" * 3000), "me", 9)
    assert [p.name for p in studio.settings.runs_dir.iterdir()] == [first.folder]


def test_what_the_disk_says_while_a_pace_is_kept_costs_no_video(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pusa_app.events import Done, Progress

    studio = opened()
    job = studio.submit(recipe(), "me")
    studio._hear(job.id, Progress("sampling", 0, 2))
    monkeypatch.setattr(studio._store, "pace", lambda kind: (_ for _ in ()).throw(StoreError("disk I/O error")))
    assert isinstance(studio._hear(job.id, Done(job.out, job.recipe, 1.0, 7)), Done)


# --- one that cannot go on -------------------------------------------------------------------------------------------


def test_one_that_cannot_be_resumed_keeps_nobody_else_waiting(opened: Opener, picture: Path) -> None:
    studio = opened()
    jobs = [studio.submit(work, "me") for work in (recipe(picture), recipe(), recipe())]
    for _ in range(2):
        studio._store.claim()
    studio.close()
    (source,) = studio.settings.runs_dir.glob("*/source-0.png")
    source.unlink()
    studio = opened()
    assert ids(studio.interrupted("me")) == ids(jobs[:2]) and studio.paused("me") == "restart"
    assert studio.resume_all("me") == 2 and studio.paused("me") == ""
    assert [job.source or job.id for job in studio.queue("me")] == ids(jobs[1:])
    assert ids(studio.interrupted("me")) == [jobs[0].id], "it is still there to be seen"
    studio.clear("me")
    with pytest.raises(RecipeError, match="pictures or clips of this video are gone"):
        studio.resume_all("me")
    assert studio.paused("me") == ""


# --- owners ----------------------------------------------------------------------------------------------------------

# How somebody who knows the id of another's job would call each method; `it` is that job.
STRANGER: dict[str, Callable[[Studio, Job, Path], Any]] = {
    "submit": lambda s, it, p: s.submit(recipe(), "you").owner == "you" and None,
    "submit_seeds": lambda s, it, p: s.submit_seeds(recipe(), "you", 2)[0].owner == "you" and None,
    "submit_sweep": lambda s, it, p: (
        s.submit_sweep(new_sweep(recipe(), {"kind": "seed", "values": [1, 2]}), "you").owner == "you" and None
    ),
    "replace": lambda s, it, p: s.replace(it.id, recipe(prompt="stolen"), "you"),
    "hold": lambda s, it, p: s.hold(it.id, "you", True),
    "reorder": lambda s, it, p: s.reorder("you", [it.id]),
    "pause": lambda s, it, p: s.pause("you"),
    "unpause": lambda s, it, p: s.unpause("you"),
    "paused": lambda s, it, p: s.paused("you"),
    "cancel": lambda s, it, p: s.cancel(it.id, "you"),
    "clear": lambda s, it, p: s.clear("you"),
    "resume": lambda s, it, p: s.resume(it.id, "you"),
    "retry": lambda s, it, p: s.retry(it.id, "you"),
    "duplicate": lambda s, it, p: s.duplicate(it.id, "you"),
    "resume_all": lambda s, it, p: s.resume_all("you"),
    "interrupted": lambda s, it, p: s.interrupted("you"),
    "job": lambda s, it, p: s.job(it.id, "you"),
    "jobs": lambda s, it, p: s.jobs("you"),
    "recent": lambda s, it, p: s.recent("you", 99),
    "queue": lambda s, it, p: s.queue("you"),
    "library": lambda s, it, p: s.library("you") + s.library("you", deleted=True),
    "favourite": lambda s, it, p: s.favourite(it.id, "you", True),
    "delete": lambda s, it, p: s.delete([it.id], "you"),
    "restore": lambda s, it, p: s.restore([it.id], "you"),
    "usage": lambda s, it, p: s.usage("you")[0],
    "purge": lambda s, it, p: s.purge(time.time() + 1, "you"),
    "attend": lambda s, it, p: list(s.attend("you")),
}
# These take a job that somebody must have been given, or nobody's; whoever adds one thinks of owners first.
OF_NO_OWNER = {
    *(
        "close",
        "can_resume",
        "ahead",
        "expected",
        "expectations",
        "noise_now",
        "recipe",
        "sweep",
        "cells",
        "made",
        "sheet",
        "result",
        "poster",
    ),
    *("events", "progress", "preview", "run", "warm", "secret"),
}


def test_every_method_of_the_studio_is_told_whose_jobs_it_is_about() -> None:
    methods = {name: method for name, method in inspect.getmembers(Studio, callable) if not name.startswith("_")}
    owned = {name for name, method in methods.items() if "owner" in inspect.signature(method).parameters}
    assert owned == set(STRANGER), "add the new one to the table above"
    assert set(methods) - owned == OF_NO_OWNER, "a new method that asks for no owner: may anybody call it for any job?"


def seen_by(studio: Studio, owner: str) -> Any:
    """All that there is of an owner: his jobs, whether he pauses, his files."""
    jobs = studio._store.jobs(owner)
    folders = {job.folder for job in jobs}
    files = [p for p in studio.settings.runs_dir.rglob("*") if p.parent.name in folders]
    files += [Path(job.out) for job in jobs if Path(job.out).exists()]
    return jobs, studio.paused(owner), {p: p.read_bytes() for p in files}


@pytest.mark.parametrize("state", ["queued", "running", "cancelled", "interrupted", "done", "deleted"])
def test_nobody_sees_or_changes_anybody_elses(opened: Opener, picture: Path, state: str) -> None:
    studio = opened()
    if state in ("done", "deleted"):
        it = finished(studio, recipe(picture))
        if state == "deleted":
            studio.delete([it.id], "me")
    else:
        it = cancelled(studio, recipe(picture)) if state == "cancelled" else studio.submit(recipe(picture), "me")
        if state in ("running", "interrupted"):
            studio._store.claim()
        if state == "interrupted":
            studio._store.move(it.id, "running", "interrupted")
    studio.submit(recipe(), "me")
    studio.pause("me")
    before = seen_by(studio, "me")
    for name, call in STRANGER.items():
        try:
            said = call(studio, it, picture)
        except RecipeError as error:
            assert "no longer there" in str(error), name
            said = None
        mine = said if isinstance(said, list) else []
        assert not said or {job.owner for job in mine} == {"you"} or name in ("clear", "resume_all", "usage"), name
        assert seen_by(studio, "me") == before, name
    assert studio.job(it.id, "me") is not None


# --- what is removed when --------------------------------------------------------------------------------------------


def test_a_purge_takes_nothing_from_what_runs_or_waits(opened: Opener, picture: Path) -> None:
    studio = opened()
    resumed, retried = cancelled(studio, recipe(picture, seed=1)), cancelled(studio, recipe(picture, seed=2))
    runs, waits = studio.resume(resumed.id, "me"), studio.retry(retried.id, "me")
    done = finished(studio, recipe(picture, seed=3))
    copy = studio.duplicate(done.id, "me")
    studio._store.reorder("me", [runs.id])
    assert studio._store.claim().id == runs.id  # type: ignore[union-attr]
    cells = Path(runs.out).with_name(f"{Path(runs.out).stem}-cells")
    cells.mkdir()
    (cells / "1-1.mp4").write_bytes(b"made already")
    studio.delete(ids(studio._store.jobs()), "me")
    before = {p for p in studio.settings.runs_dir.rglob("*") if p.is_file()}
    assert studio.purge(time.time() + 1) == 3
    assert ids(studio._store.jobs()) == [runs.id, waits.id, copy.id]
    for job in (runs, waits, copy):
        assert all(os.path.isfile(path) for path in studio.recipe(job).paths)
    gone = {p.name for p in before if not p.exists()}
    of_the_old = {f"{job.id}{end}" for job in (resumed, retried, done) for end in (".job.json", ".state", ".state.1")}
    assert gone and gone <= of_the_old and f"{runs.id}.state" in states(studio)
    assert (cells / "1-1.mp4").is_file() and not Path(done.out).exists()


def test_what_comes_back_in_the_midst_of_a_purge_stays(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    studio = opened()
    done = finished(studio, recipe())
    studio.delete([done.id], "me")
    real = studio._store.expired

    def expired(before: float) -> list[Job]:
        found = real(before)
        studio.restore([done.id], "me")
        return found

    monkeypatch.setattr(studio._store, "expired", expired)
    assert studio.purge(time.time() + 1) == 0
    assert ids(studio.library("me")) == [done.id] and Path(done.out).is_file()


def test_what_cannot_be_removed_now_is_removed_later(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    studio = opened()
    done = finished(studio, recipe())
    studio.delete([done.id], "me")
    monkeypatch.setattr(Path, "unlink", lambda *a, **k: (_ for _ in ()).throw(PermissionError("in use")))
    assert studio.purge(time.time() + 1) == 0 and studio.job(done.id) is not None
    monkeypatch.undo()
    assert studio.purge(time.time() + 1) == 1
    assert not Path(done.out).exists() and list(studio.settings.runs_dir.iterdir()) == []


def test_what_was_deleted_makes_room_when_the_quota_is_used_up(opened: Opener) -> None:
    studio = opened(quota_bytes=100_000)
    old, kept = finished(studio, recipe()), finished(studio, recipe())
    Path(old.out).write_bytes(bytes(150_000))
    with pytest.raises(RecipeError, match="delete some in the library"):
        studio.submit(recipe(), "me")
    studio.delete([old.id], "me")
    yours = finished(studio, recipe(), "you")
    studio.delete([yours.id], "you")
    studio.submit(recipe(), "me")
    assert not Path(old.out).exists() and Path(kept.out).exists()
    assert studio.restore([yours.id], "you") == 1 and Path(yours.out).exists(), "another's can still come back"


def test_what_a_killed_program_left_is_swept_at_the_next_start(opened: Opener, picture: Path) -> None:
    studio = opened()
    done, waits = finished(studio, recipe(picture)), studio.submit(recipe(picture), "me")
    cut = cancelled(studio, recipe(picture))
    studio.close()
    runs, results = studio.settings.runs_dir, studio.settings.results_dir
    cells = results / f"{Path(done.out).stem}-cells"
    cells.mkdir()
    (cells / "1-1.mp4").write_bytes(b"a cell")
    (runs / "notes of the user").mkdir()
    (runs / "notes of the user" / "a.txt").touch()
    heir_of = cancelled(studio_again := opened(), recipe())
    heir = studio_again.resume(heir_of.id, "me")
    studio_again.close()
    kept = set(studio.settings.data_dir.rglob("*"))
    left = [
        runs / heir.folder / f"{heir_of.id}.state",  # killed in the midst of handing it on
        runs / done.folder / f"{done.id}.state",  # killed before it could be removed
        results / ".pusa-0123456789ab.part",  # a video that was being written
        cells / ".pusa-0123456789ab.part",  # a cell
        runs / waits.folder / ".pusa-0123456789ab.part",  # a checkpoint or a source
        runs / waits.folder / f"{'a' * 24}.state",  # taken over for a job that was never queued
        runs / waits.folder / f"{'a' * 24}.state.cell3.1",
    ]
    for path in left:
        path.write_bytes(b"x" * 100)
    scratch = results / ".pusa-xyz.part"  # raw frames of a chain's parts
    scratch.mkdir()
    (scratch / "part-0.rgb").write_bytes(b"x" * 100)
    half = runs / ("b" * 24)  # sources of a submission that was never finished
    half.mkdir()
    (half / "source-0.png").write_bytes(b"x")
    (half / "recipe.json").write_text("{}")
    studio = opened()
    assert set(studio.settings.data_dir.rglob("*")) == kept
    assert states(studio) == {f"{job.id}.state{end}" for job in (cut, heir) for end in ("", ".1")}


def test_a_lost_queue_is_no_reason_to_remove_a_run(opened: Opener, picture: Path) -> None:
    studio = opened()
    cut = cancelled(studio, recipe(picture))
    studio.close()
    studio.settings.queue_file.unlink()  # by hand
    before = set(studio.settings.runs_dir.rglob("*"))
    opened()
    assert set(studio.settings.runs_dir.rglob("*")) == before and states(studio) >= {f"{cut.id}.state"}


# --- what the folders tell when the database is gone -----------------------------------------------------------------


def test_a_video_that_was_made_before_the_program_could_say_so_is_done(opened: Opener, picture: Path) -> None:
    studio = opened()
    job, other = studio.submit(recipe(picture), "me"), studio.submit(recipe(), "me")
    for _ in range(2):
        studio._store.claim()
    with media.ClipWriter(Path(job.out), 64, 64, 12) as clip:
        clip.write(media.load_image(picture, 64, 64)[None].repeat(7, axis=0))
    (studio.settings.runs_dir / job.folder / f"{job.id}.state").write_bytes(b"latents")
    studio._store.close()  # killed
    studio._lock.release()
    studio = opened()
    done = studio.job(job.id)
    assert done is not None and done.state == "done" and done.message == "" and done.finished
    assert studio.poster(done) is not None and Recipe.from_file(Path(job.out).with_suffix(".json")).prompt == "blue"
    assert states(studio) == set() and ids(studio.interrupted("me")) == [other.id]


def test_seeds_and_resumed_jobs_come_back_from_their_folders_as_they_were(opened: Opener, picture: Path) -> None:
    studio = opened()
    seeds = studio.submit_seeds(recipe(picture, seed=5), "me", 3)
    old = cancelled(studio, recipe())
    new = studio.resume(old.id, "me")
    studio.close()
    studio.settings.queue_file.write_bytes(b"\xff" * 50_000)
    studio = opened()
    found = {job.id: job for job in studio.interrupted("me")}
    assert set(found) == {*ids(seeds), new.id}, "of the resumed one only the last"
    assert [found[job.id].seed for job in seeds] == [5, 6, 7]
    assert [studio.recipe(found[job.id]).seed for job in seeds] == [5, 6, 7]
    assert states(studio) == {f"{new.id}.state", f"{new.id}.state.1"}


# --- hostile ---------------------------------------------------------------------------------------------------------


def broken(**changes: Any) -> str:
    """The JSON of a recipe with fields that no form would send; a dotted name goes into the timeline."""
    fields = json.loads(recipe().to_json())
    for name, value in changes.items():
        place = fields
        *outer, last = name.split("__")
        for key in outer:
            place = place[key]
        place[last] = value
    return json.dumps(fields)


def with_source(path: Any, kind: str = "image") -> str:
    keyframe = {"slot": 0, "source": {"kind": kind, "path": path}}
    return broken(task="image-to-video", timeline__keyframes=[keyframe])


HOSTILE = {
    "NaN guidance": broken(guidance=float("nan")),
    "infinite guidance": broken(guidance=float("inf")),
    "1e9 frames": broken(timeline__grid__num_frames=10**9 + 3),
    "1e300 frames": broken(timeline__grid__num_frames=1e300),
    "a number of 5000 digits": broken(seed=0).replace('"seed": 0', '"seed": ' + "9" * 5000),
    "1e9 steps": broken(steps=10**9),
    "negative steps": broken(steps=-1),
    "1e9 pixels": broken(timeline__width=10**9),
    "a size of 0": broken(timeline__width=0, timeline__height=0),
    "a seed out of range": broken(seed=-(2**70)),
    "NaN frames a second": broken(timeline__grid__fps=float("nan")),
    "a schedule of NaN": broken(schedule={"kind": "shift", "shift": float("nan")}),
    "a model that is a path": broken(model="../../etc"),
    "a model that is a URL": broken(model="https://example.org/model"),
    "a task that is a path": broken(task="../text-to-video"),
    "unknown fields": broken(out="/tmp/x.mp4"),
    "a prompt that is a list": broken(prompt=["x"]),
    "nothing": "",
    "not JSON": "{",
    "a list": "[]",
    "nested without end": "[" * 100_000,
    "objects nested without end": '{"recipe":' * 50_000,
    "many keyframes": broken(timeline__keyframes=[{"slot": 0, "source": {"kind": "image", "path": "a"}}] * 10_000),
    "a source of the system": with_source("/etc/passwd"),
    "a source that is a device": with_source("/dev/zero"),
    "a source that climbs": with_source("../../../../../../etc/passwd"),
    "a source with a zero byte": with_source("a\0b.png"),
    "a source that is a URL": with_source("http://127.0.0.1:1/a.png"),
    "a source that is an ffmpeg protocol": with_source("concat:/etc/passwd|/etc/hosts", "clip"),
    "a source that is a folder": with_source("/"),
    "a source that is no text": with_source(["a"]),
    "a source of an unheard-of kind": with_source("a", "url"),
    "an endless name": with_source("a" * 100_000),
}


@pytest.fixture
def ear(opened: Opener) -> Iterator[Studio]:
    """A studio that listens."""
    studio = opened()
    listening = control.Control(studio)
    yield studio
    listening.close()


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_recipe_is_refused_in_one_line(ear: Studio, what: str) -> None:
    remote = control.Remote(ear.settings)
    with pytest.raises(RecipeError) as caught:
        remote.ask("submit", recipe=HOSTILE[what])
    words = str(caught.value)
    assert "\n" not in words and "Traceback" not in words and len(words) < 500, words[:1000]
    assert "unexpectedly" not in words, "it was foreseen"
    assert "root:" not in words
    assert ear._store.jobs() == [] and not ear.settings.runs_dir.exists()
    assert remote.ask("list")["jobs"] == []


@pytest.mark.parametrize(
    "question",
    [b"", b"{", b"[]", b"null", b'"list"', b"\xff\xfe", b"[" * 100_000, b'{"verb": ["list"]}', b'{"verb": "__class__"}',
     b'{"verb": "list", "studio": 1}', b'{"verb": "cancel", "id": null}', b'{"verb": "cancel", "id": {"a": 1}}',
     b'{"verb": "list", "all": NaN}', b'{"verb": "retry"}'],
)  # fmt: skip
def test_a_question_that_is_none_is_answered_in_one_line(ear: Studio, question: bytes) -> None:
    port = json.loads((ear.settings.data_dir / "control.json").read_text())["port"]
    with control.Client(("127.0.0.1", port), authkey=ear.secret().encode()) as connection:
        connection.send_bytes(question)
        said = json.loads(connection.recv_bytes())
    assert "error" in said or b"NaN" in question
    assert "Traceback" not in str(said) and "unexpectedly" not in str(said), said
    assert control.Remote(ear.settings).ask("list") == {"jobs": [], "paused": ""}


def test_a_stranger_who_says_nothing_keeps_nobody_waiting(ear: Studio) -> None:
    port = json.loads((ear.settings.data_dir / "control.json").read_text())["port"]
    with contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(3)]
        strangers[1].sendall(b"GET / HTTP/1.1\r\n\r\n")
        strangers[2].sendall(b"\0\0")
        answers = at_once(*(lambda: control.Remote(ear.settings).ask("list") for _ in range(2)))
        assert answers == [{"jobs": [], "paused": ""}] * 2
