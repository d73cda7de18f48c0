"""What researchers set by hand, in the form: the size in pixels, and the schedule of sigmas."""

from __future__ import annotations

import math
import re
from typing import Any

import gradio as gr

from pusa_app.models import BackboneSpec
from pusa_app.timeline import ScheduleSpec
from pusa_app.timeline.schedule import SCHEDULE_VALUES
from pusa_app.ui import strings
from pusa_app.ui.numbers import Number

LEAST_SIDE = 256  # pixels: a model whose own pictures are smaller knows no other size
REACH = (8, 8192)  # pixels, of a side
SHARES = (0.75, 0.5)  # of the model's own sides
USUAL = {"shift": 3.0, "linear-quadratic": 0.025}  # values of a schedule to begin with


class Exact:
    """Builds a row in the Blocks that is open; `fields` are those of Choices: schedule, schedule_value."""

    def __init__(self) -> None:
        with gr.Row(elem_id="schedule-row"):
            self.kind = gr.Dropdown(
                [(title, kind) for kind, title in strings.SCHEDULES.items()],
                value="",
                label=strings.SCHEDULE,
                info=strings.SCHEDULE_HELP,
                filterable=False,
                min_width=140,
                elem_id="schedule",
            )
            self.value = Number(None, visible=False, min_width=100, elem_id="schedule_value")
        self.fields = [self.kind, self.value]
        self.kind.input(
            lambda kind: _value(kind, None), self.kind, self.value, show_progress="hidden", api_visibility="private"
        )


def exact_of(kind: str | None = "", value: float | None = None) -> list[dict[str, Any]]:
    """Updates for `Exact.fields`: a schedule, by default the model's own."""
    return [gr.update(value=kind or ""), _value(kind or "", value)]


def _value(kind: str, value: float | None) -> dict[str, Any]:
    if kind not in SCHEDULE_VALUES:
        return gr.update(value=None, visible=False)
    _, (low, high) = SCHEDULE_VALUES[kind]
    reach = {"minimum": low, "maximum": high, "label": strings.SCHEDULE_VALUES[kind]}
    return gr.update(value=USUAL[kind] if value is None else value, visible=True, **reach)


def schedule_choice(schedule: ScheduleSpec | None) -> tuple[str, float | None]:
    """The kind of a schedule and its value; "" is the model's own."""
    return ("", None) if schedule is None else (schedule.kind, getattr(schedule, SCHEDULE_VALUES[schedule.kind][0]))


def schedule_fields(kind: str | None, value: float | None) -> dict[str, Any] | None:
    """The fields of a ScheduleSpec, within its bounds; None for the model's own."""
    if kind not in SCHEDULE_VALUES:
        return None
    name, (low, high) = SCHEDULE_VALUES[kind]
    return {"kind": kind, name: min(max(USUAL[kind] if value is None else value, low), high)}


# --- sizes -----------------------------------------------------------------------------------------------------------


def make_size(spec: BackboneSpec) -> gr.Dropdown:
    """The choice of a size; others than those offered may be typed."""
    return gr.Dropdown(
        label=strings.SIZE, info=strings.SIZE_HELP, allow_custom_value=True, elem_id="size", **_sizes(spec)
    )


def size_field(spec: BackboneSpec, sides: tuple[int, int] | None = None) -> dict[str, Any]:
    """An update of the size for a model; sides: (width, height), by default its own."""
    return gr.update(**_sizes(spec, sides))


def size_of(text: str | None, spec: BackboneSpec) -> tuple[int, int] | None:
    """(width, height) of "640x384"; the model's own where nothing was typed, None where it is no size."""
    if not (text or "").strip():
        return spec.width, spec.height
    match = re.fullmatch(r"\s*(\d{1,5})\s*[x×*]\s*(\d{1,5})\s*", text or "")
    sides = (0, 0) if match is None else (int(match[1]), int(match[2]))
    return sides if all(REACH[0] <= side <= REACH[1] for side in sides) else None


def _sizes(spec: BackboneSpec, chosen: tuple[int, int] | None = None) -> dict[str, Any]:
    own = spec.width, spec.height
    offered = dict.fromkeys([*_offered(spec), chosen or own])
    choices = [(f"{width} x {height}", f"{width}x{height}") for width, height in offered]
    width, height = chosen or own
    return {"choices": choices, "value": f"{width}x{height}", "visible": len(choices) > 1}


def _offered(spec: BackboneSpec) -> list[tuple[int, int]]:
    """The model's own size, upright, square, and smaller ones."""
    width, height, step = spec.width, spec.height, spec.size_multiple
    if min(width, height) < LEAST_SIDE:
        return [(width, height)]
    side = _round(math.sqrt(width * height), step)
    smaller = [(_round(width * share, step), _round(height * share, step)) for share in SHARES]
    return [(width, height), (height, width), (side, side), *smaller]


def _round(side: float, step: int) -> int:
    return max(step, round(side / step) * step)
