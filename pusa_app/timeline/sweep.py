"""Sweeps: one recipe with one or two of its choices varied, and a video for every combination."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pusa_app.errors import RecipeError
from pusa_app.timeline.recipe import MAX_SEED, Recipe, build
from pusa_app.timeline.schedule import MAX_STEPS, Unit

SWEEP_VERSION: Final = 1
MAX_CELLS = 64
MAX_SWEEP_CHARS = 4_000_000
MAX_COLUMNS = 8  # of a sweep with one axis; more values go on in the next row


class _Axis(BaseModel):
    """kind: what varies. values: distinct, in the order of the cells."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    values: tuple[Any, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """One per value, short enough for the edge of a grid."""
        return tuple(f"{self.kind} {value:g}" for value in self.values)

    @model_validator(mode="after")
    def _no_value_twice(self) -> _Axis:
        for number, value in enumerate(self.values):
            if value in self.values[:number]:
                raise ValueError(f"the value {value} is there twice")
        return self


class NoiseAxis(_Axis):
    """The noise of one keyframe, counted from 0 in the order of the timeline; a value goes to all of its slots."""

    kind: Literal["noise"] = "noise"
    keyframe: int = Field(default=0, ge=0, lt=1000)
    values: tuple[Unit, ...] = Field(min_length=1, max_length=MAX_CELLS)

    def varied(self, recipe: Recipe, number: int) -> Recipe:
        """The recipe with value `number` of this axis."""
        keyframes = list(recipe.timeline.keyframes)
        keyframes[self.keyframe] = keyframes[self.keyframe].model_copy(update={"noise": self.values[number]})
        return recipe.model_copy(update={"timeline": recipe.timeline.having(*keyframes)})


class SeedAxis(_Axis):
    """The seed."""

    kind: Literal["seed"] = "seed"
    values: tuple[Annotated[int, Field(ge=0, le=MAX_SEED)], ...] = Field(min_length=1, max_length=MAX_CELLS)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(f"seed {value}" for value in self.values)

    def varied(self, recipe: Recipe, number: int) -> Recipe:
        """The recipe with value `number` of this axis."""
        return recipe.model_copy(update={"seed": self.values[number]})


class StepsAxis(_Axis):
    """The number of steps."""

    kind: Literal["steps"] = "steps"
    values: tuple[Annotated[int, Field(ge=1, le=MAX_STEPS)], ...] = Field(min_length=1, max_length=MAX_CELLS)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(f"{value} step{'s' if value > 1 else ''}" for value in self.values)

    def varied(self, recipe: Recipe, number: int) -> Recipe:
        """The recipe with value `number` of this axis."""
        return recipe.model_copy(update={"steps": self.values[number]})


class GuidanceAxis(_Axis):
    """The guidance scale."""

    kind: Literal["guidance"] = "guidance"
    values: tuple[Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)], ...] = Field(
        min_length=1, max_length=MAX_CELLS
    )

    def varied(self, recipe: Recipe, number: int) -> Recipe:
        """The recipe with value `number` of this axis."""
        return recipe.model_copy(update={"guidance": self.values[number]})


class PresetAxis(_Axis):
    """Presets by their titles. `recipes` are what they make of the sweep's own recipe, so that a sweep can be made
    again where a preset has changed or never was (`pusa_app.presets.preset_axis`)."""

    kind: Literal["preset"] = "preset"
    values: tuple[Annotated[str, Field(min_length=1, max_length=60)], ...] = Field(min_length=1, max_length=MAX_CELLS)
    recipes: tuple[Recipe, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        return self.values

    def varied(self, recipe: Recipe, number: int) -> Recipe:
        """The recipe of preset `number`; `recipe` is what it was made of."""
        return self.recipes[number]


Axis = Annotated[NoiseAxis | SeedAxis | StepsAxis | GuidanceAxis | PresetAxis, Field(discriminator="kind")]


class Cell(NamedTuple):
    """One combination of a sweep: a label per axis, and the recipe of its video."""

    labels: tuple[str, ...]
    recipe: Recipe


class Sweep(BaseModel):
    """A recipe and one or two axes. Its JSON has `kind` "sweep", which a recipe's never has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["sweep"] = "sweep"
    version: Literal[1] = SWEEP_VERSION
    recipe: Recipe
    axes: tuple[Axis, ...] = Field(min_length=1, max_length=2)

    @model_validator(mode="after")
    def _can_be_made(self) -> Sweep:
        count = math.prod(len(axis.values) for axis in self.axes)
        if count > MAX_CELLS:
            raise ValueError(f"{count} videos are too many: {MAX_CELLS} is the most")
        if len({(axis.kind, getattr(axis, "keyframe", None)) for axis in self.axes}) < len(self.axes):
            raise ValueError(f"both axes vary the same thing ({self.axes[0].kind})")
        if len({(r.model, r.timeline.width, r.timeline.height, r.timeline.grid.fps) for r in self.recipes}) > 1:
            raise ValueError("all of its recipes must be for one model, size and frame rate")
        for axis in self.axes:
            if axis.kind == "preset" and len(axis.recipes) != len(axis.values):
                raise ValueError(f"{len(axis.recipes)} recipes do not go with {len(axis.values)} presets")
            if axis.kind == "noise":
                have = min(len(recipe.timeline.keyframes) for recipe in self.recipes)
                if axis.keyframe >= have:
                    raise ValueError(f"there is no such keyframe to vary: the timeline has {have}")
        return self

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns: the first axis goes down and the second across; a single one goes across, row by row."""
        counts = [len(axis.values) for axis in self.axes]
        if len(counts) == 2:
            return counts[0], counts[1]
        columns = counts[0] if counts[0] <= MAX_COLUMNS else min(MAX_COLUMNS, math.ceil(math.sqrt(counts[0])))
        return math.ceil(counts[0] / columns), columns

    @property
    def num_cells(self) -> int:
        """How many there are, without making them."""
        return math.prod(len(axis.values) for axis in self.axes)

    def cells(self) -> tuple[Cell, ...]:
        """All combinations, row by row."""
        # A preset decides more than any other axis, which therefore comes after it.
        order = sorted(range(len(self.axes)), key=lambda a: self.axes[a].kind != "preset")
        cells = []
        for numbers in itertools.product(*(range(len(axis.values)) for axis in self.axes)):
            recipe = self.recipe
            for a in order:
                recipe = self.axes[a].varied(recipe, numbers[a])
            cells.append(Cell(tuple(names[number] for names, number in zip(self.labels, numbers, strict=True)), recipe))
        return tuple(cells)

    @property
    def labels(self) -> tuple[tuple[str, ...], ...]:
        """Those of each axis; a noise says of which keyframe it is where there are several."""
        return tuple(tuple(self._where(axis) + label for label in axis.labels) for axis in self.axes)

    def _where(self, axis: Axis) -> str:
        """Where presets place the keyframe differently, its number instead of its slot."""
        made = self.recipes[1:] or [self.recipe]  # presets take the place of what they were made of
        if axis.kind != "noise" or all(len(recipe.timeline.keyframes) == 1 for recipe in made):
            return ""
        slots = {recipe.timeline.keyframes[axis.keyframe].slot for recipe in made}
        return f"slot {slots.pop()} " if len(slots) == 1 else f"keyframe {axis.keyframe + 1} "

    @property
    def paths(self) -> list[str]:
        """The files of its recipes, in their order."""
        return [path for recipe in self.recipes for path in recipe.paths]

    def with_paths(self, change: Callable[[str], str]) -> Sweep:
        """The same sweep with other names for its files."""
        axes = tuple(
            axis.model_copy(update={"recipes": tuple(r.with_paths(change) for r in axis.recipes)})
            if axis.kind == "preset"
            else axis
            for axis in self.axes
        )
        return self.model_copy(update={"recipe": self.recipe.with_paths(change), "axes": axes})

    def with_bare_loras(self) -> Sweep:
        """The same sweep with LoRAs by the names of their files."""
        axes = tuple(
            axis.model_copy(update={"recipes": tuple(r.with_bare_loras() for r in axis.recipes)})
            if axis.kind == "preset"
            else axis
            for axis in self.axes
        )
        return self.model_copy(update={"recipe": self.recipe.with_bare_loras(), "axes": axes})

    @property
    def recipes(self) -> list[Recipe]:
        """The recipe that is varied, and those of its presets."""
        return [self.recipe, *(r for axis in self.axes if axis.kind == "preset" for r in axis.recipes)]

    def to_json(self) -> str:
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str) -> Sweep:
        """Raises RecipeError with one line when the text is not a sweep."""
        data = _object(text)
        if data is None or data.get("kind") != "sweep":
            raise RecipeError("This is not a sweep: it is a recipe, or something else.")
        data.pop("made_with", None)  # how a machine made it, which says nothing of what it is
        version = data.get("version", SWEEP_VERSION)
        if isinstance(version, int) and version > SWEEP_VERSION:
            raise RecipeError(f"This sweep has version {str(version)[:20]}; update Pusa Studio to use it.")
        return build(cls, data, what="sweep")

    @classmethod
    def from_file(cls, path: Path) -> Sweep | None:
        """The sweep in a JSON file; None when it holds something else. Raises RecipeError when it is a faulty sweep."""
        try:
            with path.open(encoding="utf-8-sig") as file:
                text = file.read(MAX_SWEEP_CHARS + 1)
        except (OSError, UnicodeDecodeError):
            return None
        return cls.from_json(text) if is_sweep(text) else None


def new_sweep(recipe: Recipe, *axes: dict[str, Any] | BaseModel) -> Sweep:
    """A sweep of axes, or of their fields such as {"kind": "seed", "values": [1, 2]}.

    Raises RecipeError with one line when it cannot be made.
    """
    return build(Sweep, {"recipe": recipe, "axes": axes}, what="sweep")


def is_sweep(text: str) -> bool:
    """Whether a JSON text is a sweep's and not a recipe's; what it is worth is found out by `from_json`."""
    data = _object(text)
    return data is not None and data.get("kind") == "sweep"


def _object(text: str) -> dict[str, Any] | None:
    if len(text) > MAX_SWEEP_CHARS:
        return None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


__all__ = [
    "MAX_CELLS",
    "Axis",
    "Cell",
    "GuidanceAxis",
    "NoiseAxis",
    "PresetAxis",
    "SeedAxis",
    "StepsAxis",
    "Sweep",
    "is_sweep",
    "new_sweep",
]
