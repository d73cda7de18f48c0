"""`bench memory` without a GPU: all but CUDA's own figures, with tiny models that are built like the large ones."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import UMT5EncoderModel

from pusa_app.backbones.parts import load_weights
from pusa_app.bench import memory, memory_measure, memory_models, memory_run
from pusa_app.bench.memory_measure import (
    Case,
    Profile,
    Row,
    cases_of,
    check_disk,
    folder_of,
    held,
    measure_model,
    row_text,
    verdict,
)
from pusa_app.bench.memory_models import RandomModel, Shapes, random_model, write_weights
from pusa_app.bench.memory_run import CudaMeter, Outcome, Peak, Request, levels, long_prompts, measure
from pusa_app.errors import UserError
from pusa_app.models import get_card, load_backbone
from pusa_app.models.entry import entries
from pusa_app.models.fitting import architecture_for
from pusa_app.models.machine import GIB, imagined
from pusa_app.models.plan_types import CONTEXT, MemoryPlan
from tests import hunyuan, ltx, wan
from tests.memory_child import on_cpu

CHILD = Path(__file__).parents[1] / "memory_child.py"
T5 = {"vocab_size": 8, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}
WAN_VAE = {"base_dim": 4, "num_res_blocks": 1, "dim_mult": [1, 1, 1, 1]}
LLAMA = {
    "vocab_size": 8,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CLIP = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 8}
TINY = {
    "mochi": Shapes(
        T5,
        transformer={
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 2,
            "pooled_projection_dim": 32,
            "text_embed_dim": 32,
        },
        vae={
            "encoder_block_out_channels": (32, 32, 32, 32),
            "decoder_block_out_channels": (32, 32, 32, 32),
            "layers_per_block": (1, 1, 1, 1, 1),
        },
    ),
    "wan": Shapes(T5, wan.CONFIG, WAN_VAE),
    "skyreels": Shapes(T5, wan.CONFIG, WAN_VAE),
    "ltx": Shapes(T5, {**ltx.CONFIG, "in_channels": 128, "out_channels": 128}, ltx.VAES["0.9.5"]),
    "hunyuan": Shapes(
        LLAMA,
        hunyuan.CONFIG,
        {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4},
        text_2={**CLIP, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2},
    ),
}
MODELS = [entry.id for entry in memory.chosen()]


class FakeMeter:
    """A device on which every phase takes a gigabyte more; `end` says in which one something happens."""

    def __init__(self, end: int = 99, error: BaseException | None = None) -> None:
        self.count, self.end, self.error = 0, end, error

    def reset(self) -> None:
        self.count += 1

    def wait(self) -> None: ...

    def peak(self) -> Peak:
        if self.count == self.end and self.error is not None:
            error, self.error = self.error, None
            raise error
        return Peak(self.count * 10**9, self.count * 10**9 + 5)


def tiny(model: str) -> RandomModel:
    entry = entries()[model]
    small = [part.model_copy(update={"size": 100_000}) if part.use == "lora" else part for part in entry.parts]
    return random_model(entry.model_copy(update={"parts": tuple(small)}), TINY[entry.spec.family])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models in the folders that full-size ones get."""
    made = {}
    for name in ("pusa-v0.5", "pusa-wan2.2", "ltx-video", "hunyuan-video"):
        made[name] = tmp_path_factory.mktemp("models") / name
        tiny(name).write(made[name])
        # Measuring one with the VAE takes longer than all the rest.
        channels = entries()[name].spec.latent_channels
        (made[name] / "preview.json").write_text(json.dumps({"matrix": [[0.1] * 3] * channels, "bias": [0.5] * 3}))
    return made


def request_of(folder: Path, **choices: Any) -> Request:
    spec = get_card(str(folder)).spec
    plan = on_cpu(MemoryPlan.model_validate({"text": "resident", **choices}))
    frames = spec.temporal_stride + 1
    return Request(folder=folder, plan=plan, width=64, height=64, num_frames=frames, limit=8 * GIB, device="cpu")


