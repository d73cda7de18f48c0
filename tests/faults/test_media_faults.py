"""Hostile, broken and missing files, full disks and killed writers: one line for the user, nothing half done."""

from __future__ import annotations

import io
import os
import random
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pusa_app import media
from pusa_app.errors import MediaError
from pusa_app.media import (
    ClipWriter,
    check_clip,
    check_image,
    count_frames,
    load_clip,
    load_image,
    read_frames,
    read_recipe_text,
    remove_leftovers,
    save_poster,
    stream_clip,
    write_gif,
)
from pusa_app.media import _ffmpeg as ffmpeg_room
from pusa_app.media import clips as clips_room
from pusa_app.media import images as images_room

FRAMES = np.random.default_rng(0).integers(0, 255, (12, 64, 96, 3)).astype(np.uint8)
ROOT = Path(__file__).parents[2]
READERS: list[Callable[[Path], object]] = [
    check_clip,
    read_frames,
    read_recipe_text,
    lambda path: load_clip(path, 32, 32, fps=24, num_frames=2),
    lambda path: list(stream_clip(path, 32, 32, fps=24)),
    lambda path: count_frames(path, 24),
]
READER_NAMES = ["check", "frames", "recipe", "load", "stream", "count"]

posix_only = pytest.mark.skipif(os.name != "posix", reason="uses signals, limits or special files of POSIX")


