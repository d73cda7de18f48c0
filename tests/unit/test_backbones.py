"""What every backbone must do, over all families: tiny random weights, in each one's own folder format."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from pusa_app.backbones.fake import FakeBackbone
from pusa_app.errors import ModelError
from pusa_app.models import get_card, load_backbone
from pusa_app.render import render
from pusa_app.sampling import draw_noise, sample
from pusa_app.timeline import ImageSource, Keyframe, NoiseSchedule, Recipe
from tests.conftest import WORDS, build_tiny_mochi
from tests.hunyuan import build_tiny_hunyuan
from tests.ltx import build_tiny_ltx
from tests.wan import KINDS, build_tiny_wan

FOLDERS = ("mochi", *KINDS, "ltx", "hunyuan")
ALL = ("fake", *FOLDERS)
BUILDERS = {
    "mochi": build_tiny_mochi,
    "ltx": lambda folder: build_tiny_ltx(folder, WORDS),
    "hunyuan": lambda folder: build_tiny_hunyuan(folder, WORDS),
}
# LTX-Video's decoder looks forwards; the norms of HunyuanVideo's go over all frames that are decoded together.
NOT_CAUSAL = ("ltx", "hunyuan")
STRIDES = {"mochi": 6, "ltx": 8}
SLOTS = 3


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Family -> its folder, made when it is asked for first; do not write into it."""
    root, made = tmp_path_factory.mktemp("families"), {}

    def folder(name):
        if name not in made:
            made[name] = root / name
            if name in BUILDERS:
                BUILDERS[name](made[name])
            else:
                build_tiny_wan(made[name], name, WORDS)
        return made[name]

    return folder


@pytest.fixture(scope="session")
def loaded(folders):
    made = {}

    def backbone(name):
        if name not in made:
            made[name] = FakeBackbone() if name == "fake" else load_backbone(str(folders(name)), "cpu")
        return made[name]

    return backbone


@pytest.fixture(params=ALL)
def backbone(request, loaded):
    return loaded(request.param)


def geometry(backbone):
    """Frames, height and width in pixels of a small clip of three slots, and the shape of its latents."""
    spec = backbone.spec
    height, width = spec.size_multiple * 2, spec.size_multiple * 3
    shape = (spec.latent_channels, SLOTS, height // spec.spatial_stride, width // spec.spatial_stride)
    return (SLOTS - 1) * spec.temporal_stride + 1, height, width, shape


def frames_of(backbone):
    count, height, width, _ = geometry(backbone)
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def matrix(backbone, multipliers, steps=3):
    sigmas = backbone.spec.schedule.sigmas(steps)
    return sigmas, NoiseSchedule(sigmas=sigmas, multipliers=multipliers).matrix()


def run(backbone, multipliers, z0, guidance=3.0):
    sigmas, S = matrix(backbone, multipliers)
    texts = backbone.encode_text("a red ball"), backbone.encode_text("")
    return sample(backbone, S, z0, draw_noise(1, tuple(z0.shape)), *texts, guidance, sigmas=sigmas)


# --- the contract -----------------------------------------------------------------------------------------------------


def test_encoded_frames_have_the_geometry_of_the_card(backbone):
    z = backbone.encode_frames(frames_of(backbone))
    assert z.shape == geometry(backbone)[3]
    assert (z.dtype, z.device.type) == (torch.float32, "cpu")
    assert backbone.encode_frames(frames_of(backbone)[:1]).shape[1] == 1, "a picture is one slot"
    torch.testing.assert_close(backbone.encode_frames(frames_of(backbone)), z)


def test_latents_decode_to_all_frames_in_order(backbone):
    count, height, width, shape = geometry(backbone)
    z = draw_noise(2, shape)
    chunks = list(backbone.decode(z))
    frames = np.concatenate(chunks)
    assert (frames.shape, frames.dtype) == ((count, height, width, 3), np.uint8)
    assert np.array_equal(np.concatenate(list(backbone.decode(z))), frames)
    later = z.clone()
    later[:, -1] += 1
    changed, stride = np.concatenate(list(backbone.decode(later))), backbone.spec.temporal_stride
    assert not np.array_equal(changed, frames)
    if backbone.spec.family not in NOT_CAUSAL:
        assert np.array_equal(changed[:-stride], frames[:-stride]), "what comes later changes nothing before it"


def test_texts_are_the_same_every_time_and_differ(backbone):
    first, again, other = (backbone.encode_text(words).embeds for words in ("a red ball", "a red ball", "left"))
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)
    assert backbone.encode_text("").embeds.ndim == 2


