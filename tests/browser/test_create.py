"""Making videos on the page, as a visitor does, with the fake model."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browser.conftest import Server
from tests.browser.pages import choose, generate, keyframes, steps, upload, video_frames

pytestmark = pytest.mark.browser

PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "red.png"
    Image.new("RGB", (120, 90), (200, 30, 30)).save(path)
    return path


def test_a_prompt_becomes_a_video(
    server: Server, visit: Callable[..., Any], shot: Callable[..., None], tmp_path: Path
) -> None:
    page = visit(server.url)
    shot(page, "light-idle")
    generate(page, "a <b>blue</b> ${1+1} {{value}} thing")
    page.wait_for_selector(".stage.has-picture")
    page.wait_for_function("/Step \\d of 8/.test(document.querySelector('.stage-step')?.textContent)")
    page.wait_for_function("/left/.test(document.querySelector('.stage-left')?.textContent)")
    shot(page, "light-running")
    assert video_frames(page, tmp_path).shape == (37, 64, 64, 3)
    assert page.is_hidden("#stage") and page.is_hidden("#cancel")
    text = page.inner_text("#caption")
    assert "a <b>blue</b> ${1+1} {{value}} thing" in text and "37 frames" in text, "a prompt is text, not markup"
    box = page.locator("#player video").bounding_box()
    assert box["width"] > 500 and 300 < box["height"] <= 520, "small videos are shown large"
    page.wait_for_selector(".history-item[aria-current=true] img[src]")
    shot(page, "light-done")


def test_a_picture_becomes_the_first_frame(
    server: Server, visit: Callable[..., Any], shot: Callable[..., None], picture: Path, tmp_path: Path
) -> None:
    page = visit(server.url)
    choose(page, "Image to video")
    upload(page, picture)
    assert keyframes(page, 1) == ["slot 0, frame 0, noise 0: this exact frame"]
    shot(page, "light-image")
    generate(page, "something moves")
    frames = video_frames(page, tmp_path)
    assert frames.shape[0] == 37
    assert np.abs(frames[0].mean((0, 1)) - (200, 30, 30)).max() < 6
    assert np.abs(frames[20].mean((0, 1)) - (200, 30, 30)).max() > 6


def test_length_and_seed_are_taken(server: Server, visit: Callable[..., Any], tmp_path: Path) -> None:
    page = visit(server.url)
    page.fill("#length input[type=number]", "13")
    page.keyboard.press("Tab")
    page.wait_for_function("document.querySelectorAll('.te-well').length === 3")
    page.click("#random input")
    page.fill("#seed input", "77")
    generate(page, "blue")
    assert video_frames(page, tmp_path).shape[0] == 13
    assert "seed 77" in page.inner_text("#caption")


def test_cancel_stops_a_run(server: Server, visit: Callable[..., Any], shot: Callable[..., None]) -> None:
    page = visit(server.url)
    steps(page, 60)
    generate(page, "blue")
    page.wait_for_selector(".stage.has-picture")
    page.click("#cancel")
    page.locator(".stage-title", has_text="Cancelled").wait_for()
    assert page.is_hidden("#cancel") and page.is_hidden("#player")
    shot(page, "light-cancelled")


def test_a_mistake_is_told_at_its_control(
    server: Server, visit: Callable[..., Any], shot: Callable[..., None], tmp_path: Path, picture: Path
) -> None:
    page = visit(server.url)
    generate(page)
    page.locator("#prompt-note", has_text="few words").wait_for()
    choose(page, "Image to video")
    generate(page)
    page.locator("#image-note", has_text="needs a picture").wait_for()
    bad = tmp_path / "holiday.png"
    bad.write_text("this is no picture")
    upload(page, bad)
    page.locator("#image-note", has_text="holiday.png is not a picture").wait_for()
    shot(page, "light-bad-picture")
    upload(page, picture)
    page.wait_for_selector("#image-note", state="hidden")
    keyframes(page, 1)
    assert not list(server.data.glob("runs/*/bad*"))


def test_an_example_runs_in_one_click_and_its_settings_come_back(
    server: Server, visit: Callable[..., Any], tmp_path: Path
) -> None:
    page = visit(server.url)
    choose(page, "Image to video")
    page.get_by_role("button", name="Cross, moving up").click()
    assert video_frames(page, tmp_path).shape[0] == 37
    choose(page, "Text to video")
    page.fill("#prompt textarea", "something else")
    page.click("#reuse")
    page.wait_for_selector("#image-group", state="visible")
    page.wait_for_function("/yellow cross/.test(document.querySelector('#prompt textarea')?.value)")
    page.wait_for_selector("#image img")
    assert page.input_value("#seed input") == "2"
    assert page.get_by_role("tab", name="Image to video").get_attribute("aria-selected") == "true"


@pytest.mark.slow
def test_a_reload_finds_the_run_again_and_a_stranger_does_not(
    server: Server, visit: Callable[..., Any], tmp_path: Path
) -> None:
    page = visit(server.url)
    steps(page, 60)
    generate(page, "a run that outlives its page")
    page.wait_for_selector(".stage.has-picture")
    page.reload()
    page.wait_for_selector("#cancel", state="visible")
    stranger = visit(server.url)
    assert stranger.is_hidden("#history") and stranger.is_hidden("#cancel")
    assert video_frames(page, tmp_path).shape[0] == 37
    page.reload()
    page.wait_for_selector("#player video")
    assert "outlives" in page.inner_text("#history")
    page.locator(".history-item").first.click()
    assert stranger.is_hidden("#history")


@pytest.mark.slow
def test_light_dark_and_phone(server: Server, visit: Callable[..., Any], shot: Callable[..., None]) -> None:
    page = visit(server.url)
    assert "dark" not in (page.get_attribute("body", "class") or "")
    page.click(".top-theme")
    page.wait_for_function("document.body.classList.contains('dark')")
    page.reload()
    page.wait_for_function("document.body.classList.contains('dark')")
    shot(page, "dark-idle")
    generate(page, "blue")
    page.wait_for_selector(".stage.has-picture")
    shot(page, "dark-running")
    page.wait_for_selector("#player video")
    shot(page, "dark-done")
    for name in ("Models", "Help"):
        page.get_by_role("tab", name=name).click()
        page.wait_for_selector(f"#page-{name.lower()}", state="visible")
        shot(page, f"dark-{name.lower()}")

    phone = visit(server.url, **PHONE)
    shot(phone, "phone-idle")
    choose(phone, "Image to video")
    phone.get_by_role("button", name="Circle, moving right").click()
    phone.wait_for_selector(".stage.has-picture")
    shot(phone, "phone-running")
    phone.wait_for_selector("#player video")
    shot(phone, "phone-done")
    assert phone.evaluate("document.documentElement.scrollWidth") == 390, "nothing scrolls sideways"


@pytest.mark.slow
def test_a_dead_worker_is_told_in_words(
    server: Server, visit: Callable[..., Any], shot: Callable[..., None], tmp_path: Path
) -> None:
    import psutil

    def worker() -> psutil.Process:
        children = psutil.Process(server.process.pid).children()
        workers = [p for p in children if "spawn_main" in " ".join(p.cmdline())]
        assert len(workers) == 1
        return workers[0]

    page = visit(server.url)
    generate(page, "blue")
    page.wait_for_selector(".stage.has-picture")
    worker().kill()
    assert video_frames(page, tmp_path).shape[0] == 37, "what looks like a lack of memory is tried once more, with less"
    page.locator("#caption", has_text="smaller memory plan").wait_for()
    generate(page, "blue, again")
    page.wait_for_selector(".stage.has-picture")
    worker().send_signal(signal.SIGSEGV)
    page.wait_for_selector(".stage[data-state=failed]")
    assert "crashed" in page.inner_text(".stage-detail")
    shot(page, "light-failed")
    generate(page)
    assert video_frames(page, tmp_path).shape[0] == 37


def test_the_named_endpoints_make_a_video(server: Server, picture: Path, tmp_path: Path) -> None:
    import time

    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    from pusa_app import media

    client = Client(server.url, verbose=False, download_files=str(tmp_path))
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert set(named) == {"/generate", "/result", "/timeline"}
    job = client.predict("a thing moves", handle_file(str(picture)), frames=7, steps=2, api_name="/generate")
    assert re.fullmatch(r"[0-9a-f]{24}", job)
    deadline = time.monotonic() + 120
    while True:
        state, video = client.predict(job, api_name="/result")
        if state["state"] not in ("queued", "running"):
            break
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert state["state"] == "done", state
    path = video if isinstance(video, str) else video["path"]
    frames = media.read_frames(path)
    assert frames.shape == (7, 64, 64, 3)
    assert np.abs(frames[0].mean((0, 1)) - (200, 30, 30)).max() < 6
    for bad in ({"frames": 8}, {"steps": 100_000}, {"guidance": -1.0}, {"model": "/etc"}):
        with pytest.raises(AppError) as caught:
            client.predict("a thing", api_name="/generate", **bad)
        assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)
    with pytest.raises(AppError, match="no job"):
        client.predict("0" * 24, api_name="/result")
    with pytest.raises((AppError, ValueError)):
        client.predict("a thing", {"path": "/etc/hostname"}, api_name="/generate")


def test_the_data_folder_is_not_served(server: Server, visit: Callable[..., Any]) -> None:
    page = visit(server.url)
    secret = server.data / "secret"
    assert secret.is_file()
    for path in (secret, Path(__file__), server.data / "results"):
        assert page.request.get(f"{server.url}gradio_api/file={path}").status in (403, 404)
