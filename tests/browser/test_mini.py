"""The built-in model on the page, from a prompt and from a picture to a video that plays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pusa_app import media
from pusa_app.models import list_cards
from pusa_app.presets import FOLDER
from tests.browser.conftest import Server, serve
from tests.browser.pages import choose, generate, keyframes, upload, video_frames

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not list_cards(), reason="the weights of mini are not in this checkout"),
]
CIRCLE = FOLDER / "pictures" / "red-circle.png"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(tmp_path_factory.mktemp("mini"), {"PUSA_TEST_FAKE": "0"})


def test_words(server: Server, visit: Callable[..., Any], shot: Callable[..., None], tmp_path: Path) -> None:
    page = visit(server.url)
    generate(page, "a big red circle moves right over a black background")
    page.wait_for_selector(".stage.has-picture")
    shot(page, "mini-running")
    frames = video_frames(page, tmp_path)
    spec = list_cards()[0].spec
    assert frames.shape == (spec.num_frames, spec.height, spec.width, 3)
    shot(page, "mini-done")


def test_a_picture(server: Server, visit: Callable[..., Any], shot: Callable[..., None], tmp_path: Path) -> None:
    page = visit(server.url)
    choose(page, "Image to video")
    upload(page, CIRCLE)
    keyframes(page, 1)
    generate(page, "a red circle moves right over a dark blue background")
    frames = video_frames(page, tmp_path)
    height, width = frames.shape[1:3]
    wanted = media.load_image(CIRCLE, width, height)
    error = np.abs(frames[0].astype(float) - wanted).mean()
    assert error < 12, f"the first frame is {error:.1f} levels away from the picture"
    shot(page, "mini-picture")
