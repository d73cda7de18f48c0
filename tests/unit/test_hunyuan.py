"""HunyuanVideo with a time per slot, against modulation repeated per token, and the whole model against diffusers' own.

What it has in common with the other families is in tests/parity/test_stock.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pusa_app.backbones.hunyuan import (
    HunyuanBackbone,
    VectorizedHunyuanVideoTransformer3DModel,
    decode_windows,
    enable_streaming,
)
from pusa_app.models import get_card, load_backbone
from pusa_app.sampling import draw_noise, sample
from pusa_app.timeline import NoiseSchedule
from tests.conftest import WORDS
from tests.hunyuan import CONFIG, build_tiny_hunyuan, tiny_transformer, tiny_vae
from tests.vectorized import hunyuan_inputs, pair

SLOTS, TOKENS, LENGTH = 3, 2 * 3, 5


@pytest.fixture(scope="module")
def both():
    return pair("hunyuan")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("hunyuan") / "model"
    build_tiny_hunyuan(made, WORDS)
    return made


@pytest.fixture(scope="module")
def backbone(folder) -> HunyuanBackbone:
    return load_backbone(str(folder), "cpu")


def test_trimmed_text_without_a_mask_is_the_masked_one(both):
    data = hunyuan_inputs(1, masked=True)
    trimmed = {**data, "encoder_hidden_states": data["encoder_hidden_states"][:, :3], "encoder_attention_mask": None}
    with torch.no_grad():
        torch.testing.assert_close(both.ours(**trimmed).sample, both.stock(**data).sample, atol=1e-5, rtol=1e-5)


def repeated(model, data, time):
    """The same forward, written out with one row of modulation for every token of the sequence: visual tokens have
    their slot's, text tokens the mean."""
    per_token = time.repeat_interleave(TOKENS, dim=1)  # (B, F*S)
    embed = model.time_text_embed
    waves = embed.time_proj(per_token.flatten()).unflatten(0, per_token.shape)
    common = embed.guidance_embedder(embed.time_proj(data["guidance"])) + embed.text_embedder(
        data["pooled_projections"]
    )
    temb = embed.timestep_embedder(waves) + common[:, None]
    mean = temb.mean(dim=1, keepdim=True)
    refiner = model.context_embedder
    words = data["encoder_hidden_states"]
    embed = refiner.time_text_embed
    waves = embed.time_proj(per_token.flatten()).unflatten(0, per_token.shape)
    refined = embed.timestep_embedder(waves).mean(dim=1) + embed.text_embedder(words.mean(dim=1))
    text = refiner.token_refiner(refiner.proj_in(words), refined, None)
    x, rope = model.x_embedder(data["hidden_states"]), model.rope(data["hidden_states"])
    silu = torch.nn.functional.silu
    for block in model.transformer_blocks:
        one, two = (
            layer.linear(silu(t)).chunk(6, -1) for layer, t in ((block.norm1, temb), (block.norm1_context, mean))
        )
        a, b = block.attn(
            hidden_states=block.norm1.norm(x) * (1 + one[1]) + one[0],
            encoder_hidden_states=block.norm1_context.norm(text) * (1 + two[1]) + two[0],
            image_rotary_emb=rope,
        )
        x, text = x + a * one[2], text + b * two[2]
        x = x + one[5] * block.ff(block.norm2(x) * (1 + one[4]) + one[3])
        text = text + two[5] * block.ff_context(block.norm2_context(text) * (1 + two[4]) + two[3])
    everything = torch.cat((temb, mean.expand(-1, LENGTH, -1)), dim=1)
    for block in model.single_transformer_blocks:
        joint = torch.cat((x, text), dim=1)
        shift, scale, gate = block.norm.linear(silu(everything)).chunk(3, -1)
        normed = block.norm.norm(joint) * (1 + scale) + shift
        parts = block.attn(
            hidden_states=normed[:, :-LENGTH], encoder_hidden_states=normed[:, -LENGTH:], image_rotary_emb=rope
        )
        both = torch.cat((torch.cat(parts, dim=1), block.act_mlp(block.proj_mlp(normed))), dim=2)
        joint = joint + gate * block.proj_out(both)
        x, text = joint[:, :-LENGTH], joint[:, -LENGTH:]
    scale, shift = model.norm_out.linear(silu(temb)).chunk(2, -1)
    x = model.proj_out(model.norm_out.norm(x) * (1 + scale) + shift)
    x = x.reshape(len(x), SLOTS, 2, 3, -1, 1, 2, 2).permute(0, 4, 1, 5, 2, 6, 3, 7)
    return x.flatten(6, 7).flatten(4, 5).flatten(2, 3)


