from __future__ import annotations

import json
import re
import shutil

import pytest

from pusa_app.bench import speed


@pytest.fixture(scope="module")
def folder(tiny_mochi, tiny_spec, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "model"
    shutil.copytree(tiny_mochi, folder)
    card = {"title": "T", "summary": "S", "licence": "MIT", "spec": tiny_spec.model_dump(), "tasks": ["text-to-video"]}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def test_whole_run_is_measured_and_equal(folder, capsys):
    code = speed.main(["--quick", "--only", "run", "--model", str(folder), "--steps", "2"])
    out = capsys.readouterr().out
    assert re.search(r"largest difference of the frames: [01] of 255", out)
    # how fast a busy machine is proves nothing; that the verdict and the exit code agree does
    assert code == (1 if "FAIL" in out else 0)


@pytest.mark.parametrize(("ratio", "passed"), [(1.03, True), (1.04, False)])
def test_verdict(capsys, ratio, passed):
    assert speed._verdict("x", ratio, 1.03) is passed
    assert ("pass" in capsys.readouterr().out) is passed


def test_variants_take_turns():
    order = []
    seconds = speed._take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2)
    assert "".join(order) == "baabba"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_ratio_is_taken_within_rounds():
    """A machine that was ten times slower in one round changes nothing."""
    assert speed._ratio({"a": [1.0, 10.0, 1.0], "b": [2.0, 20.0, 2.0]}, "b", "a") == 2.0
