"""The one form of the page: tasks change what it asks for, values make a recipe, recipes fill it again."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData

from pusa_app.errors import MediaError, UserError
from pusa_app.models import ModelCard
from pusa_app.presets import Preset, presets
from pusa_app.studio import Studio, card_of, cards, default_card, new_recipe
from pusa_app.timeline import TASKS, Given, Recipe, Timeline, get_task
from pusa_app.ui import strings
from pusa_app.ui.player import is_uploaded, publish, safe

MAX_SHOWN_SEED = 2**31 - 1  # a browser's numbers are exact to 2**53; a short seed is easier to read out
MAX_PROMPT = 2000


class Picture(gr.Image):
    """An upload as the path of its file. What it is, is found out by `pusa_app.media` and not by Gradio."""

    def preprocess(self, payload: ImageData | None) -> str | None:
        if payload is None or payload.path is None:
            return None
        if not is_uploaded(payload.path):
            raise gr.Error(strings.NOT_UPLOADED, print_exception=False)
        return payload.path

    def get_block_name(self) -> str:
        return "image"


@dataclass(frozen=True)
class Choices:
    """The values of the form, in the order of its inputs. Numbers may be None where a field was emptied."""

    task: str
    prompt: str | None
    image: str | None
    noise: float | None
    frames: int | None
    seed: int | None
    negative: str | None
    steps: int | None
    guidance: float | None
    model: str

    def blank(self) -> Timeline:
        """A timeline of the wanted length without keyframes."""
        spec = card_of(self.model).spec
        return spec.timeline(spec.nearest_length(int(self.frames or spec.num_frames)))

    def given(self) -> Mapping[str, Given]:
        return {} if self.image is None else {"image": Given(path=self.image, noise=self.noise or 0.0)}

    def recipe(self) -> Recipe:
        """Raises RecipeError or ModelError with what is missing or wrong."""
        task, card = get_task(self.task), card_of(self.model)
        given = self.given() if task.asks else {}
        return new_recipe(
            card,
            task.name,
            prompt=(self.prompt or "").strip(),
            negative_prompt=(self.negative or "").strip(),
            keyframes=task.timeline(self.blank(), given).keyframes,
            num_frames=None if self.frames is None else int(self.frames),
            steps=None if self.steps is None else int(self.steps),
            guidance=self.guidance,
            seed=int(self.seed or 0),
        )


class Form:
    """Builds the components in the Blocks that is open; `inputs` fit the fields of Choices."""

    def __init__(self, studio: Studio) -> None:
        first = default_card()
        self._cards = {card.id: card for card in cards()}
        self.task = gr.State(next(iter(TASKS)))
        with gr.Tabs(elem_id="tasks") as self.tabs:
            self._tabs = {name: gr.Tab(task.title, id=name) for name, task in TASKS.items() if name in first.tasks}
        self._build(studio, first)

    def _build(self, studio: Studio, card: ModelCard) -> None:
        spec = card.spec
        self.help = gr.HTML(_help_of(self.task.value), elem_id="task-help")
        ask = TASKS["image-to-video"].asks[0]
        with gr.Group(visible=False, elem_id="picture-group") as self.picture_group:
            self.picture = Picture(
                label=ask.title,
                type="filepath",
                sources=["upload", "clipboard"],
                height=220,
                elem_id="picture",
                buttons=[],
            )
            self.picture_note = gr.HTML(visible=False, elem_id="picture-note")
            self.noise = gr.Slider(
                0, 1, spec.image_noise, step=0.05, label=strings.NOISE, info=strings.NOISE_HELP, elem_id="noise"
            )
        self.prompt = gr.Textbox(
            label=strings.PROMPT,
            placeholder=strings.PROMPT_PLACEHOLDER,
            lines=3,
            max_lines=8,
            max_length=MAX_PROMPT,
            elem_id="prompt",
        )
        self._build_presets()
        with gr.Group():
            self.length = gr.Slider(
                spec.lengths()[0],
                spec.lengths()[-1],
                spec.num_frames,
                step=spec.temporal_stride,
                label=strings.LENGTH,
                info=length_info(card, spec.num_frames),
                elem_id="length",
            )
            with gr.Row(elem_id="seed-row", equal_height=True):
                self.seed = gr.Number(
                    0, label=strings.SEED, precision=0, minimum=0, maximum=2**53 - 1, min_width=120, elem_id="seed"
                )
                self.dice = gr.Button(strings.DICE, size="sm", min_width=90, elem_id="dice")
                self.random = gr.Checkbox(True, label=strings.RANDOM, container=False, min_width=150, elem_id="random")
        with gr.Accordion(strings.ADVANCED, open=False, elem_id="advanced"):
            self.negative = gr.Textbox(
                label=strings.NEGATIVE, info=strings.NEGATIVE_HELP, lines=1, max_length=MAX_PROMPT, elem_id="negative"
            )
            self.steps = gr.Slider(
                1,
                studio.settings.max_steps,
                spec.steps,
                step=1,
                label=strings.STEPS,
                info=strings.STEPS_HELP,
                elem_id="steps",
            )
            self.guidance = gr.Slider(
                1, 15, spec.guidance, step=0.1, label=strings.GUIDANCE, info=strings.GUIDANCE_HELP
            )
            self.model = gr.Dropdown(
                [(c.title, c.id) for c in self._cards.values()],
                value=card.id,
                label=strings.MODEL,
                info=card.summary,
                interactive=len(self._cards) > 1,
                filterable=False,
            )
        self.generate = gr.Button(strings.GENERATE, variant="primary", size="lg", elem_id="generate")

    def _build_presets(self) -> None:
        """A row of small buttons per task."""
        self.preset_rows: dict[str, gr.Row] = {}
        self.preset_buttons: list[tuple[gr.Button, Preset]] = []
        for name in self._tabs:
            fitting = [p for p in presets() if p.task == name]
            shown = name == self.task.value
            with gr.Row(visible=shown and bool(fitting), elem_classes="presets") as self.preset_rows[name]:
                gr.HTML(f'<span class="presets-title">{strings.EXAMPLES}</span>', elem_classes="presets-label")
                for preset in fitting:
                    button = gr.Button(preset.title, size="sm", min_width=0, elem_classes="preset")
                    self.preset_buttons.append((button, preset))

    @property
    def inputs(self) -> list[Any]:
        return [
            self.task,
            self.prompt,
            self.picture,
            self.noise,
            self.length,
            self.seed,
            self.negative,
            self.steps,
            self.guidance,
            self.model,
        ]

    @property
    def shape(self) -> list[Any]:
        """What changes when a task is chosen."""
        return [self.task, self.help, self.picture_group, *self.preset_rows.values()]

    def shape_of(self, task: str) -> list[Any]:
        """Updates for `shape`."""
        rows = [gr.update(visible=name == task) for name in self.preset_rows]
        return [task, _help_of(task), gr.update(visible=bool(get_task(task).asks)), *rows]

    def on_task(self, then: Any) -> None:
        """Wire the tabs; `then(event)` adds what follows a change of task."""
        for name, tab in self._tabs.items():
            then(
                tab.select(
                    lambda name=name: self.shape_of(name),
                    outputs=self.shape,
                    show_progress="hidden",
                    api_visibility="private",
                )
            )

    def wire(self) -> None:
        """What the form does by itself."""
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        self.dice.click(lambda: (new_seed(), False), outputs=[self.seed, self.random], **quiet)
        self.length.change(
            lambda frames, model: gr.update(info=length_info(card_of(model), frames)),
            [self.length, self.model],
            self.length,
            trigger_mode="always_last",
            **quiet,
        )
        self.model.change(
            self._model_changed, self.model, [self.model, self.noise, self.length, self.steps, self.guidance], **quiet
        )
        self.picture.upload(_look_at_upload, self.picture, [self.picture, self.picture_note], **quiet)
        self.picture.clear(no_note, None, self.picture_note, **quiet)

    def _model_changed(self, model: str) -> list[Any]:
        card = card_of(model)
        spec = card.spec
        return [
            gr.update(info=card.summary),
            spec.image_noise,
            gr.update(
                minimum=spec.lengths()[0],
                maximum=spec.lengths()[-1],
                step=spec.temporal_stride,
                value=spec.num_frames,
                info=length_info(card, spec.num_frames),
            ),
            spec.steps,
            spec.guidance,
        ]

    @property
    def filled(self) -> list[Any]:
        """What a preset or a recipe fills."""
        return [
            self.prompt,
            self.picture,
            self.picture_note,
            self.noise,
            self.length,
            self.seed,
            self.random,
            self.negative,
            self.steps,
            self.guidance,
        ]

    def fill_preset(self, preset: Preset, model: str) -> list[Any]:
        """Updates for `filled`."""
        spec = card_of(model).spec
        picture = None if preset.image_path is None else publish(preset.image_path)
        noise = spec.image_noise if preset.noise is None else preset.noise
        return [
            preset.prompt,
            picture,
            no_note(),
            noise,
            spec.num_frames,
            preset.seed,
            False,
            "",
            spec.steps,
            spec.guidance,
        ]

    def fill_recipe(self, recipe: Recipe, picture: str | None) -> list[Any]:
        """Updates for `filled`; `picture` is the first keyframe's file where the page may show it."""
        first = next(iter(recipe.timeline.keyframes), None)
        return [
            recipe.prompt,
            picture,
            no_note(),
            gr.skip() if first is None else first.noises[0],
            recipe.timeline.grid.num_frames,
            recipe.seed,
            False,
            recipe.negative_prompt,
            recipe.steps,
            recipe.guidance,
        ]


