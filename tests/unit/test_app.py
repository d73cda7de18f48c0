"""The launcher: who may reach the page, and what a mistake looks like."""

from __future__ import annotations

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


def test_importing_the_launcher_loads_nothing_heavy() -> None:
    code = "import sys, app\nassert not {'gradio', 'torch', 'pydantic', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=APP.parent)
