"""What makes a run faster: where it is guided, First Block Cache, compiled blocks, attention backends."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from pusa_app.backbones.cache import FirstBlockCache
from pusa_app.backbones.fake import FAKE_SPEC, FakeBackbone
from pusa_app.backbones.mochi import MochiBackbone
from pusa_app.checks import check_recipe
from pusa_app.cli import main
from pusa_app.errors import ModelError, RecipeError, RunCancelled
from pusa_app.events import Progress
from pusa_app.models import load_backbone
from pusa_app.models.plan_types import MemoryPlan
from pusa_app.render import render
from pusa_app.sampling.sampler import CACHE_SPAN
from pusa_app.timeline import Recipe, ScheduleSpec
from tests.conftest import WORDS
from tests.wan import build_tiny_wan


def recipe(**changes) -> Recipe:
    values = {"task": "text-to-video", "timeline": FAKE_SPEC.timeline(19), "steps": 4, "guidance": 3.0, "seed": 7}
    return Recipe(**{**values, "prompt": "a red ball", **changes})


class TestRecipe:
    def test_fields_of_usual_value_are_not_written(self):
        data = json.loads(recipe().to_json())
        assert not {"guidance_2", "guidance_interval", "cache", "loras"} & set(data)
        assert Recipe.from_json(json.dumps(data)) == recipe()

    def test_fields_come_back(self):
        one = recipe(guidance_2=2.5, guidance_interval=(0.2, 0.8), cache=0.1)
        assert Recipe.from_json(one.to_json()) == one
        assert json.loads(one.to_json())["guidance_interval"] == [0.2, 0.8]

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("guidance_interval", [0.8, 0.2]),
            ("guidance_interval", [0, 1.5]),
            ("guidance_interval", [0.5]),
            ("cache", 1.1),
            ("cache", "fast"),
            ("guidance_2", -1),
        ],
    )
    def test_wrong_values_are_one_sentence(self, field, value):
        data = json.loads(recipe().to_json()) | {field: value}
        with pytest.raises(RecipeError) as caught:
            Recipe.from_json(json.dumps(data))
        assert str(caught.value).startswith("The recipe is not valid at") and "\n" not in str(caught.value)

    def test_guidance_of_each_step(self):
        sigmas = (1.0, 0.75, 0.5, 0.25, 0.0)
        assert recipe().guidances(sigmas) == (3, 3, 3, 3)
        assert recipe(guidance_interval=(0.5, 0.75)).guidances(sigmas) == (1, 3, 3, 1)
        assert recipe(guidance_2=2).guidances(sigmas) == (3, 3, 3, 3)  # a model with one expert has no second guidance
        assert recipe(guidance_2=2).guidances(sigmas, 0.75) == (3, 3, 2, 2)
        assert recipe(guidance=1, guidance_2=2, guidance_interval=(0.5, 1)).guidances(sigmas, 0.75) == (1, 1, 2, 1)

    def test_whether_it_is_guided(self):
        assert recipe().guided and not recipe(guidance=1).guided
        assert recipe(guidance=1, guidance_2=2).guided and not recipe(guidance=1, guidance_2=1).guided


class TestInterval:
    def test_the_negative_prompt_is_asked_inside_only(self):
        asked = []

        class Watch(FakeBackbone):
            def velocity(self, z, sigma, texts):
                asked.append((round(float(sigma.max()), 2), len(texts)))
                return super().velocity(z, sigma, texts)

        one = recipe(schedule=ScheduleSpec(kind="shift", shift=1.0), guidance_interval=(0.3, 0.8))
        render(one, Watch())
        assert asked == [(1.0, 1), (0.75, 2), (0.5, 2), (0.25, 1)]

    def test_the_whole_interval_is_no_interval(self):
        plain, whole = render(recipe(), FakeBackbone()), render(recipe(guidance_interval=(0, 1)), FakeBackbone())
        assert np.array_equal(plain.frames, whole.frames)

    def test_on_the_command_line(self, tmp_path, capsys, monkeypatch):
        made = []
        monkeypatch.setattr("pusa_app.cli._render", lambda recipe, out: made.append(recipe))
        words = ["generate", "--prompt", "a ball", "--out", str(tmp_path / "a.mp4")]
        assert main([*words, "--guidance-interval", "0.2", "0.8", "--cache", "0.1"]) == 0
        assert (made[0].guidance_interval, made[0].cache) == ((0.2, 0.8), 0.1)
        capsys.readouterr()
        assert main([*words, "--guidance-2", "3"]) != 0
        assert main([*words, "--guidance-interval", "0.8", "0.2"]) != 0
        assert main([*words, "--cache", "2"]) != 0
        told = capsys.readouterr().err.strip().splitlines()
        assert len(told) == 3
        assert "no second expert" in told[0] and "lower sigma" in told[1] and "from 0 to 1" in told[2]

    def test_a_second_guidance_reaches_the_second_expert(self, tmp_path):
        """Wan 2.2: the texts asked of each expert."""
        build_tiny_wan(tmp_path / "wan", "wan2.2", WORDS)
        backbone, asked = load_backbone(str(tmp_path / "wan"), "cpu"), []
        for number, expert in enumerate(backbone.experts):
            real = expert.forward

            def forward(x, *args, number=number, real=real, **kwargs):
                asked.append((number, len(x)))
                return real(x, *args, **kwargs)

            expert.forward = forward
        spec = backbone.spec
        values = {"timeline": spec.timeline(5).model_copy(update={"width": 32, "height": 32}), "guidance_2": 1}
        one = recipe(model=str(tmp_path / "wan"), **values)
        check_recipe(one)
        render(one, backbone)
        assert set(asked) == {(0, 2), (1, 1)}


def test_a_model_without_blocks_says_so():
    with pytest.raises(ModelError, match="no blocks to cache"):
        render(recipe(cache=0.1), FakeBackbone())


class Blocks(torch.nn.Module):
    """A model of which every slot is for itself: a block doubles what is there."""

    class Double(torch.nn.Module):
        def forward(self, hidden_states):
            return 2 * hidden_states

    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList([self.Double(), self.Double(), self.Double()])

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class TestFirstBlockCache:
    """What it compares; tests/unit/test_backbones.py has the families."""

    def skips(self, sigma, change, threshold=0.1):
        model, cache, x = Blocks(), FirstBlockCache(), torch.ones(1, 3 * 8, 2)
        other = (x.unflatten(1, (3, 8)) * (1 + torch.tensor(change))[:, None, None]).flatten(1, 2)
        cache.set(threshold)
        for input in (x, other):
            with cache.around(model, torch.tensor(sigma)):
                model(input)
        return cache.skipped == 1

    def test_the_slot_that_changed_most_decides(self):
        assert self.skips([1.0, 1.0, 1.0], [0.05, 0.05, 0.05])
        assert not self.skips([1.0, 1.0, 1.0], [0.0, 0.0, 0.2]), "though the mean is below the threshold"
        assert self.skips([1.0, 1.0, 1.0], [0.0, 0.0, 0.2], threshold=0.25)

    def test_slots_without_noise_do_not_count(self):
        assert self.skips([1.0, 0.5, 0.0], [0.0, 0.0, 0.2])
        assert self.skips([0.0, 0.0, 0.0], [0.2, 0.2, 0.2])

    def test_what_the_blocks_added_is_added_again(self):
        model, cache, x = Blocks(), FirstBlockCache(), torch.ones(1, 8, 2)
        cache.set(0.5)
        one = torch.ones(1)
        with cache.around(model, one):
            assert torch.equal(model(x), 8 * x)
        with cache.around(model, one):
            assert torch.equal(model(1.25 * x), 2.5 * x + 6 * x)
        with cache.around(model, one):
            assert torch.equal(model(torch.ones(1, 16, 2)), torch.full((1, 16, 2), 8.0)), "another size is computed"

    def test_the_first_text_decides_for_all(self):
        model, cache, x, one = Blocks(), FirstBlockCache(), torch.ones(1, 8, 2), torch.ones(1)
        cache.set(0.5)
        for change, expected in ((1, 8), (10, 2 * 10 + 6), (1, 8)):
            with cache.around(model, one, 0, 2):
                model(x)
            with cache.around(model, one, 1, 2):
                found = model(change * x)
            assert torch.equal(found, expected * x)
        with cache.around(model, one, 0, 1):
            model(x)
        assert (cache.forwards, cache.skipped) == (7, 4), "another number of texts is another beginning"

    def test_of_two_experts_one_is_remembered(self):
        """What is known of the first is of no use below the boundary, and takes gigabytes."""
        first, second, cache, x = Blocks(), Blocks(), FirstBlockCache(), torch.ones(1, 8, 2)
        cache.set(0.5)
        for model in (first, first, second):
            with cache.around(model, torch.ones(1)):
                model(x)
        assert (cache.forwards, cache.skipped, len(cache._memories)) == (3, 1, 1)

    def test_a_forward_that_fails_leaves_nothing_behind(self):
        model, cache, x = Blocks(), FirstBlockCache(), torch.ones(1, 8, 2)
        blocks = model.blocks
        cache.set(0.5)
        with pytest.raises(ZeroDivisionError), cache.around(model, torch.ones(1)):
            model.blocks[0](x)
            raise ZeroDivisionError
        assert model.blocks is blocks
        with cache.around(model, torch.ones(1)):
            assert torch.equal(model(x), 8 * x)


@pytest.fixture(scope="module")
def tiny(tiny_mochi, tiny_spec):
    return MochiBackbone.from_folder(tiny_mochi, tiny_spec)


class TestCachedRuns:
    """Whole runs of a tiny Mochi."""

    def recipe(self, tiny, **changes):
        return recipe(timeline=tiny.spec.timeline(19), steps=12, **changes)

    def test_off_leaves_the_run_as_it_was(self, tiny):
        plain = render(self.recipe(tiny), tiny).frames
        cached = render(self.recipe(tiny, cache=0.3), tiny).frames
        assert 0 < tiny.cache.skipped < tiny.cache.forwards
        assert not np.array_equal(cached, plain)
        assert np.array_equal(render(self.recipe(tiny, cache=0.3), tiny).frames, cached)
        assert np.array_equal(render(self.recipe(tiny), tiny).frames, plain)

    @pytest.mark.parametrize("stop", [3, 5, 8, 10, 12])
    def test_stopped_anywhere_it_goes_on_to_the_same_video(self, tiny, tmp_path, stop):
        one, steps = self.recipe(tiny, cache=0.3, guidance_interval=(0.1, 0.9)), []
        whole = render(one, tiny).frames

        def watch(event):
            if isinstance(event, Progress) and event.phase == "sampling":
                steps.append(event.step)

        with pytest.raises(RunCancelled):
            render(one, tiny, watch, state_path=tmp_path / "state", cancelled=lambda: bool(steps) and steps[-1] == stop)
        steps.clear()
        assert np.array_equal(render(one, tiny, watch, state_path=tmp_path / "state").frames, whole)
        assert steps[0] == (12 if stop == 12 else stop // CACHE_SPAN * CACHE_SPAN)

    def test_with_blocks_that_come_one_after_the_other(self, tiny_mochi, tiny_spec, tiny):
        plan = MemoryPlan(dtype="fp32", offload="group", text="cpu")
        fitted = MochiBackbone.from_folder(tiny_mochi, tiny_spec, plan=plan)
        for cache in (0.3, 0, 0.3):
            one = self.recipe(tiny, cache=cache, guidance_interval=(0.2, 0.9))
            frames = render(one, fitted).frames
            if cache:
                assert fitted.cache.skipped > 0
            # The other one has both texts in one forward.
            assert np.abs(frames.astype(int) - render(one, tiny).frames).max() <= 1


def step(backbone, words=("a red ball moves left", "")):
    z = torch.randn(12, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    texts = [backbone.encode_text(word) for word in words]
    return torch.stack(backbone.velocity(z, torch.tensor([0.0, 0.3, 0.7, 1.0]), texts))


class TestAttention:
    """Backends for GPUs cannot run here; that they are asked can be seen."""

    @pytest.fixture
    def asked(self, monkeypatch):
        """The backends of every attention, in their order; each computes as the native one does."""
        import diffusers.models.attention_dispatch as library
        from diffusers.models.transformers import transformer_wan

        import pusa_app.backbones.mochi.transformer as mochi

        real, found = library.dispatch_attention_fn, []

        def dispatch(*args, backend=None, **kwargs):
            found.append((getattr(backend, "value", backend), kwargs.get("attn_mask") is not None))
            return real(*args, backend="native", **kwargs)

        for module in (mochi, transformer_wan):
            monkeypatch.setattr(module, "dispatch_attention_fn", dispatch)
        monkeypatch.setattr("diffusers.models.attention_dispatch._check_attention_backend_requirements", lambda _: None)
        yield found
        library._AttentionBackendRegistry.set_active_backend(library.AttentionBackendName.NATIVE)

    @pytest.mark.parametrize(("kind", "name"), [("native", "native"), ("cudnn", "_native_cudnn"), ("sage", "sage")])
    def test_the_plan_chooses_for_mochi(self, tiny_mochi, tiny_spec, tiny, asked, kind, name):
        plan = MemoryPlan(dtype="fp32", attention=kind, batched=True)
        fitted = MochiBackbone.from_folder(tiny_mochi, tiny_spec, plan=plan)
        expected = step(tiny)
        asked.clear()
        torch.testing.assert_close(step(fitted), expected, atol=1e-5, rtol=1e-5)
        assert {backend for backend, _ in asked} == {name}
        # Texts of two lengths in one forward need a mask, which not every backend knows.
        assert any(masked for _, masked in asked) == (kind != "sage")
        assert len(asked) == (4 if kind == "sage" else 2)

    def test_the_plan_chooses_for_wan(self, tmp_path, asked):
        build_tiny_wan(tmp_path / "wan", "wan2.1", WORDS)
        backbone = load_backbone(str(tmp_path / "wan"), "cpu", plan=MemoryPlan(dtype="fp32", attention="cudnn"))
        backbone.velocity(torch.randn(16, 2, 4, 4), torch.ones(2), [backbone.encode_text("a red ball")])
        assert {backend for backend, _ in asked} == {"_native_cudnn"}

    def test_what_one_model_chose_is_not_the_next_one_s(self, tiny_mochi, tiny_spec, asked):
        MochiBackbone.from_folder(tiny_mochi, tiny_spec, plan=MemoryPlan(dtype="fp32", attention="sage"))
        fitted = MochiBackbone.from_folder(tiny_mochi, tiny_spec, plan=MemoryPlan(dtype="fp32"))
        step(fitted)
        assert {backend for backend, _ in asked} == {"native"}

    @pytest.mark.parametrize("kind", ["flash", "sage"])
    def test_a_package_that_is_missing_is_one_sentence(self, tiny_mochi, tiny_spec, kind):
        with pytest.raises(ModelError, match="choose attention=native") as caught:
            MochiBackbone.from_folder(tiny_mochi, tiny_spec, plan=MemoryPlan(dtype="fp32", attention=kind))
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


class TestCompiledBlocks:
    @pytest.fixture(autouse=True)
    def forget(self):
        yield
        torch._dynamo.reset()

    def fitted(self, tiny_mochi, tiny_spec, monkeypatch, backend):
        """As planned with compile=on. The inductor takes minutes, so another backend stands for it."""
        real = torch.nn.Module.compile
        monkeypatch.setattr(torch.nn.Module, "compile", lambda module: real(module, backend=backend))
        plan = MemoryPlan(dtype="fp32", compile=True, batched=True)
        return MochiBackbone.from_folder(tiny_mochi, tiny_spec, plan=plan)

    def test_blocks_are_compiled_and_give_the_same(self, tiny_mochi, tiny_spec, tiny, monkeypatch):
        compiled = []

        def backend(graph, inputs):
            compiled.append(graph)
            return graph.forward

        fitted = self.fitted(tiny_mochi, tiny_spec, monkeypatch, backend)
        torch.testing.assert_close(step(fitted), step(tiny), atol=1e-4, rtol=1e-4)
        assert compiled
        fitted.set_cache(0.1)
        for _ in range(2):
            torch.testing.assert_close(step(fitted), step(tiny), atol=1e-4, rtol=1e-4)
        assert (fitted.cache.forwards, fitted.cache.skipped) == (2, 1)

    def test_without_a_compiler_it_goes_on_and_says_so(self, tiny_mochi, tiny_spec, tiny, monkeypatch, caplog):
        def backend(graph, inputs):
            raise RuntimeError("there is no compiler")

        fitted = self.fitted(tiny_mochi, tiny_spec, monkeypatch, backend)
        for _ in range(2):
            torch.testing.assert_close(step(fitted), step(tiny), atol=1e-5, rtol=1e-5)
        told = [record.getMessage() for record in caplog.records if record.name == "pusa_app.backbones.compiled"]
        assert len(told) == 1 and "run as they are" in told[0] and "\n" not in told[0]

    def test_other_errors_stay_what_they_are(self, tiny_mochi, tiny_spec, monkeypatch):
        fitted = self.fitted(tiny_mochi, tiny_spec, monkeypatch, "eager")
        with pytest.raises(ZeroDivisionError):
            fitted.fit.compiled(fitted.experts, lambda: 1 / 0)