def ffmpeg(*arguments: str | Path) -> None:
    command = [ffmpeg_room.executable(), "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, timeout=120)


def refused(read: Callable[[Path], object], path: Path) -> str:
    """The message of the MediaError that `read` must raise: one line that names the file."""
    with pytest.raises(MediaError) as caught:
        read(path)
    message = str(caught.value)
    assert message.isprintable(), message
    assert path.name[:40] in message
    assert len(message) < 300
    return message


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "good.mp4"
    with ClipWriter(path, 96, 64, 24, '{"steps": 1}') as writer:
        writer.write(FRAMES)
    return path


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(FRAMES[0]).save(buffer, format=kind)
    return buffer.getvalue()


def png(width: int, height: int, *extra: tuple[bytes, bytes]) -> bytes:
    """A one-bit PNG of any size in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height, 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


# Pictures


@pytest.mark.parametrize(
    "content",
    [
        b"hello, I am a text",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.4\n",
        b"\0" * 5000,
        b"BM",
        b"GIF89a",
    ],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    assert "use a PNG, JPEG" in refused(check_image, path)


def test_formats_that_we_did_not_ask_for_stay_closed(tmp_path: Path) -> None:
    # EPS would start Ghostscript; others are simply not wanted.
    for kind in ("EPS", "PPM", "TGA", "ICO", "PDF"):
        path = tmp_path / f"{kind}.png"
        Image.new("RGB", (32, 32)).save(path, format=kind)
        refused(check_image, path)


def test_a_missing_file_a_folder_and_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "empty.png").touch()
    for read in (check_image, check_clip, read_recipe_text):
        assert "does not exist" in refused(read, tmp_path / "missing.png")
        assert "does not exist" in refused(read, tmp_path / "empty.png" / "below.png")
        assert "is a folder" in refused(read, tmp_path / "folder.png")
        assert "is empty" in refused(read, tmp_path / "empty.png")
        with pytest.raises(MediaError):
            read(tmp_path / "nul\0.png")


@posix_only
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    for read in (check_image, check_clip):
        assert "not an ordinary file" in refused(read, tmp_path / "pipe.mp4")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(9000, 9000), (30_000, 30_000), (60_000, 60_000)])
def test_a_tiny_file_with_a_huge_picture_is_refused_before_it_is_decoded(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "bomb.png"
    data = png(9000, 9000)
    header = struct.pack(">IIBBBBB", *size, 1, 0, 0, 0, 0)
    checked = b"IHDR" + header
    path.write_bytes(data[:12] + checked + struct.pack(">I", zlib.crc32(checked)) + data[33:])
    assert path.stat().st_size < 20_000
    began = time.perf_counter()
    assert "too large" in refused(check_image, path)
    assert "too large" in refused(lambda p: load_image(p, 64, 64), path)
    assert time.perf_counter() - began < 15


def test_a_picture_of_endless_passes_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Each of the 20,000 passes takes 92 bytes in the file and goes over all pixels.
    buffer = io.BytesIO()
    Image.new("RGB", (4000, 4000), (200, 30, 30)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data[data.rindex(b"\xff\xda") : -2]
    path = tmp_path / "bomb.jpg"
    path.write_bytes(data[:-2] + 20_000 * last + b"\xff\xd9")
    monkeypatch.setattr(images_room, "IMAGE_TIMEOUT", 0.5)
    began = time.perf_counter()
    assert "took more than 0 s to open" in refused(check_image, path)
    assert "took more than 0 s to open" in refused(lambda p: load_image(p, 64, 64), path)
    assert time.perf_counter() - began < 60


def test_a_picture_of_too_many_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG"))
    monkeypatch.setattr(images_room, "MAX_IMAGE_BYTES", 1000)
    assert "too large" in refused(check_image, path)


def test_the_limit_of_pillow_itself_is_lowered() -> None:
    # What other libraries of the process open is held to it as well.
    assert Image.MAX_IMAGE_PIXELS == 64_000_000


def test_a_text_chunk_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.png"
    text = b"Comment\0\0" + zlib.compress(bytes(80_000_000), 9)
    path.write_bytes(png(16, 16, (b"zTXt", text)))
    assert "damaged" in refused(check_image, path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_truncated_pictures_are_refused(tmp_path: Path, kind: str) -> None:
    data = encoded(kind)
    path = tmp_path / "cut.png"
    for part in (0.1, 0.5, 0.8):
        path.write_bytes(data[: int(len(data) * part)])
        refused(check_image, path)
        refused(lambda p: load_image(p, 64, 64), path)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # what Pillow has to say about broken tags
@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "jpeg"])
def test_a_damaged_tiff_says_nothing_of_its_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], compression: str
) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
        tmp_path / "a.tif", compression=compression
    )
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[20:120] = bytes(100)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(MediaError, match="damaged"):
        media.check_image(tmp_path / "a.tif")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_scrambled_pictures_load_or_are_refused_and_nothing_else(tmp_path: Path, kind: str) -> None:
    data, dice, outcomes = encoded(kind), random.Random(0), set()
    path = tmp_path / "scrambled.png"
    for _ in range(60):
        broken = bytearray(data)
        for _ in range(dice.choice((1, 5, 50))):
            broken[dice.randrange(min(len(broken), dice.choice((40, 400, 10**6))))] = dice.randrange(256)
        path.write_bytes(broken)
        try:
            outcomes.add(load_image(path, 32, 32).shape)
        except MediaError as error:
            assert str(error).isprintable()
            outcomes.add("refused")
    assert outcomes <= {(32, 32, 3), "refused"}
    assert "refused" in outcomes


# Clips


@pytest.mark.parametrize("read", READERS, ids=READER_NAMES)
def test_a_playlist_named_mp4_reads_no_other_file(tmp_path: Path, clip: Path, read: Callable[[Path], object]) -> None:
    (tmp_path / "secret.mp4").write_bytes(clip.read_bytes())
    playlists = {
        "concat.mp4": "ffconcat version 1.0\nfile secret.mp4\n",
        "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n",
        "dash.mp4": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
    }
    for name, text in playlists.items():
        (tmp_path / name).write_text(text)
        refused(read, tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [b"hello, I am a text\n", b"\0" * 5000, bytes(random.Random(0).randbytes(5000)), encoded("PNG"), encoded("JPEG")],
    ids=["text", "zeros", "noise", "png", "jpeg"],
)
@pytest.mark.parametrize("read", READERS, ids=READER_NAMES)
def test_what_is_no_clip_is_refused(tmp_path: Path, content: bytes, read: Callable[[Path], object]) -> None:
    (tmp_path / "clip.mp4").write_bytes(content)
    refused(read, tmp_path / "clip.mp4")


def test_a_zip_named_mp4_is_refused(tmp_path: Path, clip: Path) -> None:
    with zipfile.ZipFile(tmp_path / "zip.mp4", "w") as archive:
        archive.write(clip, "good.mp4")
    refused(check_clip, tmp_path / "zip.mp4")


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    ffmpeg("-f", "lavfi", "-i", "sine=duration=0.5", path)
    assert "only sound" in refused(check_clip, path)
    assert "only sound" in refused(lambda p: load_clip(p, 32, 32, fps=24, num_frames=1), path)


def test_a_song_with_a_cover_is_no_clip(tmp_path: Path) -> None:
    (tmp_path / "cover.jpg").write_bytes(encoded("JPEG"))
    path = tmp_path / "song.mp4"
    song = ["-f", "lavfi", "-i", "sine=duration=0.5", "-i", tmp_path / "cover.jpg"]
    ffmpeg(*song, "-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v:0", "attached_pic", path)
    assert "only sound" in refused(check_clip, path)


@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.95])
def test_a_clip_that_was_cut_off_is_refused(tmp_path: Path, clip: Path, part: float) -> None:
    plain = tmp_path / "plain.mp4"
    ffmpeg("-i", clip, "-c", "copy", plain)  # the index at the end, as cameras write it
    for number, source in enumerate((clip, plain)):
        data = source.read_bytes()
        path = tmp_path / f"cut{number}.mp4"
        path.write_bytes(data[: int(len(data) * part)])
        assert "cut off" in refused(check_clip, path)
        refused(lambda p: load_clip(p, 32, 32, fps=24, num_frames=12), path)


def test_frames_of_128_megapixels_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bomb.mp4"
    ffmpeg("-f", "lavfi", "-i", "color=size=16384x8192:rate=1", "-frames:v", "1", "-preset", "ultrafast", path)
    assert path.stat().st_size < 1_000_000
    arguments = [*ffmpeg_room.untrusted_input(path, 10**7), "-frames:v", "1", "-f", "framecrc", "pipe:1"]
    output = ffmpeg_room.run(arguments, timeout=30, max_bytes=10**6)
    assert "exceeds specified max pixel count" in output.log, "the decoder itself must refuse, before it has a frame"
    assert not output.ok
    for read in READERS[:2] + READERS[3:]:
        began = time.perf_counter()
        assert "16384x8192" in refused(read, path)
        assert time.perf_counter() - began < 15


def test_pixels_stretched_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "stretched.mp4"
    source = ["-f", "lavfi", "-i", "color=size=4096x2000,setsar=3", "-frames:v", "1"]
    ffmpeg(*source, "-preset", "ultrafast", path)
    assert "too large (12288x2000 pixels)" in refused(check_clip, path)


def test_a_clip_that_lasts_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    ffmpeg("-f", "lavfi", "-i", "color=size=16x16:rate=1:duration=700", "-preset", "ultrafast", path)
    # No more of it was listed, so its length is not known.
    assert refused(check_clip, path) == "long.mp4 lasts longer than 600 s: cut it to 600 s or less."
    sparse = tmp_path / "sparse.mp4"
    ffmpeg("-f", "lavfi", "-i", "color=size=16x16:rate=1/400:duration=1200", "-preset", "ultrafast", sparse)
    assert "cut it to 600 s" in refused(check_clip, sparse)


def test_a_clip_of_too_many_frames_is_refused(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips_room, "MAX_CLIP_FRAMES", 11)
    assert "more than 11 frames" in refused(check_clip, clip)


def test_a_file_that_is_too_large_is_refused(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips_room, "MAX_CLIP_BYTES", 100)
    assert "too large" in refused(check_clip, clip)


def test_more_frames_than_memory_holds_are_refused_before_decoding(clip: Path) -> None:
    with pytest.raises(MediaError, match="do not fit in memory"):
        load_clip(clip, 8192, 8192, fps=24, num_frames=100_000)


@posix_only
@pytest.mark.parametrize("read", READERS, ids=READER_NAMES)
def test_an_ffmpeg_that_hangs_is_ended(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object]
) -> None:
    hanging = tmp_path / "ffmpeg"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    monkeypatch.setattr(ffmpeg_room, "executable", lambda: str(hanging))
    monkeypatch.setattr(clips_room, "CHECK_TIMEOUT", 0.3)
    began = time.perf_counter()
    assert "took more than 0 s" in refused(read, clip)
    assert time.perf_counter() - began < 15


@posix_only
def test_an_ffmpeg_that_never_stops_talking_is_ended(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talking = tmp_path / "ffmpeg"
    talking.write_text("#!/bin/sh\nexec yes\n")
    talking.chmod(0o755)
    monkeypatch.setattr(ffmpeg_room, "executable", lambda: str(talking))
    assert "more than can be read" in refused(check_clip, clip)


def test_scrambled_clips_load_or_are_refused_and_nothing_else(tmp_path: Path, clip: Path) -> None:
    data, dice, outcomes = clip.read_bytes(), random.Random(0), set()
    path = tmp_path / "scrambled.mp4"
    for _ in range(25):
        broken = bytearray(data)
        for _ in range(dice.choice((1, 20, 200))):
            broken[dice.randrange(min(len(broken), dice.choice((2000, 10**7))))] = dice.randrange(256)
        path.write_bytes(broken)
        try:
            outcomes.add(load_clip(path, 32, 32, fps=24, num_frames=12).shape)
        except MediaError as error:
            assert str(error).isprintable()
            outcomes.add("refused")
    assert outcomes <= {(12, 32, 32, 3), "refused"}
    assert "refused" in outcomes


# Writing


def test_a_missing_folder_a_folder_as_target_and_a_folder_that_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken.mp4").mkdir()
    writers: list[Callable[[Path], object]] = [
        lambda path: ClipWriter(path, 96, 64, 24).__enter__(),
        lambda path: write_gif(FRAMES, path, 24),
        lambda path: save_poster(FRAMES[0], path.with_suffix(".png")),
    ]
    for write in writers:
        with pytest.raises(MediaError, match="the folder nowhere does not exist"):
            write(tmp_path / "nowhere" / "a.mp4")
        if Path("/proc/self").is_dir():
            with pytest.raises(MediaError, match=r"^a\.\w+ cannot be written: "):
                write(Path("/proc/self/a.mp4"))
    for write in writers[:2]:
        assert "is a folder" in refused(write, tmp_path / "taken.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.mp4"]


@pytest.mark.parametrize("error", [RuntimeError("model broke"), OSError("not about us"), KeyboardInterrupt()])
def test_an_error_of_the_caller_passes_through_and_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def work() -> None:
        with ClipWriter(tmp_path / "a.mp4", 96, 64, 24, "{}") as clip:
            clip.write(FRAMES)
            raise error

    with pytest.raises(type(error)) as caught:
        work()
    assert caught.value is error
    assert not list(tmp_path.iterdir())


def test_a_clip_without_frames_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"the clip of yesterday")
    with pytest.raises(MediaError, match="there were no frames"), ClipWriter(tmp_path / "a.mp4", 96, 64, 24):
        pass
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"the clip of yesterday"]


def test_frames_after_the_end_are_the_callers_mistake(tmp_path: Path) -> None:
    with ClipWriter(tmp_path / "a.mp4", 96, 64, 24) as clip:
        clip.write(FRAMES)
    with pytest.raises(ValueError, match="inside its with block"):
        clip.write(FRAMES)


@posix_only
def test_an_ffmpeg_that_dies_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dying = tmp_path / "ffmpeg"
    dying.write_text("#!/bin/sh\nhead -c 1000 >/dev/null\necho '[libx264 @ 0x5] out of luck.' >&2\nexit 1\n")
    dying.chmod(0o755)
    monkeypatch.setattr(ffmpeg_room, "executable", lambda: str(dying))
    folder = tmp_path / "out"
    folder.mkdir()
    with (
        pytest.raises(MediaError, match=r"^a\.mp4 cannot be written: ffmpeg failed \(out of luck\)\.$"),
        ClipWriter(folder / "a.mp4", 96, 64, 24) as clip,
    ):
        for _ in range(100):
            clip.write(FRAMES)
    assert not list(folder.iterdir())


def test_no_room_for_temporary_files_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with (
        pytest.raises(MediaError, match=r"^The recipe for the clip cannot be written: no such file or directory\.$"),
        ClipWriter(tmp_path / "a.mp4", 96, 64, 24, "{}"),
    ):
        pass
    assert not list(tmp_path.iterdir())


def run_python(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@posix_only
@pytest.mark.parametrize("part", [0, 0.1, 0.7, 0.999])
def test_a_full_disk_is_one_line_and_the_old_clip_stays(tmp_path: Path, part: float) -> None:
    path = tmp_path / "a.mp4"
    with ClipWriter(path, 96, 64, 24) as clip:
        clip.write(FRAMES)
    limit = int(path.stat().st_size * part)
    path.write_bytes(b"the clip of yesterday")
    code = """
        import resource, sys
        import numpy as np
        from pusa_app.errors import MediaError
        from pusa_app.media import ClipWriter
        frames = np.random.default_rng(0).integers(0, 255, (12, 64, 96, 3)).astype(np.uint8)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
        try:
            with ClipWriter(sys.argv[1], 96, 64, 24) as clip:
                clip.write(frames)
        except MediaError as error:
            print(error)
        """
    process = run_python(code, path, str(limit))
    out, err = process.communicate(timeout=60)
    assert (out, err) == ("a.mp4 cannot be written: the disk is full.\n", "")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"the clip of yesterday"]


@posix_only
def test_a_killed_writer_leaves_the_old_clip_and_a_hidden_rest(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"the clip of yesterday")
    code = """
        import sys, time
        import numpy as np
        from pusa_app.media import ClipWriter
        with ClipWriter(sys.argv[1], 96, 64, 24) as clip:
            while True:
                clip.write(np.random.default_rng(0).integers(0, 255, (30, 64, 96, 3)).astype(np.uint8))
                print("written", flush=True)
                time.sleep(0.05)
        """
    process = run_python(code, tmp_path / "a.mp4")
    assert process.stdout is not None
    for _ in range(3):
        assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2
    assert names[0].startswith(".pusa-")
    assert (tmp_path / "a.mp4").read_bytes() == b"the clip of yesterday"
    # Its ffmpeg sees the end of the pipe and ends by itself; only then the rest may go.
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not ended(tmp_path / names[0]):
        time.sleep(0.1)
    assert ended(tmp_path / names[0])
    assert remove_leftovers(tmp_path, older_than=0) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def ended(part: Path) -> bool:
    """No process has `part` on its command line."""
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if part.name.encode() in line.read_bytes():
                return False
        except OSError:
            continue  # that process is gone
    return True


def test_many_runs_leave_no_thread_and_no_open_file(tmp_path: Path, clip: Path) -> None:
    def open_files() -> int:
        folder = Path("/proc/self/fd")
        return len(list(folder.iterdir())) if folder.is_dir() else 0

    check_clip(clip)
    before = threading.active_count(), open_files()
    for _ in range(10):
        check_clip(clip)
        load_clip(clip, 32, 32, fps=24, num_frames=1)
        with ClipWriter(tmp_path / "a.mp4", 96, 64, 24) as writer:
            writer.write(FRAMES)
    assert threading.active_count() <= before[0]
    assert open_files() <= before[1]
