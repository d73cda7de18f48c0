"""The first-run guide: when it is shown, what it says, and that the page Models says it too."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pusa_app.models.home import CARD_FILE, Home
from pusa_app.models.machine import Machine, imagined
from pusa_app.models.weights import Step, states
from pusa_app.models.weights.downloads import Download
from pusa_app.settings import Settings
from pusa_app.ui import guide
from pusa_app.ui.models import Models
from tests.unit.test_models_page import Told, request

CARD = imagined(12, 32, "NVIDIA GeForce RTX 3060", (8, 6))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "data", tmp_path / "cache", "http://127.0.0.1:9")


@pytest.fixture
def page(home: Home, monkeypatch: pytest.MonkeyPatch) -> Any:
    """page(machine, *downloads) -> what the page Models and the card on Create show to whoever sits at the machine."""

    def values(machine: Machine, *said: Download, shared: bool = False, **headers: str) -> tuple[Any, Any]:
        monkeypatch.setenv("PUSA_TEST_MACHINE", machine.model_dump_json())
        models = Models(SimpleNamespace(settings=Settings(data_dir=home.data_dir, shared=shared)))  # type: ignore[arg-type]
        models._home, models._downloads = home, Told(home, *said)
        view, card, _ = models._all(request(**headers))
        assert json.loads(json.dumps([view, card])) == [view, card]
        return view, card

    return values


def test_a_gpu_and_only_mini_is_what_it_is_for(page: Any) -> None:
    view, card = page(CARD)
    assert card["show"] and card["moving"] == "" and "RTX 3060 with 12 GB" in card["intro"]
    first, *others = card["offers"]
    assert first["id"] == "pusa-v0.5" and first["words"].endswith("download about 30 GB?")
    assert first["can"] == [["download", "Download about 30 GB"]]
    assert {"mochi-1", "pusa-v1", "skyreels-v2-df"} <= {one["id"] for one in others}
    assert all(one["words"] or one["reason"] for one in others)
    assert view["guide"]["first"] == "pusa-v0.5" and view["guide"]["verdict"] == first["words"]


def test_what_does_not_fit_has_its_reason_and_no_button(page: Any) -> None:
    machine = CARD.model_copy(update={"disk_bytes": 60 * 10**9})
    offers = {one["id"]: one for one in page(machine)[1]["offers"]}
    refused = [one for one in offers.values() if one["reason"]]
    assert refused and all(not one["can"] for one in refused)
    assert offers["pusa-v0.5"]["can"]


def test_without_a_gpu_there_is_a_verdict_and_no_card(page: Any) -> None:
    view, card = page(imagined(0, 16))
    assert card == {"show": False} and view["guide"]["first"] == ""
    assert "no GPU" in view["guide"]["verdict"] and "mini runs here" in view["guide"]["verdict"]
    rows = {row["id"]: row for row in view["models"]}
    assert rows["pusa-v0.5"]["runs"].startswith("Not on this machine: Even 7 frames")
    assert rows["mini"]["runs"] == ""


@pytest.mark.parametrize("more", [{"shared": True}, {"x-forwarded-for": "203.0.113.7"}])
def test_strangers_are_told_nothing_of_the_machine(page: Any, more: dict[str, Any]) -> None:
    view, card = page(CARD, **more)
    assert card == {"show": False} and "guide" not in view and "RTX" not in json.dumps(view)


def test_a_download_is_shown_until_it_is_used(page: Any, home: Home) -> None:
    step = Step("downloading", 3_000_000_000, 30_000_000_000, 45_000_000.0, 600.0)
    _, card = page(CARD, Download("pusa-v0.5", "running", step))
    assert card["moving"] == "pusa-v0.5" and card["offers"][0]["state"] == "busy"
    assert card["offers"][0]["figures"][0] == "3.0 GB of 30 GB"
    _, card = page(CARD, Download("pusa-v0.5", "failed", step, "The disk is full."))
    assert card["offers"][0]["message"] == "The disk is full." and card["offers"][0]["can"][0][0] == "download"

    folder = home.models_dir / "pusa-v0.5"
    folder.mkdir(parents=True)
    (folder / CARD_FILE).write_text("{}")
    assert page(CARD, Download("pusa-v0.5", "done"))[1]["offers"][0]["state"] == "here"
    view, card = page(CARD)
    assert card == {"show": False} and view["guide"]["first"] == "" and view["guide"]["verdict"] == ""


def test_plans_are_made_once_a_minute(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSA_TEST_MACHINE", CARD.model_dump_json())
    advisor, found = guide.Advisor(home), states(home)
    assert advisor.ask(found) is advisor.ask(list(found))
    monkeypatch.setattr(guide, "KNOWN_SECONDS", -1.0)
    other = guide.Advisor(home)
    assert other.ask(found) is not other.ask(found)
