"""Writing clips, GIFs and posters: whole files or none."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

from pusa_app.errors import MediaError
from pusa_app.media import _ffmpeg
from pusa_app.media._files import StrPath, atomic_output, label, writing
from pusa_app.media._look import SWS
from pusa_app.media.clips import RECIPE_KEY, rate
from pusa_app.media.fit import Frames

DEFAULT_QUALITY = 12
MAX_RECIPE_BYTES = 4_000_000
FINISH_TIMEOUT = 600.0
# The number of threads changes x264's decisions: one number, so that the bytes do not depend on the machine's cores.
ENCODER_THREADS = "4"
TO_BT709 = f"scale=out_color_matrix=bt709:out_range=tv:{SWS}"
BT709 = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv")
BITEXACT = ("-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact")


class ClipWriter:
    """A context manager that writes an MP4 (H.264, yuv420p, BT.709) which browsers play while it loads.

        with ClipWriter(path, 96, 64, fps=12, recipe_text=recipe.to_json()) as clip:
            clip.write(frames)                      # uint8 (n, 64, 96, 3), as often as you like

    quality is x264's crf: 0 lossless, 12 hardly visible, 23 small. The same frames give the same bytes. The recipe is
    stored in the tags `pusa_recipe` and `comment`. An existing file is replaced at the end, in one step; after an
    exception nothing of the new one remains. Raises MediaError when the size is odd, the folder is missing or not
    writable, the disk is full, or no frame was written.
    """

    def __init__(
        self,
        path: StrPath,
        width: int,
        height: int,
        fps: float,
        recipe_text: str | None = None,
        quality: int = DEFAULT_QUALITY,
    ) -> None:
        if width % 2 or height % 2 or width < 2 or height < 2:
            raise MediaError(f"A clip of {width}x{height} pixels cannot be written: width and height must be even.")
        if not 0 <= quality <= 51:
            raise MediaError(f"The quality {quality} is outside 0 (best) to 51 (worst).")
        if recipe_text is not None:
            if len(recipe_text.encode()) > MAX_RECIPE_BYTES:
                raise MediaError("The recipe is too long to be stored in a clip: save it as a file beside.")
            # ffmpeg's reader of tags takes a backslash at the very end for an escaped line end. JSON has neither.
            if "\0" in recipe_text or recipe_text.endswith("\\"):
                raise ValueError("recipe_text must be JSON")
        self.path = Path(path)
        self._size = width, height
        self._fps = fps
        self._recipe = recipe_text
        self._quality = quality
        self._stack = contextlib.ExitStack()
        self._encoder: _Encoder | None = None

    def __enter__(self) -> ClipWriter:
        with contextlib.ExitStack() as stack:
            part = stack.enter_context(atomic_output(self.path))
            tags = stack.enter_context(tag_file(self._recipe))
            arguments = [
                *(["-f", "ffmetadata", "-i", _ffmpeg.file_url(tags)] if tags else []),
                *("-map", "0:v", "-map_metadata", "1" if tags else "-1", *BITEXACT),
                *("-vf", TO_BT709, "-pix_fmt", "yuv420p", *BT709),
                *("-c:v", "libx264", "-preset", "medium", "-crf", str(self._quality), "-threads", ENCODER_THREADS),
                *("-movflags", "+faststart+use_metadata_tags", "-f", "mp4", "-y", _ffmpeg.file_url(part)),
            ]
            self._encoder = stack.enter_context(_Encoder(self.path, self._size, self._fps, arguments))
            self._stack = stack.pop_all()
        return self

    def write(self, frames: Frames) -> None:
        """Append uint8 (n, height, width, 3) frames."""
        if self._encoder is None:
            raise ValueError("a ClipWriter takes frames inside its with block only")
        self._encoder.write(frames)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._encoder = None
        return self._stack.__exit__(kind, error, traceback)


def write_gif(frames: Frames, path: StrPath, fps: float) -> None:
    """Write uint8 (n, height, width, 3) frames as an endlessly repeating GIF with a palette made for them."""
    _check_frames(frames, None)
    height, width = frames.shape[1:3]
    palette = "split[a][b];[a]palettegen[p];[b][p]paletteuse=dither=sierra2_4a"
    with atomic_output(path) as part:
        arguments = ["-vf", palette, "-loop", "0", *BITEXACT, "-f", "gif", "-y", _ffmpeg.file_url(part)]
        with _Encoder(Path(path), (width, height), fps, arguments) as encoder:
            encoder.write(frames)


def save_poster(frame: Frames, path: StrPath, quality: int = 90) -> None:
    """Write one uint8 (height, width, 3) frame as JPEG, PNG or WebP, after the ending of `path`."""
    endings = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
    kind = endings.get(Path(path).suffix.lower())
    if kind is None:
        raise MediaError(f"{label(path)} cannot be written: use a name that ends in .jpg, .png or .webp.")
    _check_frames(frame[None], None)
    with atomic_output(path) as part, writing(label(path)):
        Image.fromarray(frame).save(part, format=kind, quality=quality)


class _Encoder:
    """One ffmpeg that takes raw frames; `arguments` follow the input. It must be left before its file is used."""

    def __init__(self, path: Path, size: tuple[int, int], fps: float, arguments: list[str]) -> None:
        self._name = label(path)
        self._size = size
        self._command = [
            *(_ffmpeg.executable(), "-hide_banner", "-loglevel", "error"),
            *("-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", f"{size[0]}x{size[1]}"),
            *("-framerate", rate(fps), "-i", "pipe:0", *arguments),
        ]
        self._written = 0

    def __enter__(self) -> _Encoder:
        # restore_signals: with a file size limit Python ignores SIGXFSZ, and so must ffmpeg, which then says so.
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            restore_signals=False,
        )
        self._log = _ffmpeg.LogReader(self._process)
        return self

    def write(self, frames: Frames) -> None:
        _check_frames(frames, self._size)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(np.ascontiguousarray(frames).data.cast("B"))
        except OSError:
            raise self._failure() from None
        self._written += len(frames)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._process as process:
            if kind is not None:
                process.kill()
                return
            assert process.stdin is not None
            if not self._written:
                process.kill()
                raise MediaError(f"{self._name} was not written: there were no frames.")
            try:
                process.stdin.close()
                code = process.wait(timeout=FINISH_TIMEOUT)
            except (OSError, subprocess.TimeoutExpired):
                raise self._failure() from None
            if code != 0:
                raise self._failure()

    def _failure(self) -> MediaError:
        self._process.kill()
        self._process.wait()
        log = self._log.text()
        if _ffmpeg.disk_is_full(log):
            return MediaError(f"{self._name} cannot be written: the disk is full.")
        # "[libx264 @ 0x55] text" -> "text"
        last = re.sub(r"^(\[[^\]]*\] *)+", "", log.strip().splitlines()[-1])[:200] if log.strip() else "it was stopped"
        return MediaError(f"{self._name} cannot be written: ffmpeg failed ({last.rstrip('.')}).")


def _check_frames(frames: Frames, size: tuple[int, int] | None) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise ValueError(f"frames must be uint8 (n, height, width, 3), not {frames.dtype} {frames.shape}")
    if size is not None and frames.shape[1:3] != (size[1], size[0]):
        raise ValueError(f"frames must be {size[0]}x{size[1]}, not {frames.shape[2]}x{frames.shape[1]}")


@contextlib.contextmanager
def tag_file(recipe: str | None) -> Iterator[Path | None]:
    """The recipe as an ffmetadata file (an argument of a command line could not be that long); None without one."""
    if recipe is None:
        yield None
        return
    value = re.sub(r"([=;#\\\n\r])", r"\\\1", recipe)
    with contextlib.ExitStack() as stack:
        with writing("The recipe for the clip"):
            descriptor, name = tempfile.mkstemp(prefix="pusa-", suffix=".ffmetadata")
            stack.callback(os.unlink, name)
            with open(descriptor, "w", encoding="utf-8", newline="") as file:
                file.write(f";FFMETADATA1\n{RECIPE_KEY}={value}\ncomment={value}\n")
        yield Path(name)
