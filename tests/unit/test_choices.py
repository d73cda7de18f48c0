"""The form's choices: what they become, what is said of them, and at which control."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pusa_app import media, testing
from pusa_app.errors import RecipeError
from pusa_app.presets import find_preset
from pusa_app.timeline import TASKS, ImageSource, Keyframe, LoraChoice
from pusa_app.ui import strings
from pusa_app.ui.choices import NAMES, Choices, asked_of, faults, missing, told
from pusa_app.ui.numbers import Number, Slider
from pusa_app.ui.sweeps import sweep_of

PLAIN: dict[str, Any] = {
    **dict.fromkeys(NAMES),
    "prompt": "a thing moves",
    "style": "bridge",
    "direction": "forwards",
    "closing": 0.0,
    "result": "joined",
    "frames": 37,
    "seed": 5,
    "steps": 4,
    "guidance": 2.0,
    "color_match": True,
    "model": testing.FAKE,
}


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Paths by the fields of the form, and `short` (20 frames) and `tiny` (3) beside them."""
    folder = tmp_path_factory.mktemp("files")
    paths = {name: folder / f"{name}.png" for name in ("image", "end")}
    for path in paths.values():
        Image.new("RGB", (80, 64), (200, 30, 30)).save(path)
    for name, count in (("clip", 37), ("clip_b", 40), ("short", 20), ("tiny", 3)):
        paths[name] = folder / f"{name}.mp4"
        with media.ClipWriter(paths[name], 64, 64, 12) as writer:
            writer.write(np.full((count, 64, 64, 3), 90, np.uint8))
    return {name: str(path) for name, path in paths.items()}


def choices_of(task: str, files: dict[str, str] | None = None, **more: Any) -> Choices:
    """The form of a task with the files that it asks for; a loop gets no clip."""
    given = {a.name: files[a.name] for a in TASKS[task].asks if task != "loop" or a.kind == "image"} if files else {}
    gap = {"gap_first": 13, "gap_last": 18} if task == "complete" else {}
    return Choices(**{**PLAIN, "task": task, **given, **gap, **more})


def built(choices: Choices) -> Choices:
    return replace(choices, timeline=choices.built())


@pytest.mark.parametrize("task", TASKS)
def test_what_a_task_builds_can_be_run(task: str, files: dict[str, str]) -> None:
    choices = choices_of(task, files)
    if task == "keyframes":
        picture = Keyframe(slot=2, source=ImageSource(path=files["image"]))
        choices = replace(choices, timeline=choices.blank().having(picture))
    else:
        choices = built(choices)
    assert choices.timeline is not None
    assert missing(choices) == faults(choices, choices.timeline) == {}
    recipe = choices.recipe()
    assert recipe.task == task and recipe.timeline == choices.timeline
    assert asked_of(recipe) == {a.name: getattr(choices, a.name) for a in TASKS[task].asks if getattr(choices, a.name)}
    assert choices.current() == (choices.timeline, [])


@pytest.mark.parametrize("task", [task for task in TASKS if any(ask.missing for ask in TASKS[task].asks)])
def test_a_file_that_is_not_there_is_missing_at_its_field(task: str) -> None:
    choices = built(choices_of(task))
    first = TASKS[task].asks[0]
    assert missing(choices) == {first.name: first.missing}
    assert missing(replace(choices, prompt=" ")).keys() == {first.name} | (
        {"prompt"} if TASKS[task].needs_prompt else set()
    )


def test_missing(files: dict[str, str]) -> None:
    assert missing(choices_of("text-to-video", prompt="")) == {"prompt": strings.PROMPT_MISSING}
    for seed in (-1, 2**53):
        assert missing(choices_of("text-to-video", seed=seed)) == {"seed": strings.SEED_WRONG}
    for gap in ({"gap_first": None}, {"gap_last": None}, {"gap_first": None, "gap_last": None}):
        waiting = built(choices_of("complete", files, **gap))
        assert waiting.timeline == waiting.blank(), "nothing is built, and nothing refused, until the gap is known"
        assert missing(waiting) == {"gap_last": strings.GAP_MISSING}
    one = built(choices_of("start-end", files, end=None))
    assert one.timeline is not None and [k.slot for k in one.timeline.keyframes] == [0]


