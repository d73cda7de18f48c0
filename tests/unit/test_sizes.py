"""The formulas of models/sizes.py, against published figures and against the allocations of the models themselves."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pusa_app.models.sizes import (
    HUNYUAN,
    LTX_2B,
    MOCHI,
    T5_XXL,
    UMT5_XXL,
    VAES,
    WAN_5B,
    WAN_14B,
    architecture_of,
)


def tokens(width: int, height: int, slots: int, side: int = 16) -> int:
    return slots * (width // side) * (height // side)


class TestPublishedFigures:
    @pytest.mark.parametrize(
        ("model", "billions"), [(MOCHI, 10.03), (WAN_14B, 14.29), (WAN_5B, 5.0), (LTX_2B, 1.92), (HUNYUAN, 12.82)]
    )
    def test_parameters(self, model: Any, billions: float) -> None:
        assert model.params / 1e9 == pytest.approx(billions, rel=0.03)

    @pytest.mark.parametrize(
        ("what", "bf16", "int8", "nf4", "layerwise"),
        [
            (MOCHI.weights, 20.1, 10.0, 5.6, 12.8),
            (WAN_14B.weights, 28.6, 14.3, 8.0, 14.5),
            (T5_XXL.bytes, 9.5, 5.9, 4.3, 4.9),
            (UMT5_XXL.bytes, 11.4, 7.7, 6.2, 6.7),
        ],
    )
    def test_weights_in_gigabytes(
        self, what: Callable[[str], float], bf16: float, int8: float, nf4: float, layerwise: float
    ) -> None:
        found = {q: what(q) / 1e9 for q in ("none", "int8", "nf4", "fp8-layerwise")}
        assert found == pytest.approx({"none": bf16, "int8": int8, "nf4": nf4, "fp8-layerwise": layerwise}, abs=0.1)

    @pytest.mark.parametrize(
        ("model", "size", "slots", "petaflops"),
        [
            (MOCHI, (848, 480), 28, 1.67),
            (MOCHI, (848, 480), 15, 0.60),
            (WAN_14B, (832, 480), 21, 1.68),
            (WAN_14B, (1280, 720), 21, 6.52),
        ],
    )
    def test_operations_of_a_forward(self, model: Any, size: tuple[int, int], slots: int, petaflops: float) -> None:
        assert model.ops(tokens(*size, slots)) / 1e15 == pytest.approx(petaflops, abs=0.005)

    @pytest.mark.parametrize(
        ("model", "size", "slots", "least", "most"),
        [
            (MOCHI, (848, 480), 28, 3.5, 4.6),
            (MOCHI, (848, 480), 15, 1.9, 2.5),
            (WAN_14B, (832, 480), 21, 3.8, 4.2),
            (WAN_14B, (1280, 720), 21, 9.2, 9.8),
        ],
    )
    def test_activations_in_gigabytes(
        self, model: Any, size: tuple[int, int], slots: int, least: float, most: float
    ) -> None:
        assert least <= model.activations(tokens(*size, slots)) / 1e9 <= most

    def test_a_wan_lora_of_rank_512_is_told(self) -> None:
        from dataclasses import replace

        for model in (WAN_14B, HUNYUAN):
            assert replace(model, lora_bytes=4.9e9).weights() - model.weights() == pytest.approx(4.9e9)


def test_a_folder_of_another_size_is_read_from_its_configs(tiny_mochi: Path, tiny_spec: Any) -> None:
    from safetensors.torch import load_file

    found = architecture_of(tiny_spec, tiny_mochi)

    def count(part: str) -> int:
        files = list((tiny_mochi / part).glob("*.safetensors"))
        return sum(tensor.numel() for path in files for tensor in load_file(path).values())

    assert found.layers == 2 and found.width == 32
    assert found.params == pytest.approx(count("transformer"), rel=0.15)
    assert found.encoder.params == pytest.approx(count("text_encoder"), rel=0.1)
    assert found.vae.params == pytest.approx(count("vae"), rel=0.1)


def test_folders_of_the_other_families_are_read_from_their_configs(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from pusa_app.models import get_card
    from tests.conftest import WORDS
    from tests.hunyuan import build_tiny_hunyuan
    from tests.ltx import build_tiny_ltx

    for name, build in (("hunyuan", build_tiny_hunyuan), ("ltx", build_tiny_ltx)):
        build(tmp_path / name, WORDS)
        found = architecture_of(get_card(str(tmp_path / name)).spec, tmp_path / name)
        counts = {
            part: sum(t.numel() for t in load_file(next((tmp_path / name / part).glob("*.safetensors"))).values())
            for part in ("transformer", "text_encoder")
        }
        assert found.params == pytest.approx(counts["transformer"], rel=0.35)  # tiny ones are mostly what is outside
        assert counts["text_encoder"] / 2 < found.encoder.params < 1.1 * counts["text_encoder"]


class TestAllocations:
    """The models at full width on the meta device, where nothing is computed: what is alive at the worst moment."""

    @pytest.mark.parametrize("slots", [15, 28])
    @pytest.mark.parametrize("batch", [1, 2])
    def test_mochi(self, slots: int, batch: int) -> None:
        import torch

        from pusa_app.backbones.mochi import VectorizedMochiTransformer3DModel

        with torch.device("meta"):
            model = VectorizedMochiTransformer3DModel(num_layers=2).to(torch.bfloat16).eval()
            z = torch.empty(batch, 12, slots, 60, 106, dtype=torch.bfloat16)
            text = torch.empty(batch, 256, 4096, dtype=torch.bfloat16)
            time = torch.empty(batch, slots)
            peak = peak_of(lambda: model(z, text, time, return_dict=False), model)
        assert MOCHI.activations(tokens(848, 480, slots), batch) == pytest.approx(peak, rel=0.03)

    @pytest.mark.parametrize(
        ("known", "more"),
        [
            (WAN_14B, {}),
            (WAN_5B, {"num_attention_heads": 24, "ffn_dim": 14336, "in_channels": 48, "out_channels": 48}),
        ],
    )
    def test_wan(self, known: Any, more: dict[str, int]) -> None:
        import torch

        from pusa_app.backbones.wan import VectorizedWanTransformer3DModel

        with torch.device("meta"):
            model = VectorizedWanTransformer3DModel(num_layers=2, **more).to(torch.bfloat16).eval()
            z = torch.empty(1, more.get("in_channels", 16), 21, 60, 104, dtype=torch.bfloat16)
            text = torch.empty(1, 512, 4096, dtype=torch.bfloat16)
            peak = peak_of(lambda: model(z, torch.empty(1, 21), text, return_dict=False), model)
        assert known.activations(tokens(832, 480, 21)) == pytest.approx(peak, rel=0.03)

    @pytest.mark.parametrize(("slots", "batch"), [(33, 1), (9, 2)])
    def test_hunyuan(self, slots: int, batch: int) -> None:
        import torch

        from pusa_app.backbones.hunyuan import VectorizedHunyuanVideoTransformer3DModel

        with torch.device("meta"):
            model = VectorizedHunyuanVideoTransformer3DModel(num_layers=2, num_single_layers=2)
            model = model.to(torch.bfloat16).eval()
            z, text, pooled = (
                torch.empty(batch, *shape, dtype=torch.bfloat16)
                for shape in ((16, slots, 90, 160), (256, 4096), (768,))
            )
            time, guidance = torch.empty(batch, slots), torch.empty(batch)
            peak = peak_of(lambda: model(z, time, text, None, pooled, guidance, return_dict=False), model)
        assert HUNYUAN.activations(tokens(1280, 720, slots), batch) == pytest.approx(peak, rel=0.03)

    def test_hunyuan_weights(self) -> None:
        import torch

        from pusa_app.backbones.hunyuan import VectorizedHunyuanVideoTransformer3DModel

        with torch.device("meta"):
            model = VectorizedHunyuanVideoTransformer3DModel()
        blocks = (*model.transformer_blocks, *model.single_transformer_blocks)
        assert HUNYUAN.layers == len(blocks)
        counted = [sum(p.numel() for p in block.parameters()) for block in blocks]
        assert HUNYUAN.block_params == pytest.approx(sum(counted) / 60, rel=0.001)
        assert HUNYUAN.params == pytest.approx(sum(p.numel() for p in model.parameters()), rel=0.001)
        assert HUNYUAN.block_bytes() == pytest.approx(2 * max(counted), rel=0.001), "blocks of two streams are larger"
        assert HUNYUAN.weights() == pytest.approx(2 * sum(p.numel() for p in model.parameters()), rel=0.001)

    @pytest.mark.parametrize("batch", [1, 2])
    def test_ltx(self, batch: int) -> None:
        import torch

        from pusa_app.backbones.ltx import VectorizedLTXVideoTransformer3DModel

        count = tokens(704, 512, 21, 32)
        with torch.device("meta"):
            model = VectorizedLTXVideoTransformer3DModel(num_layers=2).to(torch.bfloat16).eval()
            x = torch.empty(batch, count, 128, dtype=torch.bfloat16)
            text, places = torch.empty(batch, 256, 4096, dtype=torch.bfloat16), torch.empty(batch, 3, count)
            call = functools.partial(model, x, text, torch.empty(batch, 21), video_coords=places, return_dict=False)
            peak = peak_of(call, model)
        assert LTX_2B.activations(count, batch) == pytest.approx(peak, rel=0.03)

    def test_hunyuan_vae(self) -> None:
        import torch
        from diffusers import AutoencoderKLHunyuanVideo

        from pusa_app.backbones.hunyuan import decode_windows, enable_streaming

        with torch.device("meta"):
            vae = AutoencoderKLHunyuanVideo().to(torch.bfloat16).eval()
            enable_streaming(vae)
            z = torch.empty(16, 9, 32, 32, dtype=torch.bfloat16)
            decoded = peak_of(lambda: drain(decode_windows(vae, z)), vae)
            clip, picture = (
                peak_of(functools.partial(encoded_of, vae, torch.empty(1, 3, n, 256, 256, dtype=torch.bfloat16)), vae)
                for n in (33, 1)
            )
        known = VAES["hunyuan"]
        assert known.decode_bytes(256 * 256, 33) == pytest.approx(decoded, rel=0.03)
        assert known.encode_bytes(256 * 256, 33) == pytest.approx(clip, rel=0.03)
        assert known.encode_bytes(256 * 256, 1) == pytest.approx(picture, rel=0.03)
        assert known.params == pytest.approx(sum(p.numel() for p in vae.parameters()), rel=0.01)

    def test_ltx_vae(self) -> None:
        import torch
        from diffusers import AutoencoderKLLTXVideo

        from tests.ltx import VAES as SHAPES

        published = {
            "block_out_channels": (128, 256, 512, 1024, 2048),
            "decoder_block_out_channels": (256, 512, 1024),
            "layers_per_block": (4, 6, 6, 2, 2),
            "decoder_layers_per_block": (5, 5, 5, 5),
        }
        with torch.device("meta"):
            vae = AutoencoderKLLTXVideo(**{**SHAPES["0.9.5"], **published}).to(torch.bfloat16).eval()
            z, time = torch.empty(1, 128, 5, 8, 8, dtype=torch.bfloat16), torch.empty(1, dtype=torch.bfloat16)
            decoded = peak_of(lambda: vae.decode(z, time).sample, vae)
            encoded = peak_of(lambda: encoded_of(vae, torch.empty(1, 3, 33, 256, 256, dtype=torch.bfloat16)), vae)
        known = VAES["ltx"]
        assert known.decode_bytes(256 * 256, 33) == pytest.approx(decoded, rel=0.03)
        assert known.encode_bytes(256 * 256, 33) == pytest.approx(encoded, rel=0.03)
        assert known.params == pytest.approx(sum(p.numel() for p in vae.parameters()), rel=0.01)

    @pytest.mark.parametrize("slots", [1, 2])
    def test_mochi_vae(self, slots: int) -> None:
        import torch
        from diffusers import AutoencoderKLMochi

        from pusa_app.backbones.mochi.decoder import decode_chunks, enable_streaming

        with torch.device("meta"):
            vae = AutoencoderKLMochi().to(torch.bfloat16).eval()
            enable_streaming(vae)
            z = torch.empty(12, 6, 32, 32, dtype=torch.bfloat16)
            decoded = peak_of(lambda: drain(decode_chunks(vae, z, slots)), vae)
            x = torch.empty(1, 3, 19, 256, 256, dtype=torch.bfloat16)
            encoded = peak_of(lambda: encoded_of(vae, x), vae)
        known = VAES["mochi"]
        assert known.decode_bytes(256 * 256, 163, slots) == pytest.approx(decoded, rel=0.03)
        assert known.encode_bytes(256 * 256, 19) == pytest.approx(encoded, rel=0.05)
        assert known.params == pytest.approx(sum(p.numel() for p in vae.parameters()), rel=0.01)

    def test_wan_vae(self) -> None:
        import torch
        from diffusers import AutoencoderKLWan

        from pusa_app.backbones.wan.decoder import decode_slots

        with torch.device("meta"):
            vae = AutoencoderKLWan().eval()
            decoded = peak_of(lambda: drain(decode_slots(vae, torch.empty(16, 3, 32, 32))), vae)
            x = torch.empty(1, 3, 13, 256, 256)
            encoded = peak_of(lambda: encoded_of(vae, x), vae)
        assert VAES["wan"].decode_bytes(256 * 256, 81) == pytest.approx(decoded, rel=0.03)
        assert VAES["wan"].encode_bytes(256 * 256, 13) == pytest.approx(encoded, rel=0.03)


def encoded_of(vae: Any, x: Any) -> Any:
    return vae.encode(x).latent_dist.mode()


def drain(chunks: Any) -> None:
    for chunk in chunks:
        del chunk


def peak_of(call: Callable[[], Any], model: Any) -> int:
    """Bytes that are alive at the worst moment of a call, beside the model's own; fused attention and norms count as
    one allocation each, as on a GPU."""
    import torch
    import torch.nn.functional as F
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    own = {id(s): s for t in (*model.parameters(), *model.buffers()) for s in [t.untyped_storage()]}
    held: dict[int, Any] = {}
    count = {"now": 0, "peak": 0}

    class Fused(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function in (F.scaled_dot_product_attention, F.rms_norm):
                return torch.empty_like(args[0] if args else (kwargs or {})["query"])
            return function(*args, **(kwargs or {}))

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = function(*args, **(kwargs or {}))
            for tensor in tree_leaves(out):
                if not isinstance(tensor, torch.Tensor):
                    continue
                storage = tensor.untyped_storage()
                key, size = id(storage), storage.nbytes()
                if key in own or (key in held and held[key]() is storage):
                    continue

                def gone(_: Any, key: int = key, size: int = size) -> None:
                    count["now"] -= size
                    held.pop(key, None)

                count["now"] += size
                count["peak"] = max(count["peak"], count["now"])
                held[key] = weakref.ref(storage, gone)
            return out

    with torch.no_grad(), Fused(), Watch():
        result = call()
    del result
    return count["peak"]
