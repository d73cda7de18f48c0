"""The catalogue's entries: complete, consistent, and what they choose of a repository's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from pusa_app.errors import ModelError, RecipeError
from pusa_app.models.catalogue import runs
from pusa_app.models.entry import Entry, Part, entries
from pusa_app.timeline import TaskName

TASKS = get_args(TaskName)
MODELS = [entry for entry in entries().values() if entry.parts and entry.kind == "model"]
DIFFUSERS = [
    "README.md",
    "dit.safetensors",
    "model_index.json",
    "text_encoder/config.json",
    "text_encoder/model-00001-of-00002.safetensors",
    "text_encoder/model-00002-of-00002.safetensors",
    "text_encoder/model.bf16-00001-of-00002.safetensors",
    "text_encoder/model.bf16-00002-of-00002.safetensors",
    "text_encoder/model.safetensors.index.json",
    "text_encoder/model.safetensors.index.bf16.json",
    "text_encoder/pytorch_model.bin",
    "text_encoder/modeling.py",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
]


def test_the_catalogue_holds_what_was_promised():
    ids = list(entries())
    assert ids[0] == "mini"
    for wanted in ("mochi-1", "pusa-v0.5", "pusa-v1", "pusa-wan2.2", "wan2.2-ti2v-5b", "skyreels-v2-df", "ltx-video"):
        assert wanted in ids
    assert entries()["hunyuan-video"].label == "not yet trained for keyframes"


@pytest.mark.parametrize("entry", MODELS, ids=lambda entry: entry.id)
def test_every_model_says_what_it_does_and_why_not_the_rest(entry):
    assert set(entry.tasks) | set(entry.why_not) == set(TASKS)
    assert not set(entry.tasks) & set(entry.why_not)
    assert all(reason.endswith(".") and "\n" not in reason for reason in entry.why_not.values())
    assert entry.licence and entry.licence_link.startswith("https://") and entry.page.startswith("https://")
    assert entry.trained_for
    card = entry.card(None)
    assert card.spec.lengths()[-1] == card.spec.max_frames
    assert card.spec.num_frames in card.spec.lengths()
    assert card.spec.width % card.spec.size_multiple == card.spec.height % card.spec.size_multiple == 0


def test_a_lora_of_the_catalogue_is_for_models_of_the_catalogue():
    loras = [entry for entry in entries().values() if entry.kind == "lora"]
    assert loras
    for lora in loras:
        assert all(entries()[base].spec.family == "wan" for base in lora.base)


def test_strengths_are_those_of_the_authors():
    (pusa,) = entries()["pusa-v1"].card(None).loras
    assert (pusa.file, pusa.strength, pusa.low, pusa.high) == ("loras/pusa.safetensors", 1.4, 1.3, 1.5)
    high, low = entries()["pusa-wan2.2"].card(None).loras
    assert [(high.expert, high.low, high.high), (low.expert, low.strength)] == [("high", 1.4, 1.6), ("low", 1.4)]


def test_families_without_a_backbone_say_so(monkeypatch):
    from pusa_app.models import catalogue, load_backbone

    assert all(runs(entry.spec.family) for entry in entries().values() if entry.spec is not None)
    monkeypatch.delitem(catalogue.FAMILIES, "ltx")
    assert not runs("ltx")
    with pytest.raises(ModelError, match="cannot be run by this version"):
        load_backbone(entries()["ltx-video"].card(Path(".")))


def test_a_task_that_a_model_was_not_trained_for_is_refused_with_the_reason(tmp_path, monkeypatch, tiny_mochi):
    from pusa_app.checks import check_recipe, new_recipe
    from pusa_app.models import get_card

    (tmp_path / "models.json").write_text(json.dumps({"own": {"mochi-1": str(tiny_mochi)}}))
    monkeypatch.setenv("PUSA_DATA_DIR", str(tmp_path))
    recipe = new_recipe(get_card("mochi-1"), "keyframes")
    with pytest.raises(RecipeError, match=r"does not do keyframes: Mochi 1 was trained with one noise level"):
        check_recipe(recipe)


class TestParts:
    def test_weights_are_taken_in_the_wanted_variant_and_nothing_else(self):
        part = Part(repo="a/b", files=("model_index.json", "text_encoder/*", "vae/*"), variant="bf16")
        assert part.choose(DIFFUSERS) == [
            "model_index.json",
            "text_encoder/config.json",
            "text_encoder/model.bf16-00001-of-00002.safetensors",
            "text_encoder/model.bf16-00002-of-00002.safetensors",
            "text_encoder/model.safetensors.index.bf16.json",
            "vae/config.json",
            "vae/diffusion_pytorch_model.safetensors",
        ]
        assert part.plain("text_encoder/model.bf16-00001-of-00002.safetensors").endswith(
            "/model-00001-of-00002.safetensors"
        )
        assert part.plain("text_encoder/model.safetensors.index.bf16.json").endswith("/model.safetensors.index.json")

    def test_without_a_variant_the_plain_files_are_taken(self):
        chosen = Part(repo="a/b", files=("text_encoder/*",)).choose(DIFFUSERS)
        assert len(chosen) == 4 and not any("bf16" in name for name in chosen)

    @pytest.mark.parametrize(
        ("gone", "missing"),
        [
            ("vae/diffusion_pytorch_model.safetensors", "vae/*"),
            ("model_index.json", "model_index.json"),
            ("text_encoder/model-00002-of-00002.safetensors", "text_encoder/model-00002-of-00002.safetensors"),
        ],
    )
    def test_what_is_missing_is_seen_without_a_list(self, gone, missing):
        part = Part(repo="a/b", files=("model_index.json", "text_encoder/*", "vae/*"))
        plain = [name for name in DIFFUSERS if "bf16" not in name]
        assert part.missing(plain) is None
        assert part.missing([name for name in plain if name != gone]) == missing

    @pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../b"])
    def test_a_part_stays_in_its_folder(self, path):
        with pytest.raises(ValidationError):
            Part(repo="a/b", files=(path,))
        with pytest.raises(ValidationError):
            Part(repo="a/b", files=("x",), into=path)


class TestOwnEntries:
    def write(self, folder, **changes):
        data = entries()["mochi-1"].model_dump(mode="json") | {"id": "mine"} | changes
        (folder / "catalogue").mkdir(exist_ok=True)
        (folder / "catalogue" / "mine.json").write_text(json.dumps(data))

    def test_a_user_adds_one(self, tmp_path):
        self.write(tmp_path)
        assert entries(tmp_path)["mine"].title == "Mochi 1"

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"why_not": {}}, "it is not said why it does not do image-to-video"),
            ({"parts": []}, "either parts to get or a folder"),
            ({"id": "../x"}, "id:"),
            ({"here": "/etc", "parts": []}, "inside its folder"),
            ({"here": "assets", "parts": []}, "only parts of repositories"),
        ],
    )
    def test_a_bad_one_is_named_and_does_no_harm(self, tmp_path, changes, match):
        self.write(tmp_path, **changes)
        with pytest.raises(ModelError, match=match) as caught:
            entries(tmp_path, strict=True)
        assert "mine.json" in str(caught.value) and "\n" not in str(caught.value)
        assert "mine" not in entries(tmp_path)

    def test_what_is_not_json_is_named(self, tmp_path):
        (tmp_path / "catalogue").mkdir()
        (tmp_path / "catalogue" / "x.json").write_text("[" * 100_000)
        with pytest.raises(ModelError, match="not valid JSON"):
            entries(tmp_path, strict=True)


def test_an_entry_without_anything_is_refused():
    with pytest.raises(ValidationError):
        Entry(id="x", title="X", summary="", licence="MIT")
