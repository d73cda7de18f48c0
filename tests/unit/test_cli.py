"""The command line: a mistake is one line, exit code 2 and nothing written; a success ends with its path."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pusa_app import arguments, cli, media, testing
from pusa_app.events import Progress
from pusa_app.media import _ffmpeg
from pusa_app.pace import Pace, clock
from pusa_app.studio import new_recipe
from pusa_app.timeline import Recipe


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.mp4 has 40 frames, b.mp4 31, none.mp4 no frame at all."""
    folder = tmp_path_factory.mktemp("clips")
    for name, count in (("a.mp4", 40), ("b.mp4", 31)):
        with media.ClipWriter(folder / name, 80, 64, 12) as clip:
            clip.write(
                np.linspace(30, 220, count)
                .astype(np.uint8)[:, None, None, None]
                .repeat(64, 1)
                .repeat(80, 2)
                .repeat(3, 3)
            )
    empty = ["-f", "lavfi", "-i", "color=size=64x64:duration=0.01", "-frames:v", "0", str(folder / "none.mp4")]
    subprocess.run([_ffmpeg.executable(), "-loglevel", "quiet", *empty], check=False)
    (folder / "none.mp4").touch()
    return folder


@pytest.fixture(autouse=True)
def inside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clips: Path) -> Path:
    """Every test runs in a folder of its own, with the fake model, pictures and clips."""
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")
    monkeypatch.chdir(tmp_path)
    cli._loaded.clear()
    Image.new("RGB", (64, 64), (200, 30, 30)).save("red.png")
    Image.new("RGB", (64, 64), (30, 200, 30)).save("green.png")
    shutil.copytree(clips, tmp_path, dirs_exist_ok=True)
    Path("bad.png").write_text("no picture")
    Path("empty.mp4").touch()
    Path("text.mp4").write_text("no clip")
    Path("picture.mp4").write_bytes(Path("red.png").read_bytes())
    grid = {"num_frames": 13, "temporal_stride": 6, "fps": 12}
    Path("timeline.json").write_text(json.dumps({"grid": grid, "width": 64, "height": 64, "keyframes": []}))
    Path("other.json").write_text(json.dumps({"grid": grid | {"fps": 30}, "width": 64, "height": 64}))
    Path("list.json").write_text("[]")
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
TASK = ["generate", "--model", "fake", "--steps", "1", "--out", "new/out.mp4"]
FAR = "slot=0,clip=a.mp4,span=2,start=20"  # of a loop

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
    "an empty file as clip": [*TASK, "--clip", "empty.mp4"],
    "a text as clip": [*TASK, "--clip", "text.mp4"],
    "a picture as clip": [*TASK, "--clip", "picture.mp4"],
    "a clip without frames": [*TASK, "--clip", "none.mp4"],
    "no such clip": [*TASK, "--clip", "gone.mp4"],
    "a folder as clip": [*TASK, "--clip", "."],
    "a clip as picture": [*TASK, "--image", "a.mp4"],
    "clip that is too short to restyle": [
        *TASK,
        "--task",
        "restyle",
        "--clip",
        "short.mp4",
        "--frames",
        "37",
        "--prompt",
        "x",
    ],
    "clip shorter than asked": [*TASK, "--task", "restyle", "--clip", "a.mp4", "--frames", "100", "--prompt", "x"],
    "clip b shorter than a slot": [*TASK, "--clip", "a.mp4", "--clip-b", "short.mp4", "--clip-b-range", "3:7"],
    "extend without a clip": [*TASK, "--task", "extend"],
    "transition without clip b": [*TASK, "--task", "transition", "--clip", "a.mp4"],
    "end without a start": [*TASK, "--end", "red.png"],
    "restyle without words": [*TASK, "--task", "restyle", "--clip", "a.mp4"],
    "loop of nothing": [*TASK, "--task", "loop"],
    "loop of too much": [*TASK, "--task", "loop", "--image", "red.png", "--clip", "a.mp4"],
    "loop of two clips": [*TASK, "--task", "loop", "--keyframe", FAR, "--keyframe", "slot=5,clip=b.mp4,span=2"],
    "picture and clip": [*TASK, "--image", "red.png", "--clip", "a.mp4"],
    "clip and keyframe": [*TASK, "--clip", "a.mp4", "--keyframe", "slot=0,image=red.png"],
    "a gap outside the clip": [*TASK, "--clip", "a.mp4", "--gap", "35:45"],
    "a gap behind the clip": [*TASK, "--clip", "a.mp4", "--gap", "100:110"],
    "a gap in keyframes outside": [
        *[*TASK, "--task", "complete", "--gap", "30:45", "--keyframe", "slot=0,clip=a.mp4,span=3,start=17"],
    ],
    "a gap that is everything": [*TASK, "--clip", "a.mp4", "--gap", "0:40"],
    "a gap too long": [*TASK, "--clip", "a.mp4", "--gap", "1:39"],
    "a gap backwards": [*TASK, "--clip", "a.mp4", "--gap", "25:13"],
    "a gap without an end": [*TASK, "--clip", "a.mp4", "--gap", "13:"],
    "a gap in words": [*TASK, "--clip", "a.mp4", "--gap", "the middle"],
    "a gap and nothing else": [*TASK, "--gap", "13:25"],
    "no frames to add": [*TASK, "--clip", "a.mp4", "--frames-to-add", "0"],
    "absurdly many frames to add": [*TASK, "--clip", "a.mp4", "--frames-to-add", "99999"],
    "more frames than can be": [*TASK, "--clip", "a.mp4", "--frames-to-add", "9" * 30],
    "frames to add to a picture": [*TASK, "--image", "red.png", "--frames-to-add", "8"],
    "frames to add when restyling": [
        *[*TASK, "--task", "restyle", "--prompt", "x", "--clip", "a.mp4", "--frames-to-add", "8"],
    ],
    "both ends alone": [*TASK, "--clip", "a.mp4", "--direction", "both", "--result", "made"],
    "direction": [*TASK, "--clip", "a.mp4", "--direction", "up"],
    "style of an extension": [*TASK, "--clip", "a.mp4", "--style", "cross"],
    "a range outside the clip": [*TASK, "--clip", "a.mp4", "--clip-range", "30:50"],
    "a range behind the clip": [*TASK, "--clip", "a.mp4", "--clip-range", "40:"],
    "a range backwards": [*TASK, "--clip", "a.mp4", "--clip-range", "20:10"],
    "a range of nothing": [*TASK, "--image", "red.png", "--clip-range", "1:10"],
    "a range as one number": [*TASK, "--clip", "a.mp4", "--clip-range", "10"],
    "noise nan": [*TASK, "--clip", "a.mp4", "--noise", "nan"],
    "noise above 1": [*TASK, "--clip", "a.mp4", "--noise", "0.2,1.2"],
    "noise of words": [*TASK, "--prompt", "x", "--noise", "0.2"],
    "noises of words": [*TASK, "--prompt", "x", "--noise", "0.2,0.3"],
    "noise of a loop of words": [*TASK, "--task", "loop", "--prompt", "x", "--noise", "0.2"],
    "noise of nothing": [*TASK, "--clip", "a.mp4", "--noise", ","],
    "endless noise": [*TASK, "--clip", "a.mp4", "--noise", ",".join("0" * 1000)],
    "two noises for a picture": [*TASK, "--image", "red.png", "--noise", "0,0.3"],
    "three noises for two pictures": [*TASK, "--image", "red.png", "--end", "red.png", "--noise", "0,0.3,0.4"],
    "noises and keyframes": [*TASK, "--keyframe", "slot=0,image=red.png", "--noise", "0,0.3"],
    "everything clean": [*TASK, "--task", "restyle", "--clip", "a.mp4", "--prompt", "x", "--noise", "0"],
    "a length too short": [*TASK, "--clip", "a.mp4", "--frames", "7"],
    "focus": [*TASK, "--keyframe", "slot=0,image=red.png,focus=top"],
    "focus outside": [*TASK, "--keyframe", "slot=0,image=red.png,focus=0.5:1.5"],
    "no such timeline": [*TASK, "--timeline", "gone.json"],
    "a text as timeline": [*TASK, "--timeline", "text.txt"],
    "a list as timeline": [*TASK, "--timeline", "list.json"],
    "a recipe as timeline": [*TASK, "--timeline", "notes.json"],
    "huge timeline": [*TASK, "--timeline", "huge.json"],
    "empty timeline": [*TASK, "--timeline", "timeline.json"],
    "timeline of another model": [*TASK, "--timeline", "other.json"],
    "timeline and length": [*TASK, "--timeline", "timeline.json", "--frames", "19"],
    "timeline and picture": [*TASK, "--timeline", "timeline.json", "--image", "red.png"],
    "recipe and noise": ["generate", "--recipe", "notes.json", "--noise", "0.2", "--out", "a.mp4"],
    "recipe and colours": ["generate", "--recipe", "notes.json", "--no-color-match", "--out", "a.mp4"],
    "batch and clip": ["generate", "--batch", ".", "--clip", "a.mp4", "--out", "out"],
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


