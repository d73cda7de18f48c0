"""Models loaded by a memory plan: what the CPU can do gives the same clip, or nearly, and frees what it should."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

from pusa_app.backbones.base import Text
from pusa_app.backbones.embeddings import Embeddings
from pusa_app.backbones.fit import Fit, stack_of
from pusa_app.backbones.mochi import MochiBackbone
from pusa_app.backbones.tiles import decode_tiled
from pusa_app.models import load_backbone
from pusa_app.models.plan_types import MemoryPlan

PROMPT = "a red ball moves left"


def plan(**choices: Any) -> MemoryPlan:
    return MemoryPlan.model_validate({"dtype": "fp32", "text": "resident", "batched": False, **choices})


@pytest.fixture(scope="module")
def usual(tiny_mochi: Path, tiny_spec: Any) -> MochiBackbone:
    return MochiBackbone.from_folder(tiny_mochi, tiny_spec)


def step(backbone: Any) -> torch.Tensor:
    z = torch.randn(12, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    texts = [backbone.encode_text(PROMPT), backbone.encode_text("")]
    return torch.stack(backbone.velocity(z, torch.tensor([0.0, 0.3, 0.7, 1.0]), texts))


class TestPlans:
    @pytest.mark.parametrize(
        "choices",
        [
            {},
            {"batched": True},
            {"text": "cpu"},
            {"text": "load"},
            {"text": "stream"},
            {"offload": "model", "text": "turns"},
            {"offload": "group", "text": "cpu"},
            {"offload": "disk", "text": "cpu"},
        ],
    )
    def test_the_result_is_the_same(
        self, tiny_mochi: Path, tiny_spec: Any, usual: MochiBackbone, choices: dict[str, Any]
    ) -> None:
        fitted = MochiBackbone.from_folder(tiny_mochi, tiny_spec, plan=plan(**choices))
        for _ in range(2):  # blocks come again
            torch.testing.assert_close(step(fitted), step(usual), atol=1e-5, rtol=1e-5)
        frames = np.zeros((7, 32, 32, 3), np.uint8)
        z = fitted.encode_frames(frames)
        torch.testing.assert_close(z, usual.encode_frames(frames), atol=1e-5, rtol=1e-5)
        pixels = [np.concatenate(list(backbone.decode(z))).astype(int) for backbone in (fitted, usual)]
        assert np.abs(pixels[0] - pixels[1]).max() <= 1

    def test_the_blocks_of_every_text_encoder_are_found(self) -> None:
        """diffusers takes an encoder in whose children it finds no list of blocks for one single block."""
        small = {"vocab_size": 8, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 3, "num_heads": 2}
        for encoder in (T5EncoderModel(T5Config(**small)), UMT5EncoderModel(UMT5Config(**small))):
            lists = [part for part in stack_of(encoder).children() if isinstance(part, torch.nn.ModuleList)]
            assert [len(part) for part in lists] == [3]
            held = sum(p.numel() for p in stack_of(encoder).parameters())
            assert held == sum(p.numel() for p in encoder.parameters()), "nothing is left outside"

    def test_blocks_on_the_disk_leave_memory_and_the_disk(
        self, tiny_mochi: Path, tiny_spec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PUSA_DATA_DIR", str(tmp_path))
        left_behind = tmp_path / "offload" / "999999999-old"
        left_behind.mkdir(parents=True)
        fitted = MochiBackbone.from_folder(tiny_mochi, tiny_spec, plan=plan(offload="disk"))
        step(fitted)
        (folder,) = (tmp_path / "offload").iterdir()
        assert folder != left_behind and len(list(folder.glob("*.safetensors"))) >= 2
        fitted.fit.close()
        assert not folder.exists()

    def test_fp8_stores_in_fp8_and_computes_nearly_the_same(
        self, tiny_mochi: Path, tiny_spec: Any, usual: MochiBackbone
    ) -> None:
        fitted = MochiBackbone.from_folder(tiny_mochi, tiny_spec, plan=plan(quantization="fp8-layerwise"))
        weights = {p.dtype for p in fitted.transformer.transformer_blocks[0].ff.parameters()}
        assert weights == {torch.float8_e4m3fn}
        exact, found = step(usual), step(fitted)
        error = (found - exact).norm() / exact.norm()
        assert 0 < error < 0.1
        assert {p.dtype for p in fitted.transformer.transformer_blocks[0].ff.parameters()} == weights

    def test_int8_of_torchao(self, tiny_mochi: Path, tiny_spec: Any, usual: MochiBackbone) -> None:
        pytest.importorskip("torchao")
        fitted = MochiBackbone.from_folder(tiny_mochi, tiny_spec, plan=plan(quantization="int8"))
        layer = fitted.transformer.transformer_blocks[0].ff.net[2].weight
        assert type(layer) is not torch.nn.Parameter, "torchao does nothing, silently, for some layers"
        exact = step(usual)
        assert (step(fitted) - exact).norm() / exact.norm() < 0.1

    def test_dtype(self, tiny_mochi: Path, tiny_spec: Any) -> None:
        fitted = MochiBackbone.from_folder(tiny_mochi, tiny_spec, plan=plan(dtype="bf16", text="cpu"))
        assert {fitted.transformer.dtype, fitted.vae.dtype, fitted.encode_text(PROMPT).embeds.dtype} == {torch.bfloat16}

    def test_slots_and_tiles_follow_the_plan_of_the_moment(
        self, tiny_mochi: Path, tiny_spec: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import pusa_app.backbones.mochi.backbone as module

        fitted = MochiBackbone.from_folder(tiny_mochi, tiny_spec, plan=plan(decode_slots=2))
        asked: list[tuple[int, tuple[int, ...]]] = []
        decode = module.decode_chunks

        def watch(vae: Any, latents: torch.Tensor, slots: int) -> Any:
            asked.append((slots, tuple(latents.shape[-2:])))
            return decode(vae, latents, slots)

        monkeypatch.setattr(module, "decode_chunks", watch)
        z = torch.zeros(12, 2, 4, 12)
        whole = np.concatenate(list(fitted.decode(z)))
        fitted.fit.plan = plan(decode_slots=1, decode_tile=64)
        tiled = np.concatenate(list(fitted.decode(z)))
        assert asked == [(2, (4, 12)), (1, (4, 8)), (1, (4, 8))]
        assert tiled.shape == whole.shape == (7, 32, 96, 3)

    def test_tiles_are_for_one_encoding_only(self, tiny_mochi: Path, tiny_spec: Any) -> None:
        fitted = MochiBackbone.from_folder(tiny_mochi, tiny_spec, plan=plan(encode_tile=64))
        frames = np.random.default_rng(0).integers(0, 256, (7, 96, 96, 3), dtype=np.uint8)
        z = fitted.encode_frames(frames)
        assert not fitted.vae.use_tiling and z.shape == (12, 2, 12, 12)
        fitted.fit.plan = plan()
        assert not torch.allclose(z, fitted.encode_frames(frames))

    def test_without_a_gpu_nothing_takes_turns(self, tiny_mochi: Path, tiny_spec: Any) -> None:
        fit = Fit(plan(offload="model", text="turns"), torch.device("meta"))
        parts = [torch.nn.Linear(1, 1) for _ in range(3)]
        fit.place(parts[0], [parts[1]], parts[2])
        fit.need(parts[1])
        assert [part.weight.device.type for part in parts] == ["cpu", "meta", "cpu"]


class TestLoras:
    @pytest.fixture
    def lora(self, tmp_path: Path) -> Any:
        from safetensors.torch import save_file

        from pusa_app.timeline import LoraChoice

        generator = torch.Generator().manual_seed(0)
        name = "transformer_blocks.0.attn1.to_q"
        a, b = (torch.randn(shape, generator=generator) for shape in ((4, 32), (32, 4)))
        save_file({f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}, tmp_path / "one.safetensors")
        return LoraChoice(path=str(tmp_path / "one.safetensors"))

    @pytest.mark.parametrize("offload", ["group", "disk"])
    def test_on_offloaded_blocks(self, tiny_mochi: Path, tiny_spec: Any, lora: Any, offload: str) -> None:
        plain, fitted = (
            MochiBackbone.from_folder(tiny_mochi, tiny_spec, plan=plan(**more)) for more in ({}, {"offload": offload})
        )
        without = step(plain)
        for backbone in (plain, fitted):
            backbone.set_loras([lora])
        changed = step(plain)
        torch.testing.assert_close(step(fitted), changed, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(changed, without)
        fitted.set_loras([lora])  # nothing changes, so nothing is refused
        if offload == "group":
            fitted.set_loras([])
            torch.testing.assert_close(step(fitted), without, atol=1e-5, rtol=1e-5)
        else:
            from pusa_app.errors import ModelError

            with pytest.raises(ModelError, match="loaded again"):
                fitted.set_loras([])


class TestEmbeddings:
    def test_a_known_prompt_needs_no_encoder(
        self, tiny_mochi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PUSA_DATA_DIR", str(tmp_path))
        loads: list[Path] = []
        load = Fit._load_text

        def watch(self: Fit, cls: Any, folder: Path) -> Any:
            loads.append(folder)
            return load(self, cls, folder)

        monkeypatch.setattr(Fit, "_load_text", watch)
        first = load_backbone(str(tiny_mochi), "cpu", plan=plan(text="cpu"))
        assert first.text_encoder is None and not loads
        one = first.encode_text(PROMPT).embeds
        assert len(loads) == 1
        assert first.encode_text("").embeds.shape[0] == 0 and len(loads) == 1, "the empty prompt is no token at all"
        again = load_backbone(str(tiny_mochi), "cpu", plan=plan(text="cpu"))
        assert torch.equal(again.encode_text(PROMPT).embeds, one) and len(loads) == 1
        again.encode_text("a blue ball")
        assert len(loads) == 2
        # In another precision it is another encoding.
        half = load_backbone(str(tiny_mochi), "cpu", plan=plan(text="cpu", dtype="bf16"))
        assert half.encode_text(PROMPT).embeds.dtype == torch.bfloat16 and len(loads) == 3

    def test_an_encoder_that_stays_leaves_no_files(
        self, tiny_mochi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PUSA_DATA_DIR", str(tmp_path))
        load_backbone(str(tiny_mochi), "cpu", plan=plan()).encode_text(PROMPT)
        assert not (tmp_path / "embeddings").exists()

    def test_the_text_is_not_written_down(self, tmp_path: Path) -> None:
        Embeddings(tmp_path, "v").put(PROMPT, Text(torch.ones(3, 4)))
        (file,) = tmp_path.iterdir()
        assert b"red" not in file.read_bytes() and "red" not in file.name

    def test_the_oldest_go_when_there_are_too_many(self, tmp_path: Path) -> None:
        kept = Embeddings(tmp_path, "v", max_bytes=10_000)
        for number in range(8):
            kept.put(str(number), Text(torch.zeros(10, 64)))  # 2,560 bytes each
            for age, file in enumerate(sorted(tmp_path.iterdir(), key=lambda p: p.stat().st_mtime_ns, reverse=True)):
                os.utime(file, (1e9 - age, 1e9 - age))
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 10_000
        assert [number for number in range(8) if kept.knows(str(number))] == [5, 6, 7]

    def test_damage_and_refusing_disks_are_nothing_known(self, tmp_path: Path) -> None:
        kept = Embeddings(tmp_path, "v")
        kept.put("a", Text(torch.ones(2, 3)))
        (file,) = tmp_path.iterdir()
        file.write_bytes(file.read_bytes()[:20])
        assert kept.get("a") is None and not kept.knows("a")
        (tmp_path / "file").write_text("")
        blocked = Embeddings(tmp_path / "file", "v")
        blocked.put("a", Text(torch.ones(2, 3)))
        assert blocked.get("a") is None


class TestTiles:
    @pytest.mark.parametrize("size", [(8, 8), (12, 20), (17, 31)])
    def test_what_is_local_is_the_same_in_tiles(self, size: tuple[int, int]) -> None:
        latents = torch.rand(3, 2, *size)

        def decode(part: torch.Tensor) -> Any:
            frames = part.repeat_interleave(8, dim=-1).repeat_interleave(8, dim=-2)
            return iter(frames.split(1, dim=1))

        tiled = torch.cat(list(decode_tiled(decode, latents, 64, 8)), dim=1)
        whole = torch.cat(list(decode(latents)), dim=1)
        torch.testing.assert_close(tiled.float(), whole, atol=2e-3, rtol=0)

    def test_a_tile_fades_into_the_next(self) -> None:
        seen: list[float] = []

        def decode(part: torch.Tensor) -> Any:
            seen.append(len(seen))
            return iter([torch.full((3, 1, 64, 64), seen[-1])])

        row = next(decode_tiled(decode, torch.zeros(1, 1, 8, 14), 64, 8))[0, 0, 0].float()
        assert row[0] == 0 and row[-1] == 1 and (row.diff() >= -1e-3).all()
        assert ((row > 0.05) & (row < 0.95)).sum() >= 8, "over the whole overlap"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "choices",
    [
        {"offload": "group", "streams": True, "text": "stream"},
        {"offload": "disk", "streams": True, "text": "load"},
        {"offload": "model", "text": "turns"},
        {"quantization": "nf4", "text": "load", "dtype": "bf16"},
        {"attention": "cudnn", "dtype": "bf16"},
    ],
)
def test_what_only_a_gpu_can_do(tiny_mochi: Path, tiny_spec: Any, choices: dict[str, Any]) -> None:
    fitted = MochiBackbone.from_folder(tiny_mochi, tiny_spec, "cuda", plan=plan(**choices))
    exact = step(MochiBackbone.from_folder(tiny_mochi, tiny_spec, "cpu"))
    for _ in range(2):
        error = (step(fitted).cpu() - exact).norm() / exact.norm()
        assert error < (0.3 if "quantization" in choices else 0.05)


@pytest.mark.parametrize("kind", ["ltx", "hunyuan"])
def test_the_other_families_are_loaded_by_plans_too(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.conftest import WORDS
    from tests.hunyuan import build_tiny_hunyuan
    from tests.ltx import build_tiny_ltx

    monkeypatch.setenv("PUSA_DATA_DIR", str(tmp_path / "data"))
    folder = tmp_path / kind
    (build_tiny_ltx if kind == "ltx" else build_tiny_hunyuan)(folder, WORDS)
    # Measuring it three times would take longer than all the rest.
    (folder / "preview.json").write_text(json.dumps({"matrix": [[0.1] * 3] * 16, "bias": [0.5] * 3}))
    usual, fitted, stored = (
        load_backbone(str(folder), "cpu", plan=plan(**more))
        for more in (
            {},
            {"offload": "group", "text": "cpu", "decode_tile": 64, "encode_tile": 64},
            {"quantization": "fp8-layerwise"},
        )
    )
    z = torch.randn(16, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    velocities = [
        torch.stack(b.velocity(z, torch.tensor([0.2, 1.0]), [b.encode_text(PROMPT)])) for b in (usual, fitted, stored)
    ]
    torch.testing.assert_close(velocities[1], velocities[0], atol=1e-5, rtol=1e-5)
    assert 0 < (velocities[2] - velocities[0]).norm() / velocities[0].norm() < 0.2
    frames, side = usual.spec.temporal_stride + 1, 4 * usual.spec.spatial_stride
    tiled, whole = (np.concatenate(list(b.decode(z))) for b in (fitted, usual))
    assert tiled.shape == whole.shape == (frames, side, side, 3)
    clip = np.random.default_rng(0).integers(0, 256, (frames, side, side, 3), dtype=np.uint8)
    assert fitted.encode_frames(clip).shape == usual.encode_frames(clip).shape == z.shape
    assert fitted.text_encoder is None and fitted.has_text(PROMPT) and not fitted.has_text("a blue ball")


@pytest.mark.parametrize("kind", ["wan2.1", "wan2.2"])
def test_the_wan_family_is_loaded_by_plans_too(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.conftest import WORDS
    from tests.wan import build_tiny_wan

    monkeypatch.setenv("PUSA_DATA_DIR", str(tmp_path / "data"))
    build_tiny_wan(tmp_path / kind, kind, WORDS)
    usual, fitted = (
        load_backbone(str(tmp_path / kind), "cpu", plan=plan(**more))
        for more in ({}, {"offload": "group", "text": "cpu", "decode_tile": 64})
    )
    z = torch.randn(16, 2, 12, 12, generator=torch.Generator().manual_seed(1))
    for level in (1.0, 0.5):  # each of two experts
        found, exact = (
            torch.stack(b.velocity(z, torch.tensor([0.2, level]), [b.encode_text(PROMPT)], level=level))
            for b in (fitted, usual)
        )
        torch.testing.assert_close(found, exact, atol=1e-5, rtol=1e-5)
    tiled, whole = (np.concatenate(list(b.decode(z))) for b in (fitted, usual))
    assert tiled.shape == whole.shape == (5, 96, 96, 3)
    assert fitted.text_encoder is None and fitted.has_text(PROMPT) and not fitted.has_text("a blue ball")
