"""Tasks: what a user can ask for, each a small function from what was given to a timeline.

The form, the command line and the API read this registry; a new task is one entry of it and one builder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pusa_app.errors import RecipeError
from pusa_app.timeline.recipe import TaskName
from pusa_app.timeline.schedule import Unit
from pusa_app.timeline.timeline import ImageSource, Keyframe, Timeline


class Given(BaseModel):
    """One thing that the user put in: a file, and how freely the model may treat it.

    noise in [0, 1]: 0 keeps the source as it is, 1 ignores it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(min_length=1, max_length=4096)
    noise: Unit = 0.0
    fit: Literal["crop", "pad"] = "crop"


class Ask(BaseModel):
    """One thing that a task asks for; `name` is the key under which it is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Literal["image", "clip"]
    title: str
    help: str
    missing: str


Builder = Callable[[Timeline, Mapping[str, Given]], Timeline]
Check = Callable[[Timeline], list[str]]


class Task(BaseModel):
    """A task of the studio. `builder` places what was given; `check` says what a finished timeline lacks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: TaskName
    title: str
    help: str
    asks: tuple[Ask, ...] = ()
    builder: Builder = Field(repr=False)
    check: Check = Field(repr=False)

    def timeline(self, blank: Timeline, given: Mapping[str, Given]) -> Timeline:
        """The timeline of this task: `blank` (grid and size, no keyframes) with what was given in its slots.

        Raises RecipeError when something that the task asks for is missing.
        """
        for ask in self.asks:
            if ask.name not in given:
                raise RecipeError(ask.missing)
        return self.builder(blank, given)


def _text_to_video(blank: Timeline, given: Mapping[str, Given]) -> Timeline:
    return blank


def _image_to_video(blank: Timeline, given: Mapping[str, Given]) -> Timeline:
    return _with(blank, _picture(given["image"], slot=0))


def _picture(given: Given, slot: int) -> Keyframe:
    return Keyframe(slot=slot, source=ImageSource(path=given.path), noise=given.noise, fit=given.fit)


def _with(blank: Timeline, *keyframes: Keyframe) -> Timeline:
    return blank.model_copy(update={"keyframes": keyframes})


def _needs_no_keyframe(timeline: Timeline) -> list[str]:
    if timeline.keyframes:
        return ["Text to video starts from words alone: take the keyframes out, or choose image-to-video."]
    return []


def _needs_first_picture(timeline: Timeline) -> list[str]:
    if any(k.slot == 0 and k.source.kind == "image" for k in timeline.keyframes):
        return []
    return ["Image to video needs a picture in slot 0: add one."]


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="text-to-video",
            title="Text to video",
            help="Describe a scene; the model makes all of it.",
            builder=_text_to_video,
            check=_needs_no_keyframe,
        ),
        Task(
            name="image-to-video",
            title="Image to video",
            help="Give the first frame; the model brings it to life.",
            asks=(
                Ask(
                    name="image",
                    kind="image",
                    title="First frame",
                    help="The picture that the video starts with. It is cropped to the shape of the video.",
                    missing="Image to video needs a picture: choose the first frame.",
                ),
            ),
            builder=_image_to_video,
            check=_needs_first_picture,
        ),
    )
}


def get_task(name: str) -> Task:
    """The task of that name; raises RecipeError that lists the known ones."""
    try:
        return TASKS[name]
    except KeyError:
        raise RecipeError(f"There is no task called {name!r}: choose one of {', '.join(TASKS)}.") from None
