"""Downloads against a small hub of our own: whole, cut, damaged, refused, offline, shared, removed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from pusa_app.errors import ModelError, StoreError, UserError
from pusa_app.models import get_card, list_cards
from pusa_app.models.entry import Entry, entries
from pusa_app.models.home import Home
from pusa_app.models.weights import Stopped, add, fetch, removal, remove, state_of, states
from pusa_app.models.weights import hub as hub_module
from pusa_app.models.weights.downloads import Downloads
from pusa_app.models.weights.words import size_words
from pusa_app.timeline import TaskName
from tests.conftest import PARITY_DATA, TINY_SPEC
from tests.hub_home import home_beside, told
from tests.hub_server import Hub

BIG = "vae/diffusion_pytorch_model.safetensors"
WEIGHTS = bytes(range(256)) * 8000  # 2 MB
FILES = {
    "README.md": b"# a model",
    "model_index.json": b'{"_class_name": "MochiPipeline"}',
    "scheduler/scheduler_config.json": b"{}",
    "vae/config.json": b'{"vae": 1}',
    BIG: WEIGHTS,
}
SIZE = sum(len(data) for name, data in FILES.items() if name != "README.md")
PATIENCE = 120.0


def make_entry(model_id: str = "one", repo: str = "some/one", **more: object) -> Entry:
    data = {
        "id": model_id,
        "title": model_id.capitalize(),
        "summary": "A model.",
        "licence": "MIT",
        "parts": [{"repo": repo, "files": ["model_index.json", "scheduler/*", "vae/*"]}],
        "spec": TINY_SPEC.model_dump(),
        "tasks": get_args(TaskName),
    }
    return Entry.model_validate(data | more)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        server.add("some/one", FILES)
        yield server


@pytest.fixture
def home(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Home:
    """With the entry `one`."""
    made = home_beside(hub, tmp_path, monkeypatch)
    put(made, make_entry())
    return made


def put(home: Home, entry: Entry) -> Entry:
    (home.data_dir / "catalogue").mkdir(parents=True, exist_ok=True)
    (home.data_dir / "catalogue" / f"{entry.id}.json").write_text(entry.model_dump_json())
    return entry


def blob_of(home: Home, folder: Path, name: str = BIG) -> Path:
    return (folder / name).resolve()


class TestDownload:
    def test_all_of_it_comes_and_is_a_model(self, hub, home):
        steps = []
        folder = fetch(home, make_entry(), tell=steps.append)
        assert blob_of(home, folder).read_bytes() == WEIGHTS
        assert not (folder / "README.md").exists()
        assert (folder / BIG).is_symlink()  # no second copy
        assert steps[0].phase == "looking" and steps[-1].phase == "done"
        assert steps[-1].done == steps[-1].total == SIZE
        assert [step.done for step in steps if step.phase == "downloading"] == sorted(
            step.done for step in steps if step.phase == "downloading"
        )
        assert get_card("one").folder == folder
        assert "one" in [card.id for card in list_cards()]
        assert state_of(home, make_entry()).state == "here"

    def test_the_cache_is_as_other_programs_want_it(self, hub, home):
        from huggingface_hub import hf_hub_download, scan_cache_dir, try_to_load_from_cache

        fetch(home, make_entry())
        info = scan_cache_dir(home.cache)
        assert not info.warnings and not info.incomplete_files
        (repo,) = info.repos
        assert repo.repo_id == "some/one" and repo.refs["main"].nb_files == 4
        assert try_to_load_from_cache("some/one", BIG, cache_dir=home.cache)
        before = hub.bytes_of(BIG)
        hf_hub_download("some/one", BIG, cache_dir=home.cache, endpoint=hub.url)
        assert hub.bytes_of(BIG) == before

    def test_what_another_program_brought_is_not_fetched_again(self, hub, home):
        from huggingface_hub import snapshot_download

        snapshot_download("some/one", cache_dir=home.cache, endpoint=hub.url)
        hub.requests.clear()
        state = state_of(home, make_entry())
        assert (state.state, state.have, state.complete, state.asked) == ("partial", SIZE, True, False)
        fetch(home, make_entry())
        assert hub.requests == []

    def test_a_folder_of_an_older_version_gets_the_card_of_this_one(self, hub, home):
        folder = fetch(home, make_entry())
        put(home, make_entry(summary="Newer.", spec=TINY_SPEC.model_dump() | {"steps": 7}))
        card = get_card("one")
        assert (card.summary, card.spec.steps, card.folder) == ("Newer.", 7, folder)
        # A LoRA that the older version did not bring: the folder is what its own card says.
        lora = {"repo": "some/lora", "files": ["x.safetensors"], "use": "lora", "into": "x"}
        put(home, make_entry(summary="With a LoRA.", parts=[*make_entry().model_dump()["parts"], lora]))
        assert get_card("one").summary == "A model."

    def test_a_folder_of_ones_own_keeps_its_card(self, hub, home, tiny_mochi, tmp_path):
        mine = shutil.copytree(tiny_mochi, tmp_path / "mine")
        add(home, mine, "one")
        assert get_card("one").summary == "A model."
        card = make_entry().card(None).model_copy(update={"summary": "Tuned by me."})
        (mine / "card.json").write_text(card.model_dump_json(exclude={"folder"}))
        assert get_card("one").summary == "Tuned by me."

    def test_a_second_time_nothing_is_asked(self, hub, home):
        fetch(home, make_entry())
        hub.requests.clear()
        fetch(home, make_entry())
        assert hub.requests == []

    def test_the_variant_is_taken_under_plain_names(self, hub, home):
        index = {"weight_map": {"a": "diffusion_pytorch_model.bf16-00001-of-00001.safetensors"}}
        hub.add(
            "some/rich",
            {
                "model_index.json": b"{}",
                "vae/config.json": b"{}",
                "vae/diffusion_pytorch_model.bf16-00001-of-00001.safetensors": b"half",
                "vae/diffusion_pytorch_model.safetensors.index.bf16.json": json.dumps(index).encode(),
                "vae/diffusion_pytorch_model-00001-of-00001.safetensors": b"whole",
            },
        )
        parts = [{"repo": "some/rich", "files": ["model_index.json", "vae/*"], "variant": "bf16"}]
        folder = fetch(home, make_entry("rich", parts=parts))
        assert (folder / "vae/diffusion_pytorch_model-00001-of-00001.safetensors").read_bytes() == b"half"
        plain = json.loads((folder / "vae/diffusion_pytorch_model.safetensors.index.json").read_text())
        assert plain["weight_map"] == {"a": "diffusion_pytorch_model-00001-of-00001.safetensors"}


class TestCuts:
    def test_a_cut_connection_goes_on_where_it_was_cut(self, hub, home):
        hub.cut[BIG] = [700_000, 300_000]
        folder = fetch(home, make_entry())
        assert blob_of(home, folder).read_bytes() == WEIGHTS
        assert [sent.begin for sent in hub.sent if sent.name == BIG] == [0, 700_000, 1_000_000]
        assert hub.bytes_of(BIG) == len(WEIGHTS)  # not one byte twice

    def test_a_stopped_download_goes_on_in_the_next_program(self, hub, home):
        hub.rate = 1_000_000
        came = 0

        def stop() -> bool:
            return came > 600_000

        def tell(step) -> None:
            nonlocal came
            came = step.done

        with pytest.raises(Stopped):
            fetch(home, make_entry(), tell=tell, stop=stop)
        state = state_of(home, make_entry())
        assert state.state == "partial" and state.size == SIZE and not state.about
        assert 600_000 < state.have < SIZE
        (part,) = home.cache.rglob("*.incomplete")
        have = part.stat().st_size
        hub.rate = 0
        fetch(home, make_entry())
        assert [sent.begin for sent in hub.sent if sent.name == BIG] == [0, have]

    def test_a_network_that_is_gone_is_told_and_kept_from(self, hub, home):
        hub.cut[BIG] = [500_000] + [0] * 20
        told("does not hold.*goes on from there", fetch, home, make_entry())
        assert state_of(home, make_entry()).have > 500_000
        hub.cut.clear()
        fetch(home, make_entry())
        assert hub.bytes_of(BIG) == len(WEIGHTS)

    def test_a_server_without_ranges_begins_anew(self, hub, home):
        hub.cut[BIG], hub.ranges = [500_000], False
        folder = fetch(home, make_entry())
        assert blob_of(home, folder).read_bytes() == WEIGHTS

    def test_a_busy_hub_is_asked_again(self, hub, home):
        hub.status[BIG] = [503, 429]
        fetch(home, make_entry())
        hub.status["vae/config.json"] = [500] * 20
        remove(home, "one")
        told("busy or broken .status 500", fetch, home, make_entry())

    def test_nobody_listens(self, home):
        away = Home(home.data_dir, home.cache, "http://127.0.0.1:9")
        told("does not hold", fetch, away, make_entry())

    def test_the_file_changed_under_a_download(self, hub, home):
        """The download goes on at the commit at which it began, which the hub keeps."""
        hub.cut[BIG] = [500_000] + [0] * 20
        told("does not hold", fetch, home, make_entry())
        before = home.record()["lists"]["some/one@main"]["commit"]
        hub.cut.clear()
        folder = fetch(home, make_entry())
        assert before in str((folder / BIG).readlink())

    def test_a_commit_that_the_hub_forgot_is_begun_anew(self, hub, home):
        hub.cut[BIG] = [500_000] + [0] * 20
        told("does not hold", fetch, home, make_entry())
        hub.cut.clear()
        hub.repos["some/one"].files["vae/config.json"] = b'{"vae": 2}'
        hub.forgetful = True
        folder = fetch(home, make_entry())
        assert (folder / "vae/config.json").read_bytes() == b'{"vae": 2}'
        assert hub.bytes_of(BIG) == len(WEIGHTS)  # its content is known by its hash, whatever the commit


class TestDamage:
    def test_wrong_content_is_noticed_and_fetched_again(self, hub, home):
        hub.spoil[BIG] = 1
        folder = fetch(home, make_entry())
        assert blob_of(home, folder).read_bytes() == WEIGHTS

    def test_wrong_content_twice_is_told_and_not_kept(self, hub, home):
        hub.spoil[BIG] = 2
        told("damaged twice", fetch, home, make_entry())
        assert not list(home.cache.rglob("*.incomplete"))
        assert not (home.models_dir / "one").exists()

    def test_small_files_are_checked_too(self, hub, home):
        hub.spoil["vae/config.json"] = 2
        told("vae/config.json of some/one arrived damaged twice", fetch, home, make_entry())

    def test_a_part_that_was_tampered_with_is_noticed(self, hub, home):
        hub.cut[BIG] = [500_000] + [0] * 20
        told("does not hold", fetch, home, make_entry())
        (part,) = home.cache.rglob("*.incomplete")
        part.write_bytes(b"x" * part.stat().st_size)
        hub.cut.clear()
        folder = fetch(home, make_entry())
        assert blob_of(home, folder).read_bytes() == WEIGHTS

    def test_a_file_that_was_cut_short_since_comes_anew(self, hub, home):
        folder = fetch(home, make_entry())
        with blob_of(home, folder).open("r+b") as file:
            file.truncate(1000)
        assert blob_of(home, fetch(home, make_entry()), BIG).read_bytes() == WEIGHTS
        assert hub.bytes_of("vae/config.json") == len(FILES["vae/config.json"])  # and nothing else did

    def test_a_check_finds_what_sizes_do_not_tell(self, hub, home):
        folder = fetch(home, make_entry())
        with blob_of(home, folder).open("r+b") as file:
            file.write(b"rot")
        assert blob_of(home, fetch(home, make_entry())).read_bytes()[:3] == b"rot"
        assert blob_of(home, fetch(home, make_entry(), check=True)).read_bytes() == WEIGHTS
        requests = len(hub.requests)
        fetch(home, make_entry(), check=True)
        assert len(hub.requests) == requests

    def test_files_that_the_repository_lost_are_named(self, hub, home):
        hub.add("some/one", {name: data for name, data in FILES.items() if name != BIG})
        told(r"some/one has no vae/\* any more", fetch, home, make_entry())


class TestRoom:
    def test_too_little_room_is_told_before_anything_comes(self, hub, home, monkeypatch):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 10**12, 10**6))
        told("One needs 2.0 MB of room", fetch, home, make_entry())
        assert hub.sent == []

    def test_a_conversion_needs_room_as_well(self, hub, home, monkeypatch):
        hub.add("some/native", {"dit.safetensors": WEIGHTS})
        parts = [{"repo": "some/native", "files": ["dit.safetensors"], "use": "convert", "into": "transformer"}]
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 10**12, 10**6))
        told("Two needs 4.1 MB of room", fetch, home, make_entry("two", parts=parts))

    def test_a_disk_that_is_full_in_the_midst(self, hub, home, monkeypatch):
        """A real limit on the size of files, in a process of its own."""
        code = (
            "import resource, signal, sys, json\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
            "from pathlib import Path\n"
            "from pusa_app.models.entry import entries\nfrom pusa_app.models.home import Home\n"
            "from pusa_app.models.weights import fetch\nfrom pusa_app.errors import UserError\n"
            "home = Home(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])\n"
            "try:\n    fetch(home, entries(home.data_dir)['one'])\n"
            "except UserError as error:\n    print(type(error).__name__, error)\n"
        )
        command = [sys.executable, "-c", code, str(home.data_dir), str(home.cache), hub.url]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
        assert ended.stdout.startswith("StoreError The download cannot be written: File too large")
        assert state_of(home, make_entry()).have > 900_000
        fetch(home, make_entry())  # there is room again
        assert [sent.begin for sent in hub.sent if sent.name == BIG] == [0, 1_000_000]

    def test_a_full_disk_is_told_with_what_is_left(self, hub, home, monkeypatch):
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(hub_module.Hub, "_stream", full)
        told("The disk is full: .* are left in .*make room", fetch, home, make_entry())

    def test_a_cache_that_cannot_be_written(self, hub, home):
        home.cache.write_text("a file")
        told("cannot be written", fetch, home, make_entry())


class TestAccess:
    def test_a_gated_model_without_a_token(self, hub, home):
        hub.repos["some/one"].gated = True
        told(r"some/one is gated: accept its terms at http.*/some/one, make an access token", fetch, home, make_entry())

    def test_a_token_that_has_not_accepted_the_terms(self, hub, home):
        hub.repos["some/one"].gated, hub.tokens = True, {"hf_mine": "me"}
        told("may not read some/one yet: accept its terms", fetch, home, make_entry(), token="hf_mine")

    def test_a_token_that_may(self, hub, home):
        hub.repos["some/one"].gated, hub.tokens = True, {"hf_mine": "me"}
        hub.repos["some/one"].allowed = {"hf_mine"}
        fetch(home, make_entry(), token="hf_mine")
        assert {token for _, path, token in hub.requests if "/resolve/" in path} == {"hf_mine"}
        assert {token for _, path, token in hub.requests if "/storage/" in path} == {""}  # another host
        assert "hf_mine" not in home.record_file.read_text()

    def test_a_private_model(self, hub, home):
        hub.repos["some/one"].private = True
        told("There is no some/one at 127.* or it is private", fetch, home, make_entry())

    def test_a_wrong_token(self, hub, home):
        told("does not accept your access token", fetch, home, make_entry(), token="hf_wrong")

    def test_a_model_that_is_not_there(self, hub, home):
        parts = [{"repo": "some/none", "files": ["x.json"]}]
        told("There is no some/none", fetch, home, make_entry("none", parts=parts))

    @pytest.mark.parametrize("name", ["../../evil.json", "vae/../../evil.json", "vae//x.json"])
    def test_names_that_lead_out_of_the_cache(self, hub, home, name):
        hub.add("some/evil", {name: b"{}", "model_index.json": b"{}"})
        parts = [{"repo": "some/evil", "files": ["*", "*/*", "*/*/*", "*/*/*/*"]}]
        told("says nothing of use about some/evil", fetch, home, make_entry("evil", parts=parts))

    def test_something_that_is_no_hub(self, hub, home):
        away = Home(home.data_dir, home.cache, f"{hub.url}/storage/none/..")
        with pytest.raises(UserError):
            fetch(away, make_entry())


class TestOffline:
    @pytest.fixture
    def offline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub import constants
        from huggingface_hub.utils import close_session

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        close_session()

    def test_what_is_here_is_used(self, hub, home, offline):
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = False
        fetch(home, make_entry())
        constants.HF_HUB_OFFLINE = True
        shutil.rmtree(home.models_dir)
        assert fetch(home, make_entry()).is_dir()
        assert [state.state for state in states(home) if state.id == "one"] == ["here"]

    def test_what_is_missing_is_told(self, hub, home, offline):
        told("switched off by HF_HUB_OFFLINE", fetch, home, make_entry())
        assert hub.requests == []


class TestShared:
    PARTS = (
        {"repo": "some/one", "files": ["model_index.json", "scheduler/*", "vae/*"]},
        {"repo": "some/two", "files": ["transformer/*"]},
    )

    @pytest.fixture
    def other(self, hub, home) -> Entry:
        hub.add("some/two", {"transformer/config.json": b"{}", "transformer/x.safetensors": b"w" * 1_000_000})
        return put(home, make_entry("two", parts=self.PARTS))

    def test_files_of_two_models_come_once(self, hub, home, other):
        fetch(home, make_entry())
        assert state_of(home, other).state == "partial"
        fetch(home, other)
        assert hub.bytes_of(BIG) == len(WEIGHTS)

    def test_deleting_one_keeps_what_the_other_needs(self, hub, home, other):
        one, two = fetch(home, make_entry()), fetch(home, other)
        plan = removal(home, "two")
        assert plan.frees == pytest.approx(1_000_000, abs=2000) and plan.kept == ("One",)
        remove(home, "two")
        assert not two.exists() and blob_of(home, one).read_bytes() == WEIGHTS
        assert [state.state for state in states(home) if state.id in ("one", "two")] == ["here", "partial"]
        assert not (home.cache / "models--some--two").exists()
        assert removal(home, "one").frees == pytest.approx(SIZE, abs=2000)
        remove(home, "one")
        assert not list(home.cache.glob("models--*"))

    def test_parts_that_nobody_asked_for_keep_nothing_alive(self, hub, home, other):
        fetch(home, other)
        assert removal(home, "two").frees > len(WEIGHTS)  # `one` has all its files, but nobody asked for it

    def test_other_snapshots_of_the_cache_stay(self, hub, home):
        from huggingface_hub import hf_hub_download

        old = Path(hf_hub_download("some/one", BIG, cache_dir=home.cache, endpoint=hub.url))
        hub.repos["some/one"].files["vae/config.json"] = b'{"new": 1}'
        folder = fetch(home, make_entry())
        assert (folder / BIG).readlink().parts[-3] != old.parts[-3]
        assert removal(home, "one").frees < 10_000
        remove(home, "one")
        assert old.read_bytes() == WEIGHTS

    def test_deleting_a_half_download_frees_it(self, hub, home):
        hub.cut[BIG] = [500_000] + [0] * 20
        told("does not hold", fetch, home, make_entry())
        assert removal(home, "one").frees > 500_000
        remove(home, "one")
        assert state_of(home, make_entry()).state == "missing"
        assert not list(home.cache.rglob("*.incomplete"))

    def test_what_cannot_be_deleted(self, home):
        told("Nothing of One is on this machine", removal, home, "one")
        told("belongs to the program", removal, home, "mini")
        told("There is no model", removal, home, "nope")


class TestConversion:
    @pytest.fixture
    def native(self, hub, home, tiny_mochi) -> Entry:
        """As Pusa V0.5 comes: the transformer in genmo's own format, all else from somebody else's repository."""
        hub.add("some/dit", {"dit.safetensors": (PARITY_DATA / "pusa_dit_native.safetensors").read_bytes()})
        rest = {p.relative_to(tiny_mochi).as_posix(): p.read_bytes() for p in tiny_mochi.rglob("*") if p.is_file()}
        hub.add("some/rest", rest)
        rest_files = ["model_index.json", "scheduler/*", "text_encoder/*", "tokenizer/*", "vae/*"]
        parts = [
            {"repo": "some/dit", "files": ["dit.safetensors"], "use": "convert", "into": "transformer"},
            {"repo": "some/rest", "files": rest_files},
        ]
        return put(home, make_entry("native", parts=parts))

    def test_a_native_transformer_is_converted_and_the_rest_is_linked(self, hub, home, native):
        from diffusers import MochiTransformer3DModel

        folder = fetch(home, native)
        MochiTransformer3DModel.from_pretrained(folder / "transformer", local_files_only=True)
        assert not any(path.is_symlink() for path in (folder / "transformer").iterdir())
        assert (folder / "vae/diffusion_pytorch_model.safetensors").is_symlink()
        # The native file has done its work: it was ours, and takes no more room.
        assert not (home.cache / "models--some--dit").exists()
        assert state_of(home, native).state == "here"
        hub.requests.clear()
        fetch(home, native)
        assert hub.requests == []
        plan = removal(home, "native")
        assert plan.frees > (folder / "transformer/diffusion_pytorch_model.safetensors").stat().st_size
        remove(home, "native")
        assert not folder.exists() and not list(home.cache.glob("models--*"))

    def test_a_native_file_that_was_here_before_stays(self, hub, home, native):
        from huggingface_hub import hf_hub_download

        mine = Path(hf_hub_download("some/dit", "dit.safetensors", cache_dir=home.cache, endpoint=hub.url))
        fetch(home, native)
        assert mine.exists()

    def test_a_file_of_ones_own_takes_the_place_of_a_part(self, hub, home, native, tmp_path):
        mine = tmp_path / "dit.safetensors"
        shutil.copy(PARITY_DATA / "pusa_dit_native.safetensors", mine)
        assert add(home, mine) == "native"
        assert state_of(home, native).own_files == (str(mine),)
        fetch(home, native)
        assert hub.bytes_of("dit.safetensors") == 0 and mine.exists()
        remove(home, "native")
        assert mine.exists()

    def test_a_damaged_native_file_is_told_and_leaves_no_folder(self, hub, home, native):
        hub.repos["some/dit"].files["dit.safetensors"] = b"<html>404</html>" * 10
        told("not a complete safetensors file", fetch, home, native)
        assert not list(home.models_dir.glob("*native/*")) and not list(home.models_dir.glob(".making*"))

    def test_a_pickled_lora_becomes_safetensors(self, hub, home, tmp_path):
        import torch
        from safetensors.torch import load_file

        torch.save({"blocks.0.self_attn.q.lora_A.default.weight": torch.ones(2, 2)}, tmp_path / "p.pt")
        hub.add("some/lora", {"p.pt": (tmp_path / "p.pt").read_bytes()})
        part = {"repo": "some/lora", "files": ["p.pt"], "use": "lora", "into": "pusa", "pickle": True}
        entry = Entry(id="lora", kind="lora", title="L", summary="", licence="MIT", base=("one",), parts=(part,))
        folder = fetch(home, put(home, entry))
        assert list(load_file(folder / "loras" / "pusa.safetensors")) == ["blocks.0.self_attn.q.lora_A.default.weight"]
        assert "lora" not in [card.id for card in list_cards()]


class TestPusaOnWan:
    def test_the_lora_of_a_card_is_on_the_model_at_its_strength(self, hub, home, tmp_path, monkeypatch, pusa_pickle):
        """As Pusa V1 comes: Wan in diffusers' layout, and a pickle beside it; compared with the authors' own output."""
        import torch
        from safetensors.torch import load_file

        from pusa_app.backbones.wan import VectorizedWanTransformer3DModel
        from pusa_app.models import catalogue, convert_native, load_backbone
        from pusa_app.models.lora import Loras

        data = PARITY_DATA / "wan"
        convert_native(data / "wan_t2v_native.safetensors", tmp_path / "base" / "transformer")
        (tmp_path / "base" / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
        hub.add("some/wan", tmp_path / "base")
        hub.add("some/pusa", {"pusa_v1.pt": pusa_pickle.read_bytes()})
        real = entries()["pusa-v1"]
        own = {"lora": real.parts[1].lora, "use": "lora", "into": "pusa", "pickle": True}
        base = {"repo": "some/wan", "files": ["model_index.json", "transformer/*"]}
        parts = [base, {"repo": "some/pusa", "files": ["pusa_v1.pt"], **own}]
        fetch(home, put(home, make_entry("wan", parts=parts, spec=real.spec)))

        class Family:
            def __init__(self, folder: Path) -> None:
                self.transformer = VectorizedWanTransformer3DModel.from_pretrained(folder / "transformer").eval()
                self.loras = Loras([self.transformer], "wan")

            @classmethod
            def from_folder(cls, folder, *_, **__):
                return cls(folder)

        monkeypatch.setattr(catalogue, "_family", lambda name: Family)
        backbone = load_backbone("wan", device="cpu")
        (report,) = backbone.loras.set(())
        assert report.matched > 0 and report.strength == 1.4
        reference = load_file(data / "reference.safetensors")
        with torch.no_grad():
            inputs = (reference["z"], reference["timestep"], reference["text_embeds"])
            found = backbone.transformer(*inputs).sample
        torch.testing.assert_close(found, reference["output.pusa_alpha_1.4"], atol=1e-4, rtol=0)


class TestOwn:
    def test_a_folder_is_used_where_it_is(self, home, tiny_mochi):
        assert add(home, tiny_mochi, "one") == "one"
        assert get_card("one").folder == tiny_mochi
        remove(home, "one")
        assert tiny_mochi.is_dir()
        with pytest.raises(ModelError, match="not on this machine"):
            get_card("one")

    def test_a_folder_gets_an_id(self, home, tiny_mochi):
        assert add(home, tiny_mochi) == "tiny"
        assert get_card("tiny").folder == tiny_mochi
        assert [state.place for state in states(home) if state.id == "tiny"] == ["own"]

    def test_what_is_no_model_is_told(self, home, tmp_path):
        told("There is no folder or file", add, home, tmp_path / "none")
        (tmp_path / "empty").mkdir()
        told("is not a diffusers folder", add, home, tmp_path / "empty")
        (tmp_path / "x.pt").write_bytes(b"x")
        told("is a pickle", add, home, tmp_path / "x.pt")
        (tmp_path / "x.safetensors").write_bytes(b"x")
        told("say what it is with --as", add, home, tmp_path / "x.safetensors")
        told("cannot be the id", add, home, tmp_path / "empty", "../x")

    def test_a_folder_that_went_away(self, home, tiny_mochi, tmp_path):
        shutil.copytree(tiny_mochi, tmp_path / "moved")
        add(home, tmp_path / "moved", "mine")
        shutil.rmtree(tmp_path / "moved")
        with pytest.raises(ModelError, match="its folder is gone"):
            get_card("mine")

    def test_a_damaged_record_is_no_more_than_forgotten(self, hub, home):
        fetch(home, make_entry())
        home.record_file.write_text("[" * 10_000)
        assert state_of(home, make_entry()).state == "here"


class TestDownloads:
    @pytest.fixture
    def downloads(self, home) -> Iterator[Downloads]:
        made = Downloads(home)
        yield made
        made.close()

    def wait(self, downloads: Downloads, until, model_id: str = "one"):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if (download := downloads.get(model_id)) is not None and until(download):
                return download
            time.sleep(0.05)
        raise AssertionError(downloads.get(model_id))

    def test_pause_and_resume(self, hub, home, downloads):
        hub.rate = 400_000
        downloads.start("one")
        downloads.start("one")  # pressed twice
        self.wait(downloads, lambda d: d.step.done > 310_000)
        began = time.monotonic()
        downloads.pause("one")
        assert time.monotonic() - began < 6
        assert downloads.get("one").state == "paused" and downloads.running == []
        have = state_of(home, make_entry()).have
        time.sleep(0.5)
        assert state_of(home, make_entry()).have == have >= 300_000
        hub.rate = 0
        downloads.start("one")
        done = self.wait(downloads, lambda d: d.state != "running")
        assert (done.state, done.step.done) == ("done", SIZE)
        assert hub.sent[-1].begin >= 300_000

    def test_what_went_wrong_is_a_sentence(self, hub, home, downloads):
        hub.repos["some/one"].gated = True
        downloads.start("one")
        failed = self.wait(downloads, lambda d: d.state != "running")
        assert failed.state == "failed" and "is gated" in failed.message

    def test_a_process_that_dies_is_told(self, hub, home, downloads):
        hub.rate = 200_000
        downloads.start("one")
        self.wait(downloads, lambda d: d.step.done > 100_000)
        os.kill(downloads._processes["one"].pid, 9)
        failed = self.wait(downloads, lambda d: d.state != "running")
        assert failed.state == "failed" and "Resume" in failed.message
        downloads.forget("one")
        assert downloads.get("one") is None

    def test_two_programs_do_not_get_in_each_others_way(self, hub, home, downloads):
        hub.rate = 100_000
        downloads.start("one")
        self.wait(downloads, lambda d: d.step.done > 50_000)
        told("being downloaded by another program", fetch, home, make_entry())
        told("being downloaded by another program", remove, home, "one")
        assert downloads.get("one").state == "running"

    def test_nothing_to_download(self, downloads):
        for model_id in ("mini", "nope"):
            with pytest.raises(ModelError):
                downloads.start(model_id)


def test_the_ui_side_never_loads_torch():
    code = (
        "import sys\nfrom pusa_app.models.weights import downloads, shelf, token\n"
        "from pusa_app.models.home import Home\nshelf.states(Home.here())\nsys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 bytes"), (999, "999 bytes"), (2_048_000, "2.0 MB"), (30_500_000_000, "30 GB")]
)
def test_sizes_in_words(count, words):
    assert size_words(count) == words


def test_built_in_entries_are_read_once():
    assert entries()["mini"] is entries()["mini"]


def test_errors_of_the_store_are_user_errors():
    assert issubclass(StoreError, UserError)
