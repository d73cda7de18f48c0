"""Parts of the page that a script of ours draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr

DOM = Path(__file__).with_name("dom.js")  # a first chapter for scripts that make nodes


class Drawn(gr.HTML):
    """A value (plain JSON) that the script `<name>.js` beside it draws; several scripts are chapters of one.

    The template is constant and the script uses textContent: a value inside a template would run as code, a user's
    prompt included. Words are no property of the component: an update that comes before it is seen for the first time
    would take those away.
    """

    def __init__(
        self,
        value: Any = None,
        *,
        script: Path | tuple[Path, ...],
        elem_id: str,
        words: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        chapters = script if isinstance(script, tuple) else (script,)
        text = "\n".join(chapter.read_text(encoding="utf-8") for chapter in chapters)
        # Gradio makes the component again for every update, from these arguments less the value.
        super().__init__(
            value=value,
            html_template=f'<div class="{elem_id}"></div>',
            js_on_load=f"const WORDS = {json.dumps(words or {})};\n{text}",
            apply_default_css=False,
            elem_id=elem_id,
            **more,
        )

    def postprocess(self, value: Any) -> Any:
        return value

    def api_info(self) -> dict[str, Any]:
        return {"type": "object"}


class DrawnWithEvents(Drawn):
    """A Drawn that says in EVENTS which events its script triggers."""

    def __getattr__(self, name: str) -> Any:
        # gr.HTML takes every word in quotes in its script for an event, and Gradio asks components what they have.
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
