"""What the form holds, as one value object, and what follows from it: a timeline, a recipe, advice."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from pusa_app.errors import UserError
from pusa_app.models import BackboneSpec, ModelCard
from pusa_app.models.faster import no_cache, no_interval, no_negative, no_second
from pusa_app.presets import Preset, given_of
from pusa_app.studio import card_of, check_recipe, given_clip, new_recipe
from pusa_app.timeline import (
    MAX_FRAMES,
    Given,
    ImageSource,
    Keyframe,
    LoraChoice,
    Options,
    Piece,
    Recipe,
    Task,
    Timeline,
    advise,
    build,
    get_task,
    remap,
)
from pusa_app.ui import strings
from pusa_app.ui.exact import schedule_choice, schedule_fields, size_of

LEAST_SLOTS = 3  # where something is made between two ends
MAX_SEED = 2**53 - 1  # a browser's numbers are exact to here
# Options of which one alone may be what cannot be: the field that holds it, and the control where that is told. A clip
# that is too short for a direction is a matter of the clip.
BLAMED = {"frames": ("more", "more"), "result": ("result", "result"), "direction": ("direction", "clip")}


class Left(NamedTuple):
    """A timeline that the user had changed when its task made another or gave way to one. files: what the form held;
    made: what the task had made; own: what the user had made of it."""

    files: tuple[Any, ...]
    made: Timeline
    own: Timeline


@dataclass(frozen=True)
class Memory:
    """What is known beside a basis. made: what the program put into the editor, before the user changed it; None where
    that was nothing. left and more: timelines that were left, and numbers of frames, by their tasks."""

    made: Timeline | None = None
    left: Mapping[str, Left] = field(default_factory=dict)
    more: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Basis:
    """What a timeline follows from. sources: the task, its files and the options that say where their frames go.

    fps: of the model, in whose frames a gap and numbers of frames are counted.
    """

    sources: tuple[Any, ...]
    frames: float | None
    model: str
    fps: float
    size: tuple[int, int]
    memory: Memory = field(default_factory=Memory, compare=False)

    @classmethod
    def of(
        cls,
        task: str,
        files: tuple[str | None, ...] = (None,) * 4,
        *places: Any,
        frames: float | None,
        card: ModelCard,
        size: tuple[int, int],
    ) -> Basis:
        # A file in the cache is known by its name and the folder, which is named after its content.
        named = (path and Path(path).parts[-2:] for path in files)
        return cls((task, *named, *places), frames, card.id, card.spec.fps, size)

    @property
    def task(self) -> str:
        return str(self.sources[0])

    @property
    def files(self) -> tuple[Any, ...]:
        return self.sources[1:5]


@dataclass(frozen=True)
class Choices:
    """The values of the form, in the order of its inputs. Numbers may be None where a field was emptied.

    image, end, clip, clip_b: paths of uploads. gap_first and gap_last: the frames of a gap, both in it. more: frames
    that a task adds or makes, None for one run. timeline: what the editor holds. guided_high, guided_low: sigmas
    between which there is guidance. schedule: its kind, "" for the model's own. size: such as "640x384".
    """

    task: str
    prompt: str | None
    image: str | None
    end: str | None
    clip: str | None
    clip_b: str | None
    style: str
    direction: str
    more: float | None
    gap_first: float | None
    gap_last: float | None
    closing: float | None
    result: str
    timeline: Timeline | None
    frames: float | None
    seed: float | None
    negative: str | None
    steps: float | None
    guidance: float | None
    color_match: bool
    model: str
    loras: tuple[LoraChoice, ...] | None = None
    cache: float | None = None
    guided_high: float | None = None
    guided_low: float | None = None
    guidance_2: float | None = None
    schedule: str | None = ""
    schedule_value: float | None = None
    size: str | None = None

    @classmethod
    def of(cls, recipe: Recipe) -> Choices:
        """What the form holds once a recipe filled it."""
        options, gap, files = recipe.options, recipe.options.gap, asked_of(recipe)
        low, high = recipe.guidance_interval
        kind, value = schedule_choice(recipe.schedule)
        return cls(
            task=recipe.task,
            prompt=recipe.prompt,
            **{name: files.get(name) for name in ("image", "end", "clip", "clip_b")},
            style=options.style,
            direction=options.direction,
            more=options.frames,
            gap_first=None if gap is None else gap[0],
            gap_last=None if gap is None else gap[1] - 1,
            closing=options.closing,
            result=options.result,
            timeline=recipe.timeline,
            frames=recipe.timeline.grid.num_frames,
            seed=recipe.seed,
            negative=recipe.negative_prompt,
            steps=recipe.steps,
            guidance=recipe.guidance,
            color_match=recipe.color_match,
            model=recipe.model,
            loras=recipe.loras,
            cache=recipe.cache,
            guided_high=high,
            guided_low=low,
            guidance_2=recipe.guidance_2,
            schedule=kind,
            schedule_value=value,
            size=f"{recipe.timeline.width}x{recipe.timeline.height}",
        )

    @property
    def card(self) -> ModelCard:
        return card_of(self.model)

    @property
    def basis(self) -> Basis:
        files, options = (self.image, self.end, self.clip, self.clip_b), get_task(self.task).options
        places = {"style": self.style, "direction": self.direction, "gap": self._gap()}
        used = (value for option, value in places.items() if option in options)
        return Basis.of(self.task, files, *used, frames=self.frames, card=self.card, size=self.pixels)

    @property
    def pixels(self) -> tuple[int, int]:
        """(width, height); the model's own where what was typed is no size."""
        spec = self.card.spec
        return size_of(self.size, spec) or (spec.width, spec.height)

    def blank(self) -> Timeline:
        """A timeline of the wanted length without keyframes."""
        spec, (width, height) = self.card.spec, self.pixels
        timeline = spec.timeline(spec.nearest_length(int(self.frames or spec.num_frames)))
        return timeline.model_copy(update={"width": width, "height": height})

    def options(self) -> Options:
        """The choices that the task has; raises RecipeError when one of them cannot be."""
        values: dict[str, Any] = {
            "style": self.style,
            "direction": self.direction,
            "frames": None if self.more is None else int(self.more),
            "closing": self.closing or 0.0,
            "result": self.result,
            "gap": self._gap(),
        }
        used = get_task(self.task).options
        return build(Options, {name: value for name, value in values.items() if name in used}, what="choices")

    def given(self) -> Mapping[str, Given]:
        """The uploads that the task asks for and that are there. Raises MediaError when one cannot be read."""
        return self.uploads({ask.name: ask.kind for ask in get_task(self.task).asks})

    def built(self) -> Timeline:
        """What the task makes of the uploads: as much of it as is there. Raises RecipeError or MediaError."""
        task, blank, given = get_task(self.task), self.blank(), self.given()
        waits_for_gap = "gap" in task.options and self._gap() is None
        if waits_for_gap or any(ask.missing and ask.name not in given for ask in task.asks):
            return _partly(task, blank, given)
        return task.timeline(blank, given, self.options(), self.card.spec.noise)

    def current(self) -> tuple[Timeline, list[str]]:
        """What the editor holds on the grid that the form asks for, and what had to move for it."""
        return (self.blank(), []) if self.timeline is None else self.fitted(self.timeline)

    def fitted(self, timeline: Timeline) -> tuple[Timeline, list[str]]:
        """A timeline on the grid that the form asks for, and what had to move for it."""
        from pusa_app.media import count_frames

        blank = self.blank()
        try:
            return remap(timeline, blank.grid, blank.width, blank.height, count_frames)
        except UserError:  # of a file that is gone; that is told where it is missed
            return remap(timeline, blank.grid, blank.width, blank.height)

    @property
    def made_by_task(self) -> bool:
        """Whether at another length the task makes its timeline anew: where there is none yet, where frames of a clip
        have places of their own, and where all of the clip is on it. What the user changed moves along instead."""
        if self.timeline is None or all(getattr(self, ask.name) is None for ask in get_task(self.task).asks):
            return False
        if not self.timeline.keyframes or self.task == "complete":
            return True
        if self.task != "restyle":
            return False
        try:
            return replace(self, frames=self.timeline.grid.num_frames).built() == self.timeline
        except UserError:
            return False

    def with_preset(self, preset: Preset) -> Recipe:
        """What a preset makes of the files, words and seed of the form. Raises RecipeError or MediaError."""
        plain = self.recipe()
        given = {**given_of(plain), **self.uploads(preset.roles)}
        return preset.applied(plain, self.card, given, self._gap())

    def recipe(self, timeline: Timeline | None = None) -> Recipe:
        """The form as a recipe, whether or not its task can do with it; `timeline` instead of the editor's.

        Raises RecipeError or ModelError where one of the choices can be in no recipe.
        """
        timeline = self.current()[0] if timeline is None else timeline
        recipe = new_recipe(
            self.card,
            self.task,
            prompt=(self.prompt or "").strip(),
            negative_prompt="" if no_negative(self.card.spec) else (self.negative or "").strip(),
            keyframes=timeline.keyframes,
            num_frames=timeline.grid.num_frames,
            size=(timeline.width, timeline.height),
            schedule=schedule_fields(self.schedule, self.schedule_value),
            steps=None if self.steps is None else int(self.steps),
            guidance=self.guidance,
            seed=int(self.seed or 0),
            options=self.options(),
            color_match=self.color_match,
        )
        return build(Recipe, dict(recipe) | {"loras": self.loras or ()} | self._faster(), what="recipe")

    def _faster(self) -> dict[str, Any]:
        """What makes the run faster, without what the model cannot do."""
        spec = self.card.spec
        found: dict[str, Any] = {}
        if self.cache and not no_cache(spec):
            found["cache"] = self.cache
        if not no_interval(spec):  # from either end
            ends = self.guided_low or 0.0, 1.0 if self.guided_high is None else self.guided_high
            found["guidance_interval"] = tuple(sorted(min(max(end, 0.0), 1.0) for end in ends))
        if self.guidance_2 is not None and not no_second(spec):
            found["guidance_2"] = self.guidance_2
        return found

    def uploads(self, kinds: Mapping[str, str]) -> dict[str, Given]:
        """Uploads by the names under which they are given; `kinds` says which of them are wanted, and what they are."""
        found = {}
        for name, kind in kinds.items():
            path = getattr(self, name, None)
            if path is not None:
                found[name] = self._given(path, kind)
        return found

    def _given(self, path: str, kind: str) -> Given:
        from pusa_app.media import check_image

        if kind == "clip":
            return given_clip(path, self.card.spec.fps)
        check_image(path)
        return Given(path=path)

    def _gap(self) -> tuple[int, int] | None:
        if self.gap_first is None or self.gap_last is None:
            return None
        return int(self.gap_first), int(self.gap_last) + 1