def test_velocities_are_one_per_text_and_the_same_every_time(backbone):
    shape = geometry(backbone)[3]
    z, sigma = draw_noise(3, shape), torch.tensor([0.0, 0.5, 1.0])
    texts = [backbone.encode_text("a red ball"), backbone.encode_text("")]
    one, two = backbone.velocity(z, sigma, texts), backbone.velocity(z, sigma, texts)
    assert [v.shape for v in one] == [shape, shape]
    assert {v.dtype for v in one} == {torch.float32}
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0], one[1]), "the words matter"


@pytest.mark.parametrize("name", FOLDERS)
def test_every_slot_has_a_time_of_its_own(loaded, name):
    backbone = loaded(name)
    z, text = draw_noise(3, geometry(backbone)[3]), [backbone.encode_text("a red ball")]
    (one,) = backbone.velocity(z, torch.tensor([0.2, 0.5, 1.0]), text)
    (two,) = backbone.velocity(z, torch.tensor([0.9, 0.5, 1.0]), text)
    assert (one - two).abs().amax(dim=(0, 2, 3)).min() > 0, "all slots attend to the one that changed"
    assert (one - two).abs()[:, 0].mean() > (one - two).abs()[:, 1:].mean(), "which changes most itself"


def test_clean_keyframes_are_kept_to_the_last_bit(backbone):
    shape = geometry(backbone)[3]
    z0 = torch.zeros(shape)
    z0[:, 1] = backbone.encode_frames(frames_of(backbone)[:1])[:, 0]
    z = run(backbone, (1.0, 0.0, 1.0), z0)
    assert z.isfinite().all()
    assert torch.equal(z[:, 1], z0[:, 1])
    assert torch.equal(run(backbone, (1.0, 0.0, 1.0), z0), z), "and the run is the same every time"


@pytest.mark.parametrize("name", FOLDERS)
def test_guidance_in_one_batch_or_two_calls_is_the_same(loaded, name, monkeypatch):
    backbone = loaded(name)
    z0 = torch.zeros(geometry(backbone)[3])
    batched = run(backbone, (1.0, 0.5, 1.0), z0)
    monkeypatch.setattr("pusa_app.backbones.fit.SMALL_TOKENS", 0)
    torch.testing.assert_close(run(backbone, (1.0, 0.5, 1.0), z0), batched, atol=1e-4, rtol=1e-4)


