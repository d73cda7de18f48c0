from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from pusa_app.errors import ModelError
from pusa_app.models import convert, convert_native
from tests.conftest import PARITY_DATA

NATIVE = PARITY_DATA / "pusa_dit_native.safetensors"


@pytest.fixture
def native() -> dict[str, torch.Tensor]:
    return load_file(NATIVE)


def refused(src, out, match):
    """The conversion fails with one line and leaves nothing behind."""
    before = sorted(os.listdir(out.parent))
    with pytest.raises(ModelError, match=match) as caught:
        convert_native(src, out)
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(out.parent)) == before


def test_config_is_read_from_the_shapes(tmp_path):
    out = convert_native(NATIVE, tmp_path / "transformer")
    config = json.loads((out / "config.json").read_text())
    wanted = json.loads((PARITY_DATA / "cases.json").read_text())["config"]
    wanted["max_sequence_length"] = 256  # no tensor depends on it
    assert {name: config[name] for name in wanted} == wanted
    assert config["_class_name"] == "MochiTransformer3DModel"
    assert os.listdir(tmp_path) == ["transformer"]


def test_stock_diffusers_loads_the_folder_completely(tmp_path):
    from diffusers import MochiTransformer3DModel

    out = convert_native(NATIVE, tmp_path / "transformer")
    model, info = MochiTransformer3DModel.from_pretrained(out, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert sum(p.numel() for p in model.parameters()) == sum(t.numel() for t in load_file(NATIVE).values())


def test_big_models_are_sharded(tmp_path, monkeypatch):
    from diffusers import MochiTransformer3DModel

    whole = convert_native(NATIVE, tmp_path / "whole")
    monkeypatch.setattr(convert, "SHARD_BYTES", 300_000)
    sharded = convert_native(NATIVE, tmp_path / "sharded")
    files = sorted(sharded.glob("*.safetensors"))
    assert len(files) > 3
    assert max(path.stat().st_size for path in files) < 320_000
    a, b = (MochiTransformer3DModel.from_pretrained(path).state_dict() for path in (whole, sharded))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_dtype_is_kept(tmp_path, native):
    save_file({name: tensor.bfloat16() for name, tensor in native.items()}, tmp_path / "half.safetensors")
    out = convert_native(tmp_path / "half.safetensors", tmp_path / "out")
    assert {t.dtype for t in load_file(out / "diffusion_pytorch_model.safetensors").values()} == {torch.bfloat16}


def test_missing_and_unknown_tensors_are_named(tmp_path, native):
    native["blocks.0.attn.odd"] = native.pop("blocks.0.attn.proj_y.bias")
    save_file(native, tmp_path / "x.safetensors")
    refused(
        tmp_path / "x.safetensors",
        tmp_path / "out",
        r"missing blocks\.0\.attn\.proj_y\.bias; unknown blocks\.0\.attn\.odd",
    )


def test_wrong_shape_is_named(tmp_path, native):
    native["t5_yproj.bias"] = torch.zeros(5)
    save_file(native, tmp_path / "x.safetensors")
    refused(tmp_path / "x.safetensors", tmp_path / "out", r"wrong shape: t5_yproj\.bias")


def test_a_number_in_place_of_a_tensor_is_named(tmp_path, native):
    save_file(native | {"pos_frequencies": torch.tensor(1.0)}, tmp_path / "n.safetensors")
    with pytest.raises(ModelError, match="wrong shape: pos_frequencies"):
        convert_native(tmp_path / "n.safetensors", tmp_path / "out")


def test_another_model_is_refused(tmp_path):
    save_file({"lora.weight": torch.zeros(2, 2)}, tmp_path / "x.safetensors")
    refused(tmp_path / "x.safetensors", tmp_path / "out", "not a Mochi transformer in genmo's format")


@pytest.mark.parametrize("size", [0, 4, 200, 1_000_000])
def test_truncated_file_is_refused(tmp_path, size):
    (tmp_path / "x.safetensors").write_bytes(NATIVE.read_bytes()[:size])
    refused(tmp_path / "x.safetensors", tmp_path / "out", "not a complete safetensors file")


def test_text_file_is_refused(tmp_path):
    (tmp_path / "x.safetensors").write_text("<html>404</html>" * 10)
    refused(tmp_path / "x.safetensors", tmp_path / "out", "not a complete safetensors file")


def test_missing_file_and_pickle_are_refused(tmp_path):
    refused(tmp_path / "none.safetensors", tmp_path / "out", "There is no file")
    (tmp_path / "x.pt").write_bytes(b"x")
    refused(tmp_path / "x.pt", tmp_path / "out", "pickle")


def test_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    refused(NATIVE, tmp_path / "out", "already exists")
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert, "_write_shards", full)
    refused(NATIVE, tmp_path / "out", "No space left on device")


