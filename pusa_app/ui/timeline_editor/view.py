"""A timeline as the script beside draws it."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from pusa_app.errors import MediaError
from pusa_app.timeline import Timeline
from pusa_app.ui.drawn import Drawn

SCRIPT = Path(__file__).with_name("timeline.js")
THUMB = 96


class TimelineView(Drawn):
    """Slots as boxes with a bar of noise each; keyframes as pictures in their slots."""

    def __init__(self, value: dict[str, Any] | None = None, **more: Any) -> None:
        super().__init__(value, script=SCRIPT, elem_id="timeline", **more)


def timeline_value(timeline: Timeline) -> dict[str, Any]:
    """What the script needs, as plain JSON: noise and frame range per slot, a thumbnail per keyframe."""
    grid = timeline.grid
    pictures = {k.slot: picture_of(Path(k.source.path)) for k in timeline.keyframes if k.source.kind == "image"}
    return {
        "fps": grid.fps,
        "frames": grid.num_frames,
        "seconds": grid.seconds,
        "slots": [
            {
                "first": grid.frames_of(slot)[0],
                "last": grid.frames_of(slot)[-1],
                "noise": noise,
                "picture": pictures.get(slot),
            }
            for slot, noise in enumerate(timeline.noise_multipliers())
        ],
    }


def picture_of(path: Path, side: int = THUMB) -> str | None:
    """A small JPEG of a picture as a data URL; None when it cannot be read. A data URL needs no file in a cache."""
    from PIL import Image

    from pusa_app.media import load_image

    try:
        image = Image.fromarray(load_image(path, side, side))
    except MediaError:
        return None
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
