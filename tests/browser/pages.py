"""What a visitor does on the page, in words of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pusa_app import media


def choose(page: Any, task: str) -> None:
    page.get_by_role("tab", name=task).click()
    page.wait_for_selector("#picture-group", state="visible" if task == "Image to video" else "hidden")


def generate(page: Any, prompt: str | None = None) -> None:
    if prompt is not None:
        page.fill("#prompt textarea", prompt)
    page.click("#generate")


def steps(page: Any, number: int) -> None:
    page.locator("#advanced button").first.click()
    page.fill("#steps input[type=number]", str(number))
    page.keyboard.press("Tab")


def upload(page: Any, path: Path) -> None:
    page.set_input_files("#picture input[type=file]", str(path))


def video_frames(page: Any, folder: Path) -> np.ndarray:
    """Wait for the player, see that it plays, and return the frames of what it shows: uint8 (n, H, W, 3)."""
    page.wait_for_selector("#player video")
    page.wait_for_function("document.querySelector('#player video').readyState >= 2")
    page.wait_for_function("document.querySelector('#player video').currentTime > 0")
    source = page.evaluate("document.querySelector('#player video').currentSrc")
    file = folder / "shown.mp4"
    file.write_bytes(page.request.get(source).body())
    return media.read_frames(file)
