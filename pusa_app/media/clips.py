"""Clips: what they are, whether they are sound, their frames at a model's size, and the recipe inside."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from pusa_app.errors import MediaError
from pusa_app.media import _ffmpeg
from pusa_app.media._files import StrPath, label, readable_file
from pusa_app.media._look import LOOK, SWS, Look, can_convert, parse_look, to_srgb
from pusa_app.media.fit import Fit, Focus, Frames, scaled_size

MAX_CLIP_PIXELS = 4096 * 2304
MAX_CLIP_SECONDS = 600.0
MAX_CLIP_FRAMES = 36_000
MAX_CLIP_BYTES = 4_000_000_000
MAX_DECODED_BYTES = 4_000_000_000
CHECK_TIMEOUT = 60.0
LOAD_TIMEOUT = 300.0

RECIPE_KEY = "pusa_recipe"
_MAX_TAG_BYTES = 16_000_000
_MAX_LISTING_BYTES = 16_000_000  # ten minutes at 240 frames a second are 9 MB


@dataclass(frozen=True)
class ClipInfo:
    """A readable clip: size in pixels as it is shown (upright, square pixels), average rate, frames, duration."""

    width: int
    height: int
    fps: float
    num_frames: int
    seconds: float


def check_clip(path: StrPath) -> ClipInfo:
    """List the clip's frames and decode the first.

    Raises MediaError when it is no clip, damaged, over a limit, or HDR that this ffmpeg cannot bring to sRGB.
    """
    file = readable_file(path, "clip")
    name = label(path)
    if os.path.getsize(file) > MAX_CLIP_BYTES:
        raise MediaError(f"{name} is too large: use a clip of less than {MAX_CLIP_BYTES // 10**9} GB.")
    first = listing(name, file, ["-frames:v", "1"], CHECK_TIMEOUT)
    width, height = _shown_size(name, first)
    look = clip_look(file)
    if look is not None and look.hdr and not can_convert():
        raise MediaError(
            f"{name} is an HDR clip, and this ffmpeg has no zscale and tonemap to read it with: export it as SDR, or "
            "unset IMAGEIO_FFMPEG_EXE to use the ffmpeg that comes along."
        )
    packets = listing(name, file, ["-c", "copy", "-frames:v", str(MAX_CLIP_FRAMES + 1)], CHECK_TIMEOUT, strict=True)
    times = _times(name, packets)
    if len(times) > MAX_CLIP_FRAMES:
        raise MediaError(f"{name} has more than {MAX_CLIP_FRAMES} frames: cut a shorter piece out of it.")
    begin = min(start for start, _ in times)
    seconds = float(max(start + length for start, length in times) - begin)
    if seconds > MAX_CLIP_SECONDS:
        # How much longer is not known: the listing was cut off.
        raise MediaError(
            f"{name} lasts longer than {MAX_CLIP_SECONDS:.0f} s: cut it to {MAX_CLIP_SECONDS:.0f} s or less."
        )
    nominal = float(1 / _header(first, "tb"))
    average = len(times) / seconds if seconds > 0 else nominal
    # Containers with coarse clocks (WebM: 1 ms) give 29.97 only on average; the nominal rate is exact when it agrees.
    fps = nominal if abs(nominal / average - 1) < 0.01 else average
    return ClipInfo(width, height, fps, len(times), seconds)


def most_frames(fps: float) -> int:
    """How many frames a clip at `fps` may have for `check_clip` to take it."""
    return min(int(MAX_CLIP_SECONDS * fps), MAX_CLIP_FRAMES)


def count_frames(path: StrPath, fps: float) -> int:
    """How many frames `load_clip` finds in a clip at `fps`. Raises MediaError as `check_clip`.

    Only decoding tells, so it costs about what reading the clip costs; the answer is kept while the file is the same.
    """
    status = readable_file(path, "clip").stat()
    return _count_frames(os.path.abspath(path), fps, (status.st_mtime_ns, status.st_size))


def load_clip(
    path: StrPath,
    width: int,
    height: int,
    *,
    fps: float,
    start: int = 0,
    num_frames: int,
    fit: Fit = "crop",
    focus: Focus = (0.5, 0.5),
) -> Frames:
    """`num_frames` frames from frame `start` on, counted at `fps`: uint8 (num_frames, height, width, 3).

    The clip is brought to `fps` by dropping or repeating frames. The whole clip up to the last wanted frame is decoded,
    since frame numbers are exact only so. HDR and wide-gamut clips are brought to sRGB; of all others nothing but the
    size is changed. Raises MediaError as `check_clip`, and when the clip is too short.
    """
    # max: a length that is none is refused by the stream, in its words.
    chunk = max(num_frames, 1)
    (frames,) = stream_clip(
        path, width, height, fps=fps, start=start, num_frames=num_frames, fit=fit, focus=focus, chunk=chunk
    )
    return frames


def stream_clip(
    path: StrPath,
    width: int,
    height: int,
    *,
    fps: float,
    start: int = 0,
    num_frames: int | None = None,
    fit: Fit = "crop",
    focus: Focus = (0.5, 0.5),
    chunk: int = 16,
) -> Generator[Frames, None, None]:
    """The frames of `load_clip` in pieces of `chunk` frames (the last one may be shorter), as they are decoded.

    None as `num_frames`: up to the end of the clip. Each piece is a uint8 (n, height, width, 3) array of its own;
    memory does not grow with the clip. The file is checked at once; one ffmpeg runs from the first piece on and is
    killed when the generator is closed. A piece may take LOAD_TIMEOUT seconds; the caller may take any time between
    two of them. Raises MediaError as `load_clip`; that the clip is too short is known, and said, only after the frames
    that it has.
    """
    if min(chunk, width, height) < 1:
        raise ValueError(f"chunk, width and height must be at least 1, not {chunk}, {width} and {height}")
    info = check_clip(path)
    name = label(path)
    if start < 0 or (num_frames is not None and num_frames < 1):
        frames = "The frames" if num_frames is None else f"{num_frames} frames"
        raise MediaError(f"{frames} from frame {start} on of {name} is not a part of a clip.")
    limit = int((MAX_CLIP_SECONDS + 10) * fps) + 1 if num_frames is None else num_frames
    piece = min(chunk, limit)
    if piece * height * width * 3 > MAX_DECODED_BYTES:
        raise MediaError(f"{piece} frames of {width}x{height} do not fit in memory: ask for fewer or smaller ones.")
    inner = scaled_size((info.width, info.height), (width, height), fit)
    filters = [
        _at_rate(fps),
        f"trim=start_frame={start}:end_frame={start + limit}",
        *in_srgb(path, inner),
        f"scale={inner[0]}:{inner[1]}:{SWS}",
        # Before the crop: in yuv420p ffmpeg would move the box to an even pixel.
        "format=rgb24",
        _framing(inner, (width, height), fit, focus),
    ]
    pieces = _decode(name, path, filters, (width, height), limit, piece)
    return _enough(pieces, path, fps, start, 1 if num_frames is None else num_frames)


def read_frames(path: StrPath) -> Frames:
    """All frames of a clip at its own size and rate: uint8 (n, height, width, 3)."""
    info = check_clip(path)
    if info.num_frames * info.height * info.width * 3 > MAX_DECODED_BYTES:
        raise MediaError(f"{label(path)} does not fit in memory: use a shorter or smaller clip.")
    pieces = list(stream_frames(path, info, chunk=info.num_frames))
    return pieces[0] if pieces else np.empty((0, info.height, info.width, 3), np.uint8)


def stream_frames(path: StrPath, info: ClipInfo, chunk: int = 16) -> Generator[Frames, None, None]:
    """The frames of `read_frames` in pieces of `chunk` frames, for a clip that `check_clip` gave `info` for."""
    size = info.width, info.height
    filters = [*in_srgb(path, size), f"scale={info.width}:{info.height}:{SWS}", "format=rgb24"]
    return _decode(label(path), path, filters, size, info.num_frames, chunk)


def read_recipe_text(path: StrPath) -> str:
    """The recipe that ClipWriter put into a clip, as it was given. Raises MediaError when there is none.

    The text is not validated. Programs that copy a clip without re-encoding often keep its comment only, so the recipe
    is looked for there too.
    """
    file = readable_file(path, "clip")
    name = label(path)
    arguments = [*_ffmpeg.untrusted_input(file, MAX_CLIP_PIXELS), "-map_chapters", "-1", "-f", "ffmetadata", "pipe:1"]
    output = _ffmpeg.run(arguments, timeout=CHECK_TIMEOUT, max_bytes=_MAX_TAG_BYTES)
    if not output.ok:
        raise explain(name, output, CHECK_TIMEOUT)
    tags = _parse_tags(output.data.decode("utf-8", errors="replace"))
    comment = tags.get("comment", "")
    text = tags.get(RECIPE_KEY) or (comment if comment.lstrip().startswith("{") else "")
    if not text:
        raise MediaError(f"{name} has no recipe inside: it was saved without one or by another program.")
    return text


def rate(fps: float) -> str:
    """A frame rate as the exact fraction that ffmpeg counts in: 24 -> "24/1", 29.97002997 -> "30000/1001"."""
    fraction = Fraction(fps).limit_denominator(1001)
    return f"{fraction.numerator}/{fraction.denominator}"


def clip_look(path: StrPath) -> Look | None:
    """The first frame of a clip as it is stored; None when ffmpeg does not say. Raises MediaError as `check_clip`."""
    status = readable_file(path, "clip").stat()
    return _look_at(os.path.abspath(path), (status.st_mtime_ns, status.st_size))


def in_srgb(path: StrPath, size: tuple[int, int]) -> list[str]:
    """The filters of `to_srgb` for a clip that `check_clip` took; whoever reads its pictures puts them first."""
    return to_srgb(clip_look(path), size)


def _at_rate(fps: float) -> str:
    # Counted from the first picture, not from where the sound begins.
    return f"setpts=PTS-STARTPTS,fps=fps={rate(fps)}:round=near"


def _framing(inner: tuple[int, int], target: tuple[int, int], fit: Fit, focus: Focus) -> str:
    spare = inner[0] - target[0], inner[1] - target[1]
    if fit == "pad":
        return f"pad={target[0]}:{target[1]}:{-spare[0] // 2}:{-spare[1] // 2}:black"
    x, y = (round(space * min(max(at, 0.0), 1.0)) for space, at in zip(spare, focus, strict=True))
    return f"crop={target[0]}:{target[1]}:{x}:{y}"


def _decode(
    name: str, path: StrPath, filters: list[str], size: tuple[int, int], limit: int, chunk: int
) -> Generator[Frames, None, None]:
    """Up to `limit` frames of `size` (width, height), `chunk` at a time. Raises MediaError when ffmpeg fails."""
    arguments = [
        *_ffmpeg.untrusted_input(path, MAX_CLIP_PIXELS),
        *("-map", "0:V:0", "-vf", ",".join(filters), "-fps_mode", "passthrough", "-frames:v", str(limit)),
        *("-pix_fmt", "rgb24", "-f", "rawvideo", "pipe:1"),
    ]
    left = limit
    with _ffmpeg.Process(arguments) as process:
        while left:
            frames = np.empty((min(chunk, left), size[1], size[0], 3), np.uint8)
            with process.within(LOAD_TIMEOUT):
                whole = process.read_into(frames.data.cast("B")) // frames[0].nbytes
                left = left - whole if whole == len(frames) else 0
                # The last frames are given only when ffmpeg has ended well: they may be all that it could read.
                output = None if left else process.end()
            if output is not None and not output.ok:
                raise explain(name, output, LOAD_TIMEOUT)
            if whole:
                yield frames[:whole]


def _enough(
    pieces: Generator[Frames, None, None], path: StrPath, fps: float, start: int, num_frames: int
) -> Generator[Frames, None, None]:
    """Pass the pieces on. Raises MediaError after them when they held fewer than `num_frames` frames."""
    got = 0
    with contextlib.closing(pieces):
        for frames in pieces:
            got += len(frames)
            yield frames
    if got < num_frames:
        wanted = f"{num_frames} are asked for" + (f" from frame {start} on" if start else "")
        raise MediaError(
            f"{label(path)} has {count_frames(path, fps)} frames at {fps:g} frames a second, but {wanted}: "
            "use a longer clip, or ask for fewer frames."
        )


@functools.lru_cache(maxsize=64)
def _count_frames(path: str, fps: float, version: tuple[int, int]) -> int:
    """`version` (time of change, size) makes a file that was replaced another one."""
    info = check_clip(path)
    small = ["-vf", f"{_at_rate(fps)},scale=16:16", "-fps_mode", "passthrough"]
    output = listing(label(path), path, small, LOAD_TIMEOUT)
    # Half a frame or less rounds to none; `check_clip` has seen that there are pictures.
    if info.seconds * fps < 1 and not _rows(output):
        raise MediaError(
            f"{label(path)} lasts {info.seconds:.2g} s, less than one frame at {fps:g} frames a second: "
            "use a longer clip, or a picture."
        )
    return len(_times(label(path), output))


@functools.lru_cache(maxsize=64)
def _look_at(path: str, version: tuple[int, int]) -> Look | None:
    """`version` as in `_count_frames`."""
    arguments = [*_ffmpeg.untrusted_input(path, MAX_CLIP_PIXELS), *LOOK]
    output = _ffmpeg.run(arguments, timeout=CHECK_TIMEOUT, max_bytes=0)
    if not output.ok:
        raise explain(label(path), output, CHECK_TIMEOUT)
    return parse_look(output.log)


def listing(name: str, path: StrPath, arguments: list[str], timeout: float, strict: bool = False) -> str:
    """ffmpeg's framecrc listing of the clip's pictures: a header, then a line per frame.

    strict: a file that ends in the middle of its last frames is an error instead of a shorter clip.
    """
    output = _ffmpeg.run(
        [
            *(["-xerror"] if strict else []),
            *_ffmpeg.untrusted_input(path, MAX_CLIP_PIXELS),
            # Capital V: not the cover picture of a song. The time limit leaves longer clips recognizable as such.
            *("-map", "0:V:0", "-t", str(MAX_CLIP_SECONDS + 10), *arguments, "-f", "framecrc", "pipe:1"),
        ],
        timeout=timeout,
        max_bytes=_MAX_LISTING_BYTES,
    )
    if not output.ok:
        raise explain(name, output, timeout)
    return output.data.decode("utf-8", errors="replace")


def explain(name: str, output: _ffmpeg.Output, timeout: float) -> MediaError:
    """ffmpeg's log as one line that says what to do."""
    log = output.log
    if output.timed_out:
        return MediaError(f"{name} took more than {timeout:.0f} s to read: use a shorter or smaller clip.")
    if output.cut:
        return MediaError(f"{name} holds more than can be read: use a shorter or smaller clip.")
    if too_large := re.search(r"Picture size (\d+x\d+) exceeds", log):
        return MediaError(f"{name} is too large ({too_large[1]} pixels): scale it down to 4096x2304 or less.")
    if "matches no streams" in log or "does not contain any stream" in log:
        return MediaError(f"{name} has no pictures in it, only sound or data: use a clip with a picture.")
    if "not on whitelist" in log or ("Error opening input" in log and "moov atom" not in log):
        return MediaError(f"{name} is not a clip that can be read: use an MP4, MOV, WebM, MKV, AVI or GIF file.")
    return MediaError(f"{name} is damaged, cut off or not a clip: copy or export it again.")


