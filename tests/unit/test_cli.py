"""The command line: a mistake is one line, exit code 2 and nothing written; a success ends with its path."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pusa_app import arguments, cli, media, testing
from pusa_app.events import Progress
from pusa_app.pace import Pace, clock
from pusa_app.studio import new_recipe
from pusa_app.timeline import Recipe


@pytest.fixture(autouse=True)
def inside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Every test runs in a folder of its own, with the fake model and two pictures."""
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")
    monkeypatch.chdir(tmp_path)
    cli._loaded.clear()
    Image.new("RGB", (64, 64), (200, 30, 30)).save("red.png")
    Path("bad.png").write_text("no picture")
    Path("text.txt").write_text("hello")
    Path("notes.json").write_text('{"a": 1}')
    with media.ClipWriter("short.mp4", 64, 64, 12) as clip:
        clip.write(np.zeros((7, 64, 64, 3), np.uint8))
    with open("huge.json", "wb") as huge:
        huge.truncate(1 << 33)  # sparse: it takes no space
    for part in ("tokenizer", "text_encoder", "transformer", "vae"):
        Path("broken", part).mkdir(parents=True)
        Path("broken", part, "config.json").write_text("{}")
    Path("broken/model_index.json").write_text('{"_class_name": "MochiPipeline"}')
    return tmp_path


def files() -> set[str]:
    return {str(path.relative_to(Path.cwd())) for path in Path.cwd().rglob("*")}


FAKE = ["generate", "--model", "fake", "--steps", "2", "--frames", "7"]
GOOD = [*FAKE, "--prompt", "blue"]

