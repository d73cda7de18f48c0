"""`models` on the command line: one sentence for a mistake, exit code 2; the last line is what was made."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pusa_app import cli
from pusa_app.models.home import Home
from tests.hub_server import Hub
from tests.unit.test_weights import BIG, FILES, WEIGHTS, make_entry, put

ROOT = Path(cli.__file__).parents[1]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, a data folder and a cache of our own."""
    from huggingface_hub import constants

    with Hub() as server:
        server.add("some/one", FILES)
        for name, value in (
            ("HF_HUB_CACHE", str(tmp_path / "cache")),
            ("ENDPOINT", server.url),
            ("HF_HUB_OFFLINE", False),
            ("HF_TOKEN_PATH", str(tmp_path / "token")),
        ):
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("PUSA_DATA_DIR", str(tmp_path / "data"))
        monkeypatch.setenv("PUSA_TEST_FAKE", "1")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        put(Home.here(), make_entry())
        yield server


def row(capfd: pytest.CaptureFixture[str], model_id: str) -> str:
    capfd.readouterr()
    assert cli.main(["models", "list"]) == 0
    return next(line for line in capfd.readouterr().out.splitlines() if line.startswith(f"{model_id} "))


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    capfd.readouterr()
    assert cli.main(["models", *arguments]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1
    return err


def test_download_list_and_remove(hub, capfd, tmp_path):
    assert "not here" in row(capfd, "one") and "Licence: MIT" in row(capfd, "one")
    assert cli.main(["models", "download", "one"]) == 0
    out, err = capfd.readouterr()
    folder = Path(out.splitlines()[-1])
    assert (folder / BIG).read_bytes() == WEIGHTS
    assert "% of 2.0 MB" in err and err.endswith("Putting the model together\nDone\n")
    assert "ready" in row(capfd, "one") and "2.0 MB" in row(capfd, "one")
    assert "Removing One frees 2.0 MB. Do it with --yes." in refused(capfd, "remove", "one")
    assert folder.is_dir()
    assert cli.main(["models", "remove", "one", "--yes"]) == 0
    assert not folder.exists() and "not here" in row(capfd, "one")
    assert "Nothing of One is on this machine" in refused(capfd, "remove", "one", "--yes")


def test_only_what_can_be_used(hub, capfd):
    assert cli.main(["models", "list", "--ready"]) == 0
    assert "one " not in capfd.readouterr().out


def test_mistakes_are_a_sentence(hub, capfd, tmp_path):
    assert "There is no model 'nope'" in refused(capfd, "download", "nope")
    assert "nothing to download" in refused(capfd, "download", "mini")
    assert "belongs to the program" in refused(capfd, "remove", "mini")
    assert "There is no folder or file" in refused(capfd, "add", str(tmp_path / "none"))
    hub.repos["some/one"].gated = True
    assert cli.main(["models", "download", "one"]) == 2
    assert capfd.readouterr().err.splitlines()[-1].startswith("some/one is gated: accept its terms")


def test_a_token_for_one_download(hub, capfd, tmp_path):
    hub.repos["some/one"].gated, hub.tokens, hub.repos["some/one"].allowed = True, {"hf_x": "me"}, {"hf_x"}
    assert cli.main(["models", "download", "one", "--token", "hf_x"]) == 0
    assert not (tmp_path / "token").exists()


def test_a_folder_of_ones_own(hub, capfd, tiny_mochi):
    assert cli.main(["models", "add", str(tiny_mochi), "--as", "mine"]) == 0
    assert capfd.readouterr().out == "mine\n"
    assert "your folder" in row(capfd, "mine")
    assert "it is forgotten, and stays as it is" in refused(capfd, "remove", "mine")
    assert cli.main(["models", "remove", "mine", "--yes"]) == 0
    assert tiny_mochi.is_dir()


def test_a_users_bad_entry_is_named(hub, capfd):
    (Home.here().data_dir / "catalogue" / "bad.json").write_text("{}")
    assert "bad.json is not a catalogue entry" in refused(capfd, "list")


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_keeps_what_came(hub, tmp_path, capfd):
    hub.rate = 300_000
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN_PATH": str(tmp_path / "token"),
    }
    command = [sys.executable, "-m", "pusa_app", "models", "download", "one"]
    # Heard also where the tests run in the background, whose children would ignore it.
    hear = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=hear)  # noqa: PLW1509
    deadline = time.monotonic() + 120
    while hub.bytes_of(BIG) < 100_000:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on from here" in err and "Traceback" not in err
    assert "% of 2.0 MB" in row(capfd, "one")
    hub.rate = 0
    assert cli.main(["models", "download", "one"]) == 0
    assert [sent.begin > 0 for sent in hub.sent if sent.name == BIG] == [False, True]


def test_a_pickled_lora_is_converted(hub, capfd, tmp_path):
    import torch

    torch.save({"a.lora_A.weight": torch.ones(2)}, tmp_path / "x.pt")
    assert cli.main(["models", "convert", str(tmp_path / "x.pt"), str(tmp_path / "x.safetensors")]) == 0
    assert (tmp_path / "x.safetensors").is_file()
    shutil.rmtree(tmp_path / "data")
