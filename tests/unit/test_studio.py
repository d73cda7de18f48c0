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
from pusa_app.studio import Studio, given_clip, new_recipe, secret_of
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


def recipe_of(task: str, **fields: object) -> Recipe:
    return new_recipe(testing.card(), task, **{"prompt": "blue", "steps": 2, **fields})  # type: ignore[arg-type]


def write_clip(path: Path, num_frames: int) -> Path:
    levels = np.linspace(40, 200, num_frames).astype(np.uint8)
    with media.ClipWriter(path, 80, 64, 12, quality=0) as clip:
        clip.write(np.broadcast_to(levels[:, None, None, None], (num_frames, 64, 80, 3)))
    return path


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
    assert not studio.settings.runs_dir.exists(), "a mistake writes nothing"


@pytest.mark.parametrize("fields", [{"num_frames": 8}, {"guidance": float("nan")}, {"seed": -1}, {"steps": 0}])
def test_numbers_that_cannot_be_are_refused_in_one_line(fields: dict[str, object]) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(**fields)
    assert "\n" not in str(caught.value)


def at(slot: int, path: str = "red.png", **fields: object) -> dict[str, object]:
    kind = "image" if path.endswith(".png") else "clip"
    start = {"start": fields.pop("start", 0)} if kind == "clip" else {}
    return {"slot": slot, "source": {"kind": kind, "path": path, **start}, **fields}


@pytest.mark.parametrize(
    ("task", "keyframes", "options", "words"),
    [
        ("keyframes", [at(0, "empty.mp4")], {}, "empty"),
        ("keyframes", [at(0, "text.mp4")], {}, "not a clip"),
        ("keyframes", [at(0, "picture.mp4")], {}, "not a clip"),
        ("keyframes", [at(0, "gone.mp4")], {}, "does not exist"),
        ("keyframes", [at(0, "text.png")], {}, "not a picture"),
        ("keyframes", [at(0, "a.mp4", span=4, start=25)], {}, "40 frames .* 44 are needed"),
        ("keyframes", [at(0, "a.mp4", start=10_000_000)], {}, "are needed"),
        ("keyframes", [at(7)], {}, "reaches slot 7"),
        ("keyframes", [at(5, "a.mp4", span=3)], {}, "reaches slot 7"),
        ("keyframes", [at(3), at(3)], {}, "both in slot 3"),
        ("keyframes", [at(0, "a.mp4", span=3), at(2)], {}, "both in slot 2"),
        ("keyframes", [at(0, noise=float("nan"))], {}, "noise"),
        ("keyframes", [at(0, "a.mp4", span=2, noise=[0.1, float("inf")])], {}, "noise"),
        ("keyframes", [at(0, noise=-0.1)], {}, "noise"),
        ("keyframes", [], {}, "no keyframe"),
        ("keyframes", [{"slot": 0, "source": {"kind": "part", "part": 0}}], {}, "another part"),
        ("complete", [at(0, "a.mp4", span=3, start=17)], {"gap": (30, 45)}, "40 frames, but the gap ends at frame 45"),
        ("complete", [at(0, "a.mp4", span=3)], {"gap": (60, 70)}, "not on the timeline"),
        ("complete", [at(0, "a.mp4", span=3)], {"gap": (20, 20)}, "holds no frame"),
        ("complete", [at(0, "a.mp4", span=3)], {}, "which frames"),
        ("loop", [at(0, "a.mp4", span=2, start=20), at(5, "b.mp4", span=2)], {}, "same clip"),
        ("extend", [at(0, "a.mp4", span=2)], {"frames": 0}, "greater than or equal to 1"),
        ("extend", [at(0, "a.mp4", span=2)], {"frames": 10**9}, "less than or equal"),
        ("extend", [at(0, "a.mp4", span=2)], {"frames": 100_000}, "ask for fewer"),
        ("extend", [], {}, "clip at the start"),
        ("restyle", [at(0, "a.mp4", span=7, noise=0.5)], {"frames": 80}, "40 frames"),
        ("transition", [at(0, "a.mp4", span=2), at(5, "short.mp4", span=2)], {}, "short.mp4 has 8 frames"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_written(
    studio: Studio,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    keyframes: list[dict[str, object]],
    options: dict[str, object],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (80, 64), (200, 30, 30)).save("red.png")
    Path("picture.mp4").write_bytes(Path("red.png").read_bytes())
    Path("empty.mp4").touch()
    for name in ("text.mp4", "text.png"):
        Path(name).write_text("neither")
    for name, count in (("a.mp4", 40), ("b.mp4", 40), ("short.mp4", 8)):
        if any(name in str(k) for k in keyframes):
            write_clip(Path(name), count)
    with pytest.raises((RecipeError, MediaError), match=words) as caught:
        studio.submit(recipe_of(task, keyframes=keyframes, options=options), "me")
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    assert studio.jobs("me") == [] and not studio.settings.runs_dir.exists()


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


def test_an_extension_keeps_the_clip_whose_upload_is_gone(studio: Studio, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "mine.mp4", 40)
    whole = media.load_clip(clip, 64, 64, fps=12, num_frames=40).astype(int)
    timeline = get_task("extend").timeline(testing.card().spec.timeline(), {"clip": given_clip(clip, 12)})
    options = {"frames": 30, "direction": "both"}
    job = studio.submit(recipe_of("extend", keyframes=timeline.keyframes, options=options, seed=3), "me")
    clip.unlink()
    done = end_of(studio, job)
    assert done.state == "done", done.message
    video = studio.result(done)
    assert video is not None and studio.poster(done) is not None
    frames = media.load_clip(video, 64, 64, fps=12, num_frames=100)
    assert media.check_clip(video).num_frames == 100
    assert np.abs(frames[30:70] - whole).mean() < 2, "the clip, but for the codec"
    assert str(tmp_path) not in media.read_recipe_text(video)
    (last,) = [e for e in studio.events(job.id) if type(e).__name__ == "Done"]
    assert last.num_frames == 100  # type: ignore[union-attr]
    beside = {video.with_suffix(ending).name for ending in (".mp4", ".jpg", ".json")}
    assert {p.name for p in studio.settings.results_dir.iterdir()} == beside


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
    assert len(secret) == 32 and secret_of(studio.settings) == secret
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
        "heavy = {'torch', 'diffusers', 'transformers', 'moviepy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_long_queue_is_told_without_asking_for_each_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page asks every second how long everything takes, so the work must not grow with the square of the queue."""
    from pusa_app.ui.queue import line_value, queue_value

    studio = Studio(Settings(data_dir=tmp_path / "data"), idle=True)
    asked: list[str] = []
    real = studio._store.jobs, studio._store.pace
    monkeypatch.setattr(studio._store, "jobs", lambda *a, **k: asked.append("jobs") or real[0](*a, **k))
    monkeypatch.setattr(studio._store, "pace", lambda kind: asked.append("pace") or 0.5)
    counts = []
    for length in (3, 40):
        while len(studio.queue("ann")) < length:
            studio.submit(recipe(), "ann")
        asked.clear()
        rows = queue_value(studio, "ann")["jobs"]
        line = line_value(studio, "ann")
        counts.append(len(asked))
        assert len(rows) == length
    assert counts[0] == counts[1]
    # Two steps of half a second each, one job after the other.
    waiting = studio.queue("ann")
    assert [studio.expected(job) for job in waiting] == [1.0 + number for number in range(40)]
    assert [studio.expectations()[job.id] for job in waiting] == [studio.expected(job) for job in waiting]
    assert "0:40" in " ".join(line["facts"])
    studio.close()
