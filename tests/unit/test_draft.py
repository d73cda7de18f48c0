"""What a browser brings after a reload: anything, of which the form takes what can be."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio.utils import get_upload_folder
from PIL import Image

from pusa_app import testing
from pusa_app.settings import Settings
from pusa_app.ui import strings
from pusa_app.ui.choices import NAMES, Basis
from pusa_app.ui.draft import BESIDE, MAX_CHARS, Draft, Drafts, choices_in, draft_in
from pusa_app.ui.form import Form
from pusa_app.ui.lasting import lasting, own_cache
from pusa_app.ui.sweeps import MAX_TEXT, SweepFields
from pusa_app.ui.timeline_editor.value import MAX_KEYFRAMES
from pusa_app.ui.uploads import Picture

GRID = {"num_frames": 37, "temporal_stride": 6, "fps": 12}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def upload(cache: Path) -> str:
    (cache / "abc").mkdir(parents=True)
    return paint(cache / "abc" / "red.png")


def paint(path: Path) -> str:
    Image.new("RGB", (64, 64), (200, 30, 30)).save(path)
    return str(path)


def keyframe(path: str, slot: int = 0, **more: Any) -> dict[str, Any]:
    return {"id": f"k{slot}", "slot": slot, "noise": [0.35], "kind": "image", "file": {"path": path}, **more}


def timeline(*keyframes: dict[str, Any]) -> dict[str, Any]:
    return {"grid": GRID, "width": 64, "height": 64, "keyframes": list(keyframes)}


def draft(**fields: Any) -> Draft:
    found = draft_in(json.dumps({"model": testing.FAKE, **fields}))
    assert found is not None
    return found


def held(**fields: Any) -> tuple[Any, str]:
    return choices_in(draft(**fields), 200, may=False)


def test_every_field_of_the_form_is_in_a_draft() -> None:
    assert set(Draft.model_fields) == {*NAMES, *BESIDE}
    styles = [value for _, value in strings.STYLES], [value for _, value in strings.RESULTS]
    for name, values in (("style", styles[0]), ("result", styles[1]), ("schedule", list(strings.SCHEDULES))):
        assert [getattr(draft(**{name: value}), name) for value in values] == values
    assert [draft(direction=value).direction for _, value in strings.DIRECTIONS] == ["forwards", "backwards", "both"]


def test_what_the_form_held_comes_back(upload: str) -> None:
    fields = {
        "task": "image-to-video",
        "prompt": "a <b>ball</b>",
        "image": {"path": upload},
        "timeline": timeline(keyframe(upload), keyframe(upload, 3, noise=[0.6], fit="pad")),
        "frames": 37,
        "seed": 77,
        "negative": "dark",
        "steps": 5,
        "guidance": 4.5,
        "color_match": True,
        "schedule": "shift",
        "schedule_value": 7,
        "size": "64x64",
    }
    choices, told = held(**fields)
    assert not told
    for name in set(fields) - {"image", "timeline"}:
        assert getattr(choices, name) == fields[name], name
    assert Path(choices.image).name == "red.png" and Path(choices.image).is_file()
    assert [(k.slot, k.noise, k.fit) for k in choices.timeline.keyframes] == [(0, 0.35, "crop"), (3, 0.6, "pad")]
    assert choices.recipe().seed == 77, "and can be run"


@pytest.mark.parametrize(
    "text",
    [None, 7, b"{}", "", "{", "[]", "null", '"x"', "[" * 100_000, '{"prompt": "' + "x" * MAX_CHARS + '"}'],
    ids=["none", "number", "bytes", "empty", "half", "list", "null", "text", "deep", "huge"],
)
def test_what_is_no_draft_is_none(text: Any) -> None:
    assert draft_in(text) is None


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("task", ["forged", 7, None, ["text-to-video"], {}]),
        ("prompt", ["x" * 2001, 7, {"a": 1}]),
        ("negative", ["x" * 2001, None]),
        ("style", ["forged", None]),
        ("direction", ["up"]),
        ("result", ["${1}"]),
        ("more", [0, -1, 1e99, "many", True and [1]]),
        ("gap_first", [-1, 10**12, 0.5]),
        ("closing", [-0.1, 1.1, "x"]),
        ("timeline", [7, {}, {"grid": GRID}, {**timeline(), "width": 1 << 40}]),
        ("frames", [0, 10**9, "x"]),
        ("seed", [-1, 2**53, 0.5, "x"]),
        ("steps", [0, 10**9, [3]]),
        ("guidance", [0, 16, "x"]),
        ("cache", [-1, 2]),
        ("guided_high", [-1, 2, "x"]),
        ("guidance_2", [-1, 99]),
        ("schedule", ["forged", None]),
        ("schedule_value", [-1, 1e9]),
        ("size", ["9" * 41, 64]),
        ("random", ["perhaps", None, 7]),
        ("count", [0, 17, None, "x"]),
        ("embed", [{}]),
        ("loras", [7, [1], "x"]),
        ("sweep_kind_1", ["", "forged", None, ["seed"]]),
        ("sweep_kind_2", ["forged", None, {}]),
        ("sweep_keyframe_1", [0, -1, 1e99, 0.5, "x", MAX_KEYFRAMES + 1]),
        ("sweep_values_1", ["1" * (MAX_TEXT + 1), None, 7]),
        ("sweep_values_2", ["1" * (MAX_TEXT + 1), [1]]),
        ("image", ["/etc/passwd", 7, {"path": ""}, {"path": "x" * 5000}]),
    ],
)
def test_a_field_that_cannot_be_is_the_usual_one_and_takes_no_other_with_it(name: str, values: list[Any]) -> None:
    for value in values:
        found = draft(**{name: value, "schedule_value" if name == "seed" else "seed": 7})
        assert getattr(found, name) == Draft.model_fields[name].get_default(), value
        assert (found.schedule_value if name == "seed" else found.seed) == 7


def test_without_a_sweep_its_fields_are_as_at_first() -> None:
    with gr.Blocks():
        inputs = SweepFields().inputs
    held = [value for axis in draft().sweep for value in dataclasses.astuple(axis)]
    assert held == [part.value for part in inputs]


def test_numbers_that_are_none_are_refused() -> None:
    found = draft_in('{"seed": 7, "guidance": NaN, "closing": Infinity, "guided_low": -Infinity, "frames": 1e400}')
    assert found is not None and found.seed == 7
    assert (found.guidance, found.closing, found.guided_low, found.frames) == (None, 0.0, 0.0, None)


def test_numbers_are_within_what_the_program_allows() -> None:
    choices, _ = choices_in(draft(steps=150, frames=38, size="1x1"), 20, may=False)
    assert (choices.steps, choices.frames, choices.size) == (20, 37, "64x64")


def test_only_uploads_are_opened(upload: str, cache: Path, tmp_path: Path) -> None:
    outside = paint(tmp_path / "mine.png")
    traversing = f"{cache}/abc/../../mine.png"
    (cache / "link.png").symlink_to(outside)
    for path in (outside, traversing, "/etc/passwd", str(cache / "link.png"), f"{upload}\0", str(cache), "red.png"):
        choices, told = held(
            task="image-to-video", image={"path": path}, timeline=timeline(keyframe(path), keyframe(upload, 2))
        )
        assert choices.image is None and "no longer here" in told, path
        assert [k.slot for k in choices.timeline.keyframes] == [2], "the other keyframe stays"


def test_files_that_are_gone_or_broken_are_named_once(cache: Path, upload: str) -> None:
    gone = str(cache / "abc" / "gone.png")
    choices, told = held(task="image-to-video", image={"path": gone}, timeline=timeline(keyframe(gone)))
    assert told == strings.DRAFT_GONE_ONE.format(names="gone.png") and choices.image is None
    assert not choices.timeline.keyframes
    (cache / "abc" / "words.png").write_text("no picture")
    broken = str(cache / "abc" / "words.png")
    _, told = held(task="start-end", image={"path": broken}, end={"path": gone})
    assert told == strings.DRAFT_GONE.format(names="words.png, gone.png")
    many = [keyframe(f"{cache}/{n}.png", n, name="x" * 200) for n in range(7)]
    _, told = held(timeline=timeline(*many))
    assert len(told) < 400


def test_a_timeline_that_cannot_be_is_an_empty_one(upload: str) -> None:
    for keyframes in (
        [keyframe(upload, noise=[0.1, 0.2])],
        [keyframe(upload, noise=[2])],
        [keyframe(upload, kind="part")],
        [keyframe(upload, focus=[0.5])],
        [keyframe(upload)] * (MAX_KEYFRAMES + 1),
    ):
        choices, _ = held(task="keyframes", seed=7, timeline=timeline(*keyframes))
        assert choices.timeline == choices.blank() and choices.seed == 7


def test_another_model_than_those_here_is_not_asked_for(upload: str) -> None:
    choices, told = held(
        model="../../etc", task="keyframes", steps=99, guidance=9, timeline=timeline(keyframe(upload)), prompt="a ball"
    )
    spec = choices.card.spec
    assert (choices.model, choices.steps, choices.guidance) == (testing.FAKE, spec.steps, spec.guidance)
    assert choices.prompt == "a ball" and len(choices.timeline.keyframes) == 1 and not told


def test_loras_are_those_that_may_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pusa_app.ui.draft.known_loras", lambda card: [SimpleNamespace(name="bright")])
    (tmp_path / "secret.safetensors").write_bytes(b"no LoRA")
    names = ["bright", "unknown", str(tmp_path / "secret.safetensors"), "/nowhere"]
    chosen = [{"name": name, "strength": 0.5, "expert": None} for name in names]
    for may in (False, True):
        choices, _ = choices_in(draft(loras={"model": testing.FAKE, "chosen": chosen}), 200, may)
        assert [(one.path, one.strength) for one in choices.loras] == [("bright", 0.5)]
    for loras in ({"model": "mini", "chosen": chosen}, {"model": testing.FAKE, "chosen": [{"name": 7}]}):
        assert held(loras=loras)[0].loras == ()


def test_the_form_is_filled_and_follows_from_what_it_holds(upload: str) -> None:
    with gr.Blocks():
        form = Form(SimpleNamespace(settings=Settings()))  # type: ignore[arg-type]
        form.build_tabs()
        form.build()
        form.build_timeline()
        drafts = Drafts(form, Settings())
    assert len(set(drafts.outputs)) == len(drafts.outputs), "of two answers for one field the last would be unsure"
    fields = {"image": {"path": upload}, "timeline": timeline(keyframe(upload)), "prompt": "a ball", "random": False}
    fields |= {"sweep_kind_1": "noise", "sweep_keyframe_1": 2, "sweep_values_1": "0, 0.5"}
    fields |= {"sweep_kind_2": "steps", "sweep_values_2": "5"}
    wanted = draft(task="image-to-video", count=3, embed=False, more=5, gap_first=2, **fields)
    updates = dict(zip(drafts.outputs, drafts.restored(wanted, may=False), strict=True))
    assert updates[form.prompt] == gr.skip(), "the visitor may be writing"
    assert updates[form.task] == "image-to-video" and updates[form.random] is False
    assert (updates[form.count], updates[form.embed]) == (3, False)
    kind, number, values, *second = (updates[part] for part in form.sweep.inputs)
    assert kind == "noise" and (values["value"], values["placeholder"]) == ("0, 0.5", strings.SWEEP_EXAMPLES["noise"])
    assert number["value"] == 2 and number["visible"], "the number of the keyframe is seen"
    assert [second[0], second[1]["visible"], second[2]["value"]] == ["steps", False, "5"]
    assert updates[form.more]["value"] == 5 and not updates[form.more]["visible"]
    assert updates[form.gap_first]["value"] == 2
    assert updates[form.timeline]["value"].keyframes[0].noise == 0.35
    followed = updates[form.followed]
    # What the page then sends has the same basis: the timeline is not made anew.
    shown = Path(updates[form.fields["image"].file]["value"])
    assert isinstance(followed, Basis) and followed.sources[:2] == ("image-to-video", shown.parts[-2:])


@pytest.fixture
def settings(cache: Path, tmp_path: Path) -> Settings:
    """Of a program that has begun: with a cache of its own."""
    own = Settings(data_dir=tmp_path / "data", cache_seconds=3600)
    own_cache(own)
    return own


def stored(name: str) -> str:
    """A file as Gradio stores it in the program's cache."""
    folder = Path(get_upload_folder()) / "abc"
    folder.mkdir(parents=True, exist_ok=True)
    return paint(folder / name)


