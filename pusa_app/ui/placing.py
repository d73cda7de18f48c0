"""Putting what was made before back onto a timeline: a frame, a clip, a clip to go on from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from pusa_app.errors import RecipeError, UserError
from pusa_app.models import ModelCard
from pusa_app.presets import guidance_in
from pusa_app.studio import given_clip, new_recipe
from pusa_app.timeline import LATER_FIELDS, ClipSource, ImageSource, Keyframe, Options, Recipe, Timeline, get_task
from pusa_app.ui.choices import Choices, faults, told

NEW_NOISE = 0.0


def continued(recipe: Recipe, task: str, video: Path, card: ModelCard) -> Recipe:
    """A recipe for `task` whose clip is the result of another. Raises RecipeError or MediaError."""
    spec, name = card.spec, get_task(task).name
    if why := card.refusal(name):
        raise RecipeError(why)
    blank, same = spec.timeline(spec.num_frames), recipe.model == card.id
    if same:
        size = {"width": recipe.timeline.width, "height": recipe.timeline.height}
        blank = blank.model_copy(update=size)
    timeline = get_task(task).timeline(blank, {"clip": given_clip(video, spec.fps)}, Options(), spec.noise)
    new = new_recipe(
        card,
        name,
        prompt=recipe.prompt,
        negative_prompt=recipe.negative_prompt,
        keyframes=timeline.keyframes,
        steps=recipe.steps,
        guidance=guidance_in(name, recipe, spec),
        size=(blank.width, blank.height),
        seed=recipe.seed,
    )
    # What only this model knows how to take.
    own = {name: getattr(recipe, name) for name in ("schedule", *LATER_FIELDS)}
    return new.model_copy(update=own) if same else new


def with_frame(timeline: Timeline, slot: int, video: Path, seconds: float) -> Timeline:
    """The timeline with the frame of a video at a time as a picture in a slot, or in the nearest free one.

    Raises RecipeError when no slot is free, MediaError when the video cannot be read.
    """
    from pusa_app.media import check_clip, load_clip, save_poster
    from pusa_app.ui.player import publish_bytes

    info = check_clip(video)
    index = min(max(0, int(seconds * info.fps + 1e-3)), info.num_frames - 1)
    frame = load_clip(video, info.width, info.height, fps=info.fps, start=index, num_frames=1)[0]
    path = publish_bytes(lambda file: save_poster(frame, file), f"frame-{index}.png")
    keyframe = Keyframe(slot=_free(timeline, slot), source=ImageSource(path=path), noise=NEW_NOISE)
    return timeline.having(*timeline.keyframes, keyframe)


def with_clip(timeline: Timeline, slot: int, clip: Path) -> Timeline:
    """The timeline with a clip from a slot on, as far as slots are free and the clip has frames.

    Raises RecipeError when no slot is free, MediaError when the clip cannot be read.
    """
    from pusa_app.media import count_frames

    grid = timeline.grid
    slot, have = _free(timeline, slot), count_frames(clip, grid.fps)
    taken = {s for k in timeline.keyframes for s in k.slots}
    room = next((s for s in range(slot, grid.num_slots) if s in taken), grid.num_slots) - slot
    fits = (have - 1) // grid.temporal_stride + 1 if slot == 0 else have // grid.temporal_stride
    span = min(room, fits)
    if span < 1:
        raise RecipeError(f"The clip has {have} frames, fewer than a slot holds: use a longer one.")
    keyframe = Keyframe(slot=slot, span=span, source=ClipSource(path=str(clip)), noise=NEW_NOISE)
    return timeline.having(*timeline.keyframes, keyframe)


def placed(values: Sequence[Any], place: Callable[[Timeline], Timeline]) -> dict[str, Any]:
    """An update of the editor after something was put on its timeline, or why it could not be.

    values: those of the form's inputs.
    """
    choices = Choices(*values)
    try:
        timeline = place(choices.current()[0])
    except UserError as error:
        return gr.update(notice=str(error))
    return gr.update(value=timeline, notice="", **told(choices, timeline, faults(choices, timeline).get("timeline")))


def _free(timeline: Timeline, wanted: int) -> int:
    taken = {s for k in timeline.keyframes for s in k.slots}
    free = [s for s in range(timeline.grid.num_slots) if s not in taken]
    if not free:
        raise RecipeError("Every slot holds a keyframe: take one out first.")
    return min(free, key=lambda s: (abs(s - wanted), s))
