"""What an uploaded file is, in numbers and small pictures."""

from __future__ import annotations

import math
import os
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from pusa_app.errors import MediaError
from pusa_app.ui.player import data_url, is_uploaded

HEIGHT = 72  # of a thumbnail, in pixels
WIDTHS = (36, 160)  # panoramas and banners are cropped to these
MAX_THUMBS = 12  # of a clip
MAX_WHOLE = 900  # frames of a clip that are decoded at the timeline's rate; longer clips are sampled more coarsely
NOT_UPLOADED = "Only uploaded files can be keyframes: add the file again."
NOT_MEDIA = "{name} is neither a picture nor a clip: use PNG, JPEG, WebP, MP4, WebM or the like."


class Description(BaseModel):
    """What a file is. frames: how many it has at the timeline's rate; seconds: 0 for a picture; size in pixels."""

    model_config = ConfigDict(frozen=True)

    kind: str
    name: str
    frames: int
    seconds: float
    width: int
    height: int
    thumbs: tuple[str, ...]


def describe(data: Any) -> dict[str, Any]:
    """The server function of the script: [path, fps] -> a Description as JSON, or {"problem": one sentence}.

    Anybody who may open the page can call it with anything, so that nothing but uploaded files is looked at.
    """
    path, fps = data if isinstance(data, list) and len(data) == 2 else (None, None)
    if not isinstance(path, str) or "\0" in path or not is_uploaded(path):
        return {"problem": NOT_UPLOADED}
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 1 <= fps <= 240:
        return {"problem": "The frame rate of the timeline is not valid."}
    try:
        return look_at(path, float(fps)).model_dump(mode="json")
    except MediaError as error:
        return {"problem": str(error)}


def look_at(path: str, fps: float, kind: str | None = None) -> Description:
    """What a file is; raises MediaError when it is no sound picture or clip, or not of the wanted kind."""
    try:
        status = os.stat(path)
    except OSError:
        raise MediaError(f"{os.path.basename(path)} is no longer there: add the file again.") from None
    return _look_at(path, status.st_mtime_ns, status.st_size, fps, kind)


@lru_cache(maxsize=256)
def _look_at(path: str, changed: int, size: int, fps: float, kind: str | None) -> Description:
    """Cached by path, time of change and size, since a thumbnail of a clip costs seconds."""
    from pusa_app.media import check_clip

    if kind != "clip":
        try:
            return _picture(path)
        except MediaError:
            # Which complaint is the useful one depends on what the file wanted to be.
            if kind == "image" or _is_picture_name(path):
                raise
    try:
        check_clip(path)
    except MediaError:
        if kind == "clip" or _is_clip_name(path):
            raise
        raise MediaError(NOT_MEDIA.format(name=os.path.basename(path))) from None
    return _clip(path, fps)


def _picture(path: str) -> Description:
    from pusa_app.media import check_image, load_image

    info = check_image(path)
    pixels = load_image(path, _width(info.width, info.height), HEIGHT)
    return Description(
        kind="image",
        name=os.path.basename(path),
        frames=1,
        seconds=0,
        width=info.width,
        height=info.height,
        thumbs=(data_url(pixels),),
    )


def _clip(path: str, fps: float) -> Description:
    from pusa_app.media import check_clip

    info = check_clip(path)
    count = max(1, round(info.seconds * fps))
    every = math.ceil(count / MAX_WHOLE)
    width = _width(info.width, info.height)
    # ffmpeg rounds the end of a clip in its own way, so that one or two frames fewer may come out.
    frames, shown = _decode(path, width, fps, count, every)
    picked = np.linspace(0, len(shown) - 1, min(MAX_THUMBS, len(shown))).round().astype(int)
    return Description(
        kind="clip",
        name=os.path.basename(path),
        frames=frames,
        seconds=info.seconds,
        width=info.width,
        height=info.height,
        thumbs=tuple(data_url(shown[i]) for i in picked),
    )


def _decode(path: str, width: int, fps: float, count: int, every: int) -> tuple[int, NDArray[np.uint8]]:
    """How many frames the clip really has at `fps`, and about one in `every` of them, small."""
    from pusa_app.media import load_clip

    for less in (0, 1, 2):
        frames = count - less
        if frames < 1:
            break
        try:
            if every == 1:
                return frames, load_clip(path, width, HEIGHT, fps=fps, num_frames=frames)
            load_clip(path, 16, 16, fps=fps, start=frames - 1, num_frames=1)
            coarse = max(1, (frames - 1) // every)
            return frames, load_clip(path, width, HEIGHT, fps=fps / every, num_frames=coarse)
        except MediaError as error:
            problem = error
    raise problem


def _width(width: int, height: int) -> int:
    return min(max(round(HEIGHT * width / height), WIDTHS[0]), WIDTHS[1])


def _is_picture_name(path: str) -> bool:
    return path.lower().endswith((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"))


def _is_clip_name(path: str) -> bool:
    return path.lower().endswith((".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi"))
