"""LoRAs in the form: those that the model may have, each with its strength, several at once.

Visitors of a shared page choose among what is here; only whoever sits at the machine names files of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr

from pusa_app.errors import RecipeError, UserError
from pusa_app.models import ModelCard
from pusa_app.models.known_loras import checked_lora, known_loras
from pusa_app.settings import Settings
from pusa_app.studio import card_of
from pusa_app.timeline import LoraChoice, build
from pusa_app.ui import strings
from pusa_app.ui.drawn import DOM, DrawnWithEvents
from pusa_app.ui.visitors import is_local, told_to_user

SCRIPTS = (DOM, Path(__file__).with_name("loras.js"))
MOST = 16  # as a recipe has
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
FIELDS = ("name", "strength", "expert")  # of one that was chosen: Gradio takes what is called a path for its own


class LorasField(DrawnWithEvents):
    """Value on the page: {model, chosen: [{name, strength, expert}]}; in Python LoraChoices on the way in.

    Props: known, what may be chosen for `of`, a model; may: whether files may be named. Events: input, look (what is
    known for the model is wanted), add ({place}), distilled ({name}: its steps and guidance are wanted).
    """

    EVENTS = [*gr.HTML.EVENTS, "look", "add", "distilled"]  # noqa: RUF012

    def preprocess(self, payload: Any) -> tuple[LoraChoice, ...]:
        try:
            return chosen_of(payload)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None


class Loras:
    """The field, and what it does by itself."""

    def __init__(self, card: ModelCard, settings: Settings) -> None:
        self._shared = settings.shared
        more: dict[str, Any] = {"known": [], "of": "", "may": False}
        self.field = LorasField(loras_value(card.id), script=SCRIPTS, elem_id="loras", words=strings.LORAS, **more)

    def wire(self, model: gr.Dropdown, steps: Any, guidance: Any) -> None:
        self.field.look(self._look, model, self.field, **QUIET)
        self.field.add(self._add, [model, self.field], self.field, **QUIET)
        self.field.distilled(_distilled, model, [steps, guidance], **QUIET)

    def _may(self, request: gr.Request) -> bool:
        return not self._shared and is_local(request)

    def _look(self, model: str, request: gr.Request) -> dict[str, Any]:
        with told_to_user():
            known = [asdict(one) for one in known_loras(card_of(model))]
        return gr.update(known=known, of=model, may=self._may(request))

    def _add(
        self, model: str, chosen: Sequence[LoraChoice], request: gr.Request, event: gr.EventData
    ) -> dict[str, Any]:
        with told_to_user():
            if not self._may(request):
                raise RecipeError(strings.LORAS_HOST_ONLY)
            place = str(event.place).strip().strip("\"'")[:4096]
            if not place:
                raise RecipeError(strings.LORAS_NO_PLACE)
            if len(chosen) >= MOST:
                raise RecipeError(strings.LORAS_TOO_MANY.format(most=MOST))
            name = checked_lora(place)
        if all(one.path != name for one in chosen):
            chosen = [*chosen, LoraChoice(path=name)]
        return gr.update(value=loras_value(model, chosen))


def loras_value(model: str, chosen: Sequence[LoraChoice] = ()) -> dict[str, Any]:
    return {
        "model": model,
        "chosen": [{"name": one.path, "strength": one.strength, "expert": one.expert} for one in chosen],
    }


def chosen_of(value: Any) -> tuple[LoraChoice, ...]:
    """What was chosen on the page; raises RecipeError when it is nothing that can be."""
    chosen = value.get("chosen") if isinstance(value, dict) else None
    if not isinstance(chosen, list):
        return ()
    if len(chosen) > MOST:
        raise RecipeError(strings.LORAS_TOO_MANY.format(most=MOST))
    found = []
    for one in chosen:
        name, strength, expert = (one.get(field) if isinstance(one, dict) else None for field in FIELDS)
        found.append(build(LoraChoice, {"path": name, "strength": strength, "expert": expert}, what="LoRA"))
    return tuple(found)


def _distilled(model: str, event: gr.EventData) -> list[Any]:
    """The steps and the guidance for which a LoRA was made."""
    with told_to_user():
        found = {one.name: one for one in known_loras(card_of(model))}
    one = found.get(str(event.name))
    if one is None or one.steps is None:
        return [gr.skip(), gr.skip()]
    return [one.steps, gr.skip() if one.guidance is None else one.guidance]
