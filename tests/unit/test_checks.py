"""How long a result may be: never longer than what the program itself reads, exports and extends again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pusa_app import media, testing
from pusa_app.checks import check_recipe, check_sweep, given_clip, new_recipe
from pusa_app.errors import MediaError, RecipeError
from pusa_app.media import clips as clips_room
from pusa_app.timeline import Options, Recipe, Sweep, get_task

SECONDS = 10.0  # instead of ten minutes; 120 frames of the fake model
FRAMES = 37


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")
    monkeypatch.setattr(clips_room, "MAX_CLIP_SECONDS", SECONDS)


def write_clip(path: Path, frames: int = FRAMES, fps: float = 12) -> Path:
    with media.ClipWriter(path, 64, 64, fps) as clip:
        clip.write(np.full((frames, 64, 64, 3), 90, np.uint8))
    return path


def recipe(task: str, *clips: Path, **options: object) -> Recipe:
    spec, chosen = testing.card().spec, Options.model_validate(options)
    given = {name: given_clip(path, spec.fps) for name, path in zip(("clip", "clip_b"), clips, strict=False)}
    made = get_task(task).timeline(spec.timeline(), given, chosen, spec.noise)
    return new_recipe(testing.card(), task, prompt="x", keyframes=made.keyframes, options=chosen)


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"direction": "forwards"}, 120 - FRAMES),
        ({"direction": "backwards"}, 120 - FRAMES),
        ({"direction": "both"}, (120 - FRAMES) // 2),
        ({"direction": "forwards", "result": "made"}, 120),
    ],
)
def test_no_more_frames_are_added_than_a_clip_may_have(options: dict[str, str], most: int, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4")
    check_recipe(recipe("extend", clip, frames=most, **options))
    both = " at each end" if options["direction"] == "both" else ""
    for more in (most + 1, 2000):
        with pytest.raises(RecipeError) as caught:
            check_recipe(recipe("extend", clip, frames=more, **options))
        assert str(caught.value).endswith(f"and 120 (10 s) are the most: add at most {most}{both}."), caught.value


def test_what_one_run_adds_may_be_too_much_too(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", 115)
    with pytest.raises(RecipeError, match=r"would have 139 frames, and 120 .* add at most 5\.$"):
        check_recipe(recipe("extend", clip))


def test_where_no_number_helps_the_clips_are_to_be_shorter(tmp_path: Path) -> None:
    a, b, whole = (write_clip(tmp_path / f"{n}.mp4", count) for n, count in {"a": 70, "b": 61, "whole": 120}.items())
    for long, words in {
        recipe("transition", a, b): "use shorter clips",
        recipe("loop", whole): "use a shorter clip",
        recipe("extend", whole, frames=1): "use a shorter clip",
    }.items():
        with pytest.raises(RecipeError, match=rf"and 120 \(10 s\) are the most: {words}\.$"):
            check_recipe(long)
    check_recipe(recipe("transition", a, b, result="made"))
    check_recipe(recipe("complete", whole, gap=(50, 56)))


def test_every_cell_of_a_sweep_is_looked_at(tmp_path: Path) -> None:
    long = recipe("extend", write_clip(tmp_path / "a.mp4"), frames=2000)
    sweep = Sweep.model_validate({"recipe": long, "axes": [{"kind": "seed", "values": [1, 2]}]})
    with pytest.raises(RecipeError, match="add at most 83"):
        check_sweep(sweep)


@pytest.mark.parametrize("fps", [12, 15, 16, 24, 24000 / 1001, 25, 30000 / 1001, 30])
def test_the_most_frames_are_taken_and_one_more_is_not(fps: float, tmp_path: Path) -> None:
    most = media.most_frames(fps)
    assert media.check_clip(write_clip(tmp_path / "a.mp4", most, fps)).num_frames == most
    with pytest.raises(MediaError, match=r"^b\.mp4 lasts longer than 10 s: cut it to 10 s or less\.$"):
        media.check_clip(write_clip(tmp_path / "b.mp4", most + 1, fps))


def test_at_a_high_rate_the_number_of_frames_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips_room, "MAX_CLIP_FRAMES", 100)
    assert media.most_frames(24) == 100 and media.most_frames(5) == 50
