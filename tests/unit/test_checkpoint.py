"""Runs that are stopped anywhere and go on: the same frames to the last bit, and no more work than is left."""

from __future__ import annotations

import itertools
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pusa_app import checkpoint, media, testing
from pusa_app.backbones.fake import FakeBackbone
from pusa_app.checkpoint import Checkpoint, files, resumable_step, steps_of
from pusa_app.errors import MediaError, ModelError, RunCancelled
from pusa_app.events import Event, Preview, Progress
from pusa_app.models import get_card, list_cards, load_backbone, version_of
from pusa_app.render import render
from pusa_app.sampling import SamplerState
from pusa_app.studio import given_clip, new_recipe
from pusa_app.sweep import render_sweep
from pusa_app.timeline import Options, Recipe, Sweep, get_task, new_sweep, plan_of

WORDS = "a red circle moves right over a black background"


class Wavy(FakeBackbone):
    """A velocity field that is not straight, so that every step matters. Counts the texts that it encodes."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__(testing.card().spec, fail_at=fail_at)
        self.texts = 0

    def encode_text(self, prompt: str) -> Any:
        self.texts += 1
        return super().encode_text(prompt)

    def velocity(self, z: torch.Tensor, sigma: torch.Tensor, texts: Any) -> list[torch.Tensor]:
        super().velocity(z, sigma, texts)
        return [torch.sin(3 * z + sigma[:, None, None]) - z + text.embeds.sum() * 0.1 for text in texts]


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the state at every step."""
    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(checkpoint, "COST", 1e9)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / "state.safetensors"


@pytest.fixture
def picture(tmp_path: Path) -> str:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    tiles = np.random.default_rng(1).integers(60, 180, (30, 4, 4, 3)).astype(np.uint8)
    with media.ClipWriter(path, 64, 64, 12, quality=0) as writer:
        writer.write(tiles.repeat(16, axis=1).repeat(16, axis=2))
    return str(path)


def single(**fields: Any) -> Recipe:
    defaults: dict[str, Any] = {"prompt": "blue", "num_frames": 13, "steps": 4}
    return new_recipe(testing.card(), "text-to-video", **{**defaults, **fields})


def pictured(path: str, **fields: Any) -> Recipe:
    keyframe = {"slot": 1, "source": {"kind": "image", "path": path}, "noise": 0.3}
    return single(keyframes=[keyframe], **fields).model_copy(update={"task": "keyframes"})


def chain(path: str) -> Recipe:
    """Three parts, each on the frames of the one before, with their colours matched."""
    task, options = get_task("extend"), Options(frames=72)
    timeline = task.timeline(testing.card().spec.timeline(37), {"clip": given_clip(path, 12)}, options)
    recipe = Recipe(
        task="extend",
        model="fake",
        timeline=timeline,
        options=options,
        steps=2,
        guidance=2,
        seed=7,
        prompt="blue",
        color_match=True,
    )
    assert len(plan_of(recipe).parts) == 3
    return recipe


def stopped(recipe: Recipe, state: Path, after: int, **more: Any) -> tuple[Wavy, list[Event]]:
    """The model and the events of a run that is cancelled when it has told `after` events."""
    backbone, told = Wavy(), []
    with pytest.raises(RunCancelled):
        render(recipe, backbone, told.append, state_path=state, cancelled=lambda: len(told) >= after, **more)
    return backbone, told


# --- the same frames -------------------------------------------------------------------------------------------------


def test_a_run_stopped_at_any_event_gives_the_same_frames(state: Path, picture: str) -> None:
    recipe, events = pictured(picture), []
    whole = render(recipe, Wavy(), events.append).frames
    seen: set[str] = set()
    for after in itertools.count(1):
        try:
            first, told = stopped(recipe, state, after)
        except pytest.fail.Exception:
            break  # it came to its end
        seen |= {event.phase for event in told if isinstance(event, Progress)}
        assert resumable_step(state, recipe) == first.calls == (4 if "decoding" in seen else first.calls)
        second = Wavy()
        assert np.array_equal(render(recipe, second, state_path=state).frames, whole)
        assert second.calls == 4 - first.calls, "no step is made twice"
        assert files(state) == []
    assert seen == {"encoding", "sampling", "decoding"} and after > 8


@pytest.mark.parametrize("after", range(3, 40, 4))
def test_a_chain_of_parts_stopped_anywhere_gives_the_same_file(
    state: Path, clip: str, tmp_path: Path, after: int
) -> None:
    recipe, whole, out = chain(clip), tmp_path / "whole.mp4", tmp_path / "out.mp4"
    events: list[Event] = []
    render(recipe, Wavy(), events.append, out=whole)
    if after >= len(events) - 2:
        pytest.skip("a run has fewer events")
    first, _ = stopped(recipe, state, after, out=out)
    assert resumable_step(state, recipe) == first.calls <= steps_of(recipe) == 6
    second = Wavy()
    render(recipe, second, out=out, state_path=state)
    assert out.read_bytes() == whole.read_bytes()
    assert first.calls + second.calls == 6
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.mp4", "run", "whole.mp4"] and files(state) == []


