"""What makes a run faster, in the advanced part of the form: First Block Cache, and where there is guidance."""

from __future__ import annotations

from typing import Any

import gradio as gr

from pusa_app.models import BackboneSpec
from pusa_app.models.faster import no_cache, no_interval, no_second
from pusa_app.ui import strings
from pusa_app.ui.choices import Choices
from pusa_app.ui.numbers import Number, Slider

MOST = 0.3  # of the cache: beyond it clips fall apart


class Faster:
    """Four fields; their names are those of Choices, which makes of them what a recipe holds."""

    def __init__(self, spec: BackboneSpec) -> None:
        self.cache = Slider(0, MOST, 0.0, step=0.01, elem_id="cache", **_cache(spec))
        with gr.Row(elem_id="guidance-interval"):
            more: dict[str, Any] = {"minimum": 0, "maximum": 1, "step": 0.05, "min_width": 120}
            high, low = _interval(spec)
            self.guided_high = Number(1.0, label=strings.GUIDED_HIGH, elem_id="guided_high", **high, **more)
            self.guided_low = Number(0.0, label=strings.GUIDED_LOW, elem_id="guided_low", **low, **more)
        self.guidance_2 = Number(
            None,
            label=strings.GUIDANCE_2,
            info=strings.GUIDANCE_2_HELP,
            minimum=0,
            maximum=15,
            step=0.1,
            visible=not no_second(spec),
            elem_id="guidance_2",
        )

    @property
    def fields(self) -> list[Any]:
        return [self.cache, self.guided_high, self.guided_low, self.guidance_2]


def faster_of(spec: BackboneSpec, choices: Choices | None = None) -> list[dict[str, Any]]:
    """Updates for the fields: a model, with what was chosen or the usual ones."""
    usual = (0.0, 1.0, 0.0, None)
    cache, high, low, second = (
        usual
        if choices is None
        else (choices.cache or 0.0, choices.guided_high, choices.guided_low, choices.guidance_2)
    )
    from_noise, down_to = _interval(spec)
    return [
        # What somebody chose elsewhere stays what it is.
        gr.update(value=cache, maximum=max(MOST, cache), **_cache(spec)),
        gr.update(value=high, **from_noise),
        gr.update(value=low, **down_to),
        gr.update(value=second, visible=not no_second(spec)),
    ]


def _cache(spec: BackboneSpec) -> dict[str, Any]:
    why = no_cache(spec)
    return {"label": strings.CACHE, "info": why or strings.CACHE_HELP, "interactive": not why}


def _interval(spec: BackboneSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of its upper and its lower end."""
    why = no_interval(spec)
    high, low = (why, "") if why else (strings.GUIDED_HIGH_HELP, strings.GUIDED_LOW_HELP)
    return {"info": high, "interactive": not why}, {"info": low, "interactive": not why}
