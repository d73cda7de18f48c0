"""The first-run guide in a browser: with a card of 12 GB and nothing downloaded, a real model is two clicks away.

The card is imagined (PUSA_TEST_MACHINE), the hub is a small one, and the model is Pusa V0.5 as the catalogue has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pusa_app.models.machine import Machine, imagined
from tests.browser.conftest import Server, serve
from tests.browser.test_create import PHONE
from tests.browser.test_models import AT_THE_MACHINE, open_models, row, wait_for_state
from tests.conftest import PARITY_DATA
from tests.hub_server import Hub

pytestmark = pytest.mark.browser

Visit = Callable[..., Any]
Shot = Callable[..., None]
CARD = imagined(12, 32, "NVIDIA GeForce RTX 3060", (8, 6))


@pytest.fixture(scope="module")
def hub(tiny_mochi: Path) -> Iterator[Hub]:
    with Hub() as server:
        server.add(
            "RaphaelLiu/Pusa-V0.5",
            {"pusa_v0_dit.safetensors": (PARITY_DATA / "pusa_dit_native.safetensors").read_bytes()},
        )
        server.add("genmo/mochi-1-preview", tiny_mochi)
        yield server


def serve_on(machine: Machine, folder: Path, hub: Hub) -> Iterator[Server]:
    environment = {
        "PUSA_TEST_FAKE": "1",
        "PUSA_TEST_MACHINE": machine.model_dump_json(),
        "HF_HOME": str(folder / "hf"),
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": "",
    }
    yield from serve(folder, environment)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Iterator[Server]:
    yield from serve_on(CARD, tmp_path_factory.mktemp("guide"), hub)


def test_it_can_be_put_off_and_strangers_never_see_it(server: Server, visit: Visit, shot: Shot) -> None:
    page = visit(server.url, **AT_THE_MACHINE)
    page.locator("#guide .g-words", has_text="NVIDIA GeForce RTX 3060 with 12 GB").wait_for()
    shot(page, "guide-closed")
    page.get_by_role("button", name="Not now").click()
    page.locator("#guide").wait_for(state="hidden")
    page.reload()
    page.wait_for_selector("#generate")
    open_models(page)
    row(page, "pusa-v0.5").locator(".m-runs", has_text="On this machine: 848x480, 85 frames in about").wait_for()
    page.get_by_role("tab", name="Create").click()
    assert not page.locator("#guide").is_visible()
    stranger = visit(server.url)
    open_models(stranger)
    assert "RTX 3060" not in stranger.content()
    stranger.get_by_role("tab", name="Create").click()
    assert not stranger.locator("#guide").is_visible()


def test_two_clicks_to_a_real_model(server: Server, hub: Hub, visit: Visit, shot: Shot) -> None:
    page = visit(server.url, **AT_THE_MACHINE)
    page.get_by_role("button", name="See what runs here").click()  # the first click
    first = page.locator("#guide .g-first")
    question = first.locator(".g-question").inner_text()
    assert question.startswith("Pusa V0.5 will run at 848x480, 85 frames in about ")
    assert question.endswith(" minutes; download about 30 GB?")
    assert "blocks come to the GPU one after the other" in first.inner_text()
    shot(page, "guide-open")
    hub.rate = 300_000
    first.get_by_role("button", name="Download about 30 GB: Pusa V0.5").click()  # the second
    wait_for_state(page, "pusa-v0.5", "busy")
    row(page, "pusa-v0.5").locator(".m-figures", has_text="/s").wait_for()
    shot(page, "guide-downloading")
    page.get_by_role("tab", name="Create").click()
    page.locator("#guide", has_text="Pusa V0.5 is on its way").wait_for()
    shot(page, "guide-on-its-way")
    page.get_by_role("button", name="Pause").click()
    page.locator("#guide", has_text="Pusa V0.5 is not here yet").wait_for()
    page.get_by_role("button", name="Not now").click()  # what stands still may be put off
    page.locator("#guide").wait_for(state="hidden")
    hub.rate = 0
    open_models(page)
    row(page, "pusa-v0.5").get_by_role("button", name="Resume").click()
    page.get_by_role("tab", name="Create").click()
    page.locator("#guide", has_text="Pusa V0.5 is here").wait_for()
    assert (server.data / "models" / "pusa-v0.5" / "transformer" / "config.json").is_file()

    page.get_by_role("button", name="Use it").click()
    page.locator("#guide").wait_for(state="hidden")
    page.locator("#length input[type=number]").first.wait_for()
    page.wait_for_function("document.querySelector('#length input[type=number]')?.value === '85'")
    page.locator("#advanced button").first.click()
    assert page.get_by_label("Model", exact=True).input_value() == "Pusa V0.5"
    assert page.input_value("#steps input[type=number]") == "40"


@pytest.fixture(scope="module")
def poor(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Iterator[Server]:
    yield from serve_on(imagined(0, 16), tmp_path_factory.mktemp("poor"), hub)


def test_a_machine_without_a_gpu_is_told_the_truth(poor: Server, visit: Visit, shot: Shot) -> None:
    page = visit(poor.url, **{**PHONE, **AT_THE_MACHINE})
    open_models(page)
    page.locator(".m-verdict", has_text="no GPU that this program can use").wait_for()
    assert "mini runs here" in page.locator(".m-verdict").inner_text()
    reason = row(page, "pusa-v0.5").locator(".m-runs").inner_text()
    assert reason.startswith("Not on this machine: Even 7 frames would take")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shot(page, "guide-no-gpu-phone")
    assert page.locator("#guide").count() == 0 or not page.locator("#guide").is_visible()