NAMES = tuple(field.name for field in fields(Choices))


def missing(choices: Choices) -> dict[str, str]:
    """What was not given yet, or is no number that can be: a sentence per control."""
    task, found = get_task(choices.task), {}
    if task.needs_prompt and not (choices.prompt or "").strip():
        found["prompt"] = strings.PROMPT_MISSING
    if not 0 <= (choices.seed or 0) <= MAX_SEED:
        found["seed"] = strings.SEED_WRONG
    if size_of(choices.size, choices.card.spec) is None:
        found["size"] = strings.SIZE_WRONG
    if _refusal(choices, choices.current()[0]) is None:
        return found
    for ask in task.asks:
        if ask.missing and getattr(choices, ask.name) is None:
            found[ask.name] = ask.missing
            return found
    if "gap" in task.options and (choices.gap_first is None or choices.gap_last is None):
        found["gap_last"] = strings.GAP_MISSING
    return found


def faults(choices: Choices, timeline: Timeline) -> dict[str, str]:
    """Why a timeline cannot be run with what was chosen: one sentence, under the control where it can be mended."""
    numbers = _number_faults(choices)
    error = None if numbers else _refusal(choices, timeline)
    if error is None:
        return numbers or _unplaced(choices, timeline)
    if _is_the_size(choices, timeline):
        return {"size": str(error)}
    if not any(timeline.noise_multipliers()):
        return {"timeline": str(error)}
    # What the task says of the files is nearer to the cause than what it then misses on the timeline.
    control, told_there = _blamed(choices)
    if told_there is not None:
        return {control: str(told_there)}
    return {_option_to_blame(choices, lambda other: _refusal(other, timeline)) or "timeline": str(error)}


