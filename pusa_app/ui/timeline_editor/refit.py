"""Keyframes of a timeline that was made for another model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pusa_app.timeline import ClipSource, FrameGrid, ImageSource, Keyframe, Timeline, remap
from pusa_app.ui.timeline_editor.value import MAX_START, Unit, clip_source

MOST = 500  # slots of either grid: it takes a moment even where each keyframe is in the way of the others
NOT_VALID = "These keyframes are not valid and could not be fitted to this model."
SIDE = 64  # pixels; the size of a frame plays no part


class Place(BaseModel):
    """Where a keyframe is and what it uses of its source; as EditorKeyframe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slot: int = Field(ge=0, lt=MOST)
    span: int = Field(ge=1, le=MOST)
    noise: list[Unit] = Field(min_length=1, max_length=MOST)
    kind: Literal["image", "clip"]
    start: int = Field(ge=0, le=MAX_START)
    begin: int = Field(ge=0, le=MAX_START)
    end: int | None = Field(ge=1, le=MAX_START)


Asked = TypeAdapter(tuple[FrameGrid, FrameGrid, Annotated[list[Place], Field(max_length=MOST)]])


def refit(data: Any) -> dict[str, Any]:
    """The server function of the script: [grid, other grid, places] -> {"keyframes", "notes"} or {"problem": sentence}.

    keyframes: for each its place on the other grid, as pusa_app.timeline.remap finds it, or None where it is left out;
    notes: what had to move. Anybody who may open the page can call it with anything; no file is looked at.
    """
    try:
        before, after, places = Asked.validate_python(data)
        if max(before.num_slots, after.num_slots) > MOST or sum(place.span for place in places) > before.num_slots:
            return {"problem": NOT_VALID}
        keyframes = tuple(_keyframe(number, place) for number, place in enumerate(places))
    except ValidationError:
        return {"problem": NOT_VALID}
    fitted, notes = remap(Timeline(grid=before, width=SIDE, height=SIDE, keyframes=keyframes), after)
    found = {keyframe.source.path: _place(keyframe) for keyframe in fitted.keyframes}
    return {"keyframes": [found.get(str(number)) for number in range(len(places))], "notes": notes}


def _keyframe(number: int, place: Place) -> Keyframe:
    """A keyframe whose file is called by its number, by which it is known again."""
    source: ImageSource | ClipSource = ImageSource(path=str(number))
    if place.kind == "clip":
        source = clip_source(str(number), place.start, place.begin, place.end)
    return Keyframe(slot=place.slot, span=place.span, noise=tuple(place.noise), source=source)


def _place(keyframe: Keyframe) -> dict[str, Any]:
    place: dict[str, Any] = {"slot": keyframe.slot, "span": keyframe.span, "noise": list(keyframe.noises)}
    return place | keyframe.source.model_dump(include={"start", "begin", "end"})
