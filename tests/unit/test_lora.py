"""LoRAs of every format on Wan and Mochi: what they do to the weights, how often, and what is said when they do not."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pusa_app import cli
from pusa_app.arguments import parse_lora
from pusa_app.backbones.fake import FakeBackbone
from pusa_app.backbones.mochi import VectorizedMochiTransformer3DModel
from pusa_app.backbones.wan import VectorizedWanTransformer3DModel
from pusa_app.checkpoint import fingerprint
from pusa_app.errors import ModelError, RecipeError
from pusa_app.models import convert_native, lora, unpickle
from pusa_app.models.lora import Loras, find_loras
from pusa_app.models.unpickle import convert_pickle
from pusa_app.render import render
from pusa_app.timeline import LoraChoice, Recipe, new_sweep
from tests.conftest import PARITY_DATA

DATA = PARITY_DATA / "wan"
PUSA = load_file(DATA / "pusa_lora.safetensors")
REFERENCE = load_file(DATA / "reference.safetensors")
BASE, WITH = REFERENCE["output.base"], REFERENCE["output.pusa_alpha_1.4"]
RANK = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return convert_native(DATA / "wan_t2v_native.safetensors", tmp_path_factory.mktemp("wan") / "transformer")


@pytest.fixture
def wan(folder):
    return VectorizedWanTransformer3DModel.from_pretrained(folder).eval()


@pytest.fixture
def loras(wan):
    return Loras([wan], "wan")


def output(model):
    with torch.no_grad():
        return model(REFERENCE["z"], REFERENCE["timestep"], REFERENCE["text_embeds"]).sample


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def saved(path, tensors, **more):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, **more)
    return str(path)


def native():
    """blocks.0.self_attn.q -> (A, B) of the authors' file."""
    modules = {key.partition(".lora_")[0] for key in PUSA}
    return {m: (PUSA[f"{m}.lora_A.default.weight"], PUSA[f"{m}.lora_B.default.weight"]) for m in sorted(modules)}


def diffusers_name(module):
    for ours, theirs in (
        *((f"attn{n}.to_{x}", f"{kind}_attn.{x}") for n, kind in ((1, "self"), (2, "cross")) for x in "qkv"),
        *((f"attn{n}.to_out.0", f"{kind}_attn.o") for n, kind in ((1, "self"), (2, "cross"))),
        ("ffn.net.0.proj", "ffn.0"),
        ("ffn.net.2", "ffn.2"),
    ):
        if module.endswith(theirs):
            return module.removesuffix(theirs) + ours
    raise AssertionError(module)


def in_format(kind):
    """The authors' LoRA as other programs would have saved it."""
    found, notes = {}, None
    for module, (a, b) in native().items():
        if kind == "pusa":
            found |= {f"{module}.lora_A.default.weight": a, f"{module}.lora_B.default.weight": b}
        elif kind == "diffusers":
            name = f"transformer.{diffusers_name(module)}"
            found |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
        elif kind == "diffusers with notes":
            name = f"transformer.{diffusers_name(module)}"
            found |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b / 2}
            notes = {"lora_adapter_metadata": json.dumps({"transformer.r": RANK, "transformer.lora_alpha": 2 * RANK})}
        elif kind == "peft":
            name = f"base_model.model.{diffusers_name(module)}"
            found |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
        elif kind == "comfy":
            name = f"diffusion_model.{module}"
            found |= {f"{name}.lora_down.weight": a, f"{name}.lora_up.weight": b * 4}
            found[f"{name}.alpha"] = torch.tensor(RANK / 4)
        elif kind == "kohya":
            name = "lora_unet_" + module.replace(".", "_")
            found |= {f"{name}.lora_down.weight": a, f"{name}.lora_up.weight": b / 8}
            found[f"{name}.alpha"] = torch.tensor(RANK * 8.0)
    return found, notes


# --- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pusa", "diffusers", "diffusers with notes", "peft", "comfy", "kohya"])
def test_every_format_is_the_same_lora(wan, loras, tmp_path, kind):
    tensors, notes = in_format(kind)
    (report,) = loras.set([LoraChoice(path=saved(tmp_path / "x.safetensors", tensors, metadata=notes), strength=1.4)])
    assert (report.matched, report.unmatched, report.strength) == (20, (), 1.4)
    close(output(wan), WITH)


