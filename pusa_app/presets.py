"""Presets: examples that fill the form in one click. Every *.json file of the folder `presets` holds a list of them."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from pusa_app.timeline import MAX_SEED, TaskName, build

FOLDER = Path(__file__).parent.parent / "presets"


class Preset(BaseModel):
    """What to put into the form. `image` is a path below the folder of presets; None means the model's own value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(min_length=1, max_length=60)
    task: TaskName
    prompt: str = Field(max_length=1000)
    image: str | None = None
    noise: float | None = Field(default=None, ge=0, le=1)
    seed: int = Field(default=0, ge=0, le=MAX_SEED)

    @property
    def image_path(self) -> Path | None:
        return None if self.image is None else FOLDER / self.image


@lru_cache(maxsize=1)
def presets() -> tuple[Preset, ...]:
    """All presets in the order of their files; raises RecipeError on a faulty one."""
    files = sorted(FOLDER.glob("*.json"))
    return tuple(build(Preset, entry, what="preset") for file in files for entry in json.loads(file.read_text("utf-8")))