def verdicts(values: Sequence[Any]) -> list[dict[str, Any]]:
    """One gr.validate per input of the form, so that a mistake is told at its control."""
    choices = Choices(*values)
    verdict = dict.fromkeys(Choices.__dataclass_fields__, gr.validate(True, ""))
    if get_task(choices.task).asks:
        verdict["image"] = _picture_verdict(choices.image)
    elif not (choices.prompt or "").strip():
        verdict["prompt"] = gr.validate(False, strings.PROMPT_MISSING)
    return list(verdict.values())


def no_note() -> dict[str, Any]:
    """Nothing to say under the picture. Made anew each time, since Gradio changes what it is given."""
    return gr.update(value="", visible=False)


def _look_at_upload(path: str | None) -> list[Any]:
    """Say at once, at the control, that a file is no picture, and take it out again."""
    problem = None if path is None else _picture_problem(path)
    if problem is None:
        return [gr.skip(), no_note()]
    return [None, gr.update(value=f'<p role="alert">{safe(problem)}</p>', visible=True)]


def _picture_verdict(path: str | None) -> dict[str, Any]:
    problem = TASKS["image-to-video"].asks[0].missing if path is None else _picture_problem(path)
    return gr.validate(problem is None, problem or "")


def _picture_problem(path: str) -> str | None:
    """What is wrong with a picture, in one line."""
    from pusa_app.media import check_image

    try:
        check_image(path)
    except MediaError as error:
        return str(error)
    return None


def timeline_of(values: Sequence[Any]) -> Timeline | None:
    """The timeline that the form stands for; as much of it as is there, and None when that is not enough."""
    choices = Choices(*values)
    try:
        task, blank = get_task(choices.task), choices.blank()
        given = choices.given()
        return task.timeline(blank, given) if all(ask.name in given for ask in task.asks) else blank
    except (UserError, ValueError):
        return None


def length_info(card: ModelCard, frames: int | None) -> str:
    grid = card.spec.grid(card.spec.nearest_length(int(frames or card.spec.num_frames)))
    return f"{grid.num_frames} frames: {grid.seconds:.1f} seconds at {grid.fps:g} frames a second"


def new_seed() -> int:
    return random.randint(0, MAX_SHOWN_SEED)


def _help_of(task: str) -> str:
    return f"<p>{get_task(task).help}</p>"


__all__ = ["Choices", "Form", "Picture", "length_info", "new_seed", "timeline_of", "verdicts"]