class TestFirstBlockCache:
    """Over the families, for each has its own way of calling blocks."""

    SIGMA = torch.tensor([0.0, 0.5, 1.0])

    @pytest.fixture(params=FOLDERS)
    def cached(self, request, loaded):
        backbone = loaded(request.param)
        yield backbone
        backbone.set_cache(0)

    def ask(self, backbone, z):
        texts = [backbone.encode_text("a red ball"), backbone.encode_text("")]
        return torch.stack(backbone.velocity(z, self.SIGMA, texts))

    def test_off_is_as_if_there_were_none(self, cached):
        z = draw_noise(3, geometry(cached)[3])
        before = self.ask(cached, z)
        blocks = [list(map(id, expert.modules())) for expert in cached.experts]
        cached.set_cache(0.5)
        self.ask(cached, z), self.ask(cached, z)
        cached.set_cache(0)
        assert torch.equal(self.ask(cached, z), before)
        assert [list(map(id, expert.modules())) for expert in cached.experts] == blocks

    def test_what_is_the_same_is_not_computed_again(self, cached):
        z = draw_noise(3, geometry(cached)[3])
        plain = self.ask(cached, z)
        cached.set_cache(0.01)
        assert torch.equal(self.ask(cached, z), plain)
        assert cached.cache.skipped == 0
        torch.testing.assert_close(self.ask(cached, z), plain, atol=1e-4, rtol=1e-4)
        assert cached.cache.skipped == cached.cache.forwards / 2 > 0
        cached.set_cache(0.01)
        assert torch.equal(self.ask(cached, z), plain), "it has forgotten"
        assert cached.cache.skipped == cached.cache.forwards / 3

    def test_what_changed_is_computed(self, cached):
        shape = geometry(cached)[3]
        z, other = draw_noise(3, shape), draw_noise(4, shape)
        plain = self.ask(cached, other)
        cached.set_cache(0.01)
        self.ask(cached, z)
        assert torch.equal(self.ask(cached, other), plain)
        assert cached.cache.skipped == 0

    def test_skipping_leaves_out_the_blocks_behind_the_first(self, cached, monkeypatch):
        z, worked = draw_noise(3, geometry(cached)[3]), []
        lists = [module for module in cached.transformer.children() if isinstance(module, torch.nn.ModuleList)]
        for number, block in enumerate(block for blocks in lists for block in blocks):
            real = block.forward

            def forward(*args, number=number, real=real, **kwargs):
                worked.append(number)
                return real(*args, **kwargs)

            monkeypatch.setattr(block, "forward", forward)
        text = [cached.encode_text("a red ball")]
        cached.set_cache(0.01)
        cached.velocity(z, self.SIGMA, text)
        assert len(worked) > 1
        worked.clear()
        cached.velocity(z, self.SIGMA, text)
        assert worked == [0]

    def test_a_run_of_several_spans(self, cached):
        """It skips, it is about the same clip, and it is the same every time."""
        steps = 12
        sigmas, S = matrix(cached, (1.0, 0.3, 1.0), steps)
        texts = cached.encode_text("a red ball"), cached.encode_text("")
        z0 = torch.zeros(geometry(cached)[3])
        given = S, z0, draw_noise(1, tuple(z0.shape)), *texts, 2.0
        plain = sample(cached, *given, sigmas=sigmas)
        one = sample(cached, *given, sigmas=sigmas, cache=0.3)
        assert 0 < cached.cache.skipped < cached.cache.forwards
        assert torch.equal(sample(cached, *given, sigmas=sigmas, cache=0.3), one)
        assert 0 < (one - plain).norm() / plain.norm() < 0.5
        assert torch.equal(sample(cached, *given, sigmas=sigmas), plain)


@pytest.mark.parametrize("name", FOLDERS)
def test_the_smaller_memory_plan_gives_the_same(loaded, folders, name):
    usual, lean = loaded(name), load_backbone(str(folders(name)), "cpu", lean=1)
    z0 = torch.zeros(geometry(usual)[3])
    z = run(usual, (0.3, 1.0, 1.0), z0)
    torch.testing.assert_close(run(lean, (0.3, 1.0, 1.0), z0), z, atol=1e-4, rtol=1e-4)
    a, b = (np.concatenate(list(backbone.decode(z))).astype(int) for backbone in (usual, lean))
    assert np.abs(a - b).max() <= 1


@pytest.mark.parametrize("name", FOLDERS)
def test_half_precision_is_about_the_same(loaded, folders, name):
    """As on a GPU: the model computes in bf16, latents and what is added up stay in fp32."""
    from pusa_app.models.plan_types import MemoryPlan

    exact, half = loaded(name), load_backbone(str(folders(name)), "cpu", plan=MemoryPlan(dtype="bf16"))
    z, sigma = exact.encode_frames(frames_of(exact)), torch.tensor([0.0, 0.3, 1.0])
    found = half.encode_frames(frames_of(exact))
    assert found.dtype == torch.float32 and (found - z).norm() / z.norm() < 0.1
    one, two = (torch.stack(b.velocity(z, sigma, [b.encode_text(w) for w in WORDS[:2]])) for b in (exact, half))
    assert two.dtype == torch.float32 and (one - two).norm() / one.norm() < 0.1
    a, b = (np.concatenate(list(backbone.decode(z))).astype(int) for backbone in (exact, half))
    assert np.abs(a - b).mean() < 5


