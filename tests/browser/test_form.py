"""The form with the fake model: tasks, presets, sweeps, files; what goes wrong, and what must never run."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pusa_app import media
from pusa_app.timeline import TASKS
from tests.browser.conftest import Server, serve
from tests.browser.pages import (
    choose,
    generate,
    keyframes,
    messages,
    new_video,
    quiet,
    run_sweep,
    runs,
    said,
    shown,
    steps,
    sweep_axis,
    toasts,
    type_number,
    upload,
)

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=alert(1)> ${alert(1)} {{value}}"
RED, BLUE = (200, 30, 30), (30, 30, 200)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(tmp_path_factory.mktemp("form"), {"PUSA_TEST_FAKE": "1", "PUSA_TEST_FAKE_DELAY": "0.02"})


@pytest.fixture
def visitor(visit: Callable[..., Any], server: Server) -> Iterator[Callable[..., Any]]:
    """visitor(**options) -> a page on which nothing may be said to the console and no dialog may open."""
    trouble: list[str] = []

    def listen(message: Any) -> None:
        # Browsers write down answers of 422 (what a validator refuses) and 416 (an empty clip), and requests that end
        # with their page.
        if message.type == "error" and not re.search("422|416|AbortError|Connection errored", message.text):
            trouble.append(f"{message.text} {message.location}")

    def refuse(dialog: Any) -> None:
        trouble.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def open_page(**options: Any) -> Any:
        page = visit(server.url, **options)
        page.on("console", listen)
        page.on("dialog", refuse)
        return page

    yield open_page
    assert not trouble


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures and clips, sound and broken."""
    folder = tmp_path_factory.mktemp("files")
    for name, colour in (("red", RED), ("blue", BLUE)):
        Image.new("RGB", (120, 90), colour).save(folder / f"{name}.png")
    for name, count in (("clip", 37), ("short", 20), ("tiny", 3)):
        with media.ClipWriter(folder / f"{name}.mp4", 64, 64, 12) as writer:
            writer.write(np.stack([np.full((64, 64, 3), (5 * i, 100, 200 - 4 * i), np.uint8) for i in range(count)]))
    for name in ("empty.png", "empty.mp4"):
        (folder / name).touch()
    for name in ("text.png", "text.mp4"):
        (folder / name).write_text("this is neither a picture nor a clip")
    whole = (folder / "clip.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    # A sound file of films without a picture in it: its index says that there are 0 frames.
    riff = b"AVI LIST\x04\x00\x00\x00hdrlLIST\x04\x00\x00\x00movi"
    (folder / "none.avi").write_bytes(b"RIFF" + len(riff).to_bytes(4, "little") + riff)
    return folder


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_handle_of_a_slider_can_be_seen(server: Server, visit: Callable[..., Any], scheme: str) -> None:
    """Gradio's is white with a white ring, also on a white page."""
    page = visit(server.url, color_scheme=scheme)
    slider = page.locator("#length input[type='range']")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    around = {"x": box["x"], "y": box["y"] - 10, "width": box["width"], "height": box["height"] + 20}
    picture = np.array(Image.open(io.BytesIO(page.screenshot(clip=around))).convert("RGB"), dtype=int)
    seen = abs(picture - picture[0, 0]).sum(2) > 60
    bar, handle = (half.any(1).sum() for half in np.array_split(seen, 2, axis=1))
    assert 0 < 1.5 * bar < handle, "the handle, at the right end, is higher than the bar"


@pytest.mark.slow
def test_tabs_keep_what_was_entered(visitor: Callable[..., Any], files: Path) -> None:
    page = visitor()
    page.fill("#prompt textarea", "a thing moves")
    page.click("#random input")
    type_number(page, "seed", "77")
    steps(page, 5)
    type_number(page, "length", "25")
    page.wait_for_function("document.querySelectorAll('.te-well').length === 5")
    for task in TASKS.values():
        choose(page, task.title)
        page.wait_for_function(
            "count => [...document.querySelectorAll('.upload')].filter(e => e.checkVisibility()).length === count",
            arg=len(task.asks),
        )
        named = {"frames": {"more"}, "gap": {"gap_first", "gap_last"}}
        wanted: set[str] = set().union(*(named.get(option, {option}) for option in task.options))
        page.wait_for_function(
            "wanted => [...document.querySelectorAll('#options .block[id]')].filter(e => e.checkVisibility() && "
            "!e.id.endsWith('-note')).map(e => e.id).sort().join() === wanted",
            arg=",".join(sorted(wanted)),
        )
        values = [page.input_value(f"#{name} input[type=number]") for name in ("seed", "length", "steps")]
        assert values == ["77", "25", "5"] and page.input_value("#prompt textarea") == "a thing moves"
        assert not messages(page)

    # What is edited first of all stays.
    fresh = visitor()
    with fresh.expect_file_chooser() as chooser:
        fresh.click(".te-do-add")
    chooser.value.set_files(str(files / "red.png"))
    said(fresh, "#timeline-editor", "take the keyframes out")
    keyframes(fresh, 1)

    # What a task builds takes the place of the timeline; the editor can undo that.
    choose(page, "Image to video")
    upload(page, files / "red.png")
    keyframes(page, 1)
    choose(page, "Text to video")
    keyframes(page, 0)
    page.click(".te-do-undo")
    keyframes(page, 1)
    said(page, "#timeline-editor", "take the keyframes out")


@pytest.mark.slow
def test_presets(server: Server, visitor: Callable[..., Any], files: Path, tmp_path: Path) -> None:
    page = visitor()
    choose(page, "Start-end")
    chips = page.locator(".gallery-chip")
    assert "Soft arrival" in chips.all_inner_texts() and "Exact first frame" not in chips.all_inner_texts()
    page.get_by_role("button", name="All presets").click()
    tasks = page.locator(".gallery-task").all_inner_texts()
    assert tasks[0] == "Start-end" and set(tasks) == {task.title for task in TASKS.values()}

    # Use takes the files that were given, and says what is missing.
    upload(page, files / "red.png", "image")
    keyframes(page, 1)
    page.get_by_role("button", name="Use: Soft arrival").click()
    assert toasts(page) == ["Start-end needs a last frame: choose a picture."]
    upload(page, files / "blue.png", "end")
    before = keyframes(page, 2)
    page.fill("#prompt textarea", "from here to there")
    page.get_by_role("button", name="Use: Soft arrival").click()
    page.wait_for_selector(".te-card[aria-valuetext*='noise 0.5']")
    after = keyframes(page, 2)
    assert after != before and page.input_value("#prompt textarea") == "from here to there"
    # Ctrl+Z brings the old timeline back.
    page.locator(".te-card").first.focus()
    page.keyboard.press("Control+z")
    page.wait_for_selector(".te-card[aria-valuetext*='noise 0.3']")
    assert keyframes(page, 2) == before
    page.keyboard.press("Control+y")
    page.wait_for_selector(".te-card[aria-valuetext*='noise 0.5']")

    # The form as a preset: text in its title stays text, it stays over a reload, and nobody else sees it.
    page.locator(".gallery-save button").click()
    page.get_by_label("Name", exact=True).fill(HOSTILE)
    page.get_by_label("When to use it").fill(f"<b>always</b> {HOSTILE}")
    page.keyboard.press("Enter")
    mine = page.locator(".gallery-card", has_text=HOSTILE)
    mine.wait_for()
    assert mine.locator("img, b").count() == 0 and chips.filter(has_text=HOSTILE).count() == 1
    page.locator(".gallery-save button").click()
    page.get_by_label("Name", exact=True).fill(HOSTILE)
    page.keyboard.press("Enter")
    said(page, ".toast-body", f"There is a preset called {HOSTILE} already: choose another name, or delete it first.")
    page.reload()
    page.locator(".gallery-more").click()
    mine.wait_for()
    stranger = visitor()
    stranger.locator(".gallery-more").click()
    assert stranger.locator(".gallery-card").count() > 20 and stranger.locator(f"text={HOSTILE}").count() == 0
    mine.get_by_role("button", name="Delete").click()
    mine.wait_for(state="detached")
    page.reload()
    page.locator(".gallery-more").click()
    assert page.locator(".gallery-card", has_text=HOSTILE).count() == 0

    # Try needs nothing.
    count = len(runs(server))
    page.get_by_role("button", name="Try: Known ending").click()
    frames = new_video(page, "", tmp_path)
    assert len(frames) == 37 and len(runs(server)) == count + 1
    assert page.get_by_role("tab", name="Keyframes", exact=True).get_attribute("aria-selected") == "true"


def test_advice_and_length(server: Server, visitor: Callable[..., Any], files: Path) -> None:
    page = visitor()
    choose(page, "Start-end")
    upload(page, files / "red.png", "image")
    upload(page, files / "blue.png", "end")
    keyframes(page, 2)
    # Another length moves keyframes and says so; undo takes the length back too.
    type_number(page, "length", "25")
    said(page, ".te-notice", "Keyframe 2 moved from slot 6 to 4.")
    page.locator(".te-card").first.focus()
    page.keyboard.press("Control+z")
    page.wait_for_function("document.querySelector('#length input[type=number]')?.value === '37'")
    # A length that is typed digit by digit is out of reach on the way.
    page.click("#length input[type=number]")
    page.keyboard.press("Control+a")
    page.keyboard.type("13", delay=150)
    page.wait_for_function("document.querySelectorAll('.te-well').length === 3")
    assert not page.locator(".toast-body").count()
    type_number(page, "length", "7")
    keyframes(page, 2)
    page.locator(".te-card").nth(1).click()
    page.fill(".te-field-noise input", "0")
    page.keyboard.press("Enter")
    said(page, ".te-warning", "there is nothing to make")
    assert len(messages(page)) == 1
    before = runs(server)
    generate(page, "x")
    page.wait_for_timeout(700)
    assert len(messages(page)) == 1 and runs(server) == before
    type_number(page, "length", "13")
    page.locator(".te-card").nth(1).click()
    said(page, ".te-warning", "Only 1 slot is free between the clean slots 0 and 2")

    # Around a gap frames have places of their own: another length makes the timeline anew.
    choose(page, "Complete")
    upload(page, files / "clip.mp4", "clip")
    type_number(page, "length", "37")
    page.fill("#gap_first input", "13")
    type_number(page, "gap_last", "18")
    page.wait_for_function(
        "document.querySelector('.te-card')?.getAttribute('aria-valuetext').startsWith('slots 0 to 2, frames 0 to 12')"
    )
    type_number(page, "length", "25")
    page.wait_for_function("document.querySelectorAll('.te-well').length === 5")
    page.wait_for_function("document.querySelectorAll('.te-card').length === 2")
    page.wait_for_function("document.querySelectorAll('.te-part').length === 3")
    assert not messages(page), "a remapped timeline would have lost its place"
    generate(page)
    page.wait_for_selector("#player video")
    assert "37 frames" in page.inner_text("#caption")


@pytest.mark.slow
def test_sweeps(server: Server, visitor: Callable[..., Any], files: Path, tmp_path: Path) -> None:
    page = visitor()
    page.fill("#prompt textarea", f"sweep {HOSTILE}")
    page.locator("#sweep button").first.click()
    before = runs(server)
    table = (
        ("Seed", "abc", "'abc' cannot be a value of seed: write values such as 1-4."),
        ("Seed", "", "The sweep needs values for seed, with commas between them."),
        ("Seed", HOSTILE, f"'{HOSTILE[:40]}' cannot be a value of seed: write values such as 1-4."),
        ("Seed", "1-100", "100 videos are too many for a sweep: 64 are the most."),
        ("Noise", "0, 0.2", "There is no keyframe 1 to vary: the timeline has 0."),
        ("Preset", HOSTILE, "There is no preset called"),
    )
    for kind, values, words in table:
        sweep_axis(page, 1, kind, values)
        page.click("#sweep-run")
        assert [text[: len(words)] for text in toasts(page)] == [words]
    choose(page, "Start-end")
    upload(page, files / "red.png", "image")
    upload(page, files / "blue.png", "end")
    keyframes(page, 2)
    sweep_axis(page, 1, "Noise", "0, 0.6")
    page.fill("#sweep-keyframe-1 input", "9")
    page.click("#sweep-run")
    assert toasts(page) == ["There is no keyframe 9 to vary: the timeline has 2."]
    assert runs(server) == before, "nothing was enqueued"

    # One axis, which goes on over a reload.
    steps(page, 150)
    sweep_axis(page, 1, "Seed", "3, 4")
    page.click("#sweep-run")
    page.wait_for_selector("#cancel", state="visible")
    page.reload()
    page.wait_for_selector("#cancel", state="visible")
    page.wait_for_selector(".cell")
    assert page.locator(".cell").all_inner_texts() == ["All together", "seed 3", "seed 4"]
    assert page.locator(".history-title").first.inner_text() == f"Sweep: sweep {HOSTILE}"
    assert page.is_hidden("#extend") and page.is_hidden("#loop"), "the grid is no clip"

    # Two axes, noise and presets.
    choose(page, "Start-end")
    upload(page, files / "red.png", "image")
    upload(page, files / "blue.png", "end")
    keyframes(page, 2)
    page.fill("#prompt textarea", "x")
    page.locator("#sweep button").first.click()
    sweep_axis(page, 1, "Noise", "0, 0.6")
    page.fill("#sweep-keyframe-1 input", "2")
    sweep_axis(page, 2, "Preset", "Soft arrival, composition-only")
    labels = run_sweep(page)
    assert len(labels) == 5 and labels[3] == "slot 6 noise 0.6, Soft arrival"
    page.locator(".te-do-take").click()
    said(page, ".te-notice", "choose one of its videos")
    before_cell = shown(page)
    page.locator(".cell").nth(3).click()
    assert len(new_video(page, before_cell, tmp_path)) == 37
    assert "slot 6 noise 0.6" in page.inner_text("#caption") and page.is_visible("#extend")
    page.click("#reuse")
    page.wait_for_selector(".te-card[aria-valuetext*='noise 0.6']")
    page.locator(".te-do-take").click()
    assert len(keyframes(page, 3)) == 3


@pytest.mark.slow
def test_what_was_made_goes_on(visitor: Callable[..., Any], files: Path, tmp_path: Path) -> None:
    page = visitor()
    generate(page, "x")
    first = new_video(page, "", tmp_path)
    for task, button in (("Extend", "#extend"), ("Loop", "#loop")):
        page.click(button)
        page.wait_for_selector("#clip-group", state="visible")
        keyframes(page, 1 if task == "Extend" else 2)
        assert page.get_by_role("tab", name=task, exact=True).get_attribute("aria-selected") == "true"
        assert page.input_value("#prompt textarea") == "x" and not messages(page)
    before = shown(page)
    generate(page)
    assert len(new_video(page, before, tmp_path)) > len(first)

    # A clip made before goes onto the timeline; a file dropped on a slot too, and it is there in the result.
    choose(page, "Keyframes")
    page.click(".te-do-clear")
    keyframes(page, 0)
    page.locator(".te-cell[data-slot='3']").click()
    page.click(".te-do-library")
    page.locator(".te-entry").last.click()
    assert keyframes(page, 1)[0].startswith("slots 3 to")
    data = page.evaluate_handle(
        """async bytes => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], 'red.png', { type: 'image/png' }));
          return transfer;
        }""",
        list((files / "red.png").read_bytes()),
    )
    slot = page.locator(".te-cell[data-slot='0']")
    box = slot.bounding_box()
    at = {"clientX": box["x"] + box["width"] / 2, "clientY": box["y"] + box["height"] / 2}
    for event in ("dragenter", "dragover", "drop"):
        slot.dispatch_event(event, {"dataTransfer": data, **at})
    assert keyframes(page, 2)[0].startswith("slot 0, frame 0")
    before = shown(page)
    generate(page)
    frames = new_video(page, before, tmp_path)
    # A new keyframe has a noise that the model advises: the fake model brings it back exactly where it is 0.
    page.locator(".te-card").first.click()
    page.fill(".te-field-noise input", "0")
    page.keyboard.press("Enter")
    page.wait_for_selector(".te-card[aria-valuetext*='noise 0:']")
    before = shown(page)
    generate(page)
    frames = new_video(page, before, tmp_path)
    assert np.abs(frames[0].mean((0, 1)) - RED).max() < 6


BAD_FILES = (
    ("Image to video", "image", "empty.png", "empty.png is empty"),
    ("Image to video", "image", "text.png", "text.png is not a picture"),
    ("Extend", "clip", "empty.mp4", "empty.mp4 is empty"),
    ("Extend", "clip", "text.mp4", "text.mp4 is"),
    ("Extend", "clip", "none.avi", "none.avi"),
    ("Extend", "clip", "cut.mp4", "cut.mp4 is"),
)


def test_bad_files(server: Server, visitor: Callable[..., Any], shot: Callable[..., None], files: Path) -> None:
    page = visitor()
    before = runs(server)
    for task, field, name, words in BAD_FILES:
        choose(page, task)
        upload(page, files / name, field)
        said(page, f"#{field}-note", words)
        assert len(messages(page)) == 1 and not page.locator(".te-card").count()
    shot(page, "light-bad-clip")
    upload(page, files / "clip.mp4", "clip")
    page.wait_for_selector("#clip-note", state="hidden")
    # The same in the editor.
    choose(page, "Keyframes")
    keyframes(page, 1)  # what Extend made of the clip
    for name in ("empty.png", "text.mp4", "none.avi"):
        with page.expect_file_chooser() as chooser:
            page.click(".te-do-add")
        chooser.value.set_files(str(files / name))
        said(page, ".te-alert", name.split(".")[0])
        assert len(messages(page)) == 1
    keyframes(page, 1)
    assert runs(server) == before


@pytest.mark.slow
def test_bad_choices(server: Server, visitor: Callable[..., Any], shot: Callable[..., None], files: Path) -> None:
    page = visitor()
    before = runs(server)

    def refused(where: str, words: str) -> None:
        """Said once, before Generate is pressed and after."""
        said(page, where, words)
        assert len(messages(page)) == 1, messages(page)
        generate(page, "x")
        page.wait_for_timeout(600)
        assert [text for _, text in messages(page) if words in text] == [text for _, text in messages(page)] != []
        assert len(messages(page)) == 1 and runs(server) == before

    def missing(where: str, words: str) -> None:
        """Said when Generate is pressed."""
        quiet(page)
        generate(page)
        page.locator(where, has_text=words).wait_for()
        assert len(messages(page)) == 1 and runs(server) == before

    missing("#prompt-note", "few words")
    choose(page, "Keyframes")
    missing("#timeline-editor", "The timeline has no keyframe yet")
    choose(page, "Restyle")
    upload(page, files / "short.mp4", "clip")
    refused("#clip-note", "choose a length of at most 19 frames, or a longer clip")
    shot(page, "light-short-clip")
    type_number(page, "length", "19")
    keyframes(page, 1)
    for value in ("0", "1000000000"):
        type_number(page, "more", value)
        refused("#options-note", "use a whole number from 1 to")
    type_number(page, "more", "30")
    refused("#options-note", "The clip has 20 frames at 12 frames a second, but 30 are asked for")
    type_number(page, "more", "")
    page.wait_for_selector("#options-note", state="hidden")
    assert not messages(page)

    choose(page, "Complete")
    missing("#options-note", "Say which frames to make anew")
    for first, last, words in (
        ("9", "3", "The gap ends before it begins"),
        ("50", "60", "is not inside the clip, which goes from frame 0 to 19"),
        ("0", "19", "The gap is the whole clip"),
    ):
        page.fill("#gap_first input", first)
        type_number(page, "gap_last", last)
        refused("#options-note", words)
    shot(page, "light-bad-gap")

    choose(page, "Extend")
    upload(page, files / "tiny.mp4", "clip")
    keyframes(page, 1)
    page.get_by_label("Backwards").check()
    refused("#clip-note", "The clip has 3 frames at 12 frames a second, but its beginning needs 6")
    upload(page, files / "clip.mp4", "clip")
    keyframes(page, 1)
    page.get_by_label("Both").check()
    page.get_by_label("New frames only").check()
    refused("#options-note", "New frames at both ends do not make one clip")
    page.get_by_label("The whole clip").check()
    page.wait_for_selector("#options-note", state="hidden")
    type_number(page, "more", "99999")
    refused("#options-note", "ask for fewer frames")

    choose(page, "Transition")
    type_number(page, "length", "7")
    upload(page, files / "short.mp4", "clip_b")
    refused("#length-note", "A length of 7 frames leaves nothing between")
    type_number(page, "length", "37")
    keyframes(page, 2)
    assert not messages(page)
    upload(page, files / "tiny.mp4", "clip_b")
    refused("#clip_b-note", "its beginning needs 6")

    choose(page, "Text to video")
    page.click("#random input")
    type_number(page, "seed", "-5")
    missing("#seed-note", "A seed is a whole number")


def test_nothing_of_a_visitor_runs(server: Server, visitor: Callable[..., Any], files: Path, tmp_path: Path) -> None:
    """Prompt, negative prompt, names of files: text in history, captions, library, editor, errors."""
    page = visitor()
    name = "<img src=x onerror=alert(1)> ${alert(1)} {{value}}"
    picture, broken = tmp_path / f"{name}.png", tmp_path / f"{name}.mp4"
    picture.write_bytes((files / "red.png").read_bytes())
    broken.write_text("nothing")
    choose(page, "Image to video")
    upload(page, picture)
    keyframes(page, 1)
    steps(page, 2)
    page.fill("#negative textarea, #negative input", HOSTILE)
    generate(page, HOSTILE)
    new_video(page, "", tmp_path)
    assert HOSTILE in page.inner_text("#caption") and HOSTILE in page.inner_text("#history")
    page.locator(".te-card").first.click()
    page.click(".te-do-library")
    assert HOSTILE in page.inner_text(".te-panel-library")
    choose(page, "Extend")
    upload(page, broken, "clip")
    said(page, "#clip-note", "alert(1)")
    page.reload()
    page.wait_for_selector("#player video")
    assert HOSTILE in page.inner_text("#history")
    assert page.locator("img[src$=x], img[onerror]").count() == 0


def test_phone_and_dark(visitor: Callable[..., Any], shot: Callable[..., None], files: Path) -> None:
    for name, options in (
        ("dark", {"color_scheme": "dark"}),
        ("phone", {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}),
    ):
        page = visitor(**options)
        page.get_by_role("button", name="All presets").click()
        page.locator("#sweep button").first.click()
        page.wait_for_selector("#sweep-run", state="visible")
        shot(page, f"{name}-gallery-sweep")
        choose(page, "Restyle")
        upload(page, files / "short.mp4", "clip")
        said(page, "#clip-note", "choose a length")
        generate(page, "x")
        if name == "phone":
            page.wait_for_function(
                "() => { const box = document.querySelector('#clip-note p').getBoundingClientRect(); "
                "return box.top >= 0 && box.bottom <= innerHeight; }"
            )
            assert page.evaluate("document.documentElement.scrollWidth") == 390, "nothing scrolls sideways"
        shot(page, f"{name}-mistake")
        assert re.search("Restyle", page.inner_text("[role=tab][aria-selected=true][data-task]"))
