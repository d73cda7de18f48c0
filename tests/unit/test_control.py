"""The command line and a running program: jobs and generate --queue, with a program that listens and without one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pusa_app import cli, control, testing
from pusa_app.errors import RecipeError, StoreError
from pusa_app.settings import Settings
from pusa_app.studio import Studio, new_recipe

GENERATE = ["generate", "--queue", "--model", "fake", "--prompt", "blue", "--frames", "7", "--steps", "2"]


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PUSA_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def running() -> Iterator[Studio]:
    """A program that has the data folder and starts no job."""
    studio = Studio(Settings(), idle=True)
    ear = control.Control(studio)
    yield studio
    ear.close()
    studio.close()


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str], str]:
    """Exit code, lines of standard output, standard error."""
    code = cli.main(list(arguments))
    out, err = capsys.readouterr()
    return code, out.splitlines(), err


def test_without_a_program_jobs_wait_and_resume_makes_them(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    code, lines, err = said(capsys, *GENERATE)
    assert code == 0 and "jobs resume" in err
    job_id, out = lines
    assert Path(out).parent == data / "results" and not Path(out).exists(), "nothing was started"
    code, lines, _ = said(capsys, "jobs", "list")
    assert code == 0 and len(lines) == 1 and job_id[:8] in lines[0] and "queued" in lines[0]
    code, lines, _ = said(capsys, "jobs", "resume")
    assert (code, lines) == (0, [out]) and Path(out).is_file()
    assert said(capsys, "jobs", "list")[1] == []
    assert "done" in said(capsys, "jobs", "list", "--all")[1][0]


def test_a_running_program_is_asked(capsys: pytest.CaptureFixture[str], running: Studio) -> None:
    code, lines, err = said(capsys, *GENERATE)
    assert (code, err) == (0, "")
    (job,) = running.queue(control.LOCAL)
    assert lines == [job.id, job.out]
    assert said(capsys, "jobs", "pause")[0] == 0 and running.paused(control.LOCAL) == "user"
    assert "paused" in said(capsys, "jobs", "list")[2]
    assert said(capsys, "jobs", "resume")[0] == 0 and running.paused(control.LOCAL) == ""
    assert said(capsys, "jobs", "cancel", job.id[:6])[0] == 0
    assert running.job(job.id).state == "cancelled"  # type: ignore[union-attr]
    code, (new,), _ = said(capsys, "jobs", "retry", job.id)
    assert code == 0 and [j.id for j in running.queue()] == [new]
    assert "1 cancelled" in said(capsys, "jobs", "clear")[2]


def test_files_are_those_of_whoever_asks(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, running: Studio
) -> None:
    answer, mine, theirs = control.answer, tmp_path / "mine", tmp_path / "theirs"

    def elsewhere(*asked: Any) -> Any:
        with contextlib.chdir(theirs):
            return answer(*asked)

    monkeypatch.setattr(control, "answer", elsewhere)
    for folder, colour in ((mine, (200, 30, 30)), (theirs, (30, 30, 200))):
        folder.mkdir()
        Image.new("RGB", (64, 64), colour).save(folder / "a.png")
    Image.new("RGB", (64, 64), (200, 30, 30)).save(mine / "b.png")
    monkeypatch.chdir(mine)
    keyframe = {"slot": 0, "source": {"kind": "image", "path": "b.png"}}
    recipe = new_recipe(testing.card(), "image-to-video", num_frames=7, steps=2, keyframes=[keyframe])
    Path("recipe.json").write_text(recipe.to_json())
    ways = ["--image", "a.png"], ["--keyframe", "slot=0,image=b.png"], ["--image", str(theirs / "a.png")]
    for words in ways:
        assert said(capsys, *GENERATE, *words)[0] == 0
    assert said(capsys, "generate", "--queue", "--recipe", "recipe.json")[0] == 0
    copies = [Image.open(running.recipe(job).paths[0]).getpixel((0, 0)) for job in running.queue()]
    assert copies == [(200, 30, 30), (200, 30, 30), (30, 30, 200), (200, 30, 30)]


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], running: Studio) -> None:
    for arguments, words in (
        (["jobs", "cancel", "zz"], "No job has an id that begins with zz."),
        (["jobs", "retry", ""], "No job has an id"),
        ([*GENERATE, "--out", "a.mp4"], "Leave out --out"),
        ([*GENERATE, "--steps", "999"], "too many"),
        (["jobs", "dance"], "invalid choice"),
        (["generate", "--prompt", "blue"], "--queue"),
    ):
        code, lines, err = said(capsys, *arguments)
        assert code == 2 and lines == [] and words in err and err.count("\n") == 1, arguments
    assert running.queue() == []


def test_the_running_program_checks_what_it_is_sent(running: Studio) -> None:
    remote = control.Remote(Settings())
    with pytest.raises(RecipeError, match="no command 'rm'"):
        remote.ask("rm")
    with pytest.raises(RecipeError, match="not understood"):
        remote.ask("cancel", nonsense=1)
    with pytest.raises(RecipeError):
        remote.ask("submit", recipe="{}")
    wild = new_recipe(testing.card(), "text-to-video", prompt="x").model_copy(update={"model": "/etc"})
    with pytest.raises(RecipeError, match="no model"):
        remote.ask("submit", recipe=wild.to_json())


def test_a_stranger_without_the_secret_is_not_heard(running: Studio, data: Path) -> None:
    port = json.loads((data / "control.json").read_text())["port"]
    with pytest.raises((AuthenticationError, OSError, EOFError)):
        Client(("127.0.0.1", port), authkey=b"wrong")
    assert control.Remote(Settings()).ask("list") == {"jobs": [], "paused": ""}, "and the next one is"


def test_a_program_that_does_not_answer_is_said(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    studio = Studio(Settings(), idle=True)
    try:
        with pytest.raises(StoreError, match="does not answer"):
            control.Remote(Settings()).ask("list")
        code, _, err = said(capsys, "jobs", "list")
        assert code == 2 and "does not answer" in err
    finally:
        studio.close()
