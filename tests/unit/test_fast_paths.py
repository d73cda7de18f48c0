"""What makes a run faster: where it is guided, First Block Cache, compiled blocks, attention backends."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from pusa_app.backbones.fake import FAKE_SPEC, FakeBackbone
from pusa_app.cli import main
from pusa_app.errors import ModelError, RecipeError
from pusa_app.render import render
from pusa_app.timeline import Recipe, ScheduleSpec


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
        assert main([*words, "--guidance-interval", "0.2", "0.8", "--cache", "0.1", "--guidance-2", "3"]) == 0
        assert (made[0].guidance_interval, made[0].cache, made[0].guidance_2) == ((0.2, 0.8), 0.1, 3)
        capsys.readouterr()
        assert main([*words, "--guidance-interval", "0.8", "0.2"]) != 0
        assert main([*words, "--cache", "2"]) != 0
        told = capsys.readouterr().err.strip().splitlines()
        assert len(told) == 2 and "lower sigma" in told[0] and "from 0 to 1" in told[1]


def test_a_model_without_blocks_says_so():
    with pytest.raises(ModelError, match="no blocks to cache"):
        render(recipe(cache=0.1), FakeBackbone())
