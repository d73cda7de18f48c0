"""Upload fields: a picture or a clip as the path of its file, looked at as soon as it is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData, ImageData

from pusa_app.errors import MediaError
from pusa_app.ui import strings
from pusa_app.ui.player import is_uploaded, safe


class Picture(gr.Image):
    """An upload as the path of its file. What it is, is found out by `pusa_app.media` and not by Gradio."""

    def preprocess(self, payload: ImageData | None) -> str | None:
        return None if payload is None else _checked(payload.path)

    def get_block_name(self) -> str:
        return "image"


class ClipUpload(gr.Video):
    """An upload as the path of its file: no probing and no conversion by Gradio."""

    def preprocess(self, payload: FileData | None) -> str | None:
        return None if payload is None else _checked(payload.path)

    def postprocess(self, value: str | Path | None) -> FileData | None:
        return None if value is None else FileData(path=str(value))

    def get_block_name(self) -> str:
        return "video"


def _checked(path: str | None) -> str | None:
    if path is not None and not is_uploaded(path):
        raise gr.Error(strings.NOT_UPLOADED, print_exception=False)
    return path


class Field:
    """One upload field with a line below it for what is wrong with a file. `name` is the Ask it stands for."""

    def __init__(self, name: str, kind: str, label: str, visible: bool) -> None:
        self.name, self.kind = name, kind
        with gr.Column(visible=visible, elem_id=f"{name}-group", elem_classes="upload", min_width=180) as self.group:
            options: dict[str, Any] = {"label": label, "height": 180, "elem_id": name, "buttons": []}
            if kind == "image":
                self.file: Any = Picture(type="filepath", sources=["upload", "clipboard"], **options)
            else:
                self.file = ClipUpload(sources=["upload"], interactive=True, **options)
            self.note = make_note(name)

    def look(self, path: str | None) -> list[Any]:
        """Updates for file and note: a file that cannot be used is taken out again, with a word why."""
        problem = None if path is None else file_problem(path, self.kind)
        return [gr.skip(), no_note()] if problem is None else [None, note(problem)]


def file_problem(path: str, kind: str) -> str | None:
    """What is wrong with a picture or a clip, in one line."""
    from pusa_app.media import check_clip, check_image

    try:
        if kind == "image":
            check_image(path)
        else:
            check_clip(path)
    except MediaError as error:
        return str(error)
    return None


def make_note(name: str) -> gr.HTML:
    """The line under a control for what is wrong with what it holds."""
    return gr.HTML(visible=False, elem_id=f"{name}-note", elem_classes="note")


def note(problem: str) -> dict[str, Any]:
    return gr.update(value=f'<p role="alert">{safe(problem)}</p>', visible=True)


def no_note() -> dict[str, Any]:
    """Nothing to say. Made anew each time, since Gradio changes what it is given."""
    return gr.update(value="", visible=False)