def _unplaced(choices: Choices, timeline: Timeline) -> dict[str, str]:
    """Why what was given is not on a timeline that can be run without it, as a loop of words alone can."""
    if timeline.keyframes:
        return {}
    control, problem = _blamed(choices)
    return {} if problem is None else {control: str(problem)}


def _is_the_size(choices: Choices, timeline: Timeline) -> bool:
    """Whether with the model's own size nothing would be wrong."""
    spec = choices.card.spec
    own = timeline.model_copy(update={"width": spec.width, "height": spec.height})
    return own != timeline and _refusal(choices, own) is None


def _number_faults(choices: Choices) -> dict[str, str]:
    """Numbers that no task could take."""
    options, found = get_task(choices.task).options, {}
    if "frames" in options and choices.more is not None and not 1 <= choices.more <= MAX_FRAMES:
        found["more"] = strings.MORE_WRONG.format(most=MAX_FRAMES)
    first, last = choices.gap_first, choices.gap_last
    if "gap" in options and first is not None and last is not None and not 0 <= first <= last:
        found["gap_last"] = strings.GAP_WRONG
    return found


def _refusal(choices: Choices, timeline: Timeline) -> UserError | None:
    """What is to be said against a timeline before it is sent.

    LoRAs by a path are looked for once it is known who asks: a stranger must not learn which files are here.
    """
    try:
        recipe = choices.recipe(timeline)
        check_recipe(recipe.model_copy(update={"loras": tuple(lora for lora in recipe.loras if lora.named)}))
    except UserError as error:
        return error
    return None