def test_previews_are_small_pictures_of_all_slots(backbone):
    z = backbone.encode_frames(frames_of(backbone))
    pictures = backbone.preview(z)
    assert (pictures.dtype, pictures.shape[0], pictures.shape[3]) == (np.uint8, SLOTS, 3)
    assert pictures.shape[1:3] == z.shape[2:]
    assert np.array_equal(backbone.preview(z), pictures)


@pytest.mark.parametrize("name", ALL)
def test_a_recipe_is_rendered(loaded, name, tmp_path):
    from PIL import Image

    backbone = loaded(name)
    spec = backbone.spec
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    keyframe = Keyframe(slot=0, source=ImageSource(path=str(tmp_path / "red.png")), noise=0.2)
    count, height, width, _ = geometry(backbone)
    recipe = Recipe(
        task="image-to-video",
        prompt="a red ball",
        timeline=spec.timeline(count, (keyframe,)).model_copy(update={"width": width, "height": height}),
        steps=2,
        guidance=spec.guidance,
        seed=3,
    )
    clip = render(recipe, backbone)
    assert clip.frames.shape == (count, height, width, 3)
    assert np.array_equal(render(recipe, backbone).frames, clip.frames)


@pytest.mark.parametrize("name", FOLDERS)
def test_the_card_follows_from_the_folder(folders, name):
    card = get_card(str(folders(name)))
    assert card.spec.size_multiple == (32 if name in ("ti2v-5b", "ltx") else 16)
    assert card.spec.temporal_stride == STRIDES.get(name, 4)
    assert card.spec.boundary == (0.875 if name == "wan2.2" else None)
    assert ("image-to-video" in card.tasks) == (name != "hunyuan"), "HunyuanVideo was trained for one time"
    assert ("extend" in card.tasks) == (name not in ("ti2v-5b", "hunyuan")), "TI2V was trained for a clean first frame"


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *[(name, part) for name in FOLDERS for part in ("tokenizer", "text_encoder", "transformer", "vae")],
        ("wan2.2", "transformer_2"),
        ("hunyuan", "text_encoder_2"),
        ("hunyuan", "tokenizer_2"),
    ],
)
def test_a_missing_part_is_named_in_one_sentence(folders, tmp_path, name, part):
    card = get_card(str(folders(name)))
    copy = tmp_path / "model"
    shutil.copytree(folders(name), copy, ignore=shutil.ignore_patterns(part))
    with pytest.raises(ModelError, match=f"incomplete: its folder {part} is missing") as caught:
        load_backbone(card.model_copy(update={"folder": copy}), "cpu")
    assert one_sentence(caught)


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("part", ["text_encoder", "transformer", "vae"])
def test_a_damaged_part_is_named_in_one_sentence(folders, tmp_path, name, part):
    card = get_card(str(folders(name)))
    copy = tmp_path / "model"
    shutil.copytree(folders(name), copy)
    weights = next((copy / part).glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=part) as caught:
        load_backbone(card.model_copy(update={"folder": copy}), "cpu")
    assert one_sentence(caught)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_card_of_another_geometry_is_refused(folders, name):
    card = get_card(str(folders(name)))
    other = card.model_copy(update={"spec": card.spec.model_copy(update={"temporal_stride": 3})})
    with pytest.raises(ModelError, match="temporal_stride is 3") as caught:
        load_backbone(other, "cpu")
    assert one_sentence(caught)


