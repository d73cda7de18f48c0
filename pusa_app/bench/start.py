"""`python -m pusa_app bench start`: how long until the page is served, against a bare Gradio page, and how much memory.

Both are started again and again in turns, so that a busy machine slows both alike; what counts is the ratio.
"""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil  # comes with accelerate

from pusa_app.cli import Parser, integer

APP = Path(__file__).parents[2] / "app.py"
MAX_RATIO = 1.5
MAX_MEGABYTES = 300.0
PATIENCE_SECONDS = 180.0
BARE = """
import sys
import gradio as gr
with gr.Blocks(analytics_enabled=False) as page:
    gr.Textbox()
page.launch(server_name="127.0.0.1", server_port=int(sys.argv[1]), ssr_mode=False, quiet=True)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 0 when both goals are met, 1 when not."""
    parser = Parser(prog="python -m pusa_app bench start", description=__doc__, allow_abbrev=False)
    parser.add_argument("--repetitions", type=integer(1, 100), default=5)
    options = parser.parse_args(argv)

    ratios, ours, bares, memory = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        bare_page = BarePage(Path(folder))
        # The first start of each fills the disk's cache and does not count.
        for repetition in range(options.repetitions + 1):
            bare = start_seconds(bare_page.command)[0]
            own, megabytes = start_seconds([str(APP), "--data-dir", folder, "--port"])
            if repetition == 0:
                continue
            ratios.append(own / bare)
            ours.append(own)
            bares.append(bare)
            memory.append(megabytes)
            print(f"{repetition}: page {own:.2f} s, bare page {bare:.2f} s, ratio {own / bare:.2f}, {megabytes:.0f} MB")
    ratio, megabytes = statistics.median(ratios), statistics.median(memory)
    print(f"median: page {statistics.median(ours):.2f} s, bare page {statistics.median(bares):.2f} s")
    met = [
        _verdict("start, times a bare page", ratio, MAX_RATIO),
        _verdict("memory of the page's process, MB", megabytes, MAX_MEGABYTES),
    ]
    return 0 if all(met) else 1


def _verdict(name: str, value: float, goal: float) -> bool:
    met = value <= goal
    print(f"{'pass' if met else 'FAIL'}  {name}: {value:.2f}, goal at most {goal:g}")
    return met


class BarePage:
    """The least that Gradio serves, as a program in a folder."""

    def __init__(self, folder: Path) -> None:
        script = folder / "bare.py"
        script.write_text(BARE)
        self.command = [str(script)]


def start_seconds(command: Sequence[str]) -> tuple[float, float]:
    """Seconds from the start of a Python program to its first served page, and its memory then, in MB.

    The number of a free port is put behind the command.
    """
    started = time.perf_counter()
    with running(command) as process:
        return time.perf_counter() - started, resident(process.pid)


@contextlib.contextmanager
def running(command: Sequence[str], environment: Mapping[str, str] = os.environ) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program that serves a page, from its first answer on until the end of the block."""
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, *command, str(port)],
        env={**environment, "GRADIO_ANALYTICS_ENABLED": "False"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=APP.parent,
    )

    def served() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]} ended with exit code {process.returncode} before it served a page")
        return _served(port)

    try:
        wait_until(served, PATIENCE_SECONDS)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Return when it is so; raises RuntimeError when it is not in time."""
    deadline = time.perf_counter() + seconds
    while not condition():
        if time.perf_counter() > deadline:
            raise RuntimeError(f"it did not happen within {seconds:.0f} seconds")
        time.sleep(0.02)


def _served(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
            return bool(answer.status == 200 and answer.read())
    except (urllib.error.URLError, OSError):
        return False


def resident(pid: int) -> float:
    """Resident memory of a process in MB."""
    return float(psutil.Process(pid).memory_info().rss) / 2**20


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