def test_uploads_outlive_the_program_for_as_long_as_they_would_have_stayed(settings: Settings, upload: str) -> None:
    with gr.Blocks() as page:
        picture = Picture()
        shown = gr.Image()

    async def live() -> tuple[str, str]:
        async with lasting(page, settings)(None):
            mine, made = stored("mine.png"), stored("made.png")
            page.upload_file_set.add(mine)
            picture.temp_files.add(mine)
            shown.temp_files |= {mine, made}
            return mine, made

    mine, made = asyncio.run(live())
    assert shown.temp_files == {made} and not page.upload_file_set | picture.temp_files, "what Gradio removes"
    os.remove(made)
    with gr.Blocks() as again:
        pass
    assert run(lasting(again, settings), again) == {mine}
    with gr.Blocks() as late:
        pass
    assert not run(lasting(late, dataclasses.replace(settings, cache_seconds=-1)), late)
    assert not os.path.exists(mine) and os.path.exists(upload), "what other programs have in the cache stays"


def test_uploads_of_a_program_that_was_killed_are_known_to_the_next(settings: Settings) -> None:
    """A page that is open keeps Gradio's server from coming to its end too."""
    with gr.Blocks() as page:
        pass

    async def killed() -> str:
        await lasting(page, settings)(None).__aenter__()
        page.upload_file_set.add(path := stored("mine.png"))
        return path

    path = asyncio.run(killed())
    with gr.Blocks() as again:
        pass
    assert run(lasting(again, settings), again) == {path}
    assert not run(lasting(again, dataclasses.replace(settings, cache_seconds=-1)))
    assert not os.path.exists(path)


