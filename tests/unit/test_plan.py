"""Memory plans: what is chosen for which machine, what is told, and the steps down."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pusa_app.errors import ModelError
from pusa_app.models.entry import entries
from pusa_app.models.machine import GPUS, Machine, gpu_bytes_used, imagined, parse_nvidia, this_machine
from pusa_app.models.plan import best, ladder, options
from pusa_app.models.plan_choices import blocked, clash
from pusa_app.models.plan_cost import predicted, tile_starts
from pusa_app.models.plan_types import CHOICES, PROCESS, MemoryPlan, work_of
from pusa_app.models.sizes import architecture_of

MODELS = (
    "pusa-v0.5",
    "mochi-1",
    "pusa-v1",
    "pusa-wan2.2",
    "wan2.2-ti2v-5b",
    "skyreels-v2-df",
    "ltx-video",
    "hunyuan-video",
)
BIG = {"pusa-v0.5": ((848, 480), 163), "pusa-v1": ((832, 480), 81)}


def work(model: str, machine: Machine, **more: Any) -> Any:
    entry = entries()[model]
    loras = sum(part.size or 0 for part in entry.parts if part.use == "lora")
    size, frames = BIG.get(model, (None, None))
    return work_of(
        machine,
        entry.spec,
        more.pop("size", size),
        more.pop("num_frames", frames),
        architecture=architecture_of(entry.spec, lora_bytes=loras),
        **more,
    )


class TestChoosing:
    @pytest.mark.parametrize("model", ["pusa-v0.5", "pusa-v1"])
    def test_the_goal_of_8_gigabytes(self, model: str) -> None:
        found = best(work(model, imagined(8, 32, "RTX 4060")))
        assert found.fits and found.vram < 0.9 * 8 * 1024**3
        assert found.quantization == "none" and found.text_quantization == "none"

    @pytest.mark.parametrize("vram", [8, 12, 16, 24, 48, 80])
    @pytest.mark.parametrize("model", MODELS)
    def test_no_plan_is_over_the_margin_unless_it_says_so(self, model: str, vram: int) -> None:
        one = work(model, imagined(vram, 32))
        found = best(one)
        assert found.fits == (found.vram <= one.room and found.ram <= one.room_ram)
        assert found.reason.endswith(".") and "\n" not in found.reason
        if not found.fits:
            assert "would take" in found.reason
        assert found.vram == max(found.phases.values())

    def test_more_memory_is_never_slower(self) -> None:
        for model in ("pusa-v0.5", "pusa-v1", "wan2.2-ti2v-5b"):
            seconds = [best(work(model, imagined(vram, 64, "RTX 4090"))).seconds for vram in (8, 12, 16, 24, 48, 80)]
            assert all(a >= 0.9 * b for a, b in itertools.pairwise(seconds))

    def test_with_much_memory_nothing_is_moved(self) -> None:
        found = best(work("pusa-v0.5", imagined(80, 128, "H100", (9, 0))))
        assert (found.offload, found.quantization, found.decode_tile, found.exact) == ("none", "none", None, True)

    def test_with_little_memory_of_the_machine_the_disk_is_used(self) -> None:
        found = best(work("pusa-v0.5", imagined(8, 16)))
        assert found.fits and found.offload == "disk" and found.ram < 12e9

    def test_without_disk_the_weights_shrink(self) -> None:
        machine = imagined(8, 32).model_copy(update={"disk_bytes": 0})
        found = best(work("pusa-v1", machine))
        assert found.fits and found.offload == "group" and found.quantization != "none"
        assert "its weights in" in found.reason

    def test_long_clips_are_encoded_in_tiles_where_the_encoder_sees_all_frames(self) -> None:
        machine = imagined(24, 64)
        assert best(work("pusa-v0.5", machine, clip_frames=1)).encode_tile is None
        long = best(work("pusa-v0.5", machine, clip_frames=85))
        assert long.fits and long.encode_tile is not None

    def test_on_the_cpu_nothing_of_a_gpu_is_chosen(self) -> None:
        found = best(work("pusa-v0.5", imagined(0, 256)))
        assert (found.dtype, found.offload, found.streams, found.vram) == ("fp32", "none", False, 0)
        assert found.seconds is None

    def test_mini_runs_as_it_always_did(self) -> None:
        from pusa_app.models import get_card

        card = get_card("mini")
        found = best(work_of(imagined(0, 8), card.spec, architecture=architecture_of(card.spec, card.folder)))
        assert found.fits and found.batched and found.decode_slots > 1 and found.exact
        assert (found.dtype, found.text) == ("fp32", "resident")
        assert found.ram < 5e9

    def test_two_experts_wait_in_memory_together(self) -> None:
        one, two = (best(work(m, imagined(24, 256))) for m in ("pusa-v1", "pusa-wan2.2"))
        assert two.offload == one.offload == "group"
        assert two.ram - one.ram > 28e9

    def test_blocks_that_come_one_by_one_have_room_though_they_are_not_alike(self) -> None:
        """HunyuanVideo has blocks of 340 and of 142 million parameters; up to three are on the GPU at once."""
        one = work("hunyuan-video", imagined(24, 64))
        found = best(one, {"offload": "group", "quantization": "none", "streams": True})
        rest = one.architecture.rest_bytes() + one.architecture.activations(one.tokens)
        assert found.phases["denoising"] - rest == pytest.approx(3 * 2 * 339.7e6, rel=0.01)

    def test_round_trip(self) -> None:
        found = best(work("pusa-v0.5", imagined(8, 32)))
        assert MemoryPlan.model_validate_json(found.model_dump_json()) == found
        with pytest.raises(ValueError, match="frozen"):
            found.dtype = "fp32"  # type: ignore[misc]


class TestPlaces:
    """What is predicted to be on the GPU is what the loader leaves there."""

    @pytest.mark.parametrize("model", ["pusa-v0.5", "pusa-wan2.2"])
    @pytest.mark.parametrize("quantization", ["none", "int8", "nf4", "int8-bnb"])
    @pytest.mark.parametrize("text", ["resident", "turns", "load", "cpu"])
    @pytest.mark.parametrize("offload", ["none", "model"])
    def test_weights_of_every_phase(self, model: str, quantization: Any, text: Any, offload: Any) -> None:
        if clash(quantization, offload):
            return
        one = work(model, imagined(80, 256))
        architecture, vae = one.architecture, one.architecture.vae
        found = predicted(one, MemoryPlan(quantization=quantization, text=text, offload=offload, decode_slots=1).choice)
        computing = {
            "text": 0.0 if text == "cpu" else 0.5e9,
            "encoding": vae.encode_bytes(one.pixels, 1),
            "denoising": architecture.activations(one.tokens),
            "decoding": vae.decode_bytes(one.pixels, one.num_frames, 1),
        }
        weights, waiting = _placed(found, one.architecture)
        for name, size in weights.items():
            assert found.phases[name] - computing[name] == pytest.approx(size, abs=10), name
        if text in ("resident", "turns"):
            assert found.ram - PROCESS == pytest.approx(waiting, abs=10)

    def test_a_text_encoder_has_the_place_of_two_experts_and_none_of_one(self) -> None:
        """Wan 2.2 on a card of 48 GB: decoding is its worst moment, not the text."""
        two = best(work("pusa-wan2.2", imagined(48, 128)))
        assert (two.offload, two.text) == ("none", "turns")
        assert two.vram == two.phases["decoding"] > two.phases["text"]
        assert "all but the expert that waits stays on the GPU" in two.reason


def _placed(plan: MemoryPlan, architecture: Any) -> tuple[dict[str, float], float]:
    """Bytes of weights on the GPU in each phase of three clips, of which the second has the prompt of the first; and
    the most that waits in the machine's memory."""
    import torch

    from pusa_app.backbones.fit import LATE_TEXTS, Fit

    parts: list[Part] = []
    waiting = [0.0]

    class Part(torch.nn.Module):
        def __init__(self, size: float, there: bool = False) -> None:
            super().__init__()
            self.size, self.there = size, there
            parts.append(self)

        def to(self, device: Any) -> Part:
            self.there = str(device) != "cpu"
            waiting.append(sum(part.size for part in parts if not part.there))
            return self

    fixed = plan.quantization in ("nf4", "int8-bnb")
    late, size = plan.text in LATE_TEXTS, architecture.encoder.bytes()
    experts = [Part(architecture.weights(plan.quantization), fixed) for _ in range(architecture.experts)]
    vae, encoder = Part(architecture.vae.bytes), None if late else Part(size)
    fit = Fit(plan, torch.device("meta"))
    fit.place(encoder, experts, vae)
    del waiting[1:]  # loading is another matter
    found = dict.fromkeys(("text", "encoding", "denoising", "decoding"), 0.0)

    def phase(name: str, more: float = 0.0) -> None:
        found[name] = max(found[name], more + sum(part.size for part in parts if part.there))

    for known in (False, True, False):
        if not known and encoder is not None:
            fit.need(encoder)
            phase("text")
        elif not known:
            fit._alone()
            phase("text", 0.0 if plan.text == "cpu" else size)
        for name, part in (("encoding", vae), *(("denoising", expert) for expert in experts), ("decoding", vae)):
            fit.need(part)
            phase(name)
    return found, max(waiting)


