"""What was made before, put back onto a timeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pusa_app import media, testing
from pusa_app.errors import RecipeError
from pusa_app.models import ModelCard
from pusa_app.studio import new_recipe
from pusa_app.ui.placing import continued, with_clip

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


def test_a_clip_takes_the_free_slots_that_it_fills(video: Path) -> None:
    blank = SPEC.timeline()
    placed = with_clip(blank, 2, video)
    assert [(k.slot, k.span) for k in placed.keyframes] == [(2, 3)], "20 frames fill three slots of six"
    again = with_clip(placed, 2, video)
    assert [(k.slot, k.span) for k in again.keyframes] == [(2, 3), (1, 1)]
    full = placed
    with pytest.raises(RecipeError, match="Every slot"):
        for _ in range(blank.grid.num_slots):
            full = with_clip(full, 0, video)
