"""The named endpoints for programs: `generate` hands in a job, `result` asks for it, `timeline` checks a timeline."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import gradio as gr
from gradio.data_classes import FileData
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from pusa_app.errors import RecipeError, UserError
from pusa_app.models import ModelCard
from pusa_app.studio import Studio, card_of, default_card, given_clip, new_recipe
from pusa_app.timeline import (
    LATER_FIELDS,
    Given,
    Options,
    Recipe,
    Task,
    Timeline,
    advise,
    build,
    default_task,
    get_task,
)
from pusa_app.ui import strings
from pusa_app.ui.player import is_uploaded, publish
from pusa_app.ui.timeline_editor import EditorValue, from_timeline, to_timeline

OWNER = "api"


def _no_truth(value: Any) -> Any:
    """True is 1 to pydantic, and nobody means that."""
    if isinstance(value, bool):
        raise ValueError("a number is asked for, not true or false")
    return value


Whole = Annotated[int, BeforeValidator(_no_truth)]
Number = Annotated[float, BeforeValidator(_no_truth), Field(allow_inf_nan=False)]


class _Request(BaseModel):
    """The values of `generate` by their types; what is in them is checked where it is used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str
    negative_prompt: str
    files: dict[str, Any]
    noise: Annotated[Number, Field(ge=0, le=1)] | None
    frames: Whole | None
    seed: Whole
    steps: Whole | None
    guidance: Number | None
    model: str | None
    task: str | None
    options: dict[str, Any] | None
    timeline: dict[str, Any] | None
    color_match: bool | None
    settings: Any


def add(studio: Studio) -> None:
    """Add the endpoints to the Blocks that is open."""
    endpoints = _Endpoints(studio)
    gr.api(endpoints.generate, api_name="generate")
    gr.api(endpoints.result, api_name="result", concurrency_limit=None)
    gr.api(endpoints.timeline, api_name="timeline")


