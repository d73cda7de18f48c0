"""What a run tells while it goes on: small frozen records, safe to pickle, no tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Phase = Literal["waiting", "loading", "encoding", "sampling", "decoding", "writing"]


@dataclass(frozen=True)
class Progress:
    """Step `step` of `steps` of a phase is done; `seconds` since the run began; `part`, from 0, of `parts` is made.

    memory: bytes that the worker holds, on the GPU the most that it held in this run; 0 where nobody measured it.
    """

    phase: Phase
    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    sequence: int = 0
    part: int = 0
    parts: int = 1
    memory: int = 0


@dataclass(frozen=True)
class Preview:
    """A cheap look at the clip in the making: a PNG or JPEG in bytes."""

    step: int
    image: bytes
    media_type: str = "image/jpeg"
    sequence: int = 0


@dataclass(frozen=True)
class Done:
    """The clip is at `path`; `recipe` is the JSON that reproduces it."""

    path: str
    recipe: str
    seconds: float
    num_frames: int
    sequence: int = 0


@dataclass(frozen=True)
class Failed:
    """The run ended without a clip; `message` is one line for the user. memory: it was memory that ran out."""

    message: str
    sequence: int = 0
    memory: bool = False


@dataclass(frozen=True)
class Cancelled:
    """The run was stopped on request."""

    sequence: int = 0


Event = Progress | Preview | Done | Failed | Cancelled
OnEvent = Callable[[Event], None]
