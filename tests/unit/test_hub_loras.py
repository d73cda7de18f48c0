"""LoRAs of the hub by id: found, looked at, downloaded, named, used, refused, deleted; with a small hub of our own."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from safetensors.numpy import save

from pusa_app import cli
from pusa_app.errors import ModelError, RecipeError
from pusa_app.models import get_card
from pusa_app.models.entry import entries, entry_file
from pusa_app.models.home import Home
from pusa_app.models.hub_lora import HubLora
from pusa_app.models.known_loras import checked_lora, known_loras
from pusa_app.models.lora import _scales, find_loras, hash_of
from pusa_app.models.lora_fit import Fit, look, read_header
from pusa_app.models.weights import add, ask, fetch, listed, removal, remove, state_of
from pusa_app.models.weights.downloads import Download, Downloads
from pusa_app.settings import Settings
from pusa_app.timeline import LoraChoice, Recipe, hub_parts
from pusa_app.ui.dropped import named_loras
from pusa_app.ui.loras import Loras
from pusa_app.ui.models import Models, models_value
from tests.conftest import TINY_SPEC
from tests.hub_home import home_beside, told
from tests.hub_server import Hub
from tests.unit.test_models_page import Told, request

WIDE = {"wan": 5120, "mini": 256, "tiny": 32}
NAME = "style.safetensors"
CARD = 2000  # bytes of its card, at most
FORGED = [
    "a/b:../../etc/passwd.safetensors",
    "a/b:/etc/passwd.safetensors",
    "a/b:x/./y.safetensors",
    "a/b:x.safetensors@../..",
    "../b:x.safetensors",
    "a/b/c:x.safetensors",
    "a/b:x.bin",
    "a/b:x\\y.safetensors",
    "a/b:x\n.safetensors",
    "~/b:x.safetensors",
]


def lora_bytes(
    names: tuple[str, ...],
    width: int,
    kind: str = "diffusers",
    rank: int = 2,
    outs: int = 1,
    size: float = 0.5,
    notes: dict[str, str] | None = None,
) -> bytes:
    """A LoRA for these modules, from `width` to `outs` times as much, as programs of a kind save it."""
    random, tensors = np.random.default_rng(0), {}
    for name in names:
        a = (size * random.standard_normal((rank, width))).astype(np.float32)
        b = (size * random.standard_normal((outs * width, rank))).astype(np.float32)
        if kind == "kohya":
            flat = "lora_unet_" + name.replace(".", "_")
            tensors |= {f"{flat}.lora_down.weight": a, f"{flat}.lora_up.weight": b}
            tensors[f"{flat}.alpha"] = np.float32(rank)[None][0:1].reshape(())
        else:
            prefix = {"diffusers": "transformer", "peft": "base_model.model"}[kind]
            tensors |= {f"{prefix}.{name}.lora_A.weight": a, f"{prefix}.{name}.lora_B.weight": b}
    return save(tensors, notes)


WAN = lora_bytes(("blocks.0.attn1.to_q", "blocks.39.attn2.to_out.0"), WIDE["wan"])
MINI = lora_bytes(("transformer_blocks.0.attn1.to_q",), WIDE["mini"])
FLUXLESS = lora_bytes(("down_blocks.0.attentions.0.to_q",), 320)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        server.add("some/style", {"README.md": b"# style", NAME: WAN})
        yield server


@pytest.fixture
def home(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The command line has the same home, and the page the fake model."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")
    return home_beside(hub, tmp_path, monkeypatch)


def nothing_of_it(home: Home) -> None:
    """No entry, no folder, no byte in the cache."""
    assert not list((home.data_dir / "catalogue").glob("*")) and not list(home.models_dir.glob("[!.]*"))
    assert not list(home.hub_cache.rglob("blobs/*"))


class TestNames:
    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("some/style", "some/style"),
            (" some/style@v1.2 ", "some/style@v1.2"),
            ("some/style:a b/c (2).safetensors", "some/style:a b/c (2).safetensors"),
            ("some/style:c.pt@refs/pr/1", "some/style:c.pt@refs/pr/1"),
            ("https://huggingface.co/some/style", "some/style"),
            ("huggingface.co/some/style/tree/main", "some/style"),
            ("https://hf.co/some/style/blob/main/a%20b/c.safetensors", "some/style:a b/c.safetensors"),
            ("https://huggingface.co/some/style/resolve/v1/c.safetensors?download=true", "some/style:c.safetensors@v1"),
            ("http://127.0.0.1:1/some/style", "some/style"),
        ],
    )
    def test_what_people_write_and_paste(self, text, name):
        assert HubLora.asked(text, "127.0.0.1:1").name == name

    @pytest.mark.parametrize(
        "text", ["", "style", "/etc/passwd", "https://evil.example/a/b", "https://huggingface.co/datasets/a/b", *FORGED]
    )
    def test_what_is_none_is_told(self, text):
        told("is no LoRA of the hub: write OWNER/REPO", HubLora.asked, text)

    @pytest.mark.parametrize("text", FORGED)
    def test_a_forged_name_leads_nowhere(self, text):
        assert hub_parts(text) is None and not LoraChoice(path=text).named

    def test_every_name_has_an_id_of_its_own(self):
        asked = [
            HubLora("a/b", "x.safetensors"),
            HubLora("a/b", "X.safetensors"),
            HubLora("a/b", "x.safetensors", "v1"),
        ]
        asked += [HubLora("c/b", "x.safetensors"), HubLora("a/b-x", "ü.safetensors"), HubLora("a/b", "d/x.safetensors")]
        ids = [lora.id for lora in asked]
        assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,60}", found) for found in ids)
        assert ids[0] == HubLora.named("a/b:x.safetensors").id  # on every machine

    def test_a_recipe_keeps_them_where_paths_go(self):
        loras = tuple(
            LoraChoice(path=path) for path in ("some/style:x.safetensors", "/home/me/y.safetensors", FORGED[0])
        )
        card = TINY_SPEC
        made = Recipe(
            task="text-to-video", timeline=card.timeline(7), steps=1, guidance=1, seed=0, loras=loras, prompt="a"
        )
        bare = [lora.path for lora in made.with_bare_loras().loras]
        assert bare == ["some/style:x.safetensors", "y.safetensors", "passwd.safetensors"]
        assert [lora.path for lora in named_loras(made).loras] == bare
        assert Recipe.from_json(made.to_json()) == made


class TestFit:
    """For which models a file is, from names and shapes alone."""

    @pytest.mark.parametrize(
        ("names", "kind", "width", "outs", "ids"),
        [
            (("blocks.39.attn1.to_q",), "diffusers", 5120, 1, ("pusa-v1", "pusa-wan2.2", "skyreels-v2-df")),
            (("blocks.3.self_attn.q",), "kohya", 3072, 1, ("wan2.2-ti2v-5b",)),
            (("blocks.0.attn.qkv_x",), "kohya", 3072, 3, ("pusa-v0.5", "mochi-1")),
            (("transformer_blocks.40.attn1.to_out.0",), "peft", 3072, 1, ("pusa-v0.5", "mochi-1")),
            (("transformer_blocks.27.attn2.to_q",), "diffusers", 2048, 1, ("ltx-video",)),
            (("double_blocks.19.img_attn_qkv", "double_blocks.0.txt_attn_qkv"), "kohya", 3072, 3, ("hunyuan-video",)),
            (("transformer_blocks.0.attn1.to_q",), "peft", 256, 1, ("mini",)),
        ],
    )
    def test_names_and_width_say_the_model(self, home, names, kind, width, outs, ids):
        data = lora_bytes(names, width, kind, rank=1, outs=outs)
        assert look(home, read_header(lambda count: data[:count], "x"), "x").base == ids

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (FLUXLESS, "is for none of the model families that this program knows .* such as down_blocks.0.attentions"),
            (lora_bytes(("blocks.0.attn1.to_q",), 1536), "a model of another size than those of Wan and SkyReels"),
            (lora_bytes(("transformer_blocks.60.attn1.to_q",), 256), "is for none of the model families"),
            (save({"blocks.0.weight": np.zeros((2, 2), np.float32)}), "is no LoRA: it has no lora_A or lora_down"),
            (save({"a.lora_A.weight": np.zeros((1, 2), np.float32), "a.dora_scale": np.zeros(1)}), "is a DoRA"),
            (b"\xff" * 64, "is not a safetensors file"),
            (b"", "is not a safetensors file"),
            (b"\x05\0\0\0\0\0\0\0[[[[[", "is not a safetensors file"),
            (b'\x07\0\0\0\0\0\0\0{"a":1}', "is not a safetensors file"),
        ],
    )
    def test_what_fits_nothing_is_a_sentence(self, home, data, words):
        told(words, lambda: look(home, read_header(lambda count: data[:count], "x.safetensors"), "x.safetensors"))

    def test_a_model_of_ones_own_counts(self, home, tmp_path):
        folder = tmp_path / "small"
        (folder / "transformer").mkdir(parents=True)
        (folder / "model_index.json").write_text('{"_class_name": "MochiPipeline"}')
        config = {"num_attention_heads": 2, "attention_head_dim": 24, "num_layers": 2}
        (folder / "transformer" / "config.json").write_text(json.dumps(config))
        (folder / "vae").mkdir()
        (folder / "vae" / "config.json").write_text("{}")
        data = lora_bytes(("transformer_blocks.1.attn1.to_q",), 48)
        shapes = read_header(lambda count: data[:count], "x")
        told("of another size", look, home, shapes, "x")
        add(home, folder, "small")
        assert look(home, shapes, "x").base == ("small",)


def _layers(**blocks: int) -> Callable[[tuple[str, ...], int], dict[str, tuple[int, ...]]]:
    """The shapes of a LoRA for these layers, from and to a width, of all blocks: of each kind so many."""

    def shapes(parts: tuple[str, ...], width: int) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        for kind, count in blocks.items():
            for name in (f"transformer.{kind}.{number}.{part}" for number in range(count) for part in parts):
                found |= {f"{name}.lora_A.weight": (4, width), f"{name}.lora_B.weight": (width, 4)}
        return found

    return shapes


def _kohya(kinds: dict[str, tuple[int, dict[str, tuple[int, int]]]]) -> dict[str, tuple[int, ...]]:
    """kind -> (blocks, part -> (in, out))."""
    found: dict[str, tuple[int, ...]] = {}
    for kind, (count, parts) in kinds.items():
        for number in range(count):
            for part, (takes, gives) in parts.items():
                name = f"lora_unet_{kind}_{number}_{part}"
                found |= {f"{name}.lora_down.weight": (4, takes), f"{name}.lora_up.weight": (gives, 4)}
    return found


JOINT = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0")
CROSS = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0")
FLUX = _layers(transformer_blocks=19, single_transformer_blocks=38)((*JOINT[:3],), 3072)
FLUX_KOHYA = _kohya(
    {
        "double_blocks": (
            19,
            {"img_attn_qkv": (3072, 9216), "img_attn_proj": (3072, 3072), "img_mlp_0": (3072, 12288)},
        ),
        "single_blocks": (38, {"linear1": (3072, 21504), "linear2": (15360, 3072)}),
    }
)
HUNYUAN = _layers(transformer_blocks=20, single_transformer_blocks=40)((*JOINT[:3],), 3072)


class TestOfAnotherModel:
    """Models of other programs with the same names and widths, all of whose blocks a LoRA trains."""

    @pytest.mark.parametrize(
        ("shapes", "title"),
        [
            (FLUX, "Flux"),
            (FLUX_KOHYA, "Flux"),
            ({k: v for k, v in FLUX_KOHYA.items() if "mlp" not in k}, "Flux"),
            (_layers(transformer_blocks=42)(CROSS, 3072), "CogVideoX-5B"),
            (_layers(transformer_blocks=30)(CROSS, 1920), "CogVideoX-2B"),
            (_layers(transformer_blocks=24)(JOINT, 1536), "Stable Diffusion 3"),
            (_layers(transformer_blocks=28)((*CROSS, "attn2.to_q"), 1152), "PixArt"),
        ],
    )
    def test_it_is_named_and_refused(self, home, shapes, title):
        words = told(
            f"x is for {title}, by what is in it; this program runs LoRAs for Mochi, Wan", look, home, shapes, "x"
        )
        assert "models add" not in words

    @pytest.mark.parametrize(
        ("shapes", "ids"),
        [
            (HUNYUAN, ("hunyuan-video",)),
            (_layers(transformer_blocks=20)(JOINT, 3072), ("hunyuan-video",)),
            (_kohya({"double_blocks": (5, {"img_mlp_fc1": (3072, 12288)})}), ("hunyuan-video",)),
            (_layers(transformer_blocks=48)(CROSS, 3072), ("pusa-v0.5", "mochi-1")),
            (_layers(blocks=40)(CROSS, 5120), ("pusa-v1", "pusa-wan2.2", "skyreels-v2-df")),
        ],
    )
    def test_ours_are_taken_without_a_doubt(self, home, shapes, ids):
        assert look(home, shapes, "x") == Fit(ids)

    def test_blocks_that_both_have_leave_a_doubt_which_a_hint_settles(self, home):
        shapes = _layers(transformer_blocks=4)(JOINT, 3072)
        assert look(home, shapes, "x") == Fit(("hunyuan-video",), "Flux")
        assert look(home, shapes, "x", "hunyuan_video tencent/HunyuanVideo") == Fit(("hunyuan-video",))
        told("x is for Flux", look, home, shapes, "x", "black-forest-labs/FLUX.1-dev")
        assert look(home, HUNYUAN, "x", "flux").base == ("hunyuan-video",)  # what is in it says more

    def test_more_blocks_than_the_model_has(self, home):
        told("is for none of|of another size", look, home, _layers(transformer_blocks=60)(JOINT, 3072), "x")
        one = {
            key: shape
            for key, shape in _layers(transformer_blocks=51)(CROSS, 3072).items()
            if ".50." in key or ".0." in key
        }
        told("another size than those of Mochi", look, home, one, "x")

    @pytest.mark.parametrize("shape", [(), (3072,)])
    def test_shapes_that_are_no_matrices(self, home, shape):
        keys = [f"transformer.transformer_blocks.0.attn.to_q.lora_{one}.weight" for one in "AB"]
        told("of another size", look, home, dict.fromkeys(keys, shape), "x")

    def test_a_feed_forward_of_another_width(self, home):
        shapes = {
            "transformer.transformer_blocks.0.ff.net.0.proj.lora_A.weight": (4, 3072),
            "transformer.transformer_blocks.0.ff.net.0.proj.lora_B.weight": (12288, 4),
        }
        assert look(home, shapes, "x").base == ("hunyuan-video",)  # and not Mochi, whose is wider
        told("another size", look, home, {k: (4, 1024) if "_A" in k else v for k, v in shapes.items()}, "x")

    def test_it_is_told_before_the_download(self, hub, home):
        modules = tuple(f"transformer_blocks.{number}.attn.to_q" for number in range(4))
        hub.add("some/few", {NAME: lora_bytes(modules, 3072)})
        assert ask(home, "some/few").summary == (
            "A LoRA of some/few for HunyuanVideo. It may be for Flux instead: "
            "what it changes is called the same in both."
        )
        note = {"ss_base_model_version": "flux1"}
        hub.add("some/flux", {NAME: lora_bytes(modules, 3072, notes=note)})
        told("is for Flux, by what is in it", ask, home, "some/flux")
        hub.add("some/based", {NAME: lora_bytes(modules, 3072)}, base_model="black-forest-labs/FLUX.1-dev")
        told("is for Flux, by what is in it", ask, home, "some/based")


class TestDownload:
    def test_the_only_file_of_a_repository(self, hub, home, monkeypatch):
        monkeypatch.setattr("pusa_app.models.weights.asked.FIRST", 4096)
        entry = ask(home, "some/style")
        assert (entry.hub, entry.kind, entry.title) == (f"some/style:{NAME}", "lora", "style")
        assert entry.base == ("pusa-v1", "pusa-wan2.2", "skyreels-v2-df") and entry.summary.endswith(
            "and SkyReels V2 DF 14B."
        )
        assert 0 < hub.bytes_of(NAME) <= 4096 < len(WAN) and not home.folder(entry.id)  # looked at, not downloaded
        assert entries(home.data_dir)[entry.id] == entry and state_of(home, entry).size == len(WAN)
        folder = fetch(home, entry)
        (path,) = find_loras(entry.hub)
        assert path.is_relative_to(folder) and path.read_bytes() == WAN and path.is_symlink()
        assert find_loras(entry.id) == [path] and checked_lora(entry.hub) == entry.hub
        hub.requests.clear()
        assert fetch(home, ask(home, f"some/style:{NAME}")) == folder and hub.requests == []

    def test_only_the_header_of_a_large_file_comes_first(self, hub, home):
        large = lora_bytes(("blocks.0.attn1.to_q",), WIDE["wan"], rank=64)
        hub.add("some/large", {NAME: large})
        ask(home, "some/large")
        assert 0 < hub.bytes_of(NAME) <= 512 * 1024 < len(large)

    @pytest.mark.parametrize("ranges", [True, False])
    def test_a_header_longer_than_usual(self, hub, home, monkeypatch, ranges):
        monkeypatch.setattr("pusa_app.models.weights.asked.FIRST", 64)
        hub.ranges = ranges
        assert ask(home, "some/style").base

    def test_it_is_offered_for_its_models_only(self, hub, home):
        fetch(home, ask(home, "some/style"))
        known = entries(home.data_dir)
        (found,) = [one for one in known_loras(known["pusa-v1"].card(None), home) if not one.own]
        assert (found.name, found.title, found.strength) == (f"some/style:{NAME}", "style", 1.0)
        assert "A LoRA of some/style for" in found.note
        assert not known_loras(known["mochi-1"].card(None), home) and not known_loras(get_card("mini"), home)

    def test_a_cut_download_goes_on_where_it_was_cut(self, hub, home):
        large = lora_bytes(("blocks.0.attn1.to_q",), WIDE["wan"], rank=64)
        hub.add("some/large", {NAME: large})
        entry = ask(home, "some/large")
        hub.sent.clear()
        hub.cut[NAME] = [1_000_000]
        hub.spoil = {}
        folder = fetch(home, entry)
        assert [sent.begin for sent in hub.sent] == [0, 1_000_000]
        assert (folder / "loras" / NAME).read_bytes() == large

    def test_wrong_content_is_told_and_the_rest_can_be_deleted(self, hub, home):
        entry = ask(home, "some/style")
        hub.spoil[NAME] = 2
        told("arrived damaged twice", fetch, home, entry)
        assert state_of(home, entry).state == "missing" and removal(home, entry.id).frees == 0
        remove(home, entry.id)
        nothing_of_it(home)

    def test_a_revision_is_part_of_the_name(self, hub, home):
        commit = hub.repos["some/style"].commit
        entry = ask(home, f"some/style@{commit}")
        assert entry.hub == f"some/style:{NAME}@{commit}" and entry.parts[0].revision == commit
        fetch(home, entry)
        assert find_loras(entry.hub) and listed(home, f"some/style@{commit}") == entry
        told(f"The LoRA some/style:{NAME} is not on this machine", find_loras, f"some/style:{NAME}")
        told("has no revision v9: leave it out", ask, home, "some/style@v9")

    def test_a_licence_does_nothing_in_a_terminal(self, hub, home):
        hub.add("some/licensed", {NAME: WAN}, licence="mit\x1b[31m")
        assert ask(home, "some/licensed").licence == "mit?[31m"

    def test_a_file_of_peft_comes_with_its_scale(self, hub, home):
        note = json.dumps({"r": 2, "lora_alpha": 8}).encode()
        files = {"a/adapter_model.safetensors": MINI, "a/adapter_config.json": note, "adapter_config.json": b"{}"}
        hub.add("some/adapter", files, licence="mit")
        entry = ask(home, "some/adapter")
        assert (entry.title, entry.licence, entry.size) == ("adapter", "mit", len(MINI) + len(note))
        fetch(home, entry)
        (path,) = find_loras(entry.hub)
        assert _scales(path, {}) == {"r": 2, "lora_alpha": 8}
        assert known_loras(get_card("mini"), home)[0].name == entry.hub

    def test_a_pickle_is_converted_and_looked_at_then(self, hub, home, tmp_path):
        import torch
        from safetensors.torch import load

        torch.save(load(MINI), tmp_path / "x.pt")
        hub.add("some/good", {"x.pt": (tmp_path / "x.pt").read_bytes()})
        told(r"only pickles \(x.pt\): name one, as in some/good:x.pt", ask, home, "some/good")
        entry = ask(home, "some/good:x.pt")
        assert entry.base == ()
        fetch(home, entry)
        (path,) = find_loras("some/good:x.pt")
        assert path.suffix == ".safetensors" and entries(home.data_dir)[entry.id].base == ("mini",)
        assert [one.name for one in known_loras(get_card("mini"), home)] == ["some/good:x.pt"]

    def test_a_pickle_that_is_for_no_model_does_not_stay(self, hub, home, monkeypatch):
        hub.add("some/bad", {"x.pt": b"a pickle"})
        converted = lambda source, out: out.write_bytes(FLUXLESS)  # noqa: E731 - the process is tested elsewhere
        monkeypatch.setattr("pusa_app.models.unpickle.convert_pickle", converted)
        told("is for none of the model families", fetch, home, ask(home, "some/bad:x.pt"))
        nothing_of_it(home)


class TestRefused:
    """One sentence, and nothing stays."""

    def test_which_file_must_be_clear(self, hub, home):
        hub.add("some/two", {"b.safetensors": WAN, "a/a.safetensors": WAN, "x.pt": b"x"})
        hub.add("some/none", {"model.bin": b"x"})
        hub.add("some/many", {f"{number:02}.safetensors": b"" for number in range(12)})
        words = told("has 2 files: a/a.safetensors, b.safetensors. Say which", ask, home, "some/two")
        assert "as in some/two:a/a.safetensors." in words
        told("07.safetensors and 4 more", ask, home, "some/many")
        told("has no .safetensors file: look for another", ask, home, "some/none")
        told("has no file c.safetensors: it has a/a.safetensors, b.safetensors.", ask, home, "some/two:c.safetensors")
        nothing_of_it(home)
        assert ask(home, "some/two:b.safetensors").title == "b"

    def test_what_is_no_lora_for_any_model(self, hub, home):
        hub.add("some/model", {NAME: save({"w": np.zeros((2, 2), np.float32)})})
        hub.add("some/foreign", {NAME: FLUXLESS})
        hub.add("some/broken", {NAME: b"not one"})
        told(f"{NAME} of some/model is no LoRA", ask, home, "some/model")
        told(f"{NAME} of some/foreign is for none of the model families", ask, home, "some/foreign")
        told(f"{NAME} of some/broken is not a safetensors file", ask, home, "some/broken")
        nothing_of_it(home)

    @pytest.mark.parametrize(
        ("file", "words"),
        [
            ("a:b.safetensors", "a file a:b.safetensors, whose name this program cannot take: get it yourself"),
            ("star*.safetensors", "whose name this program cannot take"),
            (f"{'ü' * 130}.safetensors", "whose name this program cannot take"),
            (f"{'x' * 300}.safetensors", "whose name this program cannot take"),
            ("x\x1b[31m.safetensors", r"a file x\?\[31m.safetensors, whose name"),
            ("x-00001-of-00002.safetensors", "is one of 2 pieces, and a LoRA must be one file"),
            ("empty.safetensors", "empty.safetensors of some/odd is empty"),
        ],
    )
    def test_files_that_cannot_be_used(self, hub, home, file, words):
        hub.add("some/odd", {file: b"" if "empty" in file else WAN})
        assert "\x1b" not in told(words, ask, home, "some/odd")
        nothing_of_it(home)

    def test_an_odd_name_that_can_be_used(self, hub, home):
        hub.add("some/odd", {"m².safetensors": WAN})
        entry = ask(home, "some/odd")
        fetch(home, entry)
        assert find_loras("some/odd:m².safetensors")[0].read_bytes() == WAN

    def test_a_header_that_no_trainer_writes(self, hub, home):
        header = b'{"a.lora_A.weight": {"shape": [Infinity, 1]}}'
        hub.add("some/odd", {NAME: len(header).to_bytes(8, "little") + header})
        told("is not a safetensors file", ask, home, "some/odd")
        hub.add(
            "some/esc",
            {
                NAME: save(
                    {
                        "\x1b[31mx.lora_A.weight": np.zeros((1, 2), np.float32),
                        "\x1b[31mx.lora_B.weight": np.zeros((2, 1), np.float32),
                    }
                )
            },
        )
        assert "such as ?[31mx" in told("is for none", ask, home, "some/esc")

    @pytest.mark.parametrize("repo", ["some/sty--le", "some/x.git", "some/a..b", "some/x-"])
    def test_what_is_no_name_of_a_repository(self, home, repo):
        told("is no name of a repository", ask, home, repo)

    def test_a_revision_that_reads_as_another_file(self):
        told("is no LoRA of the hub", HubLora.asked, "some/style@v1.safetensors")
        told("is no LoRA of the hub", HubLora.asked, "https://huggingface.co/a/b/blob/v1.safetensors/x.safetensors")

    def test_a_name_that_is_no_text(self):
        assert not HubLora("a/b", "\ud800.safetensors").is_sound

    def test_a_slow_hub_is_given_up(self, hub, home, monkeypatch):
        monkeypatch.setattr("pusa_app.models.weights.asked.PATIENCE", 0.5)
        hub.rate = 20
        started = time.monotonic()
        told("answers too slowly .* try again later", ask, home, "some/style")
        assert time.monotonic() - started < 20
        hub.rate = 0
        nothing_of_it(home)

    def test_gated_without_a_token_and_with_one(self, hub, home):
        hub.add("some/gated", {NAME: WAN}, gated=True, allowed={"hf_good"})
        hub.tokens = {"hf_good": "me"}
        told("some/gated is gated: accept its terms", ask, home, "some/gated")
        nothing_of_it(home)
        fetch(home, ask(home, "some/gated", "hf_good"), token="hf_good")
        assert find_loras(f"some/gated:{NAME}")

    def test_not_there_and_offline(self, hub, home, monkeypatch):
        told("There is no some/none at", ask, home, "some/none")
        entry = ask(home, "some/style")
        fetch(home, entry)
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        told("Downloads are switched off by HF_HUB_OFFLINE", ask, home, "some/other")
        assert fetch(home, ask(home, entry.hub))  # what is here is used

    def test_a_name_that_is_not_here_says_how_to_get_it_and_nothing_else(self, home, tmp_path, monkeypatch):
        words = told("is not on this machine: get it on the page Models, or with", find_loras, "a/b:x y.safetensors")
        assert "`python -m pusa_app models download 'a/b:x y.safetensors'`" in words
        monkeypatch.chdir(tmp_path)
        # Where names would lead that were taken for paths.
        for place in ("a/b:x.safetensors", "data/loras/a/b:x.safetensors", "data/models/a/b:x.safetensors"):
            (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / place).write_bytes(MINI)
        told("is not on this machine", find_loras, "a/b:x.safetensors")
        for forged in FORGED:
            told("There is no LoRA|is not on this machine", find_loras, forged)


class TestNamesOfFiles:
    @pytest.mark.parametrize("file", ["a[1].safetensors", "a1.safetensors"])
    def test_a_name_is_no_pattern(self, hub, home, file):
        hub.add("some/two", {"a[1].safetensors": WAN, "a1.safetensors": MINI})
        fetch(home, ask(home, f"some/two:{file}"))
        assert find_loras(f"some/two:{file}")[0].read_bytes() == (WAN if "[" in file else MINI)
        assert len(list(home.hub_cache.rglob("blobs/*"))) == 1

    def test_a_pickle_of_peft_keeps_its_scale(self, hub, home, tmp_path):
        import torch
        from safetensors.torch import load

        torch.save(load(MINI), tmp_path / "x.pt")
        note = json.dumps({"lora_alpha": 8}).encode()
        hub.add("some/adapter", {"adapter_model.pt": (tmp_path / "x.pt").read_bytes(), "adapter_config.json": note})
        entry = ask(home, "some/adapter:adapter_model.pt")
        fetch(home, entry)
        assert home.folder(entry.id) and _scales(find_loras(entry.hub)[0], {}) == {"lora_alpha": 8}


class TestAnotherFileUnderTheName:
    """The owner of a repository put another file where the one was."""

    def test_what_is_here_stays_and_says_what_it_is(self, hub, home):
        repo = hub.add("up/d", {NAME: MINI})
        entry = ask(home, "up/d")
        folder = fetch(home, entry)
        repo.files[NAME] = WAN
        assert ask(home, "up/d") == entry == ask(home, f"up/d:{NAME}") and entry.base == ("mini",)
        assert fetch(home, entry, check=True) == folder and find_loras(entry.hub)[0].read_bytes() == MINI
        assert entries(home.data_dir)[entry.id] == entry
        remove(home, entry.id)
        new = ask(home, "up/d")
        assert new.id == entry.id and new.etag != entry.etag and new.commit != entry.commit
        assert new.base == ("pusa-v1", "pusa-wan2.2", "skyreels-v2-df")

    def test_one_that_was_only_looked_at_is_looked_at_again_when_it_came(self, hub, home):
        repo = hub.add("up/d", {NAME: MINI})
        entry = ask(home, "up/d")
        repo.files[NAME] = WAN
        hub.forgetful = True
        fetch(home, entry)
        now = entries(home.data_dir)[entry.id]
        assert now.base == ("pusa-v1", "pusa-wan2.2", "skyreels-v2-df") and now.summary.endswith("DF 14B.")
        assert (now.commit, now.etag) == (repo.commit, hashlib.sha256(WAN).hexdigest())

    def test_one_that_is_for_nothing_now_does_not_stay(self, hub, home):
        repo = hub.add("up/d", {NAME: MINI})
        entry = ask(home, "up/d")
        repo.files[NAME] = FLUXLESS
        hub.forgetful = True
        told("is for none of the model families", fetch, home, entry)
        nothing_of_it(home)

    def test_a_result_notes_which_file_it_was(self, hub, home):
        hub.add("up/d", {NAME: MINI})
        fetch(home, ask(home, "up/d"))
        assert hash_of(find_loras(f"up/d:{NAME}")[0]) == hashlib.sha256(MINI).hexdigest()

    def test_a_lora_of_ones_own_has_a_hash_too(self, tmp_path):
        (tmp_path / "x.safetensors").write_bytes(MINI)
        assert hash_of(tmp_path / "x.safetensors") == hashlib.sha256(MINI).hexdigest()


class TestRemoval:
    def test_what_comes_after_it_was_taken_off_is_on_the_list_again(self, hub, home):
        entry = ask(home, "some/style")
        remove(home, entry.id)
        fetch(home, entry)
        assert listed(home, "some/style") == entry and find_loras(entry.hub)
        remove(home, entry.id)
        nothing_of_it(home)

    def test_a_repository_with_several_says_which(self, hub, home, capfd):
        hub.add("odd/two", {"a.safetensors": WAN, "b.safetensors": MINI})
        for file in ("a", "b"):
            ask(home, f"odd/two:{file}.safetensors")
        assert cli.main(["models", "remove", "odd/two"]) == 2
        said = capfd.readouterr().err
        assert "2 LoRAs of odd/two are on the list: odd/two:a.safetensors, odd/two:b.safetensors. Say which" in said

    def test_what_is_here_needs_no_hub(self, hub, home, monkeypatch, capfd):
        fetch(home, ask(home, "some/style"))
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert cli.main(["models", "download", "some/style"]) == 0

    def test_it_says_what_it_frees_and_leaves_nothing(self, hub, home):
        entry = ask(home, "some/style")
        fetch(home, entry)
        assert len(WAN) <= removal(home, entry.id).frees < len(WAN) + CARD
        remove(home, entry.id)
        assert not entry_file(home.data_dir, entry.id).exists()
        nothing_of_it(home)
        told("is not on this machine", find_loras, entry.hub)

    def test_another_lora_of_the_repository_stays(self, hub, home):
        hub.add("some/two", {"a.safetensors": WAN, "b.safetensors": MINI})
        first, second = ask(home, "some/two:a.safetensors"), ask(home, "some/two:b.safetensors")
        for entry in (first, second):
            fetch(home, entry)
        assert listed(home, "some/two") is None and listed(home, second.hub) == second
        remove(home, first.id)
        assert find_loras(second.hub)[0].read_bytes() == MINI and removal(home, second.id).frees < len(MINI) + CARD

    def test_one_of_an_older_commit_is_found_after_the_repository_changed(self, hub, home):
        repo = hub.add("some/two", {"a.safetensors": WAN})
        first = ask(home, "some/two")
        fetch(home, first)
        repo.files |= {"a.safetensors": MINI, "b.safetensors": MINI}
        fetch(home, ask(home, "some/two:b.safetensors"))
        assert find_loras(first.hub)[0].read_bytes() == WAN and removal(home, first.id).frees >= len(WAN)
        remove(home, first.id)
        assert len(list(home.hub_cache.rglob("blobs/*"))) == 1


def test_on_the_command_line(hub, home, capfd):
    assert (
        cli.main(["models", "download", "https://huggingface.co/some/style".replace("https://huggingface.co", hub.url)])
        == 0
    )
    out, err = capfd.readouterr()
    assert Path(out.splitlines()[-1]).is_dir() and "0% of 164 kB" in err and "Done" in err
    assert f"Use it with `--lora some/style:{NAME}=1`." in err
    assert cli.main(["models", "list"]) == 0
    line = next(line for line in capfd.readouterr().out.splitlines() if line.startswith("some/style:"))
    assert " ready " in line and "A LoRA of some/style for Pusa V1" in line
    assert cli.main(["models", "remove", "some/style"]) == 2
    assert "Removing style frees" in capfd.readouterr().err
    assert cli.main(["models", "remove", "some/style", "--yes"]) == 0
    nothing_of_it(home)
    capfd.readouterr()
    assert cli.main(["models", "download", "some/none"]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and "There is no some/none" in err
    base = ["generate", "--model", "mini", "--prompt", "blue", "--frames", "13", "--out", "a.mp4"]
    assert cli.main([*base, "--lora", f"some/style:{NAME}=0.5"]) == 2
    assert f"models download some/style:{NAME}" in capfd.readouterr().err


class TestPage:
    @pytest.fixture
    def page(self, home) -> Iterator[Models]:
        made = Models(SimpleNamespace(settings=Settings(data_dir=home.data_dir)))  # type: ignore[arg-type]
        made._home, made._downloads = home, Downloads(home)
        yield made
        made._downloads.close()

    def test_from_the_field_to_the_form(self, hub, home, page):
        view, *_ = page._hub(request(), SimpleNamespace(place=" some/style "))
        assert view["looked"]
        row = next(row for row in view["models"] if row["title"] == "style")
        assert row["summary"].startswith("A LoRA of some/style for Pusa V1") and row["state"] == "busy"
        deadline = time.monotonic() + 120
        while page._downloads.get(row["id"]).state == "running":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        value = models_value(home, page._downloads, True)
        row = next(one for one in value["models"] if one["id"] == row["id"])
        assert row["state"] == "here" and row["can"] == [["ask", "Delete…"]] and row["page"].endswith("some/style")
        with gr.Blocks():
            field = Loras(get_card("mini"), Settings(data_dir=home.data_dir))
        assert f"some/style:{NAME}" not in {one["name"] for one in field._look("mini", request())["known"]}
        asked = models_value(home, page._downloads, True, asked=row["id"])["asked"]
        assert asked["words"].startswith("Deleting style frees ")

    def test_mistakes_are_told_and_leave_the_list_as_it_was(self, hub, home, page):
        for place, words in (
            ("", "Write which LoRA"),
            ("nonsense", "is no LoRA of the hub"),
            ("some/x", "There is no"),
        ):
            with pytest.raises(gr.Error, match=words):
                page._hub(request(), SimpleNamespace(place=place))
        nothing_of_it(home)

    @pytest.mark.parametrize(
        ("shared", "headers"),
        [(True, {}), (False, {"x-forwarded-for": "203.0.113.7"}), (False, {"host": "evil.example"})],
    )
    def test_a_stranger_may_not(self, hub, home, page, shared, headers):
        page._settings = replace(page._settings, shared=shared)
        with pytest.raises(gr.Error, match="Only whoever runs this program"):
            page._hub(request(**headers), SimpleNamespace(place="some/style"))
        assert hub.requests == []
        nothing_of_it(home)

    def test_what_never_came_can_be_taken_off_the_list(self, hub, home):
        entry = ask(home, "some/style")
        (row,) = [row for row in models_value(home, Told(home), True)["models"] if row["id"] == entry.id]
        assert [verb for verb, _ in row["can"]] == ["download", "ask"]

    def test_a_stranger_sees_no_names_of_what_is_not_here(self, hub, home, page):
        hub.add("me/private", {NAME: WAN}, private=True, allowed={"hf_good"})
        hub.tokens = {"hf_good": "me"}
        entry = ask(home, "me/private", "hf_good")
        stranger, *_ = page._all(request(**{"x-forwarded-for": "203.0.113.7"}))
        assert "private" not in json.dumps(stranger) and "me/private" in json.dumps(page._all(request())[0])
        fetch(home, entry, token="hf_good")
        stranger, *_ = page._all(request(**{"x-forwarded-for": "203.0.113.7"}))
        assert entry.id in {row["id"] for row in stranger["models"]}  # it can be used here

    def test_the_field_is_told_that_it_was_answered(self, hub, home, page):
        first, second = page._looked(request())["looked"], page._looked(request())["looked"]
        assert 0 < first < second and "looked" not in page._all(request())[0]

    def test_a_download_whose_row_is_gone_is_told(self, home):
        value = models_value(home, Told(home, Download("gone-1", "failed", message="It is for none.")), True)
        assert value["failed"] == "It is for none."
        assert models_value(home, Told(home, Download("mini", "failed", message="x")), True)["failed"] == ""


@pytest.mark.parametrize(
    ("kind", "module", "outs"),
    [
        ("diffusers", "transformer_blocks.0.attn1.to_q", 1),
        ("peft", "transformer_blocks.0.attn1.to_q", 1),
        ("kohya", "blocks.0.attn.qkv_x", 3),
    ],
)
def test_a_lora_of_every_naming_changes_the_frames(hub, home, tiny_mochi, kind, module, outs, tmp_path):
    """Downloaded by id, chosen in a recipe by its name, rendered."""
    from pusa_app.models import load_backbone
    from pusa_app.render import render

    card = TINY_SPEC
    add(home, tiny_mochi, "tiny")
    hub.add("some/tiny", {NAME: lora_bytes((module,), WIDE["tiny"], kind, outs=outs)})
    entry = ask(home, "some/tiny")
    assert entry.base == ("tiny",)
    fetch(home, entry)
    (known,) = known_loras(get_card("tiny"), home)
    backbone = load_backbone("tiny", "cpu")
    plain = Recipe(
        task="text-to-video", model="tiny", prompt="a red ball", timeline=card.timeline(7), steps=2, guidance=1, seed=0
    )
    with_lora = plain.model_copy(update={"loras": (LoraChoice(path=known.name),)})
    before, after = (render(recipe, backbone).frames for recipe in (plain, with_lora))
    (report,) = backbone.loras.reports
    assert report.sha256 == entry.etag == entries(home.data_dir)[entry.id].etag
    again = render(plain, backbone).frames
    assert backbone.loras.reports == [] and np.array_equal(before, again)
    assert np.abs(after.astype(int) - before).mean() > 0.5
    remove(home, entry.id)
    with pytest.raises((ModelError, RecipeError), match="get it on the page Models"):
        render(with_lora, backbone)