def test_broadcast_equals_modulation_repeated_per_token(both):
    ours, data, times = both.ours, hunyuan_inputs(), both.times()
    with torch.no_grad():
        output = ours(**{**data, "timestep": times}).sample
        expected = repeated(ours, data, times)
    assert (output - ours(**data).sample).abs().max() > 1e-2, "the times matter"
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=0)


def test_modulation_is_never_made_per_token(both):
    ours, rows = both.ours, []
    layers = [
        ours.transformer_blocks[0].norm1.linear,
        ours.single_transformer_blocks[0].norm.linear,
        ours.norm_out.linear,
    ]
    hooks = [layer.register_forward_hook(lambda _, args, __: rows.append(args[0].shape[1])) for layer in layers]
    with torch.no_grad():
        ours(**{**hunyuan_inputs(), "timestep": both.times()})
    for hook in hooks:
        hook.remove()
    assert rows == [SLOTS, SLOTS, 1, SLOTS]  # the third is the text of the single stream


def test_what_it_cannot_take_is_said(both):
    with pytest.raises(ValueError, match="needs guidance"):
        both.ours(**{**hunyuan_inputs(), "guidance": None})
    with pytest.raises(ValueError, match="image-to-video"):
        VectorizedHunyuanVideoTransformer3DModel(image_condition_type="token_replace", **CONFIG)


