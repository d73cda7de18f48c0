"""The page Models in a browser, against a small hub: a model is downloaded on the page, and makes a video."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import PATIENCE, Server, playwright, serve
from tests.browser.pages import generate, new_video, shown, toasts
from tests.browser.test_create import PHONE
from tests.conftest import PARITY_DATA, TINY_SPEC
from tests.hub_server import Hub
from tests.unit.test_hub_loras import WIDE, lora_bytes
from tests.unit.test_weights import FILES, make_entry, put

pytestmark = pytest.mark.browser

Visit = Callable[..., Any]
Shot = Callable[..., None]
AT_THE_MACHINE: dict[str, Any] = {"extra_http_headers": {}}
REST = ["model_index.json", "scheduler/*", "text_encoder/*", "tokenizer/*", "vae/*"]


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with Hub() as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, hub: Hub, tiny_mochi: Path) -> Iterator[Server]:
    """The app, whose catalogue has three models more: `tiny` as Pusa V0.5 comes, in two repositories, one of them
    native; `gated`, which wants a token; `broken`, whose repository is gone."""
    folder = tmp_path_factory.mktemp("models-page")
    files = {p.relative_to(tiny_mochi).as_posix(): p.read_bytes() for p in tiny_mochi.rglob("*") if p.is_file()}
    hub.add("tests/native", {"dit.safetensors": (PARITY_DATA / "pusa_dit_native.safetensors").read_bytes()})
    hub.add("tests/rest", files)
    hub.add("tests/gated", FILES, gated=True, allowed={"hf_good"})
    hub.tokens = {"hf_good": "somebody"}
    transformer = {"repo": "tests/rest", "files": ["transformer/*"]}
    spec = TINY_SPEC.model_dump() | {"num_frames": 7}
    put_in(folder, "tiny", [{"repo": "tests/rest", "files": REST}, transformer], spec=spec)
    native = {"repo": "tests/native", "files": ["dit.safetensors"], "use": "convert", "into": "transformer"}
    put_in(folder, "native", [native, {"repo": "tests/rest", "files": REST}], spec=spec)
    put_in(folder, "gated", [{"repo": "tests/gated", "files": ["model_index.json", "vae/*"]}], gated=True)
    put_in(folder, "broken", [{"repo": "tests/none", "files": ["model_index.json"]}])
    environment = {
        "PUSA_TEST_FAKE": "1",
        "HF_HOME": str(folder / "hf"),
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": "",
    }
    yield from serve(folder, environment)


def put_in(folder: Path, model_id: str, parts: list[dict[str, Any]], **more: Any) -> None:
    from pusa_app.models.home import Home

    entry = make_entry(model_id, parts=parts, licence_link="https://example.org/licence", **more)
    put(Home(folder / "data"), entry)


# --- what a visitor does ---------------------------------------------------------------------------------------------


def open_models(page: Any) -> None:
    tab, menu = page.get_by_role("tab", name="Models"), page.locator("#pages .overflow-menu > button")
    hidden = page.locator("#pages .overflow-dropdown button", has_text="Models")
    deadline = time.monotonic() + PATIENCE
    # On a narrow page the tabs move into a menu once they are measured, which may be while one is being pressed.
    while not page.locator(".m-row").first.is_visible():
        assert time.monotonic() < deadline
        with contextlib.suppress(playwright.TimeoutError):
            if not tab.is_visible() and not hidden.is_visible():
                menu.click(timeout=2000)
            (tab if tab.is_visible() else hidden).click(timeout=2000)
            page.wait_for_selector(".m-row", state="visible", timeout=5000)


def row(page: Any, model_id: str) -> Any:
    return page.locator(f".m-row[data-id='{model_id}']")


def wait_for_state(page: Any, model_id: str, state: str) -> None:
    page.wait_for_selector(f".m-row[data-id='{model_id}'][data-state='{state}']")


def nothing_of(page: Any, model_id: str) -> None:
    """Delete what an earlier attempt at a test may have left of a model."""
    one, deadline = row(page, model_id), time.monotonic() + PATIENCE
    while one.count() and one.get_attribute("data-state") != "missing":
        assert time.monotonic() < deadline
        for name in ("Pause", "Delete…", "Delete", "Forget…", "Take it off the list"):
            button = one.get_by_role("button", name=name, exact=True)
            with contextlib.suppress(playwright.TimeoutError):
                if button.is_visible():
                    button.click(timeout=2000)
        page.wait_for_timeout(250)


def choose_model(page: Any, title: str) -> None:
    page.get_by_role("tab", name="Create").click()
    page.wait_for_selector("#generate", state="visible")
    page.get_by_label("Model", exact=True).click()
    page.get_by_role("option", name=title, exact=True).click()


# --- tests -----------------------------------------------------------------------------------------------------------


def test_a_model_is_downloaded_on_the_page_and_makes_a_video(
    server: Server, hub: Hub, visit: Visit, shot: Shot, tmp_path: Path
) -> None:
    page = visit(server.url, **AT_THE_MACHINE)
    open_models(page)
    tiny = row(page, "tiny")
    assert tiny.locator(".m-chip").inner_text() == "not here"
    shot(page, "models-light")
    hub.rate = 20_000  # minutes, so that the page is seen to tell of it
    tiny.get_by_role("button", name="Download").click()
    tiny.locator(".m-figures", has_text="/s").wait_for()
    tiny.locator(".m-figures", has_text="left").wait_for()
    assert tiny.get_by_role("progressbar").get_attribute("aria-valuenow") is not None
    shot(page, "models-downloading")
    tiny.get_by_role("button", name="Pause").click()
    tiny.get_by_role("button", name="Resume").wait_for()
    assert re.match(r"[\d.]+ [kM]?B.* of [\d.]+ [kM]B", tiny.locator(".m-figures").inner_text())
    sent = sum(one.count for one in hub.sent)

    # Another visit, as after a restart of the browser: it goes on from where it was.
    page = visit(server.url, **AT_THE_MACHINE)
    open_models(page)
    wait_for_state(page, "tiny", "partial")
    hub.rate = 0
    row(page, "tiny").get_by_role("button", name="Resume").click()
    wait_for_state(page, "tiny", "here")
    files = hub.repos["tests/rest"].files
    assert sum(one.count for one in hub.sent) <= sum(map(len, files.values())) + 300_000  # on its way when it paused
    assert sent > 0
    shot(page, "models-ready")

    choose_model(page, "Tiny")
    page.wait_for_function("document.querySelector('#length input[type=number]')?.value === '7'")
    before = shown(page)
    generate(page, "a red ball moves right")
    frames = new_video(page, before, tmp_path)
    assert frames.shape == (7, 32, 32, 3)


@pytest.mark.slow
def test_a_native_model_shares_what_is_here_and_is_deleted_again(server: Server, hub: Hub, visit: Visit) -> None:
    page = visit(server.url, **AT_THE_MACHINE)
    open_models(page)
    native = row(page, "native")
    before = hub.bytes_of("vae/diffusion_pytorch_model.safetensors")
    native.get_by_role("button", name=re.compile("Download|Resume")).click()
    wait_for_state(page, "native", "here")
    assert hub.bytes_of("vae/diffusion_pytorch_model.safetensors") == before
    folder = server.data / "models" / "native"
    assert (folder / "transformer" / "diffusion_pytorch_model.safetensors").is_file()
    assert (folder / "vae" / "diffusion_pytorch_model.safetensors").is_symlink()
    native.get_by_role("button", name="Delete…").click()
    native.locator(".m-asked", has_text="What Tiny needs too is kept.").wait_for()
    native.get_by_role("button", name="Keep it").click()
    native.get_by_role("button", name="Delete…").click()
    native.locator(".m-asked", has_text="Deleting Native frees").wait_for()
    native.get_by_role("button", name="Delete", exact=True).click()
    wait_for_state(page, "native", "partial")  # the other one's files are still here
    assert not folder.exists()
    assert (server.data / "models" / "tiny" / "vae" / "diffusion_pytorch_model.safetensors").exists()


@pytest.mark.slow
def test_what_went_wrong_is_a_sentence_and_a_token_helps(server: Server, visit: Visit, shot: Shot) -> None:
    page = visit(server.url, **AT_THE_MACHINE)
    open_models(page)
    row(page, "broken").get_by_role("button", name="Download").click()
    row(page, "broken").locator(".m-message", has_text="There is no tests/none").wait_for()
    gated = row(page, "gated")
    assert "needs an access token" in gated.inner_text()
    gated.get_by_role("button", name="Download").click()
    gated.locator(".m-message", has_text="tests/gated is gated: accept its terms").wait_for()
    shot(page, "models-gated")
    token = page.get_by_label("Token of huggingface.co")
    assert token.get_attribute("type") == "password"
    token.fill("hf_wrong")
    page.get_by_role("button", name="Keep", exact=True).click()
    assert "does not know this access token" in toasts(page)[0]
    token.fill("hf_good")
    page.get_by_role("button", name="Keep", exact=True).click()
    page.locator(".m-help", has_text="There is one on this machine").wait_for()
    assert token.input_value() == "" and "hf_good" not in page.content()
    assert "The token of somebody is kept." in toasts(page)[0]
    gated.get_by_role("button", name="Download").click()
    wait_for_state(page, "gated", "here")
    page.get_by_role("button", name="Forget it").click()
    page.locator(".m-help", has_text="Only gated models need one").wait_for()


def test_a_folder_of_ones_own(server: Server, visit: Visit, tiny_mochi: Path, tmp_path: Path) -> None:
    page = visit(server.url, **AT_THE_MACHINE)
    open_models(page)
    nothing_of(page, "mine-b")
    place = page.get_by_label("Folder or file on this machine")
    place.fill(str(tmp_path / "nothing"))
    page.get_by_role("button", name="Use it").click()
    assert "There is no folder or file" in toasts(page)[0]
    (tmp_path / "mine <b>").symlink_to(tiny_mochi)
    place.fill(str(tmp_path / "mine <b>"))
    page.get_by_role("button", name="Use it").click()
    wait_for_state(page, "mine-b", "here")
    assert "mine <b>" in row(page, "mine-b").inner_text()
    # The form holds it when it goes: then the form goes back to the usual model.
    choose_model(page, "mine <b>")
    page.wait_for_function("document.querySelector('#length input[type=number]')?.value === '85'")
    open_models(page)
    row(page, "mine-b").get_by_role("button", name="Forget…").click()
    row(page, "mine-b").get_by_role("button", name="Take it off the list").click()
    row(page, "mine-b").wait_for(state="detached")
    assert (tiny_mochi / "model_index.json").is_file()
    page.get_by_role("tab", name="Create").click()
    page.wait_for_function("document.querySelector('#length input[type=number]')?.value !== '85'")
    before = shown(page)
    generate(page, "a red ball moves right")
    assert len(new_video(page, before, tmp_path)) > 0


@pytest.mark.slow
def test_a_lora_of_the_hub_by_its_address(server: Server, hub: Hub, visit: Visit, shot: Shot) -> None:
    names = tuple(f"transformer_blocks.{number}.attn1.to_q" for number in range(6))
    hub.add("tests/style", {"style.safetensors": lora_bytes(names, WIDE["mini"])})
    hub.add("tests/two", {"a.safetensors": b"", "b.safetensors": b""})
    page = visit(server.url, **AT_THE_MACHINE)
    open_models(page)
    place = page.get_by_label("Repository or address")
    place.fill("tests/two")
    page.get_by_role("button", name="Download it").click()
    assert "has 2 files: a.safetensors, b.safetensors. Say which" in toasts(page)[0]
    # A hub that answers slowly is waited for once, and the page says so.
    get = page.locator(".m-form button[type=submit]").first
    hub.rate = 2000
    place.fill("tests/style")
    page.get_by_role("button", name="Download it").click()
    page.get_by_role("button", name="Looking at the hub…").wait_for()
    assert get.is_disabled()
    hub.rate = 0
    lora = page.locator(".m-row", has_text="A LoRA of tests/style for mini.")
    lora.locator(".m-chip", has_text="ready").wait_for()
    assert place.input_value() == "" and get.is_enabled() and get.inner_text() == "Download it"
    lora.scroll_into_view_if_needed()
    shot(page, "models-lora")
    choose_model(page, "mini")
    page.locator("#advanced button").first.click()
    page.get_by_label("Add a LoRA").select_option("tests/style:style.safetensors")
    page.locator(".lora", has_text="style").wait_for()
    shot(page, "models-lora-chosen")
    open_models(page)
    lora.get_by_role("button", name="Delete…").click()
    lora.locator(".m-asked", has_text="Deleting style frees").wait_for()
    lora.get_by_role("button", name="Delete", exact=True).click()
    lora.wait_for(state="detached")


def test_a_stranger_may_look_and_no_more(server: Server, visit: Visit, shot: Shot) -> None:
    page = visit(server.url)
    open_models(page)
    page.locator(".m-host", has_text="Whoever runs this program adds models").wait_for()
    assert page.locator(".models button:visible").count() == 0
    assert page.locator(".models input:visible").count() == 0
    assert str(server.data) not in page.content()


def test_it_fits_a_phone_and_the_dark(server: Server, visit: Visit, shot: Shot) -> None:
    page = visit(server.url, **{**PHONE, **AT_THE_MACHINE})
    open_models(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shot(page, "models-phone")
    page = visit(f"{server.url}?__theme=dark", **AT_THE_MACHINE)
    open_models(page)
    row(page, "mochi-1").locator(".m-does").click()
    assert "Pusa V0.5 was trained for that" in row(page, "mochi-1").inner_text()
    shot(page, "models-dark")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(tmp_path_factory.mktemp("shared-models"), {"PUSA_TEST_FAKE": "1"}, "--shared")


def test_in_a_shared_app_nobody_does_it_from_the_page(shared: Server, visit: Visit) -> None:
    page = visit(shared.url, **AT_THE_MACHINE)
    open_models(page)
    page.locator(".m-host", has_text="Whoever runs this program adds models").wait_for()
    assert page.locator(".models button:visible").count() == 0
