"""The Library on the page: found, starred, deleted and brought back, compared, gone on from, saved, dropped."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pusa_app import media
from pusa_app.errors import MediaError
from pusa_app.timeline import Recipe
from tests.browser.conftest import Server, serve
from tests.browser.pages import choose, generate, keyframes, run_sweep, steps, sweep_axis, toasts, upload
from tests.browser.test_create import PHONE

pytestmark = pytest.mark.browser
Visit = Callable[..., Any]
Shot = Callable[..., None]
CIRCLE, STAR, MARKUP = "a blue circle", "a yellow star", "<img src=x onerror=alert(1)> ${1+1} {{value}}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(tmp_path_factory.mktemp("library"), {"PUSA_TEST_FAKE": "1", "PUSA_TEST_FAKE_DELAY": "0"})


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "red.png"
    Image.new("RGB", (120, 90), (200, 30, 30)).save(path)
    return path


# --- what a visitor does ---------------------------------------------------------------------------------------------


def make(page: Any, *prompts: str) -> None:
    """Make videos one after another, and open the Library when all are there."""
    steps(page, 2)
    for prompt in prompts:
        before = page.evaluate("document.querySelector('#player video')?.currentSrc || ''")
        generate(page, prompt)
        page.wait_for_function(
            "before => { const v = document.querySelector('#player video'); return v?.currentSrc && "
            "v.currentSrc !== before }",
            arg=before,
        )
    library(page, len(prompts))


def library(page: Any, count: int) -> None:
    page.get_by_role("tab", name="Library").click()
    cards(page, count)


def cards(page: Any, count: int) -> list[str]:
    """Wait for so many cards; their titles in order."""
    page.wait_for_function("count => document.querySelectorAll('.lib-card').length === count", arg=count)
    return page.locator(".lib-title").all_inner_texts()


def open_card(page: Any, title: str) -> None:
    page.locator(".lib-open", has_text=title).click()
    page.wait_for_selector(".lib-one", state="visible")
    page.wait_for_function("document.querySelector('.lib-player')?.readyState >= 2")


def drop(page: Any, path: Path, on: str = "body") -> None:
    """Drop a file of this machine on a part of the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    kind = {".mp4": "video/mp4", ".png": "image/png", ".json": "application/json"}[path.suffix]
    page.evaluate(
        """async ([data, name, kind, on]) => {
            const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0)), carried = new DataTransfer();
            carried.items.add(new File([bytes], name, { type: kind }));
            for (const step of ['dragenter', 'dragover', 'drop'])
                document.querySelector(on).dispatchEvent(
                    new DragEvent(step, { dataTransfer: carried, bubbles: true, cancelable: true }));
        }""",
        [data, path.name, kind, on],
    )


def prompt_is(page: Any, words: str) -> None:
    page.wait_for_selector("#prompt textarea", state="visible")
    page.wait_for_function("words => document.querySelector('#prompt textarea')?.value === words", arg=words)


def save_as(page: Any, folder: Path, kind: str, *, quality: str = "", bare: bool = False) -> Path:
    """Save the open video; the file that the browser got."""
    if page.locator(".lib-save").is_hidden():
        page.get_by_role("button", name="Save as").click()
    page.locator(".lib-choice", has_text=kind).click()
    if quality:
        page.locator(".lib-choice", has_text=quality).click()
    box = page.locator(".lib-save .lib-check input")
    if box.is_checked() != bare:
        box.click()
    with page.expect_download() as waiting:
        page.locator(".lib-save .lib-main").click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


# --- finding and keeping ---------------------------------------------------------------------------------------------


