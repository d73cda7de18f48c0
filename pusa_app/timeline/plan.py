"""What a recipe runs and how its result is put together.

Most recipes are one part, and its frames are the result. A long one is several parts whose keyframes may be frames of
earlier parts; a joined one also holds frames of its clips, which nobody touches.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from pusa_app.timeline.timeline import PathText, Timeline

MAX_PARTS = 500


class Made(BaseModel):
    """Frames start..stop-1 of what part `part` made."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["made"] = "made"
    part: int = Field(ge=0)
    start: int = Field(ge=0)
    stop: int = Field(ge=1)


class Kept(BaseModel):
    """Frames start..stop-1 of a clip at the timeline's rate and size, otherwise as decoded.

    stop None is the clip's end, where there may be no frame left.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["kept"] = "kept"
    path: PathText
    start: int = Field(ge=0)
    stop: int | None = None
    fit: Literal["crop", "pad"] = "crop"
    focus: tuple[float, float] = (0.5, 0.5)


Piece = Annotated[Made | Kept, Field(discriminator="kind")]


class Plan(BaseModel):
    """parts: one run of the sampler each, in the order in which they are made. pieces: the result, in order of time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parts: tuple[Timeline, ...] = Field(min_length=1)
    pieces: tuple[Piece, ...] = Field(min_length=1)

    @classmethod
    def single(cls, timeline: Timeline) -> Plan:
        """One part, and all of it is the result."""
        return cls(parts=(timeline,), pieces=(Made(part=0, start=0, stop=timeline.grid.num_frames),))

    @property
    def streams(self) -> bool:
        """Whether the frames of the only part are the result, from its first frame on and in one piece."""
        return len(self.parts) == len(self.pieces) == 1 and self.pieces[0].kind == "made" and self.pieces[0].start == 0

    @property
    def num_frames(self) -> int | None:
        """Frames of the result; None when a clip is kept to its end, which only the clip knows."""
        total = 0
        for piece in self.pieces:
            if piece.stop is None:
                return None
            total += piece.stop - piece.start
        return total