def test_stopped_again_and_again_it_still_comes_to_the_same_end(state: Path, picture: str) -> None:
    recipe = pictured(picture, steps=6)
    whole = render(recipe, Wavy()).frames
    calls = 0
    for _ in range(5):
        backbone = Wavy()
        with pytest.raises(RunCancelled):
            render(recipe, backbone, state_path=state, cancelled=lambda backbone=backbone: backbone.calls >= 1)
        calls += backbone.calls
    assert resumable_step(state, recipe) == calls == 5
    assert np.array_equal(render(recipe, Wavy(), state_path=state).frames, whole)


@pytest.mark.parametrize("phase", ["decoding", "writing"])
def test_stopped_while_decoding_or_writing_only_that_is_repeated(state: Path, tmp_path: Path, phase: str) -> None:
    recipe, out, told = single(), tmp_path / "a.mp4", []

    class Full(Wavy):
        def decode(self, z: torch.Tensor) -> Iterator[np.ndarray]:
            yield from super().decode(z)
            if phase == "writing":
                raise OSError(28, "No space left on device")

    with pytest.raises((RunCancelled, OSError)):
        render(
            recipe,
            Full(),
            told.append,
            out=out,
            state_path=state,
            cancelled=lambda: any(getattr(e, "phase", "") == phase for e in told),
        )
    assert not out.exists() and resumable_step(state, recipe) == steps_of(recipe) == 4
    second, again = Wavy(), []
    render(recipe, second, again.append, out=out, state_path=state)
    assert (second.calls, second.texts) == (0, 0)
    assert media.check_clip(out).num_frames == 13
    previews = [e for e in again if isinstance(e, Preview)]
    assert [e.step for e in previews] == [4], "there is a picture to look at all the same"


def test_a_run_that_fails_goes_on_from_the_step_before(state: Path) -> None:
    recipe = single()
    whole = render(recipe, Wavy()).frames
    with pytest.raises(RuntimeError):
        render(recipe, Wavy(fail_at=4), state_path=state)
    assert resumable_step(state, recipe) == 3
    second = Wavy()
    assert np.array_equal(render(recipe, second, state_path=state).frames, whole) and second.calls == 1


@pytest.mark.skipif(not any(c.id == "mini" for c in list_cards()), reason="the weights of mini are not here")
@pytest.mark.parametrize("where", ["sampling", "decoding"])
def test_mini_goes_on_to_the_same_frames(state: Path, picture: str, where: str) -> None:
    card = get_card("mini")
    keyframes = [{"slot": 0, "source": {"kind": "image", "path": picture}, "noise": 0.2}]
    recipe = new_recipe(card, "image-to-video", prompt=WORDS, num_frames=13, steps=4, keyframes=keyframes)
    whole = render(recipe, load_backbone(card)).frames
    told: list[Event] = []
    place = 2 if where == "sampling" else 0
    with pytest.raises(RunCancelled):
        render(
            recipe,
            load_backbone(card),
            told.append,
            state_path=state,
            cancelled=lambda: any(isinstance(e, Progress) and e.phase == where and e.step >= place for e in told),
        )
    assert resumable_step(state, recipe) == (2 if where == "sampling" else 4)
    assert np.array_equal(render(recipe, load_backbone(card), state_path=state).frames, whole)


# --- what may be gone on from ----------------------------------------------------------------------------------------


def damage_truncated(data: bytes) -> bytes:
    return data[:-10]