def test_a_peft_folder_says_its_alpha(wan, loras, tmp_path):
    tensors, _ = in_format("peft")
    half = {name: t / 2 if "lora_B" in name else t for name, t in tensors.items()}
    saved(tmp_path / "adapter_model.safetensors", half)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 2 * RANK, "r": RANK}))
    loras.set([LoraChoice(path=str(tmp_path), strength=1.4)])
    close(output(wan), WITH)


def test_strengths_change_without_reading_again(wan, loras, tmp_path, monkeypatch):
    path = shutil.copy(DATA / "pusa_lora.safetensors", tmp_path / "once.safetensors")
    reads = []
    real = lora._read
    monkeypatch.setattr(lora, "_read", lambda *args: reads.append(args[0]) or real(*args))
    for strength in (0.5, 1.4, 1.4, 0.0, -1.0, 1.4):
        loras.set([LoraChoice(path=str(path), strength=strength)])
        if strength == 1.4:
            close(output(wan), WITH)
        elif strength == 0:
            close(output(wan), BASE)
        else:
            assert (output(wan) - WITH).abs().max() > 0.01
    assert len(reads) == 1
    loras.set([])
    close(output(wan), BASE)
    assert not getattr(wan, "peft_config", {}), "and it left nothing behind"


def test_several_add_up_and_never_stack(wan, loras, tmp_path):
    one, two = (saved(tmp_path / f"{name}.safetensors", PUSA) for name in "ab")
    for _ in range(3):
        reports = loras.set([LoraChoice(path=one, strength=0.9), LoraChoice(path=two, strength=0.5)])
        close(output(wan), WITH)
    assert [r.matched for r in reports] == [20, 20]
    loras.set([LoraChoice(path=two, strength=1.4)])
    close(output(wan), WITH)
    loras.set([LoraChoice(path=one, strength=0.9), LoraChoice(path=one, strength=0.5)])
    close(output(wan), WITH)


def test_a_file_that_changed_is_read_again(wan, loras, tmp_path):
    path = saved(tmp_path / "x.safetensors", PUSA)
    loras.set([LoraChoice(path=path, strength=1.4)])
    saved(tmp_path / "x.safetensors", {name: t * 0 for name, t in PUSA.items()})
    os.utime(path, (1, 1))
    loras.set([LoraChoice(path=path, strength=1.4)])
    close(output(wan), BASE)


def test_half_precision_models_get_half_precision_layers(folder, tmp_path):
    wan = VectorizedWanTransformer3DModel.from_pretrained(folder).eval().to(torch.bfloat16)
    Loras([wan], "wan").set([LoraChoice(path=str(DATA / "pusa_lora.safetensors"), strength=1.4)])
    assert {p.dtype for name, p in wan.named_parameters() if "lora_" in name} == {torch.bfloat16}
    with torch.no_grad():
        found = wan(REFERENCE["z"].bfloat16(), REFERENCE["timestep"], REFERENCE["text_embeds"].bfloat16()).sample
    assert (found - WITH).abs().mean() < (found - BASE).abs().mean() / 2


def test_differences_of_whole_parameters_come_and_go_exactly(wan, loras, tmp_path):
    before = {name: p.clone() for name, p in wan.named_parameters()}
    tensors = {
        "diffusion_model.blocks.0.self_attn.q.diff_b": torch.full((96,), 0.5),
        "diffusion_model.blocks.0.norm3.diff": torch.full((96,), 0.25),
        "diffusion_model.head.head.diff": torch.full((64, 96), 0.1),
        **{key: t for key, t in in_format("comfy")[0].items() if "self_attn.q" in key},
    }
    path = saved(tmp_path / "x.safetensors", tensors)
    for strength in (2.0, 0.5, 1.0):
        (report,) = loras.set([LoraChoice(path=path, strength=strength)])
    assert (report.matched, report.unmatched) == (4, ())
    torch.testing.assert_close(
        wan.get_submodule("blocks.0.attn1.to_q").base_layer.bias, before["blocks.0.attn1.to_q.bias"] + 0.5
    )
    torch.testing.assert_close(wan.blocks[0].norm2.weight, before["blocks.0.norm2.weight"] + 0.25)
    torch.testing.assert_close(wan.proj_out.weight, before["proj_out.weight"] + 0.1)
    loras.set([])
    after = dict(wan.named_parameters())
    assert after.keys() >= {"blocks.0.norm2.weight", "proj_out.weight"}
    assert torch.equal(after["proj_out.weight"], before["proj_out.weight"])
    close(output(wan), BASE)


