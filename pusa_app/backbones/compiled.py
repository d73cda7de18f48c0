"""Compiled blocks: torch.compile of a transformer's repeated block, once for all of them (regional compilation)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch

_log = logging.getLogger(__name__)


def compile_blocks(model: Any) -> bool:
    """Have the blocks compiled when they are called first. Whether they will be: where there is no compiler for what
    the model computes on, or it has no such blocks, they stay as they are, and the log says so."""
    try:
        model.compile_repeated_blocks()
    except (RuntimeError, ValueError) as error:
        _say(error)
        return False
    return True


def fall_back(models: Sequence[Any], error: Exception) -> bool:
    """Whether an error came from compiling and not from the model; then the blocks are taken back to what they were,
    so that the forward can be made again."""
    if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor", "triton")):
        return False
    for model in models:
        for module in model.modules():
            module._compiled_call_impl = None
    torch._dynamo.reset()
    _say(error)
    return True


def _say(error: Exception) -> None:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    _log.warning("The model's blocks are not compiled here, and run as they are: %s", lines[0][:200])