def damage_flipped(data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def damage_emptied(data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [damage_truncated, damage_flipped, damage_emptied])
def test_a_damaged_state_costs_a_fresh_start(state: Path, damage: Any) -> None:
    recipe = single()
    stopped(recipe, state, 6)
    state.write_bytes(damage(state.read_bytes()))
    backbone = Wavy()
    assert np.array_equal(render(recipe, backbone, state_path=state).frames, render(recipe, Wavy()).frames)
    assert backbone.calls == 4
    assert resumable_step(state, recipe) == 0


def test_a_state_of_another_recipe_or_model_is_not_used(state: Path, picture: str) -> None:
    recipe = pictured(picture)
    stopped(recipe, state, 10)
    assert resumable_step(state, recipe) > 0
    for other in (recipe.model_copy(update={"seed": 1}), recipe.model_copy(update={"steps": 5}), single()):
        assert resumable_step(state, other) == 0
    trained = Wavy()
    trained.version = "trained further"
    render(recipe, trained, state_path=state)
    assert trained.calls == 4


def test_what_counts_is_what_is_in_the_files_and_not_where_they_lie(state: Path, picture: str, tmp_path: Path) -> None:
    recipe = pictured(picture)
    first, _ = stopped(recipe, state, 10)
    moved = tmp_path / "elsewhere.png"
    shutil.copyfile(picture, moved)
    assert resumable_step(state, pictured(str(moved))) == first.calls > 0
    Image.new("RGB", (64, 64), "red").save(moved)
    assert resumable_step(state, pictured(str(moved))) == 0
    moved.unlink()
    assert resumable_step(state, pictured(str(moved))) == 0


def test_nothing_usable_is_zero(state: Path, tmp_path: Path) -> None:
    assert resumable_step(state, single()) == 0
    assert resumable_step(tmp_path / "no" / "folder", single()) == 0
    stopped(single(), state, 6)
    assert resumable_step(state, single().model_copy(update={"model": "gone"})) == 0
    state.unlink()
    state.mkdir()
    assert resumable_step(state, single()) == 0


def test_the_version_of_a_model_changes_with_its_files(tiny_mochi: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_mochi, folder)
    before = version_of(folder)
    assert version_of(folder) == before == load_backbone(str(folder), "cpu").version
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes())
    assert version_of(folder) != before


