"""Making recipes, and everything that can be said against one before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pusa_app import testing
from pusa_app.errors import MediaError, ModelError, RecipeError, UserError
from pusa_app.models import BackboneSpec, ModelCard, get_card, list_cards
from pusa_app.models.faster import no_cache, no_interval, no_second
from pusa_app.models.lora import find_loras
from pusa_app.settings import Settings
from pusa_app.timeline import (
    WHOLE_INTERVAL,
    FrameGrid,
    Given,
    Kept,
    Keyframe,
    Options,
    Plan,
    Recipe,
    Sweep,
    Timeline,
    build,
    get_task,
    plan_of,
)

# A clip may have this many times the pixels that its model was made for; more is noise and hours of waiting.
MAX_AREA = 4
MAX_STEPS = Settings.max_steps


def cards() -> list[ModelCard]:
    """All models on this machine, the one to begin with first."""
    return [*([testing.card()] if testing.enabled() else []), *list_cards()]


def default_card() -> ModelCard:
    """The model to begin with; raises ModelError with what to do when there is none at all."""
    found = cards()
    return found[0] if found else get_card("mini")


def card_of(model: str) -> ModelCard:
    """The card of a model; raises ModelError when it is unknown or not on this machine."""
    card = testing.card() if testing.enabled() and model == testing.FAKE else get_card(model)
    if card.folder is None:
        raise ModelError(f"The model {card.id} is not on this machine.")
    return card


def new_recipe(
    card: ModelCard,
    task: str,
    *,
    prompt: str = "",
    negative_prompt: str = "",
    keyframes: Sequence[Keyframe | dict[str, Any]] = (),
    num_frames: int | None = None,
    size: tuple[int, int] | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    seed: int = 0,
    schedule: dict[str, Any] | None = None,
    options: Options | dict[str, Any] | None = None,
    color_match: bool | None = None,
) -> Recipe:
    """A recipe for a model; what is None is the model's own. size is (width, height) in pixels.

    Raises RecipeError when a number cannot be; `check_recipe` says whether the model can do it.
    """
    spec = card.spec
    frames = spec.num_frames if num_frames is None else num_frames
    if (frames - 1) % spec.temporal_stride:
        raise RecipeError(
            f"A length of {frames} frames does not fit {card.id}: "
            f"it must be {spec.temporal_stride}*n + 1, for example {spec.nearest_length(frames)}."
        )
    width, height = size or (spec.width, spec.height)
    fields = {
        "task": get_task(task).name,
        "model": card.id,
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "timeline": {
            "grid": {"num_frames": frames, "temporal_stride": spec.temporal_stride, "fps": spec.fps},
            "width": width,
            "height": height,
            "keyframes": list(keyframes),
        },
        "steps": spec.steps if steps is None else steps,
        "guidance": spec.guidance_for(get_task(task).name) if guidance is None else guidance,
        "seed": seed,
        "schedule": schedule,
        "options": options or {},
        "color_match": get_task(task).color_match if color_match is None else color_match,
    }
    return build(Recipe, fields, what="recipe")


def check_recipe(recipe: Recipe, max_steps: int = MAX_STEPS, sources: bool = True) -> ModelCard:
    """Everything that can be said against a recipe without loading its model, its pictures and clips included.

    sources False: only the numbers are looked at, not the keyframes. Returns the model's card; raises RecipeError,
    ModelError or MediaError.
    """
    card = card_of(recipe.model)
    spec, timeline = card.spec, recipe.timeline
    task = get_task(recipe.task)
    if recipe.task not in card.tasks:
        why = card.why_not.get(task.name) or f"it does {', '.join(card.tasks)}."
        raise RecipeError(f"The model {card.id} does not do {task.title.lower()}: {why}")
    if timeline.grid.temporal_stride != spec.temporal_stride:
        raise RecipeError(
            f"This recipe has {timeline.grid.temporal_stride} frames a slot and the model {card.id} has "
            f"{spec.temporal_stride}: it was made for another model."
        )
    low, high = min(spec.lengths()), max(spec.lengths())
    if not low <= timeline.grid.num_frames <= high:
        raise RecipeError(
            f"A length of {timeline.grid.num_frames} frames is outside what {card.id} does: use {low} to {high}."
        )
    if timeline.width * timeline.height > MAX_AREA * spec.width * spec.height:
        raise RecipeError(
            f"The size {timeline.width}x{timeline.height} is too large for {card.id}, "
            f"which was made for {spec.width}x{spec.height}."
        )
    if recipe.steps > max_steps:
        raise RecipeError(f"{recipe.steps} steps are too many: use at most {max_steps}.")
    if problems := timeline.problems(spec.size_multiple):
        raise RecipeError(problems[0])
    _check_faster(recipe, spec)
    if sources:
        _check_loras(recipe, card)
        plan = plan_of(recipe)
        for part in plan.parts:
            _check_part(part)
        for piece in plan.pieces:
            if piece.kind == "kept":
                _check_kept(piece, recipe)
        _check_length(plan, recipe)
    return card


def check_sweep(sweep: Sweep, max_steps: int = MAX_STEPS) -> ModelCard:
    """As `check_recipe`, for every cell of a sweep; the message begins with the cell that cannot be made.

    Raises MediaError too when the grid would be too large for a video.
    """
    from pusa_app.sweep import grid_of

    grid_of(sweep)
    card, seen = card_of(sweep.recipe.model), set()
    for labels, recipe in sweep.cells():
        # Cells that differ in their seed have the same files, and looking at a file takes its time.
        what = recipe.model_dump_json(include={"task", "timeline", "options"})
        try:
            check_recipe(recipe, max_steps, sources=what not in seen)
        except UserError as error:
            raise type(error)(f"{', '.join(labels)}: {error}") from None
        seen.add(what)
    for path in sweep.paths:  # files that every preset leaves out are copied all the same
        if not Path(path).is_file():
            raise MediaError(f"{Path(path).name} is no longer there: add it again.")
    return card


def given_clip(path: str | Path, fps: float, **more: Any) -> Given:
    """A clip as a task takes it, with its exact length at `fps`; `more` are further fields of Given.

    Raises MediaError when it is not a clip, RecipeError when a field cannot be.
    """
    from pusa_app.media import count_frames

    return build(Given, {"path": str(path), "frames": count_frames(path, fps), **more}, what="clip")


def _check_faster(recipe: Recipe, spec: BackboneSpec) -> None:
    """That the model can go the ways to be faster that a recipe wants."""
    wanted = (
        (recipe.cache > 0, no_cache(spec)),
        (recipe.guidance_interval != WHOLE_INTERVAL, no_interval(spec)),
        (recipe.guidance_2 is not None, no_second(spec)),
    )
    for asked, why in wanted:
        if asked and why:
            raise RecipeError(f"{why} Leave it out.")


def _check_loras(recipe: Recipe, card: ModelCard) -> None:
    """That their files are there; a name of one of the model's own gives that another strength."""
    own = {Path(lora.file).stem for lora in card.loras}
    for lora in recipe.loras:
        if lora.path not in own:
            find_loras(lora.path)


