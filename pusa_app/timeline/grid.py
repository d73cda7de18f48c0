"""Pixel frames and latent slots of one clip."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_FRAMES = 100_000


class FrameGrid(BaseModel):
    """How `num_frames` pixel frames fall into latent slots.

    A causal video VAE with temporal stride s maps frame 0 alone to slot 0 and frames (k-1)*s+1 .. k*s to slot k, so a
    clip has s*n+1 frames.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_frames: int = Field(ge=1, le=MAX_FRAMES)
    temporal_stride: int = Field(ge=1, le=64)
    fps: float = Field(ge=1, le=240, allow_inf_nan=False)

    @model_validator(mode="after")
    def _whole_slots(self) -> FrameGrid:
        if (self.num_frames - 1) % self.temporal_stride:
            near = nearest_length(self.num_frames, self.temporal_stride)
            raise ValueError(
                f"a length of {self.num_frames} frames does not fit: "
                f"it must be {self.temporal_stride}*n + 1, for example {near}"
            )
        return self

    @property
    def num_slots(self) -> int:
        return (self.num_frames - 1) // self.temporal_stride + 1

    @property
    def seconds(self) -> float:
        return self.num_frames / self.fps

    def frames_of(self, slot: int) -> range:
        """The pixel frames of a slot."""
        if not 0 <= slot < self.num_slots:
            raise IndexError(f"slot {slot} is outside 0..{self.num_slots - 1}")
        if slot == 0:
            return range(1)
        return range((slot - 1) * self.temporal_stride + 1, slot * self.temporal_stride + 1)

    def slot_of(self, frame: int) -> int:
        """The slot that holds a pixel frame."""
        if not 0 <= frame < self.num_frames:
            raise IndexError(f"frame {frame} is outside 0..{self.num_frames - 1}")
        return -(-frame // self.temporal_stride)

    def slot_at(self, seconds: float) -> int:
        """The slot that is on screen at a time; times outside are clamped to the clip."""
        frame = min(max(math.floor(seconds * self.fps), 0), self.num_frames - 1)
        return self.slot_of(frame)


def nearest_length(num_frames: int, temporal_stride: int) -> int:
    """The valid clip length s*n+1 that is nearest to `num_frames`, in frames."""
    return max(0, round((num_frames - 1) / temporal_stride)) * temporal_stride + 1


def frames_for_slots(slots: int, temporal_stride: int) -> int:
    """Pixel frames that `slots` slots hold when the first of them is slot 0."""
    return (slots - 1) * temporal_stride + 1