# --- Wan ------------------------------------------------------------------------------------------------------------

WAN = PARITY_DATA / "wan" / "wan_t2v_native.safetensors"


def test_wan_config_is_read_from_the_shapes(tmp_path):
    out = convert_native(WAN, tmp_path / "transformer")
    config = json.loads((out / "config.json").read_text())
    wanted = json.loads((PARITY_DATA / "wan" / "cases.json").read_text())["config"]
    assert {name: config[name] for name in wanted} == wanted
    assert config["_class_name"] == "WanTransformer3DModel"


def test_wan_folder_is_complete_and_exact(tmp_path):
    from diffusers import WanTransformer3DModel

    out = convert_native(WAN, tmp_path / "transformer")
    model, info = WanTransformer3DModel.from_pretrained(out, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    native, state = load_file(WAN), model.state_dict()
    assert sum(p.numel() for p in state.values()) == sum(t.numel() for t in native.values())
    assert torch.equal(state["blocks.1.ffn.net.2.weight"], native["blocks.1.ffn.2.weight"])
    assert torch.equal(state["blocks.0.norm2.bias"], native["blocks.0.norm3.bias"])


def test_heads_of_a_published_size_and_of_a_config_beside_the_file():
    from pusa_app.models.convert_wan import infer_config

    def heads(width, hints=None):
        shapes = {
            "patch_embedding.weight": (width, 16, 1, 2, 2),
            "blocks.0.ffn.0.weight": (8, width),
            "text_embedding.0.weight": (width, 4096),
            "time_embedding.0.weight": (width, 256),
            "head.head.weight": (64, width),
        }
        config = infer_config(shapes, hints or {}, "x")
        return config["num_attention_heads"], config["attention_head_dim"]

    assert [heads(width) for width in (5120, 3072, 1536, 96)] == [(40, 128), (24, 128), (12, 128), (2, 48)]
    assert heads(96, {"num_heads": 4}) == (4, 24)


def test_pieces_and_prefixes_of_other_programs(tmp_path):
    native = {f"model.diffusion_model.{name}": tensor for name, tensor in load_file(WAN).items()}
    names = sorted(native)
    folder = tmp_path / "pieces"
    folder.mkdir()
    for number, part in enumerate((names[:20], names[20:]), 1):
        save_file({name: native[name] for name in part}, folder / f"model-0000{number}-of-00002.safetensors")
    out, whole = convert_native(folder, tmp_path / "out"), convert_native(WAN, tmp_path / "whole")
    one, two = (load_file(path / "diffusion_pytorch_model.safetensors") for path in (out, whole))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    (folder / "model-00001-of-00002.safetensors").unlink()
    refused(folder, tmp_path / "third", "part 1 of 2 is missing")


def test_numbers_of_several_widths_lie_where_they_should(tmp_path):
    """The file that is written is one that safetensors itself reads, whatever the types of its tensors."""
    native = {
        name: tensor.bfloat16() if number % 2 else tensor
        for number, (name, tensor) in enumerate(load_file(WAN).items())
    }
    save_file(native, tmp_path / "mixed.safetensors")
    out = convert_native(tmp_path / "mixed.safetensors", tmp_path / "out")
    found = load_file(out / "diffusion_pytorch_model.safetensors")
    assert {t.dtype for t in found.values()} == {torch.float32, torch.bfloat16}
    assert torch.equal(found["blocks.0.attn1.to_q.weight"], native["blocks.0.self_attn.q.weight"])


def test_memory_does_not_grow_with_the_checkpoint(tmp_path):
    import tracemalloc

    from pusa_app.models import native as module

    big = {"a": torch.arange(15_000_000.0).reshape(3000, 5000), "b": torch.arange(5_000_000.0)}
    save_file(big, tmp_path / "big.safetensors")
    native = module.stored_in(tmp_path / "big.safetensors")
    tracemalloc.start()
    convert._write_file(native, {"b": module.Cut("b"), "a": module.Cut("a", swapped=True)}, tmp_path / "copy")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40_000_000, "half of the file, two pieces"
    copy = load_file(tmp_path / "copy")
    assert torch.equal(copy["a"], big["a"].roll(1500, 0))
    assert torch.equal(copy["b"], big["b"])


def test_a_wan_image_model_is_refused_by_name(tmp_path):
    native = load_file(WAN) | {"img_emb.proj.0.weight": torch.zeros(8)}
    save_file(native, tmp_path / "i2v.safetensors")
    refused(tmp_path / "i2v.safetensors", tmp_path / "out", r"not a Wan transformer.*unknown img_emb\.proj\.0\.weight")


def test_a_file_of_neither_family_names_both(tmp_path):
    save_file({"lora.weight": torch.zeros(2, 2)}, tmp_path / "x.safetensors")
    refused(tmp_path / "x.safetensors", tmp_path / "out", "nor a Wan transformer")
