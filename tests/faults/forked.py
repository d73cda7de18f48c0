"""Workers that are forked from a process which has imported what workers need, and so start at once."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from typing import Any

from pusa_app import checkpoint

PRELOADED = ["pytest", "torch", "tests.faults.forked", "pusa_app.backbones.fake", "pusa_app.render", "pusa_app.sweep"]


class Forked:
    """Stands for multiprocessing's context "spawn". The workers write a checkpoint after every step instead of every
    second."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        self.Pipe = self._context.Pipe

    def Process(self, *, target: Callable[..., Any], args: tuple[Any, ...], **more: Any) -> Any:
        return self._context.Process(target=_begin, args=(dict(os.environ), target, *args), **more)


def _begin(environment: dict[str, str], target: Callable[..., Any], *args: Any) -> None:
    # The process that it was forked from has the environment of the first test.
    os.environ.clear()
    os.environ.update(environment)
    checkpoint.SECONDS_BETWEEN, checkpoint.COST = 0.0, 1e9
    target(*args)