def test_found_starred_deleted_and_back(server: Server, visit: Visit, shot: Shot) -> None:
    page = visit(server.url)
    page.get_by_role("tab", name="Library").click()
    page.locator(".lib-none", has_text="Your videos gather here").wait_for()
    shot(page, "library-empty")
    page.get_by_role("tab", name="Create").click()
    make(page, CIRCLE, STAR, MARKUP)
    assert cards(page, 3) == [MARKUP, STAR, CIRCLE], "the newest first, and a prompt is text"
    page.wait_for_function("document.querySelectorAll('.lib-picture[src^=\"data:image/jpeg\"]').length === 3")
    assert page.locator(".lib-usage").inner_text().startswith("3 videos, ")
    page.select_option(".lib-select[aria-label=Order]", "oldest")
    page.wait_for_function("document.querySelector('.lib-title')?.textContent === 'a blue circle'")
    page.fill(".lib-search", "STAR yellow")
    assert cards(page, 1) == [STAR]
    page.fill(".lib-search", "zebra")
    page.locator(".lib-none", has_text="No video matches").wait_for()
    page.get_by_role("button", name="Show all videos").click()
    cards(page, 3)
    page.select_option(".lib-select[aria-label=Task]", "loop")
    cards(page, 0)
    page.select_option(".lib-select[aria-label=Task]", "text-to-video")
    cards(page, 3)

    # With the keys alone: the second is starred, the first deleted and taken back.
    page.locator(".lib-open").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("f")
    page.locator(".lib-card", has_text=STAR).locator(".lib-star[aria-pressed=true]").wait_for()
    page.get_by_role("button", name="Favourites", exact=True).click()
    assert cards(page, 1) == [STAR]
    page.get_by_role("button", name="Favourites", exact=True).click()
    cards(page, 3)
    page.locator(".lib-open").first.focus()
    first = page.locator(".lib-title").first.inner_text()
    page.keyboard.press("Delete")
    assert first not in cards(page, 2)
    assert page.evaluate("document.activeElement.className") == "lib-open", "the focus stays in the list"
    page.wait_for_function("document.querySelector('.lib-usage')?.textContent.startsWith('2 videos')")
    page.get_by_role("button", name="Undo").click()
    assert first in cards(page, 3)
    for card in page.locator(".lib-pick").all()[:2]:
        card.click()
    page.locator(".lib-chosen", has_text="2 selected").wait_for()
    page.locator(".lib-chosen").get_by_role("button", name="Delete").click()
    page.locator(".lib-snack", has_text="Deleted 2 videos").wait_for()
    cards(page, 1)
    page.reload()
    page.wait_for_selector("#generate")
    library(page, 1)
    page.get_by_role("button", name="Deleted", exact=True).click()
    cards(page, 2)
    shot(page, "library-deleted")
    page.locator(".lib-back").first.click()
    cards(page, 1)
    page.get_by_role("button", name="Deleted", exact=True).click()
    cards(page, 2)


def test_what_was_all_deleted_can_be_had_back(server: Server, visit: Visit) -> None:
    page = visit(server.url)
    make(page, CIRCLE)
    page.locator(".lib-open").focus()
    page.keyboard.press("Delete")
    cards(page, 0)
    page.reload()
    page.wait_for_selector("#generate")
    library(page, 0)
    page.get_by_role("button", name="Deleted", exact=True).click()
    cards(page, 1)
    page.locator(".lib-open").focus()
    page.locator(".lib-back").click()
    page.get_by_role("button", name="Deleted", exact=True).click()
    assert cards(page, 1) == [CIRCLE]


def test_typing_asks_for_the_last_word_only(server: Server, visit: Visit) -> None:
    page = visit(server.url)
    make(page, CIRCLE, STAR)
    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.post_data or "") if "queue/join" in r.url else None)
    page.locator(".lib-search").press_sequentially("yellow star", delay=15)
    assert page.input_value(".lib-search") == "yellow star"
    assert cards(page, 1) == [STAR]
    searches = [text for text in asked if '"text":"' in text]
    assert 1 <= len(searches) <= 5 and '"text":"yellow star"' in searches[-1]


