"""Sweeps on the page: two rows of fields, and the cells of a finished one."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from pusa_app.errors import MediaError, RecipeError
from pusa_app.models import ModelCard
from pusa_app.presets import Preset, find_preset, name_of, preset_axis
from pusa_app.studio import Studio
from pusa_app.timeline import MAX_CELLS, MAX_SEED, MAX_STEPS, Recipe, Sweep, new_sweep
from pusa_app.ui import strings
from pusa_app.ui.drawn import Drawn
from pusa_app.ui.numbers import Number
from pusa_app.ui.player import data_url

MAX_TEXT = 64 * MAX_CELLS  # titles of presets are the longest values
POSTER = 120  # pixels, of a cell
MOST_IN_RANGE = 1000
MAX_DIGITS = 18  # of the ends of a range
OTHER_KIND = f"""kind => [
    {{ __type__: 'update', visible: kind === 'noise' }},
    {{ __type__: 'update', value: '', placeholder: {json.dumps(strings.SWEEP_EXAMPLES)}[kind] }},
]"""
REACH = {"noise": (0, 1), "seed": (0, MAX_SEED), "steps": (1, MAX_STEPS), "guidance": (0, 100)}


@dataclass(frozen=True)
class AxisChoice:
    """What the fields of one axis hold. keyframe is counted from 1 and from the left, as people do."""

    kind: str
    keyframe: float | None
    values: str | None

    def axis(self, recipe: Recipe, card: ModelCard, presets: Path) -> Any:
        """Fields of an axis, or an axis; raises RecipeError when they make none."""
        items = [item.strip() for item in (self.values or "").split(",") if item.strip()]
        if not items:
            raise RecipeError(strings.SWEEP_VALUES_MISSING.format(what=strings.SWEEP_KINDS[self.kind].lower()))
        if self.kind == "preset":
            return preset_axis(recipe, card, [_preset(item, presets) for item in items])
        numbers = [number for item in items for number in _numbers(item, self.kind)]
        if self.kind != "noise":
            return {"kind": self.kind, "values": numbers}
        number, places = 1 if self.keyframe is None else int(self.keyframe), _from_left(recipe)
        if not 1 <= number <= len(places):
            raise RecipeError(strings.SWEEP_NO_KEYFRAME.format(number=number, count=len(places)))
        return {"kind": "noise", "keyframe": places[number - 1], "values": numbers}


AT_FIRST = AxisChoice("seed", 1, "1, 2, 3")  # what the fields hold that nobody touched
NO_AXIS = AxisChoice("", 1, "")


class SweepFields:
    """Builds the fields in the Blocks that is open; `inputs` make `sweep_of`'s choices.

    `parts` are what changes while something that waits is edited.
    """

    def __init__(self) -> None:
        kinds = [(title, kind) for kind, title in strings.SWEEP_KINDS.items()]
        with gr.Accordion(strings.SWEEP, open=False, elem_id="sweep") as self.box:
            gr.HTML(f'<p class="hint">{strings.SWEEP_HELP}</p>')
            self.inputs: list[Any] = []
            rows = ((AT_FIRST, kinds), (NO_AXIS, [(strings.SWEEP_NONE, ""), *kinds]))
            for number, (first, most) in enumerate(rows, 1):
                with gr.Row(elem_classes="sweep-axis"):
                    kind = gr.Dropdown(
                        most,
                        value=first.kind,
                        label=strings.SWEEP_AXIS[number - 1],
                        filterable=False,
                        min_width=130,
                        elem_id=f"sweep-kind-{number}",
                    )
                    keyframe = Number(
                        first.keyframe,
                        label=strings.SWEEP_KEYFRAME,
                        precision=0,
                        minimum=1,
                        min_width=70,
                        visible=False,
                        elem_id=f"sweep-keyframe-{number}",
                    )
                    values = gr.Textbox(
                        first.values,
                        label=strings.SWEEP_VALUES,
                        placeholder=strings.SWEEP_EXAMPLES[first.kind],
                        max_length=MAX_TEXT,
                        min_width=150,
                        elem_id=f"sweep-values-{number}",
                    )
                # In the browser: an answer that came late would take away what was typed meanwhile.
                fields: dict[str, Any] = {"inputs": kind, "outputs": [keyframe, values], "js": OTHER_KIND}
                kind.input(None, **fields, show_progress="hidden", api_visibility="private")
                self.inputs += [kind, keyframe, values]
            self.run = gr.Button(strings.SWEEP_RUN, elem_id="sweep-run")

    @property
    def parts(self) -> list[Any]:
        return [self.box, self.run, *self.inputs]

    def edited(self, sweep: Sweep) -> list[Any]:
        """Updates for `parts`: a sweep that waits is in the fields, and the button saves it."""
        save = gr.update(value=strings.SAVE_TO_QUEUE, variant="primary")
        return [gr.update(visible=True, open=True), save, *self.hold(fields_for(sweep))]

    def hold(self, choices: Sequence[AxisChoice]) -> list[Any]:
        """Updates for `inputs`."""
        updates: list[Any] = []
        for choice in choices:
            updates += [
                choice.kind,
                gr.update(value=choice.keyframe, visible=choice.kind == "noise"),
                gr.update(value=choice.values, placeholder=strings.SWEEP_EXAMPLES[choice.kind]),
            ]
        return updates

    def hidden(self) -> list[Any]:
        """Updates for `parts`: a single video is edited."""
        return [gr.update(visible=False), *(gr.skip() for _ in self.parts[1:])]

    def plain(self) -> list[Any]:
        """Updates for `parts`: nothing is edited."""
        run = gr.update(value=strings.SWEEP_RUN, variant="secondary")
        return [gr.update(visible=True), run, *(gr.skip() for _ in self.inputs)]


def sweep_of(recipe: Recipe, card: ModelCard, presets: Path, fields: tuple[Any, ...]) -> Sweep:
    """The sweep that the fields ask for. Raises RecipeError or MediaError."""
    choices = [AxisChoice(*fields[at : at + 3]) for at in range(0, len(fields), 3)]
    axes = [choice.axis(recipe, card, presets) for choice in choices if choice.kind]
    count = math.prod(len(axis["values"] if isinstance(axis, dict) else axis.values) for axis in axes)
    if count > MAX_CELLS:
        raise RecipeError(strings.SWEEP_TOO_MANY.format(count=count, most=MAX_CELLS))
    return new_sweep(recipe, *axes)


def fields_for(sweep: Sweep) -> list[AxisChoice]:
    """What the fields hold so that `sweep_of` makes the same sweep of the same recipe, as long as its presets are what
    they were; one for each of the two axes, the second of no kind where there is none."""
    choices = []
    for axis in sweep.axes:
        keyframe = _from_left(sweep.recipe).index(axis.keyframe) + 1 if axis.kind == "noise" else 1
        choices.append(AxisChoice(axis.kind, keyframe, ", ".join(_written(axis))))
    return [*choices, NO_AXIS][:2]


def _from_left(recipe: Recipe) -> list[int]:
    """The places of the keyframes in their timeline, in the order in which they are seen."""
    keyframes = recipe.timeline.keyframes
    return sorted(range(len(keyframes)), key=lambda place: keyframes[place].slot)


def _written(axis: Any) -> list[str]:
    """The values of an axis as one types them."""
    if axis.kind == "preset":
        # A title with a comma in it would be read as two.
        return [name_of(title) if "," in title else title for title in axis.values]
    if axis.kind in ("seed", "steps"):
        return _spans(axis.values)
    return [f"{value:g}" if float(f"{value:g}") == value else repr(value) for value in axis.values]


def _spans(numbers: Sequence[int]) -> list[str]:
    """Whole numbers, those that follow each other as "3-6"."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][-1] + 1 and number < 10**MAX_DIGITS:
            spans[-1].append(number)
        else:
            spans.append([number])
    long = [[f"{span[0]}-{span[-1]}"] if len(span) > 2 else [str(number) for number in span] for span in spans]
    return [text for texts in long for text in texts]