# --- what goes wrong --------------------------------------------------------------------------------------------------


def refused(loras, path, match):
    with pytest.raises(ModelError, match=match) as caught:
        loras.set([LoraChoice(path=str(path))])
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_no_match_is_an_error_and_leaves_the_model_alone(wan, loras, tmp_path):
    good = LoraChoice(path=str(DATA / "pusa_lora.safetensors"), strength=1.4)
    loras.set([good])
    foreign = saved(
        tmp_path / "sdxl.safetensors",
        {
            "lora_unet_down_blocks_0.lora_down.weight": torch.zeros(4, 8),
            "lora_unet_down_blocks_0.lora_up.weight": torch.zeros(8, 4),
        },
    )
    with pytest.raises(ModelError, match=r"sdxl\.safetensors is for another model: none .* lora_unet_down_blocks_0"):
        loras.set([good, LoraChoice(path=foreign)])
    close(output(wan), BASE)
    loras.set([good])
    close(output(wan), WITH)


def test_a_lora_of_another_width_is_no_match(loras, tmp_path):
    wide = {name: t.repeat(1, 2) if "lora_A" in name else t.repeat(2, 1) for name, t in PUSA.items()}
    refused(loras, saved(tmp_path / "14b.safetensors", wide), "for another model")


def test_what_found_no_place_is_reported(wan, loras, tmp_path):
    odd = {
        "blocks.77.self_attn.q.lora_A.weight": torch.zeros(4, 96),
        "blocks.77.self_attn.q.lora_B.weight": torch.zeros(96, 4),
        "text_encoder.x.lora_A.weight": torch.zeros(1, 1),
        "something else": torch.zeros(1),
    }
    (report,) = loras.set([LoraChoice(path=saved(tmp_path / "x.safetensors", PUSA | odd), strength=1.4)])
    assert report.matched == 20
    assert set(report.unmatched) == {"blocks.77.self_attn.q", "text_encoder.x", "something else"}
    assert "20 modules, 3 of the file found no place" in str(report)
    close(output(wan), WITH)