class TestTime:
    def test_flops_by_rate(self) -> None:
        machine = imagined(80, 256, "NVIDIA H100 80GB HBM3", (9, 0))
        found = best(work("pusa-v0.5", machine))
        assert found.step_seconds == pytest.approx(2 * 1.667e15 / (0.5 * 989.4e12), rel=0.01)

    def test_an_unknown_gpu_has_no_time(self) -> None:
        assert best(work("pusa-v0.5", imagined(24, 64))).seconds is None

    def test_steps_without_guidance_take_half_as_long(self) -> None:
        machine = imagined(80, 256, "NVIDIA H100 80GB HBM3", (9, 0))
        whole, some, none = (best(work("pusa-v0.5", machine, guided_steps=count)) for count in (None, 10, 0))
        assert whole.step_seconds == some.step_seconds == none.step_seconds
        assert whole.seconds - some.seconds == pytest.approx(0.5 * 30 * whole.step_seconds)
        assert whole.seconds - none.seconds == pytest.approx(0.5 * 40 * whole.step_seconds)

    def test_what_was_measured_corrects_it(self) -> None:
        machine = imagined(24, 64, "RTX 4090")
        plain, slow = best(work("pusa-v0.5", machine)), best(work("pusa-v0.5", machine, pace=1.5))
        assert slow.step_seconds == pytest.approx(1.5 * plain.step_seconds)
        assert best(work("pusa-v0.5", imagined(24, 64), pace=1.5)).seconds is not None

    def test_streamed_weights_are_hidden_behind_long_steps_and_not_behind_short_ones(self) -> None:
        machine = imagined(24, 64, "RTX 4090")
        long = work("pusa-v0.5", machine)
        short = work("pusa-v0.5", machine, num_frames=7, size=(256, 256))
        for one, hidden in ((long, True), (short, False)):
            group, model = (best(one, {"offload": offload, "quantization": "int8"}) for offload in ("group", "model"))
            assert (group.step_seconds < 1.05 * model.step_seconds) == hidden

    @pytest.mark.parametrize(
        ("name", "known"),
        [
            ("NVIDIA GeForce RTX 4090", "RTX 4090"),
            ("NVIDIA GeForce RTX 3060 Ti", "RTX 3060 Ti"),
            ("NVIDIA H100 80GB HBM3", "H100"),
            ("NVIDIA H100 PCIe", "H100 PCIe"),
            ("NVIDIA A100-SXM4-80GB", "A100"),
            ("NVIDIA L4", "L4"),
            ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
            ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
            ("NVIDIA GeForce RTX 4080 SUPER", None),
            ("NVIDIA GeForce GTX 1080", None),
            ("", None),
        ],
    )
    def test_which_gpu(self, name: str, known: str | None) -> None:
        assert Machine(gpu_name=name).gpu == (GPUS[known] if known else None)