@pytest.mark.parametrize("words", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line_and_writes_nothing(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    before = files()
    assert cli.main(words) == 2
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


WAYS = {
    # what is given: task, frames of the result, noise of the slots
    "--prompt x": ("text-to-video", 37, (1,) * 7),
    "--image red.png": ("image-to-video", 37, (0, *(1,) * 6)),
    "--image red.png --noise 0.2": ("image-to-video", 37, (0.2, *(1,) * 6)),
    "--image red.png --end green.png": ("start-end", 37, (0, *(1,) * 5, 0.3)),
    "--image red.png --end green.png --noise 0.1,0.6": ("start-end", 37, (0.1, *(1,) * 5, 0.6)),
    "--clip a.mp4": ("extend", 40 + 24, (0, 0, 0, 1, 1, 1, 1)),
    "--clip a.mp4 --frames-to-add 48 --direction both": ("extend", 40 + 96, (0, 0, 0, 1, 1, 1, 1)),
    "--clip a.mp4 --noise 0.1,0.2,0.3,0.4 --frames-to-add 5": ("extend", 45, (0.2, 0.3, 0.4, 1, 1, 1, 1)),
    "--clip a.mp4 --direction backwards --noise 0.4,0.2": ("extend", 65, (1, 1, 1, 1, 1, 0.4, 0.2)),
    "--clip a.mp4 --clip-range 10:30": ("extend", 20 + 24, (0, 0, 0, 1, 1, 1, 1)),
    "--clip a.mp4 --result made --frames-to-add 30": ("extend", 30, (0, 0, 0, 1, 1, 1, 1)),
    "--clip a.mp4 --clip-b b.mp4": ("transition", 71 + 12, (0, 0, 0, 1, 1, 0, 0)),
    "--clip a.mp4 --clip-b b.mp4 --noise 0,0.3": ("transition", 71 + 18, (0, 0.3, 1, 1, 1, 0.3, 0)),
    "--clip a.mp4 --clip-b b.mp4 --style cross --clip-b-range :20": (
        *("transition", 40 + 20, (0, 0.3, 0.6, 0.9, 0.6, 0.3, 0)),
    ),
    "--clip a.mp4 --gap 13:25": ("complete", 40, (0, 0, 0, 1, 1, 0, 0)),
    "--clip a.mp4 --gap 13:25 --result made --noise 0.2": ("complete", 12, (0.2, 0.2, 0.2, 1, 1, 0.2, 0.2)),
    "--task loop --image red.png": ("loop", 36, (0, *(1,) * 5, 0.3)),
    "--task loop --image red.png --noise 0.1,0.6": ("loop", 36, (0.1, *(1,) * 5, 0.6)),
    "--task loop --clip a.mp4": ("loop", 52, (0, 0, 0, 1, 1, 0, 0)),
    "--task loop --prompt x --closing 0.2 --frames 25": ("loop", 24, (1,) * 5),
    "--task restyle --clip a.mp4 --prompt x": ("restyle", 37, (0.7,) * 7),
    "--task restyle --clip b.mp4 --prompt x --noise 0.6": ("restyle", 31, (0.6,) * 6),
    "--task restyle --clip a.mp4 --prompt x --frames 20": ("restyle", 20, (0.7,) * 5),
    "--keyframe slot=0,image=red.png": ("image-to-video", 37, (0, *(1,) * 6)),
    "--keyframe slot=3,image=red.png --keyframe slot=6,image=green.png --frames 43": (
        *("keyframes", 43, (1, 1, 1, 0.3, 1, 1, 0.3, 1)),
    ),
    "--task extend --keyframe slot=0,clip=a.mp4,span=2,start=20 --frames-to-add 9": ("extend", 36, (0, 0, *(1,) * 5)),
}


@pytest.mark.parametrize("words", WAYS)
def test_every_task_from_its_options(words: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*TASK, *words.split()]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "new/out.mp4"
    task, frames, noises = WAYS[words]
    recipe = cli.read_recipe(Path("new/out.mp4"))
    assert recipe.task == task
    assert recipe.timeline.noise_multipliers() == pytest.approx(noises)
    assert media.check_clip("new/out.mp4").num_frames == frames
    assert sorted(p.name for p in Path("new").iterdir()) == ["out.mp4"]


def test_a_loop_of_keyframes_closes_as_the_model_advises(monkeypatch: pytest.MonkeyPatch) -> None:
    card = testing.card()
    advice = card.spec.noise.model_copy(update={"end": 0.5, "closing": 0.2})
    card = card.model_copy(update={"spec": card.spec.model_copy(update={"noise": advice})})
    monkeypatch.setattr("pusa_app.studio.card_of", lambda _: card)
    ends = ["--keyframe", "slot=0,image=red.png", "--keyframe", "slot=6,image=red.png"]
    for task, last in (("loop", 0.2), ("start-end", 0.5)):
        options = cli._parser().parse_args([*TASK, "--task", task, *ends])
        assert arguments.recipe_from(options).timeline.keyframes[1].noise == last


def test_a_clip_too_short_to_restyle_is_told_what_helps(capfd: pytest.CaptureFixture[str]) -> None:
    words = "--task restyle --prompt x --clip a.mp4 --clip-range 30:32"
    assert cli.main([*TASK, *words.split()]) == 2
    assert "use a clip of at least 7 frames" in capfd.readouterr().err


def test_a_long_restyling_takes_several_parts(capfd: pytest.CaptureFixture[str]) -> None:
    with media.ClipWriter("long.mp4", 64, 64, 12) as clip:
        clip.write(np.zeros((100, 64, 64, 3), np.uint8))
    words = "--task restyle --clip long.mp4 --prompt x --noise 0.6 --frames 90"
    assert cli.main([*TASK, *words.split()]) == 0
    assert media.check_clip("new/out.mp4").num_frames == 90
    assert "part 3/" in capfd.readouterr().err


def test_colours_are_matched_unless_one_says_otherwise() -> None:
    for words, matched in (
        ("--clip a.mp4", True),
        ("--clip a.mp4 --no-color-match", False),
        ("--image red.png", False),
        ("--image red.png --color-match", True),
    ):
        assert cli.main([*TASK, *words.split()]) == 0
        assert cli.read_recipe(Path("new/out.mp4")).color_match is matched


def test_a_timeline_from_a_file() -> None:
    data = json.loads(Path("timeline.json").read_text())
    keyframe = {"slot": 1, "source": {"kind": "image", "path": "red.png"}, "noise": 0.25, "focus": [0.5, 0.1]}
    Path("timeline.json").write_text(json.dumps(data | {"keyframes": [keyframe]}))
    assert cli.main([*TASK, "--timeline", "timeline.json", "--prompt", "x"]) == 0
    recipe = cli.read_recipe(Path("new/out.mp4"))
    assert recipe.task == "keyframes" and recipe.timeline.noise_multipliers() == (1, 0.25, 1)
    assert recipe.timeline.keyframes[0].focus == (0.5, 0.1)


def test_what_will_fail_is_noted_and_made_all_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    words = "--keyframe slot=0,image=red.png --keyframe slot=2,image=green.png,noise=0"
    assert cli.main([*TASK, *words.split()]) == 0
    (note,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("Note:")]
    assert "Only 1 slot is free" in note


def test_what_a_gap_hides_from_the_model_is_noted(capfd: pytest.CaptureFixture[str]) -> None:
    for gap, notes in (("24:37", 1), ("24:34", 0), ("24:40", 0)):
        assert cli.main([*TASK, "--clip", "a.mp4", "--gap", gap]) == 0
        said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("Note:")]
        assert len(said) == notes and all("Only 3 frames follow the gap" in line for line in said)
        assert media.check_clip("new/out.mp4").num_frames == 40


def test_ranges_in_words() -> None:
    assert [arguments.parse_range(text) for text in ("10:50", ":50", "10:")] == [(10, 50), (0, 50), (10, None)]
    assert arguments.parse_keyframe("slot=0,image=a.png,focus=0.25:1")["focus"] == (0.25, 1)


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


def test_a_video_names_its_sources_as_seen_from_where_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    here, other = Path.cwd(), Path("other").absolute()
    assert cli.main([*TASK, "--image", "red.png"]) == 0
    inside = Recipe.from_json(media.read_recipe_text("new/out.mp4"))
    assert inside.paths == [os.path.join("..", "red.png")], "and not where on this machine that is"
    other.mkdir()
    shutil.copy("green.png", other / "red.png")
    monkeypatch.chdir(other)
    for video in (here / "new/out.mp4", Path("../new/out.mp4")):
        (found,) = cli.read_recipe(video).paths
        assert os.path.samefile(found, here / "red.png")
    # Of one that names them as they were typed, which earlier versions wrote.
    with media.ClipWriter(
        here / "old.mp4", 64, 64, 12, recipe_text=inside.with_paths(lambda _: "red.png").to_json()
    ) as clip:
        clip.write(np.zeros((7, 64, 64, 3), np.uint8))
    assert os.path.samefile(cli.read_recipe(here / "old.mp4").paths[0], here / "red.png")
    (here / "red.png").unlink()
    assert cli.read_recipe(here / "old.mp4").paths == ["red.png"], "the one at hand, where it has none beside it"


def test_sources_are_found_through_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders of the video and of its source may be links: `..` leads out of where they really are."""
    here = Path.cwd()
    for folder in ("deep/down/videos", "far/away/pictures", "some/other/place"):
        Path(folder).mkdir(parents=True)
    Path("out").symlink_to("deep/down/videos")
    Path("in").symlink_to("far/away/pictures")
    shutil.copy("red.png", "far/away/pictures/red.png")
    shutil.copy("green.png", "far/away/green.png")
    Path("alias.png").symlink_to("red.png")
    for source, is_really in (
        ("red.png", "red.png"),
        (str(here / "red.png"), "red.png"),
        ("in/red.png", "far/away/pictures/red.png"),
        ("in/../green.png", "far/away/green.png"),
        ("alias.png", "red.png"),
    ):
        for out in ("out", "plain"):
            monkeypatch.chdir(here)
            assert cli.main([*TASK[:-1], f"{out}/v.mp4", "--image", source]) == 0
            (inside,) = Recipe.from_json(media.read_recipe_text(f"{out}/v.mp4")).paths
            assert not os.path.isabs(inside) and Path(inside).name == Path(source).name
            monkeypatch.chdir("some/other/place")
            for video in (
                here / out / "v.mp4",
                Path("../../..", out, "v.mp4"),
                Path(os.path.realpath(here / out), "v.mp4"),
            ):
                (found,) = cli.read_recipe(video).paths
                assert os.path.samefile(found, here / is_really)
                assert os.path.samefile(os.path.abspath(found), found), "also for who shortens it by its names"


def test_a_source_on_another_drive_is_named_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_way(*_: object) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", no_way)
    assert cli.main([*TASK, "--image", "red.png"]) == 0
    assert Recipe.from_json(media.read_recipe_text("new/out.mp4")).paths == [os.path.abspath("red.png")]


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