MISTAKES = {
    "no command": [],
    "unknown command": ["paint"],
    "unknown option": [*GOOD, "--out", "a.mp4", "--colour", "red"],
    "no output": GOOD,
    "no prompt": [*FAKE, "--out", "a.mp4"],
    "empty prompt": [*FAKE, "--prompt", "  ", "--out", "a.mp4"],
    "not a number": [*GOOD, "--out", "a.mp4", "--guidance", "much"],
    "nan": [*GOOD, "--out", "a.mp4", "--guidance", "nan"],
    "infinite": [*GOOD, "--out", "a.mp4", "--guidance", "inf"],
    "negative": [*GOOD, "--out", "a.mp4", "--seed", "-1"],
    "huge": [*GOOD, "--out", "a.mp4", "--seed", "9" * 5000],
    "huge frames": [*GOOD, "--out", "a.mp4", "--frames", "1000000000"],
    "no steps": [*GOOD, "--out", "a.mp4", "--steps", "0"],
    "too many steps": [*GOOD, "--out", "a.mp4", "--steps", "900"],
    "length that does not fit": [*GOOD, "--out", "a.mp4", "--frames", "8"],
    "length outside": [*GOOD, "--out", "a.mp4", "--frames", "97"],
    "size in words": [*GOOD, "--out", "a.mp4", "--size", "big"],
    "size that does not fit": [*GOOD, "--out", "a.mp4", "--size", "65x64"],
    "size too large": [*GOOD, "--out", "a.mp4", "--size", "8192x8192"],
    "schedule": [*GOOD, "--out", "a.mp4", "--schedule", "cosine"],
    "schedule value": [*GOOD, "--out", "a.mp4", "--schedule", "shift:-1"],
    "unknown task": [*GOOD, "--out", "a.mp4", "--task", "make-coffee"],
    "task without its picture": [*GOOD, "--out", "a.mp4", "--task", "image-to-video"],
    "task with a picture too much": [*GOOD, "--out", "a.mp4", "--task", "text-to-video", "--image", "red.png"],
    "unknown model": ["generate", "--model", "nothing", "--prompt", "blue", "--out", "a.mp4"],
    "model on two lines": ["generate", "--model", "no\nthing", "--prompt", "blue", "--out", "a.mp4"],
    "no such picture": [*GOOD, "--out", "a.mp4", "--image", "gone.png"],
    "no picture": [*GOOD, "--out", "a.mp4", "--image", "bad.png"],
    "a folder as picture": [*GOOD, "--out", "a.mp4", "--image", "."],
    "image and keyframe": [*GOOD, "--out", "a.mp4", "--image", "red.png", "--keyframe", "slot=0,image=red.png"],
    "keyframe in words": [*GOOD, "--out", "a.mp4", "--keyframe", "the first"],
    "keyframe without slot": [*GOOD, "--out", "a.mp4", "--keyframe", "image=red.png"],
    "keyframe of nothing": [*GOOD, "--out", "a.mp4", "--keyframe", "slot=0"],
    "keyframe of both": [*GOOD, "--out", "a.mp4", "--keyframe", "slot=0,image=red.png,clip=a.mp4"],
    "keyframe noise": [*GOOD, "--out", "a.mp4", "--keyframe", "slot=0,image=red.png,noise=1.5"],
    "keyframe noise nan": [*GOOD, "--out", "a.mp4", "--keyframe", "slot=0,image=red.png,noise=nan"],
    "keyframe noises": [*GOOD, "--out", "a.mp4", "--keyframe", "slot=0,image=red.png,noise=0.1:0.2"],
    "keyframe fit": [*GOOD, "--out", "a.mp4", "--keyframe", "slot=0,image=red.png,fit=stretch"],
    "keyframe behind the end": [*GOOD, "--out", "a.mp4", "--keyframe", "slot=9,image=red.png"],
    "two keyframes in a slot": [
        *[*GOOD, "--out", "a.mp4"],
        *["--keyframe", "slot=0,image=red.png", "--keyframe", "slot=0,image=red.png"],
    ],
    "not an mp4": [*GOOD, "--out", "a.gif"],
    "a folder as output": [*GOOD, "--out", "."],
    "output below a file": [*GOOD, "--out", "red.png/a.mp4"],
    "output with an endless name": [*GOOD, "--out", "a" * 300 + ".mp4"],
    "output with an endless name in a new folder": [*GOOD, "--out", f"new/{'a' * 300}.mp4"],
    "output where nothing can be made": [*GOOD, "--out", "/proc/new/a.mp4"],
    "output where nothing can be written": [*GOOD, "--out", "/proc/a.mp4"],
    "schedule that swings below 0": [*GOOD, "--out", "a.mp4", "--schedule", "linear-quadratic:0.9"],
    "clip that is too short": [
        *[*GOOD, "--frames", "19", "--out", "new/a.mp4", "--keyframe", "slot=0,image=red.png"],
        *["--keyframe", "slot=1,clip=short.mp4,start=1000"],
    ],
    "escape sequence": [*GOOD, "--out", "a.mp4", "--image", "\x1b[31mred\x07"],
    "recipe with an endless name": ["recipe", "a" * 300],
    "batch with an endless name": ["generate", "--batch", "a" * 300, "--out", "out"],
    "batch with a wrong number": ["generate", "--model", "fake", "--batch", ".", "--out", "out", "--frames", "8"],
    "batch with too many steps": ["generate", "--model", "fake", "--batch", ".", "--out", "out", "--steps", "900"],
    "huge recipe": ["generate", "--recipe", "huge.json", "--out", "a.mp4"],
    "broken model": ["generate", "--model", "broken", "--prompt", "blue", "--out", "new/a.mp4"],
    "no such recipe": ["generate", "--recipe", "gone.json", "--out", "a.mp4"],
    "text as recipe": ["generate", "--recipe", "text.txt", "--out", "a.mp4"],
    "json as recipe": ["generate", "--recipe", "notes.json", "--out", "a.mp4"],
    "picture as recipe": ["generate", "--recipe", "red.png", "--out", "a.mp4"],
    "recipe and prompt": ["generate", "--recipe", "notes.json", "--prompt", "blue", "--out", "a.mp4"],
    "no such batch": ["generate", "--batch", "gone", "--out", "out"],
    "batch into a file": ["generate", "--model", "fake", "--batch", ".", "--out", "text.txt"],
    "batch and recipe": ["generate", "--batch", ".", "--recipe", "notes.json", "--out", "out"],
    "recipe of nothing": ["recipe", "gone.mp4"],
    "recipe of a picture": ["recipe", "red.png"],
    "convert nothing": ["models", "convert", "gone.safetensors", "out"],
    "convert with an endless name": ["models", "convert", "text.txt", "a" * 300],
    "convert a text": ["models", "convert", "text.txt", "out"],
    "unknown bench": ["bench", "patience"],
    "a bench of no steps": ["bench", "speed", "--steps", "0"],
    "a bench of endless guidance": ["bench", "quality", "--guidance", "inf"],
    "a bench of no rounds": ["bench", "start", "--repetitions", "0"],
    "unknown option of a bench": ["bench", "start", "--colour"],
}


