"""The two named endpoints for programs: `generate` hands in a job, `result` asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData

from pusa_app.errors import RecipeError, UserError
from pusa_app.studio import Studio, default_card
from pusa_app.ui import strings
from pusa_app.ui.form import Choices
from pusa_app.ui.player import is_uploaded, publish

OWNER = "api"


def add(studio: Studio) -> None:
    """Add the endpoints to the Blocks that is open. A job's id is the right to see it: it cannot be guessed."""
    first = default_card().id

    def generate(
        prompt: str,
        image: FileData | None = None,
        noise: float = 0.0,
        frames: int | None = None,
        seed: int = 0,
        negative_prompt: str = "",
        steps: int | None = None,
        guidance: float | None = None,
        model: str = first,
    ) -> str:
        """Queue a video and return the id of its job; with an image it is image-to-video."""
        try:
            path = None if image is None else str(_uploaded(image))
            task = "text-to-video" if path is None else "image-to-video"
            choices = Choices(task, prompt, path, noise, frames, seed, negative_prompt, steps, guidance, model)
            return studio.submit(choices.recipe(), OWNER).id
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None

    def result(job: str) -> tuple[dict[str, Any], FileData | None]:
        """State, message, step and steps of a job, and its video once it is done."""
        found = studio.job(job)
        if found is None:
            raise gr.Error("There is no job of that id.", print_exception=False)
        progress, left = studio.progress(job)
        state = {
            "state": found.state,
            "message": found.message,
            "phase": "" if progress is None else progress.phase,
            "step": 0 if progress is None else progress.step,
            "steps": 0 if progress is None else progress.steps,
            "seconds_left": left,
        }
        video = studio.result(found)
        return state, None if video is None else FileData(path=publish(video), orig_name=video.name)

    gr.api(generate, api_name="generate")
    gr.api(result, api_name="result", concurrency_limit=None)


def _uploaded(file: Any) -> Path:
    """The path of an uploaded file; raises RecipeError for any other path, which a program could put in its place."""
    path = file.get("path") if isinstance(file, dict) else getattr(file, "path", None)
    if not isinstance(path, str) or not is_uploaded(path):
        raise RecipeError(strings.NOT_UPLOADED)
    return Path(path)
