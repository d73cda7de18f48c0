"""Videos in the forms that other programs want: MP4, WebM, GIF, single pictures."""

from __future__ import annotations

import contextlib
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from PIL import Image

from pusa_app.errors import MediaError
from pusa_app.media import _ffmpeg
from pusa_app.media._convert import NO_TAGS, convert, failure
from pusa_app.media._files import StrPath, atomic_output, label, readable_file, scratch_folder, writing
from pusa_app.media._look import SWS
from pusa_app.media.clips import (
    CHECK_TIMEOUT,
    MAX_CLIP_PIXELS,
    ClipInfo,
    check_clip,
    in_srgb,
    listing,
    read_recipe_text,
    stream_frames,
)
from pusa_app.media.writer import BITEXACT, BT709, ENCODER_THREADS, tag_file

# What a kind of export is called, and how its files end.
ENDINGS = {"mp4": ".mp4", "webm": ".webm", "gif": ".gif", "frames": ".zip"}
QUALITIES = ("high", "medium", "small")
MAX_CRF = {"mp4": 51, "webm": 63}
MAX_WIDTH = 4096
EXPORT_TIMEOUT = 3600.0

# The same looks, on the scales of x264 and of VP9.
_CRF = {"mp4": {"high": 17, "medium": 23, "small": 30}, "webm": {"high": 18, "medium": 30, "small": 42}}
_MAX_GIF_RATE = 50  # players slow down what is faster
_CHUNK = 1 << 18


def export_clip(
    source: StrPath,
    out: StrPath,
    kind: str,
    *,
    quality: str | int | None = None,
    recipe: bool | str = True,
    width: int | None = None,
) -> None:
    """Write the video `source` to `out` as one of ENDINGS: "mp4", "webm", "gif" or "frames".

    mp4: H.264. Without quality and width, the pictures are copied as they are compressed, which costs nothing.
    webm: VP9.  gif: repeats without end, with a palette of its own, at most 50 frames a second.
    frames: a zip of PNGs, frame-000000.png and so on, each exactly as decoded, with recipe.json.

    quality is one of QUALITIES, or a crf: 0 (best) to 51 for mp4, to 63 for webm; the other kinds have none. width is
    that of the result in pixels, the height follows; of an MP4 both become even. recipe: True keeps the one that is
    inside the source, False leaves it out, a text (JSON) takes its place. Nothing else that the source holds beside its
    pictures comes along: no other tags, no sound.

    The same source gives the same bytes. Memory does not grow with the length. Raises MediaError when the source is no
    clip or damaged, a choice does not exist, `out` cannot be written or is the source, or the disk is full; then what
    was at `out` before is still there.
    """
    if kind not in ENDINGS:
        raise MediaError(f"There is no export {label(kind)}: choose one of {', '.join(ENDINGS)}.")
    crf = _crf(kind, quality, width)
    file = readable_file(source, "video")
    if os.path.exists(out) and os.path.samefile(file, out):
        raise MediaError(f"{label(out)} is the video itself: choose another name for the export.")
    info = check_clip(file)
    text = recipe if isinstance(recipe, str) else _recipe_of(file) if recipe else None
    with atomic_output(out) as part:
        if kind == "frames":
            _frames(file, label(out), part, info, text)
        elif kind == "gif":
            _gif(file, label(out), part, info, text, _size(info, width, even=False))
        elif crf is None:
            _copy(file, label(out), part, text)
        else:
            size = _size(info, width, even=kind == "mp4")
            coding = _h264(file, size, crf) if kind == "mp4" else _vp9(file, size, crf)
            _with_tags(file, label(out), part, text, coding)


def _crf(kind: str, quality: str | int | None, width: int | None) -> int | None:
    """The crf that a quality stands for; None for pictures that are not encoded again, or have no quality."""
    if width is not None:
        if kind == "frames":
            raise MediaError("Single pictures keep their size: leave out the width.")
        if not 2 <= width <= MAX_WIDTH:
            raise MediaError(f"A width of {width} pixels cannot be: use 2 to {MAX_WIDTH}.")
    if kind not in _CRF:
        if quality is not None:
            what = "A GIF has" if kind == "gif" else "Single pictures have"
            raise MediaError(f"{what} no quality to choose: leave it out.")
        return None
    if quality is None:
        return None if kind == "mp4" and width is None else _CRF[kind]["high"]
    if isinstance(quality, str):
        if quality not in QUALITIES:
            raise MediaError(f"There is no quality {label(quality)}: use {', '.join(QUALITIES)} or a number.")
        return _CRF[kind][quality]
    if not 0 <= quality <= MAX_CRF[kind]:
        raise MediaError(f"The quality {quality} is outside 0 (best) to {MAX_CRF[kind]} (worst).")
    return quality


def _size(info: ClipInfo, width: int | None, even: bool) -> tuple[int, int]:
    if width is None:
        width, height = info.width, info.height
    else:
        height = max(round(width * info.height / info.width), 1)
    if even:
        width, height = max(width - width % 2, 2), max(height - height % 2, 2)
    if width * height > MAX_CLIP_PIXELS:
        raise MediaError(f"{width}x{height} pixels are too large for a video: choose a smaller width.")
    return width, height


def _recipe_of(file: Path) -> str | None:
    try:
        return read_recipe_text(file)
    except MediaError:
        return None  # the clip was checked: there is none


def _to_bt709(file: Path, size: tuple[int, int]) -> str:
    scale = f"scale={size[0]}:{size[1]}:out_color_matrix=bt709:out_range=tv:{SWS}"
    return ",".join([*in_srgb(file, size), scale, "setsar=1"])


