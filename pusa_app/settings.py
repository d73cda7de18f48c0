"""Folders and limits of one running program. Nothing here touches the disk until it is asked to."""

from __future__ import annotations

import hashlib
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


LOCAL = "local"  # the owner of what is made at this machine, on its page and on its command line
# What a visitor of a shared page may have waiting, and keep.
SHARED_QUEUE = 8
SHARED_BYTES = 2_000_000_000


@dataclass(frozen=True)
class Settings:
    """One value object that the launcher makes and everybody else reads.

    Bytes, pixels, steps and seconds are upper limits of what one user may ask for. shared: others than the one who
    started it can reach the page, so each of them has a queue and a library of his own, with limits. workers: how many
    videos are made at once, one on each GPU.
    """

    data_dir: Path = field(default_factory=default_data_dir)
    host: str = "127.0.0.1"
    port: int = 7860
    max_upload_bytes: int = 25_000_000
    max_steps: int = 200
    max_queue: int = 500
    max_queue_per_owner: int = 200
    max_seeds: int = 16
    quota_bytes: int | None = None
    reserve_bytes: int = 200_000_000
    trash_seconds: float = 24 * 3600.0
    shared: bool = False
    workers: int = 1
    cancel_grace_seconds: float = 15.0
    cache_seconds: int = 24 * 3600

    @property
    def runs_dir(self) -> Path:
        """One folder per run: a copy of its pictures and clips, its recipe, its checkpoints."""
        return self.data_dir / "runs"

    @property
    def results_dir(self) -> Path:
        """The finished videos with their posters and recipes."""
        return self.data_dir / "results"

    def presets_dir(self, owner: str) -> Path:
        """Where somebody's presets are: nobody sees those of others, and no name is part of a path."""
        return self.data_dir / "presets" / hashlib.sha256(owner.encode()).hexdigest()[:32]

    @property
    def queue_file(self) -> Path:
        """The database of jobs."""
        return self.data_dir / "queue.db"

    @property
    def lock_file(self) -> Path:
        """Held by the one program that uses the data folder."""
        return self.data_dir / "lock"

    @property
    def log_file(self) -> Path:
        """Tracebacks go here and nowhere else."""
        return self.data_dir / "logs" / "worker.log"
