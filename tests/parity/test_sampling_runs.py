"""Four whole sampling runs against the authors' own latents, through the converter and our sampler."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from pusa_app.backbones.base import Text
from pusa_app.backbones.mochi import VectorizedMochiTransformer3DModel
from pusa_app.models import convert_native
from pusa_app.sampling import sample
from pusa_app.timeline import NoiseSchedule, ScheduleSpec
from tests.conftest import PARITY_DATA

CASES = json.loads((PARITY_DATA / "cases.json").read_text())["cases"]


class Velocity:
    """The smallest thing that the sampler takes for a backbone."""

    device = torch.device("cpu")

    def __init__(self, transformer):
        self.transformer = transformer

    def velocity(self, z, sigma, texts):
        time = (1 - sigma[None]) * 1000
        return [self.transformer(z[None], text.embeds[None], time).sample[0] for text in texts]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    out = tmp_path_factory.mktemp("pusa") / "transformer"
    convert_native(PARITY_DATA / "pusa_dit_native.safetensors", out)
    return Velocity(VectorizedMochiTransformer3DModel.from_pretrained(out).eval())


@pytest.mark.parametrize("name", CASES)
def test_run_equals_the_authors(backbone, name):
    case, reference = CASES[name], load_file(PARITY_DATA / "reference.safetensors")
    multipliers, z0 = [1.0] * 5, torch.zeros(12, 5, 8, 12)
    for i, (slot, noise) in enumerate(zip(case["positions"], case["noise_multipliers"], strict=True)):
        multipliers[slot] = noise
        z0[:, slot] = reference[f"{name}.keyframe_latents"][0, :, i]
    sigmas = ScheduleSpec(kind="linear-quadratic").sigmas(case["steps"])
    assert sigmas == pytest.approx(case["sigma_schedule"], abs=1e-9)
    text, null = (
        Text(reference[f"forward.{kind}_feat"][0, : int(reference[f"forward.{kind}_mask"].sum())])
        for kind in ("t5", "null")
    )
    S = NoiseSchedule(sigmas=sigmas, multipliers=tuple(multipliers)).matrix()
    z = sample(backbone, S, z0, reference["sampler.noise"][0], text, null, case["cfg_scale"])
    torch.testing.assert_close(z, reference[f"{name}.final_latents"][0], atol=1e-3, rtol=0)
