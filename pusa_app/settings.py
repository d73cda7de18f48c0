"""Folders and limits of one running program. Nothing here touches the disk until it is asked to."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path


def default_data_dir() -> Path:
    """Where runs, results and logs live: PUSA_DATA_DIR, or the platform's folder for a user's data.

    Outside the working folder on purpose: a web server serves its working folder too easily, and an update of the
    program must not touch a user's videos.
    """
    if chosen := os.environ.get("PUSA_DATA_DIR"):
        return Path(chosen).expanduser().absolute()
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "Pusa Studio"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "Pusa Studio"
    return Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "pusa-studio"


@dataclass(frozen=True)
class Settings:
    """One value object that the launcher makes and everybody else reads.

    Bytes, pixels, steps and seconds are upper limits of what one user may ask for.
    """

    data_dir: Path = field(default_factory=default_data_dir)
    host: str = "127.0.0.1"
    port: int = 7860
    max_upload_bytes: int = 25_000_000
    max_steps: int = 200
    max_queue: int = 50
    cancel_grace_seconds: float = 15.0
    cache_seconds: int = 24 * 3600

    @property
    def runs_dir(self) -> Path:
        """One folder per run: a copy of its pictures, its recipe, its poster."""
        return self.data_dir / "runs"

    @property
    def results_dir(self) -> Path:
        """The finished videos, and nothing else."""
        return self.data_dir / "results"

    @property
    def log_file(self) -> Path:
        """Tracebacks go here and nowhere else."""
        return self.data_dir / "logs" / "worker.log"
