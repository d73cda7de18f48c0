"""Running the ffmpeg that comes with imageio-ffmpeg, on input that nobody has checked.

Uploads are opened with only the file protocol and a few containers allowed: a text file named .mp4 can otherwise be a
playlist that makes ffmpeg read other files. Paths are given as file:/absolute, so that no name can be an option, a
protocol or a pattern.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
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


class Process:
    """An ffmpeg at work, as a context manager; it is gone when the block is left, in whatever way.

    Its log is drained all the time. Its output is read only as asked for, so an ffmpeg that is ahead waits in its pipe;
    `within` says how long one may wait for it in turn.
    """

    def __init__(self, arguments: list[str]) -> None:
        self._command = command(*arguments)
        self._late = threading.Event()

    def __enter__(self) -> Process:
        # restore_signals: with a file size limit Python ignores SIGXFSZ, and so must ffmpeg, which then says so.
        self._popen = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            restore_signals=False,
        )
        self._log = LogReader(self._popen)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._popen:
            self._popen.kill()

    @contextlib.contextmanager
    def within(self, timeout: float) -> Iterator[None]:
        """Kill ffmpeg when the block takes more than `timeout` seconds; what it waits for then ends as a short read."""
        timer = threading.Timer(timeout, self._stop)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def read(self, size: int) -> bytes:
        """The next `size` bytes of the output; fewer at its end."""
        assert self._popen.stdout is not None
        return self._popen.stdout.read(size)

    def read_into(self, buffer: memoryview) -> int:
        """Fill a buffer of bytes from the output; returns how many there were, fewer than its length at the end."""
        assert isinstance(self._popen.stdout, io.BufferedReader)
        return self._popen.stdout.readinto(buffer)

    def end(self, data: bytearray | None = None) -> Output:
        """Wait until ffmpeg has ended by itself. Output beyond what was read makes it a cut one."""
        if cut := bool(self.read(1)):
            self._popen.kill()
        code = self._popen.wait()
        return Output(bytearray() if data is None else data, self._log.text(), code, self._late.is_set(), cut)

    def _stop(self) -> None:
        self._late.set()
        self._popen.kill()


def run(arguments: list[str], *, timeout: float, max_bytes: int) -> Output:
    """Run ffmpeg to its end, to `max_bytes` of output or to `timeout` seconds of wall-clock time."""
    data = bytearray()
    with Process(arguments) as process, process.within(timeout):
        while chunk := process.read(min(_CHUNK, max_bytes - len(data))):
            data += chunk
        return process.end(data)


def disk_is_full(log: str) -> bool:
    """Whether ffmpeg ended because its output found no room."""
    return bool(re.search(r"No space left|File too large|quota", log, re.IGNORECASE))


class LogReader:
    """Drains the standard error of a process, so that it never blocks, and keeps its beginning and its end."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        self._first, self._last = b"", b""
        self._thread = threading.Thread(target=self._drain, args=(process.stderr,), daemon=True)
        self._thread.start()

    def text(self) -> str:
        """The log, once the process has ended."""
        self._thread.join(timeout=5)
        return (self._first + self._last).decode("utf-8", errors="replace")

    def _drain(self, stream: IO[bytes]) -> None:
        try:
            while chunk := stream.read(4096):
                room = MAX_LOG_BYTES - len(self._first)
                self._first += chunk[:room]
                self._last = (self._last + chunk[room:])[-MAX_LOG_BYTES:]
        except ValueError:
            pass  # the stream was closed under us: the process is gone