def _check_part(part: Timeline) -> None:
    """Raises RecipeError or MediaError for keyframes that collide or whose files do not hold what is asked of them."""
    if problems := part.problems():
        raise RecipeError(problems[0])
    for keyframe in part.keyframes:
        _check_source(keyframe, part.grid)


def _check_kept(piece: Kept, recipe: Recipe) -> None:
    from pusa_app.media import count_frames

    have = count_frames(piece.path, recipe.timeline.grid.fps)
    wanted = piece.start if piece.stop is None else piece.stop
    if have < wanted:
        what = "the gap ends" if recipe.task == "complete" else "the part to be kept ends"
        raise RecipeError(f"{Path(piece.path).name} has {have} frames, but {what} at frame {wanted}: end it earlier.")


def _check_length(plan: Plan, recipe: Recipe) -> None:
    """Raises RecipeError for a result that would be longer than any clip that the program takes again."""
    from pusa_app.media import count_frames, most_frames

    fps = recipe.timeline.grid.fps
    kept = made = 0
    for piece in plan.pieces:
        if piece.kind == "made":
            made += piece.stop - piece.start
        else:
            kept += (count_frames(piece.path, fps) if piece.stop is None else piece.stop) - piece.start
    most = most_frames(fps)
    if kept + made <= most:
        return
    both = recipe.options.direction == "both"
    room = (most - kept) // (2 if both else 1)
    if recipe.task == "extend" and room > 0:
        advice = f"add at most {room}{' at each end' if both else ''}"
    elif recipe.task == "transition":
        advice = "use shorter clips"
    else:
        advice = "use a shorter clip" if kept else "ask for fewer frames"
    raise RecipeError(
        f"The video would have {kept + made} frames, and {most} ({most / fps:.0f} s) are the most: {advice}."
    )


def _check_source(keyframe: Keyframe, grid: FrameGrid) -> None:
    from pusa_app.media import check_image, count_frames

    source = keyframe.source
    if source.kind == "image":
        check_image(source.path)
    if source.kind != "clip":
        return
    have = count_frames(source.path, grid.fps)
    wanted = source.start + keyframe.num_frames(grid.temporal_stride)
    if have < wanted:
        raise RecipeError(
            f"{Path(source.path).name} has {have} frames at {grid.fps:g} frames a second, but {wanted} are "
            "needed: use a longer clip, an earlier start or a shorter span."
        )