class TestByHand:
    def test_a_choice_is_kept_and_the_rest_fitted(self) -> None:
        one = work("pusa-v1", imagined(24, 64))
        found = best(one, {"quantization": "nf4"})
        assert found.quantization == "nf4" and found.offload in ("none", "model") and "by hand" in found.reason

    def test_what_does_not_fit_says_what_it_needs(self) -> None:
        found = best(work("pusa-v0.5", imagined(8, 32)), {"offload": "none", "quantization": "none"})
        assert not found.fits and "GB of GPU memory where" in found.reason

    @pytest.mark.parametrize(
        ("override", "words"),
        [
            ({"speed": 1}, "no memory option 'speed'"),
            ({"offload": "sideways"}, "choose none, model, group, disk"),
            ({"decode_tile": 100}, "multiple of 16"),
            ({"decode_tile": "big"}, "decode_tile cannot be 'big'"),
            ({"decode_slots": 0}, "1 or more"),
            ({"quantization": "nf4", "offload": "group"}, "do not go together"),
            ({"streams": True, "offload": "none"}, "offload=group"),
            ({"attention": "sage"}, "pip install sageattention"),
        ],
    )
    def test_mistakes(self, override: dict[str, Any], words: str) -> None:
        with pytest.raises(ModelError, match=words.replace("(", r"\(")):
            best(work("pusa-v0.5", imagined(24, 64)), override)

    @pytest.mark.parametrize("machine", [imagined(8, 32), imagined(0, 32), imagined(24, 64, compute=(7, 5))])
    def test_every_option_is_there_with_a_reason_or_can_be_had(self, machine: Machine) -> None:
        one = work("pusa-v0.5", machine)
        found = options(one)
        assert {option.name for option in found} == set(CHOICES) - {"decode_slots"}
        for option in found:
            assert option.available != bool(option.reason), option
            if option.available:
                assert best(one, {option.name: option.value}).fits

    def test_old_gpus_have_no_bf16(self) -> None:
        one = work("pusa-v0.5", imagined(16, 64, compute=(7, 5)))
        assert best(one).dtype == "fp16" and "bf16" in blocked(one, "dtype", "bf16")


