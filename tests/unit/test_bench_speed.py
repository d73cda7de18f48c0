from __future__ import annotations

import json
import re
import shutil
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch

from pusa_app.backbones.fit import Fit
from pusa_app.bench import speed, speed_fast, timing
from pusa_app.bench.speed_device import can_run, full_size, matmul_peak, operations
from pusa_app.bench.speed_families import (
    FAMILIES,
    LTX,
    ONE_TIME,
    OURS,
    REPEATED,
    STOCK,
    Hunyuan,
    Mochi,
    SkyReels,
    StepSize,
    Wan,
)
from pusa_app.bench.speed_fast import PLAIN, SAME, measure_fast, print_fast, psnr
from pusa_app.errors import UserError
from pusa_app.models import get_card
from pusa_app.models.entry import entries
from pusa_app.models.sizes import HUNYUAN, LTX_2B, MOCHI, SKYREELS_14B, WAN_14B


@pytest.fixture(scope="module")
def folder(tiny_mochi, tiny_spec, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "model"
    shutil.copytree(tiny_mochi, folder)
    card = {"title": "T", "summary": "S", "licence": "MIT", "spec": tiny_spec.model_dump(), "tasks": ["text-to-video"]}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def test_whole_run_is_measured_and_equal(folder, capsys):
    code = speed.main(["--quick", "--only", "run", "--model", str(folder), "--steps", "2"])
    out = capsys.readouterr().out
    assert re.search(r"largest difference of the frames: [01] of 255", out)
    # how fast a busy machine is proves nothing; that the verdict and the exit code agree does
    assert code == (1 if "FAIL" in out else 0)


@pytest.mark.parametrize(("ratio", "passed"), [(1.03, True), (1.04, False)])
def test_verdict(capsys, ratio, passed):
    assert timing.verdict("x", ratio, 1.03) is passed
    assert ("pass" in capsys.readouterr().out) is passed


def test_variants_take_turns():
    order = []
    seconds = timing.take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2)
    assert "".join(order) == "baabba"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_ratio_is_taken_within_rounds():
    """A machine that was ten times slower in one round changes nothing."""
    seconds = {"a": [1.0, 10.0, 1.0], "b": [2.0, 20.0, 2.5]}
    assert timing.ratio(seconds, "b", "a") == timing.best_ratio(seconds, "b", "a") == 2.0


# --- one step of each family ------------------------------------------------------------------------------------------


class TinyMochi(Mochi):
    text = 16, 32

    def config(self, layers):
        more = {"num_attention_heads": 2, "attention_head_dim": 16, "pooled_projection_dim": 32}
        return {"num_layers": layers, "text_embed_dim": 32, "max_sequence_length": 16, **more}


class TinyWan(Wan):
    text = 16, 32

    def config(self, layers):
        more = {"num_attention_heads": 2, "attention_head_dim": 24, "freq_dim": 64, "ffn_dim": 64}
        return {"num_layers": layers, "text_dim": 32, **more}


class TinySkyReels(SkyReels):
    text = 16, 32

    def config(self, layers):
        return TinyWan().config(layers)


class TinyLTX(LTX):
    text = 16, 32
    channels = 16

    def config(self, layers):
        more = {"num_attention_heads": 2, "attention_head_dim": 12, "cross_attention_dim": 24}
        return {"num_layers": layers, "in_channels": 16, "out_channels": 16, "caption_channels": 32, **more}


class TinyHunyuan(Hunyuan):
    text = 16, 32
    pooled = 24
    tiny: ClassVar = {"num_attention_heads": 2, "attention_head_dim": 16, "num_refiner_layers": 1}

    def config(self, layers):
        more = {"text_embed_dim": 32, "pooled_projection_dim": 24, "rope_axes_dim": (4, 6, 6)}
        return {**super().config(layers), **self.tiny, **more}


TINY = {"mochi": TinyMochi(), "wan": TinyWan(), "skyreels": TinySkyReels(), "ltx": TinyLTX(), "hunyuan": TinyHunyuan()}
assert TINY.keys() == FAMILIES.keys()
SIZE = StepSize(layers=2, slots=3, height=4, width=6, valid_text_tokens=5, rounds=2)


@pytest.fixture(params=TINY)
def family(request):
    return TINY[request.param]


def test_every_family_of_the_table_has_its_model_in_the_catalogue():
    assert all(entries()[family.model].spec.family == name for name, family in FAMILIES.items())


def test_a_step_on_a_cpu_has_the_real_width_and_as_many_tokens_in_every_family():
    """Published widths; a CPU's step is cut down in depth alone."""
    widths = {name: family.width for name, family in FAMILIES.items()}
    assert widths == {"mochi": 3072, "wan": 5120, "skyreels": 5120, "ltx": 2048, "hunyuan": 3072}
    for family in FAMILIES.values():
        z = family.inputs(family.small, torch.device("meta"), torch.float32).z
        assert (family.small.layers, z.shape[2] * family.tokens(*z.shape[3:])) == (2, 576)


