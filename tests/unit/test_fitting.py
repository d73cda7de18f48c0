"""From a model's id to its plan, what is remembered, and the commands that tell of it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from pusa_app.cli import main
from pusa_app.errors import ModelError
from pusa_app.models.fitting import Memory, architecture_for, plan_for, plan_of_run, work_for, work_of_run
from pusa_app.models.machine import imagined
from pusa_app.models.plan import best, ladder
from pusa_app.models.plan_cost import predicted, rough_seconds

ROOT = Path(__file__).parents[2]


class TestModels:
    def test_a_model_that_is_not_here(self) -> None:
        spec, architecture = architecture_for("pusa-v1")
        assert spec.family == "wan" and architecture.lora_bytes == pytest.approx(4.9e9)

    def test_two_experts_share_their_loras(self) -> None:
        assert architecture_for("pusa-wan2.2")[1].lora_bytes == pytest.approx(4.9e9)

    def test_the_built_in_one_is_read_from_its_folder(self) -> None:
        assert architecture_for("mini")[1].params < 1e8

    @pytest.mark.parametrize(("name", "words"), [("nothing", "no model"), ("lightx2v-wan2.1", "is a LoRA")])
    def test_mistakes(self, name: str, words: str) -> None:
        with pytest.raises(ModelError, match=words):
            architecture_for(name)


class TestMemory:
    def test_a_pace_corrects_the_time_of_all_plans_here(self, tmp_path: Path) -> None:
        machine, memory = imagined(24, 64, "RTX 4090"), Memory(tmp_path)
        work = work_for("pusa-v0.5", machine)
        found = best(work)
        memory.remember("pusa-v0.5", work, found, step_seconds=2 * found.step_seconds)
        assert memory.pace(machine) == pytest.approx(2)
        later = work_for("pusa-v1", machine, memory=memory)
        assert best(later).step_seconds == pytest.approx(2 * best(work_for("pusa-v1", machine)).step_seconds)
        assert memory.pace(imagined(8, 16)) == 1

    def test_a_plan_that_fitted_at_once_does_not_bind(self, tmp_path: Path) -> None:
        memory, work = Memory(tmp_path), work_for("pusa-v0.5", imagined(24, 64))
        memory.remember("pusa-v0.5", work, best(work))
        assert memory.plan("pusa-v0.5", work) is None

    def test_a_plan_after_memory_ran_out_is_taken_again(self, tmp_path: Path) -> None:
        memory, work = Memory(tmp_path), work_for("pusa-v0.5", imagined(80, 128))
        smaller = ladder(work, best(work))[1]
        memory.remember("pusa-v0.5", work, smaller, stepped_down=True)
        found = plan_for("pusa-v0.5", work, memory)
        assert found.choice == smaller.choice != best(work).choice
        assert found.reason.startswith("It worked here before.")
        # Having worked once more it is still the one that was needed.
        memory.remember("pusa-v0.5", work, found)
        assert memory.plan("pusa-v0.5", work) is not None
        # Another length, another machine, a choice by hand: nothing is known.
        assert memory.plan("pusa-v0.5", work_for("pusa-v0.5", imagined(80, 128), num_frames=7)) is None
        assert memory.plan("pusa-v0.5", work_for("pusa-v0.5", imagined(48, 128))) is None
        assert plan_for("pusa-v0.5", work, memory, {"offload": "none"}).offload == "none"

    @pytest.mark.parametrize("text", ["", "[]", "{", '{"x": 1}', '{"x": {"y": {"plan": 3, "stepped_down": true}}}'])
    def test_a_damaged_file_is_nothing_remembered(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "plans.json").write_text(text)
        memory, work = Memory(tmp_path), work_for("pusa-v0.5", imagined(24, 64))
        assert memory.plan("pusa-v0.5", work) is None and memory.pace(work.machine) == 1
        memory.remember("pusa-v0.5", work, best(work), stepped_down=True)
        assert memory.plan("pusa-v0.5", work) is not None

    def test_a_disk_that_refuses_is_no_fault(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        work = work_for("pusa-v0.5", imagined(24, 64))
        Memory(tmp_path / "file").remember("pusa-v0.5", work, best(work))


class TestRuns:
    def test_a_run_is_as_large_as_its_largest_part(self) -> None:
        from pusa_app.models import get_card
        from pusa_app.studio import new_recipe

        card = get_card("mini")
        clip = {"slot": 0, "span": 3, "source": {"kind": "clip", "path": "a.mp4"}}
        work = work_of_run(new_recipe(card, "extend", num_frames=25, keyframes=[clip]), card, imagined(0, 8))
        assert work.num_frames == 25 and work.clip_frames >= 13

    def test_a_guidance_interval_saves_time(self) -> None:
        from pusa_app.models import get_card
        from pusa_app.studio import new_recipe

        card = get_card("mini")
        recipe = new_recipe(card, "text-to-video")
        sigmas = (recipe.schedule or card.spec.schedule).sigmas(recipe.steps)
        some = recipe.model_copy(update={"guidance_interval": (sigmas[3], sigmas[1])})
        never = recipe.model_copy(update={"guidance_interval": (0.0, 0.0)})
        works = [work_of_run(one, card, imagined(0, 8)) for one in (recipe, some, never)]
        assert [work.guided_steps for work in works] == [recipe.steps, 3, 0]
        whole, less, least = (rough_seconds(work, best(work)) for work in works)
        assert whole - less == pytest.approx((recipe.steps - 3) / recipe.steps * (whole - least)) and least < less

    def test_a_loaded_model_stays_where_it_does_as_well(self) -> None:
        machine = imagined(24, 64, "RTX 4090")
        long, short = work_for("pusa-v0.5", machine, num_frames=163), work_for("pusa-v0.5", machine, num_frames=85)
        loaded, wanted = plan_of_run(long, "pusa-v0.5"), plan_of_run(short, "pusa-v0.5")
        assert (loaded.offload, wanted.offload) == ("group", "model")
        assert plan_of_run(short, "pusa-v0.5", loaded=loaded).offload == "group", "it is as fast and is there"
        assert plan_of_run(long, "pusa-v0.5", loaded=wanted).offload == "group", "the other way round it does not fit"

    def test_each_time_memory_runs_out_the_plan_needs_clearly_less(self) -> None:
        work = work_for("pusa-v0.5", imagined(80, 128), num_frames=163)
        plans = [plan_of_run(work, "pusa-v0.5", lean) for lean in range(4)]
        for above, below in itertools.pairwise(plans):
            assert below.vram < above.vram or (below.phases != above.phases and below.choice != above.choice)
        assert plans[1].vram <= 0.8 * plans[0].vram and plans[1].exact
        assert plan_of_run(work, "pusa-v0.5", 1, loaded=plans[0]).choice == plans[1].choice


class TestCommands:
    def test_plan(self, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = [
            "models",
            "plan",
            "pusa-v0.5",
            "--vram",
            "8",
            "--ram",
            "32",
            "--frames",
            "163",
            "--gpu",
            "RTX 4060",
        ]
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert "fits (predicted, not measured)" in out and "s a step" in out and "if memory runs out, 1:" in out

    def test_json_and_choices_by_hand(self, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = [
            "models",
            "plan",
            "pusa-v1",
            "--vram",
            "24",
            "--set",
            "quantization=nf4",
            "--set",
            "decode_tile=256",
        ]
        assert main([*arguments, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["quantization"] == "nf4" and found["decode_tile"] == 256

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["nothing"], "no model"),
            (["mini", "--ram", "8"], "--vram"),
            (["pusa-v1", "--vram", "8", "--size", "big"], "848x480"),
            (["pusa-v1", "--vram", "8", "--frames", "80"], "4*n + 1"),
            (["pusa-v1", "--vram", "8", "--set", "nf4"], "quantization=nf4"),
            (["pusa-v1", "--vram", "8", "--set", "offload=up"], "choose none, model, group, disk"),
        ],
    )
    def test_mistakes_are_one_line(self, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["models", "plan", *arguments]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1

    def test_the_document_is_what_the_command_prints(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["bench", "memory", "--predict"]) == 0
        assert capsys.readouterr().out == (ROOT / "docs" / "memory.md").read_text(encoding="utf-8"), (
            "run `python -m pusa_app bench memory --predict --out docs/memory.md`"
        )


class TestFaster:
    def test_choices_by_hand_are_read_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        work = work_for("pusa-v0.5", imagined(24, 64, "RTX 4090"))
        monkeypatch.setenv("PUSA_PLAN", "attention=cudnn, decode_tile=256")
        plan = plan_of_run(work, "pusa-v0.5")
        assert (plan.attention, plan.decode_tile) == ("cudnn", 256)
        assert "by hand" in plan.reason
        monkeypatch.setenv("PUSA_PLAN", "attention=flash")
        with pytest.raises(ModelError, match="pip install flash-attn"):
            plan_of_run(work, "pusa-v0.5")
        monkeypatch.setenv("PUSA_PLAN", "fast")
        with pytest.raises(ModelError, match="A choice looks like"):
            plan_of_run(work, "pusa-v0.5")
        monkeypatch.delenv("PUSA_PLAN")
        assert plan_of_run(work, "pusa-v0.5").attention == "native"

    def test_what_is_only_faster_is_left_out_where_it_does_not_pay(self, monkeypatch: pytest.MonkeyPatch) -> None:
        machine = imagined(24, 64, "RTX 4090")
        large, small = work_for("pusa-v0.5", machine), work_for("mini", machine)
        monkeypatch.setenv("PUSA_PLAN", "compile=on")
        assert plan_of_run(large, "pusa-v0.5").compile
        assert not plan_of_run(small, "mini").compile

    def test_what_is_remembered_of_a_run_with_a_cache_is_for_such_runs(self, tmp_path: Path) -> None:
        machine, memory = imagined(24, 64, "RTX 4090"), Memory(tmp_path)
        work, cached = work_for("pusa-v0.5", machine), work_for("pusa-v0.5", machine, cached=True)
        memory.remember("pusa-v0.5", cached, best(cached), stepped_down=True)
        assert memory.plan("pusa-v0.5", cached) is not None and memory.plan("pusa-v0.5", work) is None

    def test_a_cache_takes_memory(self) -> None:
        machine = imagined(48, 128, "RTX 6000 Ada")
        work = work_for("pusa-v0.5", machine, cached=True)
        plain = plan_for("pusa-v0.5", work_for("pusa-v0.5", machine))
        cached = predicted(work, plain.choice)
        tokens, width = work.tokens, 3072
        assert cached.phases["denoising"] - plain.phases["denoising"] == round((2 * 1.25 + 1) * 2 * width * tokens)
        assert cached.phases["decoding"] == plain.phases["decoding"]
