"""The timeline editor: a component whose value is a `Timeline`."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components.base import Component

from pusa_app.timeline import Timeline
from pusa_app.ui.player import is_uploaded
from pusa_app.ui.timeline_editor.refit import refit
from pusa_app.ui.timeline_editor.thumbs import NOT_UPLOADED, describe
from pusa_app.ui.timeline_editor.value import EditorValue, from_anything, refusal, to_timeline
from pusa_app.ui.timeline_editor.words import WORDS

HERE = Path(__file__).parent
# Gradio runs one script per component; these are its chapters, and share one scope.
SCRIPTS = ("model.js", "track.js", "inspector.js", "files.js", "drag.js", "keys.js", "player.js", "editor.js")
NEW_NOISE = 0.2
GONE = "The file of a keyframe is no longer there: add it again."


class TimelineEditor(gr.HTML):
    """Keyframes in slots and the noise curve that they make, to be edited with mouse, touch and keys.

    The value is a Timeline on its way to Python; a Timeline, its JSON or an EditorValue on its way to the page.
    Besides the value, all of these can be changed with gr.update and leave it as it is (clear with "", [] or {},
    since Gradio drops None from updates):

    advice: {"bands": [{"slot", "low", "high"}], "text", "warnings": [...]}, drawn at the curve and told below it.
    notice: one sentence about what the program changed.
    result: [{"kind": "kept" | "made", "frames", "title"}], what the finished video consists of.
    live: {"noise": one number per slot, "of": [[slot, noise, ...] of each keyframe]}, the noise at this step of a run,
        drawn under the curve while the editor holds the timeline that it is of.
    library: [{"id", "title", "picture"}], entries of the menu "Library"; picture is a data URL or None.
    player: CSS selector of a <video> whose current frame can be taken.
    placed: {"path", "name", "slot", "noise", "order", "at"}, an uploaded file that the script puts into the nearest
        free slots of the timeline as that is then. noise: new_noise where there is none; order: the one of the event
        that asked for it; at: something else each time, so that it is seen. Without a path there is no file, and
        `notice` says why.
    readonly: nothing can be changed.
    slots_max: the most slots that the model takes, asked when a saved timeline is loaded.
    new_noise: the noise of a new keyframe: one number, or {"first", "middle", "last"} for a picture in the first slot,
        between and in the last one; a clip gets the one of "first" anywhere.
    strings: words that take the place of those in words.py.

    Events: input (the user changed the value), take ({slot, seconds, order}: the player's frame is wanted),
    library_pick ({id, slot, order}). The latter two are answered with `placed`, and the next is not sent before.
    """

    EVENTS = [*gr.HTML.EVENTS, "take", "library_pick"]  # noqa: RUF012
    data_model = EditorValue

    def __init__(
        self,
        value: Timeline | EditorValue | dict[str, Any] | None = None,
        *,
        advice: dict[str, Any] | None = None,
        notice: str = "",
        result: list[dict[str, Any]] | None = None,
        live: dict[str, Any] | None = None,
        library: list[dict[str, Any]] | None = None,
        player: str = "",
        placed: dict[str, Any] | None = None,
        readonly: bool = False,
        slots_max: int = 0,
        new_noise: float | dict[str, float] = NEW_NOISE,
        strings: dict[str, str] | None = None,
        elem_id: str = "timeline-editor",
        **more: Any,
    ) -> None:
        props = {
            "advice": advice or {},
            "notice": notice,
            "result": result or [],
            "live": live or {},
            "library": library or [],
            "player": player,
            "placed": placed or {},
            "readonly": readonly,
            "slots_max": slots_max,
            "new_noise": new_noise,
            "strings": WORDS | (strings or {}),
        }
        # Gradio makes the component again for every update, from these arguments less the value.
        super().__init__(
            value=value,
            # The template is constant and the script uses textContent: a value inside a template would run as code.
            html_template='<div class="te"></div>',
            head=_style(),
            js_on_load=f"const DEFAULTS = {json.dumps(props)};\n{_script()}",
            server_functions=[describe, refit],
            apply_default_css=False,
            elem_id=elem_id,
            **props,
            **more,
        )

    def __getattr__(self, name: str) -> Any:
        # gr.HTML takes every word in quotes in its script for an event, and Gradio asks components what they have.
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def preprocess(self, payload: EditorValue | None) -> Timeline | None:
        return None if payload is None else to_timeline(payload)

    def postprocess(self, value: EditorValue | Timeline | dict[str, Any] | None) -> EditorValue | None:
        return None if value is None else from_anything(value)

    async def async_move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        """Files are in the cache already. Gradio's own way hashes all of them each time, however large they are."""
        path = str(url_or_file_path or "")
        if not is_uploaded(path):
            raise refusal(NOT_UPLOADED)
        if not os.path.isfile(path):
            raise refusal(GONE)
        self.temp_files.add(path)
        return path

    def api_info(self) -> dict[str, Any]:
        return Component.api_info(self)

    def example_payload(self) -> dict[str, Any]:
        return {
            "grid": {"num_frames": 37, "temporal_stride": 6, "fps": 12.0},
            "width": 64,
            "height": 64,
            "keyframes": [],
        }

    def example_value(self) -> EditorValue:
        return EditorValue.model_validate(self.example_payload())


@lru_cache(maxsize=1)
def _script() -> str:
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)


@lru_cache(maxsize=1)
def _style() -> str:
    return f"<style>{(HERE / 'timeline_editor.css').read_text(encoding='utf-8')}</style>"
