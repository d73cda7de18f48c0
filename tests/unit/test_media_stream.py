"""Clips read piece by piece: the same frames as read whole, in little memory, by an ffmpeg that never outlives them."""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pusa_app.errors import MediaError
from pusa_app.media import ClipWriter, Fit, Focus, check_clip, count_frames, load_clip, read_frames, stream_clip
from pusa_app.media import _ffmpeg as ffmpeg_room
from pusa_app.media import clips as clips_room

WIDTH, HEIGHT = 96, 64

posix_only = pytest.mark.skipif(os.name != "posix", reason="ffmpeg is played by a shell script")


def ffmpeg(*arguments: str | Path) -> None:
    command = [ffmpeg_room.executable(), "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, timeout=60)


def write(path: Path, count: int, fps: float = 24, width: int = WIDTH, height: int = HEIGHT) -> Path:
    rng = np.random.default_rng(count)
    with ClipWriter(path, width, height, fps) as clip:
        for _ in range(count):
            clip.write(rng.integers(0, 255, (1, height, width, 3), dtype=np.uint8))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("clip") / "a.mp4", 40)


@pytest.mark.parametrize("chunk", [1, 7, 10, 16, 40, 100])
def test_pieces_are_the_frames_of_the_whole(clip: Path, chunk: int) -> None:
    whole = load_clip(clip, 48, 32, fps=24, num_frames=40)
    pieces = list(stream_clip(clip, 48, 32, fps=24, chunk=chunk))
    assert [len(piece) for piece in pieces[:-1]] == [chunk] * (len(pieces) - 1)
    assert np.array_equal(np.concatenate(pieces), whole)
    assert not any(np.shares_memory(a, b) for a, b in itertools.pairwise(pieces))


@pytest.mark.parametrize("fps", [24, 12, 48, 30000 / 1001, 7.5])
@pytest.mark.parametrize(("fit", "focus"), [("crop", (0.0, 1.0)), ("crop", (0.5, 0.5)), ("pad", (0.5, 0.5))])
@pytest.mark.parametrize(("start", "num_frames"), [(0, None), (3, None), (0, 5), (4, 7)])
def test_any_part_at_any_rate_is_the_same_as_loaded(
    clip: Path, fps: float, fit: Fit, focus: Focus, start: int, num_frames: int | None
) -> None:
    count = num_frames or count_frames(clip, fps) - start
    loaded = load_clip(clip, 33, 47, fps=fps, start=start, num_frames=count, fit=fit, focus=focus)
    pieces = stream_clip(clip, 33, 47, fps=fps, start=start, num_frames=num_frames, fit=fit, focus=focus, chunk=4)
    assert np.array_equal(np.concatenate(list(pieces)), loaded)


@pytest.mark.parametrize("fps", [25, 30, 60])
def test_a_clip_shorter_than_a_frame_says_so(tmp_path: Path, fps: int) -> None:
    path = write(tmp_path / "a.mp4", 1, fps)
    assert check_clip(path).num_frames == 1
    said = (
        rf"^a\.mp4 lasts {1 / fps:.2g} s, less than one frame at 12 frames a second: use a longer clip, or a picture\.$"
    )
    for read in (
        lambda: count_frames(path, 12),
        lambda: load_clip(path, 32, 32, fps=12, num_frames=1),
        lambda: list(stream_clip(path, 32, 32, fps=12)),
    ):
        with pytest.raises(MediaError, match=said):
            read()
    assert count_frames(path, fps) == 1


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "webm", "avi", "gif"])
@pytest.mark.parametrize("fps", [12.5, 24, 5])
def test_the_count_is_what_can_be_loaded_and_no_frame_more(tmp_path: Path, clip: Path, ending: str, fps: float) -> None:
    path = tmp_path / f"clip.{ending}"
    coding = {"webm": ["-c:v", "libvpx", "-b:v", "2M"], "avi": ["-c:v", "mjpeg", "-q:v", "2"]}.get(ending, [])
    ffmpeg("-i", clip, "-r", "12.5", *coding, path)
    count = count_frames(path, fps)
    assert count == pytest.approx(check_clip(path).seconds * fps, abs=1)
    assert len(load_clip(path, 32, 32, fps=fps, num_frames=count)) == count
    assert sum(map(len, stream_clip(path, 32, 32, fps=fps))) == count
    with pytest.raises(MediaError, match=f"has {count} frames"):
        load_clip(path, 32, 32, fps=fps, num_frames=count + 1)