def test_asking_how_far_it_came_needs_no_torch(state: Path, picture: str) -> None:
    recipe = pictured(picture)
    first, _ = stopped(recipe, state, 10)
    code = (
        "import sys; from pathlib import Path; from pusa_app.checkpoint import resumable_step\n"
        "from pusa_app.timeline import Recipe\n"
        "print(resumable_step(Path(sys.argv[1]), Recipe.from_json(sys.argv[2]))); assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(state), recipe.to_json()]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(done.stdout) == first.calls > 0


def test_only_files_of_the_checkpoint_are_its(state: Path) -> None:
    names = ["", ".1", ".12", ".cell3", ".cell3.1", ".cells"]
    for name in (*names, ".txt", ".cellar", ".1.part", "2"):
        state.with_name(state.name + name).touch()
    assert [path.name for path in files(state)] == sorted(state.name + name for name in names)
    checkpoint.remove(state)
    assert len(list(state.parent.iterdir())) == 4


# --- what it costs ---------------------------------------------------------------------------------------------------


@pytest.fixture
def saves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps of the states that are written."""
    found: list[int] = []
    real = SamplerState.save

    def save(self: SamplerState, path: Path) -> None:
        found.append(self.step)
        real(self, path)

    monkeypatch.setattr(SamplerState, "save", save)
    return found


def test_a_fast_run_writes_no_state(state: Path, saves: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN", 3600.0)
    render(single(), Wavy(), state_path=state)
    assert saves == []


def test_a_slow_run_writes_every_step(state: Path, saves: list[int], often: None) -> None:
    render(single(), Wavy(), state_path=state)
    assert saves == [1, 2, 3, 4]


def test_a_slow_disk_is_written_to_more_rarely(state: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now, writes = [0.0], []

    def save(self: SamplerState, path: Path) -> None:
        writes.append(now[0])
        now[0] += 0.5  # it takes half a second

    monkeypatch.setattr(SamplerState, "save", save)
    monkeypatch.setattr(checkpoint, "time", type("Clock", (), {"monotonic": staticmethod(lambda: now[0])}))
    kept = Checkpoint(state, single(steps=1000), "fake")
    for step in range(1, 1000):
        now[0] += 1.0
        kept.keep(0, step, torch.zeros(3, 3, 8, 8))
    assert len(writes) * 0.5 <= 0.01 * now[0] + 0.5
    assert all(b - a >= 50 for a, b in itertools.pairwise(writes))


def test_a_disk_that_takes_no_state_costs_no_run(tmp_path: Path, often: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pusa_app.checkpoint"):
        frames = render(single(), Wavy(), state_path=tmp_path / "no" / "folder").frames
    assert np.array_equal(frames, render(single(), Wavy()).frames)
    assert len(caplog.records) == 1 and "without checkpoints" in caplog.records[0].getMessage()


def test_a_full_disk_leaves_the_last_state_as_it_is(state: Path, often: None, monkeypatch: pytest.MonkeyPatch) -> None:
    real, recipe = Path.write_bytes, single()

    def write(self: Path, data: bytes) -> int:
        if resumable_step(state, recipe) >= 2:
            real(self, data[:100])
            raise OSError(28, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(RuntimeError):
        render(recipe, Wavy(fail_at=4), state_path=state)
    assert [path.name for path in state.parent.iterdir()] == [state.name]
    assert resumable_step(state, recipe) == 2


def test_previews_take_a_small_share_of_a_fast_run() -> None:
    class Slow(Wavy):
        shown = 0

        def preview(self, z: torch.Tensor) -> np.ndarray:
            self.shown += 1
            return super().preview(z)

    backbone, events = Slow(), []
    started = time.monotonic()
    render(single(steps=150), backbone, events.append)
    seconds = time.monotonic() - started
    previews = [event.step for event in events if isinstance(event, Preview)]
    assert previews[0] == 1 and previews[-1] == 150
    assert backbone.shown == len(previews) <= 8 * seconds + 2


# --- sweeps ----------------------------------------------------------------------------------------------------------


def sweep(**fields: Any) -> Sweep:
    return new_sweep(single(**fields), {"kind": "seed", "values": [1, 2, 3]})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stopped_sweep(work: Sweep, out: Path, state: Path, calls: int) -> None:
    backbone = Wavy()
    with pytest.raises(RunCancelled):
        render_sweep(work, backbone, out=out, state_path=state, cancelled=lambda: backbone.calls >= calls)
    assert backbone.calls == calls


@pytest.mark.parametrize("calls", [2, 4, 6, 11, 12])
def test_a_sweep_goes_on_in_the_midst_of_its_cell(state: Path, tmp_path: Path, calls: int) -> None:
    work, whole, out = sweep(), tmp_path / "whole" / "grid.mp4", tmp_path / "out" / "grid.mp4"
    whole.parent.mkdir()
    out.parent.mkdir()
    render_sweep(work, Wavy(), out=whole)
    stopped_sweep(work, out, state, calls)
    assert (resumable_step(state, work), steps_of(work)) == (calls, 12)
    second = Wavy()
    result = render_sweep(work, second, out=out, state_path=state)
    assert second.calls == 12 - calls and all(cell.path for cell in result.cells)
    assert contents(out.parent) == contents(whole.parent)
    assert files(state) == []


def test_finished_cells_are_kept_only_as_they_were_made(state: Path, tmp_path: Path) -> None:
    work, out = sweep(), tmp_path / "grid.mp4"
    stopped_sweep(work, out, state, 9)
    first = tmp_path / "grid-cells" / "1-1.mp4"
    shutil.copyfile(tmp_path / "grid-cells" / "1-2.mp4", first)
    second = Wavy()
    render_sweep(work, second, out=out, state_path=state)
    assert second.calls == 4 + 3, "the first cell is another file, the second is kept, the third goes on"


def test_cells_with_another_recipe_inside_are_made_again(state: Path, tmp_path: Path) -> None:
    work, out = sweep(), tmp_path / "grid.mp4"
    stopped_sweep(work, out, state, 9)
    second = Wavy()
    render_sweep(work, second, out=out, state_path=state, embed=lambda work, folder: None)
    assert second.calls == 8 + 3
    for path in (out, *(tmp_path / "grid-cells").glob("*.mp4")):
        with pytest.raises(MediaError, match="no recipe"):
            media.read_recipe_text(path)


def test_a_failed_cell_is_tried_again_and_another_sweep_starts_anew(state: Path, tmp_path: Path) -> None:
    work, out = sweep(), tmp_path / "grid.mp4"
    backbone = Wavy(fail_at=6)  # in the second cell, whose third and fourth step are never made
    with pytest.raises(RunCancelled):
        render_sweep(work, backbone, out=out, state_path=state, cancelled=lambda: backbone.calls >= 8)
    second = Wavy()
    result = render_sweep(work, second, out=out, state_path=state)
    assert all(cell.path for cell in result.cells)
    assert second.calls == 3 + 2
    other = sweep(prompt="red")
    stopped_sweep(work, out, state, 9)
    third = Wavy()
    render_sweep(other, third, out=out, state_path=state)
    assert third.calls == 12


def test_a_fault_that_all_cells_share_ends_the_sweep(state: Path, tmp_path: Path) -> None:
    work, out = sweep(), tmp_path / "grid.mp4"
    with pytest.raises(RuntimeError):
        render_sweep(
            work, Wavy(fail_at=6), out=out, state_path=state, fatal=lambda error: isinstance(error, RuntimeError)
        )
    assert resumable_step(state, work) == 5
    with pytest.raises(ModelError):

        class Broken(Wavy):
            def velocity(self, z: torch.Tensor, sigma: torch.Tensor, texts: Any) -> list[torch.Tensor]:
                raise ModelError("no")

        render_sweep(work, Broken(), out=tmp_path / "b.mp4", fatal=lambda error: False)