# --- the VAE ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 4, 5, 7, 9])
def test_decoding_in_windows_equals_diffusers(slots):
    vae, latents = tiny_vae(), draw_noise(slots, (16, slots, 3, 4))
    with torch.no_grad():
        expected = vae.decode(latents[None]).sample[0]
        enable_streaming(vae)
        pieces = list(decode_windows(vae, latents))
    assert expected.shape[1] == 4 * (slots - 1) + 1
    assert len(pieces) == (1 if slots <= 4 else -(-slots // 3) - (slots % 3 == 1))
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected, atol=1e-5, rtol=1e-5)


def test_encoding_without_masks_equals_diffusers():
    vae = tiny_vae()
    frames = torch.rand(1, 3, 21, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = vae.encode(frames).latent_dist.mode()
        enable_streaming(vae)
        torch.testing.assert_close(vae.encode(frames).latent_dist.mode(), expected, atol=1e-5, rtol=1e-5)


# --- the whole model --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipeline(folder):
    from diffusers import HunyuanVideoPipeline

    made = HunyuanVideoPipeline.from_pretrained(folder)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("prompt", ["a red ball {moves} left", "", "red " * 400])
def test_texts_are_encoded_as_by_the_pipeline(backbone, pipeline, prompt):
    with torch.no_grad():
        embeds, pooled, mask = pipeline.encode_prompt(prompt)
    valid = int(mask.sum())
    assert 0 < valid <= 256
    text = backbone.encode_text(prompt)
    torch.testing.assert_close(text.embeds, embeds[0, :valid], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(text.pooled, pooled[0], atol=1e-5, rtol=1e-5)


def test_a_whole_run_with_equal_sigmas_is_the_pipeline_s(backbone, pipeline):
    steps, noise = 4, draw_noise(7, (16, SLOTS, 4, 6))
    expected = pipeline(
        "a red ball",
        height=32,
        width=48,
        num_frames=9,
        num_inference_steps=steps,
        guidance_scale=5.0,
        latents=noise[None],
        output_type="latent",
    ).frames[0]
    sigmas = backbone.spec.schedule.sigmas(steps)
    S = NoiseSchedule(sigmas=sigmas, multipliers=(1.0,) * SLOTS).matrix()
    text = backbone.encode_text("a red ball")
    z = sample(backbone, S, torch.zeros_like(noise), noise, text, text, guidance=5.0, sigmas=sigmas)
    assert (z - noise).abs().max() > 0.1
    torch.testing.assert_close(z, expected, atol=1e-4, rtol=1e-4)
    other = sample(backbone, S, torch.zeros_like(noise), noise, text, text, guidance=1.0, sigmas=sigmas)
    assert (z - other).abs().max() > 1e-3, "the guidance is read"


def test_distilled_guidance_takes_one_forward_and_no_negative_prompt(backbone, monkeypatch):
    from pusa_app.render import render
    from pusa_app.timeline import Recipe

    forwards, encoded = [], []
    forward, encode = backbone.transformer.forward, backbone.encode_text
    monkeypatch.setattr(
        backbone.transformer, "forward", lambda **more: forwards.append(more["guidance"]) or forward(**more)
    )
    monkeypatch.setattr(backbone, "encode_text", lambda prompt: encoded.append(prompt) or encode(prompt))
    timeline = backbone.spec.timeline(5).model_copy(update={"width": 32, "height": 32})
    recipe = Recipe(
        task="text-to-video",
        prompt="a red ball",
        negative_prompt="blue",
        timeline=timeline,
        steps=3,
        guidance=4.0,
        seed=1,
    )
    clip = render(recipe, backbone)
    assert clip.frames.shape == (5, 32, 32, 3) and clip.frames.std() > 0
    assert encoded == ["a red ball"]
    assert [guidance.tolist() for guidance in forwards] == [[4000.0]] * 3


def test_a_checkpoint_without_distillation_takes_two_forwards(folder, tmp_path):
    import shutil

    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    tiny_transformer(guidance_embeds=False).save_pretrained(copy / "transformer")
    card = get_card(str(copy))
    assert not card.spec.distilled
    backbone = load_backbone(card, "cpu")
    texts = [backbone.encode_text("a red ball"), backbone.encode_text("")]
    one, two = backbone.velocity(draw_noise(1, (16, 2, 4, 4)), torch.tensor([0.3, 1.0]), texts)
    assert not backbone.takes_guidance and not torch.equal(one, two)


def test_the_pooled_text_is_kept_on_the_disk_too(folder, backbone, tmp_path, monkeypatch):
    from pusa_app.backbones.fit import Fit
    from pusa_app.models.catalogue import encode_alone
    from pusa_app.models.plan_types import MemoryPlan

    monkeypatch.setenv("PUSA_DATA_DIR", str(tmp_path))
    plan = MemoryPlan(dtype="fp32", text="cpu")
    card = get_card(str(folder))
    encode_alone(card, plan, ["a red ball", ""])
    late = load_backbone(card, "cpu", plan=plan)
    monkeypatch.setattr(Fit, "_load_text", lambda *_: pytest.fail("LLaMA is not needed"))
    assert late.text_encoder is None and late.has_text("a red ball")
    kept, expected = late.encode_text("a red ball"), backbone.encode_text("a red ball")
    assert torch.equal(kept.embeds, expected.embeds) and torch.equal(kept.pooled, expected.pooled)


def test_it_says_that_it_is_not_trained_for_keyframes(folder):
    card = get_card(str(folder))
    assert card.label == "not yet trained for keyframes"
    assert "text-to-video" in card.tasks and "image-to-video" not in card.tasks
    assert "not yet trained" in card.why_not["image-to-video"]


def test_the_planner_has_a_plan_for_every_machine():
    from pusa_app.models.fitting import work_for
    from pusa_app.models.machine import Machine
    from pusa_app.models.plan import best

    for gigabytes in (8, 24, 80):
        machine = Machine(
            gpu_kind="cuda",
            gpu_name="test",
            gpu_bytes=int(gigabytes * 1e9),
            compute=(8, 9),
            free_ram_bytes=int(128e9),
            disk_bytes=int(500e9),
        )
        found = best(work_for("hunyuan-video", machine))
        assert found.reason and found.vram > 0
        assert found.fits or gigabytes == 8


def test_frames_are_what_diffusers_decodes(backbone, pipeline):
    z = draw_noise(5, (16, 5, 4, 4))
    with torch.no_grad():
        whole = pipeline.vae.decode(z[None] / pipeline.vae.config.scaling_factor).sample[0].permute(1, 2, 3, 0)
    frames = np.concatenate(list(backbone.decode(z)))
    assert frames.shape == (17, 32, 32, 3)
    assert np.abs(frames - ((whole + 1) * 127.5).clamp(0, 255).numpy()).max() <= 0.6


# --- LoRAs in the authors' names --------------------------------------------------------------------------------------


def test_native_names_are_those_that_diffusers_knows():
    """Every layer of a LoRA in native names, converted by diffusers and by our table. It knows the real width only."""
    from diffusers.loaders.lora_conversion_utils import _convert_hunyuan_video_lora_to_diffusers

    from pusa_app.models.native_names import hunyuan_mapping

    width, config = 3072, {"num_layers": 1, "num_single_layers": 1, "num_refiner_layers": 1, "mlp_ratio": 4.0}
    cuts = {name: cut for name, cut in hunyuan_mapping(config).items() if name.endswith(".weight")}
    rows = {"linear1": 7 * width, "qkv": 3 * width}
    native, generator = {}, torch.Generator().manual_seed(0)
    for cut in cuts.values():
        module = cut.source.removesuffix(".weight")
        count = next((n for end, n in rows.items() if module.endswith(end)), width)
        native[f"{module}.lora_A.weight"] = torch.randn(3, 4, generator=generator)
        native[f"{module}.lora_B.weight"] = torch.randn(count, 3, generator=generator)
    # (In the refiner diffusers cuts A too, which is wrong: B alone is compared.)
    expected = _convert_hunyuan_video_lora_to_diffusers(dict(native))
    for name, cut in cuts.items():
        b = native[f"{cut.source.removesuffix('.weight')}.lora_B.weight"]
        ours = torch.cat([b[start:stop] for start, stop in cut.rows(len(b))])
        assert torch.equal(ours, expected[f"transformer.{name.removesuffix('.weight')}.lora_B.weight"]), name
    tiny = tiny_transformer(num_layers=1, num_single_layers=1)
    assert set(cuts) == {name for name, p in tiny.named_parameters() if p.ndim > 1}, "and no layer is forgotten"


@pytest.mark.parametrize("kind", ["comfy", "musubi"])
def test_a_lora_in_native_names_is_the_one_in_diffusers_names(backbone, tmp_path, kind):
    from safetensors.torch import save_file

    from pusa_app.timeline import LoraChoice

    generator, rank = torch.Generator().manual_seed(0), 2
    layers = {  # native -> (ours, rows), in order
        "double_blocks.1.img_attn_qkv": [(f"transformer_blocks.1.attn.to_{x}", 32) for x in "qkv"],
        "double_blocks.0.txt_attn_proj": [("transformer_blocks.0.attn.to_add_out", 32)],
        "single_blocks.1.linear1": [
            *[(f"single_transformer_blocks.1.attn.to_{x}", 32) for x in "qkv"],
            ("single_transformer_blocks.1.proj_mlp", 128),
        ],
    }
    native, plain = {}, {}
    for name, parts in layers.items():
        a = torch.randn(rank, 32, generator=generator)
        b = torch.randn(sum(rows for _, rows in parts), rank, generator=generator)
        if kind == "comfy":
            native |= {f"diffusion_model.{name}.lora_A.weight": a, f"diffusion_model.{name}.lora_B.weight": b}
        else:
            flat = "lora_unet_" + name.replace(".", "_")
            native |= {f"{flat}.lora_down.weight": a, f"{flat}.lora_up.weight": b, f"{flat}.alpha": torch.tensor(2.0)}
        for (ours, _), rows in zip(parts, b.split([rows for _, rows in parts]), strict=True):
            plain |= {
                f"transformer.{ours}.lora_A.weight": a.clone(),
                f"transformer.{ours}.lora_B.weight": rows.contiguous(),
            }
    save_file(native, tmp_path / "native.safetensors")
    save_file(plain, tmp_path / "plain.safetensors")
    z, text = draw_noise(3, (16, SLOTS, 4, 6)), [backbone.encode_text("a red ball")]
    found = []
    try:
        for name in ("native", "plain"):
            (report,) = backbone.set_loras([LoraChoice(path=str(tmp_path / f"{name}.safetensors"))])
            assert not report.unmatched
            found += backbone.velocity(z, torch.tensor([0.2, 0.5, 1.0]), text)
    finally:
        backbone.set_loras([])
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found[0], backbone.velocity(z, torch.tensor([0.2, 0.5, 1.0]), text)[0])
