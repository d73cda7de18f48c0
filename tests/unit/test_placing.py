"""What was made before, put back onto a timeline."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import numpy as np
import pytest

from pusa_app import media, testing
from pusa_app.errors import RecipeError
from pusa_app.models import ModelCard
from pusa_app.studio import new_recipe
from pusa_app.ui.placing import continued, frame_of, placed

CARD: ModelCard = testing.card()
SPEC = CARD.spec.model_copy(update={"task_guidance": {"extend": 1.5}})
ADVISED = CARD.model_copy(update={"spec": SPEC})


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "made.mp4"
    with media.ClipWriter(path, 64, 64, SPEC.fps) as writer:
        writer.write(np.full((20, 64, 64, 3), 90, np.uint8))
    return path


@pytest.mark.parametrize(("chosen", "wanted"), [(None, 1.5), (7.0, 7.0)])
def test_a_task_that_goes_on_brings_its_own_guidance_unless_one_was_chosen(
    video: Path, chosen: float | None, wanted: float
) -> None:
    made = new_recipe(ADVISED, "text-to-video", prompt="a ring", guidance=chosen, seed=5)
    longer = continued(made, "extend", video, ADVISED)
    assert (longer.task, longer.prompt, longer.seed, longer.guidance) == ("extend", "a ring", 5, wanted)
    assert longer.paths == [str(video)]


def test_the_editor_is_told_of_a_file_and_of_no_timeline(video: Path, tmp_path: Path) -> None:
    made = tmp_path / "frame-3.png"
    answers = [placed(lambda: str(made), 2, "n1") for _ in range(2)]
    assert all("value" not in answer and answer["notice"] == "" for answer in answers)
    first, second = (answer["placed"] for answer in answers)
    assert first["at"] != second["at"], "the same frame twice is news twice"
    assert first | {"at": 0} == {
        "order": "n1",
        "at": 0,
        "path": str(made),
        "name": "frame-3.png",
        "slot": 2,
    }, "its noise is that of any new keyframe there"


@pytest.mark.parametrize("error", [RecipeError("Choose one of its videos."), gr.Error("Choose one of its videos.")])
def test_why_there_is_no_file_is_told(error: Exception) -> None:
    def fail() -> str:
        raise error

    answer = placed(fail, 2, "n1")
    assert answer["notice"] == "Choose one of its videos." and "value" not in answer
    assert answer["placed"]["order"] == "n1" and "path" not in answer["placed"]


@pytest.mark.parametrize(("seconds", "shade"), [(-1, 0), (0.51, 60), (99, 190)])
def test_the_frame_at_a_time(seconds: float, shade: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    path = tmp_path / "steps.mp4"
    with media.ClipWriter(path, 64, 64, 12.0) as writer:
        writer.write(np.stack([np.full((64, 64, 3), 10 * n, np.uint8) for n in range(20)]))
    pixels = media.load_image(frame_of(path, seconds), 64, 64)
    assert abs(float(pixels.mean()) - shade) < 5