@pytest.mark.parametrize("name", FOLDERS)
def test_loras_go_on_and_off(loaded, tmp_path, name):
    """In the names of diffusers and PEFT, on a layer that every family has."""
    from safetensors.torch import save_file

    from pusa_app.timeline import LoraChoice

    backbone = loaded(name)
    layer = next(key for key, _ in backbone.transformer.named_modules() if "blocks.0." in key and key.endswith("to_q"))
    width = backbone.transformer.get_submodule(layer).weight.shape
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(4, width[1], generator=generator), torch.randn(width[0], 4, generator=generator)
    prefixes = {"diffusers": "transformer", "peft": "base_model.model"}
    for kind, prefix in prefixes.items():
        save_file(
            {f"{prefix}.{layer}.lora_{x}.weight": t for x, t in (("A", a), ("B", b))}, tmp_path / f"{kind}.safetensors"
        )
    save_file({"no.such.layer.lora_A.weight": a, "no.such.layer.lora_B.weight": b}, tmp_path / "other.safetensors")
    z, text = draw_noise(3, geometry(backbone)[3]), [backbone.encode_text("a red ball")]
    (plain,) = backbone.velocity(z, torch.tensor([0.2, 0.5, 1.0]), text)
    try:
        found = []
        for kind in prefixes:
            reports = backbone.set_loras([LoraChoice(path=str(tmp_path / f"{kind}.safetensors"), strength=0.5)])
            assert reports[0].matched == 1 + (len(backbone.experts) > 1)
            found += backbone.velocity(z, torch.tensor([0.2, 0.5, 1.0]), text)
        assert torch.equal(*found) and not torch.allclose(found[0], plain)
        with pytest.raises(ModelError, match="for another model") as caught:
            backbone.set_loras([LoraChoice(path=str(tmp_path / "other.safetensors"))])
        assert one_sentence(caught)
    finally:
        backbone.set_loras([])
    torch.testing.assert_close(backbone.velocity(z, torch.tensor([0.2, 0.5, 1.0]), text)[0], plain)


def one_sentence(caught):
    text = str(caught.value)
    return "\n" not in text and text.endswith(".") and "Traceback" not in text


# --- Wan --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_velocity_is_the_stock_model_s_with_the_other_sign(loaded, folders, name):
    import diffusers

    index = json.loads((folders(name) / "model_index.json").read_text())
    stock = getattr(diffusers, index["transformer"][1]).from_pretrained(folders(name) / "transformer").eval()
    backbone = loaded(name)
    z, text = draw_noise(4, geometry(backbone)[3]), backbone.encode_text("a blue square")
    (v,) = backbone.velocity(z, torch.full((SLOTS,), 0.9), [text])
    more = {"fps": [1]} if name == "skyreels" else {}
    with torch.no_grad():
        expected = -stock(z[None], torch.tensor([900.0]), text.embeds[None], **more).sample[0]
    torch.testing.assert_close(v, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["wan2.1", "ti2v-5b"])
