"""What a visitor does on the page, in words of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pusa_app import media
from pusa_app.timeline import TASKS


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
    page.wait_for_function("document.querySelector('#player video').readyState >= 2")
    page.wait_for_function("document.querySelector('#player video').currentTime > 0")
    source = page.evaluate("document.querySelector('#player video').currentSrc")
    file = folder / "shown.mp4"
    file.write_bytes(page.request.get(source).body())
    return media.read_frames(file)