class _Endpoints:
    """What a program may ask. A job's id is the right to see it: it cannot be guessed."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def generate(
        self,
        prompt: str,
        image: FileData | None = None,
        noise: float | None = None,
        frames: int | None = None,
        seed: int = 0,
        negative_prompt: str = "",
        steps: int | None = None,
        guidance: float | None = None,
        model: str | None = None,
        task: str | None = None,
        end: FileData | None = None,
        clip: FileData | None = None,
        clip_b: FileData | None = None,
        options: dict | None = None,
        timeline: dict | None = None,
        color_match: bool | None = None,
        settings: dict | None = None,
    ) -> str:
        """Queue a video and return the id of its job.

        task: by default keyframes with a timeline; else what follows from the files: extend with a clip, complete where
        the options hold a gap, transition with two; image-to-video with an image, start-end with an end; text-to-video
        with none. options: fields of the task such as {"direction": "both", "frames": 48} or {"gap": [13, 25]}.
        timeline: as the endpoint `timeline` takes it; it stands instead of the files and their noise. noise: of the
        files, instead of the model's advice. settings: {"cache": 0.1, "guidance_interval": [0.4, 1], "guidance_2": 1,
        "loras": [{"path": name, "strength": 1}]}, each of which may be left out. What a task does not take is refused.
        """
        values = {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "files": {
                name: file
                for name, file in {"image": image, "end": end, "clip": clip, "clip_b": clip_b}.items()
                if file is not None
            },
            "noise": noise,
            "frames": frames,
            "seed": seed,
            "steps": steps,
            "guidance": guidance,
            "model": model,
            "task": task,
            "options": options,
            "timeline": timeline,
            "color_match": color_match,
            "settings": settings,
        }
        try:
            return self._submit(_recipe(build(_Request, values, what="request")))
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None

    def _submit(self, recipe: Recipe) -> str:
        job = self._studio.submit(recipe, OWNER)
        if self._studio.inline:  # nobody else makes it
            for _ in self._studio.run(job.id):
                pass
        return job.id

    def result(self, job: str) -> tuple[dict[str, Any], FileData | None]:
        """State, message, step and steps of a job, and its video once it is done."""
        found = self._studio.job(job) if isinstance(job, str) else None
        if found is None:
            raise gr.Error("There is no job of that id.", print_exception=False)
        progress, left = self._studio.progress(job)
        state = {
            "state": found.state,
            "message": found.message,
            "phase": "" if progress is None else progress.phase,
            "step": 0 if progress is None else progress.step,
            "steps": 0 if progress is None else progress.steps,
            "part": 0 if progress is None else progress.part,
            "parts": 1 if progress is None else progress.parts,
            "seconds_left": left,
        }
        video = self._studio.result(found)
        return state, None if video is None else FileData(path=publish(video), orig_name=video.name)

    # No value can be added here: Gradio refuses a call over plain HTTP that sends fewer than there are.
    def timeline(self, timeline: dict, task: str = "keyframes") -> tuple[dict[str, Any], dict[str, Any]]:
        """A timeline as the editor holds it, unchanged, and what is to be said of it: noise per slot, problems, advice.

        Its files are uploads of this page: {"path": ...} as the client's upload returns them.
        """
        checked = to_timeline(EditorValue.model_validate(timeline))
        try:
            advice = advise(get_task(str(task)).name, checked)
        except RecipeError as error:
            raise gr.Error(str(error), print_exception=False) from None
        said = {
            "noise_multipliers": list(checked.noise_multipliers()),
            "problems": checked.problems(),
            **advice.model_dump(mode="json"),
        }
        return from_timeline(checked).model_dump(mode="json"), said


def _recipe(asked: _Request) -> Recipe:
    """The recipe that is asked for. Raises RecipeError, MediaError or ModelError, also for what would be left out."""
    card = card_of(default_card().id if asked.model is None else asked.model)
    task = _task_of(asked)
    options = _options(task, asked.options)
    if asked.timeline is None:
        _refuse(asked.files, {ask.name for ask in task.asks}, f"{task.name} has no use for it")
        files = {name: _uploaded(name, file) for name, file in asked.files.items()}
        made = _built(card, task, files, asked.noise, asked.frames, options)
        if asked.noise is not None and not files:
            raise RecipeError("Leave out noise: it is that of the files, and there are none.")
    else:
        _refuse([*asked.files, *(["noise"] if asked.noise is not None else [])], (), "the timeline already says it")
        made = _given_timeline(card, asked.timeline)
    if task.needs_prompt and not asked.prompt.strip():
        raise RecipeError(strings.PROMPT_MISSING)
    recipe = new_recipe(
        card,
        task.name,
        prompt=asked.prompt.strip(),
        negative_prompt=asked.negative_prompt.strip(),
        keyframes=made.keyframes,
        num_frames=made.grid.num_frames if asked.frames is None else asked.frames,
        size=(made.width, made.height),
        steps=asked.steps,
        guidance=asked.guidance,
        seed=asked.seed,
        options=options,
        color_match=asked.color_match,
    )
    return _with_settings(recipe, {} if asked.settings is None else asked.settings)


def _task_of(asked: _Request) -> Task:
    if asked.task:
        return get_task(asked.task)
    gap = asked.options is not None and asked.options.get("gap") is not None
    return get_task("keyframes" if asked.timeline is not None else default_task(asked.files, gap=gap))


def _options(task: Task, values: dict[str, Any] | None) -> Options:
    """The choices of a task; raises RecipeError for one that it does not have. A usual value changes nothing."""
    options = build(Options, values or {}, what="options")
    for name in options.model_dump(exclude_defaults=True):
        if name not in task.options:
            raise RecipeError(f"Leave out {name} in the options: {task.name} has no such choice.")
    return options


def _refuse(names: Collection[str], known: Collection[str], why: str) -> None:
    """Raises RecipeError for the first name that is not one of the known ones."""
    for name in names:
        if name not in known:
            raise RecipeError(f"Leave out {name}: {why}.")


def _with_settings(recipe: Recipe, settings: Any) -> Recipe:
    """A recipe with fields that few want."""
    if not isinstance(settings, dict):
        raise RecipeError('The settings are an object such as {"cache": 0.1}.')
    if unknown := sorted(set(settings) - set(LATER_FIELDS)):
        known = ", ".join(LATER_FIELDS)
        raise RecipeError(f"There is no setting {str(unknown[0])[:40]!r}: the settings are {known}.")
    return build(Recipe, {**recipe.model_dump(), **settings}, what="settings")


def _given_timeline(card: ModelCard, timeline: dict[str, Any]) -> Timeline:
    made = to_timeline(EditorValue.model_validate(timeline))
    if (made.grid.temporal_stride, made.grid.fps) != (card.spec.temporal_stride, card.spec.fps):
        raise RecipeError(strings.OTHER_GRID.format(model=card.id))
    return made


def _built(
    card: ModelCard, task: Task, files: dict[str, Path], noise: float | None, frames: int | None, options: Options
) -> Timeline:
    """What a task makes of uploaded files."""
    spec, given = card.spec, {}
    for ask in task.asks:
        if ask.name in files:
            path = files[ask.name]
            more = {} if noise is None else {"noise": noise}
            given[ask.name] = (
                build(Given, {"path": str(path), **more}, what="picture")
                if ask.kind == "image"
                else given_clip(path, spec.fps, **more)
            )
    blank = new_recipe(card, task.name, num_frames=frames).timeline
    return task.timeline(blank, given, options, spec.noise)


def _uploaded(name: str, file: Any) -> Path:
    """The path of an uploaded file; raises RecipeError for any other path, which a program could put in its place."""
    path = file.get("path") if isinstance(file, dict) else getattr(file, "path", None)
    if not isinstance(path, str) or not is_uploaded(path):
        raise RecipeError(f"{name}: {strings.NOT_UPLOADED}")
    return Path(path)
