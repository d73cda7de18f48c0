"""What a task is told beside its prompt and its timeline, and what a model advises for it."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pusa_app.timeline.grid import MAX_FRAMES
from pusa_app.timeline.schedule import Unit

Frame = Annotated[int, Field(ge=0, le=10_000_000)]


class Options(BaseModel):
    """Choices of the tasks that have any; the others leave them as they are.

    direction: where `extend` adds frames. frames: how many frames `extend` adds at each end and `restyle` makes in all;
    None is what one run of the model makes. result: "joined" puts what was made and the untouched frames of its clips
    together, "made" gives only the new frames. style: `transition` through free slots (bridge), or from the frames of
    one clip into those of the other within one length (cross). gap: the frames of a clip that `complete` makes anew,
    first and one past the last. closing: noise of the frames that end a `loop` made from text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    direction: Literal["forwards", "backwards", "both"] = "forwards"
    frames: int | None = Field(default=None, ge=1, le=MAX_FRAMES)
    result: Literal["joined", "made"] = "joined"
    style: Literal["bridge", "cross"] = "bridge"
    gap: tuple[Frame, Frame] | None = None
    closing: Unit = 0.0

    @model_validator(mode="after")
    def _gap_has_frames(self) -> Options:
        if self.gap is not None and self.gap[0] >= self.gap[1]:
            raise ValueError(f"a gap from frame {self.gap[0]} to {self.gap[1]} holds no frame")
        return self


class TaskNoise(BaseModel):
    """The noise that a model advises for what a task places.

    start, middle, end: pictures in the first slot, between, in the last one; closing: in the last one of a loop.
    before: the last slots of a clip that goes on, in the order of time; after: the first slots of a clip that is led
    to; both repeat their first or last value away from the joint. restyle: all slots of a clip. Their lengths say how
    many slots of a clip are used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: Unit = 0.0
    middle: Unit = 0.3
    end: Unit = 0.3
    closing: Unit = 0.3
    before: tuple[Unit, ...] = Field(default=(0.0, 0.0, 0.0), min_length=1, max_length=64)
    after: tuple[Unit, ...] = Field(default=(0.0, 0.0), min_length=1, max_length=64)
    restyle: Unit = 0.7

    def of_pictures(self, task: str) -> PictureNoise:
        """The noise of pictures that a user places, by their slot."""
        return PictureNoise(self.start, self.middle, getattr(self, last_picture(task)))


class PictureNoise(NamedTuple):
    """The noise of a picture in the first slot, in one between, and in the last one."""

    first: float
    middle: float
    last: float

    def at(self, slot: int, slots: int) -> float:
        """The noise in one slot of a timeline of `slots`."""
        return self.first if slot == 0 else self.last if slot == slots - 1 else self.middle


def last_picture(task: str) -> Literal["closing", "end"]:
    """The field of TaskNoise that is for a picture in the last slot."""
    return "closing" if task == "loop" else "end"