def test_nothing_is_removed_behind_a_link(settings: Settings, tmp_path: Path) -> None:
    mine = paint(tmp_path / "mine.png")
    own = Path(get_upload_folder())
    own.parent.mkdir(exist_ok=True)
    for link, place in ((own, tmp_path), (own / "abc", tmp_path), (own / "mine.png", mine)):
        link.symlink_to(place)
        with gr.Blocks() as page:
            pass
        run(lasting(page, dataclasses.replace(settings, cache_seconds=-1)))
        assert os.path.exists(mine)
        if link == own:
            link.unlink()
            own.mkdir()


def test_every_data_folder_has_a_cache_of_its_own(cache: Path, tmp_path: Path) -> None:
    folders = set()
    for name in ("one", "two"):
        os.environ["GRADIO_TEMP_DIR"] = str(cache)
        settings = Settings(data_dir=tmp_path / name)
        for _ in range(2):
            own_cache(settings)
            folders.add(Path(get_upload_folder()))
    assert len(folders) == 2 and {folder.parent for folder in folders} == {cache}


def run(lifespan: Any, page: gr.Blocks | None = None) -> set[str]:
    """What is known of uploads while a program runs, from its start to its end."""

    async def live() -> set[str]:
        async with lifespan(None):
            return set() if page is None else set(page.upload_file_set)

    return asyncio.run(live())
