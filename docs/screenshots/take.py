"""The screenshots of the docs, from a running app with mini.

python docs/screenshots/take.py [TASK|presets|sweep|queue|library|compare|guide ...]

The guide and the page Models are those of an imagined machine with a card of 12 GB and no model but mini.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from PIL import Image
from playwright.sync_api import sync_playwright

from pusa_app.models.machine import imagined
from pusa_app.timeline import TASKS
from tests.browser.conftest import ARGUMENTS, CHROMIUM, serve
from tests.browser.pages import choose, shown

# Which of a task's presets is run for its picture.
EXAMPLES = {"keyframes": "Three keyframes", "loop": "Clip to loop", "extend": "Clean continuation"}
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 900}},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}
HUB = Path(tempfile.gettempdir()) / "huggingface"  # its name is on the page Models
VISITORS = {"light": "192.0.2.1", "dark": "192.0.2.2", "phone": "192.0.2.3"}
CLIPS = ("a red star spins over a dark blue background", "a yellow ring moves right", "a green cross grows on black")


def main(wanted: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=next(p for p in CHROMIUM if Path(p).exists()), args=ARGUMENTS)
        if wanted != ["guide"]:
            take_all(browser, Path(folder) / "mini", wanted)
        if "guide" in wanted or not wanted:
            take_guide(browser, Path(folder) / "guide")
        browser.close()


def take_all(browser: Any, folder: Path, wanted: list[str]) -> None:
    """The tasks and the pages, as they are with mini."""
    folder.mkdir()
    servers = serve(folder, {"PUSA_TEST_FAKE": "0"})
    url = next(servers).url
    for look, options in LOOKS.items():
        # Each look is a visitor of his own, with a queue and a library of his own.
        page = open_app(browser, url, **options, extra_http_headers={"X-Real-IP": VISITORS[look]})
        for name in TASKS:
            if name in wanted or not wanted:
                take_task(page, name, look)
        for name, take in PAGES.items():
            if name in wanted or not wanted:
                take(page, look)
    servers.close()


def take_guide(browser: Any, folder: Path) -> None:
    """What is offered on a machine that could run a real model, before the second click; and the page Models."""
    folder.mkdir()
    machine = imagined(12, 32, "NVIDIA GeForce RTX 3060", (8, 6)).model_dump_json()
    servers = serve(folder, {"PUSA_TEST_FAKE": "0", "PUSA_TEST_MACHINE": machine, "HF_HOME": str(HUB)})
    url = next(servers).url
    for look, options in LOOKS.items():
        page = open_app(browser, url, **options)
        page.locator("#guide .g-words").wait_for()
        page.locator("#guide .g-open").click()
        save(page, f"guide-{look}")
        open_page(page, "Models")
        page.wait_for_timeout(2000)
        save(page, f"models-{look}")
    servers.close()


def open_app(browser: Any, url: str, **options: Any) -> Any:
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(180_000)
    page.goto(url)
    page.wait_for_selector("#generate")
    page.wait_for_function("localStorage.getItem('pusa-owner') !== null")
    return page


def take_task(page: Any, name: str, look: str) -> None:
    """A task with the result of one of its presets."""
    choose(page, TASKS[name].title)
    chips = page.locator(".gallery-chip")
    chip = chips.filter(has_text=EXAMPLES[name]) if name in EXAMPLES else chips
    run(page, chip.first.click)
    save(page, f"{name}-{look}")


def take_gallery(page: Any, look: str) -> None:
    page.click(".gallery-more")
    page.wait_for_selector(".gallery-card")
    save(page, f"presets-{look}")
    page.click(".gallery-more")


def take_sweep(page: Any, look: str) -> None:
    choose(page, "Image to video")
    run(page, page.locator(".gallery-chip").first.click)
    page.locator("#sweep button").first.click()
    for axis, kind, values in ((1, "Noise", "0, 0.3, 0.7"), (2, "Seed", "1-3")):
        page.click(f"#sweep-kind-{axis} input")
        page.locator(f"#sweep-kind-{axis}").get_by_role("option", name=kind, exact=True).click()
        page.wait_for_timeout(1000)  # the fields beside it change for the kind
        page.fill(f"#sweep-values-{axis} textarea, #sweep-values-{axis} input", values)
    run(page, lambda: page.click("#sweep-run"))
    save(page, f"sweep-{look}")


def take_queue(page: Any, look: str) -> None:
    """A run under way and two that wait, one of them started again later."""
    choose(page, "Text to video")
    page.locator("#advanced button").first.click()
    page.fill("#steps input[type=number]", "200")
    for prompt in CLIPS:
        page.fill("#prompt textarea", prompt)
        page.click("#generate")
        page.wait_for_timeout(250)
    open_page(page, "Queue")
    page.wait_for_function("/Step [2-9]\\d/.test(document.querySelector('.q-running')?.innerText || '')")
    save(page, f"queue-{look}")
    open_page(page, "Create")
    page.wait_for_function("/Step 1\\d\\d/.test(document.querySelector('#stage')?.innerText || '')")
    save(page, f"running-{look}")
    page.wait_for_function("!document.querySelector('#page-queue-button')?.dataset.count")
    page.fill("#steps input[type=number]", "20")
    page.locator("#advanced button").first.click()


def take_library(page: Any, look: str) -> None:
    if not page.locator("#player video").count():
        choose(page, "Text to video")
        for number in range(3):
            run(page, page.locator(".gallery-chip").nth(number).click)
    open_page(page, "Library")
    page.wait_for_selector(".lib-open")
    for to in ("document.body.scrollHeight", "0"):  # pictures come when they are seen
        page.evaluate(f"scrollTo(0, {to})")
        page.wait_for_timeout(1500)
    save(page, f"library-{look}")
    page.locator(".lib-open").first.click()
    page.wait_for_function("document.querySelector('.lib-one video')?.currentTime > 0.5")
    save(page, f"video-{look}")
    page.locator(".lib-one .lib-quiet").first.click()


def take_compare(page: Any, look: str) -> None:
    open_page(page, "Library")
    page.wait_for_selector(".lib-open")
    boxes = page.locator(".lib-pick")
    for number in range(2):
        boxes.nth(number).click()
    page.get_by_role("button", name="Compare").click()
    page.wait_for_timeout(2000)
    save(page, f"compare-{look}")
    page.locator(".lib-pair .lib-quiet").first.click()


def open_page(page: Any, name: str) -> None:
    tab = page.get_by_role("tab", name=name)
    if not tab.is_visible():  # on a phone some are in a menu
        page.locator("#pages .overflow-menu > button").click()
        tab = page.locator("#pages .overflow-dropdown button", has_text=name)
    tab.click()
    page.wait_for_timeout(500)


def run(page: Any, start: Any) -> None:
    """Start a run and wait until its video plays."""
    before = shown(page)
    start()
    page.wait_for_function(
        "before => { const v = document.querySelector('#player video'); return v && v.currentSrc && "
        "v.currentSrc !== before && v.currentTime > 0.8 }",
        arg=before,
    )


def save(page: Any, name: str) -> None:
    page.mouse.move(5, 5)
    page.wait_for_timeout(500)
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    picture.quantize(192, dither=Image.Dither.NONE).save(HERE / f"{name}.png", optimize=True)


PAGES = {
    "presets": take_gallery,
    "sweep": take_sweep,
    "queue": take_queue,
    "library": take_library,
    "compare": take_compare,
}

if __name__ == "__main__":
    main(sys.argv[1:])