def test_damaged_missing_and_foreign_kinds_are_refused(loras, tmp_path, pusa_pickle):
    data = (DATA / "pusa_lora.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[:-50])
    refused(loras, tmp_path / "cut.safetensors", "cannot be read .* get it again")
    refused(loras, tmp_path / "none.safetensors", "There is no LoRA")
    refused(loras, "\0", "There is no LoRA")
    dora = saved(tmp_path / "dora.safetensors", {"blocks.0.self_attn.q.dora_scale": torch.zeros(1)})
    refused(loras, dora, "is a DoRA")
    loha = saved(tmp_path / "loha.safetensors", {"blocks.0.self_attn.q.hada_w1_a": torch.zeros(1)})
    refused(loras, loha, "is a LoHa")
    refused(loras, pusa_pickle, r"is a pickle.*models convert pusa_lora\.pt pusa_lora\.safetensors")


# --- names ------------------------------------------------------------------------------------------------------------


def test_names_are_looked_up_in_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PUSA_DATA_DIR", str(tmp_path))
    with pytest.raises(ModelError, match="folder loras of the data folder") as caught:
        find_loras("mine")
    assert str(tmp_path) not in str(caught.value), "where that is, is nothing for visitors"
    (tmp_path / "loras").mkdir()
    mine = tmp_path / "loras" / "mine.safetensors"
    shutil.copy(DATA / "pusa_lora.safetensors", mine)
    assert find_loras("mine") == find_loras("mine.safetensors") == find_loras(str(mine)) == [mine]
    pair = tmp_path / "models" / "lightning" / "loras"
    pair.mkdir(parents=True)
    for name in ("x-high", "x-low"):
        shutil.copy(mine, pair / f"{name}.safetensors")
    assert [path.name for path in find_loras("lightning")] == ["x-high.safetensors", "x-low.safetensors"]
    shutil.copy(mine, pair / "other.safetensors")
    with pytest.raises(ModelError, match="holds several LoRAs"):
        find_loras("lightning")


def test_a_name_is_no_path(tmp_path, monkeypatch):
    """A visitor of a shared page may name a LoRA, and must not learn what lies elsewhere."""
    monkeypatch.setenv("PUSA_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copy(DATA / "pusa_lora.safetensors", tmp_path / "here.safetensors")
    for path in (str(tmp_path / "here.safetensors"), "./here.safetensors", f"../{tmp_path.name}/here.safetensors"):
        assert [found.resolve() for found in find_loras(path)] == [(tmp_path / "here.safetensors").resolve()]
    for name in ("here.safetensors", "~nosuch/x.safetensors", "~nosuch", "..", "\0"):
        with pytest.raises(ModelError, match="There is no LoRA"):
            find_loras(name)
    named = {
        "mine": True,
        "a.b c": True,
        "..": False,
        "~": False,
        "~a": False,
        "a/b": False,
        "a\\b": False,
        "C:x": False,
    }
    assert {path: LoraChoice(path=path).named for path in named} == named


def test_own_loras_are_always_on_and_may_be_given_another_strength(wan):
    own = LoraChoice(path=str(DATA / "pusa_lora.safetensors"), strength=0.1)
    loras = Loras([wan], "wan", [own])
    loras.set([])
    assert (output(wan) - BASE).abs().max() > 1e-3
    loras.set([LoraChoice(path="pusa_lora", strength=1.4)])
    close(output(wan), WITH)


class TestExperts:
    @pytest.fixture
    def pair(self, folder):
        return [VectorizedWanTransformer3DModel.from_pretrained(folder).eval() for _ in range(2)]

    @pytest.mark.parametrize(
        ("name", "expert", "changed"),
        [
            ("high_noise_pusa", None, [True, False]),
            ("Wan22-LOW-rank64", None, [False, True]),
            ("pusa", None, [True, True]),
            ("pusa", "low", [False, True]),
            ("low", "high", [True, False]),
            ("yellow highlights", None, [True, True]),
        ],
    )
    def test_the_choice_or_the_name_says_which(self, pair, tmp_path, name, expert, changed):
        path = shutil.copy(DATA / "pusa_lora.safetensors", tmp_path / f"{name}.safetensors")
        (report,) = Loras(pair, "wan").set([LoraChoice(path=str(path), strength=1.4, expert=expert)])
        assert report.matched == 20 * sum(changed)
        for model, is_changed in zip(pair, changed, strict=True):
            close(output(model), WITH if is_changed else BASE)

    def test_a_file_for_both_tells_them_apart(self, pair, tmp_path):
        tensors = {}
        for number, prefix in enumerate(("transformer", "transformer_2")):
            for module, (a, b) in native().items():
                name = f"{prefix}.{diffusers_name(module)}"
                tensors |= {f"{name}.lora_A.weight": a.clone(), f"{name}.lora_B.weight": b * (1 - number)}
        Loras(pair, "wan").set([LoraChoice(path=saved(tmp_path / "x.safetensors", tensors), strength=1.4)])
        close(output(pair[0]), WITH)
        close(output(pair[1]), BASE)


# --- Mochi ------------------------------------------------------------------------------------------------------------


def test_native_mochi_loras_are_cut_as_the_weights_are(tmp_path):
    """A LoRA on genmo's joint qkv and swapped halves equals the conversion of the merged native weights."""
    source = load_file(PARITY_DATA / "pusa_dit_native.safetensors")
    generator = torch.Generator().manual_seed(0)
    merged, tensors = dict(source), {}
    for module in ("blocks.0.attn.qkv_x", "blocks.0.mlp_x.w1", "blocks.0.attn.proj_x", "final_layer.mod"):
        weight = source[f"{module}.weight"]
        a = torch.randn(3, weight.shape[1], generator=generator) * 0.1
        b = torch.randn(weight.shape[0], 3, generator=generator) * 0.1
        tensors |= {f"diffusion_model.{module}.lora_A.weight": a, f"diffusion_model.{module}.lora_B.weight": b}
        merged[f"{module}.weight"] = weight + 0.7 * b @ a
    saved(tmp_path / "merged.safetensors", merged)
    folders = [
        convert_native(path, tmp_path / f"out{number}")
        for number, path in enumerate((PARITY_DATA / "pusa_dit_native.safetensors", tmp_path / "merged.safetensors"))
    ]
    plain, wanted = (VectorizedMochiTransformer3DModel.from_pretrained(folder).eval() for folder in folders)
    (report,) = Loras([plain], "mochi").set(
        [LoraChoice(path=saved(tmp_path / "lora.safetensors", tensors), strength=0.7)]
    )
    assert (report.matched, report.unmatched) == (4, ())
    reference = load_file(PARITY_DATA / "reference.safetensors")
    data = (
        reference["forward.z"],
        reference["forward.t5_feat"],
        (1 - reference["forward.sigma"]) * 1000,
        reference["forward.t5_mask"],
    )
    with torch.no_grad():
        found, expected = plain(*data).sample, wanted(*data).sample
    assert (found - reference["forward.output"]).abs().max() > 1e-2
    close(found, expected)


# --- pickles ----------------------------------------------------------------------------------------------------------


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_pickle_of_tensors_is_converted(tmp_path, pusa_pickle):
    out = convert_pickle(pusa_pickle, tmp_path / "new" / "pusa.safetensors")
    found = load_file(out)
    assert found.keys() == PUSA.keys()
    assert all(torch.equal(found[name], PUSA[name]) for name in PUSA)
    assert os.listdir(tmp_path / "new") == ["pusa.safetensors"]


@pytest.mark.parametrize("kind", ["torch", "torch, among tensors", "plain"])
def test_a_malicious_pickle_runs_nothing(tmp_path, kind):
    trace = tmp_path / "trace"
    if kind == "plain":
        (tmp_path / "evil.pt").write_bytes(pickle.dumps({"w": Evil(trace)}))
    elif kind == "torch":
        torch.save(Evil(trace), tmp_path / "evil.pt")
    else:
        torch.save({"w": torch.zeros(2), "x": Evil(trace)}, tmp_path / "evil.pt")
    with pytest.raises(ModelError, match="more than tensors, which might be code") as caught:
        convert_pickle(tmp_path / "evil.pt", tmp_path / "out.safetensors")
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["evil.pt"], "neither run nor written"


def test_other_pickles_are_refused_in_one_sentence(tmp_path):
    (tmp_path / "junk.pt").write_bytes(b"\x80\x04junk")
    torch.save([1, 2], tmp_path / "list.pt")
    for name, match in (("junk", "cannot be converted"), ("list", "no named tensors"), ("none", "There is no file")):
        with pytest.raises(ModelError, match=match) as caught:
            convert_pickle(tmp_path / f"{name}.pt", tmp_path / "out.safetensors")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.safetensors").exists()


def test_pickles_are_opened_in_another_process(tmp_path, monkeypatch, pusa_pickle):
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("opened in this process"))
    convert_pickle(pusa_pickle, tmp_path / "x.safetensors")
    monkeypatch.setattr(unpickle, "SECONDS", 0.001)
    with pytest.raises(ModelError, match="TimeoutExpired"):
        convert_pickle(pusa_pickle, tmp_path / "y.safetensors")
    assert os.listdir(tmp_path) == ["x.safetensors"]


# --- recipes ----------------------------------------------------------------------------------------------------------


def recipe(**more):
    from pusa_app.backbones.fake import FAKE_SPEC

    return Recipe(task="text-to-video", prompt="a", timeline=FAKE_SPEC.timeline(7), steps=1, guidance=1, seed=0, **more)


def test_recipes_without_loras_are_written_as_before():
    assert "loras" not in recipe().to_json()
    assert Recipe.from_json(recipe().to_json()) == recipe()
    with_one = recipe(loras=(LoraChoice(path="/home/me/x.safetensors", strength=1.4),))
    assert Recipe.from_json(with_one.to_json()) == with_one
    assert json.loads(with_one.to_json())["loras"][0] == {
        "path": "/home/me/x.safetensors",
        "strength": 1.4,
        "expert": None,
    }
    with pytest.raises(RecipeError, match=r"loras\.0\.strength"):
        Recipe.from_json(json.dumps(json.loads(recipe().to_json()) | {"loras": [{"path": "x", "strength": "much"}]}))


def test_a_shared_recipe_does_not_tell_where_the_loras_lie():
    made = recipe(loras=(LoraChoice(path="/home/me/x.safetensors"), LoraChoice(path="C:\\me\\y.safetensors")))
    assert [lora.path for lora in made.with_bare_loras().loras] == ["x.safetensors", "y.safetensors"]
    sweep = new_sweep(made, {"kind": "seed", "values": [1, 2]})
    assert "/home/me" not in sweep.with_bare_loras().to_json()


def test_models_that_take_none_say_so():
    with pytest.raises(ModelError, match="takes no LoRAs"):
        render(recipe(loras=(LoraChoice(path="x"),)), FakeBackbone())


def test_render_puts_them_on_and_takes_them_off():
    class Taking(FakeBackbone):
        def __init__(self):
            super().__init__()
            self.told = []

        def set_loras(self, loras):
            self.told.append([(lora.path, lora.strength) for lora in loras])

    backbone = Taking()
    render(recipe(loras=(LoraChoice(path="x", strength=0.5),)), backbone)
    frames = render(recipe(), backbone).frames
    assert backbone.told == [[("x", 0.5)], []]
    assert frames.dtype == np.uint8


def test_a_checkpoint_belongs_to_the_content_of_a_lora(tmp_path):
    path = saved(tmp_path / "x.safetensors", PUSA)
    made = recipe(loras=(LoraChoice(path=path),))
    first = fingerprint(made, "v")
    assert fingerprint(made, "v") == first != fingerprint(recipe(), "v")
    os.utime(path, (1, 1))
    assert fingerprint(made, "v") != first


# --- who may use what -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("x.safetensors", {"path": "x.safetensors"}),
        ("x.safetensors=1.4", {"path": "x.safetensors", "strength": 1.4, "expert": None}),
        ("C:\\a=b\\x=0.5:low", {"path": "C:\\a=b\\x", "strength": 0.5, "expert": "low"}),
    ],
)
def test_loras_on_the_command_line(text, fields):
    assert parse_lora(text) == fields
    assert LoraChoice(**fields).path == fields["path"]


