"""The launcher: who may reach the page, and what a mistake looks like."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

APP = Path(__file__).parents[2] / "app.py"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "--auth"),
        (["--share"], "--auth"),
        (["--auth", "nobody"], "USER:PASSWORD"),
        (["--auth", "a:b", "--no-auth"], "not allowed with"),
        (["--port", "many"], "--port"),
        (["--colour", "red"], "--colour"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], words: str, tmp_path: Path) -> None:
    command = [sys.executable, str(APP), "--data-dir", str(tmp_path / "data"), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and words in done.stderr
    assert not (tmp_path / "data").exists()


def test_it_starts_on_a_machine_at_its_limits(tmp_path: Path) -> None:
    """Gradio sees whether its page answers within three seconds, and ends with a traceback where it does not."""
    late = "import gradio.networking; gradio.networking.url_ok = lambda url: False\n"
    code = f"{late}import runpy\nrunpy.run_path({str(APP)!r}, run_name='__main__')"
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, "-c", code, "--port", str(port), "--data-dir", str(tmp_path / "data")]
    environment = {**os.environ, "PUSA_TEST_FAKE": "1", "GRADIO_TEMP_DIR": str(tmp_path / "cache")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment) as app:
        try:
            told = app.stdout.readline().decode()
        finally:
            app.kill()
    assert told.startswith("Pusa Studio is at"), told


def test_importing_the_launcher_loads_nothing_heavy() -> None:
    code = "import sys, app\nassert not {'gradio', 'torch', 'pydantic', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=APP.parent)
