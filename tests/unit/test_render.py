from __future__ import annotations

import io
import json
import math
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from pusa_app.backbones.fake import FAKE_SPEC, FakeBackbone
from pusa_app.backbones.mochi import LatentPreview, MochiBackbone, decode_chunks, fit_preview
from pusa_app.errors import ModelError, RecipeError, RunCancelled
from pusa_app.events import Preview, Progress
from pusa_app.models import BackboneSpec, get_card, list_cards, load_backbone
from pusa_app.render import render
from pusa_app.timeline import ClipSource, ImageSource, Keyframe, Recipe

# Any part of a rendered picture that is not a keyframe is grey (no prompt) or the colour of a word.


@pytest.fixture(scope="module")
def tiny(tiny_mochi, tiny_spec) -> MochiBackbone:
    return MochiBackbone.from_folder(tiny_mochi, tiny_spec)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("RGB", (80, 60), (220, 30, 60)).save(path)
    return str(path)


def recipe(spec, *keyframes, num_frames=19, **changes) -> Recipe:
    timeline = spec.timeline(num_frames, tuple(keyframes))
    task = "keyframes" if keyframes else "text-to-video"
    values = {"task": task, "timeline": timeline, "steps": 3, "guidance": 3.0, "seed": 7, "prompt": "a red ball"}
    return Recipe(**{**values, **changes})


