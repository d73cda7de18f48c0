"""The benchmark of the queue at its smallest: that it measures, and that verdict and exit code agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pusa_app.bench import queue
from pusa_app.bench.queue import Goal, table
from pusa_app.cli import main
from pusa_app.errors import UserError


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_the_queue_against_render(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    code = main(["bench", "queue", "--only", "overhead", "--model", "fake", "--repetitions", "2", "--json", str(file)])
    out = capsys.readouterr().out
    direct, through, adds = json.loads(file.read_text())["figures"]
    assert direct["value"] > 0 and through["value"] > 0
    assert adds["goal"] == pytest.approx(max(0.1, 0.03 * direct["value"]))
    # How fast a busy machine is proves nothing; that the verdict and the exit code agree does.
    assert adds["met"] is (adds["value"] <= adds["goal"]) and code == (0 if adds["met"] else 1)
    assert ("FAIL" in out) is (code == 1) and "what the queue adds" in out


@pytest.mark.slow
def test_memory_is_that_of_the_page_and_of_the_worker(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    main(["bench", "queue", "--only", "memory", "--jobs", "12", "--json", str(file)])
    values = {figure["name"]: figure["value"] for figure in json.loads(file.read_text())["figures"]}
    assert 50 < values["page's process at the start"] <= values["page's process after 12 jobs"] + 5
    assert values["worker after 12 jobs"] > 100, "it has torch, which the page has not"


@pytest.mark.slow
def test_the_start_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    goals = queue.start(1)
    assert [goal.unit for goal in goals] == ["s", "s", "x"]
    assert goals[2].value == pytest.approx(goals[0].value / goals[1].value)


def test_a_missed_goal_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "overhead", lambda *_: [Goal("a", 1.0, "s", 2.0), Goal("b", 3.0, "MB", 2.0)])
    assert queue.main(["--only", "overhead"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["a", "1.000", "s", "at", "most", "2", "s", "pass"] and lines[2].endswith("FAIL")
    monkeypatch.setattr(queue, "overhead", lambda *_: [Goal("a", 2.0, "s", 2.0), Goal("c", 9.0, "s")])
    assert queue.main(["--only", "overhead"]) == 0


def test_a_table_has_straight_columns() -> None:
    head, first, second = table([Goal("a long name of a figure", 1.5, "x", 2.0), Goal("b", 200.0, "MB")]).splitlines()
    assert head.index("value") == first.index("1.50 x") == second.index("200 MB")
    assert head.index("goal") == first.index("at most 2 x") and first.rstrip().endswith("pass")


def test_a_folder_that_is_not_there_is_told_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "queue", "--json", str(tmp_path / "nowhere" / "a.json")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_a_folder_for_the_figures_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "overhead", lambda *_: pytest.fail("has begun"))
    with pytest.raises(UserError, match="is a folder"):
        queue.main(["--only", "overhead", "--json", str(tmp_path)])
