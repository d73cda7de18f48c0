"""What was made before, for a timeline: a frame, a clip, a clip to go on from."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from pusa_app.errors import RecipeError, UserError
from pusa_app.models import ModelCard
from pusa_app.presets import guidance_in
from pusa_app.studio import given_clip, new_recipe
from pusa_app.timeline import LATER_FIELDS, Options, Recipe, get_task

COUNT = itertools.count(1)  # of answers, each of which must be news to the editor


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


def frame_of(video: Path, seconds: float) -> str:
    """The frame of a video at a time, as a picture in the cache: its path. Raises MediaError."""
    from pusa_app.media import check_clip, load_clip, save_poster
    from pusa_app.ui.player import publish_bytes

    info = check_clip(video)
    index = min(max(0, int(seconds * info.fps + 1e-3)), info.num_frames - 1)
    frame = load_clip(video, info.width, info.height, fps=info.fps, start=index, num_frames=1)[0]
    return publish_bytes(lambda file: save_poster(frame, file), f"frame-{index}.png")


def placed(make: Callable[[], str], slot: int = 0, order: str = "") -> dict[str, Any]:
    """An update by which the editor puts a file onto its timeline from a slot on, or why there is none.

    make: makes the file and gives its path in the cache. order: what the editor called this when it asked. The answer
    is the file and not the timeline: that may have been edited since.
    """
    answer: dict[str, Any] = {"order": order, "at": next(COUNT)}
    try:
        path = make()
    except (UserError, gr.Error) as error:
        words = error.message if isinstance(error, gr.Error) else str(error)
        return gr.update(placed=answer, notice=words)
    answer |= {"path": path, "name": Path(path).name, "slot": slot}
    return gr.update(placed=answer, notice="")