class TestModels:
    @pytest.mark.parametrize("model", MODELS)
    def test_the_full_size_is_what_the_plan_counts_with(self, model: str) -> None:
        known, made = architecture_for(model)[1], random_model(entries()[model])
        sizes = {name: part.bytes for name, part in made.parts.items()}
        loras = sum(2 * torch.Size(shape).numel() for tensors in made.loras.values() for shape in tensors.values())
        assert loras == pytest.approx(known.experts * known.lora_bytes, rel=0.01)
        assert sizes["transformer"] == pytest.approx(known.weights() - known.lora_bytes, rel=0.005)
        assert sizes["text_encoder"] == pytest.approx(known.encoder.bytes(), rel=0.001)
        assert sizes["vae"] == pytest.approx(known.vae.bytes, rel=0.001)
        assert ("transformer_2" in sizes) == (known.experts == 2)
        on_disk = made.bytes - sizes.get("text_encoder_2", 0)
        assert on_disk == pytest.approx(
            sizes["transformer"] + known.encoder.bytes() + known.vae.bytes + loras, rel=0.01
        )

    @pytest.mark.parametrize("model", MODELS)
    def test_the_geometry_is_that_of_the_catalogue(self, model: str) -> None:
        """As a backbone would check it while it is loaded."""
        spec, made = entries()[model].spec, random_model(entries()[model])
        from pusa_app.models.catalogue import _family

        said = _family(spec.family).geometry(made.parts["transformer"].model, made.parts["vae"].model)
        for name, values in said.items():
            assert len({*values, *([getattr(spec, name)] if hasattr(spec, name) else [])}) == 1, name

    def test_what_is_written_is_as_large_as_it_said(self, folders: dict[str, Path]) -> None:
        for name, folder in folders.items():
            size = sum(
                path.stat().st_size for path in folder.rglob("*.safetensors") if "transformer_2" not in path.parts
            )
            assert size == pytest.approx(tiny(name).bytes, rel=0.1), name  # the rest is names
        first, second = (folders["pusa-wan2.2"] / name for name in ("transformer", "transformer_2"))
        files = sorted(path.name for path in first.iterdir())
        assert files == sorted(path.name for path in second.iterdir()) and "config.json" in files
        assert all((first / name).samefile(second / name) for name in files), "the second expert takes no disk"

    def test_large_ones_are_in_several_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from pusa_app.backbones.wan import VectorizedWanTransformer3DModel

        monkeypatch.setattr(memory_models, "SHARD_BYTES", 20_000)
        monkeypatch.setattr(memory_models, "POOL", 1000)
        made = tiny("pusa-v1").parts
        for name, cls in {"transformer": VectorizedWanTransformer3DModel, "text_encoder": UMT5EncoderModel}.items():
            part, folder = made[name], tmp_path / name
            folder.mkdir()
            part.save_config(folder)
            write_weights(folder, part.stem, part.tensors, part.dtype)
            assert len(list(folder.glob("*-of-*.safetensors"))) > 1
            model = load_weights(cls, folder, torch.bfloat16)  # raises for what is missing
            assert {n: tuple(t.shape) for n, t in model.named_parameters()}.items() >= part.tensors.items()
            numbers = torch.cat([p.flatten() for p in model.parameters()]).float()
            assert 0.015 < numbers.std() < 0.025 and numbers.unique().numel() > 300

    def test_a_disk_that_refuses_is_one_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match="cannot be written"):
            tiny("pusa-v1").write(tmp_path / "file" / "model")