def test_what_is_made_meanwhile_appears(server: Server, visit: Visit) -> None:
    page = visit(server.url)
    steps(page, 2)
    generate(page, CIRCLE)
    library(page, 1)


@pytest.mark.slow
def test_two_visitors_see_their_own(server: Server, visit: Visit) -> None:
    page, stranger = visit(server.url), visit(server.url)
    make(page, CIRCLE)
    make(stranger, STAR)
    assert cards(stranger, 1) == [STAR] and cards(page, 1) == [CIRCLE]
    theirs = stranger.locator(".lib-card").get_attribute("data-id")
    # A program in the place of the script asks for the other's video.
    page.evaluate("id => document.querySelector('.lib-card').dataset.id = id", theirs)
    for event in ("f", "Delete"):
        page.locator(".lib-open").focus()
        page.keyboard.press(event)
    page.wait_for_timeout(500)
    stranger.reload()
    stranger.wait_for_selector("#generate")
    library(stranger, 1)
    assert stranger.locator(".lib-star").first.get_attribute("aria-pressed") == "false"


# --- one and two -----------------------------------------------------------------------------------------------------


def test_one_video_is_told_used_and_gone_on_from(server: Server, visit: Visit, shot: Shot) -> None:
    page = visit(server.url)
    make(page, CIRCLE, MARKUP)
    page.fill(".lib-search", "circle")
    cards(page, 1)
    open_card(page, CIRCLE)
    page.wait_for_function("document.querySelector('.lib-player')?.currentTime > 0.2")
    facts = dict(
        zip(page.locator(".lib-one dt").all_inner_texts(), page.locator(".lib-one dd").all_inner_texts(), strict=True)
    )
    assert facts["Prompt"] == CIRCLE and facts["Steps"] == "2" and facts["Frames"].startswith("37 at 12")
    recipe = Recipe.from_json(page.locator(".lib-recipe pre").evaluate("e => e.textContent"))
    assert recipe.prompt == CIRCLE and str(recipe.seed) == facts["Seed"]
    shot(page, "library-one")
    page.click(".lib-one .lib-check input")
    assert not page.evaluate("document.querySelector('.lib-player').loop")

    page.get_by_role("button", name="Use frame as keyframe").click()
    assert len(keyframes(page, 1)) == 1
    page.wait_for_selector("#prompt textarea", state="visible")
    page.get_by_role("tab", name="Library").click()
    page.get_by_role("button", name="Use settings").click()
    prompt_is(page, CIRCLE)
    assert page.input_value("#seed input") == facts["Seed"] and not page.is_checked("#random input")
    page.get_by_role("tab", name="Library").click()
    page.locator(".lib-acts").get_by_role("button", name="Extend").click()
    page.locator("[data-task=extend][aria-selected=true]").wait_for()
    page.wait_for_selector("#clip video")
    page.get_by_role("tab", name="Library").click()
    page.keyboard.press("Escape")
    page.locator(".lib-one .lib-quiet").click()
    page.wait_for_selector(".lib-grid", state="visible")
    assert page.input_value(".lib-search") == "circle", "one comes back to where one was"


@pytest.mark.slow
def test_a_sweep_is_one_entry(server: Server, visit: Visit) -> None:
    page = visit(server.url)
    steps(page, 2)
    page.fill("#prompt textarea", "swept")
    page.locator("#sweep button").first.click()
    sweep_axis(page, 1, "Seed", "5, 6")
    run_sweep(page)
    library(page, 1)
    assert page.locator(".lib-badge").inner_text() == "Sweep of 2"
    open_card(page, "swept")
    assert page.locator(".lib-acts").get_by_role("button", name="Extend").is_hidden(), "a grid is no clip"
    page.locator(".lib-chip", has_text="seed 6").click()
    page.locator(".lib-chip[aria-pressed=true]", has_text="seed 6").wait_for()
    page.locator(".lib-acts").get_by_role("button", name="Use settings").click()
    prompt_is(page, "swept")
    page.wait_for_function("document.querySelector('#seed input')?.value === '6'")