def _blamed(choices: Choices) -> tuple[str, UserError | None]:
    """The control that keeps the task from making a timeline of the files, and why; None when nothing does."""
    try:
        choices.built()
        return "", None
    except UserError as error:
        problem = error
    for ask in get_task(choices.task).asks:
        try:
            choices.uploads({ask.name: ask.kind})
        except UserError as error:
            return ask.name, error
    if choices.task == "complete":
        return "gap_last", problem
    blank = choices.blank().grid
    if choices.task != "restyle" and blank.num_slots < LEAST_SLOTS:
        return "frames", problem
    if option := _option_to_blame(choices, _building):
        return option, problem
    return ("clip_b" if choices.task == "transition" else "clip"), problem


def _building(choices: Choices) -> UserError | None:
    try:
        choices.built()
    except UserError as error:
        return error
    return None


def _option_to_blame(choices: Choices, trouble: Callable[[Choices], UserError | None]) -> str | None:
    """The control of the option without which there would be no trouble."""
    plain = Options()
    for option, (name, control) in BLAMED.items():
        default = getattr(plain, option)
        if option not in get_task(choices.task).options or getattr(choices, name) in (default, None):
            continue
        if trouble(replace(choices, **{name: default})) is None:
            return control
    return None


def told(choices: Choices, timeline: Timeline, problem: str | None = None) -> dict[str, Any]:
    """What the editor says of a timeline: advice for the task, what would fail, what the result consists of,
    and what the model says of keyframes."""
    from pusa_app.media import count_frames

    task = get_task(choices.task)
    try:
        advice = advise(task.name, timeline, choices.options(), count_frames).model_dump()
    except UserError:  # a choice that cannot be, or a clip that is gone
        advice = advise(task.name, timeline).model_dump()
    result: list[dict[str, Any]] = []
    with contextlib.suppress(UserError):  # why there is none is said where it can be mended
        plan = task.plan(timeline, choices.options())
        result = [_piece(piece, timeline) for piece in plan.pieces]
    # That nothing is left to make, the advice says too.
    if problem and any(timeline.noise_multipliers()):
        advice["warnings"] = (problem, *advice["warnings"])
    if len(result) == 1 and result[0]["frames"] == timeline.grid.num_frames:
        result = []  # what is seen is what comes out
    advice["warnings"] = list(advice["warnings"])
    return {"advice": advice, "result": result, **of_model(task.name, choices.card.spec)}


def of_model(task: str, spec: BackboneSpec) -> dict[str, Any]:
    """What the editor knows of a model: how many slots it takes, and which noise it advises for a new keyframe."""
    new = spec.noise.of_pictures(task)._asdict()
    if task == "restyle":
        new = dict.fromkeys(new, spec.noise.restyle)
    return {"slots_max": spec.grid(spec.lengths()[-1]).num_slots, "new_noise": new}


def asked_of(recipe: Recipe) -> dict[str, str]:
    """The files of a recipe under the names of what its task asks for."""
    found: dict[str, str] = {}
    keyframes, last = recipe.timeline.keyframes, recipe.timeline.grid.num_slots
    for ask in get_task(recipe.task).asks:
        fitting = [k for k in keyframes if k.source.kind == ask.kind]
        if ask.name in ("end", "clip_b"):
            fitting = [k for k in fitting if k.slots.stop == last and k.slot > 0]
        elif len(keyframes) > 1:
            fitting = [k for k in fitting if k.slot == 0] or fitting
        if fitting:
            found[ask.name] = fitting[0].source.path
    return found


def _partly(task: Task, blank: Timeline, given: Mapping[str, Given]) -> Timeline:
    """The pictures that are there already, where they will be."""
    places = {"image": 0, "end": blank.grid.num_slots - 1}
    pictures = [(places[a.name], given[a.name]) for a in task.asks if a.kind == "image" and a.name in given]
    return blank.having(*(Keyframe(slot=slot, source=ImageSource(path=g.path)) for slot, g in pictures))


def _piece(piece: Piece, timeline: Timeline) -> dict[str, Any]:
    from pusa_app.media import count_frames

    if piece.kind == "made":
        return {"kind": "made", "frames": piece.stop - piece.start, "title": "made by the model"}
    stop = count_frames(piece.path, timeline.grid.fps) if piece.stop is None else piece.stop
    name = Path(piece.path).name
    return {"kind": "kept", "frames": stop - piece.start, "title": f"{name}, untouched"}


__all__ = [
    "MAX_SEED",
    "NAMES",
    "Basis",
    "Choices",
    "Left",
    "Memory",
    "asked_of",
    "faults",
    "missing",
    "of_model",
    "told",
]
