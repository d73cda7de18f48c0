"""What a visitor does on the page, in words of the page."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import numpy as np

from pusa_app import media
from pusa_app.timeline import TASKS
from pusa_app.ui import strings
from tests.browser.conftest import playwright


def choose(page: Any, task: str) -> None:
    """Choose a task by its title and wait until the form has changed for it."""
    page.get_by_role("tab", name=task, exact=True).click()
    help_text = next(t.help for t in TASKS.values() if t.title == task)
    page.locator("#task-help", has_text=help_text).wait_for()


def generate(page: Any, prompt: str | None = None) -> None:
    if prompt is not None:
        page.fill("#prompt textarea", prompt)
    page.click("#generate")


def steps(page: Any, number: int) -> None:
    page.locator("#advanced button").first.click()
    page.fill("#steps input[type=number]", str(number))
    page.keyboard.press("Tab")


def upload(page: Any, path: Path, field: str = "image") -> None:
    """Put a file into an upload field, in the place of what is there."""
    clear = page.locator(f"#{field} button[aria-label=Clear]:visible")
    if clear.count():
        clear.click()
    page.set_input_files(f"#{field} input[type=file]", str(path))


def keyframes(page: Any, count: int) -> list[str]:
    """Wait for so many keyframes in the editor; what they say of themselves, in order of time."""
    page.wait_for_function(f"document.querySelectorAll('.te-card').length === {count}")
    return page.eval_on_selector_all(".te-card", "all => all.map(c => c.getAttribute('aria-valuetext'))")


def parts(page: Any, *frames: int) -> None:
    """Wait until the editor says that the result consists of pieces of so many frames; of none: of the timeline."""
    page.wait_for_function(
        "wanted => [...document.querySelectorAll('.te-part-frames')].map(e => e.textContent).join() === wanted",
        arg=",".join(map(str, frames)),
    )


def shown(page: Any) -> str:
    """The address of the video in the player; empty when there is none."""
    return page.evaluate("document.querySelector('#player video')?.currentSrc || ''")


def new_video(page: Any, before: str, folder: Path) -> np.ndarray:
    """Wait until the player shows another video than `before`, and return its frames."""
    page.wait_for_function(
        "before => { const v = document.querySelector('#player video'); return v && v.currentSrc && "
        "v.currentSrc !== before && !document.querySelector('#cancel')?.checkVisibility() }",
        arg=before,
    )
    return video_frames(page, folder)


def video_frames(page: Any, folder: Path) -> np.ndarray:
    """Wait for the player, see that it plays, and return the frames of what it shows: uint8 (n, H, W, 3)."""
    page.wait_for_selector("#player video")
    page.wait_for_function("document.querySelector('#player video')?.readyState >= 2")
    page.wait_for_function("document.querySelector('#player video')?.currentTime > 0")
    source = page.evaluate("document.querySelector('#player video').currentSrc")
    file = folder / "shown.mp4"
    file.write_bytes(page.request.get(source).body())
    return media.read_frames(file)


def type_number(page: Any, field: str, text: str) -> None:
    """Type into a field for a number, as far as it has one, and go elsewhere."""
    page.fill(f"#{field} input[type=number]", text)
    page.keyboard.press("Tab")


def said(page: Any, where: str, words: str) -> None:
    """Wait until a part of the page says something."""
    page.locator(f"{where} >> visible=true", has_text=words).first.wait_for()


def messages(page: Any) -> list[list[str]]:
    """What the page says is wrong: [[where, words], ...]. Notices of the editor are no mistakes."""
    return page.evaluate(
        "[...document.querySelectorAll('.note p, .te-warning, .te-alert, .toast-body')]"
        ".filter(e => e.checkVisibility() && e.innerText.trim())"
        ".map(e => [e.className, e.innerText.replace(/^Error\\s+×\\s+/, '').trim()])"
    )


def quiet(page: Any) -> None:
    """Wait until nothing is said to be wrong."""
    deadline = time.monotonic() + 60
    while found := messages(page):
        assert time.monotonic() < deadline, found
        page.wait_for_timeout(50)


def toasts(page: Any) -> list[str]:
    """The words of the toasts that come, which are then closed."""
    words: list[str] = []
    while not words:
        page.locator(".toast-body").first.wait_for()
        words = _on_toasts(page)
    page.wait_for_timeout(300)
    words += [text for text in _on_toasts(page) if text not in words]
    while page.locator(".toast-close").count():
        # They go by themselves too, also between the look and the click.
        with contextlib.suppress(playwright.TimeoutError):
            page.locator(".toast-close").first.click(timeout=2000)
        page.wait_for_timeout(250)
    return words


def _on_toasts(page: Any) -> list[str]:
    return [text for where, text in messages(page) if "toast" in where]


def sweep_axis(page: Any, number: int, kind: str, values: str) -> None:
    """Choose what a sweep varies; its fields must be open."""
    field = page.locator(f"#sweep-kind-{number} input")
    if field.input_value() != kind:
        field.click()
        # The other field's list may still be closing; the second has one entry more.
        page.locator(f"li[role=option][aria-setsize='{number + 4}'][aria-label='{kind}']").click()
        shown_now = page.locator(f"#sweep-keyframe-{number}")
        shown_now.wait_for(state="visible" if kind == "Noise" else "hidden")
        # The values of another kind are taken away; there may have been none, but an example comes with it.
        example = strings.SWEEP_EXAMPLES.get(kind.lower(), "")
        page.wait_for_function(
            "([number, example]) => { const field = document.querySelector(`#sweep-values-${number}`)"
            ".querySelector('input, textarea'); return field.value === '' && field.placeholder === example }",
            arg=[number, example],
        )
    page.locator(f"#sweep-values-{number}").locator("input, textarea").fill(values)


def run_sweep(page: Any) -> list[str]:
    """Run a sweep and wait for the grid of all; what its cells are called."""
    before = shown(page)
    page.click("#sweep-run")
    page.wait_for_function(
        "before => { const v = document.querySelector('#player video'); return v && v.currentSrc !== before && "
        "document.querySelectorAll('.cell').length > 0 && !document.querySelector('#cancel')?.checkVisibility() }",
        arg=before,
    )
    return page.locator(".cell").all_inner_texts()


def runs(server: Any) -> set[str]:
    """The folders of all runs that were ever enqueued."""
    return {path.name for path in server.data.glob("runs/*")}
