"""Intake and exports under hostile, broken and missing files, full disks and a hanging ffmpeg: one line, no rest."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pusa_app.errors import MediaError
from pusa_app.media import ENDINGS, ClipWriter, export_clip, take_clip, take_image
from pusa_app.media import _ffmpeg as ffmpeg_room
from pusa_app.media import clips as clips_room
from pusa_app.media import export as export_room
from pusa_app.media import intake as intake_room

FRAMES = np.random.default_rng(0).integers(0, 255, (12, 64, 96, 3)).astype(np.uint8)
ROOT = Path(__file__).parents[2]
WORKS: dict[str, Callable[[Path, Path], object]] = {
    "take clip": take_clip,
    "take picture": take_image,
    "mp4 copied": lambda source, out: export_clip(source, out, "mp4"),
    "mp4": lambda source, out: export_clip(source, out, "mp4", quality="small"),
    "webm": lambda source, out: export_clip(source, out, "webm"),
    "gif": lambda source, out: export_clip(source, out, "gif"),
    "frames": lambda source, out: export_clip(source, out, "frames"),
}
CLIP_WORKS = [name for name in WORKS if name != "take picture"]

posix_only = pytest.mark.skipif(os.name != "posix", reason="uses limits or shell scripts")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "good.mp4"
    with ClipWriter(path, 96, 64, 24, '{"steps": 1}') as clip:
        clip.write(FRAMES)
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.fromarray(FRAMES[0]).save(tmp_path / "good.png")
    return tmp_path / "good.png"


def refused(work: str, source: Path, out: Path) -> str:
    """The message of the MediaError; nothing new is beside `out`, and what was there is still there."""
    before = {path: path.read_bytes() for path in out.parent.iterdir() if path.is_file()} if out.parent.is_dir() else {}
    with pytest.raises(MediaError) as caught:
        WORKS[work](source, out)
    after = {path: path.read_bytes() for path in out.parent.iterdir() if path.is_file()} if out.parent.is_dir() else {}
    assert after == before
    message = str(caught.value)
    assert message.isprintable() and message.endswith("."), message
    assert ".part" not in message
    assert len(message) < 300
    return message


@pytest.mark.parametrize("work", WORKS)
def test_missing_empty_and_wrong_sources(tmp_path: Path, work: str) -> None:
    out = tmp_path / "out"
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("hello")
    (tmp_path / "folder").mkdir()
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile good.mp4\n")
    assert "does not exist" in refused(work, tmp_path / "gone", out)
    assert "is empty" in refused(work, tmp_path / "empty", out)
    assert "is a folder" in refused(work, tmp_path / "folder", out)
    assert "text" in refused(work, tmp_path / "text", out)
    assert "list.mp4" in refused(work, tmp_path / "list.mp4", out)


@pytest.mark.parametrize("work", WORKS)
def test_outputs_that_cannot_be(tmp_path: Path, video: Path, picture: Path, work: str) -> None:
    source = picture if work == "take picture" else video
    assert "the folder nowhere does not exist" in refused(work, source, tmp_path / "nowhere" / "out")
    (tmp_path / "taken").mkdir()
    assert "is a folder" in refused(work, source, tmp_path / "taken")
    if Path("/proc/self").is_dir():
        with pytest.raises(MediaError, match=r"^out cannot be written: "):
            WORKS[work](source, Path("/proc/self/out"))


@pytest.mark.parametrize("part", [0.3, 0.7])
@pytest.mark.parametrize("work", CLIP_WORKS)
def test_sources_that_were_cut_off(tmp_path: Path, video: Path, work: str, part: float) -> None:
    data = video.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: int(len(data) * part)])
    assert "cut.mp4" in refused(work, tmp_path / "cut.mp4", tmp_path / "out")


@posix_only
@pytest.mark.parametrize("part", [0.1, 0.5, 0.98])
@pytest.mark.parametrize("work", WORKS)
def test_a_full_disk(tmp_path: Path, video: Path, picture: Path, work: str, part: float) -> None:
    source, out = (picture if work == "take picture" else video), tmp_path / "new" / "out"
    out.parent.mkdir()
    WORKS[work](source, out)
    limit = int(out.stat().st_size * part)
    out.write_bytes(b"what was here yesterday")
    code = """
        import resource, sys
        from pusa_app.errors import MediaError
        from tests.faults.test_intake_export_faults import WORKS
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY))
        try:
            WORKS[sys.argv[1]](sys.argv[2], sys.argv[3])
        except MediaError as error:
            print(error)
        """
    command = [sys.executable, "-c", textwrap.dedent(code), work, str(source), str(out), str(limit)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert run.stderr == ""
    assert "cannot be written" in run.stdout and ("full" in run.stdout or "too large" in run.stdout), run.stdout
    assert [path.read_bytes() for path in out.parent.iterdir()] == [b"what was here yesterday"]


@posix_only
@pytest.mark.parametrize("work", CLIP_WORKS)
def test_an_ffmpeg_that_hangs_is_ended(tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch, work: str) -> None:
    # The checks are the real ones; only what writes hangs.
    real = shlex.quote(ffmpeg_room.executable())
    fake = tmp_path / "ffmpeg"
    fake.write_text(
        f'#!/bin/sh\ncase "$*" in *.part*|*palette*|*rawvideo*) exec sleep 60;; *) exec {real} "$@";; esac\n'
    )
    fake.chmod(0o755)
    monkeypatch.setattr(ffmpeg_room, "executable", lambda: str(fake))
    monkeypatch.setattr(intake_room, "TAKE_TIMEOUT", 0.5)
    monkeypatch.setattr(export_room, "EXPORT_TIMEOUT", 0.5)
    monkeypatch.setattr(clips_room, "LOAD_TIMEOUT", 0.5)
    began = time.perf_counter()
    assert "took more than 0 s" in refused(work, video, tmp_path / "out")
    assert time.perf_counter() - began < 20


def test_a_copy_that_would_be_too_large_is_refused(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_room, "MAX_COPY_BYTES", 50_000)
    export_clip(video, tmp_path / "plain.mp4", "mp4", recipe=False)
    assert "too long or too large" in refused("take clip", tmp_path / "plain.mp4", tmp_path / "out")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("of the caller")])
def test_a_stop_in_the_middle_leaves_nothing(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def stop(*_: object) -> bytes:
        raise error

    monkeypatch.setattr(ffmpeg_room.Process, "read", stop)
    monkeypatch.setattr(export_room, "check_clip", lambda _: clips_room.ClipInfo(96, 64, 24, 12, 0.5))
    with pytest.raises(type(error)):
        export_clip(video, tmp_path / "out", "gif", recipe="{}")
    assert [path.name for path in tmp_path.iterdir()] == ["good.mp4"]


@pytest.mark.parametrize("kind", ["avi", "", "MP4", "../mp4\n"])
def test_an_unknown_kind(tmp_path: Path, video: Path, kind: str) -> None:
    with pytest.raises(MediaError, match="There is no export") as caught:
        export_clip(video, tmp_path / "out", kind)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", ENDINGS)
@pytest.mark.parametrize(
    "choice", [{"quality": "best"}, {"quality": 64}, {"quality": -1}, {"width": 1}, {"width": 5000}]
)
def test_choices_that_do_not_exist(tmp_path: Path, video: Path, kind: str, choice: dict) -> None:
    with pytest.raises(MediaError) as caught:
        export_clip(video, tmp_path / "out", kind, **choice)
    assert str(caught.value).endswith(".")
    assert not (tmp_path / "out").exists()


def test_the_video_itself_is_no_output(tmp_path: Path, video: Path) -> None:
    before = video.read_bytes()
    os.symlink(video, tmp_path / "link.mp4")
    for name in ("good.mp4", "link.mp4"):
        with pytest.raises(MediaError, match="is the video itself"):
            export_clip(video, tmp_path / name, "mp4", quality="small")
    assert video.read_bytes() == before


def test_only_h264_is_copied_into_an_mp4(tmp_path: Path, video: Path) -> None:
    export_clip(video, tmp_path / "a.webm", "webm")
    with pytest.raises(MediaError, match="choose a quality"):
        export_clip(tmp_path / "a.webm", tmp_path / "b.mp4", "mp4")
    export_clip(tmp_path / "a.webm", tmp_path / "b.mp4", "mp4", quality=20)
    assert (tmp_path / "b.mp4").exists()
