"""LTX-Video with a time per slot or per token, against diffusers' own model and pipelines.

What it has in common with the other families is in tests/parity/test_stock.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pusa_app.backbones.ltx import LTXBackbone
from pusa_app.backbones.texts import padded
from pusa_app.models import get_card, load_backbone
from pusa_app.sampling import draw_noise, sample
from pusa_app.timeline import NoiseSchedule, ScheduleSpec
from tests.conftest import WORDS
from tests.ltx import VAES, build_tiny_ltx
from tests.vectorized import ltx_inputs, pair

SLOTS, ROWS, COLUMNS = 3, 2, 3
TOKENS = ROWS * COLUMNS


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Version -> its folder."""
    root = tmp_path_factory.mktemp("ltx")
    for version in VAES:
        build_tiny_ltx(root / version, WORDS, version, shift=1.0 if version == "0.9.5" else 3.0)
    return root


@pytest.fixture(scope="module")
def loaded(folders):
    return {version: load_backbone(str(folders / version), "cpu") for version in VAES}


@pytest.fixture(scope="module")
def backbone(loaded) -> LTXBackbone:
    return loaded["0.9.5"]


def test_a_time_per_token_is_the_stock_model_s():
    both = pair("ltx")
    data = {**ltx_inputs(), "timestep": both.times().repeat_interleave(TOKENS, dim=1)}
    with torch.no_grad():
        torch.testing.assert_close(both.ours(**data).sample, both.stock(**data).sample, atol=1e-5, rtol=1e-5)


def test_modulation_is_never_made_per_token():
    both, rows = pair("ltx"), []
    hook = both.ours.time_embed.linear.register_forward_hook(
        lambda _, args, __: rows.append(args[0].shape[:-1].numel())
    )
    with torch.no_grad():
        both.ours(**{**ltx_inputs(), "timestep": both.times()})
    hook.remove()
    assert rows == [2 * SLOTS]


# --- the whole model --------------------------------------------------------------------------------------------------


def pipeline_of(folders, version):
    import diffusers

    cls = diffusers.LTXConditionPipeline if version == "0.9.5" else diffusers.LTXPipeline
    made = cls.from_pretrained(folders / version)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("prompt", ["a red ball moves", "", "red " * 400])
