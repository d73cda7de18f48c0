"""Six whole sampling runs of Pusa V1 against the authors' own latents: converter, LoRA loader, backbone, sampler."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from pusa_app.backbones.base import Text
from pusa_app.backbones.preview import LatentPreview
from pusa_app.backbones.wan import VectorizedWanTransformer3DModel, WanBackbone
from pusa_app.models import BackboneSpec, convert_native
from pusa_app.sampling import sample
from pusa_app.timeline import LoraChoice, NoiseSchedule, ScheduleSpec
from tests.conftest import PARITY_DATA
from tests.wan import tiny_vae

DATA = PARITY_DATA / "wan"
CASES = json.loads((DATA / "cases.json").read_text())["cases"]
LORA = str(DATA / "pusa_lora.safetensors")
SPEC = BackboneSpec(
    family="wan",
    temporal_stride=4,
    latent_channels=16,
    fps=16,
    width=96,
    height=64,
    num_frames=17,
    max_frames=81,
    steps=6,
    guidance=3,
    schedule=ScheduleSpec(kind="shift", shift=5),
    integer_time=True,
    max_text_tokens=512,
)


@pytest.fixture(scope="module")
def reference() -> dict[str, torch.Tensor]:
    return load_file(DATA / "reference.safetensors")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> WanBackbone:
    out = tmp_path_factory.mktemp("pusa") / "transformer"
    convert_native(DATA / "wan_t2v_native.safetensors", out)
    transformer = VectorizedWanTransformer3DModel.from_pretrained(out)
    return WanBackbone(SPEC, None, torch.nn.Module(), [transformer], tiny_vae(), LatentPreview.neutral(16))


def forward(backbone, reference):
    with torch.no_grad():
        return backbone.transformer(reference["z"], reference["timestep"], reference["text_embeds"]).sample


def test_the_lora_at_its_strength_equals_the_authors(backbone, reference):
    (report,) = backbone.set_loras([LoraChoice(path=LORA, strength=1.4)])
    assert (report.matched, report.unmatched) == (20, ())
    torch.testing.assert_close(forward(backbone, reference), reference["output.pusa_alpha_1.4"], atol=1e-4, rtol=0)
    backbone.set_loras([])
    torch.testing.assert_close(forward(backbone, reference), reference["output.base"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_run_equals_the_authors(backbone, reference, name):
    case = CASES[name]
    backbone.set_loras([LoraChoice(path=LORA, strength=1.4)])
    multipliers, z0 = [1.0] * 5, torch.zeros(16, 5, 8, 12)
    for i, (slot, noise) in enumerate(zip(case["positions"], case["noise_multipliers"], strict=True)):
        multipliers[slot] = noise
        z0[:, slot] = reference[f"{name}.keyframe_latents"][0, :, i]
    sigmas = ScheduleSpec(kind="shift", shift=case["shift"]).sigmas(case["steps"])
    S = NoiseSchedule(sigmas=sigmas, multipliers=tuple(multipliers)).matrix()
    text, null = (Text(reference[key][0]) for key in ("text_embeds", "sampler.null_embeds"))
    z = sample(backbone, S, z0, reference["sampler.noise"][0], text, null, case["cfg_scale"], sigmas=sigmas)
    torch.testing.assert_close(z, reference[f"{name}.final_latents"][0], atol=1e-3, rtol=0)
    print("max error", (z - reference[f"{name}.final_latents"][0]).abs().max())
