"""Tasks: what a user can ask for. A builder makes a timeline of what was given, a planner says what is run for it.

The form, the command line and the API read this registry; a new task is one entry of it and its two functions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pusa_app.errors import RecipeError
from pusa_app.timeline import builders, planners
from pusa_app.timeline.builders import Builder, Given
from pusa_app.timeline.options import Options, TaskNoise
from pusa_app.timeline.plan import Plan
from pusa_app.timeline.planners import Planner
from pusa_app.timeline.recipe import Recipe, TaskName
from pusa_app.timeline.timeline import Timeline

OptionName = Literal["direction", "frames", "result", "style", "gap", "closing"]


class Ask(BaseModel):
    """One thing that a task asks for; `name` is the key under which it is given. missing: what to say without it;
    None where the task can do without."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Literal["image", "clip"]
    title: str
    help: str
    missing: str | None


class Task(BaseModel):
    """A task of the studio.

    needs_prompt: words are all it has. color_match: made frames meet untouched ones, so their colours are matched
    unless the user says otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: TaskName
    title: str
    help: str
    asks: tuple[Ask, ...] = ()
    options: tuple[OptionName, ...] = ()
    needs_prompt: bool = False
    color_match: bool = False
    builder: Builder = Field(repr=False)
    planner: Planner = Field(repr=False)

    def timeline(
        self,
        blank: Timeline,
        given: Mapping[str, Given],
        options: Options | None = None,
        noise: TaskNoise | None = None,
    ) -> Timeline:
        """The timeline of this task: `blank` (grid and size, no keyframes) with what was given in its slots.

        Raises RecipeError when something that the task asks for is missing or does not fit.
        """
        for ask in self.asks:
            if ask.missing and ask.name not in given:
                raise RecipeError(ask.missing)
        return self.builder(blank, given, options or Options(), noise or TaskNoise())

    def plan(self, timeline: Timeline, options: Options | None = None) -> Plan:
        """What is run for a finished timeline. Raises RecipeError when the timeline lacks what the task needs."""
        return self.planner(timeline, options or Options())


FIRST_FRAME = Ask(
    name="image",
    kind="image",
    title="First frame",
    help="The picture that the video starts with.",
    missing="Image to video needs a picture: choose the first frame.",
)


def _clip(name: str, title: str, help: str, missing: str | None) -> Ask:
    return Ask(name=name, kind="clip", title=title, help=help, missing=missing)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="text-to-video",
            title="Text to video",
            help="Describe a scene; the model makes all of it.",
            needs_prompt=True,
            builder=builders.text_to_video,
            planner=planners.text_to_video,
        ),
        Task(
            name="image-to-video",
            title="Image to video",
            help="Give the first frame; the model brings it to life.",
            asks=(FIRST_FRAME,),
            builder=builders.image_to_video,
            planner=planners.image_to_video,
        ),
        Task(
            name="start-end",
            title="Start-end",
            help="Give the first and the last frame; the model finds the way between them.",
            asks=(
                FIRST_FRAME.model_copy(update={"missing": "Start-end needs a first frame: choose a picture."}),
                Ask(
                    name="end",
                    kind="image",
                    title="Last frame",
                    help="The picture that the video ends with.",
                    missing="Start-end needs a last frame: choose a picture.",
                ),
            ),
            builder=builders.start_end,
            planner=planners.start_end,
        ),
        Task(
            name="keyframes",
            title="Keyframes",
            help="Put pictures and clips into any slots of the timeline, each as firm or as free as you like.",
            builder=builders.keyframes,
            planner=planners.keyframes,
        ),
        Task(
            name="transition",
            title="Transition",
            help="From the end of one clip to the start of another.",
            asks=(
                _clip("clip", "Clip A", "What the transition starts from.", "A transition needs clip A: add a clip."),
                _clip("clip_b", "Clip B", "What the transition leads to.", "A transition needs clip B: add a clip."),
            ),
            options=("style", "result"),
            color_match=True,
            builder=builders.transition,
            planner=planners.transition,
        ),
        Task(
            name="loop",
            title="Loop",
            help="A video whose end runs into its start: from words, around a picture, or from a clip.",
            asks=(
                Ask(
                    name="image",
                    kind="image",
                    title="Picture",
                    help="Where the loop starts and ends. Leave it out to loop from words.",
                    missing=None,
                ),
                _clip("clip", "Clip", "A clip whose end is led back to its start.", None),
            ),
            options=("closing", "result"),
            color_match=True,
            builder=builders.loop,
            planner=planners.loop,
        ),
        Task(
            name="extend",
            title="Extend",
            help="A clip goes on, forwards or backwards, for as long as you like. Its own frames stay as they are.",
            asks=(_clip("clip", "Clip", "The clip that goes on.", "Extend needs a clip: add one."),),
            options=("direction", "frames", "result"),
            color_match=True,
            builder=builders.extend,
            planner=planners.extend,
        ),
        Task(
            name="complete",
            title="Complete",
            help="Mark a gap in a clip; the model fills it and leaves the rest alone.",
            asks=(_clip("clip", "Clip", "The clip with the gap.", "Complete needs a clip: add one."),),
            options=("gap", "result"),
            color_match=True,
            builder=builders.complete,
            planner=planners.complete,
        ),
        Task(
            name="restyle",
            title="Restyle",
            help="Every slot starts from a clip, as noisy as you say; the prompt says what it becomes.",
            asks=(_clip("clip", "Clip", "The clip whose motion is kept.", "Restyle needs a clip: add one."),),
            options=("frames",),
            needs_prompt=True,
            builder=builders.restyle,
            planner=planners.restyle,
        ),
    )
}


def get_task(name: str) -> Task:
    """The task of that name; raises RecipeError that lists the known ones."""
    try:
        return TASKS[name]
    except KeyError:
        raise RecipeError(f"There is no task called {name!r}: choose one of {', '.join(TASKS)}.") from None


def default_task(given: Collection[str], gap: bool = False, say: str = "the task") -> TaskName:
    """The task that follows from the names of what is given, and from whether a gap is.

    Raises RecipeError where it might be several; say: where the user can then name one.
    """
    pictures, clips = {"image", "end"}.intersection(given), {"clip", "clip_b"}.intersection(given)
    if pictures and clips:
        raise RecipeError(f"Pictures and clips can be put together in several ways: say which with {say}.")
    if pictures:
        return "start-end" if "end" in pictures else "image-to-video"
    if "clip_b" in clips:
        return "transition"
    if gap:
        return "complete"
    return "extend" if clips else "text-to-video"


def plan_of(recipe: Recipe) -> Plan:
    """What is run for a recipe. Raises RecipeError when its timeline lacks what its task needs."""
    if any(k.source.kind == "part" for k in recipe.timeline.keyframes):
        raise RecipeError("Frames of another part cannot be keyframes of the first: use a picture or a clip.")
    return get_task(recipe.task).plan(recipe.timeline, recipe.options)
