"""Which LoRAs may be chosen for a model, what a path must hold, and what the page sends and tells of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from safetensors.numpy import save_file

from pusa_app.errors import ModelError, RecipeError
from pusa_app.models.card import ModelCard
from pusa_app.models.entry import entries
from pusa_app.models.home import CARD_FILE, Home
from pusa_app.models.known_loras import checked_lora, known_loras
from pusa_app.settings import Settings
from pusa_app.timeline import LoraChoice
from pusa_app.ui.loras import Loras, chosen_of, loras_value
from pusa_app.ui.player import told_loras
from tests.unit.test_models_page import request


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("PUSA_DATA_DIR", str(tmp_path))
    (tmp_path / "loras").mkdir()
    return Home(tmp_path)


def save(path: Path, *names: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.zeros((2, 2), np.float32) for name in names or ("a.lora_A.weight", "a.lora_B.weight")}, path)
    return path


def card(model_id: str = "pusa-v1") -> ModelCard:
    return entries()[model_id].card(None)


def test_nothing_is_known_but_what_belongs_to_the_model(home: Home) -> None:
    (pusa,) = known_loras(card(), home)
    assert (pusa.name, pusa.own, pusa.strength, pusa.low, pusa.high) == ("pusa", True, 1.4, 1.3, 1.5)
    assert known_loras(card("pusa-v0.5"), home) == []


def test_those_of_the_catalogue_are_offered_to_their_models_once_they_are_here(home: Home) -> None:
    folder = home.models_dir / "lightx2v-wan2.1"
    save(folder / "loras" / "lightx2v.safetensors")
    (folder / CARD_FILE).write_text("{}")
    fast = known_loras(card(), home)[1]
    assert (fast.name, fast.title, fast.steps, fast.guidance) == ("lightx2v-wan2.1", "LightX2V for Wan 2.1", 4, 1.0)
    assert checked_lora(fast.name) == fast.name
    assert "lightx2v-wan2.1" not in {one.name for one in known_loras(card("pusa-wan2.2"), home)}


def test_the_folder_of_loras_is_offered_to_every_model(home: Home) -> None:
    loras = home.data_dir / "loras"
    save(loras / "bright v1.2.safetensors")
    save(loras / "pair" / "high.safetensors")
    save(loras / ".hidden.safetensors")
    (loras / "notes.txt").write_text("not one")
    (loras / "empty").mkdir()
    names = [one.name for one in known_loras(card("mochi-1"), home)]
    assert names == ["bright v1.2", "pair"]
    assert [checked_lora(name) for name in names] == names
    spec = card("mochi-1").spec.model_copy(update={"family": "fake"})
    assert known_loras(card("mochi-1").model_copy(update={"spec": spec}), home) == []


def test_a_path_is_looked_into(home: Home, tmp_path: Path) -> None:
    good = save(tmp_path / "else where" / "good.safetensors")
    assert checked_lora(str(good)) == str(good)
    with pytest.raises(ModelError, match="There is no LoRA"):
        checked_lora(str(tmp_path / "none.safetensors"))
    with pytest.raises(ModelError, match=r"model\.safetensors is no LoRA"):
        checked_lora(str(save(tmp_path / "model.safetensors", "blocks.0.weight")))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\0" * 40)
    with pytest.raises(ModelError, match="is damaged: get it again"):
        checked_lora(str(broken))
    with pytest.raises(ModelError, match="is a DoRA"):
        checked_lora(str(save(tmp_path / "dora.safetensors", "a.lora_A.weight", "a.dora_scale")))


def test_what_the_page_sends_becomes_choices() -> None:
    chosen = (LoraChoice(path="x", strength=1.4), LoraChoice(path="/a/b.safetensors", strength=-1, expert="high"))
    value = json.loads(json.dumps(loras_value("pusa-v1", chosen)))
    assert chosen_of(value) == chosen
    assert chosen_of(None) == chosen_of({}) == chosen_of([1]) == ()


@pytest.mark.parametrize(
    "chosen",
    [
        [{"name": "x", "strength": 99}],
        [{"name": "", "strength": 1}],
        [{"name": {"path": "/etc/passwd"}, "strength": 1}],
        ["x"],
        [{"name": "x", "strength": "nan"}],
        [{"name": f"x{number}", "strength": 1} for number in range(17)],
    ],
)
def test_what_a_program_sends_is_refused(chosen: Any) -> None:
    with pytest.raises(RecipeError):
        chosen_of({"chosen": chosen})


@pytest.mark.parametrize(
    ("shared", "headers", "may"), [(False, {}, True), (True, {}, False), (False, {"x-real-ip": "203.0.113.7"}, False)]
)
def test_only_the_host_names_files(home: Home, tmp_path: Path, shared: bool, headers: Any, may: bool) -> None:
    with gr.Blocks():
        loras = Loras(card(), replace(Settings(data_dir=tmp_path), shared=shared))
    event: Any = SimpleNamespace(place=str(save(tmp_path / "mine.safetensors")))
    if not may:
        with pytest.raises(gr.Error, match="Only whoever runs this program"):
            loras._add("pusa-v1", (), request(**headers), event)
        return
    update = loras._add("pusa-v1", (LoraChoice(path="x"),), request(**headers), event)
    assert [one["name"] for one in update["value"]["chosen"]] == ["x", event.place]
    again = loras._add("pusa-v1", chosen_of(update["value"]), request(**headers), event)
    assert again["value"] == update["value"]


def test_what_became_of_them_is_read_beside_the_video(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    assert told_loras(video) == []
    video.with_suffix(".json").write_text(json.dumps({"made_with": {"loras": ["x at 1.4: 96 modules"]}}))
    assert told_loras(video) == ["x at 1.4: 96 modules"]
    for damaged in ("[]", "{", '{"made_with": {"loras": 3}}'):
        video.with_suffix(".json").write_text(damaged)
        assert told_loras(video) == []