def test_texts_are_encoded_as_by_the_pipeline(loaded, folders, name):
    from diffusers import WanPipeline

    pipeline = WanPipeline.from_pretrained(folders(name))
    for prompt in ("a red  ball &amp; a blue square", "", "red " * 600):
        expected, _ = pipeline.encode_prompt(prompt, do_classifier_free_guidance=False, max_sequence_length=512)
        torch.testing.assert_close(loaded(name).encode_text(prompt).embeds, expected[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_decoding_slot_by_slot_equals_decoding_the_whole(loaded, name):
    backbone = loaded(name)
    z = draw_noise(5, geometry(backbone)[3])
    vae = backbone.vae
    mean, std = (torch.tensor(vae.config[key]).view(-1, 1, 1, 1) for key in ("latents_mean", "latents_std"))
    with torch.no_grad():
        whole = vae.decode((z * std + mean)[None]).sample[0].permute(1, 2, 3, 0)
    chunks = list(backbone.decode(z))
    assert [len(chunk) for chunk in chunks] == [1, 4, 4]
    assert np.abs(np.concatenate(chunks) - ((whole + 1) * 127.5).numpy()).max() <= 0.6
    # A decoding that was left half way leaves nothing behind for the next.
    next(backbone.decode(z))
    assert np.array_equal(np.concatenate(list(backbone.decode(z))), np.concatenate(chunks))


class TestTwoExperts:
    @pytest.fixture
    def asked(self, loaded, monkeypatch):
        """The experts in the order in which they work."""
        backbone, asked = loaded("wan2.2"), []
        for number, expert in enumerate(backbone.experts):
            real = expert.forward

            def forward(*args, number=number, real=real, **kwargs):
                asked.append(number)
                return real(*args, **kwargs)

            monkeypatch.setattr(expert, "forward", forward)
        return asked

    def test_the_schedule_chooses_and_not_the_slots(self, loaded, asked):
        """With all slots at a noise of .3 no slot is ever above the boundary, and yet the first expert works first."""
        backbone = loaded("wan2.2")
        sigmas, _ = matrix(backbone, (0.3, 0.3, 0.3))
        run(backbone, (0.3, 0.3, 0.3), torch.zeros(geometry(backbone)[3]), guidance=1)
        assert asked == [0 if sigma >= 0.875 else 1 for sigma in sigmas[:-1]]
        assert set(asked) == {0, 1}

    def test_the_boundary_itself_is_the_first_expert_s(self, loaded, asked):
        backbone = loaded("wan2.2")
        z, text = draw_noise(4, geometry(backbone)[3]), [backbone.encode_text("")]
        for level in (1.0, 0.875, 0.8749):
            backbone.velocity(z, torch.tensor([0.1, 0.1, 0.1]), text, level=level)
        assert asked == [0, 0, 1]

    def test_the_second_one_differs(self, loaded):
        backbone = loaded("wan2.2")
        z, text = draw_noise(4, geometry(backbone)[3]), [backbone.encode_text("")]
        high, low = (backbone.velocity(z, torch.ones(SLOTS), text, level=level)[0] for level in (1.0, 0.5))
        assert (high - low).abs().max() > 0.01

    def test_only_one_is_on_a_gpu(self, folders):
        """A device that is none stands for the GPU: what is moved there has no numbers any more."""
        from pusa_app.backbones.wan import WanBackbone

        card = get_card(str(folders("wan2.2")))
        backbone = WanBackbone.from_folder(card.folder, card.spec)
        moved = WanBackbone(
            *(card.spec, backbone.prompts, backbone.text_encoder, backbone.experts, backbone.vae),
            backbone._preview,
            device=torch.device("meta"),
        )
        moved.fit.need(moved.experts[0])
        assert [expert.device.type for expert in moved.experts] == ["meta", "cpu"]


def test_whole_times_are_a_property_of_the_card(loaded):
    from pusa_app.backbones.wan import WanBackbone

    backbone = loaded("wan2.1")
    z, text = draw_noise(4, geometry(backbone)[3]), [backbone.encode_text("")]
    whole = WanBackbone(
        backbone.spec.model_copy(update={"integer_time": True}),
        *(backbone.prompts, backbone.text_encoder, backbone.experts, backbone.vae, backbone._preview),
    )
    sigma = torch.tensor([0.0, 0.1239, 0.9999])
    (v,) = whole.velocity(z, sigma, text)
    torch.testing.assert_close(v, backbone.velocity(z, torch.tensor([0.0, 0.123, 0.999]), text)[0])
    assert not torch.equal(v, backbone.velocity(z, sigma, text)[0])


def test_a_preview_is_measured_with_the_encoder():
    """Where latents are a mixture of the colours, the colours come back."""
    from pusa_app.backbones.preview import LatentPreview

    mix = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))

    def encode(frames):
        x = torch.from_numpy(frames).float() / 255
        small = x.unflatten(1, (-1, 8)).unflatten(3, (-1, 8)).mean((2, 4))
        slots = torch.stack((small[0], small[1:].mean(0)))
        return (slots @ mix - 0.3).permute(3, 0, 1, 2)

    preview = LatentPreview.measured(encode, 8, 4)
    frames = np.zeros((5, 16, 16, 3), np.uint8)
    frames[:, :8] = (250, 20, 120)
    shown = preview(encode(frames))
    assert np.abs(shown[0, 0, 0].astype(int) - (250, 20, 120)).max() <= 2
    assert shown[1, 1, 1].max() <= 2