@pytest.mark.parametrize("text", ["x=", "x=much", "x=nan", "x=99", "=1", "x=1:middle", "x=1:"])
def test_mistakes_on_the_command_line(text):
    with pytest.raises(ValueError, match=r"needed|looks like"):
        parse_lora(text)


def test_generate_puts_them_into_the_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")
    monkeypatch.setenv("PUSA_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("mine.safetensors").write_bytes(b"")
    base, made = ["generate", "--model", "fake", "--prompt", "blue", "--frames", "7", "--out", "a.mp4"], []

    def seen(recipe, out):
        made.append(recipe)
        raise ModelError("Seen.")

    monkeypatch.setattr(cli, "_render", seen)
    cli.main([*base, "--lora", "mine.safetensors=1.4", "--lora", "mine.safetensors"])
    path = str(tmp_path / "mine.safetensors")
    assert made[0].loras == (LoraChoice(path=path, strength=1.4), LoraChoice(path=path))
    capsys.readouterr()
    assert cli.main([*base, "--lora", "none=1"]) == 2
    assert "There is no LoRA none" in capsys.readouterr().err
    assert len(made) == 1


def test_visitors_name_loras_and_only_who_sits_at_the_machine_gives_paths(tmp_path, monkeypatch):
    from pusa_app.settings import Settings
    from pusa_app.studio import Studio

    monkeypatch.setenv("PUSA_TEST_FAKE", "1")
    monkeypatch.setenv("PUSA_DATA_DIR", str(tmp_path))
    path = saved(tmp_path / "x.safetensors", {"w": torch.zeros(1)})
    made = recipe(model="fake", loras=(LoraChoice(path=path),))
    studio = Studio(Settings(data_dir=tmp_path / "data"))
    try:
        for work in (studio.submit, lambda r, owner: studio.submit_sweep(new_sweep(r, SEEDS), owner)):
            with pytest.raises(ModelError, match="by its name here"):
                work(made, "visitor")
        with pytest.raises(ModelError, match="There is no LoRA mine"):
            studio.submit(recipe(model="fake", loras=(LoraChoice(path="mine"),)), "visitor")
        studio.pause("local")
        assert studio.submit(made, "local").state == "queued"
    finally:
        studio.close()


SEEDS = {"kind": "seed", "values": [1, 2]}