def _header(text: str, key: str) -> Fraction:
    found = re.search(rf"^#{key} 0: (\d+)/(\d+)$", text, re.MULTILINE)
    if not found or int(found[1]) == 0 or int(found[2]) == 0:
        return Fraction(1)
    return Fraction(int(found[1]), int(found[2]))


def _shown_size(name: str, text: str) -> tuple[int, int]:
    found = re.search(r"^#dimensions 0: (\d+)x(\d+)$", text, re.MULTILINE)
    if not found or not _times(name, text):
        raise MediaError(f"{name} is damaged or cut off: copy or export it again.")
    width, height = int(found[1]), int(found[2])
    aspect = _header(text, "sar")
    if aspect > 1:
        width = round(width * aspect)
    else:
        height = round(height / aspect)
    if not 0 < width * height <= 2 * MAX_CLIP_PIXELS:
        raise MediaError(f"{name} is too large ({width}x{height} pixels): scale it down to 4096x2304 or less.")
    return width, height


def _times(name: str, text: str) -> list[tuple[Fraction, Fraction]]:
    """Start and duration of each frame in seconds, in the order of the file."""
    base = _header(text, "tb")
    rows = _rows(text)
    if not rows:
        raise MediaError(f"{name} has no frames in it: copy or export it again.")
    return [(int(start) * base, int(length) * base) for start, length in rows]


def _rows(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^0, *-?\d+, *(-?\d+), *(\d+),", text, re.MULTILINE)


def _parse_tags(text: str) -> dict[str, str]:
    """ffmetadata: key=value lines up to the first section; a backslash takes the next character literally."""
    tags: dict[str, str] = {}
    for line in re.findall(r"(?:\\.|[^\\\n])+", text, re.DOTALL):
        if line.startswith("["):
            break
        if found := re.match(r"((?:\\.|[^\\=])*)=(.*)", line, re.DOTALL):
            tags[_unescape(found[1]).lower()] = _unescape(found[2])
    return tags


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
