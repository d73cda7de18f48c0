"""The value of the timeline editor, and its way to a `Timeline` and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import gradio as gr
from gradio.data_classes import FileData, GradioModel
from pydantic import Field, ValidationError

from pusa_app.errors import MediaError
from pusa_app.timeline import MAX_FRAMES, MAX_SIDE, ClipSource, FrameGrid, ImageSource, Keyframe, Timeline
from pusa_app.ui.player import is_uploaded, publish
from pusa_app.ui.timeline_editor.thumbs import MAX_THUMBS, NOT_UPLOADED, look_at

MAX_THUMB_CHARS = 40_000
MAX_KEYFRAMES = 1000
MAX_START = 10_000_000
Unit = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
DATA_URL = r"^data:image/(jpeg|png|webp);base64,[A-Za-z0-9+/=]*$"
Thumb = Annotated[str, Field(max_length=MAX_THUMB_CHARS, pattern=DATA_URL)]


class EditorGrid(GradioModel):
    """As pusa_app.timeline.FrameGrid."""

    num_frames: int = Field(ge=1, le=MAX_FRAMES)
    temporal_stride: int = Field(ge=1, le=64)
    fps: float = Field(ge=1, le=240, allow_inf_nan=False)


class EditorKeyframe(GradioModel):
    """A keyframe as the script knows it.

    noise: one number per slot of the span. frames: how many the source has at the timeline's rate, 1 for a picture.
    start: first source frame that is used. begin, end: the frames of the source that are the clip, all to its end where
    end is None. thumbs: one for a picture, up to 12 evenly over the whole source for a clip.
    """

    id: str = Field(min_length=1, max_length=40)
    slot: int = Field(ge=0, le=MAX_FRAMES)
    span: int = Field(default=1, ge=1, le=MAX_FRAMES)
    noise: list[Unit] = Field(min_length=1, max_length=MAX_FRAMES)
    kind: Literal["image", "clip"]
    start: int = Field(default=0, ge=0, le=MAX_START)
    begin: int = Field(default=0, ge=0, le=MAX_START)
    end: int | None = Field(default=None, ge=1, le=MAX_START)
    fit: Literal["crop", "pad"] = "crop"
    focus: tuple[Unit, Unit] = (0.5, 0.5)
    file: FileData
    name: str = Field(default="", max_length=255)
    frames: int = Field(default=1, ge=1, le=MAX_START)
    thumbs: list[Thumb] = Field(default_factory=list, max_length=MAX_THUMBS)


class EditorValue(GradioModel):
    """What goes between the page and Python.

    Whatever is wrong with it becomes a gr.Error: of pydantic's own errors a client would see nothing.
    """

    grid: EditorGrid
    width: int = Field(ge=8, le=MAX_SIDE)
    height: int = Field(ge=8, le=MAX_SIDE)
    keyframes: list[EditorKeyframe] = Field(default_factory=list, max_length=MAX_KEYFRAMES)

    @classmethod
    def model_validate(cls, obj: Any, **more: Any) -> EditorValue:  # what Gradio calls with what a client sent
        try:
            return super().model_validate(obj, **more)
        except ValidationError as error:
            raise refusal(f"The timeline is not valid {_first_mistake(error)}.") from None


def refusal(message: str) -> gr.Error:
    """An error that the page and API clients show as it is."""
    return gr.Error(message, print_exception=False)


def to_timeline(value: EditorValue) -> Timeline:
    """The pure timeline, its keyframes from left to right: nobody sees in which order they were added.

    Raises gr.Error when a file was not uploaded or a number is out of range.
    """
    try:
        return Timeline(
            grid=FrameGrid(**value.grid.model_dump()),
            width=value.width,
            height=value.height,
            keyframes=tuple(_to_keyframe(k) for k in sorted(value.keyframes, key=lambda k: k.slot)),
        )
    except ValidationError as error:
        raise refusal(f"The timeline is not valid {_first_mistake(error)}.") from None


def from_timeline(timeline: Timeline) -> EditorValue:
    """The value that shows a timeline: files copied into the cache where they are not, thumbnails of all of them.

    Raises gr.Error when a source cannot be read.
    """
    return EditorValue(
        grid=EditorGrid(**timeline.grid.model_dump()),
        width=timeline.width,
        height=timeline.height,
        keyframes=[_from_keyframe(n, k, timeline.grid.fps) for n, k in enumerate(timeline.keyframes, 1)],
    )


def from_anything(value: EditorValue | Timeline | dict[str, Any]) -> EditorValue:
    """As from_timeline; a dict is the JSON of a Timeline or of an EditorValue."""
    if isinstance(value, EditorValue):
        return value
    if isinstance(value, Timeline):
        return from_timeline(value)
    try:
        return from_timeline(Timeline.model_validate(value))
    except ValidationError:
        return EditorValue.model_validate(value)


def _to_keyframe(keyframe: EditorKeyframe) -> Keyframe:
    path = keyframe.file.path
    if "\0" in path or not is_uploaded(path):
        raise refusal(NOT_UPLOADED)
    noise = tuple(keyframe.noise)
    if len(noise) != keyframe.span:
        raise refusal(f"The keyframe in slot {keyframe.slot} has {len(noise)} noise values for {keyframe.span} slots.")
    return Keyframe(
        slot=keyframe.slot,
        span=keyframe.span,
        source=ImageSource(path=path)
        if keyframe.kind == "image"
        else clip_source(path, keyframe.start, keyframe.begin, keyframe.end),
        noise=noise[0] if len(set(noise)) == 1 else noise,
        fit=keyframe.fit,
        focus=keyframe.focus,
    )


def clip_source(path: str, start: int, begin: int, end: int | None) -> ClipSource:
    """The source of a clip; where the user trimmed to frames that were left out before, they belong to it again."""
    return ClipSource(path=path, start=start, begin=min(begin, start), end=None if end is None or end <= start else end)


def _from_keyframe(number: int, keyframe: Keyframe, fps: float) -> EditorKeyframe:
    source = keyframe.source
    try:
        looked = look_at(source.path, fps, source.kind)
    except MediaError as error:
        raise refusal(str(error)) from None
    path = source.path if is_uploaded(source.path) else publish(Path(source.path))
    return EditorKeyframe(
        id=f"k{number}",
        slot=keyframe.slot,
        span=keyframe.span,
        noise=list(keyframe.noises),
        kind=source.kind,
        **source.model_dump(include={"start", "begin", "end"}),
        fit=keyframe.fit,
        focus=keyframe.focus,
        file=FileData(path=path, orig_name=looked.name),
        name=looked.name[:255],
        frames=looked.frames,
        thumbs=list(looked.thumbs),
    )


def _first_mistake(error: ValidationError) -> str:
    """Where the first mistake is and what, in one short line; names in a foreign value may hold anything."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "as a whole"
    message = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    line = " ".join(f"at {where}: {message[:1].lower()}{message[1:]}".split())
    return line if len(line) <= 160 else f"{line[:157]}..."
