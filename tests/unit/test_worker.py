"""The worker without its process: what it writes, what it tells, what it says of memory."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pusa_app import media, testing, worker
from pusa_app.errors import MediaError, ModelError, in_words, is_memory
from pusa_app.events import Cancelled, Done, Event, Failed, Progress
from pusa_app.studio import new_recipe
from pusa_app.timeline import LoraChoice, Recipe, Sweep, new_sweep
from pusa_app.worker import Worker, poster_of, sidecar_of
from tests.unit.test_hub_loras import MINI


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")
    (tmp_path / "runs").mkdir()
    (tmp_path / "results").mkdir()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(tmp_path / "runs" / "red.png")


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def made(events: list[Event]) -> Worker:
    log = logging.Logger("apart")
    log.addHandler(logging.NullHandler())  # pytest keeps every record, and a record its traceback
    return Worker(lambda job_id, event: events.append(event), log)


def recipe(tmp_path: Path, **fields: Any) -> Recipe:
    keyframes = [{"slot": 0, "source": {"kind": "image", "path": str(tmp_path / "runs" / "red.png")}}]
    defaults: dict[str, Any] = {"prompt": "blue", "num_frames": 7, "steps": 2, "keyframes": keyframes}
    return new_recipe(testing.card(), "image-to-video", **{**defaults, **fields})


def run(made: Worker, work: Recipe | Sweep, out: Path, **options: Any) -> Event:
    return made.run("job", work.to_json(), str(out), lambda job_id: False, options)


def test_a_job_leaves_a_video_a_poster_and_its_recipe(made: Worker, events: list[Event], tmp_path: Path) -> None:
    out = tmp_path / "results" / "a.mp4"
    work = recipe(tmp_path)
    done = run(made, work, out)
    assert isinstance(done, Done) and (done.path, done.num_frames) == (str(out), 7)
    assert Recipe.from_json(done.recipe) == work
    assert sorted(p.name for p in out.parent.iterdir()) == ["a.jpg", "a.json", "a.mp4"]
    beside = Recipe.from_file(sidecar_of(out))
    assert beside.paths == ["../runs/red.png"], "a shared recipe does not tell where it was made"
    assert Recipe.from_json(media.read_recipe_text(out)) == beside
    assert media.check_image(poster_of(out)).format == "JPEG"
    progress = [event for event in events if isinstance(event, Progress) and event.phase != "loading"]
    assert progress and all(10**7 < event.memory < 10**12 for event in progress)


def test_a_video_without_its_recipe_has_it_beside(made: Worker, tmp_path: Path) -> None:
    out = tmp_path / "results" / "a.mp4"
    assert isinstance(run(made, recipe(tmp_path), out, embed=False), Done)
    with pytest.raises(MediaError, match="no recipe"):
        media.read_recipe_text(out)
    assert Recipe.from_file(sidecar_of(out)).prompt == "blue"
    work = new_sweep(recipe(tmp_path), {"kind": "seed", "values": [1, 2]})
    grid = tmp_path / "results" / "grid.mp4"
    assert isinstance(run(made, work, grid, embed=False), Done)
    cells = sorted((tmp_path / "results" / "grid-cells").glob("*.mp4"))
    assert len(cells) == 2
    for path in (grid, *cells):
        with pytest.raises(MediaError, match="no recipe"):
            media.read_recipe_text(path)
    assert Sweep.from_json(sidecar_of(grid).read_text()).recipe.paths == ["../runs/red.png"]


def test_a_sidecar_that_cannot_be_written_loses_no_video(made: Worker, tmp_path: Path) -> None:
    out = tmp_path / "results" / "a.mp4"
    sidecar_of(out).mkdir()
    assert isinstance(run(made, recipe(tmp_path), out), Done) and out.is_file()


def test_a_job_that_was_cancelled_before_it_began(made: Worker, tmp_path: Path) -> None:
    out = tmp_path / "results" / "a.mp4"
    assert made.run("job", recipe(tmp_path).to_json(), str(out), lambda job_id: True) == Cancelled()
    assert list(out.parent.iterdir()) == []


def test_after_a_memory_failure_the_model_is_gone_and_the_smaller_plan_is_tried(
    made: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[int] = []
    models: list[weakref.ref[Any]] = []
    real = worker.load_backbone

    def load(model: str, lean: int = 0) -> Any:
        plans.append(lean)
        backbone = real(model, lean)
        models.append(weakref.ref(backbone))
        return backbone

    monkeypatch.setattr(worker, "load_backbone", load)
    monkeypatch.setenv("PUSA_TEST_FAKE_FAIL", "memory-once")
    out = tmp_path / "results" / "a.mp4"
    failed = run(made, recipe(tmp_path), out)
    assert isinstance(failed, Failed) and failed.memory and "not enough memory" in failed.message
    gc.collect()
    assert models[0]() is None, "nothing holds on to a model that memory ran out for"
    assert isinstance(run(made, recipe(tmp_path), out, lean=1), Done)
    assert isinstance(run(made, recipe(tmp_path), out, lean=1), Done)
    assert plans == [0, 1], "a model is loaded again for another plan only"


@pytest.mark.parametrize("fault", ["user", "error"])
def test_other_failures_are_not_memory(
    made: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE_FAIL", fault)
    failed = run(made, recipe(tmp_path), tmp_path / "results" / "a.mp4")
    assert isinstance(failed, Failed) and not failed.memory
    monkeypatch.delenv("PUSA_TEST_FAKE_FAIL")
    assert isinstance(run(made, recipe(tmp_path), tmp_path / "results" / "a.mp4"), Done)


class OutOfMemoryError(RuntimeError):
    """As torch's."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (OutOfMemoryError("of some kind"), True),
        (RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False),
        (OSError(28, "No space left on device"), False),
        (MediaError("out of memory.png is damaged"), False),
        (ModelError("no"), False),
    ],
)
def test_what_is_memory(error: Exception, expected: bool) -> None:
    assert is_memory(error) is expected
    assert ("not enough memory" in in_words(error)) is expected