class TestRun:
    def test_frames_and_keyframe(self, picture):
        clip = render(recipe(FAKE_SPEC, Keyframe(slot=2, source=ImageSource(path=picture))), FakeBackbone())
        assert clip.frames.shape == (19, 64, 64, 3)
        assert clip.frames.dtype == np.uint8
        assert (clip.num_frames, clip.path) == (19, None)
        assert np.abs(clip.frames[7:13].astype(int) - (220, 30, 60)).max() <= 1  # slot 2
        assert np.abs(clip.frames[0].astype(int) - (220, 30, 60)).max() > 5

    def test_clip_keyframe_lands_in_its_slots(self, tmp_path):
        """Slots of one colour each: slot 0 takes one frame of the clip, later slots six."""
        from pusa_app.media import ClipWriter

        source = tmp_path / "source.mp4"
        levels = np.repeat(np.array([40, 90, 140, 190], np.uint8), [1, 6, 6, 6])
        with ClipWriter(source, 64, 64, 12, quality=0) as writer:
            writer.write(np.broadcast_to(levels[:, None, None, None], (19, 64, 64, 3)).copy())
        for slot, start, expected in ((0, 0, (40, 90)), (2, 1, (90, 140))):
            keyframe = Keyframe(slot=slot, span=2, source=ClipSource(path=str(source), start=start))
            frames = render(recipe(FAKE_SPEC, keyframe, num_frames=31), FakeBackbone()).frames
            for offset, level in enumerate(expected):
                first = 0 if slot + offset == 0 else (slot + offset) * 6
                assert abs(int(frames[first].mean()) - level) <= 4

    def test_events_are_numbered_and_in_order(self):
        events = []
        render(recipe(FAKE_SPEC), FakeBackbone(), events.append)
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        progress = [event for event in events if isinstance(event, Progress)]
        assert list(dict.fromkeys(event.phase for event in progress)) == ["encoding", "sampling", "decoding"]
        sampling = [(event.step, event.steps) for event in progress if event.phase == "sampling"]
        assert sampling == [(0, 3), (1, 3), (2, 3), (3, 3)]
        assert all(a.seconds <= b.seconds for a, b in pairwise(progress))
        previews = [event for event in events if isinstance(event, Preview)]
        assert [event.step for event in previews] == [1, 3], "a fast model shows its first and its last step"
        picture = Image.open(io.BytesIO(previews[-1].image))
        assert picture.format == "JPEG"
        assert picture.size == (512, 128)  # four slots of a square clip

    def test_file_holds_frames_and_recipe(self, tmp_path):
        from pusa_app.media import check_clip, read_recipe_text

        made = recipe(FAKE_SPEC)
        events = []
        clip = render(made, FakeBackbone(), events.append, out=tmp_path / "clip.mp4")
        assert (clip.frames, clip.path) == (None, tmp_path / "clip.mp4")
        assert check_clip(clip.path).num_frames == 19
        assert Recipe.from_json(read_recipe_text(clip.path)) == made
        assert events[-1].phase == "writing"

    def test_failure_and_cancel_leave_no_file(self, tmp_path):
        out = tmp_path / "clip.mp4"
        with pytest.raises(RuntimeError):
            render(recipe(FAKE_SPEC), FakeBackbone(fail_at=2), out=out)
        # cancelled while the file is being written
        told = []
        with pytest.raises(RunCancelled):
            render(
                recipe(FAKE_SPEC),
                FakeBackbone(),
                told.append,
                out=out,
                cancelled=lambda: any(getattr(event, "phase", "") == "decoding" and event.step for event in told),
            )
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("calls", [0, 1, 2])
    def test_cancel_stops_within_a_step(self, calls):
        backbone = FakeBackbone()
        with pytest.raises(RunCancelled):
            render(recipe(FAKE_SPEC), backbone, cancelled=lambda: backbone.calls >= calls)
        assert backbone.calls == calls

    def test_impossible_recipes_are_refused(self, picture, tiny):
        too_far = Keyframe(slot=9, source=ImageSource(path=picture))
        with pytest.raises(RecipeError, match="slot 9"):
            render(recipe(FAKE_SPEC, too_far), FakeBackbone())
        odd = recipe(FAKE_SPEC.model_copy(update={"width": 56}))
        with pytest.raises(RecipeError, match="multiples of 16"):
            render(odd, FakeBackbone())
        other = recipe(FAKE_SPEC.model_copy(update={"temporal_stride": 4}), num_frames=17)
        with pytest.raises(RecipeError, match="6 frames per slot"):
            render(other, FakeBackbone())

    def test_numbers_out_of_range_are_no_video(self, tmp_path):
        class Broken(FakeBackbone):
            def velocity(self, z, sigma, texts):
                return [z * float("nan") for _ in texts]

        with pytest.raises(ModelError, match="out of range"):
            render(recipe(FAKE_SPEC), Broken(), out=tmp_path / "clip.mp4", state_path=tmp_path / "state")
        assert list(tmp_path.iterdir()) == []

    def test_interrupted_run_goes_on_to_the_same_frames(self, tmp_path, tiny, tiny_spec):
        state, made = tmp_path / "state.safetensors", recipe(tiny_spec, steps=4)
        whole = render(made, tiny).frames
        told = []
        with pytest.raises(RunCancelled):
            render(made, tiny, told.append, state_path=state, cancelled=lambda: len(told) > 6)
        assert state.exists()
        again = []
        resumed = render(made, tiny, again.append, state_path=state)
        assert np.array_equal(resumed.frames, whole)
        first = next(event for event in again if isinstance(event, Progress) and event.phase == "sampling")
        assert first.step > 0
        assert not state.exists()

    def test_state_of_another_recipe_or_a_damaged_one_is_not_used(self, tmp_path, tiny, tiny_spec):
        state, made = tmp_path / "state.safetensors", recipe(tiny_spec)
        with pytest.raises(RunCancelled):
            told = []
            render(made, tiny, told.append, state_path=state, cancelled=lambda: len(told) > 4)
        kept = state.read_bytes()
        other = made.model_copy(update={"seed": 8})
        expected = render(other, tiny).frames
        assert np.array_equal(render(other, tiny, state_path=state).frames, expected)
        state.write_bytes(kept[:50])
        assert np.array_equal(render(other, tiny, state_path=state).frames, expected)


