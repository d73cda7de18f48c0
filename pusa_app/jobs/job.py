"""What a job is, and which way its state may go."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import Literal

State = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]

# A state that is not a key here is terminal: no late event can turn it back.
MOVES: dict[State, tuple[State, ...]] = {
    "queued": ("running", "cancelled", "interrupted"),
    "running": ("done", "failed", "cancelled", "interrupted"),
}


def new_id() -> str:
    """Unguessable, so that knowing it is the right to see the job over the API."""
    return secrets.token_hex(12)


@dataclass(frozen=True)
class Job:
    """One asked-for video. Times are seconds since the epoch; `recipe` is JSON, which this room never opens."""

    owner: str
    recipe: str
    out: str
    id: str = field(default_factory=new_id)
    state: State = "queued"
    number: int = 0
    message: str = ""
    created: float = field(default_factory=time.time)
    started: float | None = None
    finished: float | None = None

    @property
    def ended(self) -> bool:
        return self.state not in MOVES
