"""The gallery of presets: what is shown of them, and what its buttons do to the form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pusa_app.presets import Preset, own_presets, presets
from pusa_app.timeline import get_task
from pusa_app.ui import strings
from pusa_app.ui.drawn import DOM, Drawn

SCRIPT = Path(__file__).with_name("gallery.js")


def make_gallery(task: str, tasks: list[str]) -> Drawn:
    """Events: select ({name}: try its example), apply ({name}: use it with what is in the form), delete ({name}),
    submit ({title, when}: save the form as a preset). Props: task, and tasks, those that the model does."""
    more: dict[str, Any] = {"task": task, "tasks": tasks, "strings": strings.GALLERY}
    return Drawn(gallery_value(None), script=(DOM, SCRIPT), elem_id="gallery", **more)


def gallery_value(folder: Path | None) -> dict[str, Any]:
    """The presets: built in, and those of a user's folder."""
    own = own_presets(folder) if folder is not None else None
    shown = [(preset, False) for preset in presets()] + [(preset, True) for preset in (own.presets if own else ())]
    return {
        "presets": [_shown(preset, mine) for preset, mine in shown],
        "problems": list(own.problems) if own else [],
    }


def _shown(preset: Preset, own: bool) -> dict[str, Any]:
    return {
        "name": preset.name,
        "title": preset.title,
        "when": preset.when,
        "task": preset.task,
        "task_title": get_task(preset.task).title,
        "own": own,
        "example": set(preset.roles) <= set(preset.files),
    }