def test_the_variants_of_a_step_compute_what_they_say(family):
    """Ours and the one with repeated modulation agree; with equal times they do what is done with one time. SkyReels
    has no stock step, since ours is its own class: a time per slot and one time are two ways of that."""
    from dataclasses import replace

    cpu = torch.device("cpu")
    stock, ours = family.pair(SIZE.layers, cpu, torch.float32)
    given = family.inputs(SIZE, cpu, torch.float32)
    shared = {p.data_ptr() for p in stock.parameters()}
    assert all(p.data_ptr() in shared for p in ours.parameters()), "the weights are in memory once"
    base = STOCK if family.stock != family.ours else ONE_TIME
    with torch.inference_mode():
        made = {name: call() for name, call in family.variants(stock, ours, given).items()}
        assert (STOCK in made) == (REPEATED in made) == (family.stock != family.ours)
        if REPEATED in made:
            torch.testing.assert_close(made[OURS], made[REPEATED], atol=1e-4, rtol=1e-4)
        assert not torch.allclose(made[OURS], made[base], atol=1e-4, rtol=1e-4), "the times of the slots are used"
        equal = replace(given, times=given.one_time.expand(1, SIZE.slots))
        for name, call in family.variants(stock, ours, equal).items():
            torch.testing.assert_close(call(), made[base], atol=1e-4, rtol=1e-4, msg=name)


def test_operations_counted_on_meta_are_those_of_a_real_forward(family):
    from torch.utils.flop_counter import FlopCounterMode

    cpu = torch.device("cpu")
    _, ours = family.pair(SIZE.layers, cpu, torch.float32)
    given, counter = family.inputs(SIZE, cpu, torch.float32), FlopCounterMode(display=False)
    math = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)  # the CPU's other kernel is not counted
    with torch.inference_mode(), counter, math:
        family.step(ours, given)
    assert operations(family, SIZE) == counter.get_total_flops() > 0


@pytest.mark.parametrize(
    ("name", "known"),
    [("mochi", MOCHI), ("wan", WAN_14B), ("skyreels", SKYREELS_14B), ("ltx", LTX_2B), ("hunyuan", HUNYUAN)],
)
def test_the_planner_counts_as_many(name, known):
    """At full size, where no machine of tests has the memory: the formula of models/sizes.py."""
    family = FAMILIES[name]
    height, width = 30 * family.patch, 40 * family.patch
    size = StepSize(layers=None, slots=9, height=height, width=width, valid_text_tokens=known.encoder.tokens)
    assert operations(family, size) == pytest.approx(known.ops(9 * 30 * 40), rel=0.002)


def test_a_step_is_measured_and_printed(family, capsys):
    result = speed.measure_step(family, SIZE)
    assert {len(values) for values in result.seconds.values()} == {SIZE.rounds}
    own = isinstance(family, SkyReels)
    assert set(result.seconds) >= ({OURS, ONE_TIME} if own else {STOCK, OURS, REPEATED})
    met = speed._print_step(family, result, peak=1e12)
    out = capsys.readouterr().out
    tokens = 3 * 4 * 6 // family.patch**2
    assert re.search(rf"width {family.width}, 2 layers, {tokens} visual tokens, 5 of 16 text tokens valid", out)
    assert "TFLOP/s" in out
    assert ("no goal: it is run by diffusers' own class" in out) == own and (STOCK in out) == (not own)
    assert ("goal: a time per slot at most 1.03 x" in out) == (not own) and met == ("FAIL" not in out)


def test_a_device_is_measured():
    assert 1e8 < matmul_peak(torch.device("cpu"), torch.float32) < 1e14


def test_what_does_not_fit_is_left_out(monkeypatch):
    def too_large():
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert not can_run(too_large, torch.device("cpu"))
    assert can_run(lambda: 1, torch.device("cpu"))


@pytest.mark.parametrize(("gb", "layers", "slots"), [(80, None, 15), (16, 25, 15), (4, 5, 3)])
def test_the_size_follows_the_memory_of_a_gpu(monkeypatch, gb, layers, slots):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (gb * 10**9, gb * 10**9))
    size = full_size(FAMILIES["mochi"], torch.device("cuda"))
    assert (size.height, size.width) == (60, 106)
    assert size.slots <= slots
    assert size.layers is None if layers is None else 1 <= size.layers <= layers


def test_models_are_chosen_before_anything_is_measured(folder, capsys, monkeypatch):
    names = lambda found: [type(family).__name__.lower() for family in found[0]]  # noqa: E731
    families, card = speed.chosen(None)
    assert len(families) >= 2 and card.id == "mini"
    assert names(speed.chosen("wan")) == ["wan"] and speed.chosen("wan")[1] is None
    assert names(speed.chosen("pusa-v1")) == ["wan"] and speed.chosen("pusa-v1")[1] is None
    assert "not on this machine" in capsys.readouterr().out
    assert names(speed.chosen(str(folder))) == ["mochi"] and speed.chosen(str(folder))[1].id == str(folder)
    assert names(speed.chosen("ltx-video", "step")) == ["ltx"]
    monkeypatch.delitem(FAMILIES, "ltx")
    for mistake, only in (("nothing", None), ("wan", "fast"), ("pusa-v1", "run"), ("ltx-video", "step")):
        with pytest.raises(UserError) as caught:
            speed.chosen(mistake, only)
        assert "\n" not in str(caught.value)


