"""What is said under the controls of the form, and what takes it away again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from pusa_app import testing
from pusa_app.settings import Settings
from pusa_app.studio import new_recipe
from pusa_app.timeline import ImageSource, Keyframe
from pusa_app.ui import strings
from pusa_app.ui.choices import Choices
from pusa_app.ui.form import Form


@pytest.fixture
def form(monkeypatch: pytest.MonkeyPatch) -> Form:
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")
    with gr.Blocks():
        form = Form(SimpleNamespace(settings=Settings()))  # type: ignore[arg-type]
        form.build_tabs()
        form.build()
        form.build_timeline()
    return form


@pytest.fixture
def picture(tmp_path: Path) -> str:
    Image.new("RGB", (64, 64), (200, 30, 30)).save(tmp_path / "red.png")
    return str(tmp_path / "red.png")


def said(form: Form, updates: list[Any]) -> dict[str, str | None]:
    """What the lines say by control: None where what stands there stays."""
    lines = dict(zip(form._notes, updates, strict=True))
    return {name: None if line == gr.skip() else line["value"] for name, line in lines.items()}


def choices(task: str = "text-to-video", *keyframes: Keyframe, **more: Any) -> Choices:
    recipe = new_recipe(testing.card(), task, prompt=more.pop("prompt", ""), keyframes=keyframes, **more)
    return Choices.of(recipe)


def test_what_is_missing_is_said_when_generate_is_pressed_and_stands(form: Form) -> None:
    nothing = choices()
    refused = form.refuse(nothing)
    assert refused is not None
    look, _, *lines = refused
    assert strings.PROMPT_MISSING in said(form, lines)["prompt"] and look["target"] == "#prompt-note"
    # An answer that belongs to a change from before the press says nothing of it.
    _, *lines = form._say(nothing, nothing.blank())
    assert said(form, lines)["prompt"] is None
    _, *lines = form._say(choices(prompt="a ball"), nothing.blank())
    assert said(form, lines)["prompt"] == ""


def test_a_refused_file_is_told_of_though_the_timeline_does_without_it(form: Form, picture: str) -> None:
    placed = choices("image-to-video", Keyframe(slot=0, source=ImageSource(path=picture)), prompt="a ball")
    alone = Choices(**{**placed.__dict__, "image": None})
    assert form.refuse(alone) is None
    _, *lines = form._say(alone, alone.blank())
    assert said(form, lines)["image"] is None
    _, *lines = form._say(placed, placed.timeline)  # type: ignore[arg-type]
    assert said(form, lines)["image"] == ""


def test_a_run_that_begins_takes_away_all_that_was_said(form: Form) -> None:
    assert set(said(form, form.content()).values()) == {""}


def test_a_recipe_that_fills_the_form_leaves_nothing_of_what_was_said(form: Form) -> None:
    filled = dict(zip(form.filled, form.fill(new_recipe(testing.card(), "text-to-video")), strict=True))
    assert {filled[note]["value"] for note in form._notes.values()} == {""}


def test_a_model_that_is_gone_is_no_crash(form: Form) -> None:
    gone = {**choices(prompt="a ball").__dict__, "model": "removed"}
    updates = form._follow(form.followed.value, *gone.values())
    assert updates == [gr.skip()] * (2 + len(form.said))
    with pytest.raises(gr.Error, match="There is no model"):
        form.with_model("removed", "text-to-video", None, None)
