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
    """One asked-for video. Times are seconds since the epoch; `recipe` is JSON, which this room never opens.

    number: order of arrival, from 1. position: order of the waiting. folder: where its sources and checkpoints lie,
    which a job shares with those that were made from it. message: why it failed, or what was done that it did not.
    attempt: 2 when memory ran out and it was begun again; lean: 1 when it is made with the smaller memory plan.
    source: the job whose checkpoint it went on from. embed: the recipe is inside the video. held: not to be started,
    since somebody edits it. deleted: when it was; its files go a day later.
    """

    owner: str
    recipe: str
    out: str
    id: str = field(default_factory=new_id)
    state: State = "queued"
    number: int = 0
    position: float = 0.0
    folder: str = ""
    message: str = ""
    created: float = field(default_factory=time.time)
    started: float | None = None
    finished: float | None = None
    attempt: int = 1
    lean: int = 0
    source: str = ""
    embed: bool = True
    held: bool = False
    task: str = ""
    model: str = ""
    prompt: str = ""
    seed: int = 0
    favourite: bool = False
    deleted: float | None = None

    @property
    def ended(self) -> bool:
        return self.state not in MOVES
