"""Sweeps: their cells, the grid that shows them, and what becomes of one that fails or is stopped."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pusa_app import cli, media, testing
from pusa_app.backbones.fake import FakeBackbone
from pusa_app.errors import MediaError, ModelError, RecipeError, RunCancelled, UserError
from pusa_app.events import Event, Preview, Progress
from pusa_app.jobs import Job
from pusa_app.media import _ffmpeg
from pusa_app.media import grid as grids
from pusa_app.models import list_cards
from pusa_app.presets import find_preset, save_preset
from pusa_app.settings import LOCAL, Settings
from pusa_app.studio import Studio, check_sweep, new_recipe
from pusa_app.sweep import cells_folder, cells_of, grid_of, render_sweep, sheet_of
from pusa_app.timeline import MAX_CELLS, Recipe, Sweep, is_sweep, new_sweep

NOISES = {"kind": "noise", "keyframe": 0, "values": [0, 0.5]}
SEEDS = {"kind": "seed", "values": [1, 2, 3]}
PATIENCE = 120.0


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")
    monkeypatch.setenv("PUSA_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64), (200, 30, 30)).save("red.png")
    Image.new("RGB", (64, 64), (30, 30, 200)).save("blue.png")


def recipe(**fields: Any) -> Recipe:
    keyframes = [{"slot": 0, "source": {"kind": "image", "path": "red.png"}}]
    defaults: dict[str, Any] = {"prompt": "blue", "num_frames": 13, "steps": 2, "keyframes": keyframes}
    return new_recipe(testing.card(), "image-to-video", **{**defaults, **fields})


def sweep(*axes: dict[str, Any], **fields: Any) -> Sweep:
    return new_sweep(recipe(**fields), *(axes or (NOISES, SEEDS)))


# --- cells -----------------------------------------------------------------------------------------------------------


def test_cells_go_row_by_row() -> None:
    cells = sweep().cells()
    assert sweep().shape == (2, 3) and len(cells) == 6
    assert [cell.labels for cell in cells[:4]] == [
        ("noise 0", "seed 1"),
        ("noise 0", "seed 2"),
        ("noise 0", "seed 3"),
        ("noise 0.5", "seed 1"),
    ]
    assert [(c.recipe.timeline.keyframes[0].noise, c.recipe.seed) for c in cells][3:] == [(0.5, 1), (0.5, 2), (0.5, 3)]
    assert all(Recipe.from_json(cell.recipe.to_json()) == cell.recipe for cell in cells)


def test_every_kind_of_axis_changes_its_own() -> None:
    (steps,) = sweep({"kind": "steps", "values": [7]}).cells()
    (guidance,) = sweep({"kind": "guidance", "values": [1.5]}).cells()
    assert (steps.labels, steps.recipe.steps) == (("7 steps",), 7)
    assert (guidance.labels, guidance.recipe.guidance) == (("guidance 1.5",), 1.5)
    assert guidance.recipe == recipe(guidance=1.5)


def test_a_noise_goes_to_all_slots_of_a_clip_and_names_its_slot() -> None:
    clip = {"slot": 1, "source": {"kind": "clip", "path": "a.mp4"}, "span": 2, "noise": [0.1, 0.2]}
    picture = {"slot": 0, "source": {"kind": "image", "path": "red.png"}}
    (cell,) = sweep({**NOISES, "keyframe": 1, "values": [0.4]}, num_frames=25, keyframes=[picture, clip]).cells()
    assert cell.recipe.timeline.noise_multipliers() == (0, 0.4, 0.4, 1, 1)
    assert cell.labels == ("slot 1 noise 0.4",)


def test_a_noise_names_its_slot_where_all_recipes_agree() -> None:
    def at(*slots: int) -> Recipe:
        return recipe(keyframes=[{"slot": s, "source": {"kind": "image", "path": "red.png"}} for s in slots])

    def labels(base: Recipe, *recipes: Recipe, keyframe: int = 0) -> tuple[str, ...]:
        presets = {"kind": "preset", "values": [f"p{n}" for n in range(len(recipes))], "recipes": recipes}
        noises = {**NOISES, "keyframe": keyframe, "values": [0.8]}
        return new_sweep(base, *([presets] if recipes else []), noises).labels[-1]

    assert labels(at(0, 2)) == labels(at(1, 2), at(0, 1), at(0, 2)) == ("slot 0 noise 0.8",)
    assert labels(at(0, 2), at(0, 1), at(1, 2)) == ("keyframe 1 noise 0.8",)
    assert labels(at(0, 2), at(0, 1), at(0, 2), keyframe=1) == ("keyframe 2 noise 0.8",)
    assert labels(at(0, 2), at(1), at(2)) == ("noise 0.8",), "there is one of them in each"


def test_many_values_of_one_axis_go_on_in_the_next_row() -> None:
    assert sweep({"kind": "seed", "values": list(range(8))}).shape == (1, 8)
    many = sweep({"kind": "seed", "values": list(range(10))})
    assert many.shape == (3, 4)
    assert grid_of(many).row_labels[2] == "seed 8, seed 9"


def test_a_sweep_is_told_from_a_recipe() -> None:
    text = sweep().to_json()
    assert is_sweep(text) and Sweep.from_json(text) == sweep()
    assert not is_sweep(recipe().to_json()) and not is_sweep("[]") and not is_sweep("[" * 100_000)
    for other in (recipe().to_json(), "[]", "", "{" * 100_000):
        with pytest.raises(RecipeError, match="not a sweep"):
            Sweep.from_json(other)
    with pytest.raises(RecipeError):
        Recipe.from_json(text)
    with pytest.raises(RecipeError, match="version 9"):
        Sweep.from_json(json.dumps({**json.loads(text), "version": 9}))


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ([], "axes"),
        ([SEEDS, SEEDS], "same thing"),
        ([SEEDS, NOISES, {"kind": "steps", "values": [1]}], "axes"),
        ([{"kind": "seed", "values": []}], "at least 1"),
        ([{"kind": "seed", "values": [1, 2, 1]}], "twice"),
        ([{"kind": "seed", "values": list(range(MAX_CELLS + 1))}], "at most 64"),
        ([{"kind": "seed", "values": list(range(33))}, NOISES], "66 videos are too many"),
        ([{**NOISES, "keyframe": 1}], "timeline has 1"),
        ([{**NOISES, "values": [1.5]}], "less than or equal to 1"),
        ([{"kind": "guidance", "values": [float("nan")]}], "finite"),
        ([{"kind": "steps", "values": [0]}], "greater than"),
        ([{"kind": "colour", "values": [1]}], "colour"),
        ([{"kind": "preset", "values": ["A"], "recipes": []}], "presets"),
    ],
)
def test_what_cannot_be_swept_is_one_line(axes: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        new_sweep(recipe(), *axes)
    assert "\n" not in str(caught.value)


def test_all_cells_are_for_one_model() -> None:
    other = recipe().model_copy(update={"model": "mini"})
    with pytest.raises(RecipeError, match="one model"):
        new_sweep(recipe(), {"kind": "preset", "values": ["A"], "recipes": [other]})


# --- made ------------------------------------------------------------------------------------------------------------


def test_a_grid_a_sheet_and_a_video_per_cell(tmp_path: Path) -> None:
    events: list[Event] = []
    result = render_sweep(sweep(), testing.backbone(), events.append, out=tmp_path / "grid.mp4")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["blue.png", "grid-cells", "grid.mp4", "grid.png", "red.png"]
    assert [cell.path and cell.path.name for cell in result.cells] == [
        f"{r}-{c}.mp4" for r in (1, 2) for c in (1, 2, 3)
    ]
    grid = media.check_clip(result.path)
    assert (grid.num_frames, grid.fps) == (13, 12) == (result.num_frames, grid.fps)
    assert (grid.width, grid.height) == (grid_of(sweep()).width, grid_of(sweep()).height)
    assert media.check_image(result.sheet).format == "PNG"
    assert Sweep.from_json(media.read_recipe_text(result.path)) == sweep()
    for cell, made in zip(sweep().cells(), result.cells, strict=True):
        assert made.path is not None and made.labels == cell.labels
        assert Recipe.from_json(media.read_recipe_text(made.path)) == cell.recipe
    progress = [e for e in events if isinstance(e, Progress)]
    assert {e.parts for e in progress} == {6} and {e.part for e in progress} == set(range(6))
    assert [e.part for e in progress] == sorted(e.part for e in progress)
    assert [e.sequence for e in events] == list(range(1, len(events) + 1))  # type: ignore[union-attr]
    assert any(isinstance(e, Preview) for e in events)


def test_runs_of_several_parts_count_all_of_them(tmp_path: Path) -> None:
    looped = new_recipe(testing.card(), "loop", prompt="blue", num_frames=19, steps=1)
    events: list[Event] = []
    render_sweep(new_sweep(looped, SEEDS), testing.backbone(), events.append, out=tmp_path / "grid.mp4")
    assert {(e.part, e.parts) for e in events if isinstance(e, Progress)} == {(n, 6) for n in range(6)}


def test_clips_of_different_lengths_stand_side_by_side(tmp_path: Path) -> None:
    long = recipe(num_frames=19)
    axis = {"kind": "preset", "values": ["short", "long"], "recipes": [recipe(), long]}
    assert render_sweep(new_sweep(recipe(), axis), testing.backbone(), out=tmp_path / "a.mp4").num_frames == 19


def test_a_grid_of_many_cells_opens_few_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, most, process = 0, 0, _ffmpeg.Process

    class Counted(process):  # type: ignore[misc, valid-type]
        def __enter__(self) -> Any:
            nonlocal now, most
            now, most = now + 1, max(most, now + 1)
            return super().__enter__()

        def __exit__(self, *error: Any) -> None:
            nonlocal now
            now -= 1
            super().__exit__(*error)

    monkeypatch.setattr(_ffmpeg, "Process", Counted)
    monkeypatch.setattr(grids, "MAX_OPEN", 2)
    many = sweep(SEEDS, num_frames=7, steps=1)
    result = render_sweep(many, testing.backbone(), out=tmp_path / "grid.mp4")
    assert result.num_frames == 7 and all(cell.path for cell in result.cells)
    assert (most, now) == (1, 0), "but for the one that writes"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".", "tmp"))]


def test_a_cancel_is_heard_while_many_cells_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grids, "MAX_OPEN", 2)
    told: list[Event] = []
    many = sweep(SEEDS, num_frames=7, steps=1)
    reads = 0

    def cancelled() -> bool:
        nonlocal reads
        reads += bool(told) and isinstance(told[-1], Progress) and told[-1].phase == "writing" and told[-1].step == 0
        return reads > 2

    with pytest.raises(RunCancelled):
        render_sweep(many, testing.backbone(), told.append, out=tmp_path / "grid.mp4", cancelled=cancelled)
    cells = cells_of(many, tmp_path / "grid.mp4")
    assert all(cell.path for cell in cells) and not (tmp_path / "grid.mp4").exists()


def test_one_cell_that_fails_does_not_lose_the_others(tmp_path: Path) -> None:
    backbone = FakeBackbone(testing.card().spec, fail_at=3)
    result = render_sweep(sweep(SEEDS), backbone, out=tmp_path / "grid.mp4")
    assert [cell.path is None for cell in result.cells] == [False, True, False]
    assert "RuntimeError" in result.cells[1].problem and "\n" not in result.cells[1].problem
    assert cells_of(sweep(SEEDS), tmp_path / "grid.mp4") == list(result.cells)
    assert media.check_clip(result.path).num_frames == 13
    # Made again without the fault, nothing of it is left.
    again = render_sweep(sweep(SEEDS), testing.backbone(), out=tmp_path / "grid.mp4")
    assert all(cell.path for cell in again.cells) and not any(c.problem for c in cells_of(sweep(SEEDS), again.path))


def test_when_no_cell_can_be_made_the_first_reason_is_told(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="gone"):
        gone = [{"slot": 0, "source": {"kind": "image", "path": "gone.png"}}]
        render_sweep(sweep(SEEDS, keyframes=gone), testing.backbone(), out=tmp_path / "grid.mp4")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["blue.png", "red.png"]


def test_a_cancel_leaves_the_finished_cells(tmp_path: Path) -> None:
    done: list[int] = []

    def watch(event: Event) -> None:
        if isinstance(event, Progress):
            done.append(event.part)

    with pytest.raises(RunCancelled):
        render_sweep(
            sweep(),
            testing.backbone(),
            watch,
            out=tmp_path / "grid.mp4",
            cancelled=lambda: bool(done) and done[-1] == 2,
        )
    folder = cells_folder(tmp_path / "grid.mp4")
    assert sorted(p.name for p in folder.iterdir()) == ["1-1.mp4", "1-2.mp4"]
    assert not (tmp_path / "grid.mp4").exists() and not sheet_of(tmp_path / "grid.mp4").exists()
    with pytest.raises(RunCancelled):
        render_sweep(sweep(), testing.backbone(), out=tmp_path / "b.mp4", cancelled=lambda: True)
    assert not cells_folder(tmp_path / "b.mp4").exists()


def test_a_cell_is_made_again_from_its_video(tmp_path: Path) -> None:
    result = render_sweep(sweep(), testing.backbone(), out=tmp_path / "grid.mp4")
    cli._loaded.clear()
    assert cli.main(["generate", "--recipe", str(result.cells[4].path), "--out", "again.mp4"]) == 0
    assert Path("again.mp4").read_bytes() == result.cells[4].path.read_bytes()  # type: ignore[union-attr]


@pytest.mark.skipif(not any(c.id == "mini" for c in list_cards()), reason="the weights of mini are not here")
def test_mini_makes_a_cell_again(capfd: pytest.CaptureFixture[str]) -> None:
    cli._loaded.clear()
    words = ["--prompt", "a red circle moves right over a black background", "--steps", "2", "--frames", "13"]
    assert cli.main(["sweep", *words, "--axis", "seed=3,4", "--out", "grid.mp4"]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "grid.mp4"
    assert cli.main(["generate", "--recipe", "grid-cells/1-2.mp4", "--out", "again.mp4"]) == 0
    np.testing.assert_array_equal(media.read_frames("again.mp4"), media.read_frames("grid-cells/1-2.mp4"))
    cli._loaded.clear()


def test_a_sweep_does_not_overwrite_its_sources(tmp_path: Path) -> None:
    for out in ("red.mp4", "grid.mp4"):
        cells_folder(Path("grid.mp4")).mkdir(exist_ok=True)
        source = "red.png" if out == "red.mp4" else "grid-cells/1-1.mp4"
        keyframes = [{"slot": 0, "source": {"kind": "image", "path": source}}]
        with pytest.raises(RecipeError, match="overwrite"):
            render_sweep(sweep(SEEDS, keyframes=keyframes), testing.backbone(), out=tmp_path / out)


def test_a_grid_that_no_encoder_takes_is_refused_before_the_work() -> None:
    wide = sweep({**NOISES, "values": [0]}, {"kind": "seed", "values": list(range(64))})
    with pytest.raises(MediaError, match="pixels"):
        check_sweep(wide)


# --- the command line ------------------------------------------------------------------------------------------------

GOOD = ["sweep", "--model", "fake", "--prompt", "blue", "--frames", "13", "--steps", "2", "--out", "grid.mp4"]
PICTURED = [*GOOD, "--image", "red.png"]


def test_a_sweep_from_the_command_line(capfd: pytest.CaptureFixture[str]) -> None:
    cli._loaded.clear()
    assert cli.main([*PICTURED, "--axis", "noise:0=0,0.4", "--axis", "seed=1,2"]) == 0
    out, err = capfd.readouterr()
    assert out.splitlines()[-1] == "grid.mp4" and "part 4/4" in err
    assert cli.main(["recipe", "grid.mp4"]) == 0
    text = capfd.readouterr().out
    assert Sweep.from_json(text).shape == (2, 2)
    Path("sweep.json").write_text(text)
    for source in ("sweep.json", "grid.mp4"):
        assert cli.main(["sweep", "--recipe", source, "--out", "again.mp4"]) == 0
        assert Path("again.mp4").read_bytes() == Path("grid.mp4").read_bytes()


def test_a_cell_is_made_again_from_any_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cli._loaded.clear()
    assert cli.main([*PICTURED, "--axis", "seed=1,2"]) == 0
    other = tmp_path / "other"
    other.mkdir()
    Path("blue.png").rename(other / "red.png")
    monkeypatch.chdir(other)
    for made in ("grid-cells/1-2.mp4", "grid.mp4"):
        work = cli._read_work(tmp_path / made)
        assert all(Path(path).samefile(tmp_path / "red.png") for path in work.paths)
    assert cli.main(["generate", "--recipe", "../grid-cells/1-2.mp4", "--out", "again.mp4"]) == 0
    np.testing.assert_array_equal(media.read_frames("again.mp4"), media.read_frames("../grid-cells/1-2.mp4"))


FOUR = [*PICTURED, "--axis", "seed=1,2,3,4"]


def stopped_at(call: int, words: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Ctrl-C at a step of the fake model; returns when the cells that are there were written."""

    def interrupt(place: int | str, lean: int) -> None:
        if place == call:
            raise KeyboardInterrupt

    cli._loaded.clear()
    with monkeypatch.context() as during:
        during.setattr(testing, "_stage_fault", interrupt)
        assert cli.main(words) == 130
    cli._loaded.clear()
    return written()