class TestRun:
    """The process of a row, in this one."""

    @pytest.fixture(autouse=True)
    def _own_data(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PUSA_DATA_DIR", str(tmp_path))

    @pytest.mark.parametrize("model", ["pusa-v0.5", "pusa-wan2.2", "ltx-video", "hunyuan-video"])
    def test_every_phase_is_measured(self, folders: dict[str, Path], model: str) -> None:
        seen: list[Outcome] = []
        offload = "group" if model == "pusa-wan2.2" else "none"
        request = request_of(folders[model], text="cpu", offload=offload)
        found = measure(request, FakeMeter(), lambda outcome: seen.append(outcome.model_copy(deep=True)))
        assert found.status == "done" and not found.words
        assert list(found.phases) == ["text", "loading", "encoding", "denoising", "decoding"]
        # The text is measured where it is encoded, and once more where it is only read; the most counts.
        assert [size // 10**9 for size in found.phases.values()] == [3, 2, 4, 5, 6]
        assert (found.vram, found.taken) == (6 * 10**9, 6 * 10**9 + 5)
        assert found.ram > 10**8 and found.step_seconds > 0
        assert [one.phase for one in seen][-2:] == ["decoding", "decoding"] and seen[0].phases == {}

    def test_a_text_encoder_that_stays_is_measured_after_loading(self, folders: dict[str, Path]) -> None:
        found = measure(request_of(folders["pusa-v0.5"]), FakeMeter())
        assert list(found.phases) == ["loading", "text", "encoding", "denoising", "decoding"]

    def test_its_own_loras_are_on_it(self, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
        reports = []
        from pusa_app.backbones.folder import FolderBackbone

        put = FolderBackbone.set_loras
        monkeypatch.setattr(FolderBackbone, "set_loras", lambda self, loras: reports.extend(put(self, loras)))
        assert measure(request_of(folders["pusa-wan2.2"]), FakeMeter()).status == "done"
        # Ten linear layers in each of two blocks, in each of two experts.
        assert [(report.matched, report.unmatched) for report in reports] == [(20, ())] * 2

    def test_both_experts_work_and_prompts_are_as_long_as_can_be(self, folders: dict[str, Path]) -> None:
        spec = entries()["pusa-wan2.2"].spec
        steps = levels(spec)[:-1]
        assert [level >= spec.boundary for level in steps] == [True, True, False, False]
        backbone = load_backbone(str(folders["pusa-v0.5"]), "cpu")
        for prompt in long_prompts(backbone.spec):
            assert len(backbone.encode_text(prompt).embeds) == backbone.spec.max_text_tokens
        assert len(levels(backbone.spec)) == 3

    @pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), MemoryError()])
    def test_out_of_memory(self, folders: dict[str, Path], error: Exception) -> None:
        found = measure(request_of(folders["pusa-v0.5"]), FakeMeter(4, error))
        assert (found.status, found.phase) == ("memory", "denoising")
        assert list(found.phases) == ["loading", "text", "encoding"]

    def test_other_faults_are_one_line(self, folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
        found = measure(request_of(folders["pusa-v0.5"]), FakeMeter(1, RuntimeError("one\ntwo")))
        assert (found.status, found.phase, found.words) == ("failed", "loading", "RuntimeError: one two")
        assert "Traceback" in capsys.readouterr().err, "the log has more"
        lost = measure(request_of(folders["pusa-v0.5"]).model_copy(update={"folder": Path("nowhere")}), FakeMeter())
        assert lost.status == "failed" and "nowhere" in lost.words


class TestCudaMeter:
    """What it makes of CUDA's figures, which are not CUDA's here."""

    TOTAL = 24 * 10**9

    @pytest.fixture
    def cuda(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        now: dict[str, Any] = {
            "free": 22.4e9,
            "reserved": 0.1e9,
            "most": 5e9,
            "allocated": 4e9,
            "share": None,
            "reset": 0,
        }
        monkeypatch.setattr(memory_run, "gpu_bytes_used", lambda: 10**9)
        monkeypatch.setattr(torch, "zeros", lambda *_, device: None)
        for name, call in {
            "mem_get_info": lambda: (int(now["free"]), self.TOTAL),
            "memory_reserved": lambda: now["reserved"],
            "max_memory_reserved": lambda: now["most"],
            "max_memory_allocated": lambda: now["allocated"],
            "set_per_process_memory_fraction": lambda share: now.update(share=share),
            "synchronize": lambda: None,
            "empty_cache": lambda: None,
            "reset_peak_memory_stats": lambda: now.update(reset=now["reset"] + 1),
        }.items():
            monkeypatch.setattr(torch.cuda, name, call)
        return now

    def test_what_others_have_is_not_counted_and_what_cuda_takes_is(self, cuda: dict[str, Any]) -> None:
        meter = CudaMeter(8 * 10**9)
        assert cuda["share"] == pytest.approx(7.5 / 24), "the limit is for CUDA's own half gigabyte too"
        meter.reset()
        assert cuda["reset"] == 1 and meter.peak() == (4.5e9, 5.5e9)
        cuda.update(free=22.2e9)  # more kernels
        assert meter.peak() == (4.7e9, 5.7e9)
        assert cuda["share"] == pytest.approx(7.5 / 24)
        meter.reset()
        assert cuda["share"] == pytest.approx(7.3 / 24), "and so much less for tensors from here on"

    def test_a_profile_of_about_the_gpus_size_has_all_of_it(self, cuda: dict[str, Any]) -> None:
        CudaMeter(25 * 10**9)
        assert cuda["share"] == 1

    def test_a_gpu_that_others_use_is_no_place_to_measure(self, cuda: dict[str, Any]) -> None:
        with pytest.raises(UserError, match=r"22\.4 GB .* 23\.0 GB: close other"):
            CudaMeter(24 * 10**9, need=23 * 10**9)

    def test_the_gpu_is_the_one_that_nvidia_smi_is_asked_of(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where torch would count the fastest one first, the measuring process and its parent do not."""
        monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
        orders: list[str] = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(orders.append(os.environ["CUDA_DEVICE_ORDER"])))
        with pytest.raises(UserError):
            memory_measure.gpu_here()
        assert orders == ["PCI_BUS_ID"]


def case_of(model: str, vram: int = 8, clip: Any = ((64, 64), 7), **machine: Any) -> Case:
    there = imagined(80, 256, "H100", (9, 0)).model_copy(update=machine)
    return cases_of(entries()[model], *clip, [Profile(vram, 32, "RTX 4060")], there)[0]


class TestProcesses:
    @pytest.fixture
    def run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")

        def call(*command: str, model: str = "pusa-v0.5", **more: Any) -> list[Row]:
            cases = [case_of(model, **more)]
            return list(measure_model(tiny(model), cases, tmp_path, tmp_path / "log", command=command, patience=120))

        return call

    def test_a_process_that_is_killed_is_a_row(self, run: Any, tmp_path: Path) -> None:
        code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
        (row,) = run(sys.executable, "-c", code)
        assert row.words == "its process was killed by SIGKILL, perhaps for lack of memory in the phase start"
        assert row.ratio is None and row.met is False and "killed by SIGKILL" in row_text(row, memory._words)
        assert [path.name for path in tmp_path.iterdir()] == ["log"], "nothing is left behind"

    def test_a_process_that_ends_without_a_word_is_a_row(self, run: Any) -> None:
        outcome = Outcome(phase="denoising", phases={"loading": 10**9}).model_dump_json()
        code = f"import sys; open(sys.argv[2], 'w').write('{outcome}'); sys.exit(3)"
        (row,) = run(sys.executable, "-c", code)
        assert row.words == "its process ended with exit code 3 in the phase denoising"
        assert row.outcome.phases == {"loading": 10**9}

    def test_a_process_that_does_not_end_is_a_row(self, tmp_path: Path) -> None:
        command = [sys.executable, "-c", "import time; time.sleep(60)"]
        cases = [case_of("pusa-v0.5")]
        (row,) = measure_model(tiny("pusa-v0.5"), cases, tmp_path, tmp_path / "log", command=command, patience=0.2)
        assert "was stopped after 0 minutes" in row.words

    def test_a_signal_leaves_nothing_on_the_disk(self, tmp_path: Path) -> None:
        before = signal.getsignal(signal.SIGTERM)
        command = [
            sys.executable,
            "-c",
            "import os, signal; os.kill(os.getppid(), signal.SIGTERM); import time; time.sleep(60)",
        ]
        model, cases = tiny("pusa-v0.5"), [case_of("pusa-v0.5")]
        with pytest.raises(KeyboardInterrupt), memory_measure.ended_by_signals():
            list(measure_model(model, cases, tmp_path, tmp_path / "log", command=command))
        assert [path.name for path in tmp_path.iterdir()] == ["log"] and signal.getsignal(signal.SIGTERM) is before

    def test_every_process_has_a_data_folder_of_its_own(self, run: Any, tmp_path: Path) -> None:
        code = "import os; print(os.environ['PUSA_DATA_DIR'])"
        run(sys.executable, "-c", code)
        run(sys.executable, "-c", code)
        told = [line for line in (tmp_path / "log").read_text().splitlines() if line.endswith("data")]
        assert len(set(told)) == 2 and not any(Path(line).exists() for line in told)

    def test_a_relative_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The process works in another folder, and finds the request and the model all the same."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
        Path("relative").mkdir()
        code = (
            "import json, os, sys; folder = json.load(open(sys.argv[1]))['folder']; "
            "print(os.listdir(folder), os.environ['CUDA_DEVICE_ORDER'], os.path.isabs(sys.argv[2])); sys.exit(3)"
        )
        command = [sys.executable, "-c", code]
        cases, log = [case_of("pusa-v0.5")], tmp_path / "log"
        (row,) = measure_model(tiny("pusa-v0.5"), cases, Path("relative"), log, command=command, patience=120)
        said = log.read_text()
        assert "ended with exit code 3" in row.words and "'transformer'" in said and "PCI_BUS_ID True" in said
        assert not list(Path("relative").iterdir())

    def test_a_folder_that_cannot_be_written_is_one_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        for folder in (tmp_path / "file", tmp_path / "none"):
            with pytest.raises(UserError, match=r"cannot be written: .*--folder\.$"):
                list(measure_model(tiny("pusa-v0.5"), [case_of("pusa-v0.5")], folder, tmp_path / "log"))
            with pytest.raises(UserError, match=r"cannot be written: .*--folder\.$"):
                folder_of(folder)
        with pytest.raises(UserError, match="cannot be written"):
            log = tmp_path / "file" / "log"
            list(measure_model(tiny("pusa-v0.5"), [case_of("pusa-v0.5")], tmp_path, log, command=["none"]))
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def test_what_cannot_be_tried_starts_no_process(self, run: Any) -> None:
        (row,) = run("no-such-program", free_ram_bytes=10**9)
        assert row.outcome is None and row.met is None and "GB of memory" in row.words
        (row,) = run("no-such-program", model="hunyuan-video", clip=((1280, 720), 129))
        assert row.words == "does not fit, by the planner"
        assert "not tried" in row_text(row, memory._words)


@pytest.mark.slow
def test_the_whole_command_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two families, real processes: the first as it should be, the second out of memory."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PUSA_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(memory_measure, "gpu_here", lambda: imagined(8, 64, "RTX 4060"))
    monkeypatch.setattr(memory_models, "random_model", lambda entry: tiny(entry.id))
    monkeypatch.setattr(memory, "CLIPS", {"pusa-v0.5": (((64, 64), 7),), "pusa-v1": (((64, 64), 5),)})
    command = (sys.executable, str(CHILD))
    run = memory_measure._run

    def child(request: Request, own: Path, log: Path, _: Any, patience: float) -> Any:
        word = "memory" if "loras" in {path.name for path in request.folder.iterdir()} else "well"
        return run(request, own, log, (*command, word), patience)

    monkeypatch.setattr(memory_measure, "_run", child)
    monkeypatch.setenv("PYTHONPATH", str(CHILD.parents[1]))
    out = tmp_path / "measured.md"
    arguments = ["--model", "pusa-v0.5", "pusa-v1", "--folder", str(tmp_path), "--out", str(out)]
    assert memory.main(arguments) == 1
    said = capsys.readouterr().out
    assert out.read_text() in said and "with torch" in said
    first, second = (line for line in said.splitlines() if line.startswith("| 8 GB"))
    cells = [cell.strip() for cell in first.split("|")]
    assert not any("-" in cell for cell in cells[3:]), "all phases, memory and the step are measured"
    assert cells[4].endswith("outside"), "a process of Python and torch on the CPU is not what a GPU holds"
    assert "out of memory in the phase" in second
    assert "## Pusa V0.5: 64x64, 7 frames" in said and "FAIL (0 of 2 plans)" in said
    assert "bench-memory.log" in said and (tmp_path / "data" / "logs" / "bench-memory.log").is_file()
    assert not list(tmp_path.glob("pusa-memory-*"))


class TestTable:
    PLAN = MemoryPlan(vram=9_500_000_000, ram=20 * 10**9, phases=dict.fromkeys(memory_measure.PHASES, 9_500_000_000))

    def row(self, vram: float, **more: Any) -> Row:
        from dataclasses import replace

        outcome = Outcome(status="done", phases={"text": 10**9, "denoising": int(vram)}, taken=11 * 10**9, **more)
        return Row(replace(case_of("pusa-v0.5"), plan=self.PLAN), outcome)

    @pytest.mark.parametrize(("vram", "met"), [(8.51e9, True), (11.49e9, True), (8.4e9, False), (11.6e9, False)])
    def test_fifteen_percent(self, vram: float, met: bool) -> None:
        row = self.row(vram)
        assert row.ratio == pytest.approx(vram / (9.5e9 + CONTEXT)) and row.met is met
        lines, all_met = verdict([row])
        assert all_met is met and ("FAIL (0 of 1" if not met else "pass (1 of 1") in lines[0]
        assert len(lines) == (1 if met else 2)

    def test_a_line_has_what_was_measured_beside_what_was_predicted(self) -> None:
        cells = [
            cell.strip() for cell in row_text(self.row(12e9, step_seconds=2.0, ram=10**10), memory._words).split("|")
        ]
        assert cells[1] == "8 GB" and cells[3] == "12.0 / 10.0 GB" and cells[4] == "1.20, outside"
        assert cells[5] == "1.0 / 10.0 GB" and cells[6] == "- / 10.0 GB", "what was not reached is told"
        assert cells[9] == "11.0 GB" and cells[10] == "10.0 / 20.0 GB" and cells[11].startswith("2.0 s / ")
        assert (
            len(cells)
            == len(memory_measure.HEAD[0].split("|"))
            == len(row_text(Row(self.row(1).case, None, "x"), memory._words).split("|"))
        )

    def test_nothing_tried_is_nothing_met(self) -> None:
        lines, met = verdict([Row(case_of("pusa-v0.5"), None, "needs 30 GB")])
        assert not met and lines == ["Nothing was measured."]

    def test_memory_that_ran_out_is_a_missed_goal_and_named(self) -> None:
        lines, met = verdict([Row(case_of("pusa-v0.5"), Outcome(status="memory"), "out of memory in the phase text")])
        assert not met and lines[1] == "  pusa-v0.5, 64x64x7, 8 GB: out of memory in the phase text"


class TestCommand:
    def test_without_a_gpu_it_is_one_sentence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(UserError, match="--predict"):
            memory.main([])

    def test_unknown_models(self) -> None:
        with pytest.raises(UserError, match=r"choose among pusa-v0\.5"):
            memory.main(["--model", "mini"])

    def test_only_some_models_and_profiles(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert memory.main(["--predict", "--model", "ltx-video", "--profile", "8", "24"]) == 0
        out = capsys.readouterr().out
        assert out.count("## ") == 1 and out.count("\n| 8 GB") == out.count("\n| 24 GB") == 1 and "| 80 GB" not in out

    def test_the_profiles_that_a_gpu_can_stand_for(self) -> None:
        profiles = [Profile(*profile) for profile in memory.PROFILES]
        for gib, most in ((79.1, 80), (44.99, 48), (23.99, 24), (14.5, 16), (11.0, 12)):
            assert held(profiles, imagined(gib, 64))[-1].vram == most
        with pytest.raises(UserError, match="6 GB"):
            held(profiles, imagined(6, 64))

    def test_a_plan_is_for_its_profile_and_times_are_of_the_gpu_that_is_here(self) -> None:
        case = case_of("pusa-v0.5", clip=((848, 480), 163))
        assert case.plan.vram < 8 * GIB and case.plan.offload == "group"
        assert case.work.machine.gpu_name == "H100"
        old = case_of("pusa-v0.5", compute=(7, 5))
        assert old.plan.dtype == "fp16", "a GPU without bf16 is not asked for it"

    @pytest.mark.parametrize(("model", "clip"), [("pusa-v1", ((1280, 720), 81)), ("hunyuan-video", ((1280, 720), 129))])
    def test_a_plan_needs_no_package_that_is_not_here(self, model: str, clip: Any) -> None:
        """requirements.txt has no torchao, and a row that asks for it would be a missed goal."""
        assert case_of(model, vram=12, clip=clip).plan.quantization == "int8"
        there = imagined(80, 256).packages
        lacking = case_of(model, vram=12, clip=clip, packages=tuple(name for name in there if name != "torchao"))
        assert lacking.plan.quantization not in ("int8", "fp8")
        bare = case_of(model, vram=12, clip=clip, packages=(), platform="win32")
        assert not {bare.plan.quantization, bare.plan.text_quantization} & {"int8", "fp8", "nf4", "int8-bnb"}

    def test_models_are_written_to_the_data_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The folder for temporary files may be in memory, where the weights would take what is measured."""
        monkeypatch.setenv("PUSA_DATA_DIR", str(tmp_path / "100% data"))
        assert folder_of(None) == tmp_path / "100% data" and folder_of(tmp_path) == tmp_path
        assert not list((tmp_path / "100% data").iterdir())
        with pytest.raises(SystemExit):
            memory.main(["--help"])
        assert "by default the data folder, " in " ".join(capsys.readouterr().out.split())

    def test_what_the_disk_must_hold_is_said_before(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        model, case = random_model(entries()["pusa-v1"]), case_of("pusa-v1", clip=((832, 480), 81))
        assert case.plan.offload == "disk" and model.bytes + case.disk == pytest.approx(80e9, rel=0.05)
        usage = lambda free: lambda _: type("Usage", (), {"free": free})  # noqa: E731
        monkeypatch.setattr(memory_measure.shutil, "disk_usage", usage(90 * 10**9))
        check_disk(tmp_path, model, [case])
        monkeypatch.setattr(memory_measure.shutil, "disk_usage", usage(50 * 10**9))
        with pytest.raises(UserError, match=r"pusa-v1 takes 8\d GB of disk in .*--folder"):
            check_disk(tmp_path, model, [case])
        check_disk(tmp_path, model, [case_of("hunyuan-video", clip=((1280, 720), 129))])  # nothing is written


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_smallest_profile_on_a_gpu(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The smallest model at its full size. How far off the plan is, is for the verdict to say."""
    code = memory.main(["--model", "ltx-video", "--profile", "8", "--folder", str(tmp_path)])
    said = capsys.readouterr().out
    (row,) = (line for line in said.splitlines() if line.startswith("| 8 GB"))
    assert "phase" not in row and "Error" not in row and "not tried" not in row
    assert code == (1 if "FAIL" in said else 0)