@pytest.mark.parametrize("arguments", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line_and_writes_nothing(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    before = files()
    assert cli.main(arguments) == 2
    out, err = capfd.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and err.strip(), err
    assert "Traceback" not in err and len(err) < 400
    assert files() == before


def test_a_video_from_words(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*GOOD, "--out", "new/a.mp4", "--seed", "7"]) == 0
    out, err = capfd.readouterr()
    assert out.splitlines()[-1] == "new/a.mp4"
    assert "sampling 2/2" in err and "\r" not in err, "plain lines where there is no terminal"
    assert media.read_frames("new/a.mp4").shape == (7, 64, 64, 3)
    assert files() >= {"new/a.mp4"} and not [f for f in files() if f.endswith(".part")]


def test_a_recipe_comes_out_and_makes_the_same_video(capfd: pytest.CaptureFixture[str]) -> None:
    cli.main([*GOOD, "--out", "a.mp4", "--image", "red.png", "--seed", "7", "--schedule", "shift:3"])
    capfd.readouterr()
    assert cli.main(["recipe", "a.mp4"]) == 0
    text = capfd.readouterr().out
    recipe = Recipe.from_json(text)
    assert (recipe.task, recipe.seed, recipe.schedule.shift) == ("image-to-video", 7, 3)  # type: ignore[union-attr]
    Path("a.json").write_text(text)
    assert cli.main(["generate", "--recipe", "a.json", "--out", "b.mp4"]) == 0
    assert cli.main(["generate", "--recipe", "a.mp4", "--out", "c.mp4"]) == 0
    assert Path("a.mp4").read_bytes() == Path("b.mp4").read_bytes() == Path("c.mp4").read_bytes()


def test_keyframes_in_words_become_keyframes() -> None:
    parse = arguments.parse_keyframe
    assert parse("slot=0,image=a, b=c.png,noise=0.2") == {
        "slot": 0,
        "source": {"kind": "image", "path": "a, b=c.png"},
        "noise": 0.2,
    }
    assert parse("slot=2,clip=a.mp4,start=5,span=3,noise=0.1:0.2:0.3,fit=pad") == {
        "slot": 2,
        "source": {"kind": "clip", "path": "a.mp4", "start": 5},
        "span": 3,
        "fit": "pad",
        "noise": [0.1, 0.2, 0.3],
    }


def test_an_output_that_is_a_source_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    cli.main([*GOOD, "--out", "a.mp4"])
    before = Path("a.mp4").read_bytes()
    keyframes = ["--keyframe", "slot=0,image=red.png", "--keyframe", "slot=1,clip=a.mp4,span=1"]
    assert cli.main([*GOOD, "--frames", "19", *keyframes, "--out", "a.mp4"]) == 2
    assert "also a source" in capfd.readouterr().err and Path("a.mp4").read_bytes() == before


def test_a_file_is_only_overwritten_by_a_whole_one(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("a.mp4").write_text("mine")
    monkeypatch.setenv("PUSA_TEST_FAKE_FAIL", "error")
    assert cli.main([*GOOD, "--out", "a.mp4"]) == 1
    err = capfd.readouterr().err
    assert "Traceback" not in err and Path("a.mp4").read_text() == "mine"
    monkeypatch.delenv("PUSA_TEST_FAKE_FAIL")
    cli._loaded.clear()
    assert cli.main([*GOOD, "--out", "a.mp4"]) == 0
    assert media.read_frames("a.mp4").shape[0] == 7


def test_ctrl_c_leaves_nothing_half_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    before = files()
    monkeypatch.setattr(testing, "_stage_fault", interrupt)
    assert cli.main([*GOOD, "--out", "a.mp4"]) == 130
    assert files() == before


def test_a_batch_makes_what_it_can_and_tells_the_rest(capfd: pytest.CaptureFixture[str]) -> None:
    folder = Path("pictures")
    folder.mkdir()
    for name in ("a.tiff", "b.png", "silent.png", "empty.png"):
        Image.new("RGB", (64, 64), (9, 90, 9)).save(folder / name)
    (folder / "._b.png").write_text("a shadow of b")
    (folder / "broken.jpg").write_text("no picture")
    for name in ("a", "b", "broken", "lonely"):
        (folder / f"{name}.txt").write_text("blue\n")
    (folder / "empty.txt").write_text(" ")
    assert cli.main([*FAKE, "--batch", "pictures", "--out", "made"]) == 1
    out, err = capfd.readouterr()
    assert sorted(p.name for p in Path("made").iterdir()) == ["a.mp4", "b.mp4"]
    assert out.split() == ["made/a.mp4", "made/b.mp4"]
    for name in ("silent.png", "empty.png", "broken.jpg", "lonely.txt"):
        assert len([line for line in err.splitlines() if line.startswith(name)]) == 1
    for name in ("silent.png", "empty.png", "broken.jpg", "empty.txt", "broken.txt", "lonely.txt"):
        (folder / name).unlink()
    assert cli.main([*FAKE, "--batch", "pictures", "--out", "made"]) == 0
    assert capfd.readouterr().out.split()[-1] == "made"
    assert Recipe.from_json(media.read_recipe_text("made/a.mp4")).prompt == "blue"


def test_a_name_that_is_no_text_and_a_recipe_in_disguise(capfd: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"\xff.mp4")
    assert cli.main([*GOOD, "--out", name]) == 0 and os.path.exists(name)
    os.rename(name, "disguised.json")
    capfd.readouterr()
    assert cli.main(["recipe", "disguised.json"]) == 0
    assert Recipe.from_json(capfd.readouterr().out).prompt == "blue"


def test_a_recipe_with_an_endless_path_in_it(capfd: pytest.CaptureFixture[str]) -> None:
    keyframe = {"slot": 0, "source": {"kind": "image", "path": "a" * 4000}}
    recipe = new_recipe(testing.card(), "image-to-video", num_frames=7, keyframes=[keyframe])
    with media.ClipWriter("long.mp4", 64, 64, 12, recipe_text=recipe.to_json()) as clip:
        clip.write(np.zeros((7, 64, 64, 3), np.uint8))
    assert cli.main(["generate", "--recipe", "long.mp4", "--out", "long.mp4"]) == 2
    assert "file name too long" in capfd.readouterr().err


def test_libraries_are_silent() -> None:
    code = (
        "import logging, warnings\n"
        "from pusa_app.cli import main\n"
        "main(['models', 'list'])\n"
        "warnings.warn('noise'); logging.getLogger('some.library').warning('noise')"
    )
    root = Path(cli.__file__).parent.parent
    run = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=root, capture_output=True)
    assert run.stderr == b""


def test_models_are_listed(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "list"]) == 0
    assert "fake" in capfd.readouterr().out