def written() -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in Path("grid-cells").glob("[!.]*")}


def test_a_stopped_sweep_goes_on(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    before = stopped_at(5, FOUR, monkeypatch)
    assert sorted(before) == ["1-1.mp4", "1-2.mp4"]
    assert stopped_at(1, FOUR, monkeypatch) == before, "a second try that is stopped at once"
    capfd.readouterr()
    assert cli.main(FOUR) == 0
    assert "part 2/4" not in capfd.readouterr().err
    assert {name: written()[name] for name in before} == before
    assert sorted(path.name for path in Path("grid-cells").iterdir()) == [f"1-{n}.mp4" for n in (1, 2, 3, 4)]
    # What is done is made anew, and is the same.
    first = Path("grid.mp4").read_bytes()
    assert cli.main(FOUR) == 0
    assert Path("grid.mp4").read_bytes() == first and written()["1-1.mp4"] != before["1-1.mp4"]


def test_another_sweep_to_the_same_name_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(stopped_at(7, FOUR, monkeypatch)) == 3
    assert cli.main([*PICTURED, "--axis", "seed=3,2"]) == 0
    assert [cli.read_recipe(path).seed for path in sorted(Path("grid-cells").iterdir())] == [3, 2]


def test_a_picture_that_is_no_sheet_is_not_overwritten(capfd: pytest.CaptureFixture[str]) -> None:
    cli._loaded.clear()
    Path("grid.png").write_bytes(b"holiday")
    assert cli.main([*GOOD, "--axis", "seed=1"]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and "grid.png" in err and "choose another name" in err
    assert Path("grid.png").read_bytes() == b"holiday" and not Path("grid-cells").exists()
    # Nor beside a video, or a folder, that is no sweep's.
    with media.ClipWriter("grid.mp4", 64, 64, 12) as clip:
        clip.write(np.zeros((7, 64, 64, 3), np.uint8))
    Path("grid-cells").mkdir()
    Path("grid-cells", "notes.txt").write_text("mine")
    video = Path("grid.mp4").read_bytes()
    assert cli.main([*GOOD, "--axis", "seed=1"]) == 2
    assert "grid.png" in capfd.readouterr().err and Path("grid.mp4").read_bytes() == video
    for path in ("grid.mp4", "grid.png", "grid-cells/notes.txt"):
        Path(path).unlink()
    for _ in range(2):  # its own
        assert cli.main([*GOOD, "--axis", "seed=1"]) == 0
    # Either of what it leaves says so.
    Path("grid.mp4").unlink()
    assert cli.main([*GOOD, "--axis", "seed=1"]) == 0
    shutil.rmtree("grid-cells")
    assert cli.main([*GOOD, "--axis", "seed=1"]) == 0


def test_a_stopped_sweep_goes_on_beside_an_older_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.main(FOUR) == 0
    stopped_at(1, FOUR, monkeypatch)
    assert len(stopped_at(5, FOUR, monkeypatch)) == 2
    Path("grid.mp4").unlink()
    assert cli.main(FOUR) == 0


def test_presets_from_the_command_line(capfd: pytest.CaptureFixture[str]) -> None:
    cli._loaded.clear()
    names = "exact-first-frame,first-frame-free-to-move"
    assert cli.main([*PICTURED, "--axis", f"preset={names}"]) == 0
    (axis,) = Sweep.from_json(media.read_recipe_text("grid.mp4")).axes
    assert axis.values == ("Exact first frame", "First frame, free to move")
    assert [r.timeline.keyframes[0].noise for r in axis.recipes] == [0, 0.3]  # type: ignore[union-attr]


def test_a_preset_from_the_command_line_has_its_length() -> None:
    cli._loaded.clear()
    assert cli.main([*GOOD, "--axis", "preset=short-draft,red-circle"]) == 0
    assert [media.check_clip(f"grid-cells/1-{n}.mp4").num_frames for n in (1, 2)] == [19, 13]


def test_a_preset_that_was_saved_on_the_page_is_found(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli._loaded.clear()
    monkeypatch.setenv("PUSA_DATA_DIR", str(tmp_path / "data"))
    own = find_preset("exact-first-frame").model_copy(update={"name": "mine", "title": "Mine"})
    save_preset(Settings().presets_dir(LOCAL), own)
    assert cli.main([*PICTURED, "--axis", "preset=mine"]) == 0
    assert Sweep.from_json(media.read_recipe_text("grid.mp4")).axes[0].values == ("Mine",)
    save_preset(Settings().presets_dir("browser:other"), own.model_copy(update={"name": "theirs", "title": "Theirs"}))
    assert cli.main([*PICTURED, "--axis", "preset=theirs"]) == 2
    assert "There is no preset 'theirs'" in capfd.readouterr().err


def test_failed_cells_are_told_and_cost_an_exit_code(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cli._loaded, "fake", FakeBackbone(testing.card().spec, fail_at=1))
    assert cli.main([*GOOD, "--axis", "seed=1,2"]) == 1
    out, err = capfd.readouterr()
    assert out.splitlines()[-1] == "grid.mp4" and "seed 1: The run failed" in err and "seed 2" not in err
    cli._loaded.clear()


MISTAKES = {
    "no axis": GOOD,
    "no kind": [*GOOD, "--axis", "1,2"],
    "unknown kind": [*GOOD, "--axis", "colour=1,2"],
    "no values": [*GOOD, "--axis", "seed="],
    "seed in words": [*GOOD, "--axis", "seed=one"],
    "noise outside": [*PICTURED, "--axis", "noise:0=0,2"],
    "noise of nothing": [*GOOD, "--axis", "noise:0=0,0.2"],
    "noise of a keyframe that is not there": [*PICTURED, "--axis", "noise:3=0,0.2"],
    "seed of a keyframe": [*PICTURED, "--axis", "seed:1=1,2"],
    "the same twice": [*GOOD, "--axis", "seed=1", "--axis", "seed=2"],
    "three axes": [*PICTURED, "--axis", "seed=1", "--axis", "steps=2", "--axis", "guidance=1"],
    "too many": [*GOOD, "--axis", f"seed={','.join(map(str, range(65)))}"],
    "too many steps": [*GOOD, "--axis", "steps=2,900"],
    "unknown preset": [*PICTURED, "--axis", "preset=nonsense"],
    "preset of another task": [*PICTURED, "--axis", "preset=bridge-a-to-b"],
    "every slot clean": ["sweep", "--recipe", "clean.json", "--axis", "seed=1", "--out", "a.mp4"],
    "no mp4": [*GOOD[:-1], "grid.gif", "--axis", "seed=1"],
    "a source that would be overwritten": [*PICTURED[:-4], "--out", "red.mp4", *PICTURED[-2:], "--axis", "seed=1"],
    "recipe and prompt": [*GOOD, "--recipe", "sweep.json", "--axis", "seed=1"],
    "recipe of nothing": ["sweep", "--recipe", "gone.mp4", "--out", "a.mp4"],
    "sweep and axis": ["sweep", "--recipe", "sweep.json", "--axis", "seed=1", "--out", "a.mp4"],
    "sweep as a recipe": ["generate", "--recipe", "sweep.json", "--out", "a.mp4"],
    "broken sweep": ["sweep", "--recipe", "broken.json", "--out", "a.mp4"],
}


@pytest.mark.parametrize("arguments", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line_and_writes_nothing(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    Path("sweep.json").write_text(sweep().to_json())
    clean = recipe(keyframes=[{"slot": slot, "source": {"kind": "image", "path": "red.png"}} for slot in range(3)])
    Path("clean.json").write_text(clean.to_json())
    Path("broken.json").write_text('{"kind": "sweep", "recipe": 5}')
    before = set(Path.cwd().rglob("*"))
    assert cli.main(arguments) == 2
    out, err = capfd.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and len(err) < 900, err
    assert set(Path.cwd().rglob("*")) == before


# --- the studio ------------------------------------------------------------------------------------------------------


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    studio = Studio(Settings(data_dir=tmp_path / "data"))
    yield studio
    studio.close()


def wait_for(studio: Studio, job: Job, condition: Any) -> Job:
    deadline = time.monotonic() + PATIENCE
    while not condition(now := studio.job(job.id)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return now  # type: ignore[return-value]


def test_a_sweep_is_one_job(studio: Studio) -> None:
    job = studio.submit_sweep(sweep(), "me")
    assert [len(studio.cells(job)), studio.sheet(job)] == [6, None]
    Path("red.png").unlink()  # the upload's cache may be emptied at any time
    job = wait_for(studio, job, lambda now: now.ended)
    assert job.state == "done", job.message
    video = studio.result(job)
    assert video is not None and video.name.startswith("blue-sweep-")
    assert studio.poster(job) is not None and studio.sheet(job) is not None
    made = studio.sweep(job)
    assert made is not None and studio.recipe(job) == made.recipe
    assert Path(made.recipe.paths[0]).parent == studio.settings.runs_dir / job.id
    cells = studio.cells(job)
    assert all(cell.path is not None and not cell.problem for cell in cells) and cells[0].labels == (
        "noise 0",
        "seed 1",
    )
    for path in (video, cells[5].path):
        assert str(studio.settings.data_dir) not in media.read_recipe_text(path), "a shared video does not tell"
    red = media.read_frames(cells[0].path)[0].mean((0, 1))
    assert np.abs(red - (200, 30, 30)).max() < 4
    # A cell's video makes itself again, wherever it is looked at from.
    cli._loaded.clear()
    assert cli.main(["generate", "--recipe", str(cells[5].path), "--out", "again.mp4"]) == 0
    np.testing.assert_array_equal(media.read_frames("again.mp4"), media.read_frames(cells[5].path))
    assert (
        studio.sweep(studio.submit(recipe(keyframes=[], prompt="x").model_copy(update={"task": "text-to-video"}), "me"))
        is None
    )


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Studio]:
    """A studio that starts nothing."""
    studio = Studio(Settings(data_dir=tmp_path / "data"), idle=True)
    yield studio
    studio.close()


def files_of(studio: Studio) -> set[Path]:
    return set(studio.settings.runs_dir.rglob("*"))


def test_a_waiting_sweep_is_replaced_in_its_place(idle: Studio) -> None:
    first, second = idle.submit_sweep(sweep(), "me"), idle.submit_sweep(sweep(SEEDS), "me")
    assert idle.hold(first.id, "me", True)
    blue = [{"slot": 0, "source": {"kind": "image", "path": "blue.png"}}]
    wanted = sweep({"kind": "steps", "values": [1, 3]}, keyframes=blue, prompt="mended", seed=9)
    changed = idle.replace(first.id, wanted, "me", embed=False)
    assert [job.id for job in idle.queue("me")] == [first.id, second.id]
    made = idle.sweep(changed)
    assert made is not None and made.axes == wanted.axes and made.recipe.prompt == "mended"
    assert (changed.out, changed.created, changed.position) == (first.out, first.created, first.position)
    assert (changed.prompt, changed.seed, changed.embed, changed.held) == ("mended", 9, False, False)
    assert not (idle.settings.runs_dir / first.folder).exists(), "nobody needs the picture any more"
    source = Path(made.recipe.paths[0])
    assert source.parent == idle.settings.runs_dir / changed.folder and source.is_file()
    assert Sweep.from_json((source.parent / "recipe.json").read_text()) == made
    with pytest.raises(RecipeError, match="no longer there"):
        idle.replace(first.id, wanted, "you")


def test_a_sweep_that_cannot_be_changes_nothing(idle: Studio) -> None:
    job = idle.submit_sweep(sweep(), "me")
    before = files_of(idle)
    gone = [{"slot": 0, "source": {"kind": "image", "path": "gone.png"}}]
    named = [{"path": "/etc/passwd", "strength": 1.0}]
    wrong: list[tuple[Sweep, str]] = [
        (sweep({"kind": "steps", "values": [2, 201]}), "201 steps: .*at most 200"),
        (sweep(SEEDS, keyframes=gone), "seed 1: .*gone"),
        (new_sweep(recipe().model_copy(update={"model": "/etc"}), SEEDS), "no model"),
        (new_sweep(Recipe.from_json(json.dumps(json.loads(recipe().to_json()) | {"loras": named})), SEEDS), "path"),
        (sweep({**NOISES, "values": [0]}, {"kind": "seed", "values": list(range(64))}), "pixels"),
    ]
    for work, words in wrong:
        with pytest.raises(UserError, match=words) as caught:
            idle.replace(job.id, work, "me")
        assert "\n" not in str(caught.value)
    assert idle.job(job.id) == job and files_of(idle) == before


@pytest.mark.parametrize("state", ["running", "cancelled"])
def test_a_sweep_that_waits_no_more_is_not_replaced(idle: Studio, state: str) -> None:
    job = idle.submit_sweep(sweep(), "me")
    if state == "running":
        assert idle._store.claim() is not None
    else:
        idle.cancel(job.id)
    now, before = idle.job(job.id), files_of(idle)
    with pytest.raises(RecipeError, match=r"^This video is no longer waiting: its settings were not changed.$"):
        idle.replace(job.id, sweep(SEEDS), "me")
    assert idle.job(job.id) == now and files_of(idle) == before


def test_a_sweep_that_begins_while_it_is_saved_is_not_replaced(idle: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    job = idle.submit_sweep(sweep(), "me")
    before, take = files_of(idle), idle._results.take

    def take_slowly(*given: Any) -> Any:
        taken = take(*given)
        assert idle._store.claim() is not None
        return taken

    monkeypatch.setattr(idle._results, "take", take_slowly)
    with pytest.raises(RecipeError, match="no longer waiting"):
        idle.replace(job.id, sweep(SEEDS), "me")
    now = idle.job(job.id)
    assert now is not None and now.recipe == job.recipe and files_of(idle) == before


def test_what_is_made_from_the_same_files_keeps_them(idle: Studio) -> None:
    job = idle.submit_sweep(sweep(), "me")
    copy = idle.duplicate(job.id, "me")
    idle.replace(job.id, sweep(SEEDS), "me")
    made = idle.sweep(copy)
    assert made is not None and Path(made.recipe.paths[0]).is_file()
    left = {path.name for path in (idle.settings.runs_dir / job.folder).iterdir()}
    assert left == {"source-0.png", "recipe.json", f"{copy.id}.job.json"}, "and nothing of the one that went"


def test_finished_cells_outlive_an_edit_of_what_goes_on_from_them(idle: Studio) -> None:
    old = idle.submit_sweep(sweep(SEEDS), "me")
    leave_midway(idle, old)
    job = idle.resume(old.id, "me")
    assert idle.made(job) == (2, 3)
    # Saved as it is, from another place.
    saved = idle.replace(job.id, sweep(SEEDS), "me")
    assert idle.made(saved) == (2, 3) and (saved.out, saved.source) == (old.out, old.id)
    assert idle.purge(before=time.time() + 1) == 0, "it may have to come back"
    changed = idle.replace(job.id, sweep({"kind": "seed", "values": [1, 2, 9]}), "me")
    assert idle.made(changed) == (0, 3) and (changed.id, changed.source) == (job.id, "") and changed.out != old.out
    (back,) = [one for one in idle.jobs("me") if one.id == old.id]
    assert idle.made(back) == (2, 3) and idle.can_resume(back) == 2 * 2
    assert idle.purge(before=time.time() + 1) == 0
    # A second edit, and the end of both, take nothing of it.
    idle.replace(job.id, sweep(SEEDS), "me")
    idle.cancel(job.id)
    again = idle.resume(old.id, "me")
    assert again.id != job.id and idle.made(again) == (2, 3)
    assert len(idle._results.states(again)) == 1


def leave_midway(studio: Studio, job: Job) -> None:
    """End a sweep of three cells in the midst of it, as a worker that is cancelled does: two cells are made."""
    made = studio.sweep(job)
    assert made is not None
    with pytest.raises(RunCancelled):
        render_sweep(
            made,
            testing.backbone(),
            out=Path(job.out),
            cancelled=lambda: studio.made(job)[0] == 2,
            state_path=studio._results.state(job),
        )
    studio.cancel(job.id)


def test_what_had_nothing_made_does_not_come_back(idle: Studio) -> None:
    old = idle.submit_sweep(sweep(), "me")
    idle.cancel(old.id)
    job = idle.resume(old.id, "me")
    changed = idle.replace(job.id, sweep(SEEDS), "me")
    assert idle.jobs("me") == [changed] and changed.source == ""


def test_an_edit_that_does_not_fit_on_the_disk_changes_nothing(idle: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    job = idle.submit_sweep(sweep(SEEDS), "me")
    before = files_of(idle)
    large = sweep({"kind": "seed", "values": list(range(24))})
    with monkeypatch.context() as full:
        full.setattr(media, "free_bytes", lambda _: 0)
        for ask in (lambda: idle.submit_sweep(large, "me"), lambda: idle.replace(job.id, large, "me")):
            with pytest.raises(RecipeError, match="The disk has 0 MB left"):
                ask()
    assert idle.job(job.id) == job and files_of(idle) == before
    # It is not one more: as many as may wait do.
    idle.settings = dataclasses.replace(idle.settings, max_queue=1, max_queue_per_owner=1)
    assert idle.replace(job.id, large, "me").id == job.id
    idle.settings = dataclasses.replace(idle.settings, quota_bytes=0)
    with pytest.raises(RecipeError, match="delete some in the library first"):
        idle.replace(job.id, sweep(SEEDS), "me")


def test_the_disk_must_have_room_for_the_largest_cell(idle: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    blank = recipe(keyframes=[]).model_copy(update={"task": "keyframes"})  # nothing to plan by
    short, long = recipe(num_frames=13), recipe(num_frames=61)
    axis = {"kind": "preset", "values": ["short", "long"], "recipes": [short, long]}
    monkeypatch.setattr(media, "free_bytes", lambda _: room)
    room = idle.settings.reserve_bytes + media.needed_bytes(64, 64, 61, 2)
    assert idle.submit_sweep(new_sweep(blank, axis), "me").state == "queued"
    room -= 1
    for base in (blank, short):
        with pytest.raises(RecipeError, match="The disk has"):
            idle.submit_sweep(new_sweep(base, axis), "me")


def test_a_sweep_may_become_a_single_video(idle: Studio) -> None:
    job = idle.submit_sweep(sweep(), "me")
    changed = idle.replace(job.id, recipe(), "me")
    assert idle.sweep(changed) is None and "sweep" not in Path(changed.out).name


def test_every_cell_is_checked_before_anything_is_queued(studio: Studio) -> None:
    with pytest.raises(RecipeError, match=r"201 steps: .*at most 200"):
        studio.submit_sweep(sweep({"kind": "steps", "values": [2, 201]}), "me")
    with pytest.raises(MediaError, match=r"seed 1: .*gone"):
        gone = [{"slot": 0, "source": {"kind": "image", "path": "gone.png"}}]
        studio.submit_sweep(sweep(SEEDS, keyframes=gone), "me")
    with pytest.raises(ModelError):
        studio.submit_sweep(new_sweep(recipe().model_copy(update={"model": "/etc"}), SEEDS), "me")
    assert studio.jobs("me") == [] and not studio.settings.runs_dir.exists()


def test_a_cancelled_sweep_keeps_its_finished_cells(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE_DELAY", "0.1")
    job = studio.submit_sweep(sweep({"kind": "seed", "values": list(range(30))}, steps=5), "me")
    wait_for(studio, job, lambda _: studio.cells(job)[0].path is not None)
    worker = studio.worker_pid
    assert studio.cancel(job.id)
    job = wait_for(studio, job, lambda now: now.ended)
    cells = studio.cells(job)
    assert job.state == "cancelled" and studio.result(job) is None and studio.worker_pid == worker
    assert cells[0].path is not None and cells[29].path is None
    assert media.check_clip(cells[0].path).num_frames == 13


def test_a_sweep_whose_cells_all_fail_is_a_failed_job(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE_FAIL", "user")
    job = wait_for(studio, studio.submit_sweep(sweep(SEEDS), "me"), lambda now: now.ended)
    assert job.state == "failed" and job.message == "The fake model was told to refuse."
    assert [cell.problem for cell in studio.cells(job)] == [""] * 3, "nothing is left behind"


def test_presets_in_a_sweep_have_the_sources_of_the_job(studio: Studio) -> None:
    from pusa_app.presets import preset_axis

    chosen = [find_preset("exact-first-frame"), find_preset("first-frame-free-to-move")]
    axis = preset_axis(recipe(), testing.card(), chosen)
    job = studio.submit_sweep(new_sweep(recipe(), axis, {"kind": "seed", "values": [1]}), "me")
    Path("red.png").unlink()
    assert wait_for(studio, job, lambda now: now.ended).state == "done"
