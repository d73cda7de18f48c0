"""The studio with the fake model: what it refuses, what it keeps, who sees what."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pusa_app import media, testing
from pusa_app.cli import read_recipe
from pusa_app.errors import MediaError, ModelError, RecipeError
from pusa_app.jobs import Job
from pusa_app.settings import Settings
from pusa_app.studio import Studio, new_recipe
from pusa_app.timeline import Given, Keyframe, Recipe, get_task

PATIENCE = 90.0


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    studio = Studio(Settings(data_dir=tmp_path / "data"))
    yield studio
    studio.close()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "red, or nearly.png"
    Image.new("RGB", (80, 64), (200, 30, 30)).save(path)
    return path


def recipe(**fields: object) -> Recipe:
    return new_recipe(testing.card(), "text-to-video", **{"prompt": "blue", "num_frames": 7, "steps": 2, **fields})  # type: ignore[arg-type]


def image_recipe(picture: Path, **fields: object) -> Recipe:
    card = testing.card()
    blank = card.spec.timeline(7)
    timeline = get_task("image-to-video").timeline(blank, {"image": Given(path=str(picture))})
    return new_recipe(
        card, "image-to-video", **{"keyframes": timeline.keyframes, "num_frames": 7, "steps": 2, **fields}
    )  # type: ignore[arg-type]


def end_of(studio: Studio, job: Job) -> Job:
    deadline = time.monotonic() + PATIENCE
    while not (now := studio.job(job.id)).ended:  # type: ignore[union-attr]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return now  # type: ignore[return-value]


# --- tasks -----------------------------------------------------------------------------------------------------------


def test_a_task_builds_a_timeline_from_what_it_asks_for() -> None:
    blank = testing.card().spec.timeline(13)
    assert get_task("text-to-video").timeline(blank, {}) == blank
    timeline = get_task("image-to-video").timeline(blank, {"image": Given(path="a.png", noise=0.3)})
    assert timeline.noise_multipliers() == (0.3, 1, 1)


def test_a_task_says_what_is_missing_or_too_much() -> None:
    blank = testing.card().spec.timeline(13)
    with pytest.raises(RecipeError, match="needs a picture"):
        get_task("image-to-video").timeline(blank, {})
    with pytest.raises(RecipeError, match="picture in slot 0"):
        get_task("image-to-video").plan(blank)
    with_picture = get_task("image-to-video").timeline(blank, {"image": Given(path="a.png")})
    with pytest.raises(RecipeError, match="words alone"):
        get_task("text-to-video").plan(with_picture)
    with pytest.raises(RecipeError, match="text-to-video"):
        get_task("make-coffee")


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_frames": 67}, "outside what fake does"),
        ({"steps": 201}, "at most 200"),
        ({"size": (72, 64)}, "multiples of 16"),
        ({"size": (512, 512)}, "too large"),
        ({"keyframes": [{"slot": 0, "source": {"kind": "image", "path": "a.png"}}]}, "words alone"),
    ],
)
def test_a_recipe_that_the_model_cannot_do_is_refused(studio: Studio, fields: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        studio.submit(recipe(**fields), "me")
    assert studio.jobs("me") == []
    assert not studio.settings.data_dir.exists(), "a mistake writes nothing"


@pytest.mark.parametrize("fields", [{"num_frames": 8}, {"guidance": float("nan")}, {"seed": -1}, {"steps": 0}])
def test_numbers_that_cannot_be_are_refused_in_one_line(fields: dict[str, object]) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(**fields)
    assert "\n" not in str(caught.value)


def test_an_unknown_model_and_a_folder_as_model_are_refused(studio: Studio, tmp_path: Path) -> None:
    for model in ("nonsense", str(tmp_path)):
        with pytest.raises(ModelError):
            studio.submit(recipe().model_copy(update={"model": model}), "me")


def test_a_picture_that_is_none_is_refused(studio: Studio, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    with pytest.raises(MediaError, match=r"bad\.png"):
        studio.submit(image_recipe(bad), "me")
    with pytest.raises(MediaError, match="does not exist"):
        studio.submit(image_recipe(tmp_path / "gone.png"), "me")


def test_a_full_queue_says_so(tmp_path: Path) -> None:
    studio = Studio(Settings(data_dir=tmp_path, max_queue=0))
    with pytest.raises(RecipeError, match="waiting"):
        studio.submit(recipe(), "me")
    studio.close()


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_a_job_gives_a_video_with_its_recipe_and_a_poster(studio: Studio, picture: Path) -> None:
    job = studio.submit(image_recipe(picture, prompt="a red/../thing: moves!"), "me")
    picture.unlink()  # the upload's cache may be emptied at any time
    done = end_of(studio, job)
    assert done.state == "done", done.message
    video = studio.result(done)
    assert video is not None and video.parent == studio.settings.results_dir
    assert video.name.startswith("a-red-thing-moves-") and video.suffix == ".mp4"
    frames = media.read_frames(video)
    assert frames.shape == (7, 64, 64, 3)
    assert np.abs(frames[0].mean((0, 1)) - (200, 30, 30)).max() < 4, "the first frame is the picture"
    assert str(studio.settings.data_dir) not in media.read_recipe_text(video), "a shared video does not tell"
    assert read_recipe(video).timeline.keyframes[0].source.path == str(
        studio.settings.results_dir / f"../runs/{job.id}/source-0.png"
    )
    assert read_recipe(video).prompt == studio.recipe(done).prompt
    assert studio.poster(done) is not None
    own = Path(studio.recipe(done).timeline.keyframes[0].source.path)
    assert own.parent == studio.settings.runs_dir / job.id and own.is_file()
    assert [type(e).__name__ for e in studio.events(job.id)][-1] == "Done"
    assert studio.preview(job.id) is not None


def test_owners_do_not_see_each_other(studio: Studio) -> None:
    job = studio.submit(recipe(), "me")
    assert studio.job(job.id, "me") and studio.job(job.id, "you") is None
    assert studio.jobs("you") == [] and not studio.cancel(job.id, "you")
    assert studio.cancel(job.id, "me")
    assert end_of(studio, job).state == "cancelled"
    assert studio.result(studio.job(job.id)) is None  # type: ignore[arg-type]


def test_a_waiting_job_knows_how_many_are_before_it(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE_DELAY", "0.5")
    jobs = [studio.submit(recipe(steps=50), "me") for _ in range(3)]
    assert studio.ahead(jobs[2]) == 2
    for job in reversed(jobs):
        studio.cancel(job.id)
    assert [end_of(studio, job).state for job in jobs] == ["cancelled"] * 3


def test_the_secret_stays_and_is_nobody_elses(studio: Studio) -> None:
    secret = studio.secret()
    assert len(secret) == 32 and Studio(studio.settings).secret() == secret
    assert (studio.settings.data_dir / "secret").stat().st_mode & 0o077 == 0


def test_the_data_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PUSA_DATA_DIR", str(tmp_path / "x"))
    assert Settings().data_dir == tmp_path / "x"
    monkeypatch.delenv("PUSA_DATA_DIR")
    assert Path.cwd() not in Settings().data_dir.parents


def test_a_picture_beyond_slot_0_does_not_make_image_to_video() -> None:
    keyframe = Keyframe(slot=1, source={"kind": "image", "path": "a.png"})  # type: ignore[arg-type]
    timeline = testing.card().spec.timeline(13, (keyframe,))
    with pytest.raises(RecipeError, match="slot 0"):
        get_task("image-to-video").plan(timeline)


def test_the_page_never_loads_torch() -> None:
    code = (
        "import sys, pusa_app.ui, pusa_app.studio, pusa_app.cli\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'moviepy', 'sqlite3'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