def make_cells() -> Drawn:
    """The cells of a sweep that has ended; event select ({cell})."""
    return Drawn({}, script=Path(__file__).with_name("cells.js"), elem_id="cells", visible=False)


def cells_value(studio: Studio, job: Any, chosen: int) -> dict[str, Any]:
    """What the script shows: a poster and a label for each cell; `chosen` is the one in the player, -1 for the grid.

    Of a sweep that ended without its grid there is no word for all of them but one on how many were made, and what was
    never begun is left out.
    """
    cells, whole = studio.cells(job), studio.result(job) is not None
    return {
        "all": strings.SWEEP_ALL if whole else "",
        "note": "" if whole else made_words(studio, job),
        "chosen": chosen,
        "cells": [
            {
                "cell": number,
                "label": ", ".join(cell.labels),
                "problem": cell.problem,
                "picture": None if cell.path is None else _poster(cell.path),
            }
            for number, cell in enumerate(cells)
            if cell.path is not None or cell.problem
        ],
    }


def made_words(studio: Studio, job: Any) -> str:
    """How many of a sweep's cells were made; "" when none was, or there are none."""
    made, count = studio.made(job)
    return strings.SWEEP_MADE.format(made=made, count=count) if made else ""


def _poster(clip: Path) -> str | None:
    """The frame in the middle of a cell, small."""
    try:
        return _poster_of(clip, clip.stat().st_mtime_ns)
    except (MediaError, OSError):
        return None


@functools.lru_cache(maxsize=4 * MAX_CELLS)
def _poster_of(clip: Path, changed: int) -> str:
    """Kept while the file is the same, since all cells are shown anew whenever one is chosen."""
    from pusa_app.media import check_clip, load_clip

    info = check_clip(clip)
    middle = info.num_frames // 2
    return data_url(load_clip(clip, POSTER, POSTER, fps=info.fps, start=middle, num_frames=1)[0])


def _numbers(item: str, kind: str) -> list[float | int]:
    """ "0.3" -> [0.3]; "1-6" -> [1, 2, 3, 4, 5, 6], for whole numbers."""
    if span := re.fullmatch(rf"(\d{{1,{MAX_DIGITS}}})\s*(?:-|\.\.)\s*(\d{{1,{MAX_DIGITS}}})", item):
        first, last = int(span[1]), int(span[2])
        if kind in ("seed", "steps") and first <= last < first + MOST_IN_RANGE:
            return list(range(first, last + 1))
    low, high = REACH[kind]
    try:
        number = int(item) if kind in ("seed", "steps") else float(item)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        what, example = strings.SWEEP_KINDS[kind].lower(), strings.SWEEP_EXAMPLES[kind]
        raise RecipeError(strings.SWEEP_OUTSIDE.format(value=repr(item[:40]), what=what, example=example))
    return [number]


def _preset(title: str, folder: Path) -> Preset:
    try:
        return find_preset(title, folder)
    except RecipeError:  # which lists all of them, for the command line
        raise RecipeError(strings.SWEEP_NO_PRESET.format(name=repr(title[:60]))) from None