def test_ten_minutes_at_the_highest_rate_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "slow.mp4"
    ffmpeg("-f", "lavfi", "-i", "color=size=16x16:rate=1:duration=600", "-preset", "ultrafast", path)
    assert count_frames(path, 240) == 240 * 600


def test_the_count_is_kept_until_the_file_is_another(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(clip.read_bytes())
    assert (count_frames(path, 24), count_frames(path, 12)) == (40, 20)
    runs = []
    run = ffmpeg_room.run
    monkeypatch.setattr(ffmpeg_room, "run", lambda *args, **named: runs.append(args) or run(*args, **named))
    assert (count_frames(path, 24), count_frames(str(path), 12)) == (40, 20)
    assert not runs
    write(path, 9)
    assert count_frames(path, 24) == 9
    assert runs
    path.unlink()
    with pytest.raises(MediaError, match="does not exist"):
        count_frames(path, 24)


def test_a_clip_that_is_too_short_says_so_after_its_frames(clip: Path) -> None:
    def message(read: Iterator[np.ndarray] | None, **part: int) -> str:
        with pytest.raises(MediaError) as caught:
            for _ in read or [load_clip(clip, 32, 32, fps=24, **part)]:
                pass
        return str(caught.value)

    for start, num_frames in ((0, 41), (35, 6), (500, 1)):
        part = {"start": start, "num_frames": num_frames}
        pieces = stream_clip(clip, 32, 32, fps=24, **part)
        got = 0
        with pytest.raises(MediaError, match="has 40 frames at 24 frames a second"):
            for piece in pieces:
                got += len(piece)
        assert got == max(0, 40 - start)
        assert message(stream_clip(clip, 32, 32, fps=24, **part)) == message(None, **part)
    assert "1 are asked for from frame 40 on" in message(stream_clip(clip, 32, 32, fps=24, start=40))


@pytest.mark.parametrize(("start", "num_frames"), [(-1, None), (-1, 3), (0, 0), (0, -2)])
def test_impossible_parts_are_refused_at_once(clip: Path, start: int, num_frames: int | None) -> None:
    with pytest.raises(MediaError, match="not a part of a clip"):
        stream_clip(clip, 32, 32, fps=24, start=start, num_frames=num_frames)


@pytest.mark.parametrize("wrong", [{"chunk": 0}, {"width": 0}, {"height": -3}])
def test_impossible_sizes_are_the_callers_mistake(clip: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        stream_clip(clip, **{"width": 32, "height": 32, "chunk": 1} | wrong, fps=24)


def test_what_is_wrong_with_a_file_is_said_before_the_first_frame(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no clip")
    with pytest.raises(MediaError, match=r"a\.mp4 is damaged"):
        stream_clip(tmp_path / "a.mp4", 32, 32, fps=24)


def test_pieces_that_do_not_fit_in_memory_are_refused_but_a_long_clip_is_not(clip: Path) -> None:
    with pytest.raises(MediaError, match="do not fit in memory"):
        stream_clip(clip, 8192, 8192, fps=24, chunk=100)
    stream_clip(clip, 8192, 8192, fps=24, num_frames=100_000, chunk=1)


def test_memory_does_not_grow_with_the_clip(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", 400, width=192, height=128)
    piece = 4 * 192 * 128 * 3
    tracemalloc.start()
    try:
        assert sum(len(frames) for frames in stream_clip(path, 192, 128, fps=24, chunk=4)) == 400
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * piece + 2**20, "the clip has a hundred pieces"


def children() -> list[Path]:
    """The ffmpegs that this process has started and that are not gone."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
            if "ffmpeg" in name and int(rest.split()[1]) == os.getpid():
                found.append(stat.parent)
        except (OSError, ValueError):
            continue  # that process is gone
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_a_closed_stream_leaves_no_process_thread_or_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", 300, width=192, height=128)
    check_clip(path)
    before = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    for leave in (lambda s: s.close(), lambda s: None, lambda s: [*s]):
        stream = stream_clip(path, 192, 128, fps=24, chunk=4)
        assert not children(), "nothing runs before the first piece is wanted"
        next(stream)
        assert len(children()) == 1
        leave(stream)
        del stream
        assert not children()
    with pytest.raises(RuntimeError, match="of the caller"):
        for _ in stream_clip(path, 192, 128, fps=24, chunk=4):
            raise RuntimeError("of the caller")
    assert not children()
    assert threading.active_count() <= before[0]
    assert len(list(Path("/proc/self/fd").iterdir())) <= before[1]


def played_by(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `script` be the ffmpeg that decodes; the files are checked and counted by the real one."""
    real = shlex.quote(ffmpeg_room.executable())
    path = folder / "ffmpeg"
    path.write_text(f'#!/bin/sh\ncase "$*" in *rawvideo*) ;; *) exec {real} "$@" ;; esac\n{script}\n')
    path.chmod(0o755)
    monkeypatch.setattr(ffmpeg_room, "executable", lambda: str(path))


@posix_only
@pytest.mark.parametrize("frames", [0, 1, 4, 6, 8], ids="after {} frames".format)
def test_an_ffmpeg_that_stalls_is_ended(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, frames: int
) -> None:
    played_by(f"head -c {frames * 32 * 32 * 3} /dev/zero; exec sleep 60", tmp_path, monkeypatch)
    monkeypatch.setattr(clips_room, "LOAD_TIMEOUT", 0.5)
    began = time.perf_counter()
    got = 0
    with pytest.raises(MediaError, match=r"^a\.mp4 took more than 0 s to read"):
        for piece in stream_clip(clip, 32, 32, fps=24, num_frames=8, chunk=4):
            got += len(piece)
    assert time.perf_counter() - began < 15
    assert got == (4 if frames >= 4 else 0), "no piece that may be a part of one"


@posix_only
def test_a_caller_that_takes_its_time_is_waited_for(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips_room, "LOAD_TIMEOUT", 2.0)
    stream = stream_clip(clip, WIDTH, HEIGHT, fps=24, chunk=10)
    first = next(stream)
    time.sleep(2.5)
    assert len(first) + sum(map(len, stream)) == 40


@posix_only
def test_an_ffmpeg_that_talks_on_standard_error_is_not_in_the_way(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Far more than a pipe holds, before the first frame.
    talk = "yes 'a frame is not as it should be' | head -c 2000000 >&2"
    played_by(f"{talk}; head -c {8 * 32 * 32 * 3} /dev/zero", tmp_path, monkeypatch)
    monkeypatch.setattr(clips_room, "LOAD_TIMEOUT", 20.0)
    assert sum(map(len, stream_clip(clip, 32, 32, fps=24, num_frames=8, chunk=4))) == 8


@posix_only
@pytest.mark.parametrize(
    ("script", "message"),
    [
        (f"head -c {6 * 32 * 32 * 3} /dev/zero; echo 'Invalid data found' >&2; exit 1", "damaged, cut off"),
        (f"head -c {8 * 32 * 32 * 3} /dev/zero; exit 1", "damaged, cut off"),
        ("exec cat /dev/zero", "holds more than can be read"),
    ],
    ids=["fails within", "fails at the end", "never ends"],
)
def test_an_ffmpeg_that_fails_is_one_line(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    played_by(script, tmp_path, monkeypatch)
    got = 0
    with pytest.raises(MediaError, match=message):
        for piece in stream_clip(clip, 32, 32, fps=24, num_frames=8, chunk=4):
            got += len(piece)
    assert got == 4
    with pytest.raises(MediaError, match=message):
        load_clip(clip, 32, 32, fps=24, num_frames=8)


@posix_only
def test_a_stream_to_the_end_has_an_end(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played_by("exec cat /dev/zero", tmp_path, monkeypatch)
    monkeypatch.setattr(clips_room, "MAX_CLIP_SECONDS", 2.0)
    with pytest.raises(MediaError, match="holds more than can be read"):
        for _ in stream_clip(clip, 32, 32, fps=24):
            pass


def test_a_whole_clip_at_its_own_size_is_still_read_at_once(clip: Path) -> None:
    assert np.array_equal(read_frames(clip), load_clip(clip, WIDTH, HEIGHT, fps=24, num_frames=40))