def _h264(file: Path, size: tuple[int, int], crf: int) -> list[str]:
    return [
        *("-vf", _to_bt709(file, size), "-pix_fmt", "yuv420p", *BT709),
        *("-fps_mode", "passthrough", "-enc_time_base", "demux"),
        *("-c:v", "libx264", "-preset", "medium", "-crf", str(crf), "-threads", ENCODER_THREADS),
        *("-movflags", "+faststart+use_metadata_tags", "-f", "mp4"),
    ]


def _vp9(file: Path, size: tuple[int, int], crf: int) -> list[str]:
    return [
        *("-vf", _to_bt709(file, size), "-pix_fmt", "yuv420p", *BT709),
        *("-fps_mode", "passthrough", "-enc_time_base", "demux"),
        # A bit rate of 0 makes it the crf alone that decides.
        *("-c:v", "libvpx-vp9", "-crf", str(crf), "-b:v", "0", "-deadline", "good", "-cpu-used", "3"),
        *("-threads", ENCODER_THREADS, "-f", "webm"),
    ]


def _copy(file: Path, name: str, part: Path, text: str | None) -> None:
    codec = re.search(
        r"^#codec_id 0: (\w+)$", listing(label(file), file, ["-c", "copy", "-frames:v", "1"], CHECK_TIMEOUT), re.M
    )
    if codec is None or codec[1] != "h264":
        raise MediaError(f"{label(file)} holds no H.264 that could be copied: choose a quality for the MP4.")
    _with_tags(file, name, part, text, ["-c", "copy", "-movflags", "+faststart+use_metadata_tags", "-f", "mp4"])


def _with_tags(file: Path, name: str, part: Path, text: str | None, coding: list[str]) -> None:
    with tag_file(text) as tags:
        inside = ["-f", "ffmetadata", "-i", _ffmpeg.file_url(tags)] if tags else []
        kept = [*NO_TAGS, *(["-map_metadata", "1"] if tags else [])]
        convert(file, name, part, [*inside, "-map", "0:V:0", *kept, *BITEXACT, *coding], EXPORT_TIMEOUT)


# --- GIF -------------------------------------------------------------------------------------------------------------


def _gif(file: Path, name: str, part: Path, info: ClipInfo, text: str | None, size: tuple[int, int]) -> None:
    rate = f"fps={_MAX_GIF_RATE}:round=near," if info.fps > _MAX_GIF_RATE else ""
    scale = ",".join([*in_srgb(file, size), f"scale={size[0]}:{size[1]}:{SWS}"])
    fitted = f"setpts=PTS-STARTPTS,{rate}{scale},setsar=1,format=rgb24"
    source = _ffmpeg.untrusted_input(file, MAX_CLIP_PIXELS)
    # Two runs: in one, ffmpeg would hold all frames until it has seen the last colour.
    with scratch_folder(None) as folder:
        palette = folder / "palette.png"
        look = ["-map", "0:V:0", "-vf", f"{fitted},palettegen=reserve_transparent=1", "-frames:v", "1", "-f", "image2"]
        convert(file, name, palette, [*look, "-update", "1", "-c:v", "png"], EXPORT_TIMEOUT)
        paint = f"[0:V:0]{fitted}[a];[a][1:v]paletteuse=dither=sierra2_4a:diff_mode=rectangle"
        arguments = [
            *(*source, "-i", _ffmpeg.file_url(palette), "-lavfi", paint, *NO_TAGS, *BITEXACT),
            *("-fps_mode", "passthrough", "-loop", "0", "-f", "gif", "pipe:1"),
        ]
        with _ffmpeg.Process(arguments) as process, process.within(EXPORT_TIMEOUT):
            with writing(name), open(part, "wb") as target:
                _head(process, target, text)
                while chunk := process.read(_CHUNK):
                    target.write(chunk)
            output = process.end()
        if not output.ok:
            raise failure(file, name, output, EXPORT_TIMEOUT)


def _head(process: _ffmpeg.Process, target: IO[bytes], text: str | None) -> None:
    """Pass the beginning of a GIF on, with the recipe as a comment behind it; ffmpeg reads comments and writes none."""
    start = process.read(13)
    # Bit 7: a palette follows; bits 0 to 2: of 2 to 256 colours.
    colours = 3 << ((start[10] & 7) + 1) if len(start) == 13 and start[10] & 0x80 else 0
    target.write(start + process.read(colours))
    if text is None:
        return
    # The extension that says "again and again" is best the first: some programs look for it there.
    repeat = process.read(19)
    target.write(repeat)
    if not repeat.startswith(b"\x21\xff\x0bNETSCAPE2.0"):
        return
    data = text.encode()
    target.write(b"\x21\xfe")
    for at in range(0, len(data), 255):
        piece = data[at : at + 255]
        target.write(bytes([len(piece)]) + piece)
    target.write(b"\0")


# --- frames ----------------------------------------------------------------------------------------------------------


def _frames(file: Path, name: str, part: Path, info: ClipInfo, text: str | None) -> None:
    with contextlib.closing(stream_frames(file, info)) as pieces, writing(name), zipfile.ZipFile(part, "w") as archive:
        for number, frame in enumerate(frame for frames in pieces for frame in frames):
            with _entry(archive, f"frame-{number:06d}.png") as entry:
                Image.fromarray(frame).save(entry, format="PNG")
        if text is not None:
            with _entry(archive, "recipe.json") as entry:
                entry.write(text.encode())


@contextlib.contextmanager
def _entry(archive: zipfile.ZipFile, name: str) -> Iterator[IO[bytes]]:
    # Of a fixed time, so that the same frames give the same bytes. PNGs are compressed already.
    with archive.open(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), "w") as entry:
        yield entry
