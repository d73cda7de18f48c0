"""Size and schedule in the form: into the recipe, back again, and what is wrong with them at their place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pusa_app import media, testing
from pusa_app.studio import new_recipe
from pusa_app.timeline import ImageSource, Keyframe, Recipe, ScheduleSpec
from pusa_app.ui import strings
from pusa_app.ui.choices import Choices, faults, missing
from pusa_app.ui.exact import exact_of, schedule_choice, schedule_fields, size_field, size_of
from pusa_app.ui.placing import continued


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")


def recipe(*keyframes: Keyframe, **more: Any) -> Recipe:
    return new_recipe(testing.card(), "text-to-video", prompt="a ball", keyframes=keyframes, **more)


@pytest.mark.parametrize(
    "schedule",
    [None, {"kind": "shift", "shift": 7.0}, {"kind": "linear-quadratic", "threshold": 0.1}],
    ids=["own", "shift", "linear-quadratic"],
)
def test_a_recipe_comes_back_as_it_was(schedule: dict[str, Any] | None) -> None:
    made = recipe(schedule=schedule, size=(96, 32), steps=7)
    choices = Choices.of(made)
    assert choices.recipe() == made and missing(choices) == faults(choices, made.timeline) == {}
    kind, value = (field["value"] for field in exact_of(choices.schedule, choices.schedule_value))
    assert schedule_fields(kind, value) == (None if schedule is None else schedule)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("", 3.0, None),
        (None, None, None),
        ("forged", 1.0, None),
        ("shift", None, {"kind": "shift", "shift": 3.0}),
        ("shift", 1e9, {"kind": "shift", "shift": 100.0}),
        ("linear-quadratic", -1.0, {"kind": "linear-quadratic", "threshold": 1e-6}),
    ],
)
def test_a_schedule_is_within_its_bounds(
    kind: str | None, value: float | None, expected: dict[str, Any] | None
) -> None:
    assert schedule_fields(kind, value) == expected
    if expected is not None:
        assert schedule_choice(ScheduleSpec(**expected))[0] == kind


def test_sizes_are_typed_in_the_ways_of_people() -> None:
    spec = testing.card().spec
    for text in ("96x32", " 96 x 32 ", "96×32", "96*32"):
        assert size_of(text, spec) == (96, 32)
    assert size_of("", spec) == size_of(None, spec) == (spec.width, spec.height)
    assert [size_of(text, spec) for text in ("big", "96", "96x", "-96x32", "9x9x9", "9000x64", "4x64")] == [None] * 7


def test_what_is_wrong_with_a_size_is_said_at_its_field() -> None:
    choices = Choices.of(recipe())
    assert missing(replace(choices, size="big")) == {"size": strings.SIZE_WRONG}
    for size, words in (("4096x4096", "too large"), ("70x64", "multiple")):
        wrong = replace(choices, size=size)
        found = faults(wrong, wrong.current()[0])
        assert list(found) == ["size"] and words in found["size"], found


def test_another_size_takes_the_keyframes_along(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (200, 30, 30)).save(tmp_path / "red.png")
    picture = Keyframe(slot=2, source=ImageSource(path=str(tmp_path / "red.png")))
    choices = replace(Choices.of(recipe(picture)), size="96x32")
    timeline, told = choices.current()
    assert (timeline.width, timeline.height) == (96, 32) and timeline.keyframes[0].slot == 2 and not told
    assert choices.basis != replace(choices, size="64x64").basis


def test_sizes_are_offered_where_a_model_knows_more_than_one() -> None:
    spec = testing.card().spec
    assert not size_field(spec)["visible"], "a model of small pictures"
    assert size_field(spec, (96, 32))["visible"], "what a recipe has is shown"
    wide = spec.model_copy(update={"width": 848, "height": 480})
    field = size_field(wide)
    sizes = [tuple(map(int, value.split("x"))) for _, value in field["choices"]]
    assert field["value"] == "848x480" and {(848, 480), (480, 848)} < set(sizes) and len(sizes) == 5
    assert all(side % wide.size_multiple == 0 for size in sizes for side in size)
    assert all(width * height <= 848 * 480 * 1.02 for width, height in sizes)


def test_a_clip_goes_on_in_its_size(tmp_path: Path) -> None:
    with media.ClipWriter(tmp_path / "clip.mp4", 96, 32, testing.card().spec.fps) as writer:
        writer.write(np.full((20, 32, 96, 3), 90, np.uint8))
    before = recipe(size=(96, 32), schedule={"kind": "shift", "shift": 7.0})
    after = continued(before, "extend", tmp_path / "clip.mp4", testing.card())
    assert (after.timeline.width, after.timeline.height) == (96, 32) and after.schedule == before.schedule