def test_texts_are_encoded_as_by_the_pipeline(backbone, folders, prompt):
    with torch.no_grad():
        embeds, mask, *_ = pipeline_of(folders, "0.9.5").encode_prompt(prompt, do_classifier_free_guidance=False)
    valid = int(mask.sum())
    assert 0 < valid <= 256
    torch.testing.assert_close(backbone.encode_text(prompt).embeds, embeds[0, :valid], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("version", ["0.9.0", "0.9.5"])
def test_a_whole_run_with_equal_sigmas_is_the_pipeline_s(loaded, folders, version):
    """With guidance, and the places in time that each version counts."""
    backbone, pipeline, steps = loaded[version], pipeline_of(folders, version), 4
    noise = draw_noise(7, (16, SLOTS, ROWS, COLUMNS))
    texts = backbone.encode_text("a red ball"), backbone.encode_text("blue")
    embeds, mask = padded([text.embeds for text in texts])
    expected = pipeline(
        prompt_embeds=embeds[:1],
        prompt_attention_mask=mask[:1],
        negative_prompt_embeds=embeds[1:],
        negative_prompt_attention_mask=mask[1:],
        height=32 * ROWS,
        width=32 * COLUMNS,
        num_frames=17,
        frame_rate=25,
        num_inference_steps=steps,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(7),
        output_type="latent",
    ).frames
    if version != "0.9.5":
        expected = pipeline._unpack_latents(expected, SLOTS, ROWS, COLUMNS)
    schedule = backbone.spec.schedule if version == "0.9.5" else ScheduleSpec(kind="shift", shift=3.0)
    sigmas = schedule.sigmas(steps)
    S = NoiseSchedule(sigmas=sigmas, multipliers=(1.0,) * SLOTS).matrix()
    z = sample(backbone, S, torch.zeros_like(noise), noise, *texts, 3.0, sigmas=sigmas)
    assert (z - noise).abs().max() > 0.1
    torch.testing.assert_close(z, expected[0], atol=1e-4, rtol=1e-4)


def test_versions_count_the_frames_of_the_first_slot_differently(loaded):
    old, new = (loaded[version]._places(3, 1, 1, torch.device("cpu"))[0, 0] * 25 for version in ("0.9.0", "0.9.5"))
    assert old.round().tolist() == [0, 8, 16] and new.round().tolist() == [0, 1, 9]


@pytest.mark.parametrize("version", VAES)
def test_decoding_is_the_pipeline_s_with_the_same_noise_every_time(loaded, version):
    backbone = loaded[version]
    vae, z = backbone.vae, draw_noise(5, (16, SLOTS, ROWS, COLUMNS))
    frames = np.concatenate(list(backbone.decode(z)))
    torch.rand(3)  # whatever else draws random numbers
    state = torch.get_rng_state()
    assert np.array_equal(np.concatenate(list(backbone.decode(z))), frames)
    assert torch.equal(torch.get_rng_state(), state)
    raw, time = z * vae.latents_std.view(-1, 1, 1, 1) + vae.latents_mean.view(-1, 1, 1, 1), None
    if vae.config.timestep_conditioning:
        noise = torch.randn(raw.shape, generator=torch.Generator().manual_seed(0))
        raw, time = 0.975 * raw + 0.025 * noise, torch.tensor([0.05])
    torch.manual_seed(0)
    with torch.no_grad():
        expected = vae.decode(raw[None], time).sample[0].permute(1, 2, 3, 0)
    assert frames.shape == (17, 32 * ROWS, 32 * COLUMNS, 3)
    assert np.abs(frames - ((expected + 1) * 127.5).clamp(0, 255).numpy()).max() <= 0.6


def test_encoding_is_the_pipeline_s(backbone, folders):
    pipeline = pipeline_of(folders, "0.9.5")
    frames = np.random.default_rng(0).integers(0, 256, (9, 64, 96, 3), dtype=np.uint8)
    x = torch.from_numpy(frames).permute(3, 0, 1, 2)[None] / 127.5 - 1
    vae = pipeline.vae
    with torch.no_grad():
        expected = pipeline._normalize_latents(vae.encode(x).latent_dist.mode(), vae.latents_mean, vae.latents_std)[0]
    torch.testing.assert_close(backbone.encode_frames(frames), expected, atol=1e-5, rtol=1e-5)


def test_tiles_lie_on_the_grid_of_the_latents():
    """Three quarters of a tile of 192 pixels would begin in the middle of a latent."""
    from pusa_app.backbones.fit import Fit
    from pusa_app.models.plan_types import MemoryPlan

    class Vae:
        spatial_compression_ratio = 32

        def enable_tiling(self, **sizes):
            self.sizes = sizes

        def disable_tiling(self):
            pass

    vae = Vae()
    with Fit(MemoryPlan(dtype="fp32", encode_tile=192), torch.device("cpu")).encoding(vae):
        assert sorted(set(vae.sizes.values())) == [128, 192]


def test_the_card_of_a_folder(folders):
    for version in VAES:
        card = get_card(str(folders / version))
        spec = card.spec
        assert (spec.family, spec.temporal_stride, spec.spatial_stride, spec.latent_channels) == ("ltx", 8, 32, 16)
        assert spec.schedule.kind == "linear-quadratic" and "keyframes" in card.tasks


def test_a_lora_in_native_names(backbone, tmp_path):
    """As trainers of LTX-Video write them: their names are the authors'."""
    from safetensors.torch import save_file

    from pusa_app.timeline import LoraChoice

    generator, tensors = torch.Generator().manual_seed(0), {}
    for name, rows, columns in (("transformer_blocks.0.attn1.to_q", 24, 24), ("patchify_proj", 24, 16)):
        tensors[f"diffusion_model.{name}.lora_A.weight"] = torch.randn(2, columns, generator=generator)
        tensors[f"diffusion_model.{name}.lora_B.weight"] = torch.randn(rows, 2, generator=generator)
    save_file(tensors, tmp_path / "native.safetensors")
    try:
        (report,) = backbone.set_loras([LoraChoice(path=str(tmp_path / "native.safetensors"))])
    finally:
        backbone.set_loras([])
    assert (report.matched, report.unmatched) == (2, ())
