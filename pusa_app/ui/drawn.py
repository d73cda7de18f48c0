"""Parts of the page that a script of ours draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr


class Drawn(gr.HTML):
    """A value (plain JSON) that the script `<name>.js` beside it draws.

    The template is constant and the script uses textContent: a value inside a template would run as code, a user's
    prompt included.
    """

    def __init__(self, value: Any = None, *, script: Path, elem_id: str, **more: Any) -> None:
        # Gradio makes the component again for every update, from these arguments less the value.
        super().__init__(
            value=value,
            html_template=f'<div class="{elem_id}"></div>',
            js_on_load=script.read_text(encoding="utf-8"),
            apply_default_css=False,
            elem_id=elem_id,
            **more,
        )

    def postprocess(self, value: Any) -> Any:
        return value

    def api_info(self) -> dict[str, Any]:
        return {"type": "object"}