def test_a_real_allocation_that_fails_is_memory() -> None:
    import torch

    with pytest.raises((RuntimeError, MemoryError)) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_memory(caught.value)


def test_the_sidecar_is_json(made: Worker, tmp_path: Path) -> None:
    out = tmp_path / "results" / "ü b.mp4"
    run(made, recipe(tmp_path, prompt="blaue Kugel – 青"), out)
    assert json.loads(sidecar_of(out).read_text(encoding="utf-8"))["prompt"] == "blaue Kugel – 青"


def test_the_gpu_is_chosen_before_torch_is_there(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pusa_app import worker\n"
        "def mailbox(pipe): print(os.environ.get('CUDA_VISIBLE_DEVICES'), 'torch' in sys.modules); sys.exit()\n"
        "worker.Mailbox = mailbox; worker.main(None, sys.argv[1], *sys.argv[2:])"
    )

    def told(*device: str) -> str:
        command = [sys.executable, "-c", code, str(tmp_path / "log"), *device]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert told("3") == "3 False"
    assert told("") == told()


class TestPlans:
    """With the built-in model, which is planned like the large ones."""

    @pytest.fixture
    def mini(self, tmp_path: Path) -> Recipe:
        from pusa_app.models import get_card

        return new_recipe(get_card("mini"), "text-to-video", prompt="a red ball", num_frames=7, steps=2)

    def test_how_it_was_made_is_beside_the_video_and_means_nothing(
        self, made: Worker, mini: Recipe, tmp_path: Path
    ) -> None:
        out = tmp_path / "results" / "a.mp4"
        assert isinstance(run(made, mini, out), Done)
        told = json.loads(sidecar_of(out).read_text())["made_with"]
        assert told["plan"]["quantization"] == "none" and "reason" not in told["plan"]
        assert Recipe.from_file(sidecar_of(out)) == mini
        assert "made_with" not in media.read_recipe_text(out)

    def test_which_file_a_lora_was_is_beside_the_video(self, made: Worker, mini: Recipe, tmp_path: Path) -> None:
        file, out = tmp_path / "style.safetensors", tmp_path / "results" / "a.mp4"
        file.write_bytes(MINI)
        with_lora = mini.model_copy(update={"loras": (LoraChoice(path=str(file)),)})
        assert isinstance(run(made, with_lora, out), Done)
        told = json.loads(sidecar_of(out).read_text())["made_with"]
        assert told["lora_files"] == [{"name": file.name, "sha256": hashlib.sha256(MINI).hexdigest()}]
        assert told["loras"] == ["style.safetensors at 1: 1 module"]

    def test_the_smaller_plan_is_the_next_one_down_and_the_result_the_same(
        self, made: Worker, mini: Recipe, tmp_path: Path
    ) -> None:
        clips = []
        for lean in (0, 1):
            out = tmp_path / "results" / f"{lean}.mp4"
            assert isinstance(run(made, mini, out, lean=lean), Done)
            plan = made._backbone.fit.plan
            assert plan.exact and (plan.batched, plan.text) == ((True, "resident"), (False, "cpu"))[lean]
            clips.append(media.load_clip(out, 64, 64, fps=12, num_frames=7).astype(int))
        assert abs(clips[0] - clips[1]).mean() < 1

    def test_a_plan_that_cannot_be_made_is_none(
        self, made: Worker, mini: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(worker, "machine_here", lambda: 1 / 0)
        out = tmp_path / "results" / "a.mp4"
        assert isinstance(run(made, mini, out), Done)
        assert "made_with" not in json.loads(sidecar_of(out).read_text())

    def test_a_gpu_that_torch_cannot_use_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import torch

        from pusa_app.models.machine import imagined

        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setenv("PUSA_TEST_MACHINE", imagined(24, 64, "RTX 4090").model_dump_json())
        assert worker.machine_here().gpu_kind == "cpu"

    def test_a_large_text_encoder_is_there_alone(
        self, made: Worker, tiny_mochi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The encoder counts as large, and the memory as too small for both: a new prompt loads the model anew."""
        from pusa_app.backbones.fit import Fit
        from pusa_app.models import get_card, plan, plan_choices

        monkeypatch.setenv("PUSA_DATA_DIR", str(tmp_path / "data"))
        monkeypatch.setattr(plan_choices, "SMALL_BYTES", 0)
        monkeypatch.setattr(plan, "text_beside", lambda work, plan: False)
        there: list[bool] = []
        load = Fit._load_text

        def watch(self: Fit, cls: Any, folder: Path) -> Any:
            there.append(made._backbone is not None)
            return load(self, cls, folder)

        monkeypatch.setattr(Fit, "_load_text", watch)
        card = get_card(str(tiny_mochi))
        backbones = []
        for prompt in ("a red ball", "a red ball", "a blue ball"):
            size = {"num_frames": 7, "size": (32, 32), "steps": 1}
            work = new_recipe(card, "text-to-video", prompt=prompt, **size)
            assert isinstance(run(made, work, tmp_path / "results" / "a.mp4"), Done)
            backbones.append(made._backbone)
        assert there == [False, False], "two prompts, and never beside the rest"
        assert backbones[0] is backbones[1] is not backbones[2]
