"""What is known of a model without opening it: geometry, defaults, files, licence."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pusa_app.timeline import FrameGrid, Keyframe, ScheduleSpec, TaskName, Timeline, nearest_length


class BackboneSpec(BaseModel):
    """Geometry and defaults of a video model.

    spatial_stride is the VAE's, patch the transformer's: width and height divide by their product.
    latent_space: normalized for diffusers models; pusa_raw for Pusa V0.5, whose sampler puts raw VAE latents into z.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: Literal["mochi", "fake"]
    temporal_stride: int = 6
    spatial_stride: int = 8
    patch: int = 2
    latent_channels: int = 12
    fps: float
    width: int
    height: int
    num_frames: int
    max_frames: int
    min_frames: int = 1
    steps: int
    guidance: float
    schedule: ScheduleSpec
    latent_space: Literal["normalized", "pusa_raw"] = "normalized"
    max_text_tokens: int = 256
    image_noise: float = Field(default=0.0, ge=0, le=1)

    @property
    def size_multiple(self) -> int:
        return self.spatial_stride * self.patch

    def grid(self, num_frames: int | None = None) -> FrameGrid:
        """The frame grid of a clip; raises ValueError (pydantic) when the length does not fit the stride."""
        return FrameGrid(num_frames=num_frames or self.num_frames, temporal_stride=self.temporal_stride, fps=self.fps)

    def nearest_length(self, num_frames: int) -> int:
        clamped = min(max(num_frames, self.min_frames), self.max_frames)
        return nearest_length(clamped, self.temporal_stride)

    def lengths(self) -> list[int]:
        """All clip lengths that the model is offered for, in frames."""
        return list(range(self.nearest_length(self.min_frames), self.max_frames + 1, self.temporal_stride))

    def timeline(self, num_frames: int | None = None, keyframes: tuple[Keyframe, ...] = ()) -> Timeline:
        return Timeline(grid=self.grid(num_frames), width=self.width, height=self.height, keyframes=keyframes)


class ModelCard(BaseModel):
    """A model of the catalogue. `folder` is a diffusers folder; None when it is not on this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    title: str
    summary: str
    licence: str
    folder: Path | None
    spec: BackboneSpec
    tasks: tuple[TaskName, ...]
