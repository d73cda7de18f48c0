"""What the page Models shows, and who may do what on it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from pusa_app.models.entry import entries
from pusa_app.models.home import Home
from pusa_app.models.weights import Step
from pusa_app.models.weights.downloads import Download, Downloads
from pusa_app.settings import Settings
from pusa_app.ui.models import Models, models_value


class Told(Downloads):
    """Downloads of which is told what a test says."""

    def __init__(self, home: Home, *said: Download) -> None:
        super().__init__(home)
        self._all = {download.id: download for download in said}


def request(**headers: str) -> Any:
    return SimpleNamespace(
        headers={"host": "127.0.0.1:7860"} | headers, client=SimpleNamespace(host="127.0.0.1"), username=None
    )


def row(home: Home, model_id: str, *said: Download, may: bool = True) -> dict[str, Any]:
    rows = models_value(home, Told(home, *said), may)["models"]
    return next(row for row in rows if row["id"] == model_id)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "data", tmp_path / "cache", "http://127.0.0.1:9")


def test_all_of_the_catalogue_is_shown_in_its_order(home):
    value = models_value(home, Told(home), True)
    assert [row["id"] for row in value["models"]] == list(entries())
    assert value["may"] and not value["active"] and "free where downloads go" in value["disk"]
    assert json.loads(json.dumps(value)) == value


def test_sizes_are_told_as_far_as_they_are_known(home):
    assert row(home, "pusa-v0.5")["can"] == [["download", "Download about 30 GB"]]
    assert row(home, "pusa-wan2.2")["can"] == [["download", "Download"]]
    assert row(home, "pusa-wan2.2")["size"] == "the hub tells its size"


def test_what_a_model_does_and_why_not_the_rest(home):
    assert row(home, "pusa-v0.5")["does"] == "all tasks" and row(home, "pusa-v0.5")["not"] == []
    mochi = row(home, "mochi-1")
    assert mochi["does"] == "Text to video, Restyle"
    assert len(mochi["not"]) == 1 and "Pusa V0.5 was trained for that" in mochi["not"][0]["reason"]
    assert row(home, "hunyuan-video")["notes"][0] == "not yet trained for keyframes"


def test_a_download_is_told_in_figures(home):
    step = Step("downloading", 3_000_000_000, 30_000_000_000, 45_000_000.0, 600.0)
    going = row(home, "pusa-v0.5", Download("pusa-v0.5", "running", step))
    assert going["figures"] == ["3.0 GB of 30 GB", "45 MB/s", "10:00 left"]
    assert going["fraction"] == 0.1 and going["state"] == "busy" and going["can"] == [["pause", "Pause"]]
    looking = row(home, "pusa-v0.5", Download("pusa-v0.5", "running"))
    assert looking["fraction"] is None and looking["figures"] == ["Asking the hub what there is to download"]
    failed = row(home, "pusa-v0.5", Download("pusa-v0.5", "failed", step, "The disk is full."))
    assert failed["message"] == "The disk is full." and failed["can"][0][0] == "download"


def test_who_may_not_is_offered_nothing_and_told_no_places(home):
    home.data_dir.mkdir()
    home.record_file.write_text(json.dumps({"own": {"mochi-1": str(home.data_dir)}}))
    value = models_value(home, Told(home), False, asked="mochi-1")
    assert not any(row["can"] for row in value["models"]) and not value["asked"]
    assert str(home.data_dir.parent) not in json.dumps(value)


def test_why_a_download_failed_is_told_to_whoever_has_the_disk(home):
    failed = Download("pusa-v0.5", "failed", message="/home/me/.cache/huggingface cannot be written: Read-only.")
    assert row(home, "pusa-v0.5", failed)["message"] == failed.message
    told = row(home, "pusa-v0.5", failed, may=False)
    assert told["message"] == "The download failed." and "/home/me" not in json.dumps(told)


@pytest.mark.parametrize(
    ("shared", "headers", "may"),
    [
        (False, {}, True),
        (True, {}, False),
        (False, {"x-forwarded-for": "203.0.113.7"}, False),
        (False, {"host": "evil.example"}, False),
    ],
)
def test_only_the_host_changes_anything(tmp_path, shared, headers, may):
    studio = SimpleNamespace(settings=Settings(data_dir=tmp_path / "data", shared=shared))
    page = Models(studio)  # type: ignore[arg-type]
    page._home = Home(tmp_path / "data", tmp_path / "cache", "http://127.0.0.1:9")
    events = {
        page._act: {"verb": "remove", "id": "pusa-v0.5"},
        page._add: {"place": str(tmp_path), "id": ""},
        page._token: {"token": "two words"},
    }
    for handler, data in events.items():
        with pytest.raises(gr.Error) as caught:  # what may be done is refused for another reason
            handler(request(**headers), SimpleNamespace(**data))
        assert ("Only whoever runs this program" in str(caught.value)) != may
    assert page._all(request(**headers))[0]["may"] is may
