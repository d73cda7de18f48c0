"""A recipe as a preset."""

from __future__ import annotations

from typing import Any

from pusa_app.errors import MediaError, RecipeError
from pusa_app.models import ModelCard
from pusa_app.presets.preset import Noises, Placed, Preset, name_of
from pusa_app.presets.roles import given_of, roles_of
from pusa_app.timeline import LATER_FIELDS, FrameGrid, Keyframe, Recipe, build, get_task, last_picture


def preset_from(recipe: Recipe, card: ModelCard, title: str, when: str = "") -> Preset:
    """A recipe as a preset: where its keyframes are and how noisy, its options, its settings, its words and seed.

    What is the model's own stays open. Its files are not kept. Raises RecipeError when the title is none.
    """
    if not name_of(title):
        raise RecipeError("A preset needs a name with at least one letter or digit.")
    spec, grid, options = card.spec, recipe.timeline.grid, recipe.options
    mine = [(role, keyframe) for role, keyframe, by_task in roles_of(recipe) if by_task]
    beside = [_as_placed(role, keyframe, grid) for role, keyframe, by_task in roles_of(recipe) if not by_task]
    settings: dict[str, Any] = {
        "length": None if grid.num_frames == spec.num_frames else grid.num_frames / spec.num_frames,
        "steps": None if recipe.steps == spec.steps else recipe.steps,
        "guidance": None if recipe.guidance == spec.guidance_for(recipe.task) else recipe.guidance,
        "schedule": None if recipe.schedule == spec.schedule else recipe.schedule,
        "color_match": None if recipe.color_match == get_task(recipe.task).color_match else recipe.color_match,
    }
    # Few steps want the LoRA that they were chosen for.
    for name in LATER_FIELDS:
        if (value := getattr(recipe, name)) != Recipe.model_fields[name].default:
            settings[name] = value
    optional = {ask.name for ask in get_task(recipe.task).asks if not ask.missing}
    fields = {
        "title": " ".join(title.split()),
        "when": " ".join(when.split()),
        "task": recipe.task,
        "uses": sorted({role for role, _ in mine} & optional),
        "noise": _noises(recipe, [keyframe for _, keyframe in mine]),
        "keyframes": beside,
        "options": options.model_copy(update={"frames": None, "gap": None}),
        "more": None if options.frames is None else options.frames / grid.num_frames,
        "gap": _gap_as_share(recipe),
        "settings": settings,
        "prompt": recipe.prompt,
        "negative_prompt": recipe.negative_prompt,
        "seed": recipe.seed,
    }
    return build(Preset, fields, what="preset")


def _as_placed(role: str, keyframe: Keyframe, grid: FrameGrid) -> Placed:
    last = grid.num_slots - 1
    at: Any = {"share": keyframe.slot / max(1, last)}
    if keyframe.slot == 0:
        at = "first"
    elif keyframe.slots.stop == grid.num_slots:
        at = {"from_end": keyframe.span - 1} if keyframe.span > 1 else "last"
    kind = "image" if keyframe.still else "clip"
    fields = {"role": role, "kind": kind, "at": at, "noise": keyframe.noise, "span": keyframe.span}
    return build(Placed, fields, what="preset")


def _noises(recipe: Recipe, placed: list[Keyframe]) -> Noises:
    """What was chosen for the keyframes that the task places."""
    values: dict[str, Any] = {}
    for keyframe in placed:
        if recipe.task == "restyle":
            values["restyle"] = keyframe.noise
        elif keyframe.still:
            values["start" if keyframe.slot == 0 else last_picture(recipe.task)] = keyframe.noises[0]
        else:
            values["after" if _leads_out(keyframe, recipe) else "before"] = keyframe.noises[:64]
    return Noises(**values)


def _leads_out(keyframe: Keyframe, recipe: Recipe) -> bool:
    """Whether a clip stands behind the new frames. What follows a gap need not reach the end of the timeline."""
    if recipe.options.gap is not None and recipe.task == "complete" and keyframe.source.kind == "clip":
        return keyframe.source.start >= recipe.options.gap[0]  # it may have been drawn into the gap
    return keyframe.slots.stop == recipe.timeline.grid.num_slots and keyframe.slot > 0


def _gap_as_share(recipe: Recipe) -> tuple[float, float] | None:
    gap = recipe.options.gap
    if gap is None:
        return None
    try:
        clip = given_of(recipe)["clip"]
        first, stop = ((frame - clip.start) / (clip.end - clip.start) for frame in gap)
    except (MediaError, RecipeError, KeyError):
        return None  # whoever uses the preset says where the gap is
    return (first, stop) if 0 <= first < stop <= 1 else None
