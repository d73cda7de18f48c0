"""The named endpoints for programs: `generate` hands in a job, `result` asks for it, `timeline` checks a timeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData

from pusa_app.errors import RecipeError, UserError
from pusa_app.models import ModelCard
from pusa_app.studio import Studio, card_of, default_card, given_clip, new_recipe
from pusa_app.timeline import LATER_FIELDS, Given, Options, Recipe, Timeline, advise, build, get_task
from pusa_app.ui import strings
from pusa_app.ui.player import is_uploaded, publish
from pusa_app.ui.timeline_editor import EditorValue, from_timeline, to_timeline

OWNER = "api"


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

        task: by default image-to-video with an image, keyframes with a timeline, else text-to-video. options: fields of
        the task such as {"direction": "both", "frames": 48} or {"gap": [13, 25]}. timeline: as the endpoint `timeline`
        takes it; it stands instead of what the task would make of the files. noise: instead of the model's advice.
        settings: {"cache": 0.1, "guidance_interval": [0.4, 1], "guidance_2": 1, "loras": [{"path": name, "strength":
        1}]}, each of which may be left out.
        """
        try:
            card = card_of(default_card().id if model is None else model)
            name = task or ("keyframes" if timeline else "image-to-video" if image else "text-to-video")
            chosen = build(Options, options or {}, what="options")
            if timeline is None:
                files = {"image": image, "end": end, "clip": clip, "clip_b": clip_b}
                made = _built(card, name, {k: _uploaded(f) for k, f in files.items() if f}, noise, frames, chosen)
            else:
                made = _given_timeline(card, timeline)
            if get_task(name).needs_prompt and not prompt.strip():
                raise RecipeError(strings.PROMPT_MISSING)
            recipe = new_recipe(
                card,
                name,
                prompt=prompt.strip(),
                negative_prompt=negative_prompt.strip(),
                keyframes=made.keyframes,
                num_frames=made.grid.num_frames if frames is None else frames,
                size=(made.width, made.height),
                steps=steps,
                guidance=guidance,
                seed=seed,
                options=chosen,
                color_match=color_match,
            )
            return self._submit(_with_settings(recipe, {} if settings is None else settings))
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
        found = self._studio.job(job)
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

    def timeline(self, timeline: dict, task: str = "keyframes") -> tuple[dict[str, Any], dict[str, Any]]:
        """A timeline as the editor holds it, unchanged, and what is to be said of it: noise per slot, problems, advice.

        Its files are uploads of this page: {"path": ...} as the client's upload returns them.
        """
        checked = to_timeline(EditorValue.model_validate(timeline))
        said = {
            "noise_multipliers": list(checked.noise_multipliers()),
            "problems": checked.problems(),
            **advise(task, checked).model_dump(mode="json"),
        }
        return from_timeline(checked).model_dump(mode="json"), said


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
    card: ModelCard, task: str, files: dict[str, Path], noise: float | None, frames: int | None, options: Options
) -> Timeline:
    """What a task makes of uploaded files."""
    spec, given = card.spec, {}
    for ask in get_task(task).asks:
        if ask.name in files:
            path = files[ask.name]
            more = {} if noise is None else {"noise": noise}
            given[ask.name] = (
                build(Given, {"path": str(path), **more}, what="picture")
                if ask.kind == "image"
                else given_clip(path, spec.fps, **more)
            )
    blank = new_recipe(card, task, num_frames=frames).timeline
    return get_task(task).timeline(blank, given, options, spec.noise)


def _uploaded(file: Any) -> Path:
    """The path of an uploaded file; raises RecipeError for any other path, which a program could put in its place."""
    path = file.get("path") if isinstance(file, dict) else getattr(file, "path", None)
    if not isinstance(path, str) or not is_uploaded(path):
        raise RecipeError(strings.NOT_UPLOADED)
    return Path(path)