FAULTS: tuple[tuple[str, dict[str, Any], str, str], ...] = (
    ("restyle", {"clip": "short"}, "clip", "choose a length of at most 19"),
    ("restyle", {"more": 60}, "more", "60 are asked for"),
    ("restyle", {"more": 0}, "more", "from 1 to"),
    ("extend", {"more": 10**9}, "more", "from 1 to"),
    ("extend", {"more": 90_000}, "more", "ask for fewer frames"),
    ("extend", {"clip": "tiny", "direction": "backwards"}, "clip", "its beginning needs 6"),
    ("extend", {"clip": "tiny", "direction": "both"}, "clip", "at least 6 frames"),
    ("extend", {"direction": "both", "result": "made"}, "result", "New frames at both ends"),
    ("extend", {"frames": 7}, "frames", "use at least 13"),
    ("complete", {"gap_first": 20, "gap_last": 11}, "gap_last", "ends before it begins"),
    ("complete", {"gap_first": -3, "gap_last": 4}, "gap_last", "ends before it begins"),
    ("complete", {"gap_first": 30, "gap_last": 50}, "gap_last", "is not inside the clip"),
    ("complete", {"gap_first": 0, "gap_last": 36}, "gap_last", "the whole clip"),
    ("transition", {"clip_b": "tiny"}, "clip_b", "its beginning needs 6"),
    ("transition", {"frames": 7}, "frames", "use at least 13"),
    ("loop", {"frames": 7}, "frames", "use at least 13"),
    ("loop", {"clip": "clip"}, "clip", "a picture or a clip, not both"),
    ("loop", {"clip": "clip", "size": "128x128"}, "clip", "a picture or a clip, not both"),
    ("loop", {"image": None, "clip": "tiny"}, "clip", "its beginning needs 6"),
    ("start-end", {"frames": 1}, "frames", "A length of 7 frames"),
)


@pytest.mark.parametrize(("task", "changes", "control", "words"), FAULTS, ids=lambda value: str(value)[:30])
def test_a_fault_is_told_at_its_control(
    task: str, changes: dict[str, Any], control: str, words: str, files: dict[str, str]
) -> None:
    named = {name: files[value] if name.startswith("clip") else value for name, value in changes.items()}
    choices = choices_of(task, files, **named)
    try:
        timeline = choices.built()
    except RecipeError:
        timeline = choices.blank()
    found = faults(choices, timeline)
    assert list(found) == [control] and words in found[control]
    assert missing(replace(choices, timeline=timeline)) == {}
    assert not told(choices, timeline)["advice"]["warnings"], "said in one place"


def test_a_picture_behind_what_an_extension_adds_is_told_at_their_number(files: dict[str, str]) -> None:
    choices = choices_of("extend", files, more=12)
    timeline = choices.built()
    timeline = timeline.having(*timeline.keyframes, Keyframe(slot=6, source=ImageSource(path=files["image"])))
    assert faults(choices, timeline) == {
        "more": "The picture in slot 6 would be cut off: ask for at least 24 frames, or move it to slot 4."
    }
    assert faults(replace(choices, more=24), timeline) == {}


@pytest.mark.parametrize(
    ("last", "words"), [(36, ""), (35, "Only 1 frame follows"), (33, "Only 3 frames follow"), (30, "")]
)
def test_what_the_model_does_not_see_behind_a_gap_is_told(last: int, words: str, files: dict[str, str]) -> None:
    choices = built(choices_of("complete", files, gap_first=19, gap_last=last))
    assert choices.timeline is not None and faults(choices, choices.timeline) == {}
    warnings = told(choices, choices.timeline)["advice"]["warnings"]
    assert [words in warning for warning in warnings] == ([True] if words else [])


