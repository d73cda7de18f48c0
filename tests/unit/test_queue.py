"""The queue as the page and the command line use it: order, edits, again, restarts, limits, what is removed when."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pusa_app import media, testing
from pusa_app.checkpoint import resumable_step
from pusa_app.errors import RecipeError, RunCancelled, StoreError, UserError
from pusa_app.jobs import Job
from pusa_app.render import render
from pusa_app.settings import Settings
from pusa_app.studio import InUse, Studio, new_recipe
from pusa_app.timeline import MAX_SEED, Recipe

PATIENCE = 120.0


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Studio]]:
    """Makes studios on one data folder; all are closed at the end."""
    made: list[Studio] = []

    def make(*, idle: bool = True, **changes: object) -> Studio:
        settings = Settings(data_dir=tmp_path / "data", cancel_grace_seconds=1.0, **changes)  # type: ignore[arg-type]
        made.append(Studio(settings, idle=idle))
        return made[-1]

    yield make
    for studio in made:
        studio.close()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.new("RGB", (64, 64), (200, 30, 30)).save(path)
    return path


def recipe(steps: int = 2, **more: object) -> Recipe:
    fields = {"prompt": "blue", "num_frames": 7, "steps": steps, **more}
    return new_recipe(testing.card(), "text-to-video", **fields)  # type: ignore[arg-type]


def image_recipe(path: Path, **more: object) -> Recipe:
    keyframes = [{"slot": 0, "source": {"kind": "image", "path": str(path)}}]
    return new_recipe(
        testing.card(), "image-to-video", prompt="red", num_frames=7, steps=2, keyframes=keyframes, **more
    )  # type: ignore[arg-type]


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def end_of(studio: Studio, job: Job) -> Job:
    wait_for(lambda: studio.job(job.id).ended)  # type: ignore[union-attr]
    return studio.job(job.id)  # type: ignore[return-value]


def ids(jobs: list[Job]) -> list[str]:
    return [job.id for job in jobs]


# --- asking ----------------------------------------------------------------------------------------------------------


def test_seeds_are_jobs_that_share_their_sources(opened: Callable[..., Studio], picture: Path) -> None:
    studio = opened()
    jobs = studio.submit_seeds(image_recipe(picture, seed=7), "me", 3)
    assert [studio.recipe(job).seed for job in jobs] == [job.seed for job in jobs] == [7, 8, 9]
    assert len({job.folder for job in jobs}) == 1 and len({job.out for job in jobs}) == 3
    assert len(list(studio.settings.runs_dir.glob("*/source-*"))) == 1
    for count in (0, 17):
        with pytest.raises(RecipeError, match="1 to 16"):
            studio.submit_seeds(recipe(), "me", count)


def test_what_is_refused_late_leaves_nothing(
    opened: Callable[..., Studio], picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = opened()
    with pytest.raises(RecipeError, match="begin with a lower one"):
        studio.submit_seeds(image_recipe(picture, seed=MAX_SEED - 1), "me", 3)
    with monkeypatch.context() as faulty, pytest.raises(RecipeError, match="not valid"):
        faulty.setattr(studio, "_job", lambda *_, **more: Recipe.from_json("{}"))
        studio.submit(image_recipe(picture), "me")
    assert not list(studio.settings.runs_dir.glob("*")) and studio.jobs("me") == []
    assert len(studio.submit_seeds(image_recipe(picture, seed=MAX_SEED - 1), "me", 2)) == 2


def test_a_source_is_kept_as_a_checked_copy_with_the_same_pixels(opened: Callable[..., Studio], tmp_path: Path) -> None:
    studio = opened()
    photo = tmp_path / "holiday.jpg"
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    noise = np.random.default_rng(0).integers(0, 256, (80, 70, 3), np.uint8)
    Image.fromarray(noise).save(photo, exif=exif)
    (path,) = studio.recipe(studio.submit(image_recipe(photo), "me")).paths
    assert Path(path).name == "source-0.png" and b"secret" not in Path(path).read_bytes()
    assert np.array_equal(media.load_image(path, 64, 64), media.load_image(photo, 64, 64))


def test_a_gif_may_be_a_picture_in_one_slot_and_a_clip_in_others(opened: Callable[..., Studio], tmp_path: Path) -> None:
    studio, gif = opened(idle=False), tmp_path / "both.gif"
    media.write_gif(np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), np.uint8), gif, fps=12)
    image = {"slot": 0, "source": {"kind": "image", "path": str(gif)}}
    clip = {"slot": 2, "span": 2, "source": {"kind": "clip", "path": str(gif)}}
    both = new_recipe(testing.card(), "keyframes", num_frames=31, steps=2, keyframes=[image, clip])
    done = end_of(studio, studio.submit(both, "me"))
    assert done.state == "done", done.message


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_queue": 2}, "2 videos are waiting"),
        ({"max_queue_per_owner": 2}, "You have 2 videos waiting"),
        ({"quota_bytes": 10}, "delete some in the library"),
        ({"reserve_bytes": 10**18}, "The disk has"),
    ],
)
def test_limits_are_said_before_anything_is_written(
    opened: Callable[..., Studio], picture: Path, limits: dict[str, object], words: str
) -> None:
    studio = opened()
    studio.submit_seeds(image_recipe(picture), "me", 2)
    studio.close()
    studio = opened(**limits)
    with pytest.raises(RecipeError, match=words):
        studio.submit(image_recipe(picture), "me")
    assert len(studio.jobs("me")) == 2 and len(list(studio.settings.runs_dir.iterdir())) == 1


def test_one_owners_limit_is_not_anothers(opened: Callable[..., Studio]) -> None:
    studio = opened(max_queue_per_owner=1)
    studio.submit(recipe(), "me")
    studio.submit(recipe(), "you")
    with pytest.raises(RecipeError):
        studio.submit(recipe(), "me")


# --- order and edits -------------------------------------------------------------------------------------------------


def test_an_edit_keeps_the_place_and_replaces_the_sources(opened: Callable[..., Studio], picture: Path) -> None:
    studio = opened()
    first, second = studio.submit(image_recipe(picture), "me"), studio.submit(recipe(), "me")
    assert studio.hold(first.id, "me", True) and not studio.hold(first.id, "you", True)
    changed = studio.replace(first.id, recipe(prompt="a green square"), "me")
    assert ids(studio.queue("me")) == [first.id, second.id] and changed.prompt == "a green square"
    assert changed.out == first.out and not changed.held
    assert not list(studio.settings.runs_dir.glob("*/source-*")), "nobody needs the picture any more"
    with pytest.raises(RecipeError, match="no longer there"):
        studio.replace(first.id, recipe(), "you")
    studio.cancel(first.id)
    with pytest.raises(RecipeError, match="no longer waiting"):
        studio.replace(first.id, recipe(), "me")


def test_a_checkpoint_outlives_an_edit_of_what_goes_on_from_it(opened: Callable[..., Studio], picture: Path) -> None:
    studio = opened()
    wanted = image_recipe(picture).model_copy(update={"steps": 6})
    old = studio.submit(wanted, "me")
    steps: list[object] = []

    def stop() -> bool:
        steps.append(None)
        return len(steps) > 4

    with pytest.raises(RunCancelled):
        render(studio.recipe(old), testing.backbone(), state_path=studio._results.state(old), cancelled=stop)
    studio.cancel(old.id)
    step = studio.can_resume(studio.job(old.id))  # type: ignore[arg-type]
    assert step > 0
    new = studio.resume(old.id, "me")
    same = studio.replace(new.id, wanted, "me", embed=False)
    assert (same.source, same.folder, same.embed) == (old.id, old.folder, False)
    assert resumable_step(studio._results.state(same), studio.recipe(same)) == step
    studio.replace(new.id, wanted.model_copy(update={"seed": 99}), "me")
    assert [job.state for job in studio.jobs("me")] == ["cancelled", "queued"]
    assert studio.can_resume(studio.job(old.id)) == step  # type: ignore[arg-type]
    # Nor does the next start of the program take it for something that nobody needs.
    studio.close()
    studio = opened()
    assert studio.can_resume(studio.job(old.id)) == step  # type: ignore[arg-type]


def test_a_duplicate_goes_to_the_end_and_a_retry_to_the_front(opened: Callable[..., Studio], picture: Path) -> None:
    studio = opened()
    a, b = studio.submit(image_recipe(picture, seed=3), "me"), studio.submit(recipe(), "me")
    copy = studio.duplicate(a.id, "me")
    assert ids(studio.queue("me")) == [a.id, b.id, copy.id]
    assert copy.out != a.out and studio.recipe(copy) == studio.recipe(a)
    with pytest.raises(RecipeError, match="cancel it first"):
        studio.retry(a.id, "me")
    studio.cancel(a.id)
    again = studio.retry(a.id, "me")
    assert ids(studio.queue("me")) == [again.id, b.id, copy.id]
    assert a.id not in ids(studio.jobs("me")), "what is tried again leaves the lists"
    with pytest.raises(RecipeError, match="no longer there"):
        studio.retry(a.id, "you")


def test_a_retry_without_its_sources_says_so(opened: Callable[..., Studio], picture: Path) -> None:
    studio = opened()
    job = studio.submit(image_recipe(picture), "me")
    studio.cancel(job.id)
    next(studio.settings.runs_dir.glob("*/source-0.png")).unlink()
    with pytest.raises(RecipeError, match="gone"):
        studio.retry(job.id, "me")


def test_a_pause_starts_nothing_and_clear_cancels_what_waits(opened: Callable[..., Studio]) -> None:
    studio = opened(idle=False)
    studio.pause("me")
    mine, yours = [studio.submit(recipe(), "me") for _ in range(2)], studio.submit(recipe(), "you")
    assert end_of(studio, yours).state == "done"
    assert [job.state for job in studio.queue("me")] == ["queued", "queued"] and studio.paused("me") == "user"
    assert studio.clear("me") == 2 and studio.clear("you") == 0
    assert [studio.job(job.id).state for job in mine] == ["cancelled"] * 2  # type: ignore[union-attr]
    studio.unpause("me")
    assert end_of(studio, studio.submit(recipe(), "me")).state == "done"


# --- restarts --------------------------------------------------------------------------------------------------------


def test_after_a_restart_the_rest_waits_until_somebody_resumes(
    opened: Callable[..., Studio], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE_DELAY", "0.1")
    studio = opened(idle=False)
    running, waiting = studio.submit(recipe(100), "me"), studio.submit(recipe(), "me")
    wait_for(lambda: (studio.progress(running.id)[0] or running.id) and studio.noise_now(studio.job(running.id)))  # type: ignore[arg-type]
    studio.close()

    monkeypatch.setenv("PUSA_TEST_FAKE_DELAY", "0")
    studio = opened(idle=False)
    cut = studio.job(running.id)
    assert cut is not None and cut.state == "interrupted" and "program" in cut.message
    assert studio.paused("me") == "restart" and ids(studio.interrupted("me")) == [running.id]
    time.sleep(1.5)
    assert studio.job(waiting.id).state == "queued", "nothing starts by itself"  # type: ignore[union-attr]
    assert studio.resume_all("me") == 2
    assert studio.interrupted("me") == [] and studio.paused("me") == ""
    jobs = studio.jobs("me")
    assert [job.source for job in jobs] == ["", running.id]
    for job in jobs:
        assert end_of(studio, job).state == "done"


def test_two_programs_do_not_share_a_data_folder(opened: Callable[..., Studio]) -> None:
    studio = opened()
    with pytest.raises(InUse, match="--data-dir"):
        opened()
    studio.close()
    opened()


def test_a_data_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        Studio(Settings(data_dir=tmp_path / "file" / "data"))


def test_a_damaged_queue_is_begun_anew_from_what_lies_in_the_folders(
    opened: Callable[..., Studio], picture: Path
) -> None:
    studio = opened(idle=False)
    done = end_of(studio, studio.submit(image_recipe(picture), "me"))
    studio.pause("me")
    waiting = studio.submit(recipe(prompt="still waiting"), "me")
    studio.close()
    studio.settings.queue_file.write_bytes(b"\xff" * 50_000)
    studio = opened()
    assert "damaged" in studio.notice
    (found,) = studio.library("me")
    assert (found.id, found.prompt, studio.result(found)) == (done.id, "red", Path(done.out))
    assert ids(studio.interrupted("me")) == [waiting.id], "what waited can be resumed"
    resumed = studio.resume(waiting.id, "me")
    assert resumed.prompt == "still waiting"
    assert studio.library("you") == []


# --- how long it takes -----------------------------------------------------------------------------------------------


def test_expected_times_come_from_measured_ones(opened: Callable[..., Studio]) -> None:
    studio = opened(idle=False)
    assert studio.expected(studio.submit(recipe(20), "me")) is None
    wait_for(lambda: not studio.queue("me"))
    studio.pause("me")
    short, long = studio.submit(recipe(20), "me"), studio.submit(recipe(200), "me")
    alone, after = studio.expected(short), studio.expected(long)
    assert alone is not None and after is not None and alone > 0
    assert after == pytest.approx(alone * 11), "ten times as many steps, after the other"
    other = studio.submit(recipe(20, size=(128, 64)), "me")
    assert studio.expected(other) is None, "nobody knows yet what that size takes"


# --- the library -----------------------------------------------------------------------------------------------------


def test_what_is_deleted_comes_back_until_it_is_purged(opened: Callable[..., Studio], picture: Path) -> None:
    studio = opened(idle=False)
    first, second = studio.submit_seeds(image_recipe(picture), "me", 2)
    for job in (first, second):
        assert end_of(studio, job).state == "done"
    before = studio.usage("me")[0]
    assert before > 1000
    assert studio.delete([first.id], "you") == 0 and studio.delete([first.id], "me") == 1
    assert ids(studio.library("me")) == [second.id] and ids(studio.library("me", deleted=True)) == [first.id]
    assert studio.purge() == 0, "it stays for a day"
    assert studio.restore([first.id], "me") == 1 and len(studio.library("me")) == 2
    studio.delete([first.id], "me")
    assert studio.purge(before=time.time() + 1) == 1
    assert studio.job(first.id) is None and not Path(first.out).exists()
    assert not Path(first.out).with_suffix(".jpg").exists() and not Path(first.out).with_suffix(".json").exists()
    assert studio.result(studio.job(second.id)) and Path(studio.recipe(second).paths[0]).is_file()  # type: ignore[arg-type]
    studio.delete([second.id], "me")
    studio.purge(before=time.time() + 1)
    assert list(studio.settings.results_dir.iterdir()) == [] and list(studio.settings.runs_dir.iterdir()) == []
    assert studio.usage("me") == (0, None)


def test_purging_what_was_resumed_keeps_the_video_of_its_heir(opened: Callable[..., Studio], picture: Path) -> None:
    studio = opened(idle=False)
    studio.pause("me")
    old = studio.submit(image_recipe(picture), "me")
    studio.cancel(old.id)
    new = studio.resume(old.id, "me")
    assert (new.out, new.source) == (old.out, old.id)
    studio.unpause("me")
    assert end_of(studio, new).state == "done"
    assert studio.purge(before=time.time() + 1) == 1
    assert studio.result(studio.job(new.id)) and Path(studio.recipe(new).paths[0]).is_file()  # type: ignore[arg-type]


def test_a_favourite_is_marked_for_its_owner_only(opened: Callable[..., Studio]) -> None:
    studio = opened(idle=False)
    job = end_of(studio, studio.submit(recipe(), "me"))
    assert not studio.favourite(job.id, "you", True)
    assert studio.favourite(job.id, "me", True)
    assert ids(studio.library("me", favourite=True)) == [job.id]


def test_a_video_without_its_recipe_has_it_beside(opened: Callable[..., Studio]) -> None:
    studio = opened(idle=False)
    job = end_of(studio, studio.submit(recipe(prompt="a hidden word"), "me", embed=False))
    video = studio.result(job)
    assert video is not None and b"hidden" not in video.read_bytes()
    assert json.loads(video.with_suffix(".json").read_text())["prompt"] == "a hidden word"


def test_nobody_reaches_anybody_elses_job(opened: Callable[..., Studio]) -> None:
    studio = opened()
    job = studio.submit(recipe(), "me")
    for call in (studio.retry, studio.resume, studio.duplicate):
        with pytest.raises(UserError, match="no longer there"):
            call(job.id, "you")
    assert studio.queue("you") == [] and studio.recent("you", 9) == []
    assert not studio.cancel(job.id, "you") and studio.job(job.id, "you") is None
    assert os.path.isdir(studio.settings.runs_dir / job.folder)
