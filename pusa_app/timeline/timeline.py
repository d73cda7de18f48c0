"""Keyframes in slots, and the noise vector that they make."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pusa_app.timeline.grid import FrameGrid
from pusa_app.timeline.schedule import Unit

MAX_SIDE = 8192
MAX_START = 10_000_000
PathText = Annotated[str, Field(min_length=1, max_length=4096)]
# How many frames a clip's file has at a frame rate: only decoding tells, and nothing here decodes.
Length = Callable[[str, float], int]


class ImageSource(BaseModel):
    """One picture. In a later slot than the first it is the last of the slot's frames."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["image"] = "image"
    path: PathText


class ClipSource(BaseModel):
    """Frames of a clip from `start` on, counted at the timeline's frame rate; the keyframe's slots say how many.

    begin, end: the frames of the file that are the clip, where the user left some out; end None is the file's end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["clip"] = "clip"
    path: PathText
    start: int = Field(default=0, ge=0, le=MAX_START)
    begin: int = Field(default=0, ge=0, le=MAX_START)
    end: int | None = Field(default=None, ge=1, le=MAX_START)

    @model_validator(mode="after")
    def _starts_inside(self) -> ClipSource:
        if self.start < self.begin or (self.end is not None and self.start >= self.end):
            raise ValueError(f"frame {self.start} is not in the clip, which goes from {self.begin} to {self.end}")
        return self


class PartSource(BaseModel):
    """Frames that an earlier part of the same run made, from `start` on; still: that one frame as a picture."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["part"] = "part"
    part: int = Field(ge=0, le=100_000)
    start: int = Field(default=0, ge=0, le=MAX_START)
    still: bool = False


Source = Annotated[ImageSource | ClipSource | PartSource, Field(discriminator="kind")]


class Keyframe(BaseModel):
    """A source placed on `span` slots from `slot` on.

    noise: 0 keeps the source as it is, 1 ignores it; one number, or one per slot of the span. fit and focus say how a
    source of another shape is brought to the clip's: cropped around the focus (x, y in [0, 1]), or padded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    slot: int = Field(ge=0, le=100_000)
    source: Source
    noise: Unit | tuple[Unit, ...] = 0.0
    span: int = Field(default=1, ge=1, le=100_000)
    fit: Literal["crop", "pad"] = "crop"
    focus: tuple[Unit, Unit] = (0.5, 0.5)

    @model_validator(mode="after")
    def _one_noise_per_slot(self) -> Keyframe:
        if isinstance(self.noise, tuple) and len(self.noise) != self.span:
            raise ValueError(f"{len(self.noise)} noise values for a span of {self.span} slots")
        if self.still and self.span != 1:
            raise ValueError("a picture fills one slot; give it a span of 1")
        return self

    @property
    def still(self) -> bool:
        """Whether the source is one picture."""
        return self.source.kind == "image" or (self.source.kind == "part" and self.source.still)

    @property
    def noises(self) -> tuple[float, ...]:
        """One multiplier per slot of the span."""
        return self.noise if isinstance(self.noise, tuple) else (self.noise,) * self.span

    @property
    def slots(self) -> range:
        return range(self.slot, self.slot + self.span)

    def num_frames(self, temporal_stride: int) -> int:
        """How many frames of its source it uses: one for a picture, else all frames of its slots."""
        if self.still:
            return 1
        return self.span * temporal_stride - (temporal_stride - 1 if self.slot == 0 else 0)

    def frames(self, temporal_stride: int) -> range:
        """The frames of the timeline that its source stands for, one to one."""
        stop = (self.slot + self.span - 1) * temporal_stride + 1
        return range(stop - self.num_frames(temporal_stride), stop)


class Timeline(BaseModel):
    """What is known of a clip before it is made: its grid, its size, its keyframes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    grid: FrameGrid
    width: int = Field(ge=8, le=MAX_SIDE)
    height: int = Field(ge=8, le=MAX_SIDE)
    keyframes: tuple[Keyframe, ...] = Field(default=(), max_length=1000)

    def having(self, *keyframes: Keyframe) -> Timeline:
        """The same clip with these keyframes and no others."""
        return self.model_copy(update={"keyframes": keyframes})

    def problems(self, size_multiple: int = 1) -> list[str]:
        """What keeps this timeline from being rendered, a sentence each; an empty list means that it can be."""
        found = []
        if self.width % size_multiple or self.height % size_multiple:
            found.append(
                f"The size {self.width}x{self.height} does not fit this model: "
                f"width and height must be multiples of {size_multiple}."
            )
        last = self.grid.num_slots - 1
        owner: dict[int, int] = {}
        for number, keyframe in enumerate(self.keyframes, 1):
            if keyframe.slots[-1] > last:
                found.append(
                    f"Keyframe {number} reaches slot {keyframe.slots[-1]}, but the clip ends at slot {last}: "
                    "move it, shorten it or make the clip longer."
                )
            inside = range(keyframe.slot, min(keyframe.slots.stop, last + 1))  # a hostile span may be huge
            taken = next((s for s in inside if s in owner), None)
            if taken is not None:
                found.append(f"Keyframes {owner[taken]} and {number} are both in slot {taken}: move one of them.")
            owner.update(dict.fromkeys(inside, number))
        if not found and all(m == 0 for m in self.noise_multipliers()):
            found.append("Every slot is a clean keyframe, so there is nothing to generate: leave a slot free.")
        return found

    def noise_multipliers(self) -> tuple[float, ...]:
        """One multiplier in [0, 1] per slot: 1 where nothing is known, the keyframes' noise elsewhere."""
        multipliers = [1.0] * self.grid.num_slots
        for keyframe in self.keyframes:
            for slot, noise in zip(keyframe.slots, keyframe.noises, strict=True):
                if slot < len(multipliers):
                    multipliers[slot] = noise
        assert all(math.isfinite(m) for m in multipliers)
        return tuple(multipliers)