def test_two_are_compared_in_step(server: Server, visit: Visit, shot: Shot) -> None:
    page = visit(server.url)
    make(page, CIRCLE, STAR)
    page.locator(".lib-open").first.click(modifiers=["Control"])
    assert page.locator(".lib-chosen").get_by_role("button", name="Compare").is_disabled()
    page.locator(".lib-open").last.click(modifiers=["Shift"])
    page.locator(".lib-chosen").get_by_role("button", name="Compare").click()
    page.wait_for_selector(".lib-pair", state="visible")
    rows = page.locator(".lib-differences tbody tr").all_inner_texts()
    assert any(row.split("\t") == ["Prompt", STAR, CIRCLE] for row in rows), rows
    times = "[...document.querySelectorAll('.lib-side video')].map(v => v.currentTime)"
    page.wait_for_function(f"{times}.every(t => t > 0.3)")
    page.get_by_role("button", name="Pause").click()
    page.locator(".lib-scrub").fill("10")
    page.wait_for_function(f"{times}.every(t => Math.abs(t - 10.5 / 12) < 0.01)")
    page.get_by_role("button", name="Next frame").click()
    page.wait_for_function(f"{times}.every(t => Math.abs(t - 11.5 / 12) < 0.01)")
    assert page.locator(".lib-place").inner_text() == "frame 12 of 37"
    page.get_by_role("button", name="Wipe").click()
    page.locator(".lib-line").fill("25")
    cut = page.locator(".lib-side video").last.evaluate("v => getComputedStyle(v).clipPath")
    assert "25%" in cut
    shot(page, "library-wipe")
    page.locator(".lib-pair .lib-quiet").click()
    cards(page, 2)


# --- saved -----------------------------------------------------------------------------------------------------------


def test_saved_in_other_forms(server: Server, visit: Visit, tmp_path: Path) -> None:
    page = visit(server.url)
    make(page, CIRCLE)
    open_card(page, CIRCLE)
    whole = save_as(page, tmp_path, "MP4")
    assert Recipe.from_json(media.read_recipe_text(whole)).prompt == CIRCLE
    assert media.read_frames(whole).shape == (37, 64, 64, 3)
    gif = save_as(page, tmp_path, "GIF", bare=True)
    assert gif.suffix == ".gif" and Image.open(gif).n_frames == 37
    small = save_as(page, tmp_path, "WebM", quality="Small", bare=True)
    assert small.suffix == ".webm" and media.check_clip(small).num_frames == 37
    bare = save_as(page, tmp_path, "MP4", quality="High", bare=True)
    with pytest.raises(MediaError, match="no recipe"):
        media.read_recipe_text(bare)
    for path in (gif, small, bare):
        assert CIRCLE.encode() not in path.read_bytes()


# --- dropped ---------------------------------------------------------------------------------------------------------


def test_a_dropped_video_fills_the_form(
    server: Server, visit: Visit, shot: Shot, picture: Path, tmp_path: Path
) -> None:
    page = visit(server.url)
    choose(page, "Image to video")
    upload(page, picture)
    keyframes(page, 1)
    make(page, "out of a picture")
    open_card(page, "out of a picture")
    video = save_as(page, tmp_path, "MP4")
    page.locator(".lib-one .lib-quiet").click()
    page.get_by_role("tab", name="Create").click()
    choose(page, "Text to video")
    page.fill("#prompt textarea", "something else")
    page.get_by_role("tab", name="Library").click()
    page.wait_for_selector(".lib-card")
    drop(page, video, ".lib-grid")
    prompt_is(page, "out of a picture")
    page.wait_for_selector("#image img", state="visible")
    assert keyframes(page, 1) == ["slot 0, frame 0, noise 0: this exact frame"]
    assert page.get_by_role("tab", name="Image to video").get_attribute("aria-selected") == "true"

    # Another visitor gets the settings, and is told what is not his.
    stranger = visit(server.url)
    drop(stranger, video)
    prompt_is(stranger, "out of a picture")
    stranger.locator("#timeline-editor", has_text="The file of the keyframe in slot 0 is not here").wait_for()
    assert keyframes(stranger, 0) == [] and stranger.locator("#image img").count() == 0
    shot(stranger, "library-dropped")