class TestMochi:
    def test_same_recipe_same_frames(self, tiny_mochi, tiny_spec, tiny, picture):
        made = recipe(tiny_spec, Keyframe(slot=1, source=ImageSource(path=picture), noise=0.3))
        first = render(made, tiny).frames
        fresh = MochiBackbone.from_folder(tiny_mochi, tiny_spec)
        assert np.array_equal(render(Recipe.from_json(made.to_json()), fresh).frames, first)
        assert not np.array_equal(render(made.model_copy(update={"seed": 8}), tiny).frames, first)

    @pytest.mark.filterwarnings("ignore:In CPU autocast")
    @pytest.mark.parametrize("negative", ["", "blue square"])
    def test_plain_text_to_video_equals_the_diffusers_pipeline(self, tiny_mochi, tiny_spec, tiny, negative):
        from diffusers import MochiPipeline

        pipeline = MochiPipeline.from_pretrained(tiny_mochi)
        pipeline.set_progress_bar_config(disable=True)
        expected = pipeline(
            "a red ball",
            negative_prompt=negative,
            height=32,
            width=32,
            num_frames=19,
            num_inference_steps=3,
            guidance_scale=3.0,
            generator=torch.Generator().manual_seed(7),
            max_sequence_length=16,
            output_type="np",
        ).frames[0]
        frames = render(recipe(tiny_spec, negative_prompt=negative), tiny).frames
        assert np.abs(frames - expected * 255).max() <= 1

    def test_transformer_drops_into_the_diffusers_pipeline(self, tiny_mochi, tiny, tiny_spec):
        from diffusers import MochiPipeline

        pipeline = MochiPipeline.from_pretrained(tiny_mochi, transformer=tiny.transformer)
        pipeline.set_progress_bar_config(disable=True)
        options = {"num_inference_steps": 3, "guidance_scale": 3.0, "max_sequence_length": 16, "output_type": "np"}
        made = pipeline(
            "a red ball", height=32, width=32, num_frames=19, generator=torch.Generator().manual_seed(7), **options
        )
        assert np.abs(render(recipe(tiny_spec), tiny).frames - made.frames[0] * 255).max() <= 1

    @pytest.mark.parametrize("slots", [1, 2, 3])
    def test_chunked_decode_equals_whole_decode(self, tiny_mochi, tiny, slots):
        from diffusers import AutoencoderKLMochi

        stock = AutoencoderKLMochi.from_pretrained(tiny_mochi / "vae")
        latents = torch.randn(12, 5, 4, 6, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            whole = stock.decode(latents[None]).sample[0]
            chunks = list(decode_chunks(tiny.vae, latents, slots))
        assert len(chunks) == -(-5 // slots)
        torch.testing.assert_close(torch.cat(chunks, dim=1), whole, atol=2e-6, rtol=0)

    def test_clean_keyframe_is_kept_in_the_latents(self, tiny, tiny_spec, picture, monkeypatch):
        import pusa_app.render as module

        kept = []
        monkeypatch.setattr(tiny, "decode", lambda z: kept.append(z) or iter([np.zeros((19, 32, 32, 3), np.uint8)]))
        made = recipe(tiny_spec, Keyframe(slot=2, source=ImageSource(path=picture)))
        render(made, tiny)
        pixels = module.source_frames(made.timeline.keyframes[0], made.timeline)
        assert torch.equal(kept[0][:, 2], tiny.encode_frames(pixels)[:, 0])

    def test_latent_spaces(self, tiny_mochi, tiny, tiny_spec):
        raw = MochiBackbone.from_folder(tiny_mochi, tiny_spec.model_copy(update={"latent_space": "pusa_raw"}))
        frames = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
        config = tiny.vae.config
        mean, std = (torch.tensor(v).view(12, 1, 1, 1) for v in (config.latents_mean, config.latents_std))
        z_raw, z = raw.encode_frames(frames), tiny.encode_frames(frames)
        assert z.shape == (12, 2, 4, 4)
        torch.testing.assert_close(z * std + mean, z_raw)
        # both decode alike: the difference is what goes into z
        a, b = (np.concatenate(list(backbone.decode(z))) for backbone in (raw, tiny))
        assert np.array_equal(a, b)

    def test_half_precision_keeps_latents_in_fp32(self, tiny_mochi, tiny_spec):
        half = MochiBackbone.from_folder(tiny_mochi, tiny_spec, dtype=torch.bfloat16)
        assert {half.transformer.dtype, half.vae.dtype, half.text_encoder.dtype} == {torch.bfloat16}
        texts = [half.encode_text("a red ball"), half.encode_text("")]
        z = half.encode_frames(np.zeros((7, 32, 32, 3), np.uint8))
        v = half.velocity(z, torch.tensor([0.0, 1.0]), texts)
        assert {t.dtype for t in (z, *v)} == {torch.float32}
        assert next(half.decode(z)).dtype == np.uint8

    def test_the_smaller_memory_plan_gives_the_same_clip(self, tiny_mochi, tiny_spec, tiny, picture, monkeypatch):
        """Latents to 1e-4, pixels to one level: only the order of additions differs."""
        import pusa_app.backbones.mochi.backbone as module

        lean = MochiBackbone.from_folder(tiny_mochi, tiny_spec, lean=True)
        texts = [tiny.encode_text("a red ball"), tiny.encode_text("a blue square moves left")]
        z, sigma = torch.randn(12, 4, 4, 4), torch.tensor([0.0, 0.3, 0.7, 1.0])
        sizes, chunks = [], []
        forward, decode = lean.transformer.forward, module.decode_chunks

        def watch(x, *args, **kwargs):
            sizes.append(len(x))
            return forward(x, *args, **kwargs)

        def pieces(*args):
            for piece in decode(*args):
                chunks.append(piece.shape[1])
                yield piece

        monkeypatch.setattr(lean.transformer, "forward", watch)
        monkeypatch.setattr(module, "decode_chunks", pieces)
        for a, b in zip(lean.velocity(z, sigma, texts), tiny.velocity(z, sigma, texts), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
        assert sizes == [1, 1], "one text at a time"
        made = recipe(tiny_spec, Keyframe(slot=1, source=ImageSource(path=picture), noise=0.3), negative_prompt="blue")
        frames = render(made, lean).frames
        assert chunks == [1, 6, 6, 6], "one slot at a time"
        assert np.abs(frames.astype(int) - render(made, tiny).frames).max() <= 1

    def test_parts_of_a_model_take_turns_on_a_gpu(self):
        from pusa_app.backbones.parts import Turns

        moves: list[tuple[str, str]] = []

        class Part(torch.nn.Module):
            def __init__(self, name):
                super().__init__()
                self.name, self.place = name, "cpu"

            def to(self, device):
                if self.name == "vae" and str(device) == "meta" and broken:
                    raise RuntimeError("out of memory")
                if self.place != str(device):
                    moves.append((self.name, str(device)))
                self.place = str(device)
                return self

        broken = False
        text, transformer, vae = parts = [Part(name) for name in ("text", "transformer", "vae")]
        turns = Turns(parts, torch.device("meta"))
        for part in (text, transformer, transformer, vae):
            turns.take(part)
            assert [p.place for p in parts if p is not part] == ["cpu", "cpu"] and part.place == "meta"
        assert moves == [
            ("text", "meta"),
            ("text", "cpu"),
            ("transformer", "meta"),
            ("transformer", "cpu"),
            ("vae", "meta"),
        ]
        turns.take(text)
        broken = True
        with pytest.raises(RuntimeError):
            turns.take(vae)
        broken = False
        turns.take(text)
        assert text.place == "meta", "a move that failed leaves no wrong belief behind"

    def test_memory_that_runs_out_while_loading_is_not_a_damaged_file(self, tiny_mochi, tiny_spec, monkeypatch):
        import pusa_app.backbones.mochi.backbone as module

        def short(*args, **kwargs):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 20000000000 bytes")

        monkeypatch.setattr(module.T5EncoderModel, "from_pretrained", short)
        with pytest.raises(RuntimeError, match="allocate"):
            MochiBackbone.from_folder(tiny_mochi, tiny_spec)

    def test_loading_is_silent(self, tiny_mochi, tiny_spec, capfd):
        MochiBackbone.from_folder(tiny_mochi, tiny_spec)
        assert capfd.readouterr() == ("", "")

    def test_texts(self, tiny, tiny_spec):
        assert tiny.encode_text("").embeds.shape == (0, 32)
        assert tiny.encode_text("a red ball").embeds.shape == (4, 32)  # and the end of the text
        assert tiny.encode_text("red " * 100).embeds.shape == (tiny_spec.max_text_tokens, 32)

    @pytest.mark.parametrize("words", [("a red ball", ""), ("a red ball", "a blue ball"), ("", "")])
    def test_batched_and_separate_velocities_agree(self, tiny, monkeypatch, words):
        z, sigma = torch.randn(12, 4, 4, 4), torch.tensor([0.0, 0.3, 0.7, 1.0])
        texts = [tiny.encode_text(w) for w in words]
        batched = tiny.velocity(z, sigma, texts)
        monkeypatch.setattr("pusa_app.backbones.fit.SMALL_TOKENS", 0)
        for a, b in zip(batched, tiny.velocity(z, sigma, texts), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)

    def test_preview_map_is_found_and_used(self, tiny_mochi, tiny_spec, tmp_path):
        generator = torch.Generator().manual_seed(0)
        true = LatentPreview(torch.rand(12, 3, generator=generator) / 12, torch.full((3,), 0.1))
        latents = torch.rand(12, 3, 4, 4, generator=generator)
        pixels = torch.from_numpy(true(latents))  # (3 slots, 4, 4, 3)
        frames = pixels.repeat_interleave(8, 1).repeat_interleave(8, 2)
        frames = torch.cat((frames[:1], frames[1:].repeat_interleave(6, 0))).numpy()
        found = fit_preview(latents, frames)
        assert np.abs(found(latents).astype(int) - pixels.numpy()).max() <= 1
        folder = tmp_path / "model"
        shutil.copytree(tiny_mochi, folder)
        found.save(folder)
        backbone = MochiBackbone.from_folder(folder, tiny_spec)
        assert np.array_equal(backbone.preview(latents), found(latents))
        (folder / "preview.json").write_text('{"matrix": [[1]], "bias": []}')
        with pytest.raises(ModelError, match=r"preview\.json"):
            MochiBackbone.from_folder(folder, tiny_spec)


class TestModels:
    def test_a_folder_is_a_model(self, tiny_mochi):
        card = get_card(str(tiny_mochi))
        assert (card.id, card.folder) == (str(tiny_mochi), tiny_mochi)
        assert (card.spec.temporal_stride, card.spec.size_multiple, card.spec.max_text_tokens) == (6, 16, 16)
        assert load_backbone(card, device="cpu").spec == card.spec

    def test_card_in_the_folder_wins(self, tiny_mochi, tiny_spec, tmp_path):
        folder = tmp_path / "model"
        shutil.copytree(tiny_mochi, folder)
        data = {
            "title": "T",
            "summary": "S",
            "licence": "MIT",
            "spec": tiny_spec.model_dump(),
            "tasks": ["text-to-video"],
        }
        (folder / "card.json").write_text(json.dumps(data))
        assert get_card(str(folder)).spec == tiny_spec
        data["spec"]["fps"] = -1
        data["spec"]["steps"] = "many"
        (folder / "card.json").write_text(json.dumps(data))
        with pytest.raises(ModelError, match=r"card\.json is not a valid model card: spec\.fps"):
            get_card(str(folder))

    @pytest.mark.parametrize(
        "spec",
        [
            {"temporal_stride": 0},
            {"patch": 0},
            {"max_frames": 10**12},
            {"min_frames": 5, "max_frames": 5},
            {"fps": math.inf},
            {"width": -5},
            {"steps": 0},
            {"max_text_tokens": -1},
        ],
    )
    def test_a_card_that_no_model_can_have_is_refused(self, tiny_spec, spec):
        with pytest.raises(ValidationError):
            BackboneSpec.model_validate(tiny_spec.model_dump() | spec)

    @pytest.mark.parametrize("name", ["model_index.json", "card.json", "vae/config.json"])
    def test_configs_that_are_nested_without_end_are_refused(self, tiny_mochi, tmp_path, name):
        folder = tmp_path / "model"
        shutil.copytree(tiny_mochi, folder)
        (folder / name).write_text("[" * 100_000)
        with pytest.raises(ModelError, match="damaged"):
            get_card(str(folder))

    def test_code_in_a_folder_is_not_even_asked_about(self, tiny_mochi, tiny_spec, tmp_path, monkeypatch):
        monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
        folder = tmp_path / "model"
        shutil.copytree(tiny_mochi, folder)
        path = folder / "tokenizer" / "tokenizer_config.json"
        own = {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}
        path.write_text(json.dumps(json.loads(path.read_text()) | own))
        with pytest.raises(ModelError, match="custom code"):
            MochiBackbone.from_folder(folder, tiny_spec)

    @pytest.mark.parametrize("name", ["nothing", "\0", "x" * 5000])
    def test_unknown_model(self, name):
        with pytest.raises(ModelError, match="choose mini") as caught:
            get_card(name)
        assert "\n" not in str(caught.value)

    def test_folder_without_a_model(self, tmp_path):
        with pytest.raises(ModelError, match="not a diffusers model folder"):
            get_card(str(tmp_path))

    def test_mini_that_is_not_there(self, tmp_path, monkeypatch):
        from pusa_app.models import catalogue

        monkeypatch.setattr(catalogue, "ROOT", tmp_path)
        assert list_cards() == []
        (tmp_path / "assets" / "mini").mkdir(parents=True)
        assert list_cards() == []
        (tmp_path / "assets" / "mini").rmdir()
        with pytest.raises(ModelError, match="pusa_app train mini"):
            get_card("mini")

    @pytest.mark.parametrize(
        "damage",
        [
            "truncate transformer/diffusion_pytorch_model.safetensors",
            "truncate vae/diffusion_pytorch_model.safetensors",
            "truncate text_encoder/model.safetensors",
            "truncate tokenizer/tokenizer.json",
            "truncate transformer/config.json",
            "remove transformer/diffusion_pytorch_model.safetensors",
            "remove text_encoder/model.safetensors",
            "remove vae/config.json",
            "remove tokenizer/tokenizer.json",
            "empty vae/diffusion_pytorch_model.safetensors",
            "drop transformer/diffusion_pytorch_model.safetensors",
            "drop vae/diffusion_pytorch_model.safetensors",
            "drop text_encoder/model.safetensors",
            "reshape transformer/diffusion_pytorch_model.safetensors",
        ],
    )
    def test_damaged_folders_say_so_in_one_line(self, tiny_mochi, tiny_spec, tmp_path, damage, capfd):
        from safetensors.torch import load_file, save_file

        folder = tmp_path / "model"
        shutil.copytree(tiny_mochi, folder)
        verb, name = damage.split()
        path = folder / name
        if verb == "truncate":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif verb == "empty":
            path.write_bytes(b"")
        elif verb == "remove":
            path.unlink()
        else:
            tensors = load_file(path)
            last = sorted(tensors)[-1]
            tensor = tensors.pop(last)
            if verb == "reshape":
                tensors[last] = torch.zeros(3, *tensor.shape)
            save_file(tensors, path, metadata={"format": "pt"})
        with pytest.raises(ModelError) as caught:
            MochiBackbone.from_folder(folder, tiny_spec)
        assert "\n" not in str(caught.value)
        assert name.split("/")[0] in str(caught.value)
        assert capfd.readouterr() == ("", ""), "the exception says it all"

    def test_a_card_that_does_not_fit_is_refused(self, tiny_mochi, tiny_spec):
        with pytest.raises(ModelError, match="temporal_stride is 4, not 6"):
            MochiBackbone.from_folder(tiny_mochi, tiny_spec.model_copy(update={"temporal_stride": 4}))

    def test_pickled_weights_are_never_opened(self, tiny_mochi, tiny_spec, tmp_path):
        from safetensors.torch import load_file

        folder = tmp_path / "model"
        shutil.copytree(tiny_mochi, folder)
        path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
        torch.save(load_file(path), path.with_suffix(".bin"))
        path.unlink()
        with pytest.raises(ModelError):
            MochiBackbone.from_folder(folder, tiny_spec)

    def test_importing_the_room_leaves_torch_alone(self):
        import subprocess
        import sys

        code = "import sys, pusa_app.models; assert 'torch' not in sys.modules and 'diffusers' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("lengths", "low", "high"), [([1], 0, 0), ([1, 6, 6], 5, 7), ([1] * 37, 16, 20), ([50] * 9, 209, 241)]
)
def test_a_frame_from_the_middle_is_at_hand(lengths, low, high):
    from pusa_app.render import _Middle

    middle, at = _Middle(), 0
    for length in lengths:
        middle.see(np.arange(at, at + length, dtype=np.int32)[:, None, None, None] * np.ones((1, 2, 2, 3), np.int32))
        at += length
    assert low <= middle.frame[0, 0, 0] <= high
    assert _Middle().frame is None
