"""What is known of a model without opening it: geometry, defaults, files, licence."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pusa_app.timeline import (
    MAX_FRAMES,
    MAX_SIDE,
    MAX_STEPS,
    TASKS,
    FrameGrid,
    Keyframe,
    ScheduleSpec,
    TaskName,
    TaskNoise,
    Timeline,
    nearest_length,
)


class BackboneSpec(BaseModel):
    """Geometry and defaults of a video model.

    spatial_stride is the VAE's, patch the transformer's: width and height divide by their product.
    noise: what this model advises for the keyframes of the tasks. task_guidance: where a task wants another guidance
    than the model's own, such as less of it where clips at both ends say more than the words.
    latent_space: normalized for diffusers models; pusa_raw for Pusa V0.5, whose sampler puts raw VAE latents into z.
    integer_time: the model was trained with whole model times (of 1000), as Pusa V1 was. boundary: of a model with two
    experts, the sigma of the schedule from which on downwards the second one works. distilled: the guidance is a number
    that the transformer reads, so there is one forward a step and no negative prompt.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: Literal["mochi", "wan", "skyreels", "ltx", "hunyuan", "fake"]
    temporal_stride: int = Field(default=6, ge=1, le=64)
    spatial_stride: int = Field(default=8, ge=1, le=64)
    patch: int = Field(default=2, ge=1, le=16)
    latent_channels: int = Field(default=12, ge=1)
    fps: float = Field(ge=1, le=240, allow_inf_nan=False)
    width: int = Field(ge=8, le=MAX_SIDE)
    height: int = Field(ge=8, le=MAX_SIDE)
    num_frames: int = Field(ge=1, le=MAX_FRAMES)
    max_frames: int = Field(ge=1, le=MAX_FRAMES)
    min_frames: int = Field(default=1, ge=1, le=MAX_FRAMES)
    steps: int = Field(ge=1, le=MAX_STEPS)
    guidance: float = Field(ge=0, le=100, allow_inf_nan=False)
    schedule: ScheduleSpec
    latent_space: Literal["normalized", "pusa_raw"] = "normalized"
    integer_time: bool = False
    boundary: float | None = Field(default=None, gt=0, lt=1)
    distilled: bool = False
    max_text_tokens: int = Field(default=256, ge=1, le=100_000)
    noise: TaskNoise = TaskNoise()
    task_guidance: dict[TaskName, Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]] = {}

    @model_validator(mode="after")
    def _has_lengths(self) -> BackboneSpec:
        if not self.lengths():
            raise ValueError(f"no clip length lies between {self.min_frames} and {self.max_frames} frames")
        return self

    @property
    def size_multiple(self) -> int:
        return self.spatial_stride * self.patch

    def grid(self, num_frames: int | None = None) -> FrameGrid:
        """The frame grid of a clip; raises ValueError (pydantic) when the length does not fit the stride."""
        return FrameGrid(num_frames=num_frames or self.num_frames, temporal_stride=self.temporal_stride, fps=self.fps)

    def guidance_for(self, task: TaskName) -> float:
        return self.task_guidance.get(task, self.guidance)

    def nearest_length(self, num_frames: int) -> int:
        clamped = min(max(num_frames, self.min_frames), self.max_frames)
        return nearest_length(clamped, self.temporal_stride)

    def lengths(self) -> list[int]:
        """All clip lengths that the model is offered for, in frames."""
        return list(range(self.nearest_length(self.min_frames), self.max_frames + 1, self.temporal_stride))

    def timeline(self, num_frames: int | None = None, keyframes: tuple[Keyframe, ...] = ()) -> Timeline:
        return Timeline(grid=self.grid(num_frames), width=self.width, height=self.height, keyframes=keyframes)


class Lora(BaseModel):
    """A LoRA that belongs to a model: a file in its folder, and how strongly it is applied.

    low, high: between which strengths it is known to work. expert: which of the two transformers of Wan 2.2 it is for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    strength: float = Field(default=1.0, ge=-10, le=10, allow_inf_nan=False)
    low: float | None = None
    high: float | None = None
    expert: Literal["high", "low"] | None = None


class ModelCard(BaseModel):
    """A model of the catalogue. `folder` is a diffusers folder; None when it is not on this machine.

    why_not: for each task that it does not do, the reason in a sentence. label: a word of warning beside its title.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    title: str
    summary: str
    licence: str
    folder: Path | None
    spec: BackboneSpec
    tasks: tuple[TaskName, ...]
    why_not: dict[TaskName, str] = {}
    label: str = ""
    loras: tuple[Lora, ...] = ()

    def refusal(self, task: TaskName) -> str:
        """Why the model is not offered for a task, in sentences; "" for one that it does."""
        if task in self.tasks:
            return ""
        words = f"{self.title} was not trained for {TASKS[task].title.lower()}."
        return " ".join(filter(None, (words, self.why_not.get(task, ""))))


def version_of(folder: Path) -> str:
    """A mark of a model folder that changes when its weights or configs do, from names, sizes and times of its files.

    Raises OSError when the folder cannot be read.
    """
    mark = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in {".json", ".safetensors"}):
        status = path.stat()
        mark.update(f"{path.relative_to(folder).as_posix()} {status.st_size} {status.st_mtime_ns}\n".encode())
    return mark.hexdigest()
