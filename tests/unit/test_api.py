"""The named endpoints, as a program uses them: every task with its files, and what they refuse."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from pusa_app import media, testing
from pusa_app.settings import Settings
from pusa_app.studio import Studio
from pusa_app.timeline import TASKS, ClipSource, Keyframe, Options, Recipe
from pusa_app.ui import build
from pusa_app.ui.api import OWNER, _Endpoints
from pusa_app.ui.player import publish
from pusa_app.ui.timeline_editor import from_timeline

PATIENCE = 120.0
QUICK = {"frames": 19, "steps": 1}
OPTIONS: dict[str, dict[str, Any]] = {
    "extend": {"direction": "both", "frames": 12},
    "complete": {"gap": [7, 13]},
    "transition": {"style": "cross"},
    "loop": {"result": "made"},
}
LENGTHS = {"extend": 37 + 24, "complete": 37, "transition": 37 + 19 - 9 + 37 - 10, "loop": 18}


class Page:
    """The page in this process, a client of it, and the files that it uploads."""

    def __init__(self, folder: Path) -> None:
        self.studio = Studio(Settings(data_dir=folder / "data"))
        self.blocks = build(self.studio)
        _, url, _ = self.blocks.launch(quiet=True, prevent_thread_lock=True, server_name="127.0.0.1", show_error=False)
        self.client = Client(url, verbose=False, download_files=False)
        self.files = {name: folder / f"{name}.png" for name in ("image", "end")}
        for path in self.files.values():
            Image.new("RGB", (80, 64), (200, 30, 30)).save(path)
        for name in ("clip", "clip_b"):
            self.files[name] = folder / f"{name}.mp4"
            with media.ClipWriter(self.files[name], 64, 64, 12) as writer:
                writer.write(np.full((37, 64, 64, 3), 90, np.uint8))

    def call(self, name: str, *values: Any, **fields: Any) -> Any:
        return self.client.predict(*values, api_name=f"/{name}", **fields)

    def refused(self, name: str, *values: Any, **fields: Any) -> str:
        """The one line with which a call is refused, after which nothing is queued."""
        before = len(self.studio.jobs(OWNER))
        with pytest.raises(AppError) as caught:
            self.call(name, *values, **fields)
        words = str(caught.value)
        assert words and "\n" not in words and "Traceback" not in words
        assert len(self.studio.jobs(OWNER)) == before
        return words

    def recipe(self, job: str) -> Recipe:
        return self.studio.recipe(self.studio.job(job))  # type: ignore[arg-type]

    def video(self, job: str) -> np.ndarray:
        deadline = time.monotonic() + PATIENCE
        while True:
            state, video = self.call("result", job)
            if state["state"] not in ("queued", "running"):
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert state["state"] == "done", state
        return media.read_frames(video["path"])


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUSA_TEST_FAKE", "1")
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "cache"))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        page = Page(folder)
        yield page
        page.blocks.close(verbose=False)
        page.studio.close()


def test_the_endpoints_are_three(page: Page) -> None:
    named = page.client.view_api(return_format="dict")["named_endpoints"]
    assert set(named) == {"/generate", "/result", "/timeline"}


@pytest.mark.parametrize("task", TASKS)
def test_every_task(task: str, page: Page) -> None:
    asks = [ask for ask in TASKS[task].asks if task != "loop" or ask.kind == "image"]
    files = {ask.name: handle_file(str(page.files[ask.name])) for ask in asks}
    if task == "keyframes":
        files = {"timeline": _timeline(page)}
    job = page.call("generate", "a thing", task=task, options=OPTIONS.get(task), **files, **QUICK)
    frames = page.video(job)
    assert frames.shape[1:] == (64, 64, 3)
    if task in ("extend", "complete", "loop"):
        assert len(frames) == LENGTHS[task]
    elif task != "transition":
        assert len(frames) == 19
    recipe = page.recipe(job)
    assert (recipe.task, recipe.steps) == (task, 1)


def test_settings_that_few_want(page: Page) -> None:
    job = page.call("generate", "a thing", settings={"guidance_interval": [0.4, 1.0], "cache": 0.0}, **QUICK)
    assert len(page.video(job)) == 19
    recipe = page.recipe(job)
    assert recipe.guidance_interval == (0.4, 1)
    assert "interval" in page.refused("generate", "a thing", settings={"guidance_interval": "all"}, **QUICK)


@pytest.mark.parametrize(
    ("task", "given", "fields"),
    [
        ("text-to-video", (), {}),
        ("image-to-video", ("image",), {}),
        ("start-end", ("image", "end"), {}),
        ("extend", ("clip",), {}),
        ("complete", ("clip",), {"options": {"gap": [7, 13]}}),
        ("transition", ("clip", "clip_b"), {}),
        ("keyframes", (), {"timeline": None}),
    ],
)
def test_without_a_task_the_files_say_which(
    task: str, given: tuple[str, ...], fields: dict[str, Any], page: Page
) -> None:
    """As on the command line; nothing that was sent is left out."""
    if "timeline" in fields:
        fields = {"timeline": _timeline(page)}
    files = {name: handle_file(str(page.files[name])) for name in given}
    recipe = page.recipe(page.call("generate", "a thing", **files, **fields, **QUICK))
    assert recipe.task == task
    placed = {Path(path).suffix for path in recipe.paths}
    assert placed == {page.files[name].suffix for name in given or (("clip",) if fields else ())}


def test_an_option_with_its_usual_value_is_not_refused(page: Page) -> None:
    """A recipe writes all of them."""
    usual = Options().model_dump(mode="json")
    assert page.recipe(page.call("generate", "a thing", options=usual, **QUICK)).options == Options()


def _timeline(page: Page, **source: Any) -> dict[str, Any]:
    """What a program sends: a clip in slots 1 and 2, published as an upload would be."""
    spec = testing.card().spec
    clip = ClipSource(path=publish(page.files["clip"]), **{"start": 8, "begin": 5, "end": 30, **source})
    keyframe = Keyframe(slot=1, span=2, source=clip, noise=(0.1, 0.4), fit="pad", focus=(0.25, 1))
    return json.loads(from_timeline(spec.timeline(19).having(keyframe)).model_dump_json())


def test_a_timeline_comes_back_as_it_was(page: Page) -> None:
    sent = _timeline(page)
    back, said = page.call("timeline", sent)
    for value in (sent, back):
        value["keyframes"][0]["file"].pop("url")  # which the server adds
    assert back == sent
    assert {"start": 8, "begin": 5, "end": 30}.items() <= back["keyframes"][0].items()
    assert said["noise_multipliers"] == [1.0, 0.1, 0.4, 1.0] and said["problems"] == []
    assert said["bands"] and said["text"]
    again, _ = page.call("timeline", back, "restyle")
    again["keyframes"][0]["file"].pop("url")
    assert again == back


def test_what_is_refused(page: Page) -> None:
    image, clip = (handle_file(str(page.files[name])) for name in ("image", "clip"))
    for words, fields in {
        "no task called": {"task": "dream"},
        "needs a picture": {"task": "image-to-video"},
        "needs a last frame": {"task": "start-end", "image": image},
        "first and a last frame": {"task": "complete", "clip": clip},
        "not inside the clip": {"task": "complete", "clip": clip, "options": {"gap": [40, 50]}},
        "holds no frame": {"task": "complete", "clip": clip, "options": {"gap": [9, 3]}},
        "greater than or equal to 1": {"task": "extend", "clip": clip, "options": {"frames": 0}},
        "less than or equal to": {"task": "extend", "clip": clip, "options": {"frames": 10**9}},
        "ask for fewer frames": {"task": "extend", "clip": clip, "options": {"frames": 90_000}},
        "not valid at wings": {"task": "extend", "clip": clip, "options": {"wings": 2}},
        "The clip has 37 frames": {"task": "restyle", "clip": clip, "frames": 61},
        "clip.mp4 is not a picture": {"task": "image-to-video", "image": clip},
        "image.png": {"task": "extend", "clip": image},
        "does not fit": {"frames": 8},
        "noise": {"task": "image-to-video", "image": image, "noise": 1.5},
        "few words": {"prompt": " "},
        "no setting 'dream'": {"settings": {"dream": 1}},
        "settings are an object": {"settings": [{}]},
        "not by a path.": {"settings": {"loras": [{"path": "~nosuch"}]}},
        "not valid at cache": {"settings": {"cache": 2}},
        "from its lower sigma to its higher": {"settings": {"guidance_interval": [1, 0.4]}},
        "not by a path": {"settings": {"loras": [{"path": "/etc/passwd"}]}},
    }.items():
        assert words in page.refused("generate", **{"prompt": "a thing", **fields}), fields


def test_what_a_task_does_not_take_is_refused(page: Page) -> None:
    """It would be missed in the video, or be taken for what it is not."""
    image, end, clip = (handle_file(str(page.files[name])) for name in ("image", "end", "clip"))
    timeline = _timeline(page)
    for words, fields in {
        "Leave out image: extend has no use for it.": {"task": "extend", "clip": clip, "image": image},
        "Leave out clip: text-to-video has no use for it.": {"task": "text-to-video", "clip": clip},
        "Leave out end: image-to-video has no use for it.": {"task": "image-to-video", "image": image, "end": end},
        "Leave out image: keyframes has no use for it.": {"task": "keyframes", "image": image},
        "say which with the task": {"image": image, "clip": clip},
        "needs a first frame": {"end": end},
        "Complete needs a clip": {"options": {"gap": [7, 13]}},
        "Leave out frames in the options: text-to-video has no such choice.": {"options": {"frames": 48}},
        "Leave out gap in the options: extend has": {"task": "extend", "clip": clip, "options": {"gap": [7, 13]}},
        "Leave out style in the options: keyframes": {"timeline": timeline, "options": {"style": "cross"}},
        "Leave out noise: ": {"noise": 0.5},
        "Leave out image: the timeline already says it.": {"timeline": timeline, "image": image},
        "Leave out noise: the timeline already says it.": {"timeline": timeline, "noise": 0.0},
        "needs a picture": {"task": "image-to-video", "noise": 0.5},
    }.items():
        assert words in page.refused("generate", "a thing", **fields), fields


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("prompt", value) for value in (None, 5, ["a"])),
        *(("negative_prompt", value) for value in (None, 5)),
        *(("frames", value) for value in ("many", 37.5, float("nan"), float("inf"), [37], True)),
        *(("seed", value) for value in (None, -1, 1.5, float("nan"), True, "x")),
        *(("steps", value) for value in ("x", [1], {})),
        *(("guidance", value) for value in ("x", float("nan"))),
        *(("noise", value) for value in ("x", 1.5, float("nan"), True)),
        *(("model", value) for value in (5, ["fake"])),
        *(("task", value) for value in (5, ["loop"])),
        *(("options", value) for value in ([1], [], 0, "x")),
        *(("timeline", value) for value in ([1], [], "x")),
        *(("image", value) for value in ([], [{}], {}, "", 5)),
        ("color_match", "maybe"),
    ],
)
def test_a_wrong_type_is_told_with_its_field(field: str, value: Any, page: Page) -> None:
    """Whatever a program sends; some of it no JSON can hold."""
    with pytest.raises(gr.Error) as caught:
        _Endpoints(page.studio).generate(**{"prompt": "a thing", field: value})
    message = caught.value.message
    assert field in message and "\n" not in message, message


def test_a_wrong_type_is_told_to_a_client(page: Page) -> None:
    for field, value in {"frames": [37], "prompt": None, "negative_prompt": 5, "task": ["loop"], "model": 5}.items():
        assert f"not valid at {field}" in page.refused("generate", **{"prompt": "a thing", field: value})
    assert "no job" in page.refused("result", ["x"])
    assert "no job" in page.refused("result", 5)


def test_numbers_that_are_whole_are_taken(page: Page) -> None:
    recipe = page.recipe(page.call("generate", "a thing", frames=19.0, steps=1, seed=3.0))
    assert (recipe.timeline.grid.num_frames, recipe.seed) == (19, 3)


def test_the_task_of_a_timeline_must_be_one(page: Page) -> None:
    sent = _timeline(page)
    assert "no task called 'dream'" in page.refused("timeline", sent, "dream")
    for task in (5, ["loop"], None):
        assert "no task called" in page.refused("timeline", sent, task)


def test_a_timeline_is_asked_about_with_two_values(page: Page) -> None:
    """Over plain HTTP, where no client fills in a value that was added."""
    url = f"{page.client.src.rstrip('/')}/gradio_api/call/timeline"
    event = httpx.post(url, json={"data": [_timeline(page), "keyframes"]}).json()["event_id"]
    answer = httpx.get(f"{url}/{event}", timeout=PATIENCE).text
    assert "event: complete" in answer and "noise_multipliers" in answer


def test_a_bad_timeline_is_refused(page: Page) -> None:
    def broken(**changes: Any) -> dict[str, Any]:
        value = copy.deepcopy(_timeline(page))
        value["keyframes"][0].update(changes)
        return value

    assert "noise" in page.refused("timeline", broken(noise=[None, 0.2]))
    assert "noise" in page.refused("timeline", broken(noise=["NaN", 0.2]))
    assert "2 noise values for 1 slots" in page.refused("timeline", broken(span=1))
    assert "reaches slot 41" in page.refused("generate", "a thing", timeline=broken(slot=40))
    twice = _timeline(page)
    twice["keyframes"] *= 2
    assert "both in slot 1" in page.refused("generate", "a thing", timeline=twice)
    assert "grid" in page.refused("timeline", {})


def test_a_path_that_was_not_uploaded_is_refused(page: Page) -> None:
    """Whatever a program puts in its place: the client itself uploads only what is wrapped as a file."""
    secret = page.studio.settings.data_dir / "secret"
    page.studio.secret()
    for path in ("/etc/hostname", str(secret), "../../secret"):
        with pytest.raises((AppError, ValueError, OSError)) as caught:  # a client looks for the file too
            page.call("generate", "a thing", {"path": path, "meta": {"_type": "gradio.FileData"}})
        assert "Traceback" not in str(caught.value)
        value = _timeline(page)
        value["keyframes"][0]["file"] = {"path": path}
        words = page.refused("timeline", value)
        assert "uploaded" in words.lower() or "not valid" in words.lower(), words
    assert "no job" in page.refused("result", "0" * 24)
