"""`export` on the command line: a mistake is one line, exit code 2 and nothing written."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from pusa_app import cli, cli_export, media

RECIPE = '{"prompt": "a yellow ring"}'


@pytest.fixture(autouse=True)
def inside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with media.ClipWriter("ring.mp4", 64, 48, 12, RECIPE) as clip:
        clip.write(np.random.default_rng(0).integers(0, 255, (9, 48, 64, 3), dtype=np.uint8))
    Path("text.mp4").write_text("no video")


def files() -> set[str]:
    return {str(path) for path in Path().rglob("*")}


@pytest.mark.parametrize("name", ["a.mp4", "a.WEBM", "new/folder/a.gif", "a.zip"])
def test_the_ending_says_what_is_made(capfd: pytest.CaptureFixture[str], name: str) -> None:
    assert cli.main(["export", "ring.mp4", "--out", name]) == 0
    assert capfd.readouterr() == (f"{name}\n", "")
    if name.endswith(".zip"):
        assert len(zipfile.ZipFile(name).namelist()) == 10
        return
    assert media.check_clip(name).num_frames == 9
    assert media.read_recipe_text(name) == RECIPE


def test_quality_width_and_recipe_are_chosen() -> None:
    sizes = {}
    for quality in ("0", "high", "small", "51"):
        more = ["--quality", quality, "--width", "32", "--without-recipe"]
        assert cli.main(["export", "ring.mp4", "--out", "a.mp4", *more]) == 0
        assert media.check_clip("a.mp4").width == 32
        assert b"yellow" not in Path("a.mp4").read_bytes()
        sizes[quality] = Path("a.mp4").stat().st_size
    assert sorted(sizes.values(), reverse=True) == list(sizes.values())
    assert cli.main(["recipe", "ring.mp4"]) == 2, "not a recipe that can be made again, but it is still there"


MISTAKES = {
    "no output": ["export", "ring.mp4"],
    "no video": ["export", "--out", "a.gif"],
    "no such video": ["export", "gone.mp4", "--out", "new/a.gif"],
    "a text": ["export", "text.mp4", "--out", "new/a.gif"],
    "a folder": ["export", ".", "--out", "a.gif"],
    "unknown ending": ["export", "ring.mp4", "--out", "a.avi"],
    "no ending": ["export", "ring.mp4", "--out", "a"],
    "itself": ["export", "ring.mp4", "--out", "./ring.mp4"],
    "a folder as output": ["export", "ring.mp4", "--out", "folder.mp4"],
    "below a file": ["export", "ring.mp4", "--out", "ring.mp4/a.gif"],
    "an endless name": ["export", "ring.mp4", "--out", "a" * 300 + ".gif"],
    "where nothing can be written": ["export", "ring.mp4", "--out", "/proc/a.gif"],
    "quality in words": ["export", "ring.mp4", "--out", "a.mp4", "--quality", "best"],
    "quality below": ["export", "ring.mp4", "--out", "a.mp4", "--quality", "-1"],
    "quality above": ["export", "ring.mp4", "--out", "a.mp4", "--quality", "52"],
    "endless quality": ["export", "ring.mp4", "--out", "a.mp4", "--quality", "9" * 9999],
    "quality of a gif": ["export", "ring.mp4", "--out", "a.gif", "--quality", "high"],
    "quality of pictures": ["export", "ring.mp4", "--out", "a.zip", "--quality", "high"],
    "width of pictures": ["export", "ring.mp4", "--out", "a.zip", "--width", "32"],
    "width of nothing": ["export", "ring.mp4", "--out", "a.gif", "--width", "0"],
    "width in words": ["export", "ring.mp4", "--out", "a.gif", "--width", "wide"],
    "absurd width": ["export", "ring.mp4", "--out", "a.gif", "--width", "99999"],
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    Path("folder.mp4").mkdir()
    before = files(), Path("ring.mp4").read_bytes()
    assert cli.main(MISTAKES[name]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.strip().endswith((".", "`"))
    assert (files(), Path("ring.mp4").read_bytes()) == before


def test_what_the_command_offers_is_what_the_exports_know() -> None:
    assert {kind: ending for ending, kind in cli_export.KINDS.items()} == media.ENDINGS
    assert cli_export.QUALITIES == media.QUALITIES