# --- fast paths -------------------------------------------------------------------------------------------------------


def test_fast_paths_are_measured(folder, capsys, monkeypatch):
    monkeypatch.setattr("pusa_app.bench.speed_fast.INTERVAL", (0.99, 1.0))
    lines = list(measure_fast(get_card(str(folder)), steps=6, rounds=1, compiled=False))
    print_fast(iter(lines))
    out = capsys.readouterr().out
    assert lines[0].name == PLAIN and (lines[0].ratio, lines[0].psnr) == (1.0, SAME)
    assert [line.name.split()[0] for line in lines[1:]] == ["First"] * 3 + ["guidance"] + ["attention"] * 3
    assert all(line.ratio > 0 and line.psnr is not None for line in lines[:5])
    assert lines[4].psnr < SAME, "less guidance is another clip"
    assert re.search(r"attention sage +it needs a GPU of NVIDIA", out)


class Half:
    """A model that is loaded as `plan` says, None as nobody planned; its steps take no time."""

    def __init__(self, plan=None):
        self.device = torch.device("cpu")
        self.fit = Fit(plan, self.device) if plan else Fit.without_plan(self.device, torch.float32, lean=False)

    def encode_text(self, prompt):
        return prompt

    def velocity(self, z, sigma, texts):
        return [z for _ in texts]


def out_of_memory(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(("model", "batched"), [("tiny", True), ("pusa-v1", False)])
@pytest.mark.parametrize("choices", [{"attention": "cudnn"}, {"compile": True}])
def test_what_is_compared_differs_in_one_choice(monkeypatch, tiny_spec, model, batched, choices):
    """Whether the texts share a forward would change the time more than what is looked at."""
    base, others = Half(), []
    monkeypatch.setattr(speed_fast, "load_backbone", lambda *_, plan: others.append(Half(plan)) or others[-1])
    spec = tiny_spec if model == "tiny" else entries()[model].spec
    tokens = spec.grid().num_slots * spec.height * spec.width // (spec.spatial_stride * spec.patch) ** 2
    line = speed_fast._planned(SimpleNamespace(spec=spec), base, choices, "other", 1)
    (other,) = others
    assert line.ratio > 0
    assert base.fit.batches(tokens) == other.fit.batches(tokens) == batched
    same = set(base.fit.plan.choice) - set(choices) - {"batched"}
    assert {name: other.fit.plan.choice[name] for name in same} == {name: base.fit.plan.choice[name] for name in same}
    assert all(other.fit.plan.choice[name] == value for name, value in choices.items())


def test_a_model_that_does_not_fit_beside_the_other_is_a_line(monkeypatch, tiny_spec, capsys):
    card = SimpleNamespace(spec=tiny_spec)
    monkeypatch.setattr(speed_fast, "load_backbone", out_of_memory)
    lines = [speed_fast._planned(card, Half(), {"attention": "cudnn"}, "attention cudnn", 1)]
    monkeypatch.setattr(speed_fast, "load_backbone", lambda *_, plan: Half(plan))
    monkeypatch.setattr(Half, "velocity", out_of_memory)
    lines.append(speed_fast._planned(card, Half(), {"compile": True}, "compiled blocks", 1))
    print_fast(iter(lines))
    for line in capsys.readouterr().out.splitlines():
        assert re.search(r"(cudnn|blocks) +does not fit into the memory beside the model as it is$", line)
    assert [line.ratio for line in lines] == [None, None]


def test_a_way_that_takes_too_much_memory_is_a_line(folder, monkeypatch):
    """First Block Cache keeps what blocks added; where even the plain run does not fit there is nothing to compare."""
    asked, clip = [], SimpleNamespace(frames=np.zeros((1, 2, 2, 3), np.uint8))

    def render(recipe, backbone):
        asked.append(recipe.cache)
        return out_of_memory() if recipe.cache == 0.1 else clip

    monkeypatch.setattr(speed_fast, "load_backbone", lambda *_: Half())
    monkeypatch.setattr(speed_fast, "BACKENDS", ())
    monkeypatch.setattr(speed_fast, "render", render)
    card = get_card(str(folder))
    lines = {line.name: line for line in measure_fast(card, rounds=3, compiled=False)}
    assert lines["First Block Cache 0.1"].said == "does not fit into the memory" and asked.count(0.1) == 1
    assert [name for name, line in lines.items() if line.ratio is None] == ["First Block Cache 0.1"]
    monkeypatch.setattr(speed_fast, "render", out_of_memory)
    with pytest.raises(UserError, match="close other programs"):
        list(measure_fast(card, rounds=1, compiled=False))


def test_psnr():
    clip = np.zeros((2, 4, 4, 3), np.uint8)
    assert psnr(clip, clip) == SAME
    assert psnr(clip, clip + 255) == 0
    assert psnr(clip, clip + 1) == pytest.approx(48.13, abs=0.01)
