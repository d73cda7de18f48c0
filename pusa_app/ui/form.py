"""The one form of the page: tasks change what it asks for, values make a recipe, recipes fill it again."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from pusa_app.models import ModelCard
from pusa_app.settings import Settings
from pusa_app.studio import Studio, card_of, cards, default_card
from pusa_app.timeline import TASKS, Options, Recipe, Timeline, get_task
from pusa_app.ui import strings
from pusa_app.ui.choices import MAX_SEED, NAMES, Basis, Choices, faults, missing, of_model, told
from pusa_app.ui.drawn import Drawn
from pusa_app.ui.exact import Exact, exact_of, make_size, size_field
from pusa_app.ui.faster import Faster, faster_of
from pusa_app.ui.fields import (
    about,
    help_of,
    length_field,
    length_info,
    model_choices,
    negative_field,
    negative_words,
    new_seed,
    published,
    tabs_value,
)
from pusa_app.ui.filled import fields_of, values_of
from pusa_app.ui.following import follow
from pusa_app.ui.gallery import gallery_value, make_gallery
from pusa_app.ui.loras import Loras, loras_value
from pusa_app.ui.numbers import Number, Slider
from pusa_app.ui.sweeps import SweepFields
from pusa_app.ui.timeline_editor import TimelineEditor
from pusa_app.ui.uploads import Field, make_note, no_note, note
from pusa_app.ui.visitors import told_to_user

HERE = Path(__file__).parent
MAX_PROMPT = 2000
MAX_SEEDS = Settings.max_seeds
UPLOADS = {"image": "image", "end": "image", "clip": "clip", "clip_b": "clip"}
OPTIONS = ("style", "direction", "gap_first", "gap_last", "more", "closing", "result")
ID_OF_NOTE = {"frames": "length", **dict.fromkeys(OPTIONS, "options")}
COUNT = itertools.count(1)  # of what must be news each time
NO_NOTE = "() => ({ __type__: 'update', value: '', visible: false })"
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


class Form:
    """The components of the form, in three places of the page: `build_tabs`, `build` and `build_timeline`.

    `inputs` fit the fields of Choices.
    """

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._first = default_card()
        self._cards = {card.id: card for card in cards()}

    # --- components --------------------------------------------------------------------------------------------------

    def build_tabs(self) -> None:
        self.task = gr.State(next(iter(TASKS)))
        size = self._first.spec.width, self._first.spec.height
        empty = Basis.of(self.task.value, frames=self._first.spec.num_frames, card=self._first, size=size)
        self.followed = gr.State(empty)  # what the timeline in the editor follows from
        self.tabs = Drawn(tabs_value(self.task.value, self._first), script=HERE / "tasks.js", elem_id="tasks")

    def build(self) -> None:
        card = self._first
        self.help = gr.HTML(help_of(self.task.value), elem_id="task-help")
        with gr.Row(elem_id="uploads"):
            self.fields = {name: Field(name, kind, "", visible=False) for name, kind in UPLOADS.items()}
        self._build_options()
        self.prompt = gr.Textbox(
            label=strings.PROMPT,
            placeholder=strings.PROMPT_PLACEHOLDER,
            lines=3,
            max_lines=8,
            max_length=MAX_PROMPT,
            elem_id="prompt",
        )
        self.prompt_note = make_note("prompt")
        self.gallery = make_gallery(self.task.value, list(self._first.tasks))
        self._build_model(card)
        self._build_length(card)
        self._build_advanced(card)
        self.sweep = SweepFields()
        with gr.Row(elem_id="go"):
            self.generate = gr.Button(strings.GENERATE, variant="primary", size="lg", elem_id="generate")
            self.count = Number(
                1, label=strings.SEEDS, precision=0, minimum=1, maximum=MAX_SEEDS, min_width=90, elem_id="count"
            )
        self.look = Drawn({}, script=HERE / "look.js", elem_id="look")

    def _build_options(self) -> None:
        """Choices that only some tasks have."""
        with gr.Group(visible=False, elem_id="options") as self.options_group:
            self.style = gr.Radio(strings.STYLES, value="bridge", label=strings.STYLE, visible=False, elem_id="style")
            self.direction = gr.Radio(
                strings.DIRECTIONS, value="forwards", label=strings.DIRECTION, visible=False, elem_id="direction"
            )
            with gr.Row(visible=False, elem_id="gap") as self.gap_row:
                number: dict[str, Any] = {"precision": 0, "minimum": 0, "min_width": 120}
                self.gap_first = Number(None, label=strings.GAP_FIRST, elem_id="gap_first", **number)
                self.gap_last = Number(None, label=strings.GAP_LAST, elem_id="gap_last", **number)
            self.more = Number(
                None,
                label=strings.MORE["extend"],
                info=strings.MORE_HELP,
                precision=0,
                minimum=1,
                visible=False,
                elem_id="more",
            )
            self.options_note = make_note("options")
            self.closing = Slider(
                0, 1, 0.0, step=0.05, label=strings.CLOSING, info=strings.CLOSING_HELP, visible=False, elem_id="closing"
            )
            self.result = gr.Radio(
                strings.RESULTS, value="joined", label=strings.RESULT, visible=False, elem_id="result"
            )

    def _build_model(self, card: ModelCard) -> None:
        self.model = gr.Dropdown(
            value=card.id,
            label=strings.MODEL,
            info=about(card),
            filterable=False,
            elem_id="model",
            **model_choices(list(self._cards.values())),
        )

    def _build_length(self, card: ModelCard) -> None:
        spec = card.spec
        with gr.Group():
            self.size = make_size(spec)
            self.size_note = make_note("size")
            self.length = Slider(
                spec.lengths()[0],
                spec.lengths()[-1],
                spec.num_frames,
                step=spec.temporal_stride,
                label=strings.LENGTH,
                info=length_info(card, spec.num_frames),
                elem_id="length",
            )
            self.length_note = make_note("length")
            with gr.Row(elem_id="seed-row", equal_height=True):
                self.seed = Number(
                    0, label=strings.SEED, precision=0, minimum=0, maximum=MAX_SEED, min_width=120, elem_id="seed"
                )
                self.dice = gr.Button(strings.DICE, size="sm", min_width=90, elem_id="dice")
                self.random = gr.Checkbox(True, label=strings.RANDOM, container=False, min_width=150, elem_id="random")
            self.seed_note = make_note("seed")

    def _build_advanced(self, card: ModelCard) -> None:
        spec = card.spec
        with gr.Accordion(strings.ADVANCED, open=False, elem_id="advanced"):
            self.negative = gr.Textbox(
                label=strings.NEGATIVE, lines=1, max_length=MAX_PROMPT, elem_id="negative", **negative_words(spec)
            )
            self.steps = Slider(
                1,
                self._studio.settings.max_steps,
                spec.steps,
                step=1,
                label=strings.STEPS,
                info=strings.STEPS_HELP,
                elem_id="steps",
            )
            self.guidance = Slider(
                1, 15, spec.guidance, step=0.1, label=strings.GUIDANCE, info=strings.GUIDANCE_HELP, elem_id="guidance"
            )
            exact = Exact()
            self.schedule, self.schedule_value = self._exact = exact.fields
            faster = Faster(spec)
            self.cache, self.guided_high, self.guided_low, self.guidance_2 = self._faster = faster.fields
            self.color_match = gr.Checkbox(
                False, label=strings.COLOR_MATCH, info=strings.COLOR_MATCH_HELP, elem_id="color-match"
            )
            self.embed = gr.Checkbox(True, label=strings.EMBED, info=strings.EMBED_HELP, elem_id="embed")
            self._loras = Loras(card, self._studio.settings)
            self.loras = self._loras.field

    def build_timeline(self) -> None:
        spec = self._first.spec
        self.timeline = TimelineEditor(spec.timeline(), player="#player video", **of_model(self.task.value, spec))

    @property
    def inputs(self) -> list[Any]:
        files = {name: field.file for name, field in self.fields.items()}
        named = {"frames": self.length}
        return [files.get(name) or named.get(name) or getattr(self, name) for name in NAMES]

    # --- tasks -------------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> list[Any]:
        """What changes when a task is chosen."""
        groups = [part for field in self.fields.values() for part in (field.group, field.file)]
        gap = [self.gap_row, self.gap_first, self.gap_last]
        options = [self.options_group, self.style, self.direction, *gap, self.more, self.closing, self.result]
        return [self.task, self.tabs, self.help, *groups, *options, self.color_match, self.gallery]

    def shape_of(
        self,
        name: str,
        card: ModelCard,
        gap: tuple[float | None, float | None] = (None, None),
        notice: str = "",
        color_match: Any = None,
        more: float | None = None,
    ) -> list[Any]:
        """Updates for `shape`. gap, more: what their fields hold: Gradio makes 0 of nothing when it first shows them.
        notice: why it is this task. color_match: as `_color_match` says; None leaves it as it is."""
        task = get_task(name)
        asks = {ask.name: ask for ask in task.asks}
        groups: list[Any] = []
        for field in self.fields:
            ask = asks.get(field)
            groups.append(gr.update(visible=ask is not None))
            groups.append(gr.skip() if ask is None else gr.update(label=ask.title))
        has = {option: option in task.options for option in Options.model_fields}
        return [
            name,
            tabs_value(name, card, notice),
            help_of(name),
            *groups,
            gr.update(visible=bool(task.options)),
            gr.update(visible=has["style"]),
            gr.update(visible=has["direction"]),
            gr.update(visible=has["gap"]),
            *gap,
            gr.update(visible=has["frames"], label=strings.MORE.get(name, ""), value=more),
            gr.update(visible=has["closing"]),
            gr.update(visible=has["result"]),
            gr.skip() if color_match is None else color_match,
            gr.update(task=name, tasks=list(card.tasks)),
        ]

    # --- wiring ------------------------------------------------------------------------------------------------------

    def wire(self) -> None:
        """What the form does by itself."""
        self.dice.click(lambda: (new_seed(), False, no_note()), None, [self.seed, self.random, self.seed_note], **QUIET)
        # What is said of these two is mended by writing; nothing else follows from them.
        self.prompt.input(None, None, self.prompt_note, js=NO_NOTE, **QUIET)
        self.seed.input(None, None, self.seed_note, js=NO_NOTE, **QUIET)
        # One event follows whatever changes: of several, an earlier one could come back later than the last.
        asked = gr.State(0)
        ask: dict[str, Any] = {"fn": lambda: next(COUNT), "outputs": asked, **QUIET}
        self.news = ask  # what comes after an event elsewhere that changed a choice
        choice = [self.task, self.model, self.guidance, self.gap_first, self.gap_last, self.color_match, self.more]
        chosen = [self.guidance, *self.shape, *self._notes.values()]
        self.tabs.select(self._choose_task, choice, chosen, **QUIET).then(**ask)
        for field in self.fields.values():
            field.file.upload(field.look, field.file, [field.file, field.note], **QUIET).then(**ask)
            field.file.clear(no_note, None, field.note, **QUIET).then(**ask)
        files = [field.note for field in self.fields.values()]
        self.timeline.input(lambda: [no_note() for _ in files], None, files, **QUIET)
        self._loras.wire(self.model, self.steps, self.guidance)
        self.model.input(self.with_model, self.with_model_inputs, self.with_model_outputs, **QUIET).then(**ask)
        options = [self.style, self.direction, self.gap_first, self.gap_last, self.more, self.closing, self.result]
        # An option that a recipe fills in is no news: it brings its own timeline.
        typed = [part.input for part in (self.size, self.timeline, *options)]
        gr.on(
            [asked.change, self.length.change, *typed],
            self._follow,
            [self.followed, *self.inputs],
            self.followed_outputs,
            trigger_mode="always_last",
            **QUIET,
        )

    def gallery_of(self, folder: Path) -> dict[str, Any]:
        """The gallery's value with the presets of a user's folder."""
        return gallery_value(folder)

    def _choose_task(
        self,
        before: str,
        model: str,
        guidance: float | None,
        gap_first: float | None,
        gap_last: float | None,
        color_match: bool,
        more: float | None,
        event: gr.EventData,
    ) -> list[Any]:
        with told_to_user():
            card = card_of(model)
        if event.task not in card.tasks:
            words = card.refusal(event.task) if event.task in TASKS else strings.NO_TASK
            raise gr.Error(words, print_exception=False)
        spec = card.spec
        # What the user chose stays; the advice for one task gives way to the advice for the next.
        own = spec.guidance_for(event.task) if guidance == spec.guidance_for(before) else gr.skip()  # type: ignore[arg-type]
        matched = _color_match(before, event.task, color_match)
        shape = self.shape_of(event.task, card, (gap_first, gap_last), color_match=matched, more=more)
        # What was said was of another task.
        return [own, *shape, *(no_note() for _ in self._notes)]

    @property
    def followed_outputs(self) -> list[Any]:
        return [self.followed, self.length, *self.said, *self._counted.values()]

    @property
    def _counted(self) -> dict[str, Number]:
        """Numbers of frames, which a task or a model may count otherwise than the last."""
        return {"gap_first": self.gap_first, "gap_last": self.gap_last, "more": self.more}

    def _follow(self, before: Basis, *values: Any) -> list[Any]:
        """Updates for `followed_outputs`: something was chosen or edited."""
        chosen = Choices(*values)
        if chosen.model not in {card.id for card in cards()}:
            # It was removed meanwhile, and the form is about to have another one.
            return [gr.skip() for _ in self.followed_outputs]
        found = follow(before, chosen)
        choices, editor = found.choices, dict[str, Any]()
        # What is there already is not sent again: it would undo what the user does meanwhile.
        if found.timeline != chosen.timeline:
            editor = {"value": found.timeline, "notice": found.notice}
        elif found.notice:
            editor = {"notice": found.notice}
        length = {} if choices.frames == chosen.frames else {"value": choices.frames}
        return [
            found.basis,
            gr.update(info=length_info(choices.card, choices.frames), **length),
            *self._say(choices, found.timeline, **editor),
            *(_news(getattr(chosen, name), getattr(choices, name)) for name in self._counted),
        ]

    @property
    def said(self) -> list[Any]:
        """The editor, and the lines under the controls."""
        return [self.timeline, *self._notes.values()]

    @property
    def _notes(self) -> dict[str, gr.HTML]:
        files = {name: field.note for name, field in self.fields.items()}
        rest = {"options": self.options_note, "frames": self.length_note, "seed": self.seed_note}
        return {**files, "prompt": self.prompt_note, **rest, "size": self.size_note}

    def _say(
        self, choices: Choices, timeline: Timeline, found: Mapping[str, str] | None = None, **editor: Any
    ) -> list[Any]:
        """Updates for `said`: advice on a timeline, and what keeps it from being run, each under its control.

        found: what is wrong; by default what is, less what was not given yet. What was said of that stands: Generate
        may have been pressed meanwhile.
        """
        waits = _at_notes(missing(choices))
        if found is None:
            found = {} if set(waits) - {"prompt", "seed", "size"} else faults(choices, timeline)
            if not timeline.keyframes:
                found = {control: words for control, words in found.items() if control != "timeline"}
        words, lines = _at_notes(found), []
        for name in self._notes:
            # So does what was said of a file that was not taken, until there is another one or an edit.
            stands = name in waits or (name in self.fields and getattr(choices, name) is None)
            lines.append(note(words[name]) if name in words else gr.skip() if stands else no_note())
        return [gr.update(**editor, **told(choices, timeline, words.get("timeline"))), *lines]

    def content(self) -> list[Any]:
        """Updates for `said` without the editor when nothing is wrong."""
        return [no_note() for _ in self._notes]

    def refuse(self, choices: Choices) -> list[Any] | None:
        """Updates for [look, *said] when the form cannot be run as it is; None when it can."""
        timeline = choices.current()[0]
        found = missing(choices) or faults(choices, timeline)
        if not found:
            return None
        control = next(iter(found))
        where = "#timeline-editor" if control == "timeline" else f"#{ID_OF_NOTE.get(control, control)}-note"
        look = {"target": where, "at": next(COUNT)}
        return [look, *self._say(choices, timeline, found)]

    @property
    def with_model_inputs(self) -> list[Any]:
        return [self.model, self.task, self.gap_first, self.gap_last, self.color_match, self.more]

    @property
    def with_model_outputs(self) -> list[Any]:
        own = [self.size, *self._exact, self.length, self.steps, self.guidance, self.negative]
        return [self.model, self.loras, *self._faster, *own, *self.shape]

    def with_model(
        self,
        model: str,
        task: str,
        gap_first: float | None,
        gap_last: float | None,
        color_match: bool | None = None,
        more: float | None = None,
    ) -> list[Any]:
        """Updates for `with_model_outputs`: another model, with its own defaults, and with the task if it does that."""
        with told_to_user():
            card = card_of(model)
        spec, name = card.spec, get_task(task).name
        if name in card.tasks:
            shape = {self.tabs: tabs_value(name, card), self.gallery: gr.update(tasks=list(card.tasks))}
            shaped = [shape.get(part, gr.skip()) for part in self.shape]
        else:
            before, why, name = name, card.refusal(name), card.tasks[0]
            shaped = self.shape_of(
                name, card, (gap_first, gap_last), why, _color_match(before, name, color_match), more
            )
        numbers = [length_field(card, spec.num_frames), spec.steps, spec.guidance_for(name)]
        own = [size_field(spec), *exact_of(), *numbers, negative_field(spec)]
        # A LoRA is of one model.
        return [gr.update(value=model, info=about(card)), loras_value(model), *faster_of(spec), *own, *shaped]

    # --- recipes into the form ---------------------------------------------------------------------------------------

    @property
    def filled(self) -> list[Any]:
        """What a recipe fills, without what the choice of its task changes."""
        return [*self.said, *fields_of(self)]

    @property
    def everything(self) -> list[Any]:
        """What a recipe fills, and what the choice of its task changes."""
        return [*self.shape, *self.filled]

    def everything_of(self, recipe: Recipe, notice: str = "") -> list[Any]:
        """Updates for `everything`; otherwise as `fill`."""
        return [*self.shape_of(recipe.task, card_of(recipe.model)), *self.fill(recipe, notice)]

    def fill(self, recipe: Recipe, notice: str = "") -> list[Any]:
        """Updates for `filled`. Files are copied to where the page may show them; that one is gone is told.

        notice: what is told at the timeline besides.
        """
        recipe, gone = published(recipe)
        return self.hold(Choices.of(recipe), " ".join(filter(None, (notice, gone))))

    def hold(self, choices: Choices, notice: str = "", random: bool = False) -> list[Any]:
        """Updates for `filled` with choices that have a timeline. random: whether each run has another seed."""
        timeline = choices.timeline or choices.blank()
        editor, *lines = self._say(choices, timeline, value=timeline, notice=notice)
        # What stood of what the form held before does not stand any longer.
        lines = [no_note() if line == gr.skip() else line for line in lines]
        return [editor, *lines, *values_of(self, choices, random)]


def _color_match(before: str, task: str, chosen: bool | None) -> Any:
    """An update of the choice: as guidance, it is the task's own where it was that of the task before."""
    return get_task(task).color_match if chosen == get_task(before).color_match else gr.skip()


def _news(before: float | None, now: float | None) -> Any:
    return gr.skip() if now == before else now


def _at_notes(found: Mapping[str, str]) -> dict[str, str]:
    """Sentences by the notes where they are said instead of by their controls."""
    return {("options" if control in OPTIONS else control): words for control, words in found.items()}


__all__ = ["UPLOADS", "Form"]