def test_help_is_fast_and_loads_nothing_heavy() -> None:
    root = Path(cli.__file__).parent.parent
    code = (
        "import sys; sys.argv = ['pusa_app', '--help']\n"
        "from pusa_app.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'pydantic', 'gradio'} & set(sys.modules)"
    )
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=root, stdout=subprocess.DEVNULL)
    assert time.monotonic() - started < 10


def test_progress_rewrites_its_line_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    line = cli.ProgressLine(terminal)
    for step in range(1, 4):
        line(Progress("sampling", step, 10, float(step)))
    line.close()
    assert terminal.getvalue().count("\r") == 4 and "\n" not in terminal.getvalue()
    assert "sampling 3/10  0:03  about 0:07 left" in terminal.getvalue()


def test_pace_and_clock() -> None:
    pace = Pace()
    for step, seconds in ((0, 0.0), (1, 5.0), (2, 6.0), (3, 7.0)):
        pace.see(Progress("sampling", step, 13, seconds))
    assert pace.remaining == 10, "the first step, which warms up, does not count"
    pace.see(Progress("decoding", 0, 37, 8.0))
    assert pace.remaining is None
    assert [clock(s) for s in (0, 7.4, 59.6, 750, 3723)] == ["0:00", "0:07", "1:00", "12:30", "1:02:03"]


def test_a_recipe_file_may_name_a_model_that_is_not_here(capfd: pytest.CaptureFixture[str]) -> None:
    data = json.loads(new_recipe(testing.card(), "text-to-video", prompt="blue").to_json())
    Path("far.json").write_text(json.dumps(data | {"model": "far-away"}))
    assert cli.main(["generate", "--recipe", "far.json", "--out", "a.mp4"]) == 2
    assert "far-away" in capfd.readouterr().err