class TestLadder:
    @pytest.mark.parametrize("model", ["pusa-v0.5", "pusa-v1", "wan2.2-ti2v-5b"])
    @pytest.mark.parametrize("vram", [8, 24, 80])
    def test_every_step_needs_less_somewhere_and_no_phase_more(self, model: str, vram: int) -> None:
        one = work(model, imagined(vram, 128))
        start = best(one)
        rungs = [start, *ladder(one, start)]
        assert len(rungs) > 1
        for above, below in itertools.pairwise(rungs):
            assert below.choice != above.choice
            assert any(below.phases[name] < above.phases[name] for name in below.phases) or below.ram < above.ram
            assert below.vram <= 1.001 * above.vram
            assert "Memory ran out" in below.reason

    def test_time_is_given_before_the_result(self) -> None:
        one = work("pusa-v0.5", imagined(80, 128))
        rungs = ladder(one, best(one))
        inexact = [number for number, rung in enumerate(rungs) if not rung.exact]
        assert rungs[0].exact and inexact == list(range(inexact[0], len(rungs)))

    def test_on_the_cpu(self) -> None:
        from pusa_app.models import get_card

        card = get_card("mini")
        one = work_of(imagined(0, 8), card.spec, architecture=architecture_of(card.spec, card.folder))
        first = ladder(one, best(one))[0]
        assert not first.batched and first.decode_slots == 1


@pytest.mark.parametrize(("side", "tile"), [(480, 512), (848, 512), (1280, 256), (704, 128), (64, 64)])
def test_tiles_cover_a_side(side: int, tile: int) -> None:
    starts = tile_starts(side, tile, 16)
    assert starts[0] == 0 and starts[-1] + tile >= side
    for a, b in itertools.pairwise(starts):
        assert a < b <= a + tile - 16
        assert b % 16 == 0


class TestMachine:
    def test_the_environment_is_believed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PUSA_TEST_MACHINE", imagined(12, 32, "RTX 4070").model_dump_json())
        assert this_machine().gpu_bytes == 12 * 1024**3

    def test_this_one_is_found_without_torch(self) -> None:
        code = (
            "import sys, json; from pusa_app.models.machine import this_machine; m = this_machine(); "
            "print(json.dumps([m.ram_bytes, m.free_ram_bytes, 'torch' in sys.modules]))"
        )
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
        ram, free, torch = json.loads(out.stdout)
        assert ram >= free > 0 and not torch

    def test_nvidia_smi(self) -> None:
        answer = "0, GPU-aa11, NVIDIA GeForce RTX 3060, 12288, 8.6\n1, GPU-bb22, NVIDIA GeForce RTX 4090, 24564, 8.9\n"
        assert parse_nvidia(answer)["gpu_name"] == "NVIDIA GeForce RTX 3060"
        assert parse_nvidia(answer, "1")["compute"] == (8, 9)
        assert parse_nvidia(answer, "GPU-bb")["gpu_bytes"] == 24564 * 1024**2
        assert parse_nvidia("No devices were found") == {}
        assert parse_nvidia("0, GPU-a, Thing, [N/A], x") == {}

    def test_what_is_used_is_that_of_the_gpu_that_programs_see_first(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        assert gpu_bytes_used() is None, "nvidia-smi may not be there"
        program = tmp_path / "nvidia-smi"
        program.write_text("#!/bin/sh\necho '0, GPU-aa11, 300'\necho '1, GPU-bb22, 500'\necho '2, GPU-cc33, [N/A]'\n")
        program.chmod(0o755)
        for visible, megabytes in (("0", 300), ("1,0", 500), ("GPU-bb", 500), ("2", None), ("MIG-x", None), ("", None)):
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
            assert gpu_bytes_used() == (None if megabytes is None else megabytes * 1024**2), visible
