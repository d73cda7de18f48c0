"""Presets: every built-in one is rendered, fits every grid and any file, and a recipe becomes one and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pusa_app import media, testing
from pusa_app.backbones.base import Backbone
from pusa_app.errors import MediaError, ModelError, RecipeError
from pusa_app.models import ModelCard, list_cards, load_backbone
from pusa_app.presets import (
    FOLDER,
    Placed,
    Preset,
    delete_preset,
    find_preset,
    own_presets,
    preset_axis,
    preset_from,
    presets,
    save_preset,
)
from pusa_app.presets.preset import Share
from pusa_app.render import render
from pusa_app.studio import check_recipe
from pusa_app.timeline import (
    LATER_FIELDS,
    TASKS,
    Given,
    LoraChoice,
    Options,
    Recipe,
    TaskNoise,
    Timeline,
    new_sweep,
    plan_of,
)
from pusa_app.training.captions import vocabulary, words

ALL = {preset.name: preset for preset in presets()}


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")


@pytest.fixture(scope="module")
def mini() -> Iterator[tuple[ModelCard, Backbone]]:
    card = next((card for card in list_cards() if card.id == "mini"), None)
    if card is None:
        pytest.skip("the weights of mini are not in this checkout")
    yield card, load_backbone(card)


def blank(frames: int) -> Timeline:
    return testing.card().spec.timeline(frames)


def expected_frames(recipe: Recipe) -> int:
    """By the plan, with the clips that are kept to their ends."""
    fps = recipe.timeline.grid.fps
    return sum(
        (media.count_frames(piece.path, fps) if piece.stop is None else piece.stop) - piece.start
        for piece in plan_of(recipe).pieces
    )


# --- the built-in ones -----------------------------------------------------------------------------------------------


def test_there_are_presets_for_every_task_and_each_says_when() -> None:
    assert len(ALL) == len(presets()) >= 20
    assert {preset.task for preset in presets()} == set(TASKS)
    assert all(preset.when.endswith(".") and preset.prompt for preset in presets())


def test_the_words_are_in_minis_vocabulary() -> None:
    for preset in presets():
        assert set(words(preset.prompt)) <= set(vocabulary()), preset.title


def test_the_files_are_small_and_all_of_them_are_used() -> None:
    files = [*FOLDER.glob("pictures/*"), *FOLDER.glob("clips/*")]
    assert sum(file.stat().st_size for file in files) < 1_000_000
    assert {FOLDER / file for preset in presets() for file in preset.files.values()} == set(files)
    assert all(set(preset.files) == set(preset.roles) for preset in presets())


@pytest.mark.parametrize("name", ALL)
def test_an_example_is_made_by_the_fake_model(name: str) -> None:
    recipe = ALL[name].example(testing.card())
    check_recipe(recipe)
    assert Recipe.from_json(recipe.to_json()) == recipe
    clip = render(recipe.model_copy(update={"steps": 2}), testing.backbone())
    assert clip.num_frames == expected_frames(recipe)


@pytest.mark.parametrize("name", ALL)
def test_an_example_is_made_by_mini(name: str, mini: tuple[ModelCard, Backbone]) -> None:
    card, backbone = mini
    recipe = ALL[name].example(card)
    check_recipe(recipe)
    clip = render(recipe.model_copy(update={"steps": 3}), backbone)
    assert clip.frames is not None and clip.num_frames == expected_frames(recipe)
    assert clip.frames.std() > 5, "it is not one even colour"


@pytest.mark.parametrize("frames", [19, 25, 61])
@pytest.mark.parametrize("name", ALL)
def test_a_preset_fits_every_length(name: str, frames: int) -> None:
    preset = ALL[name]
    given = preset.given(12)
    if preset.task == "restyle" and frames > 37:
        pytest.skip("its clip is shorter")
    gap = (20, 26) if preset.gap and preset.gap[0] else (0, 6) if preset.gap else None
    timeline, options, _ = preset.fill(blank(frames), given, gap=gap)
    assert timeline.problems() == []
    TASKS[preset.task].plan(timeline, options)


# --- what a preset makes of what it is given -------------------------------------------------------------------------


def test_a_preset_says_the_noise_and_the_model_says_the_rest() -> None:
    picture = {"image": Given(path="a.png", noise=0.9, fit="pad"), "clip": Given(path="b.mp4", frames=40)}
    timeline, _, settings = ALL["first-frame-free-to-move"].fill(blank(13), picture)
    assert timeline.noise_multipliers() == (0.3, 1, 1) and timeline.keyframes[0].fit == "pad"
    assert settings.num_frames(testing.card().spec) == testing.card().spec.num_frames
    open_preset = Preset(title="Open", task="image-to-video")
    assert open_preset.fill(blank(13), picture, TaskNoise(start=0.2)).timeline.noise_multipliers() == (0.2, 1, 1)


def test_the_last_frame_of_a_picture_loop_is_its_closing_one() -> None:
    picture, advice = {"image": Given(path="a.png")}, TaskNoise(end=0.5, closing=0.2)
    built_in = ALL["loop-around-a-picture"]
    assert built_in.fill(blank(13), picture, advice).timeline.noise_multipliers() == (0, 1, 0.2)
    fields: dict[str, Any] = {"title": "A", "task": "loop", "uses": ["image"], "noise": {"start": 0.1, "closing": 0.6}}
    own = Preset.model_validate(fields)
    assert own.fill(blank(13), picture, advice).timeline.noise_multipliers() == (0.1, 1, 0.6)
    # Those of earlier versions called it the end.
    older = {"start": 0.1, "end": 0.6}
    assert Preset.model_validate(fields | {"noise": older}) == own and older == {"start": 0.1, "end": 0.6}
    both = Preset.model_validate(fields | {"noise": {"end": 0.9, "closing": 0.6}})
    assert both.noise.closing == 0.6
    assert Preset.model_validate(fields | {"task": "start-end", "uses": [], "noise": older}).noise.end == 0.6


def test_lengths_gaps_and_more_are_shares() -> None:
    spec = testing.card().spec
    assert ALL["short-draft"].settings.num_frames(spec) == 19
    clip = {"clip": Given(path="a.mp4", frames=100, start=20)}
    assert ALL["repair-a-gap"].fill(blank(61), clip).options.gap == (54, 66)
    assert ALL["repair-a-gap"].fill(blank(61), clip, gap=(40, 44)).options.gap == (40, 44)
    assert ALL["long-extension-both-ways"].fill(blank(61), clip).options.frames == 61


def test_a_ramp_is_spread_over_the_slots_that_are_there() -> None:
    clip = {"clip": Given(path="a.mp4", frames=100)}
    slow = ALL["restyle-that-sets-in-slowly"]
    assert slow.fill(blank(13), clip).timeline.noise_multipliers() == (0, 0.45, 0.9)
    assert slow.fill(blank(25), clip).timeline.noise_multipliers() == (0, 0.225, 0.45, 0.675, 0.9)


def test_further_keyframes_find_a_free_place() -> None:
    placed = tuple(Placed(role=f"picture-{n}", at=Share(share=1 / 3)) for n in range(3))
    preset = Preset(title="Crowd", task="keyframes", keyframes=placed)
    given = {f"picture-{n}": Given(path=f"{n}.png") for n in range(3)}
    assert [k.slot for k in preset.fill(blank(37), given).timeline.keyframes] == [2, 1, 3]
    with pytest.raises(RecipeError, match=r"no room for 2\.png"):
        preset.fill(blank(7), given)


def test_a_clip_beside_has_as_many_slots_as_frames() -> None:
    preset = Preset(
        title="Clip",
        task="keyframes",
        keyframes=(Placed(role="clip", kind="clip", at={"from_end": 3}, span=4, noise=(0, 0.6)),),  # type: ignore[arg-type]
    )
    timeline = preset.fill(blank(37), {"clip": Given(path="a.mp4", frames=20, start=1)}).timeline
    (keyframe,) = timeline.keyframes
    assert (keyframe.slot, keyframe.span, keyframe.noise) == (3, 3, (0, 0.3, 0.6))
    with pytest.raises(RecipeError, match="no room"):
        preset.fill(blank(37), {"clip": Given(path="a.mp4", frames=3)})


def test_what_is_missing_is_said() -> None:
    with pytest.raises(RecipeError, match="last frame"):
        ALL["soft-arrival"].fill(blank(13), {"image": Given(path="a.png")})
    with pytest.raises(RecipeError, match="needs a picture"):
        ALL["loop-around-a-picture"].fill(blank(19), {"clip": Given(path="a.mp4", frames=40)})
    with pytest.raises(RecipeError, match=r"needs a picture \(middle\)"):
        ALL["three-keyframes"].fill(blank(19), {"image": Given(path="a.png"), "end": Given(path="b.png")})


@pytest.mark.parametrize(
    "fields",
    [
        {"title": ""},
        {"title": "..."},
        {"task": "make-coffee"},
        {"noise": {"start": 2}},
        {"options": {"frames": 9}},
        {"gap": [0.5, 0.5]},
        {"files": {"image": "../../etc/passwd"}},
        {"files": {"image": "/etc/passwd"}},
        {"colour": "red"},
    ],
)
def test_a_faulty_preset_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Preset.model_validate({"title": "A", "task": "extend", **fields})


# --- from a recipe ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_a_recipe_becomes_a_preset_and_the_preset_that_recipe(name: str) -> None:
    card = testing.card()
    recipe = ALL[name].example(card)
    assert preset_from(recipe, card, "Mine").applied(recipe, card) == recipe


def test_what_a_user_changed_is_kept() -> None:
    card = testing.card()
    recipe = ALL["cross-a-into-b"].example(card)
    first, second = recipe.timeline.keyframes
    first = first.model_copy(update={"noise": (0, 0, 0.5, 0.7)})
    own = second.model_copy(update={"noise": 0.2})
    recipe = recipe.model_copy(update={"timeline": recipe.timeline.having(first, own), "steps": 3, "guidance": 7.0})
    preset = preset_from(recipe, card, "  My   crossing ", "now\nand then")
    assert (preset.title, preset.name, preset.when) == ("My crossing", "my-crossing", "now and then")
    assert (preset.settings.steps, preset.settings.guidance, preset.settings.length) == (3, 7, None)
    assert preset.files == {} and preset.prompt == recipe.prompt
    assert preset.applied(recipe, card) == recipe


def test_the_closing_noise_of_a_loop_is_kept() -> None:
    card = testing.card()
    recipe = ALL["loop-around-a-picture"].example(card)
    first, last = recipe.timeline.keyframes
    noisy = first.model_copy(update={"noise": 0.1}), last.model_copy(update={"noise": 0.6})
    recipe = recipe.model_copy(update={"timeline": recipe.timeline.having(*noisy)})
    preset = preset_from(recipe, card, "My loop")
    assert (preset.noise.start, preset.noise.end, preset.noise.closing) == (0.1, None, 0.6)
    assert preset.applied(recipe, card) == recipe


def test_noise_on_either_side_of_a_gap_is_kept(tmp_path: Path) -> None:
    """Also where what follows the gap does not reach the last slot."""
    card = testing.card()
    with media.ClipWriter(tmp_path / "a.mp4", 64, 64, 12) as clip:
        clip.write(np.zeros((30, 64, 64, 3), np.uint8))
    options = Options(gap=(13, 19))
    things = {"clip": Given(path=str(tmp_path / "a.mp4"), frames=30)}
    timeline = TASKS["complete"].timeline(card.spec.timeline(), things, options)
    before, after = timeline.keyframes
    assert after.slots.stop < timeline.grid.num_slots
    noisy = before.model_copy(update={"noise": 0.1}), after.model_copy(update={"noise": 0.4})
    plain = ALL["repair-a-gap"].example(card)
    recipe = plain.model_copy(update={"timeline": timeline.having(*noisy), "options": options})
    preset = preset_from(recipe, card, "Mine")
    assert set(preset.noise.before or ()) == {0.1} and set(preset.noise.after or ()) == {0.4}
    assert preset.applied(recipe, card).timeline == recipe.timeline
    # The later one may have been drawn into the gap.
    wider = noisy[1].model_copy(
        update={
            "slot": after.slot - 1,
            "span": after.span + 1,
            "source": after.source.model_copy(update={"start": after.source.start - 6}),
        }
    )
    recipe = recipe.model_copy(update={"timeline": timeline.having(noisy[0], wider)})
    noise = preset_from(recipe, card, "Mine").noise
    assert set(noise.before or ()) == {0.1} and set(noise.after or ()) == {0.4}


def test_what_makes_a_run_faster_is_kept() -> None:
    card = testing.card()
    plain = ALL["exact-first-frame"].example(card)
    faster = {
        "loras": (LoraChoice(path="lightning", strength=0.8), LoraChoice(path="other", expert="high")),
        "cache": 0.1,
        "guidance_interval": (0.2, 0.8),
        "guidance_2": 3.0,
    }
    assert set(faster) == set(LATER_FIELDS)
    rich = plain.model_copy(update={"steps": 8, "guidance": 1.0, **faster})
    preset = Preset.model_validate_json(preset_from(rich, card, "Fast").model_dump_json(exclude_defaults=True))
    assert preset.applied(plain, card) == rich
    with pytest.raises(ModelError, match="There is no LoRA lightning"):
        check_recipe(
            preset_from(rich.model_copy(update={"cache": 0.0, "guidance_2": None}), card, "A").applied(plain, card)
        )
    # What is usual stays open, as in the presets of earlier versions.
    usual = preset_from(plain, card, "Plain")
    assert not set(LATER_FIELDS) & set(usual.settings.model_dump(exclude_none=True))
    assert usual.applied(rich, card) == rich
    with pytest.raises(ValueError, match="lower sigma"):
        Preset.model_validate({"title": "A", "task": "extend", "settings": {"guidance_interval": [0.8, 0.2]}})


def test_keyframes_beside_those_of_the_task_are_kept() -> None:
    card = testing.card()
    recipe = ALL["exact-first-frame"].example(card)
    more = [k.model_copy(update={"slot": slot, "noise": 0.5}) for slot in (2, 6) for k in recipe.timeline.keyframes]
    recipe = recipe.model_copy(update={"timeline": recipe.timeline.having(*recipe.timeline.keyframes, *more)})
    preset = preset_from(recipe, card, "More")
    assert preset.roles == {"image": "image", "picture-1": "image"}
    assert preset.applied(recipe, card) == recipe
    with pytest.raises(RecipeError, match="name"):
        preset_from(recipe, card, " - ")


def test_a_preset_of_another_task_takes_what_is_there() -> None:
    card = testing.card()
    recipe = ALL["soft-arrival"].example(card).model_copy(update={"steps": 5})
    other = ALL["exact-first-frame"].applied(recipe, card)
    assert (other.task, other.steps, other.prompt, other.seed) == ("image-to-video", 5, recipe.prompt, recipe.seed)
    assert [k.slot for k in other.timeline.keyframes] == [0]
    with pytest.raises(RecipeError, match="clip A"):
        ALL["bridge-a-to-b"].applied(recipe, card)


def test_presets_are_an_axis_of_a_sweep() -> None:
    card = testing.card()
    recipe = ALL["exact-first-frame"].example(card)
    chosen = [find_preset("Exact first frame"), find_preset("first-frame-free-to-move")]
    sweep = new_sweep(recipe, preset_axis(recipe, card, chosen), {"kind": "seed", "values": [1, 2]})
    cells = sweep.cells()
    assert [cell.recipe.timeline.keyframes[0].noise for cell in cells] == [0, 0, 0.3, 0.3]
    assert cells[3].labels == ("First frame, free to move", "seed 2")
    with pytest.raises(RecipeError, match="exact-first-frame"):
        find_preset("nonsense")


def test_presets_in_a_sweep_have_their_own_lengths() -> None:
    card = testing.card()
    recipe = ALL["red-circle"].example(card)
    wide = recipe.timeline.model_copy(update={"grid": card.spec.grid(49), "width": 96})
    recipe = recipe.model_copy(update={"timeline": wide})
    axis = preset_axis(recipe, card, [ALL["short-draft"], ALL["red-circle"]])
    assert [made.timeline.grid.num_frames for made in axis.recipes] == [19, 49], "without one the recipe's stays"
    assert {made.timeline.width for made in axis.recipes} == {96}


def test_a_preset_that_a_sweep_cannot_use_is_named() -> None:
    card = testing.card()
    recipe = ALL["exact-first-frame"].example(card)
    with pytest.raises(RecipeError) as told:
        preset_axis(recipe, card, [ALL["exact-first-frame"], ALL["soft-arrival"]])
    assert str(told.value) == "Preset Soft arrival: Start-end needs a last frame: choose a picture."
    with pytest.raises(RecipeError, match=r"^Preset Three keyframes: It needs a picture \(middle\): add one\.$"):
        preset_axis(recipe, card, [ALL["three-keyframes"]])


# --- those of a user -------------------------------------------------------------------------------------------------


def mine(title: str = "Mine: é/../ü") -> Preset:
    return Preset(title=title, task="image-to-video", noise={"start": 0.1}, prompt="blue")  # type: ignore[arg-type]


def test_a_preset_is_saved_found_and_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "presets"
    assert own_presets(folder) == ((), ())
    path = save_preset(folder, mine())
    assert path.parent == folder and path.name == "mine-é-ü.json"
    assert own_presets(folder) == ((mine(),), ()) and find_preset(mine().name, folder) == mine()
    with pytest.raises(RecipeError, match="already"):
        save_preset(folder, mine())
    save_preset(folder, mine().model_copy(update={"prompt": "red"}), replace=True)
    assert own_presets(folder).presets[0].prompt == "red"
    with pytest.raises(RecipeError, match="built-in"):
        save_preset(folder, mine("Soft Arrival"))
    delete_preset(folder, mine().title)
    assert list(folder.iterdir()) == []
    with pytest.raises(RecipeError, match="no preset of yours"):
        delete_preset(folder, mine().title)


def test_no_other_file_is_replaced(tmp_path: Path) -> None:
    newer = json.dumps({"title": "My choice", "task": "image-to-video", "newer_field": 1, "prompt": "precious"})
    (tmp_path / "my-choice.json").write_text(newer)
    renamed = json.dumps({"title": "Precious", "task": "text-to-video"})
    (tmp_path / "bar.json").write_text(renamed)
    (tmp_path / "bar-2.json").mkdir()
    assert save_preset(tmp_path, mine("My choice")).name == "my-choice-2.json"
    assert save_preset(tmp_path, mine("Bar")).name == "bar-3.json"
    # Again, each in the file where it is.
    for title in ("My choice", "Bar", "Precious"):
        save_preset(tmp_path, mine(title).model_copy(update={"prompt": "new"}), replace=True)
    assert (tmp_path / "my-choice.json").read_text() == newer
    assert len(list(tmp_path.iterdir())) == 5 and (tmp_path / "bar.json").read_text() != renamed
    assert [(p.title, p.prompt) for p in own_presets(tmp_path).presets] == [
        ("Bar", "new"),
        ("My choice", "new"),
        ("Precious", "new"),
    ]
    delete_preset(tmp_path, "My choice")
    assert (tmp_path / "my-choice.json").read_text() == newer


def test_damaged_files_are_told_and_left_out(tmp_path: Path) -> None:
    save_preset(tmp_path, mine())
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "foreign.json").write_text(json.dumps({"title": "A", "task": "paint"}))
    (tmp_path / "folder.json").mkdir()
    with (tmp_path / "huge.json").open("wb") as huge:
        huge.truncate(1 << 33)  # sparse
    found = own_presets(tmp_path)
    assert found.presets == (mine(),) and len(found.problems) == 7
    assert all("\n" not in problem and ".json" in problem for problem in found.problems)
    delete_preset(tmp_path, mine().name)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError, match="cannot be saved"):
        save_preset(tmp_path / "file" / "presets", mine())


def test_a_users_preset_has_no_files_and_says_so() -> None:
    with pytest.raises(RecipeError, match="needs a picture"):
        mine().example(testing.card())
    lost = mine().model_copy(update={"files": {"image": "pictures/gone.png"}})
    with pytest.raises(MediaError, match="does not exist"):
        lost.example(testing.card())


def test_a_users_own_picture_is_used(tmp_path: Path) -> None:
    Image.fromarray(np.full((48, 64, 3), 200, np.uint8)).save(tmp_path / "a.png")
    filled = mine().fill(blank(13), {"image": Given(path=str(tmp_path / "a.png"))})
    assert filled.timeline.keyframes[0].source.path == str(tmp_path / "a.png")  # type: ignore[union-attr]
    assert filled.timeline.noise_multipliers() == (0.1, 1, 1)
