"""What the fields of the form show of given choices, whether of a recipe or of what was there before a reload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from pusa_app.studio import cards
from pusa_app.ui.choices import Choices
from pusa_app.ui.exact import exact_of, size_field
from pusa_app.ui.faster import faster_of
from pusa_app.ui.fields import about, length_field, model_choices, negative_field
from pusa_app.ui.following import basis_of
from pusa_app.ui.loras import loras_value

if TYPE_CHECKING:
    from pusa_app.ui.form import Form


def fields_of(form: Form) -> list[Any]:
    """The components for which `values_of` has values."""
    return [
        *(field.file for field in form.fields.values()),
        form.prompt,
        form.style,
        form.direction,
        form.more,
        form.gap_first,
        form.gap_last,
        form.closing,
        form.result,
        form.length,
        form.seed,
        form.random,
        form.negative,
        form.steps,
        form.guidance,
        form.color_match,
        form.model,
        form.loras,
        form.cache,
        form.guided_high,
        form.guided_low,
        form.guidance_2,
        form.size,
        form.schedule,
        form.schedule_value,
        form.followed,
    ]


def values_of(form: Form, choices: Choices, random: bool) -> list[Any]:
    """Updates for `fields_of`. random: whether each run has another seed."""
    card = choices.card
    frames = card.spec.num_frames if choices.frames is None else int(choices.frames)
    return [
        *(getattr(choices, name) for name in form.fields),
        choices.prompt,
        choices.style,
        choices.direction,
        choices.more,
        choices.gap_first,
        choices.gap_last,
        choices.closing,
        choices.result,
        length_field(card, frames),
        choices.seed,
        random,
        negative_field(card.spec, value=choices.negative or ""),
        choices.steps,
        choices.guidance,
        choices.color_match,
        # A model that came since the page was made is among the choices too.
        gr.update(value=choices.model, info=about(card), **model_choices(cards())),
        loras_value(choices.model, choices.loras or ()),
        *faster_of(card.spec, choices),
        size_field(card.spec, choices.pixels),
        *exact_of(choices.schedule, choices.schedule_value),
        basis_of(choices),
    ]


__all__ = ["fields_of", "values_of"]