def test_what_the_user_did_is_told_in_the_editor(files: dict[str, str]) -> None:
    picture = Keyframe(slot=0, source=ImageSource(path=files["image"]))
    words = choices_of("text-to-video")
    assert "take the keyframes out" in faults(words, words.blank().having(picture))["timeline"]
    assert "no keyframe yet" in faults(choices_of("keyframes"), words.blank())["timeline"]
    moved = words.blank().having(picture.model_copy(update={"slot": 2}))
    assert "slot 0" in faults(choices_of("image-to-video", files), moved)["timeline"]
    twice = words.blank().having(picture, picture)
    assert "both in slot 0" in faults(choices_of("keyframes"), twice)["timeline"]
    outside = words.blank().having(picture.model_copy(update={"slot": 40}))
    assert "the clip ends at slot 6" in faults(choices_of("keyframes"), outside)["timeline"]
    # That nothing is left to make is advice already.
    clean = words.blank().having(*(picture.model_copy(update={"slot": slot}) for slot in range(7)))
    problem = faults(choices_of("keyframes"), clean)["timeline"]
    assert len(told(choices_of("keyframes"), clean, problem)["advice"]["warnings"]) == 1
    gone = words.blank().having(Keyframe(slot=0, source=ImageSource(path="/nowhere/a.png")))
    assert "does not exist" in faults(choices_of("keyframes"), gone)["timeline"]


def test_another_length(files: dict[str, str]) -> None:
    """What the user changed moves along; what only the task can place is made anew."""
    pair = replace(built(choices_of("start-end", files)), frames=25)
    assert not pair.made_by_task
    timeline, notes = pair.current()
    assert [k.slot for k in timeline.keyframes] == [0, 4] and notes == ["Keyframe 2 moved from slot 6 to 4."]
    gap = replace(built(choices_of("complete", files)), frames=25)
    assert gap.made_by_task and faults(gap, gap.built()) == {}
    assert "timeline" in faults(gap, gap.current()[0]) or gap.current()[0] == gap.built()
    whole = replace(built(choices_of("restyle", files)), frames=25)
    assert whole.made_by_task
    assert whole.timeline is not None
    edited = whole.timeline.having(*(k.model_copy(update={"noise": 0.4}) for k in whole.timeline.keyframes))
    assert not replace(whole, timeline=edited).made_by_task
    short = choices_of("restyle", files, clip=files["short"], frames=19)
    assert replace(short, timeline=short.blank()).made_by_task, "there was none, since the clip was too short for it"
    assert not choices_of("keyframes", files, timeline=short.blank()).made_by_task


