"""The Library without a browser: what it lists and tells, and what a dropped recipe may and may not have."""

from __future__ import annotations

import base64
import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from pusa_app import media, testing
from pusa_app.errors import MediaError, ModelError, RecipeError
from pusa_app.jobs import Job
from pusa_app.settings import Settings
from pusa_app.studio import Studio, new_recipe
from pusa_app.timeline import Given, Recipe, get_task, new_sweep
from pusa_app.ui import strings
from pusa_app.ui.dropped import dropped_recipe, named_loras, own_source
from pusa_app.ui.library import Library
from pusa_app.ui.library_items import PAGE, Query, detail, differences, listed, looks, size, took
from pusa_app.ui.player import publish

PATIENCE = 90.0
ME, OTHER = "browser:me", "browser:other"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUSA_TEST_FAKE", "1")
        studio = Studio(Settings(data_dir=tmp_path_factory.mktemp("library") / "data"))
        yield studio
        studio.close()


@pytest.fixture(scope="module")
def made(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """Videos of one owner: of words, of a picture, a sweep; and one of another owner's."""
    picture = tmp_path_factory.mktemp("pictures") / "red.png"
    Image.new("RGB", (80, 64), (200, 30, 30)).save(picture)
    jobs = {
        "words": studio.submit(recipe(prompt="a <b>blue</b> thing", seed=3, negative_prompt="rain"), ME),
        "picture": studio.submit(picture_recipe(picture), ME),
        "sweep": studio.submit_sweep(new_sweep(recipe(prompt="swept"), {"kind": "seed", "values": [1, 2]}), ME),
        "foreign": studio.submit(picture_recipe(picture, prompt="of somebody else"), OTHER),
    }
    deadline = time.monotonic() + PATIENCE
    while not all(studio.job(job.id).ended for job in jobs.values()):  # type: ignore[union-attr]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    found = {name: studio.job(job.id) for name, job in jobs.items()}
    assert {job.state for job in found.values()} == {"done"}, found  # type: ignore[union-attr]
    return found  # type: ignore[return-value]


def recipe(**fields: Any) -> Recipe:
    return new_recipe(testing.card(), "text-to-video", **{"prompt": "blue", "num_frames": 7, "steps": 2, **fields})


def picture_recipe(picture: Path, **fields: Any) -> Recipe:
    card = testing.card()
    timeline = get_task("image-to-video").timeline(card.spec.timeline(7), {"image": Given(path=str(picture))})
    given = {"keyframes": timeline.keyframes, "num_frames": 7, "steps": 2, "prompt": "moves", "seed": 44, **fields}
    return new_recipe(card, "image-to-video", **given)


def with_recipe(path: Path, text: str | None) -> Path:
    """A small video with a text inside where a recipe would be."""
    with media.ClipWriter(path, 64, 64, 12, recipe_text=text) as writer:
        writer.write(np.full((7, 64, 64, 3), 90, np.uint8))
    return path


def naming(studio: Studio, source: str, **fields: Any) -> str:
    """A recipe with one picture, under whatever name its maker chose."""
    data = json.loads(picture_recipe(Path("x.png")).to_json()) | fields
    data["timeline"]["keyframes"][0]["source"]["path"] = source
    return json.dumps(data)


def titles(studio: Studio, owner: str = ME, **asked: Any) -> list[str]:
    return [item["title"] for item in listed(studio, owner, Query.of(asked))["items"]]


# --- the list --------------------------------------------------------------------------------------------------------


def test_what_the_page_sends_is_taken_as_far_as_it_makes_sense() -> None:
    assert Query.of(None) == Query.of([]) == Query.of({"text": 5, "limit": "9", "newest": 0, "asked": None}) == Query()
    asked = Query.of({"text": "x" * 500, "limit": 10**9, "favourite": True, "asked": 7, "other": 1})
    assert (len(asked.text), asked.limit, asked.favourite, asked.asked) == (200, 5000, True, 7)
    assert Query.of({"limit": -4}).limit == 1
    assert Query.of({"asked": True}).asked == 0, "a truth is no number"


def test_every_owner_sees_his_own(studio: Studio, made: dict[str, Job]) -> None:
    assert titles(studio) == ["swept", "moves", "a <b>blue</b> thing"]
    assert titles(studio, newest=False)[0] == "a <b>blue</b> thing"
    assert titles(studio, OTHER) == ["of somebody else"]
    assert titles(studio, "browser:nobody") == []
    assert looks(studio, OTHER, [made["words"].id], [made["words"].id]) == {
        "posters": {made["words"].id: None},
        "clips": {made["words"].id: None},
    }


def test_search_and_filters(studio: Studio, made: dict[str, Job]) -> None:
    assert titles(studio, text="BLUE thing") == ["a <b>blue</b> thing"]
    assert titles(studio, text="44") == ["moves"], "seeds are found"
    assert titles(studio, text="nothing of the kind") == []
    assert titles(studio, task="image-to-video") == ["moves"]
    assert titles(studio, model="mini") == []
    assert titles(studio, limit=2) == ["swept", "moves"]
    assert listed(studio, ME, Query(limit=2, asked=9))["more"] and listed(studio, ME, Query(asked=9))["asked"] == 9
    assert not listed(studio, ME, Query(limit=3))["more"] and PAGE == 60
    answer = listed(studio, ME, Query())
    assert answer["usage"].startswith("3 videos, ") and not answer["going"]
    assert listed(studio, ME, Query(count=False))["usage"] is None
    assert "picture" not in str(answer["items"][0].keys()), "pictures come when they are in view"
    assert [item["cells"] for item in answer["items"]] == [2, 0, 0]


def test_pictures_are_small_and_whole(studio: Studio, made: dict[str, Job]) -> None:
    names = [made[name].id for name in ("words", "sweep")]
    found = looks(studio, ME, [*names, "0" * 24], names[:1])
    assert found["posters"]["0" * 24] is None
    for name in names:
        assert found["posters"][name].startswith("data:image/jpeg;base64,") and len(found["posters"][name]) < 40_000
    assert found["clips"][names[0]].startswith("gradio_api/file=/")


def test_large_posters_become_small_and_broken_ones_nothing(studio: Studio, made: dict[str, Job]) -> None:
    path = Path(made["picture"].out).with_suffix(".jpg")
    kept = path.read_bytes()
    try:
        noise = np.random.default_rng(0).integers(0, 255, (480, 848, 3)).astype(np.uint8)
        Image.fromarray(noise).save(path, quality=95)
        found = looks(studio, ME, [made["picture"].id], [])["posters"][made["picture"].id]
        small = Image.open(io.BytesIO(base64.b64decode(found.partition(",")[2])))
        assert small.size == (320, 181)
        path.write_bytes(b"\xff\xd8 broken" * 4000)
        assert looks(studio, ME, [made["picture"].id], [])["posters"][made["picture"].id] is None
    finally:
        path.write_bytes(kept)


@pytest.mark.parametrize(
    ("amount", "words"),
    [(0, "0 kB"), (10, "1 kB"), (340_000, "340 kB"), (1_240_000, "1.2 MB"), (34_000_000, "34 MB"), (2.5e9, "2.5 GB")],
)
def test_bytes_are_told_as_people_read_them(amount: float, words: str) -> None:
    assert size(amount) == words


def test_time_is_told_as_people_read_it() -> None:
    job = Job(owner=ME, recipe="", out="")
    assert took(job) == ""
    assert took(SimpleNamespace(started=5.0, finished=12.34)) == "7.3 s"  # type: ignore[arg-type]
    assert took(SimpleNamespace(started=0.0, finished=3725.0)) == "1:02:05"  # type: ignore[arg-type]


# --- one and two -----------------------------------------------------------------------------------------------------


def test_everything_is_told_of_a_video(studio: Studio, made: dict[str, Job]) -> None:
    told = detail(studio, made["words"])
    facts = dict(told["facts"])
    assert facts["Prompt"] == "a <b>blue</b> thing" and facts["Negative prompt"] == "rain"
    assert (facts["Size"], facts["Steps"], facts["Seed"]) == ("64 x 64", "2", "3")
    assert facts["Frames"].startswith("7 at 12 a second") and facts["File"].endswith(".mp4")
    assert facts["Schedule"] == strings.OWN_SCHEDULE and "Keyframes" not in facts
    assert told["one"] and told["chips"] == [] and told["url"].startswith("gradio_api/file=/")
    assert str(studio.settings.data_dir) not in told["url"], "what is served is a copy"
    pictured = detail(studio, made["picture"])
    assert dict(pictured["facts"])["Keyframes"] == "slot 0: noise 0"
    assert str(studio.settings.data_dir) not in pictured["recipe"], "a recipe does not tell where it was made"
    assert Recipe.from_json(pictured["recipe"]).paths[0].startswith(f"..{os.sep}runs{os.sep}")


def test_a_sweep_is_one_entry_with_cells(studio: Studio, made: dict[str, Job]) -> None:
    grid = detail(studio, made["sweep"])
    assert not grid["one"] and [chip["label"] for chip in grid["chips"]] == ["seed 1", "seed 2"]
    assert dict(grid["facts"])["Sweep"] == "seed 1, seed 2"
    assert "Seed" not in dict(grid["facts"]), "it has none that is its own"
    cell = detail(studio, made["sweep"], 1)
    assert cell["one"] and dict(cell["facts"])["Seed"] == "2" and cell["url"] != grid["url"]


def test_what_differs_between_two(studio: Studio, made: dict[str, Job]) -> None:
    one, other = detail(studio, made["words"]), detail(studio, made["picture"])
    rows = {name: (first, second) for name, first, second in differences(one, other)}
    assert rows["Task"] == ("Text to video", "Image to video") and rows["Seed"] == ("3", "44")
    assert rows["Keyframes"] == ("", "slot 0: noise 0") and rows["Negative prompt"] == ("rain", "")
    assert not {"Steps", "Size", "File", "Took"} & set(rows)
    assert differences(one, one) == []


# --- events ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def library(studio: Studio) -> Library:
    return Library(studio)


def asked(library: Library, answer: Any, *, owner: str = "account:me", **sent: Any) -> dict[str, Any]:
    """The answer to an event of the page, from whoever is logged in."""
    request = SimpleNamespace(username=owner.partition(":")[2], session_hash="s")
    return library._answering(answer)("", request, gr.EventData(None, sent))  # type: ignore[arg-type]


def test_what_is_not_his_is_told_and_left_alone(studio: Studio, made: dict[str, Job], library: Library) -> None:
    theirs = made["words"].id
    for answer, sent in (
        (library._show, {"id": theirs}),
        (library._show, {"id": {"path": "/etc/passwd"}}),
        (library._compare, {"ids": [theirs, theirs]}),
        (library._export, {"id": theirs, "kind": "mp4", "quality": "high"}),
    ):
        assert asked(library, answer, **sent)["told"]["text"] == strings.GONE
    assert asked(library, library._compare, ids=[1, 2, "x"])["told"]["text"] == strings.LIBRARY["compare_help"]
    asked(library, library._star, ids=[theirs], on=True)
    asked(library, library._remove, ids=[theirs])
    job = studio.job(theirs)
    assert job is not None and not job.favourite and job.deleted is None


def test_a_cell_that_is_none_is_refused(studio: Studio, made: dict[str, Job]) -> None:
    library = Library(studio)
    for cell in (2, -2, True, "0", 1.0, None):
        with pytest.raises(gr.Error):
            library._chosen(ME, {"id": made["sweep"].id, "cell": cell})
    assert library._chosen(ME, {"id": made["sweep"].id, "cell": 1})[1] == 1


def test_stars_and_the_bin(studio: Studio, made: dict[str, Job], library: Library) -> None:
    name = made["picture"].id
    starred = library._star(ME, {"ids": [name], "on": True, "query": {"favourite": True}})
    assert [item["id"] for item in starred["value"]["items"]] == [name]
    left = library._remove(ME, {"ids": [name], "query": {"asked": 5}})["value"]
    assert name not in [item["id"] for item in left["items"]] and left["asked"] == 5
    assert titles(studio, deleted=True) == ["moves"]
    library._restore(ME, {"ids": [name]})
    assert titles(studio, favourite=True) == ["moves"] and titles(studio, deleted=True) == []
    library._star(ME, {"ids": [name], "on": False})


# --- dropped ---------------------------------------------------------------------------------------------------------


def test_a_dropped_video_finds_its_own_files_again(studio: Studio, made: dict[str, Job]) -> None:
    video = Path(publish(studio.result(made["picture"])))  # type: ignore[arg-type]
    found, notice = dropped_recipe(video, studio, ME)
    assert (found.prompt, found.seed, found.task, notice) == ("moves", 44, "image-to-video", "")
    assert found.paths == studio.recipe(made["picture"]).paths and Path(found.paths[0]).is_file()
    stranger, notice = dropped_recipe(video, studio, OTHER)
    assert stranger.paths == [] and notice == strings.DROP_LOST_ONE.format(slots=0)
    assert stranger.prompt == "moves", "the rest of the form is filled"


def test_a_dropped_sweep_and_its_cells_and_sidecars(studio: Studio, made: dict[str, Job], tmp_path: Path) -> None:
    swept, notice = dropped_recipe(studio.result(made["sweep"]), studio, ME)  # type: ignore[arg-type]
    assert swept.prompt == "swept" and notice == strings.DROP_SWEEP
    cell, notice = dropped_recipe(studio.cells(made["sweep"])[1].path, studio, ME)  # type: ignore[arg-type]
    assert cell.seed == 2 and notice == ""
    sidecar = Path(made["picture"].out).with_suffix(".json")
    assert dropped_recipe(sidecar, studio, ME)[0].paths == studio.recipe(made["picture"]).paths


def test_what_holds_no_recipe_is_told_in_one_sentence(studio: Studio, tmp_path: Path) -> None:
    for name, words in (("a.mp4", "no recipe inside"), ("b.png", "not a video"), ("c.mp4", "not a video")):
        path = tmp_path / name
        if name == "a.mp4":
            with_recipe(path, None)
        elif name == "b.png":
            Image.new("RGB", (64, 64)).save(path)
        else:
            path.write_text("this is no video")
        with pytest.raises(MediaError, match=words) as caught:
            dropped_recipe(path, studio, ME)
        assert "\n" not in str(caught.value) and str(caught.value).startswith(name)
    path = tmp_path / "d.json"
    for text in ("", "[]", "{", '{"kind": "sweep"}', "\x00" * 50, "[" * 100_000):
        path.write_text(text)
        with pytest.raises(RecipeError) as failed:
            dropped_recipe(path, studio, ME)
        assert "\n" not in str(failed.value) and len(str(failed.value)) < 400


HOSTILE = (
    "/etc/passwd",
    "../../../../../../../../etc/passwd",
    "../secret",
    "../queue.db",
    "../runs/../secret",
    "../runs/{theirs}/source-0.png",
    "../../runs/{theirs}/source-0.png",
    "../runs/{mine}/../{theirs}/source-0.png",
    "../runs/{mine}/recipe.json",
    "..\\runs\\{theirs}\\source-0.png",
    "runs/{mine}/source-0.png",
    "file:///etc/passwd",
    "http://127.0.0.1:9/x.png",
    "../runs/{mine}/source-0.png\x00",
    "{upload}",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_recipe_gets_no_file(studio: Studio, made: dict[str, Job], tmp_path: Path, name: str) -> None:
    upload = tmp_path / "upload.png"
    Image.new("RGB", (64, 64)).save(upload)
    path = name.format(theirs=made["foreign"].folder, mine=made["picture"].folder, upload=publish(upload))
    assert own_source(path, studio, ME) is None
    video = with_recipe(tmp_path / "evil.mp4", naming(studio, path))
    found, notice = dropped_recipe(video, studio, ME)
    assert found.paths == [] and notice == strings.DROP_LOST_ONE.format(slots=0)


def test_a_link_in_the_place_of_a_source_is_not_followed(studio: Studio, made: dict[str, Job], tmp_path: Path) -> None:
    source = Path(studio.recipe(made["picture"]).paths[0])
    name = f"../runs/{made['picture'].folder}/{source.name}"
    assert own_source(name, studio, ME) == source
    assert own_source(name.replace("/", "\\"), studio, ME) == source, "made on Windows"
    aside = source.rename(tmp_path / "aside.png")
    try:
        source.symlink_to("/etc/hostname")
        assert own_source(name, studio, ME) is None
    finally:
        source.unlink()
        aside.rename(source)


def test_hostile_fields_are_refused(studio: Studio, made: dict[str, Job], tmp_path: Path) -> None:
    path = tmp_path / "evil.json"
    for model in ("/etc", "../../etc", "nobody/nothing"):
        path.write_text(naming(studio, "x.png", model=model))
        with pytest.raises(ModelError, match="not on this machine"):
            dropped_recipe(path, studio, ME)
    for fields in ({"steps": 10_000}, {"task": "eval"}, {"more": 1}, {"guidance": -1}):
        path.write_text(naming(studio, "x.png", **fields))
        with pytest.raises(RecipeError):
            dropped_recipe(path, studio, ME)
    loras = [{"path": path} for path in ("/etc/passwd", "../../up", "..", "/", ".", "a\\b", "C:\\x")]
    named = named_loras(Recipe.from_json(naming(studio, "x.png", loras=loras)))
    assert [lora.path for lora in named.loras] == ["passwd", "up", "b", "x"], "names, and nothing that leads elsewhere"
    data = json.loads(naming(studio, "x.png"))
    data["timeline"]["keyframes"][0]["source"] = {"kind": "part", "part": 0, "start": 0, "still": True}
    path.write_text(json.dumps(data))
    assert dropped_recipe(path, studio, ME)[0].timeline.keyframes == ()


# --- saved as --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [True, False])
@pytest.mark.parametrize("cell", [None, 1])
@pytest.mark.parametrize(("kind", "quality"), [("mp4", "original"), ("mp4", "small"), ("webm", "original")])
def test_saved_with_and_without_its_recipe(
    studio: Studio, made: dict[str, Job], library: Library, kind: str, quality: str, cell: int | None, recipe: bool
) -> None:
    job = made["picture" if cell is None else "sweep"]
    sent = {"id": job.id, "kind": kind, "quality": quality, "recipe": recipe} | ({} if cell is None else {"cell": cell})
    file = library._export(ME, sent)["file"]
    path = Path(file["url"].removeprefix("gradio_api/file="))
    assert path.suffix == f".{kind}" and file["name"] == path.name
    assert media.check_clip(path).num_frames == 7
    if recipe:
        inside = Recipe.from_json(media.read_recipe_text(path))
        assert inside.seed == (44 if cell is None else 2)
        assert not any(Path(source).is_absolute() for source in inside.paths)
    else:
        with pytest.raises(MediaError, match="no recipe"):
            media.read_recipe_text(path)
        assert b"prompt" not in path.read_bytes()


@pytest.mark.parametrize(("kind", "begins"), [("gif", b"GIF89a"), ("frames", b"PK")])
def test_gifs_and_frames(studio: Studio, made: dict[str, Job], library: Library, kind: str, begins: bytes) -> None:
    file = library._export(ME, {"id": made["words"].id, "kind": kind, "quality": "original", "recipe": False})["file"]
    data = Path(file["url"].removeprefix("gradio_api/file=")).read_bytes()
    assert data.startswith(begins) and b"a <b>blue" not in data


def test_saving_as_what_there_is_not(studio: Studio, made: dict[str, Job], library: Library) -> None:
    for kind, quality in (("exe", "high"), (None, "high"), ("mp4", "../x"), ("mp4", 1), (["mp4"], "high")):
        with pytest.raises(gr.Error):
            library._export(ME, {"id": made["words"].id, "kind": kind, "quality": quality})
