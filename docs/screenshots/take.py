"""The screenshots of the docs, taken from a running app with mini. Run: python docs/screenshots/take.py"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from playwright.sync_api import sync_playwright

from pusa_app.presets import FOLDER
from tests.browser.conftest import ARGUMENTS, CHROMIUM, serve
from tests.browser.pages import choose, generate, upload

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
PROMPT = "a cyan ring grows over a dark purple background"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        servers = serve(Path(folder), {"PUSA_TEST_FAKE": "0"})
        url = next(servers).url
        browser = play.chromium.launch(executable_path=next(p for p in CHROMIUM if Path(p).exists()), args=ARGUMENTS)

        def visit(size: dict[str, int], scheme: str = "light"):
            page = browser.new_context(viewport=size, color_scheme=scheme).new_page()
            page.set_default_timeout(180_000)
            page.goto(url)
            page.wait_for_selector("#generate")
            page.wait_for_function("localStorage.getItem('pusa-owner') !== null")
            return page

        def done(page, name: str) -> None:
            page.wait_for_selector("#player video")
            page.wait_for_function("document.querySelector('#player video').currentTime > 1")
            page.wait_for_timeout(500)
            page.screenshot(path=str(HERE / f"{name}.png"), full_page=True)

        page = visit(DESKTOP)
        generate(page, PROMPT)
        page.wait_for_selector(".stage.has-picture")
        page.screenshot(path=str(HERE / "running.png"), full_page=True)
        done(page, "text-to-video")
        choose(page, "Image to video")
        upload(page, FOLDER / "pictures" / "red-circle.png")
        page.wait_for_selector(".te-card")
        generate(page, "a red circle moves right over a dark blue background")
        page.wait_for_selector(".stage.has-picture")
        done(page, "image-to-video")
        for size, scheme, name in ((DESKTOP, "dark", "dark"), (PHONE, "light", "phone")):
            page = visit(size, scheme)
            generate(page, PROMPT)
            done(page, name)
        browser.close()
        servers.close()


if __name__ == "__main__":
    main()