@pytest.mark.parametrize(("stride", "fps"), [(4, 16), (6, 30)])
@pytest.mark.parametrize("task", ["extend", "loop"])
def test_with_another_model_a_clip_is_used_to_its_end(
    task: str, stride: int, fps: float, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = testing.card()
    changes = {"temporal_stride": stride, "fps": fps, "num_frames": 121, "max_frames": 121}
    other = own.model_copy(update={"id": "other", "spec": own.spec.model_copy(update=changes)})
    before = built(choices_of(task, files, image=None, clip=files["clip"]))
    monkeypatch.setattr("pusa_app.ui.choices.card_of", lambda model: other if model == "other" else own)
    timeline, _ = replace(before, model="other", frames=121).current()
    first = timeline.keyframes[0]
    assert first.source.start + first.num_frames(stride) == media.count_frames(files["clip"], fps)  # type: ignore[union-attr]
    # A file that is gone is told where it is missed, as with any other length.
    gone = first.model_copy(update={"source": first.source.model_copy(update={"path": "/nowhere/a.mp4"})})
    timeline, _ = replace(before, timeline=timeline.having(gone)).current()
    assert len(timeline.keyframes) == 1


def test_a_preset_takes_what_the_form_has(files: dict[str, str]) -> None:
    preset = find_preset("Soft arrival")
    recipe = built(choices_of("start-end", files)).with_preset(preset)
    assert (recipe.prompt, recipe.seed) == ("a thing moves", 5)
    assert recipe.paths == [files["image"], files["end"]] and recipe.timeline.keyframes[1].noise == 0.5
    with pytest.raises(RecipeError, match="needs a last frame"):
        built(choices_of("image-to-video", files)).with_preset(preset)
    filled = built(choices_of("extend", files)).with_preset(find_preset("Clean continuation"))
    assert filled.task == "extend" and filled.paths == [files["clip"]]


def test_a_sweep_says_what_cannot_be(files: dict[str, str], tmp_path: Path) -> None:
    choices = built(choices_of("start-end", files))
    none = ("", None, "")

    def swept(*fields: tuple[str, float | None, str]) -> Any:
        flat = tuple(value for axis in (*fields, *(none,) * (2 - len(fields))) for value in axis)
        return sweep_of(choices.recipe(), choices.card, tmp_path, flat)

    cells = swept(("noise", 2, "0, 0.5"), ("seed", None, "3-5, 9")).cells()
    assert len(cells) == 8
    for field, words in (
        (("seed", None, "abc"), "'abc' cannot be a value of seed"),
        (("seed", None, "1.5"), "'1.5' cannot"),
        (("steps", None, "0"), "'0' cannot"),
        (("noise", 1, "nan"), "'nan' cannot"),
        (("noise", 1, "1.1"), "'1.1' cannot"),
        (("guidance", None, " , "), "needs values for guidance"),
        (("seed", None, "1-200"), "200 videos are too many"),
        (("noise", 3, "0"), "no keyframe 3 to vary: the timeline has 2"),
        (("noise", 0, "0"), "no keyframe 0"),
        (("preset", None, "nobody"), "no preset called 'nobody'"),
    ):
        with pytest.raises(RecipeError, match=words) as caught:
            swept(field)
        assert len(str(caught.value)) < 140
    with pytest.raises(RecipeError, match="100 videos"):
        swept(("seed", None, "1-50"), ("steps", None, "1, 2"))


def test_numbers_refuse_no_event() -> None:
    field = Number(None, minimum=0, maximum=10, precision=0)
    assert [field.preprocess(value) for value in (-5, 11.2, None, float("nan"))] == [-5, 11, None, None]
    slider = Slider(7, 61, 37, step=6)
    assert [slider.preprocess(value) for value in (1, 1000, 13, None)] == [7, 61, 13, None]
    assert (field.get_block_name(), slider.get_block_name()) == ("number", "slider")


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/nope", "/etc"])
def test_what_is_wrong_tells_nothing_of_files_here(path: str) -> None:
    choices = choices_of("text-to-video", model="mini", loras=(LoraChoice(path=path),))
    assert faults(choices, choices.blank()) == missing(choices) == {}
    unknown = replace(choices, loras=(LoraChoice(path="nobody-has-this"),))
    assert faults(unknown, unknown.blank()), "of names it is told"


class TestFaster:
    """On mini, for the fake model has nothing to be made faster."""

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ({}, (0.0, (0.0, 1.0))),
            ({"cache": 0.1, "guided_low": 0.4}, (0.1, (0.4, 1.0))),
            ({"guided_high": 0.2, "guided_low": 0.9}, (0.0, (0.2, 0.9))),
            ({"guided_high": 7.0, "guided_low": -1.0, "guidance_2": 3.0}, (0.0, (0.0, 1.0))),
        ],
    )
    def test_what_the_model_can_goes_into_the_recipe(self, given: dict[str, Any], expected: tuple[Any, ...]) -> None:
        recipe = choices_of("text-to-video", model="mini", **given).recipe()
        assert (recipe.cache, recipe.guidance_interval) == expected
        assert recipe.guidance_2 is None, "there is one expert"

    def test_a_model_that_cannot_is_not_asked_to(self) -> None:
        assert choices_of("text-to-video", cache=0.2).recipe().cache == 0

    def test_fields_say_why_they_are_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from pusa_app.studio import card_of
        from pusa_app.ui.faster import faster_of

        spec = card_of("mini").spec
        chosen = choices_of("text-to-video", model="mini", cache=0.1, guided_low=0.4)
        cache, high, low, second = faster_of(spec, Choices.of(chosen.recipe()))
        assert (cache["value"], high["value"], low["value"], second["value"]) == (0.1, 1.0, 0.4, None)
        assert cache["interactive"] and low["interactive"] and not second["visible"]
        cache, *_ = faster_of(card_of(testing.FAKE).spec)
        assert not cache["interactive"] and "no blocks" in cache["info"]
        _, high, low, _ = faster_of(spec.model_copy(update={"distilled": True}))
        assert not low["interactive"] and "as a number" in high["info"]
        *_, second = faster_of(spec.model_copy(update={"boundary": 0.875}))
        assert second["visible"]

    def test_a_model_without_negative_prompts_gets_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert choices_of("text-to-video", negative=" dark ").recipe().negative_prompt == "dark"
        card = testing.card()
        distilled = card.model_copy(update={"spec": card.spec.model_copy(update={"distilled": True})})
        monkeypatch.setattr("pusa_app.ui.choices.card_of", lambda _: distilled)
        assert choices_of("text-to-video", negative=" dark ").recipe().negative_prompt == ""
