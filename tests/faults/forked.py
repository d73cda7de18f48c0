"""A worker that is forked from a process which has imported what workers need, and so starts at once."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection

from pusa_app import checkpoint, worker


def begin(environment: dict[str, str], pipe: Connection, log: str) -> None:
    """As worker.main, in this environment, with a checkpoint after every step instead of every second."""
    os.environ.clear()
    os.environ.update(environment)
    checkpoint.SECONDS_BETWEEN, checkpoint.COST = 0.0, 1e9
    worker.main(pipe, log)
