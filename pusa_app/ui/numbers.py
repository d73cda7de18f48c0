"""Fields for numbers that say what is wrong at their place, where Gradio would refuse every event of the form."""

from __future__ import annotations

import math

import gradio as gr


class Number(gr.Number):
    """Whatever was typed, None where the field is empty; minimum and maximum are for the arrows in the browser."""

    def preprocess(self, payload: float | None) -> float | int | None:
        if payload is None or not math.isfinite(payload):
            return None
        return self.round_to_precision(payload, self.precision)

    def get_block_name(self) -> str:
        return "number"


class Slider(gr.Slider):
    """What was typed beside it may be out of reach while it is typed: then the nearest end counts."""

    def preprocess(self, payload: float | None) -> float | None:
        if payload is None or not math.isfinite(payload):
            return None
        return super().preprocess(min(max(payload, self.minimum), self.maximum))

    def get_block_name(self) -> str:
        return "slider"
