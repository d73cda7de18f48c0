"""Running the ffmpeg that comes with imageio-ffmpeg, on input that nobody has checked.

Uploads are opened with only the file protocol and a few containers allowed: a text file named .mp4 can otherwise be a
playlist that makes ffmpeg read other files. Paths are given as file:/absolute, so that no name can be an option, a
protocol or a pattern.
"""

from __future__ import annotations

import functools
import os
import subprocess
import threading
from dataclasses import dataclass
from typing import IO

import imageio_ffmpeg

from pusa_app.errors import MediaError
from pusa_app.media._files import StrPath

CONTAINERS = "mov,matroska,webm,avi,gif"
MAX_LOG_BYTES = 16_384
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Output:
    """What a run of ffmpeg gave: its standard output (cut at the limit), its log, and how it ended."""

    data: bytearray
    log: str
    code: int
    timed_out: bool
    cut: bool

    @property
    def ok(self) -> bool:
        return self.code == 0 and not self.timed_out and not self.cut


@functools.cache
def executable() -> str:
    """Path of ffmpeg. Raises MediaError when the package has none for this platform."""
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        raise MediaError(
            "ffmpeg is missing: run pip install imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE to its path."
        ) from None


def file_url(path: StrPath) -> str:
    return "file:" + os.path.abspath(path)


def command(*arguments: str) -> list[str]:
    return [executable(), "-nostdin", "-hide_banner", "-loglevel", "error", *arguments]


def untrusted_input(path: StrPath, max_pixels: int) -> list[str]:
    """Input arguments for a file of unknown origin; frames of more than `max_pixels` are refused by the decoder."""
    return [
        *("-protocol_whitelist", "file", "-format_whitelist", CONTAINERS),
        *("-max_pixels", str(max_pixels), "-i", file_url(path)),
    ]


def run(arguments: list[str], *, timeout: float, max_bytes: int) -> Output:
    """Run ffmpeg to its end, to `max_bytes` of output or to `timeout` seconds of wall-clock time."""
    data = bytearray()
    with subprocess.Popen(
        command(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        log = LogReader(process)
        late = threading.Event()
        timer = threading.Timer(timeout, _stop, (process, late))
        timer.start()
        cut = False
        try:
            while chunk := process.stdout.read(min(_CHUNK, max_bytes + 1 - len(data))):
                data += chunk
                if cut := len(data) > max_bytes:
                    process.kill()
                    break
            code = process.wait()
        except BaseException:
            process.kill()
            raise
        finally:
            timer.cancel()
    return Output(data, log.text(), code, late.is_set(), cut)


def _stop(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    process.kill()


class LogReader:
    """Drains the standard error of a process, so that it never blocks, and keeps the beginning of it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        self._kept = bytearray()
        self._thread = threading.Thread(target=self._drain, args=(process.stderr,), daemon=True)
        self._thread.start()

    def text(self) -> str:
        """The log, once the process has ended."""
        self._thread.join(timeout=5)
        return self._kept.decode("utf-8", errors="replace")

    def _drain(self, stream: IO[bytes]) -> None:
        try:
            while chunk := stream.read(4096):
                self._kept += chunk[: MAX_LOG_BYTES - len(self._kept)]
        except ValueError:
            pass  # the stream was closed under us: the process is gone
