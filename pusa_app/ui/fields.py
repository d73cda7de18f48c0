"""What single fields of the form show: updates, words and choices, of a model or a recipe."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from pusa_app.models import BackboneSpec, ModelCard
from pusa_app.models.faster import no_negative
from pusa_app.timeline import TASKS, Recipe, Timeline, get_task
from pusa_app.ui import strings
from pusa_app.ui.player import publish

MAX_SHOWN_SEED = 2**31 - 1  # a browser's numbers are exact to 2**53; a short seed is easier to read out


def negative_field(spec: BackboneSpec, **value: str) -> dict[str, Any]:
    """An update of the negative prompt for a model."""
    return gr.update(**value, **negative_words(spec))


def negative_words(spec: BackboneSpec) -> dict[str, Any]:
    """What the field of the negative prompt says, and whether the model takes one."""
    why = no_negative(spec)
    return {"info": why or strings.NEGATIVE_HELP, "interactive": not why}


def length_field(card: ModelCard, frames: int) -> dict[str, Any]:
    """An update of the length for a model."""
    lengths = card.spec.lengths()
    reach = {"minimum": lengths[0], "maximum": lengths[-1], "step": card.spec.temporal_stride}
    return gr.update(value=frames, info=length_info(card, frames), **reach)


def length_info(card: ModelCard, frames: float | None) -> str:
    grid = card.spec.grid(card.spec.nearest_length(int(frames or card.spec.num_frames)))
    return f"{grid.num_frames} frames: {grid.seconds:.1f} seconds at {grid.fps:g} frames a second"


def new_seed() -> int:
    return random.randint(0, MAX_SHOWN_SEED)


def published(recipe: Recipe) -> tuple[Recipe, str]:
    """The recipe with copies of its files in the cache, less the keyframes whose files are gone, and a word of that."""
    keyframes = [k for k in recipe.timeline.keyframes if k.source.kind == "part" or Path(k.source.path).is_file()]
    gone = len(recipe.timeline.keyframes) - len(keyframes)
    kept: Timeline = recipe.timeline.having(*keyframes)
    names: dict[str, str] = {}
    copy: Callable[[str], str] = lambda path: names.setdefault(path, publish(Path(path)))  # noqa: E731 - two words
    published = recipe.model_copy(update={"timeline": kept}).with_paths(copy)
    return published, "" if not gone else f"{gone} keyframe(s) of this recipe are gone: their files are not there."


def tabs_value(task: str, card: ModelCard, notice: str = "") -> dict[str, Any]:
    """The tasks as tabs; `why` of one that the model does not do. notice: what is said of the choice."""
    tasks = [{"name": name, "title": one.title, "why": card.refusal(name)} for name, one in TASKS.items()]
    return {"task": task, "tasks": tasks, "notice": notice, "model": card.id}


def model_choices(cards: Sequence[ModelCard]) -> dict[str, Any]:
    """What there is to choose among: with one model alone, nothing."""
    return {"choices": [(card.title, card.id) for card in cards], "visible": len(cards) > 1}


def about(card: ModelCard) -> str:
    """A line on a model, under its choice."""
    return f"{card.summary} ({card.label}.)" if card.label else card.summary


def help_of(task: str) -> str:
    return f"<p>{get_task(task).help}</p>"
