"""Sweeps on the page: two rows of fields, and the cells of a finished one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from pusa_app.errors import RecipeError
from pusa_app.models import ModelCard
from pusa_app.presets import find_preset, preset_axis
from pusa_app.studio import Studio
from pusa_app.timeline import Recipe, Sweep, new_sweep
from pusa_app.ui import strings
from pusa_app.ui.drawn import Drawn
from pusa_app.ui.player import picture_of

MAX_TEXT = 2000
MOST_IN_RANGE = 64


@dataclass(frozen=True)
class AxisChoice:
    """What the fields of one axis hold. keyframe is counted from 1, as people do."""

    kind: str
    keyframe: float | None
    values: str | None

    def axis(self, recipe: Recipe, card: ModelCard, presets: Path) -> Any:
        """Fields of an axis, or an axis; raises RecipeError when they make none."""
        items = [item.strip() for item in (self.values or "").split(",") if item.strip()]
        if not items:
            raise RecipeError(strings.SWEEP_VALUES_MISSING.format(what=strings.SWEEP_KINDS[self.kind].lower()))
        if self.kind == "preset":
            return preset_axis(recipe, card, [find_preset(item, presets) for item in items])
        numbers = [number for item in items for number in _numbers(item, self.kind)]
        if self.kind == "noise":
            return {"kind": "noise", "keyframe": int(self.keyframe or 1) - 1, "values": numbers}
        return {"kind": self.kind, "values": numbers}


class SweepFields:
    """Builds the fields in the Blocks that is open; `inputs` make `sweep_of`'s choices."""

    def __init__(self) -> None:
        kinds = [(title, kind) for kind, title in strings.SWEEP_KINDS.items()]
        with gr.Accordion(strings.SWEEP, open=False, elem_id="sweep"):
            gr.HTML(f'<p class="hint">{strings.SWEEP_HELP}</p>')
            self.inputs: list[Any] = []
            for number, (value, most) in enumerate((("seed", kinds), ("", [(strings.SWEEP_NONE, ""), *kinds])), 1):
                with gr.Row(elem_classes="sweep-axis"):
                    kind = gr.Dropdown(
                        most,
                        value=value,
                        label=strings.SWEEP_AXIS[number - 1],
                        filterable=False,
                        min_width=130,
                        elem_id=f"sweep-kind-{number}",
                    )
                    keyframe = gr.Number(
                        1,
                        label=strings.SWEEP_KEYFRAME,
                        precision=0,
                        minimum=1,
                        min_width=70,
                        visible=False,
                        elem_id=f"sweep-keyframe-{number}",
                    )
                    values = gr.Textbox(
                        "1, 2, 3" if number == 1 else "",
                        label=strings.SWEEP_VALUES,
                        placeholder=strings.SWEEP_EXAMPLES[value],
                        max_length=MAX_TEXT,
                        min_width=150,
                        elem_id=f"sweep-values-{number}",
                    )
                kind.input(
                    lambda chosen: (
                        gr.update(visible=chosen == "noise"),
                        gr.update(value="", placeholder=strings.SWEEP_EXAMPLES[chosen]),
                    ),
                    kind,
                    [keyframe, values],
                    show_progress="hidden",
                    api_visibility="private",
                )
                self.inputs += [kind, keyframe, values]
            self.run = gr.Button(strings.SWEEP_RUN, elem_id="sweep-run")


def sweep_of(recipe: Recipe, card: ModelCard, presets: Path, fields: tuple[Any, ...]) -> Sweep:
    """The sweep that the fields ask for. Raises RecipeError or MediaError."""
    choices = [AxisChoice(*fields[at : at + 3]) for at in range(0, len(fields), 3)]
    return new_sweep(recipe, *(choice.axis(recipe, card, presets) for choice in choices if choice.kind))


def make_cells() -> Drawn:
    """The cells of a finished sweep; event select ({row, column})."""
    return Drawn({}, script=Path(__file__).with_name("cells.js"), elem_id="cells", visible=False)


def cells_value(studio: Studio, job: Any, chosen: int) -> dict[str, Any]:
    """What the script shows: a poster and a label for each cell; `chosen` is the one in the player, -1 for the grid."""
    cells = studio.cells(job)
    return {
        "all": strings.SWEEP_ALL,
        "chosen": chosen,
        "cells": [
            {
                "label": ", ".join(cell.labels),
                "problem": cell.problem,
                "picture": None if cell.path is None else _poster(cell.path),
            }
            for cell in cells
        ],
    }


def _poster(clip: Path) -> str | None:
    from pusa_app.errors import MediaError
    from pusa_app.media import check_clip, load_clip, save_poster
    from pusa_app.ui.player import publish_bytes

    poster = clip.with_suffix(".jpg")
    if poster.is_file():
        return picture_of(poster, side=120)
    try:
        info = check_clip(clip)
        middle = info.num_frames // 2
        frame = load_clip(clip, info.width, info.height, fps=info.fps, start=middle, num_frames=1)[0]
        return picture_of(Path(publish_bytes(lambda file: save_poster(frame, file), "cell.jpg")), side=120)
    except MediaError:
        return None


def _numbers(item: str, kind: str) -> list[float | int]:
    """ "0.3" -> [0.3]; "1-6" -> [1, 2, 3, 4, 5, 6], for whole numbers."""
    if span := re.fullmatch(r"(\d{1,18})\s*(?:-|\.\.)\s*(\d{1,18})", item):
        first, last = int(span[1]), int(span[2])
        if kind in ("seed", "steps") and first <= last < first + MOST_IN_RANGE:
            return list(range(first, last + 1))
    try:
        number = float(item)
    except ValueError:
        raise RecipeError(
            f"{item[:40]!r} is not a number: write values such as {strings.SWEEP_EXAMPLES[kind]}."
        ) from None
    return [int(item)] if kind in ("seed", "steps") and re.fullmatch(r"\d+", item) else [number]
