"""What the form holds, as one value object, and what follows from it: a timeline, a recipe, advice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pusa_app.errors import MediaError, RecipeError
from pusa_app.models import ModelCard
from pusa_app.presets import Preset, given_of
from pusa_app.studio import card_of, given_clip, new_recipe
from pusa_app.timeline import (
    Given,
    ImageSource,
    Keyframe,
    Options,
    Piece,
    Recipe,
    Task,
    Timeline,
    advise,
    build,
    get_task,
    remap,
)
from pusa_app.ui import strings


@dataclass(frozen=True)
class Choices:
    """The values of the form, in the order of its inputs. Numbers may be None where a field was emptied.

    image, end, clip, clip_b: paths of uploads. gap_first and gap_last: the frames of a gap, both in it. more: frames
    that a task adds or makes, None for one run. timeline: what the editor holds.
    """

    task: str
    prompt: str | None
    image: str | None
    end: str | None
    clip: str | None
    clip_b: str | None
    style: str
    direction: str
    more: float | None
    gap_first: float | None
    gap_last: float | None
    closing: float | None
    result: str
    timeline: Timeline | None
    frames: float | None
    seed: float | None
    negative: str | None
    steps: float | None
    guidance: float | None
    color_match: bool
    model: str

    @property
    def card(self) -> ModelCard:
        return card_of(self.model)

    def blank(self) -> Timeline:
        """A timeline of the wanted length without keyframes."""
        spec = self.card.spec
        return spec.timeline(spec.nearest_length(int(self.frames or spec.num_frames)))

    def options(self) -> Options:
        """The choices that the task has; raises RecipeError when one of them cannot be."""
        values: dict[str, Any] = {
            "style": self.style,
            "direction": self.direction,
            "frames": None if self.more is None else int(self.more),
            "closing": self.closing or 0.0,
            "result": self.result,
            "gap": self._gap(),
        }
        used = get_task(self.task).options
        return build(Options, {name: value for name, value in values.items() if name in used}, what="choices")

    def given(self) -> Mapping[str, Given]:
        """The uploads that the task asks for and that are there. Raises MediaError when a clip cannot be read."""
        return self._uploads({ask.name: ask.kind for ask in get_task(self.task).asks})

    def built(self) -> Timeline:
        """What the task makes of the uploads: as much of it as is there. Raises RecipeError or MediaError."""
        task, blank, given = get_task(self.task), self.blank(), self.given()
        if any(ask.missing and ask.name not in given for ask in task.asks):
            return _partly(task, blank, given)
        return task.timeline(blank, given, self.options(), self.card.spec.noise)

    def current(self) -> tuple[Timeline, list[str]]:
        """What the editor holds on the grid that the form asks for, and what had to move for it."""
        blank = self.blank()
        if self.timeline is None:
            return blank, []
        return remap(self.timeline, blank.grid, blank.width, blank.height)

    def with_preset(self, preset: Preset) -> Recipe:
        """What a preset makes of the files, words and seed of the form. Raises RecipeError or MediaError."""
        spec = self.card.spec
        plain = self._plain()
        given = {**given_of(plain), **self._uploads(preset.roles)}
        length = preset.settings.num_frames(spec) if preset.settings.length else plain.timeline.grid.num_frames
        filled = preset.fill(spec.timeline(length), given, spec.noise, self._gap())
        wanted = {name: value for name, value in filled.settings if value is not None and name != "length"}
        task = get_task(preset.task)
        changes = {"task": task.name, "color_match": task.color_match, "options": filled.options, **wanted}
        return plain.model_copy(update={**changes, "timeline": filled.timeline})

    def recipe(self) -> Recipe:
        """Raises RecipeError or ModelError with what is missing or wrong."""
        recipe = self._plain()
        get_task(self.task).plan(recipe.timeline, recipe.options)
        return recipe

    def _plain(self) -> Recipe:
        """The form as a recipe, whether or not its task can do with it."""
        timeline, _ = self.current()
        return new_recipe(
            self.card,
            self.task,
            prompt=(self.prompt or "").strip(),
            negative_prompt=(self.negative or "").strip(),
            keyframes=timeline.keyframes,
            num_frames=None if self.frames is None else int(self.frames),
            steps=None if self.steps is None else int(self.steps),
            guidance=self.guidance,
            seed=int(self.seed or 0),
            options=self.options(),
            color_match=self.color_match,
        )

    def _uploads(self, kinds: Mapping[str, str]) -> dict[str, Given]:
        """Uploads by the names under which they are given; `kinds` says which of them are wanted, and what they are."""
        found = {}
        for name, kind in kinds.items():
            path = getattr(self, name, None)
            if path is not None:
                found[name] = Given(path=path) if kind == "image" else given_clip(path, self.card.spec.fps)
        return found

    def _gap(self) -> tuple[int, int] | None:
        if self.gap_first is None or self.gap_last is None:
            return None
        return int(self.gap_first), int(self.gap_last) + 1


NAMES = tuple(field.name for field in fields(Choices))


def problems(choices: Choices) -> dict[str, str]:
    """What keeps the form from being sent: a sentence per control."""
    task, found = get_task(choices.task), {}
    if task.needs_prompt and not (choices.prompt or "").strip():
        found["prompt"] = strings.PROMPT_MISSING
    timeline, _ = choices.current()
    if "gap" in task.options and (choices.gap_first is None or choices.gap_last is None):
        found["gap_last"] = strings.GAP_MISSING
    try:
        task.plan(timeline, choices.options())
    except RecipeError as error:
        absent = next((a for a in task.asks if a.missing and getattr(choices, a.name) is None), None)
        if absent is not None:
            found[absent.name] = str(absent.missing)
        elif not found:
            found["timeline"] = str(error)
    return found


def told(choices: Choices, timeline: Timeline) -> dict[str, Any]:
    """What the editor says of a timeline: advice for the task, what would fail, what the result consists of."""
    task = get_task(choices.task)
    advice = advise(task.name, timeline).model_dump()
    result: list[dict[str, Any]] = []
    try:
        plan = task.plan(timeline, choices.options())
        result = [_piece(piece, timeline) for piece in plan.pieces]
    except MediaError:
        pass  # the file went away; submitting says so
    except RecipeError as error:
        if timeline.keyframes:
            advice["warnings"] = (str(error), *advice["warnings"])
    if len(result) == 1 and result[0]["frames"] == timeline.grid.num_frames:
        result = []  # what is seen is what comes out
    return {"advice": advice | {"warnings": list(advice["warnings"])}, "result": result}


def asked_of(recipe: Recipe) -> dict[str, str]:
    """The files of a recipe under the names of what its task asks for."""
    found: dict[str, str] = {}
    keyframes, last = recipe.timeline.keyframes, recipe.timeline.grid.num_slots
    for ask in get_task(recipe.task).asks:
        fitting = [k for k in keyframes if k.source.kind == ask.kind]
        if ask.name in ("end", "clip_b"):
            fitting = [k for k in fitting if k.slots.stop == last and k.slot > 0]
        elif len(keyframes) > 1:
            fitting = [k for k in fitting if k.slot == 0] or fitting
        if fitting:
            found[ask.name] = fitting[0].source.path
    return found


def _partly(task: Task, blank: Timeline, given: Mapping[str, Given]) -> Timeline:
    """The pictures that are there already, where they will be."""
    places = {"image": 0, "end": blank.grid.num_slots - 1}
    pictures = [(places[a.name], given[a.name]) for a in task.asks if a.kind == "image" and a.name in given]
    return blank.having(*(Keyframe(slot=slot, source=ImageSource(path=g.path)) for slot, g in pictures))


def _piece(piece: Piece, timeline: Timeline) -> dict[str, Any]:
    from pusa_app.media import count_frames

    if piece.kind == "made":
        return {"kind": "made", "frames": piece.stop - piece.start, "title": "made by the model"}
    stop = count_frames(piece.path, timeline.grid.fps) if piece.stop is None else piece.stop
    name = Path(piece.path).name
    return {"kind": "kept", "frames": stop - piece.start, "title": f"{name}, untouched"}


__all__ = ["NAMES", "Choices", "asked_of", "problems", "told"]
