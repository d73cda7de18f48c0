"""The timeline editor, used as a visitor uses it: mouse, finger, keys, files, the clipboard, and the API."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pusa_app import media
from pusa_app.timeline import ClipSource, ImageSource, Keyframe, Timeline
from tests.browser.conftest import PATIENCE, ROOT

pytestmark = pytest.mark.browser

PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}
NATURAL = "this frame with natural motion"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def url(cache: Path) -> Iterator[str]:
    """The demo: slot 0 and slot 2 pictures, slots 4 and 5 a clip of 30 frames from frame 3 on, 7 slots."""
    yield from serve(cache, "--keyframes", "3")


def serve(cache: Path, *arguments: str) -> Iterator[str]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    log = cache / "log"
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "pusa_app.ui.timeline_editor.demo", "--port", str(port), *arguments],
            env={**os.environ, "OMP_NUM_THREADS": "1", "GRADIO_TEMP_DIR": str(cache)},
            stdout=file,
            stderr=file,
            cwd=ROOT,
        )
    address = f"http://127.0.0.1:{port}/"
    deadline = time.monotonic() + PATIENCE
    try:
        while True:
            try:
                urllib.request.urlopen(address, timeout=30).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
        yield address
        trouble = [line for line in log.read_text().splitlines() if "Error" in line and "InvalidPathError" not in line]
        assert not trouble, log.read_text()
    finally:
        process.terminate()
        process.wait(30)


class Editor:
    """The editor on a page, in words of what is seen."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def texts(self) -> list[str]:
        """What the keyframes say of themselves, in the order of Tab."""
        return self.page.eval_on_selector_all(".te-card", "all => all.map(c => c.getAttribute('aria-valuetext'))")

    def wait(self, condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE / 3
        while not (value := condition()):
            assert time.monotonic() < deadline, (self.texts(), self.alert())
            self.page.wait_for_timeout(40)
        return value

    def told(self, condition: Callable[[Timeline], Any] = lambda t: True) -> Timeline:
        """The timeline that Python got, as soon as it is as expected."""

        def look() -> Timeline | None:
            text = self.page.input_value("#told textarea")
            timeline = Timeline.model_validate_json(text) if text else None
            return timeline if timeline is not None and condition(timeline) else None

        return self.wait(look)

    def slots(self) -> list[tuple[int, int]]:
        """Slot and span of each keyframe, in time."""
        found = self.page.evaluate(
            "[...document.querySelectorAll('.te-card')].map(c => [Number(c.getAttribute('aria-valuenow')),"
            " c.parentNode.querySelectorAll('.te-dot').length])"
        )
        return [(slot, span) for slot, span in found]

    def middle(self, selector: str, index: int = 0) -> tuple[float, float]:
        box = (
            self.page.locator(selector)
            .nth(index)
            .evaluate("n => { const r = n.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }")
        )
        return box[0], box[1]

    def slot(self, number: int) -> tuple[float, float]:
        """The middle of a slot's box on the lane."""
        return self.middle(".te-well", number)

    def drag(self, start: tuple[float, float], end: tuple[float, float], drop: bool = True) -> None:
        mouse = self.page.mouse
        mouse.move(*start)
        mouse.down()
        mouse.move(*end, steps=6)
        if drop:
            mouse.up()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def alert(self) -> str:
        return self.page.inner_text(".te-alert") if self.page.is_visible(".te-alert") else ""

    def add(self, *paths: Path) -> None:
        with self.page.expect_file_chooser() as chooser:
            self.page.click(".te-do-add")
        chooser.value.set_files([str(p) for p in paths])

    def python(self, name: str) -> None:
        """Press a button of the demo, by which Python changes something."""
        self.page.locator("#buttons").get_by_role("button", name=name, exact=True).click()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Editor]]:
    contexts, errors = [], []

    def open_page(url: str, **options: Any) -> Editor:
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        context.set_default_timeout(PATIENCE * 1000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: (errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        # The browser hands choosers over only once it has heard of the first listener; a key pressed at once after
        # `expect_file_chooser` can be faster.
        page.on("filechooser", lambda _: None)
        page.goto(url)
        page.wait_for_selector(".te-title")
        page.wait_for_selector(".te-cell")
        # Gradio's "Loading..." lies over the page a moment longer, and takes what a finger or a mouse does there.
        page.wait_for_selector(".app > .translucent", state="detached")
        return Editor(page)

    yield open_page
    for context in contexts:
        context.close()
    assert not errors


@pytest.fixture
def files(tmp_path: Path) -> Path:
    Image.new("RGB", (90, 120), (20, 160, 90)).save(tmp_path / "green.png")
    with media.ClipWriter(tmp_path / "short.mp4", 64, 48, 12.0) as writer:
        writer.write(np.stack([np.full((48, 64, 3), 12 * n, np.uint8) for n in range(14)]))
    with media.ClipWriter(tmp_path / "tiny.mp4", 64, 48, 12.0) as writer:
        writer.write(np.full((4, 48, 64, 3), 90, np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "fake.png").write_text("no picture either")
    return tmp_path


def test_mouse(url: str, visit: Callable[..., Editor], shot: Callable[..., None]) -> None:
    editor = visit(url)
    page = editor.page
    assert editor.slots() == [(0, 1), (2, 1), (4, 2)]
    assert editor.texts()[0] == f"slot 0, frame 0, noise 0.2: {NATURAL}"
    assert editor.texts()[2] == "slots 4 to 5, frames 19 to 30, noise 0.1 to 0.5"
    shot(page, "editor-light")

    # Moving: a taken slot is stepped over, an outline shows where it lands, Escape puts it back.
    editor.drag(editor.middle(".te-card", 1), editor.slot(3), drop=False)
    assert page.locator(".te-key.te-chosen .te-landing").is_visible()
    assert "slot 3, frames 13 to 18" in page.inner_text(".te-tip")
    shot(page, "editor-move")
    editor.press("Escape")
    page.mouse.up()
    assert editor.slots() == [(0, 1), (2, 1), (4, 2)]
    editor.drag(editor.middle(".te-card", 1), editor.slot(5))
    assert editor.slots()[1:] in ([(3, 1), (4, 2)], [(4, 2), (6, 1)]), "never on top of another"
    editor.told(lambda t: [k.slot for k in t.keyframes] == [s for s, _ in editor.slots()])
    page.click(".te-do-undo")
    editor.told(lambda t: t.keyframes[1].slot == 2)

    # Noise: in steps of 0.05, with Alt of 0.01; one slot of a clip, or all of them by the bar.
    x, y = editor.middle(".te-dot", 1)
    editor.drag((x, y), (x, y - 44))
    assert editor.told(lambda t: t.keyframes[1].noise == 0.7)
    x, y = editor.middle(".te-dot", 1)
    page.mouse.move(x, y)
    page.mouse.down()
    page.keyboard.down("Alt")
    page.mouse.move(x, y + 10, steps=3)
    page.keyboard.up("Alt")
    page.mouse.up()
    fine = editor.told(lambda t: t.keyframes[1].noise != 0.7).keyframes[1].noise
    assert 0.5 < fine < 0.65 and round(fine * 20) != fine * 20
    x, y = editor.middle(".te-dot", 3)
    editor.drag((x, y), (x, y - 200))
    assert editor.told(lambda t: t.keyframes[2].noise == (0.1, 1.0)), "clamped at 1"
    left, right = editor.middle(".te-dot", 2), editor.middle(".te-dot", 3)
    editor.drag(((left[0] * 3 + right[0]) / 4, left[1]), ((left[0] * 3 + right[0]) / 4, left[1] - 26))
    assert editor.told(lambda t: t.keyframes[2].noise == (0.4, 1.0)), "the bar moves both"
    path = page.get_attribute(".te-line", "d")
    assert path.count("H") == 7, "a step per slot"

    # The ends of a clip: the right one changes the length, the left one the start; the source sets a limit.
    edge = editor.middle("[data-kind=clip] .te-edge-right")
    editor.drag(edge, (edge[0] + 180, edge[1]))
    assert editor.told(lambda t: t.keyframes[2].span == 3).keyframes[2].noise == (0.4, 1.0, 1.0)
    edge = editor.middle("[data-kind=clip] .te-edge-left")
    editor.drag(edge, (edge[0] + 180, edge[1]))
    k = editor.told(lambda t: t.keyframes[2].slot == 5).keyframes[2]
    assert k.span == 2 and k.source.start == 9 and k.noise == 1.0
    edge = editor.middle("[data-kind=clip] .te-edge-left")
    editor.drag(edge, (edge[0] - 380, edge[1]), drop=False)
    assert "begins here" in page.inner_text(".te-tip")
    page.mouse.up()
    assert editor.told(lambda t: t.keyframes[2].span == 3).keyframes[2].source.start == 3
    page.mouse.click(*editor.slot(1))
    assert "Slot 1, frames 1 to 6: free" in page.inner_text(".te-inspector")


@pytest.mark.slow
def test_inspector(url: str, visit: Callable[..., Editor], files: Path, shot: Callable[..., None]) -> None:
    editor = visit(url)
    page = editor.page
    page.locator(".te-card").nth(2).click()
    shot(page, "editor-clip")

    def fill(name: str, text: str) -> None:
        page.fill(f".te-inspector [data-name={name}]", text)
        page.keyboard.press("Enter")

    fill("slot", "3")
    assert editor.told(lambda t: t.keyframes[2].slot == 3)
    fill("span", "9")
    assert editor.told(lambda t: t.keyframes[2].span == 4) and "it has 30 frames" in editor.alert()
    fill("start", "99")
    assert editor.told(lambda t: t.keyframes[2].source.start == 6), "as far as the source goes"
    fill("span", "3")
    strip = page.locator(".te-trim").bounding_box()
    y = strip["y"] + strip["height"] / 2
    editor.drag((strip["x"] + strip["width"] / 2, y), (strip["x"] + 5, y))
    assert editor.told(lambda t: t.keyframes[2].span == 3 and t.keyframes[2].source.start == 0)

    # Noise of a range: constant, rising, falling, or a number per slot.
    page.click("[data-name=shape-constant]")
    fill("level", "0.3")
    assert editor.told(lambda t: t.keyframes[2].noise == 0.3)
    page.click("[data-name=shape-rising]")
    fill("from", "0.1")
    fill("to", "0.5")
    assert editor.told(lambda t: t.keyframes[2].noise == (0.1, 0.3, 0.5))
    page.click("[data-name=shape-falling]")
    assert editor.told(lambda t: t.keyframes[2].noise == (0.5, 0.3, 0.1))
    fill("from", "0.1")
    fill("to", "0.2")
    assert editor.told(lambda t: t.keyframes[2].noise == (0.1, 0.15, 0.2)), "a ramp whose ends meet stays a ramp"
    page.click("[data-name=shape-list]")
    fill("values", "0.1, 0.2")
    assert "3 numbers from 0 to 1" in editor.alert()
    fill("values", "0.1, 0.2, 0.45")
    assert editor.told(lambda t: t.keyframes[2].noise == (0.1, 0.2, 0.45)) and editor.alert() == ""

    # Several keyframes at once.
    page.locator(".te-card").nth(0).click()
    page.locator(".te-card").nth(1).click(modifiers=["Shift"])
    assert "2 keyframes, 2 slots" in page.inner_text(".te-inspector")
    page.click("[data-name=shape-rising]")
    fill("to", "0.8")
    assert editor.told(lambda t: [k.noise for k in t.keyframes[:2]] == [0.2, 0.8])

    # A picture: noise, fit, and what of it is kept.
    page.locator(".te-card").nth(0).click()
    fill("noise", "0.35")
    page.click("[data-name=fit-pad]")
    assert editor.told(lambda t: t.keyframes[0].fit == "pad").keyframes[0].noise == 0.35
    page.click("[data-name=fit-crop]")
    box = page.locator(".te-focus").bounding_box()
    page.mouse.click(box["x"] + 4, box["y"] + 20)
    assert editor.told(lambda t: t.keyframes[0].focus == (0.0, 0.5))
    page.mouse.move(box["x"] + 4, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 120, box["y"] + 20, steps=4)
    editor.press("Escape")
    page.mouse.up()
    page.focus(".te-focus")
    editor.press("ArrowRight", "ArrowRight")
    assert editor.told(lambda t: t.keyframes[0].focus == (0.1, 0.5))

    # Replace, duplicate, delete.
    with page.expect_file_chooser() as chooser:
        page.click(".te-replace")
    chooser.value.set_files(str(files / "green.png"))
    assert editor.told(lambda t: t.keyframes[0].source.path.endswith("green.png")).keyframes[0].noise == 0.35
    page.click(".te-duplicate")
    assert [k.slot for k in editor.told(lambda t: len(t.keyframes) == 4).keyframes][1] == 1
    page.click(".te-delete")
    assert editor.told(lambda t: len(t.keyframes) == 3)


def test_keys(url: str, visit: Callable[..., Editor], shot: Callable[..., None]) -> None:
    editor = visit(url)
    page = editor.page
    focused = "document.activeElement"
    page.locator(".te-cell[tabindex='0']").focus()
    editor.press("Tab")
    assert page.evaluate(f"{focused}.getAttribute('aria-label')") == "Keyframe picture-0.png"
    order = []
    for _ in range(6):
        order.append(page.evaluate(f"{focused}.getAttribute('aria-label')"))
        editor.press("Tab")
    assert [o.split()[0] for o in order] == ["Keyframe", "Noise"] * 3, "keyframe and handle in turns, in time"
    assert page.evaluate(f"!document.querySelector('.te-tracks').contains({focused})"), "Tab leads out again"

    page.locator(".te-card").nth(0).focus()
    editor.press("ArrowRight")
    assert editor.slots()[0] == (1, 1)
    editor.press("ArrowRight")
    assert editor.slots() == [(2, 1), (3, 1), (4, 2)], "over the taken slot"
    assert page.evaluate(f"{focused}.getAttribute('aria-valuenow')") == "3", "the focus goes with it"
    editor.press("Home", "Shift+ArrowUp", "Alt+Shift+ArrowUp")
    assert editor.texts()[0] == f"slot 0, frame 0, noise 0.26: {NATURAL}"
    editor.press("End")
    assert editor.slots()[-1] == (6, 1)
    shot(page, "editor-keys")
    editor.press(*["Control+z"] * 4)
    assert editor.slots() == [(0, 1), (2, 1), (4, 2)], "presses in a row are one step"
    editor.press("Control+Shift+z", "Control+y", "Control+y")
    assert editor.told(lambda t: t.keyframes[0].noise == 0.26)
    editor.press(*["Control+z"] * 3)

    # Handles, and a clip's length.
    page.locator(".te-dot").nth(2).focus()
    editor.press("ArrowUp", "ArrowRight", "ArrowDown", "End")
    assert editor.told(lambda t: t.keyframes[2].noise == (0.15, 1.0))
    assert page.evaluate(f"{focused}.getAttribute('aria-valuetext')") == "slot 5, frames 25 to 30, noise 1: ignored"
    page.locator(".te-card").nth(2).focus()
    editor.press("Control+ArrowRight")
    assert editor.slots()[2] == (4, 3)

    editor.press("Control+a")
    assert "3 keyframes, 5 slots" in page.inner_text(".te-inspector")

    # The clipboard.
    page.locator(".te-card").nth(0).click()
    editor.press("Control+d")
    assert editor.slots() == [(0, 1), (1, 1), (2, 1), (4, 3)]
    editor.press("Control+x")
    assert len(editor.slots()) == 3
    editor.press("Control+v")
    assert len(editor.slots()) == 4
    editor.press("Control+c", "Delete", "Control+v")
    assert len(editor.slots()) == 4
    editor.press("Control+v")
    assert [s for s, _ in editor.slots()] == [0, 1, 2, 3, 4]
    editor.press("Control+v")
    assert "Every slot is taken" in editor.alert()
    page.click(".te-do-clear")
    assert editor.told(lambda t: not t.keyframes)
    page.locator(".te-cell[tabindex='0']").focus()
    editor.press("ArrowRight", "ArrowRight")
    assert "Slot 2" in page.inner_text(".te-inspector")
    with page.expect_file_chooser():
        editor.press("Enter")
    page.click(".te-do-help")
    assert "cancel a drag" in page.inner_text(".te-panel-help")
    shot(page, "editor-help")
    editor.press("Escape")
    assert page.is_hidden(".te-panel-help")


def dropped(editor: Editor, path: Path, where: tuple[float, float], *events: str) -> None:
    """Drag a file over the editor, as far as the events go."""
    data = base64.b64encode(path.read_bytes()).decode()
    kind = {".png": "image/png", ".mp4": "video/mp4", ".json": "application/json"}.get(path.suffix, "")
    transfer = editor.page.evaluate_handle(
        "([data, name, type]) => { const t = new DataTransfer();"
        " t.items.add(new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], name, { type })); return t; }",
        [data, path.name, kind],
    )
    for event in events:
        options = {"dataTransfer": transfer, "clientX": where[0], "clientY": where[1]}
        editor.page.dispatch_event(".te", event, options)


def test_files(url: str, visit: Callable[..., Editor], files: Path, shot: Callable[..., None]) -> None:
    editor = visit(url)
    page = editor.page
    evil = files / '<img src=x onerror="alert(1)"> ${alert(1)} {{value}}.png'
    (files / "green.png").rename(evil)

    editor.add(evil, files / "short.mp4")
    timeline = editor.told(lambda t: len(t.keyframes) == 5)
    assert [k.slot for k in timeline.keyframes] == [0, 1, 2, 3, 4]
    assert timeline.keyframes[1].noise == 0.2
    added = timeline.keyframes[3]
    assert added.source.kind == "clip" and added.span == 1
    assert evil.name in page.locator(".te-card").nth(1).get_attribute("aria-label")
    page.locator(".te-card").nth(1).click()
    assert page.inner_text(".te-name") == evil.name, "a name is text"
    assert page.locator(".te img[onerror]").count() == 0
    shot(page, "editor-evil")
    page.click(".te-delete")

    # What is no picture and no clip, in words; nothing is added.
    for name, words in (("notes.txt", "neither a picture nor a clip"), ("fake.png", "not a picture that can be read")):
        editor.add(files / name)
        editor.wait(lambda words=words: words in editor.alert())
        assert len(editor.slots()) == 4
    page.mouse.click(*editor.slot(6))
    editor.add(files / "tiny.mp4")
    editor.wait(lambda: "has 4 frames, but a slot after the first takes 6" in editor.alert())
    assert len(editor.slots()) == 4

    # Dropping: the slot is marked, and the file lands there.
    dropped(editor, evil, editor.slot(6), "dragenter", "dragover")
    assert page.locator(".te-cell").nth(6).evaluate("c => c.classList.contains('te-drop')")
    shot(page, "editor-drop")
    dropped(editor, evil, editor.slot(6), "drop")
    assert editor.told(lambda t: len(t.keyframes) == 5).keyframes[4].slot == 6
    assert page.locator(".te-drop").count() == 0

    # A picture from the clipboard.
    page.evaluate(
        """async () => {
          const canvas = Object.assign(document.createElement('canvas'), { width: 20, height: 10 });
          canvas.getContext('2d').fillRect(0, 0, 20, 10);
          const blob = await new Promise(done => canvas.toBlob(done));
          await navigator.clipboard.write([new ClipboardItem({ 'image/png': blob })]);
        }"""
    )
    page.locator(".te-cell[tabindex='0']").focus()
    editor.press("Control+v")
    assert editor.told(lambda t: len(t.keyframes) == 6).keyframes[1].slot == 1
    page.click(".te-do-add")
    editor.wait(lambda: "Every slot is taken" in editor.alert())

    # A lost connection.
    page.click(".te-do-clear")
    editor.told(lambda t: not t.keyframes)
    page.route("**/upload**", lambda route: route.abort())
    editor.add(evil)
    editor.wait(lambda: "could not be uploaded" in editor.alert())
    assert editor.slots() == [] and page.locator(".te-pending").count() == 0


def test_save_and_load(url: str, visit: Callable[..., Editor], files: Path, cache: Path) -> None:
    editor = visit(url)
    page = editor.page
    page.locator(".te-card").nth(2).click()
    editor.press("Shift+ArrowUp")
    before = editor.told(lambda t: t.keyframes[2].noise == (0.15, 0.55))
    with page.expect_download() as download:
        page.click(".te-do-save")
    saved = files / "timeline.json"
    download.value.save_as(saved)
    data = json.loads(saved.read_text())
    assert data["pusa_timeline"] == 1 and len(data["files"]) == 3
    assert all(f.startswith(("data:image/", "data:video/")) for f in data["files"].values())

    page.click(".te-do-clear")
    editor.told(lambda t: not t.keyframes)
    # As if on another machine: the paths lead nowhere there.
    elsewhere = json.loads(saved.read_text().replace(str(cache), "/elsewhere"))
    saved.write_text(json.dumps(elsewhere))
    with page.expect_file_chooser() as chooser:
        page.click(".te-do-load")
    chooser.value.set_files(str(saved))
    after = editor.told(lambda t: len(t.keyframes) == 3)

    def facts(t: Timeline) -> list[Any]:
        return [(k.slot, k.span, k.noise, k.fit, k.focus, k.source.kind) for k in t.keyframes]

    assert facts(after) == facts(before) and after.keyframes[2].source.start == 3
    page.click(".te-do-undo")
    editor.told(lambda t: not t.keyframes)
    page.click(".te-do-redo")
    editor.told(lambda t: len(t.keyframes) == 3)

    def broken(change: Callable[[dict[str, Any]], Any]) -> str:
        copy = json.loads(saved.read_text())
        change(copy)
        path = files / "broken.json"
        path.write_text(json.dumps(copy))
        page.evaluate("document.querySelector('.te-alert').textContent = ''")
        dropped(editor, path, editor.slot(0), "drop")
        return editor.wait(editor.alert)

    assert "is not a saved timeline" in broken(lambda d: d.pop("pusa_timeline"))
    assert "is not a saved timeline" in broken(lambda d: d.pop("grid"))
    assert "at most 60" in broken(lambda d: d["grid"].update(num_frames=6001))
    assert "Keyframe 1" in broken(lambda d: d["keyframes"][0].update(noise=["x"]))
    assert "Keyframe 3" in broken(lambda d: d["keyframes"][2].update(slot=0))
    assert "Keyframe 3" in broken(lambda d: d["keyframes"][2].update(start=29))
    assert "neither in broken.json nor on this machine" in broken(lambda d: d.update(files={}))
    assert "neither" in broken(lambda d: d["keyframes"][0].update(file="/etc/passwd"))
    assert len(editor.slots()) == 3 and len(editor.told().keyframes) == 3, "nothing changed"

    # A file that is not in it is found where it was, on the same machine.
    there = json.loads(saved.read_text().replace("/elsewhere", str(cache)))
    saved.write_text(json.dumps({**there, "files": {}}))
    page.click(".te-do-clear")
    editor.told(lambda t: not t.keyframes)
    dropped(editor, saved, editor.slot(0), "drop")
    assert facts(editor.told(lambda t: len(t.keyframes) == 3)) == facts(before)
    page.locator(".te-card").nth(0).click()
    page.wait_for_function("document.querySelector('.te-focus img')?.naturalWidth === 180")


def test_advice_that_comes_while_somebody_types_takes_nothing_away(url: str, visit: Callable[..., Editor]) -> None:
    editor = visit(url)
    page = editor.page
    page.locator(".te-card").nth(0).click()
    page.click(".te-field-noise input")
    page.keyboard.press("Control+a")
    page.keyboard.type("0.4")
    page.locator("#buttons").get_by_role("button", name="Advice", exact=True).evaluate("button => button.click()")
    page.wait_for_selector(".te-band")
    assert editor.texts()[0].startswith("slot 0, frame 0, noise 0.2"), "half a number does not count"
    page.keyboard.type("5")
    page.keyboard.press("Enter")
    assert editor.told(lambda t: t.keyframes[0].noise == 0.45)


def test_a_typed_number_is_taken_when_another_keyframe_is_pressed(url: str, visit: Callable[..., Editor]) -> None:
    editor = visit(url)
    page = editor.page
    page.locator(".te-card").nth(0).click()
    page.fill(".te-inspector [data-name=noise]", "0.45")
    page.mouse.click(*editor.middle(".te-card", 1))
    assert [k.noise for k in editor.told(lambda t: t.keyframes[0].noise == 0.45).keyframes[:2]] == [0.45, 0.2]
    assert page.inner_text(".te-name") == "picture-1.png"


def test_a_file_that_arrives_during_a_drag(url: str, visit: Callable[..., Editor], files: Path) -> None:
    editor = visit(url)
    page = editor.page
    held: list[Any] = []

    def hold(route: Any) -> None:
        held.append(route)

    page.route("**/upload**", hold)
    editor.add(files / "green.png")
    editor.wait(lambda: held)
    x, y = editor.middle(".te-card", 1)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(*editor.slot(3), steps=4)
    with page.expect_response(lambda response: "component_server" in response.url):
        held[0].continue_()
    page.wait_for_timeout(300)
    assert len(editor.slots()) == 3
    page.mouse.move(*editor.slot(6), steps=4)
    page.mouse.up()
    timeline = editor.told(lambda t: len(t.keyframes) == 4)
    assert [k.slot for k in timeline.keyframes] == [0, 1, 4, 6] == [s for s, _ in editor.slots()]
    page.click(".te-do-undo")
    assert [k.slot for k in editor.told(lambda t: len(t.keyframes) == 3).keyframes] == [0, 4, 6]


def test_several_keyframes_without_a_mouse(url: str, visit: Callable[..., Editor]) -> None:
    editor = visit(url)
    page = editor.page
    page.locator(".te-cell[tabindex='0']").focus()
    editor.press("Tab", "Space", "Tab", "Tab", "Tab", "Tab", "Space")
    assert "2 keyframes, 3 slots" in page.inner_text(".te-inspector")
    assert page.get_attribute(".te-several", "aria-pressed") == "true"
    editor.press("Shift+ArrowUp")
    told = editor.told(lambda t: t.keyframes[0].noise == 0.25)
    assert [k.noise for k in told.keyframes] == [0.25, 0.2, (0.15, 0.55)]
    # Above a keyframe the curve belongs to it.
    page.mouse.click(editor.slot(2)[0], editor.middle(".te-axis-mark", 0)[1])
    assert "picture-1.png is here" in page.inner_text(".te-inspector")
    page.click(".te-choose-it")
    assert page.inner_text(".te-name") == "picture-1.png"


def test_python_changes_the_editor(url: str, visit: Callable[..., Editor], shot: Callable[..., None]) -> None:
    editor = visit(url)
    page = editor.page
    page.locator(".te-card").nth(0).focus()
    editor.press("ArrowRight")
    editor.told(lambda t: t.keyframes[0].slot == 1)
    editor.python("Preset")
    editor.wait(lambda: len(editor.slots()) == 2)
    page.wait_for_timeout(500)
    assert len(editor.told().keyframes) == 3, "a change by Python is not told to Python"
    page.click(".te-do-undo")
    assert editor.told(lambda t: t.keyframes[0].slot == 1 and len(t.keyframes) == 3), "but its undoing is"
    page.click(".te-do-undo")
    assert editor.told(lambda t: t.keyframes[0].slot == 0)
    for _ in range(2):
        page.click(".te-do-redo")
    assert editor.told(lambda t: len(t.keyframes) == 2)

    editor.python("Shorter")
    editor.wait(lambda: page.locator(".te-cell:not(.te-after)").count() == 4)
    assert "The clip is shorter now." in page.inner_text(".te-notice")
    assert page.locator(".te-notice").get_attribute("role") == "status"
    editor.wait(lambda: "after the end of the clip" in page.inner_text(".te-under"))
    shot(page, "editor-shorter")
    page.click(".te-do-undo")
    assert editor.told(lambda t: t.grid.num_frames == 37)

    for name in ("Advice", "Result", "Library"):
        editor.python(name)
    page.wait_for_selector(".te-band")
    page.wait_for_selector(".te-part")
    page.wait_for_selector(".te-do-library")
    assert "natural motion the first frame needs" in page.inner_text(".te-advice")
    assert page.locator(".te-warning").get_attribute("role") == "status"
    assert [p.split()[-1] for p in page.locator(".te-part").all_inner_texts()] == ["48", "37", "24"]
    assert len(editor.slots()) == 2, "the value is left alone"
    page.click(".te-do-library")
    entry = page.locator(".te-entry")
    assert entry.inner_text() == "a <b>cat</b> {{value}}"
    shot(page, "editor-library")
    entry.click()
    page.wait_for_function("/^library_pick one \\d$/.test(document.querySelector('#event textarea')?.value)")
    editor.told(lambda t: len(t.keyframes) == 3 and any(k.source.path.endswith("made.mp4") for k in t.keyframes))

    page.wait_for_selector(".te-do-take")
    page.evaluate("document.querySelector('#player video').currentTime = 1")
    page.wait_for_function("document.querySelector('#player video')?.currentTime === 1")
    page.wait_for_selector(".te-playhead")
    line = page.locator(".te-playhead").bounding_box()["x"]
    cell = page.locator(".te-cell").nth(2).bounding_box()
    assert cell["x"] < line < cell["x"] + cell["width"], "1 s is frame 12, the last of slot 2"
    shot(page, "editor-playhead")
    page.click(".te-do-take")
    # The program takes its time for it, and what is done meanwhile stands.
    page.locator(".te-card").nth(0).click()
    editor.press("Shift+ArrowUp")
    after = editor.told(lambda t: len(t.keyframes) == 4)
    assert after.keyframes[0].noise == 0.25 and sum(k.source.path.endswith("frame.png") for k in after.keyframes) == 1
    editor.wait(lambda: page.locator(".te-pending").count() == 0)
    page.wait_for_function("/^take \\d 1.00$/.test(document.querySelector('#event textarea')?.value)")
    page.click(".te-do-undo")
    assert editor.told(lambda t: len(t.keyframes) == 3).keyframes[0].noise == 0.25
    ruler = page.locator(".te-ruler").bounding_box()
    page.mouse.click(ruler["x"] + 10, ruler["y"] + 10)
    page.wait_for_function("document.querySelector('#player video')?.currentTime < 0.08")
    page.evaluate("document.querySelector('#player video').remove()")
    page.wait_for_selector(".te-do-take", state="hidden")

    editor.python("Lock")
    page.wait_for_selector(".te-readonly")
    x, y = editor.middle(".te-dot", 0)
    editor.drag((x, y), (x, y - 40))
    page.locator(".te-card").nth(0).focus()
    editor.press("ArrowRight", "Delete", "Control+z")
    assert editor.slots()[0][0] == 0 and len(editor.slots()) == 3
    assert page.is_disabled(".te-do-add") and page.is_disabled(".te-inspector input >> nth=0")
    editor.python("Unlock")
    page.wait_for_selector(".te:not(.te-readonly)")


def touch(editor: Editor, start: tuple[float, float], end: tuple[float, float], steps: int = 8) -> None:
    """A finger that goes from one place to another, as the browser gets it."""
    client = editor.page.context.new_cdp_session(editor.page)
    point = {"x": start[0], "y": start[1]}
    client.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
    for i in range(1, steps + 1):
        point = {"x": start[0] + (end[0] - start[0]) * i / steps, "y": start[1] + (end[1] - start[1]) * i / steps}
        client.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
        editor.page.wait_for_timeout(20)
    client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    editor.page.wait_for_timeout(300)


def test_touch_on_a_phone(url: str, visit: Callable[..., Editor], shot: Callable[..., None]) -> None:
    editor = visit(url, **PHONE)
    page = editor.page
    assert page.evaluate("document.documentElement.scrollWidth") == 390, "nothing scrolls sideways"
    sizes = page.eval_on_selector_all(
        ".te-button", "all => all.map(b => b.getBoundingClientRect()).map(r => [r.width, r.height])"
    )
    assert all(min(size) >= 32 for size in sizes if size[0]), "large enough for a finger"
    shot(page, "editor-phone")
    touch(editor, editor.middle(".te-card", 1), editor.slot(3))
    assert editor.told(lambda t: t.keyframes[1].slot == 3)
    x, y = editor.middle(".te-dot", 0)
    touch(editor, (x, y), (x, y - 40))
    assert editor.told(lambda t: t.keyframes[0].noise == 0.65)
    shot(page, "editor-phone-chosen")

    # A finger that goes up scrolls the page, and what it touched stays.
    x, y = editor.middle(".te-card", 1)
    touch(editor, (x, y), (x, y - 150))
    assert page.evaluate("window.scrollY") > 40
    page.evaluate("window.scrollTo(0, 0)")
    # A finger that goes sideways on free slots scrolls the timeline.
    page.click(".te-do-zoom_in")
    x, y = editor.slot(2)
    touch(editor, (x, y), (x - 120, y))
    assert page.evaluate("document.querySelector('.te-scroll').scrollLeft") > 0
    assert [s for s, _ in editor.slots()] == [0, 3, 4]


@pytest.fixture(scope="module")
def long_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from serve(tmp_path_factory.mktemp("long"), "--slots", "60", "--keyframes", "32")


@pytest.mark.slow
def test_sixty_slots(long_url: str, visit: Callable[..., Editor], shot: Callable[..., None]) -> None:
    editor = visit(long_url)
    page = editor.page

    def width() -> float:
        return page.evaluate("document.querySelector('.te-tracks').offsetWidth")

    def scrolled() -> float:
        return page.evaluate("document.querySelector('.te-scroll').scrollLeft")

    view = page.evaluate("document.querySelector('.te-scroll').clientWidth")
    assert len(editor.slots()) == 32 and width() > view
    shot(page, "editor-many")
    page.click(".te-do-fit")
    assert width() <= view + 1
    shot(page, "editor-many-fit")
    page.click(".te-do-zoom_in")
    page.mouse.move(*editor.middle(".te-scroll"))
    before = width()
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    editor.wait(lambda: width() > before * 1.3)
    # At the edge the timeline scrolls on under the pointer.
    page.evaluate("document.querySelector('.te-scroll').scrollLeft = 0")
    box = page.locator(".te-scroll").bounding_box()
    start = editor.middle(".te-card", 0)
    editor.drag(start, (box["x"] + box["width"] - 6, start[1]), drop=False)
    editor.wait(lambda: scrolled() > 100)
    page.mouse.up()
    assert editor.told(lambda t: any(k.source.path.endswith("picture-0.png") and k.slot > 5 for k in t.keyframes))

    phone = visit(long_url, **PHONE).page
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    shot(phone, "editor-phone-many")
    dark = visit(f"{long_url}?__theme=dark").page
    dark.locator(".te-card").nth(2).click()
    shot(dark, "editor-dark-many")


def called(url: str, value: Any) -> str:
    """What the server answers to a program that sends anything, as text."""
    body = json.dumps({"data": [value]}).encode()
    request = urllib.request.Request(f"{url}gradio_api/call/told", body, {"Content-Type": "application/json"})
    event = json.load(urllib.request.urlopen(request, timeout=60))["event_id"]
    return urllib.request.urlopen(f"{url}gradio_api/call/told/{event}", timeout=60).read().decode()


def test_the_api(url: str, cache: Path, tmp_path: Path) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(url, verbose=False, download_files=str(tmp_path))
    Image.new("RGB", (60, 40), (1, 2, 3)).save(tmp_path / "a.png")
    with media.ClipWriter(tmp_path / "b.mp4", 64, 48, 12.0) as writer:
        writer.write(np.full((30, 48, 64, 3), 90, np.uint8))
    keyframes = [
        {"id": "a", "slot": 0, "noise": [0.2], "kind": "image", "file": handle_file(str(tmp_path / "a.png")),
         "fit": "pad", "focus": [0.1, 0.9]},
        {"id": "b", "slot": 2, "span": 3, "noise": [0.1, 0.2, 0.4], "kind": "clip", "start": 7, "frames": 30,
         "file": handle_file(str(tmp_path / "b.mp4"))},
    ]  # fmt: skip
    value = {"grid": {"num_frames": 37, "temporal_stride": 6, "fps": 12.0}, "width": 64, "height": 48}
    timeline = Timeline.model_validate_json(client.predict({**value, "keyframes": keyframes}, api_name="/told"))
    image, clip = timeline.keyframes
    assert image == Keyframe(slot=0, source=ImageSource(path=image.source.path), noise=0.2, fit="pad", focus=(0.1, 0.9))
    assert clip == Keyframe(slot=2, span=3, source=ClipSource(path=clip.source.path, start=7), noise=(0.1, 0.2, 0.4))

    back = client.predict({**value, "keyframes": keyframes}, api_name="/send_back")
    assert [k["frames"] for k in back["keyframes"]] == [1, 30] and len(back["keyframes"][1]["thumbs"]) == 12
    for entry in back["keyframes"]:  # the client has downloaded the files
        entry["file"] = handle_file(entry["file"] if isinstance(entry["file"], str) else entry["file"]["path"])
    assert Timeline.model_validate_json(client.predict(back, api_name="/told")) == timeline

    with pytest.raises(AppError, match="The timeline is not valid at keyframes"):
        client.predict({**value, "keyframes": [{**keyframes[0], "noise": [2]}]}, api_name="/told")


def test_the_api_refuses(url: str, cache: Path) -> None:
    meta = {"_type": "gradio.FileData"}
    value = {"grid": {"num_frames": 37, "temporal_stride": 6, "fps": 12.0}, "width": 64, "height": 48}
    k = {"id": "a", "slot": 0, "noise": [0.2], "kind": "image", "file": {"path": str(cache / "gone.png"), "meta": meta}}

    def answer(*keyframes: Any, **more: Any) -> str:
        text = called(url, {**value, **more, "keyframes": list(keyframes)})
        assert "event: error" in text and "Traceback" not in text and "/etc" not in text, text
        return text

    assert "no longer there" in answer(k)
    assert "not valid at keyframes.0.noise.0" in answer({**k, "file": {"path": "x"}, "noise": [float("nan")]})
    assert "meta" in answer({**k, "file": {"path": "/etc/passwd"}})
    answer({**k, "file": {"path": "/etc/passwd", "meta": meta}})  # Gradio itself, without words
    assert "not valid at width" in answer(width=0)
    assert "not valid" in called(url, "text") and "not valid" in called(url, [1, 2])
    assert "complete" in called(url, None)
