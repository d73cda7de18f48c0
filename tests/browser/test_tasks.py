"""Every task on the page with the built-in model, from the files that a visitor gives to frames that are looked at."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pusa_app import media
from pusa_app.models import list_cards
from pusa_app.training.captions import plain_caption
from pusa_app.training.clips import ClipSpec, draw, sample_spec
from tests.browser.conftest import Server, serve
from tests.browser.pages import choose, generate, keyframes, new_video, parts, shown, upload

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not list_cards(), reason="the weights of mini are not in this checkout"),
]
NEAR = 14.0  # levels: mean error of a frame that went through the autoencoder and H.264
H264 = 6.0  # levels: mean error of a frame that went through H.264 twice


class Clips:
    """A moving square, its frames, and files of them."""

    def __init__(self, folder: Path) -> None:
        self.spec: ClipSpec = sample_spec(np.random.default_rng(20_000_777), motion="right", shape="square")
        self.frames = draw(self.spec)
        self.prompt = plain_caption(self.spec)
        self.clip, self.first, self.last = folder / "clip.mp4", folder / "first.png", folder / "last.png"
        with media.ClipWriter(self.clip, 64, 64, 12, quality=8) as writer:
            writer.write(self.frames)
        Image.fromarray(self.frames[0]).save(self.first)
        Image.fromarray(self.frames[-1]).save(self.last)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    return Clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(tmp_path_factory.mktemp("tasks"), {"PUSA_TEST_FAKE": "0"})


def error(a: np.ndarray, b: np.ndarray) -> float:
    """Mean difference in levels."""
    return float(np.abs(a.astype(float) - b).mean())


def test_pictures(server: Server, visit: Callable[..., Any], clips: Clips, tmp_path: Path) -> None:
    page = visit(server.url)
    choose(page, "Start-end")
    upload(page, clips.first, "image")
    keyframes(page, 1)
    upload(page, clips.last, "end")
    assert [text.split(",")[0] for text in keyframes(page, 2)] == ["slot 0", "slot 6"]
    generate(page, clips.prompt)
    frames = new_video(page, "", tmp_path)
    assert len(frames) == 37
    assert error(frames[0], clips.frames[0]) < NEAR
    assert error(frames[-1], clips.frames[-1]) < NEAR
    assert error(frames[-1], clips.frames[0]) > 1.5 * error(frames[-1], clips.frames[-1])

    # Switching tabs keeps words and settings; Keyframes goes on with what is on the timeline.
    choose(page, "Keyframes")
    assert len(keyframes(page, 2)) == 2
    assert page.input_value("#prompt textarea") == clips.prompt
    before = shown(page)
    generate(page)
    frames = new_video(page, before, tmp_path)
    assert error(frames[0], clips.frames[0]) < NEAR

    choose(page, "Loop")
    parts(page, 36)  # the first picture is still in the form, now at both ends
    before = shown(page)
    generate(page)
    frames = new_video(page, before, tmp_path)
    assert len(frames) == 36, "the 37th frame would be the first again"
    seam = error(frames[-1], frames[0])
    steps = [error(a, b) for a, b in itertools.pairwise(frames)]
    assert 0.2 * np.median(steps) < seam < 4 * max(steps)


@pytest.mark.slow
def test_clips(server: Server, visit: Callable[..., Any], clips: Clips, tmp_path: Path) -> None:
    page = visit(server.url)
    page.fill("#prompt textarea", clips.prompt)

    choose(page, "Extend")
    upload(page, clips.clip, "clip")
    keyframes(page, 1)
    page.fill("#more input", "40")
    page.keyboard.press("Tab")
    parts(page, 37, 24, 16)  # the clip, and two runs
    generate(page)
    frames = new_video(page, "", tmp_path)
    assert len(frames) == 37 + 40
    assert error(frames[:37], clips.frames) < H264, "its own frames stay as they are"
    joint = error(frames[37], frames[36])
    assert joint < 3 * max(error(a, b) for a, b in itertools.pairwise(frames)) + 4

    choose(page, "Complete")
    page.fill("#gap_first input", "13")
    page.fill("#gap_last input", "24")
    page.keyboard.press("Tab")
    parts(page, 13, 12, 12)
    before = shown(page)
    generate(page)
    frames = new_video(page, before, tmp_path)
    assert len(frames) == 37
    assert error(frames[:13], clips.frames[:13]) < H264 and error(frames[25:], clips.frames[25:]) < H264
    assert error(frames[18], clips.frames[18]) < error(frames[18], clips.frames[12])

    choose(page, "Loop")
    parts(page, 37, 12)
    before = shown(page)
    generate(page)
    frames = new_video(page, before, tmp_path)
    assert len(frames) == 37 + 12
    assert error(frames[:37], clips.frames) < H264

    choose(page, "Transition")
    upload(page, clips.clip, "clip_b")
    parts(page, 37, 12, 37)
    before = shown(page)
    generate(page)
    frames = new_video(page, before, tmp_path)
    assert len(frames) == 37 + 12 + 37
    assert error(frames[-37:], clips.frames) < H264
    page.get_by_label("From one into the other within the length").check()
    # A's frames before the crossing, the crossing itself, B's frames after it.
    parts(page, 18, 37, 19)
    before = shown(page)
    generate(page)
    assert len(new_video(page, before, tmp_path)) == 18 + 37 + 19
    page.get_by_label("New frames only").check()
    parts(page)
    before = shown(page)
    generate(page)
    assert len(new_video(page, before, tmp_path)) == 37

    choose(page, "Restyle")
    keyframes(page, 1)
    other = clips.prompt.replace(clips.spec.color, "white" if clips.spec.color != "white" else "red")
    before = shown(page)
    generate(page, other)
    frames = new_video(page, before, tmp_path)
    assert len(frames) == 37
    assert error(frames, clips.frames) > H264, "it is another clip"


@pytest.mark.slow
def test_a_result_goes_on(server: Server, visit: Callable[..., Any], clips: Clips, tmp_path: Path) -> None:
    """Extend and Loop under the player, the player's frame as a keyframe, a clip made before on the timeline."""
    page = visit(server.url)
    generate(page, clips.prompt)
    first = new_video(page, "", tmp_path)
    page.click("#extend")
    keyframes(page, 1)
    assert page.get_by_role("tab", name="Extend", exact=True).get_attribute("aria-selected") == "true"
    assert page.input_value("#prompt textarea") == clips.prompt
    before = shown(page)
    generate(page)
    frames = new_video(page, before, tmp_path)
    assert len(frames) == 61
    assert error(frames[:37], first) < H264

    choose(page, "Keyframes")
    page.evaluate("() => { const v = document.querySelector('#player video'); v.pause(); v.currentTime = 1; }")
    page.wait_for_function("document.querySelector('#player video')?.currentTime === 1")
    page.get_by_text("Frame from the player").click()
    assert len(keyframes(page, 2)) == 2
