"""LTX-Video with a time per slot, against diffusers' own model and pipelines."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pusa_app.backbones.ltx import LTXBackbone, VectorizedLTXVideoTransformer3DModel
from pusa_app.backbones.texts import padded
from pusa_app.models import get_card, load_backbone
from pusa_app.sampling import draw_noise, sample
from pusa_app.timeline import NoiseSchedule, ScheduleSpec
from tests.conftest import WORDS
from tests.ltx import VAES, build_tiny_ltx, tiny_transformer

SLOTS, ROWS, COLUMNS = 3, 2, 3
TOKENS = ROWS * COLUMNS


@pytest.fixture(scope="module")
def models():
    """diffusers' model, and ours with its weights."""
    stock = tiny_transformer()
    ours = VectorizedLTXVideoTransformer3DModel.from_config(stock.config).eval()
    ours.load_state_dict(stock.state_dict())
    return stock, ours


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


def inputs(batch=2):
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(batch, 5)
    mask[-1, 3:] = 0
    return {
        "hidden_states": torch.randn(batch, SLOTS * TOKENS, 16, generator=generator),
        "encoder_hidden_states": torch.randn(batch, 5, 32, generator=generator),
        "timestep": torch.tensor([250.0, 777.5])[:batch],
        "encoder_attention_mask": mask,
        "num_frames": SLOTS,
        "height": ROWS,
        "width": COLUMNS,
        "rope_interpolation_scale": (8 / 25, 32, 32),
    }


def times(batch=2):
    return torch.rand(batch, SLOTS, generator=torch.Generator().manual_seed(3)) * 1000


@pytest.mark.parametrize("per_slot", [False, True])
def test_equal_times_give_the_stock_output(models, per_slot):
    stock, ours = models
    data = inputs()
    with torch.no_grad():
        expected = stock(**data).sample
        if per_slot:
            data["timestep"] = data["timestep"][:, None].expand(-1, SLOTS)
        output = ours(**data).sample
    assert expected.std() > 0.1
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


def test_broadcast_equals_the_stock_model_fed_a_time_per_token(models):
    stock, ours = models
    data, per_token = inputs(), times().repeat_interleave(TOKENS, dim=1)
    with torch.no_grad():
        output = ours(**{**data, "timestep": times()}).sample
        expected = stock(**{**data, "timestep": per_token}).sample
        same = ours(**{**data, "timestep": per_token}).sample
    assert (output - ours(**data).sample).abs().max() > 1e-2, "the times matter"
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(same, expected, atol=1e-5, rtol=1e-5)


def test_modulation_is_never_made_per_token(models):
    _, ours = models
    rows = []
    hook = ours.time_embed.linear.register_forward_hook(lambda _, args, __: rows.append(args[0].shape[:-1].numel()))
    with torch.no_grad():
        ours(**{**inputs(), "timestep": times()})
    hook.remove()
    assert rows == [2 * SLOTS]


def test_a_wrong_number_of_times_is_refused(models):
    with pytest.raises(ValueError, match="one per slot"):
        models[1](**{**inputs(), "timestep": torch.zeros(2, SLOTS + 1)})


def test_gradients_flow_and_checkpointing_changes_nothing(models):
    _, ours = models
    data = {**inputs(), "timestep": times()}
    plain = torch.autograd.grad(ours(**data).sample.square().mean(), ours.proj_in.weight)[0]
    ours.enable_gradient_checkpointing()
    try:
        again = torch.autograd.grad(ours(**data).sample.square().mean(), ours.proj_in.weight)[0]
    finally:
        ours.disable_gradient_checkpointing()
    assert plain.abs().max() > 0
    torch.testing.assert_close(again, plain)


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
    from pusa_app.models.plan import MemoryPlan

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
