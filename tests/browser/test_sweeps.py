"""Sweeps on the page, with the fake model: one that waits is edited, one that was cancelled shows what was made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Server, serve
from tests.browser.pages import generate, new_video, said, shown, steps, sweep_axis, toasts
from tests.browser.test_create import PHONE
from tests.browser.test_queue import LONG, open_create, open_queue, pause, press, wait_for_names, watch

pytestmark = pytest.mark.browser

Visit = Callable[..., Any]
Shot = Callable[..., None]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(tmp_path_factory.mktemp("sweeps"), {"PUSA_TEST_FAKE": "1", "PUSA_TEST_FAKE_DELAY": "0.3"})


def open_sweep(page: Any) -> None:
    page.locator("#sweep button").first.click()
    page.wait_for_selector("#sweep-run", state="visible")


def button_says(page: Any, button: str, words: str) -> None:
    page.wait_for_function(
        "([button, words]) => document.querySelector(button)?.checkVisibility() "
        "&& document.querySelector(button).textContent.trim() === words",
        arg=[button, words],
    )


def pause_empty(page: Any) -> None:
    """Pause the queue, in which nothing is then."""
    steps(page, LONG)
    generate(page, "runs")
    watch(page)
    pause(page)


def test_a_waiting_sweep_is_edited(server: Server, visit: Visit, shot: Shot) -> None:
    page = visit(server.url)
    pause_empty(page)
    page.fill("#steps input[type=number]", "1")
    page.fill("#prompt textarea", "a sweep")
    open_sweep(page)
    sweep_axis(page, 1, "Seed", "1-3")
    sweep_axis(page, 2, "Guidance", "1, 2")
    page.click("#sweep-run")
    page.locator(".stage-detail", has_text="paused").wait_for()
    page.fill("#prompt textarea", "something else")
    sweep_axis(page, 1, "Steps", "9")
    open_queue(page)
    wait_for_names(page, ["Sweep: a sweep"])
    press(page, "Sweep: a sweep", "edit")
    # The form has the sweep, and one button, which saves it.
    page.locator("#editing", has_text="You are editing a sweep that waits: a sweep").wait_for()
    button_says(page, "#sweep-run", "Save to the queue")
    page.wait_for_function("document.querySelector('#prompt textarea')?.value === 'a sweep'")
    values = "document.querySelector('#sweep-values-%d').querySelector('input, textarea').value === '%s'"
    page.wait_for_function(values % (1, "1-3"))
    page.wait_for_function(values % (2, "1, 2"))
    for number, kind in ((1, "Seed"), (2, "Guidance")):
        page.wait_for_function(f"document.querySelector('#sweep-kind-{number} input')?.value === '{kind}'")
    page.wait_for_selector("#generate", state="hidden")
    page.wait_for_selector("#count", state="hidden")
    shot(page, "sweep-editing")
    # What cannot be is said, and it is still edited.
    sweep_axis(page, 1, "Seed", "one")
    page.click("#sweep-run")
    assert toasts(page) == ["'one' cannot be a value of seed: write values such as 1-4."]
    button_says(page, "#sweep-run", "Save to the queue")
    sweep_axis(page, 1, "Seed", "7, 8")
    page.click("#sweep-run")
    button_says(page, "#generate", "Generate")
    button_says(page, "#sweep-run", "Run the sweep")
    page.wait_for_selector("#editing", state="hidden")
    open_queue(page)
    wait_for_names(page, ["Sweep: a sweep"])
    page.locator(".q-waiting .q-facts", has_text="4 videos").wait_for()
    page.locator(".q-pause", has_text="Go on").click()
    open_create(page)
    labels = "[...document.querySelectorAll('.cell')].map(e => e.textContent).join('|')"
    wanted = "|".join(["All together", *(f"seed {seed}, guidance {level}" for seed in (7, 8) for level in (1, 2))])
    page.wait_for_function(f"wanted => {labels} === wanted", arg=wanted)
    shot(page, "sweep-edited")


@pytest.mark.slow
def test_a_single_video_is_edited_without_a_sweep_beside_it(server: Server, visit: Visit) -> None:
    page = visit(server.url)
    pause_empty(page)
    generate(page, "a video")
    page.locator(".stage-detail", has_text="paused").wait_for()
    open_queue(page)
    press(page, "a video", "edit")
    button_says(page, "#generate", "Save to the queue")
    page.wait_for_selector("#sweep", state="hidden")
    page.click("#stop-editing")
    button_says(page, "#generate", "Generate")
    page.wait_for_selector("#sweep", state="visible")
    open_sweep(page)
    page.wait_for_function("document.querySelector('#sweep-kind-1 input')?.value === 'Seed'")
    open_queue(page)
    press(page, "a video", "cancel")
    wait_for_names(page, [])
    page.locator(".q-pause", has_text="Go on").click()


def test_the_cells_of_a_cancelled_sweep_are_seen(server: Server, visit: Visit, shot: Shot, tmp_path: Path) -> None:
    page = visit(server.url, **PHONE)
    page.fill("#prompt textarea", "stopped midway")
    open_sweep(page)
    sweep_axis(page, 1, "Steps", f"1, 2, {LONG}, 3")
    page.click("#sweep-run")
    said(page, ".stage-step", "Part 3 of 4: Step")
    page.click("#cancel")
    said(page, ".cells-note", "2 of 4 videos were made.")
    said(page, ".stage-title", "Cancelled")
    assert page.locator(".cell").all_inner_texts() == ["1 step", "2 steps"]
    assert page.evaluate("document.documentElement.scrollWidth") == 390, "nothing scrolls sideways"
    assert page.locator(".stage-detail").inner_text() == "The videos that were finished are below."
    shot(page, "sweep-cancelled")
    for number in (1, 2):
        before = shown(page)
        page.locator(".cell").nth(number - 1).click()
        assert len(new_video(page, before, tmp_path)) == 37
        said(page, "#caption", "1 step" if number == 1 else "2 steps")
        said(page, ".cells-note", "2 of 4 videos were made.")
    page.locator(".cell[aria-pressed=true]", has_text="2 steps").wait_for()
    shot(page, "sweep-cell")
    steps(page, 5)
    page.click("#reuse")
    page.wait_for_function("document.querySelector('#steps input[type=number]')?.value === '2'")
    # After a reload the queue leads there.
    page.reload()
    page.wait_for_selector("#generate")
    open_queue(page)
    page.locator(".q-ended .q-facts", has_text="2 of 4 videos were made").wait_for()
    shot(page, "sweep-queue")
    press(page, "Sweep: stopped midway", "see", "ended")
    said(page, ".cells-note", "2 of 4 videos were made.")
    page.wait_for_selector(".stage-title", state="visible")