def test_what_is_no_video_of_ours_is_told(server: Server, visit: Visit, picture: Path, tmp_path: Path) -> None:
    page = visit(server.url)
    page.fill("#prompt textarea", "mine")
    plain, broken = tmp_path / "plain.mp4", tmp_path / "broken.mp4"
    with media.ClipWriter(plain, 64, 64, 12) as writer:
        writer.write(np.full((7, 64, 64, 3), 90, np.uint8))
    broken.write_text("this is no video")
    for path, words in (
        (plain, "plain.mp4 has no recipe inside"),
        (broken, "broken.mp4 is not a video"),
        (picture, "red.png is not a video"),
    ):
        drop(page, path)
        (told,) = toasts(page)
        assert words in told and "\n\n" not in told
    assert page.input_value("#prompt textarea") == "mine"


def test_a_hostile_recipe_gets_nothing(server: Server, visit: Visit, picture: Path, tmp_path: Path) -> None:
    victim = visit(server.url)
    choose(victim, "Image to video")
    upload(victim, picture)
    keyframes(victim, 1)
    make(victim, "of the victim")
    theirs = next(path.parent.name for path in server.data.glob("runs/*/source-0.png"))
    page = visit(server.url)
    recipe = json.loads(next(iter(server.data.glob("results/of-the-victim-*.json"))).read_text())
    for number, source in enumerate(
        (
            f"../runs/{theirs}/source-0.png",
            str(server.data / "runs" / theirs / "source-0.png"),
            str(server.data / "secret"),
            "/etc/passwd",
        )
    ):
        recipe["timeline"]["keyframes"][0]["source"]["path"] = source
        recipe["prompt"] = f"evil {number}"
        video = tmp_path / "evil.mp4"
        with media.ClipWriter(video, 64, 64, 12, recipe_text=json.dumps(recipe)) as writer:
            writer.write(np.full((7, 64, 64, 3), 90, np.uint8))
        drop(page, video)
        prompt_is(page, recipe["prompt"])
        page.locator("#timeline-editor", has_text="is not here").wait_for()
        assert keyframes(page, 0) == [] and page.locator("#image img").count() == 0
    recipe["model"] = "/etc"
    video = tmp_path / "model.json"
    video.write_text(json.dumps(recipe))
    drop(page, video)
    assert "not on this machine" in toasts(page)[0]


# --- looks -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_how_it_looks(server: Server, visit: Visit, shot: Shot, look: str) -> None:
    options: dict[str, Any] = {"light": {}, "dark": {"color_scheme": "dark"}, "phone": PHONE}[look]
    page = visit(server.url, **options)
    make(page, CIRCLE, STAR, "a prompt that is so long that it does not fit into the two lines that a card has for it")
    page.wait_for_selector(".lib-picture[src]")
    shot(page, f"library-{look}")
    wide = "document.documentElement.scrollWidth <= window.innerWidth"
    assert page.evaluate(wide)
    for box in page.locator(".lib-pick").all()[:2]:
        box.click()
    page.get_by_role("button", name="Compare").click()
    page.wait_for_selector(".lib-differences td")
    shot(page, f"library-pair-{look}")
    assert page.evaluate(wide)
    page.locator(".lib-pair .lib-quiet").click()
    open_card(page, CIRCLE)
    page.get_by_role("button", name="Save as").click()
    page.locator(".lib-recipe summary").click()
    shot(page, f"library-one-{look}")
    assert page.evaluate(wide)
