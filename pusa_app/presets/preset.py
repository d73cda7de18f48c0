"""What a preset is and what it makes of a blank timeline; the built-in ones.

A preset says nothing of a clip's frames, frame rate or size, so that it fits every model and every clip.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pusa_app.errors import RecipeError
from pusa_app.models import BackboneSpec, ModelCard
from pusa_app.presets.roles import given_of
from pusa_app.timeline import (
    MAX_SEED,
    MAX_STEPS,
    ClipSource,
    FrameGrid,
    Given,
    ImageSource,
    Keyframe,
    LoraChoice,
    Options,
    PictureNoise,
    PresetAxis,
    Recipe,
    ScheduleSpec,
    TaskName,
    TaskNoise,
    Timeline,
    build,
    get_task,
)
from pusa_app.timeline.recipe import Text
from pusa_app.timeline.schedule import Unit

FOLDER = Path(__file__).parents[2] / "presets"
Ramp = tuple[Unit, ...]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Noises(_Part):
    """Noise of what a task places, by the names of TaskNoise; None is what the model advises.

    before and after have one value per slot of a clip that is used; where every slot has a place anyhow (a restyled
    clip, clips that cross) values are spread evenly over the slots.
    """

    start: Unit | None = None
    end: Unit | None = None
    closing: Unit | None = None
    before: Ramp | None = Field(default=None, min_length=1, max_length=64)
    after: Ramp | None = Field(default=None, min_length=1, max_length=64)
    restyle: Unit | Ramp | None = None

    def over(self, advised: TaskNoise) -> TaskNoise:
        """The advised noise, with these values where there are some."""
        values = {name: value for name, value in self if value is not None}
        if isinstance(self.restyle, tuple):
            values["restyle"] = max(self.restyle)
        return advised.model_copy(update=values)


class Share(_Part):
    """A place at a share of the length: 0 is the first slot, 1 the last."""

    share: Unit


class FromEnd(_Part):
    """A place counted from the end: 0 is the last slot."""

    from_end: int = Field(ge=0, le=100_000)


class Placed(_Part):
    """A keyframe beside those that the task places by itself.

    role: the name under which its file is given. A clip fills `span` slots, or as many as it has frames for. Values of
    a ramp are spread evenly over them; without noise it is what the model advises for the place.
    """

    role: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,30}$")
    kind: Literal["image", "clip"] = "image"
    at: Literal["first", "middle", "last"] | Share | FromEnd
    noise: Unit | Ramp | None = None
    span: int = Field(default=1, ge=1, le=1000)

    def slot(self, grid: FrameGrid) -> int:
        """Its first slot on a grid, if nothing else is there."""
        last = grid.num_slots - 1
        if isinstance(self.at, Share):
            return round(self.at.share * last)
        if isinstance(self.at, FromEnd):
            return max(0, last - self.at.from_end)
        return {"first": 0, "middle": last // 2, "last": last}[self.at]


class RunSettings(_Part):
    """How it is run; None is the model's own, or what a recipe has already. length: as a share of the model's own.

    loras and what follows are those of `Recipe`.
    """

    length: float | None = Field(default=None, gt=0, le=100, allow_inf_nan=False)
    steps: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    guidance: float | None = Field(default=None, ge=0, le=100, allow_inf_nan=False)
    schedule: ScheduleSpec | None = None
    color_match: bool | None = None
    loras: tuple[LoraChoice, ...] | None = Field(default=None, max_length=16)
    guidance_2: float | None = Field(default=None, ge=0, le=100, allow_inf_nan=False)
    guidance_interval: tuple[Unit, Unit] | None = None
    cache: Unit | None = None

    @model_validator(mode="after")
    def _interval_in_order(self) -> RunSettings:
        if self.guidance_interval is not None and self.guidance_interval[0] > self.guidance_interval[1]:
            raise ValueError("the guidance interval goes from its lower sigma to its higher one")
        return self

    def num_frames(self, spec: BackboneSpec) -> int:
        """The length for a model, in frames."""
        return spec.nearest_length(round((self.length or 1) * spec.num_frames))


class Filled(NamedTuple):
    """What a preset makes of a blank timeline."""

    timeline: Timeline
    options: Options
    settings: RunSettings


class Preset(_Part):
    """One choice that works.

    title: its name for people. when: a line on when to use it. uses: what it takes of the things that its task can do
    without. more: as Options.frames, as a share of the length. gap: as Options.gap, as shares of the clip.
    prompt, negative_prompt, seed and files (below the folder of presets, by role) are its example.
    """

    title: str = Field(min_length=1, max_length=60, pattern=r"\w")
    when: str = Field(default="", max_length=300)
    task: TaskName
    uses: tuple[str, ...] = Field(default=(), max_length=10)
    noise: Noises = Noises()
    keyframes: tuple[Placed, ...] = Field(default=(), max_length=100)
    options: Options = Options()
    more: float | None = Field(default=None, gt=0, le=1000, allow_inf_nan=False)
    gap: tuple[Unit, Unit] | None = None
    settings: RunSettings = RunSettings()
    prompt: Text = ""
    negative_prompt: Text = ""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    files: dict[str, str] = Field(default={}, max_length=100)

    @model_validator(mode="before")
    @classmethod
    def _closing_was_end(cls, data: Any) -> Any:
        """In presets of earlier versions the last frame of a loop has the noise of an end."""
        noise = data.get("noise") if isinstance(data, dict) and data.get("task") == "loop" else None
        if not isinstance(noise, dict) or "end" not in noise or "closing" in noise:
            return data
        return data | {"noise": {"closing" if name == "end" else name: value for name, value in noise.items()}}

    @model_validator(mode="after")
    def _fits_any_grid(self) -> Preset:
        if self.options.frames is not None or self.options.gap is not None:
            raise ValueError("frames and gap belong to one clip: use more and gap, which are shares")
        if self.gap is not None and self.gap[0] >= self.gap[1]:
            raise ValueError("a gap must end after it begins")
        for file in self.files.values():
            if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts or "\\" in file:
                raise ValueError(f"the file {file[:60]} is not below the folder of presets")
        return self

    @property
    def name(self) -> str:
        """The title without spaces and signs: a name for files and the command line, the same for like titles."""
        return name_of(self.title)

    @property
    def roles(self) -> dict[str, Literal["image", "clip"]]:
        """What has to be given, and what each of it is."""
        asks = get_task(self.task).asks
        asked = {ask.name: ask.kind for ask in asks if ask.missing or ask.name in self.uses}
        return asked | {placed.role: placed.kind for placed in self.keyframes}

    # --- what it makes -----------------------------------------------------------------------------------------------

    def fill(
        self,
        blank: Timeline,
        given: Mapping[str, Given],
        noise: TaskNoise | None = None,
        gap: tuple[int, int] | None = None,
    ) -> Filled:
        """The timeline, options and settings for what a user gave.

        blank: grid and size. given: by role; more than `roles` names is left out, and so is the noise in it, which is
        for the preset to say. noise: what the model advises. gap: frames of the clip, instead of the preset's own.
        Raises RecipeError, which names the preset, when something is missing or does not fit.
        """
        things = {role: given[role].model_copy(update={"noise": None}) for role in self.roles if role in given}
        advised = self.noise.over(noise or TaskNoise())
        try:
            options = self._options(blank, things, gap)
            return Filled(self._timeline(blank, things, options, advised), options, self.settings)
        except RecipeError as error:
            raise RecipeError(f"Preset {self.title}: {error}") from None

    def _timeline(self, blank: Timeline, things: Mapping[str, Given], options: Options, advised: TaskNoise) -> Timeline:
        timeline = get_task(self.task).timeline(blank, things, options, advised)
        for role, kind in self.roles.items():
            if role not in things:
                raise RecipeError(f"It needs a {'picture' if kind == 'image' else 'clip'} ({role}): add one.")
        placed = tuple(timeline.keyframes)
        for number, ramp in enumerate(self._ramps(options)):
            placed = (*placed[:number], _with_ramp(placed[number], ramp), *placed[number + 1 :])
        usual = advised.of_pictures(self.task)
        for wanted in self.keyframes:
            placed = (*placed, _placed(wanted, things[wanted.role], blank.grid, placed, usual))
        return timeline.having(*placed)

    def given(self, fps: float) -> dict[str, Given]:
        """The things of its example, clips counted at `fps`. Raises MediaError when a file is not there or broken."""
        return {
            role: _given(FOLDER / self.files[role], kind, fps)
            for role, kind in self.roles.items()
            if role in self.files
        }

    def example(self, card: ModelCard) -> Recipe:
        """The example for a model. Raises RecipeError for a preset of a user that needs a file, which it never has."""
        spec = card.spec
        blank = spec.timeline(self.settings.num_frames(spec))
        plain = Recipe(
            task=self.task,
            model=card.id,
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            timeline=blank,
            color_match=get_task(self.task).color_match,
            steps=spec.steps,
            guidance=spec.guidance_for(self.task),
            seed=self.seed,
        )
        return self._set(plain, self.fill(blank, self.given(spec.fps), spec.noise))

    def applied(
        self,
        recipe: Recipe,
        card: ModelCard,
        given: Mapping[str, Given] | None = None,
        gap: tuple[int, int] | None = None,
    ) -> Recipe:
        """A recipe as this preset would have it: its files, words, seed and size stay, and what the preset leaves open.

        given and gap take the place of the recipe's own.

        Raises RecipeError when it lacks what the preset needs, MediaError when a clip cannot be read.
        """
        blank, gap = recipe.timeline.having(), gap or recipe.options.gap
        if self.settings.length is not None:
            blank = blank.model_copy(update={"grid": card.spec.grid(self.settings.num_frames(card.spec))})
        given = given_of(recipe) if given is None else given
        color_match = recipe.color_match if recipe.task == self.task else get_task(self.task).color_match
        guidance = guidance_in(self.task, recipe, card.spec)
        plain = recipe.model_copy(update={"task": self.task, "color_match": color_match, "guidance": guidance})
        return self._set(plain, self.fill(blank, given, card.spec.noise, gap))

    def _set(self, plain: Recipe, filled: Filled) -> Recipe:
        wanted = {name: value for name, value in filled.settings if value is not None and name != "length"}
        return plain.model_copy(update={"timeline": filled.timeline, "options": filled.options, **wanted})

    def _options(self, blank: Timeline, given: Mapping[str, Given], gap: tuple[int, int] | None) -> Options:
        changes: dict[str, Any] = {}
        if self.more is not None:
            changes["frames"] = max(1, round(self.more * blank.grid.num_frames))
        if self.task == "complete":
            clip = given.get("clip")
            if gap is None and self.gap is not None and clip is not None and clip.frames is not None:
                first, stop = (clip.start + round(share * (clip.end - clip.start)) for share in self.gap)
                gap = first, max(stop, first + 1)
            changes["gap"] = gap
        return self.options.model_copy(update=changes)

    def _ramps(self, options: Options) -> list[Ramp | None]:
        """What is spread over the keyframes that the task placed, in their order."""
        if self.task == "transition" and options.style == "cross":
            return [self.noise.before, self.noise.after]
        if self.task == "restyle" and isinstance(self.noise.restyle, tuple):
            return [self.noise.restyle]
        return []


def name_of(title: str) -> str:
    """The letters and digits of a title in lower case, with hyphens between the words."""
    return "-".join(re.findall(r"\w+", unicodedata.normalize("NFKC", title).casefold()))


def _given(path: Path, kind: str, fps: float) -> Given:
    from pusa_app.media import check_image, count_frames

    if kind == "clip":
        return Given(path=str(path), frames=count_frames(path, fps))
    check_image(path)
    return Given(path=str(path))


def _placed(wanted: Placed, given: Given, grid: FrameGrid, others: Iterable[Keyframe], usual: PictureNoise) -> Keyframe:
    """The keyframe in its place, or in the nearest free one; a clip as long as it and the free place allow."""
    taken = {slot for keyframe in others for slot in keyframe.slots}
    slots, stride, slot = grid.num_slots, grid.temporal_stride, wanted.slot(grid)
    have = 1
    if wanted.kind == "clip":
        frames = given.end - given.start
        have = (frames - 1) // stride + 1 if slot == 0 else frames // stride
    for span in range(min(wanted.span, have), 0, -1):
        free = [s for s in range(slots - span + 1) if taken.isdisjoint(range(s, s + span)) and (slot == 0 or s > 0)]
        if free:
            slot = min(free, key=lambda s: (abs(s - slot), s))
            break
    else:
        raise RecipeError(f"There is no room for {Path(given.path).name} on the timeline: choose a longer length.")
    noise = wanted.noise
    if noise is None:
        # A clip counts by its last slot, but as a start where it begins in slot 0.
        noise = usual.at(slot + span - 1 if slot else 0, slots)
    source = ImageSource(path=given.path) if wanted.kind == "image" else ClipSource(path=given.path, start=given.start)
    keyframe = Keyframe(slot=slot, source=source, span=span, fit=given.fit, focus=given.focus)
    return _with_ramp(keyframe, noise if isinstance(noise, tuple) else (noise,))


def _with_ramp(keyframe: Keyframe, ramp: Ramp | None) -> Keyframe:
    """The keyframe with values spread evenly over its slots."""
    if ramp is None:
        return keyframe
    noises = []
    for i in range(keyframe.span):
        low, between = divmod(i * (len(ramp) - 1) / max(1, keyframe.span - 1), 1)
        high = min(int(low) + 1, len(ramp) - 1)
        noises.append(round((1 - between) * ramp[int(low)] + between * ramp[high], 6))
    return keyframe.model_copy(update={"noise": noises[0] if len(set(noises)) == 1 else tuple(noises)})


def preset_axis(recipe: Recipe, card: ModelCard, chosen: Iterable[Preset]) -> PresetAxis:
    """An axis of a sweep: what each preset makes of the recipe. Raises RecipeError or MediaError as `applied`."""
    chosen = list(chosen)
    fields = {"values": [p.title for p in chosen], "recipes": [p.applied(recipe, card) for p in chosen]}
    return build(PresetAxis, fields, what="sweep")


@lru_cache(maxsize=1)
def presets() -> tuple[Preset, ...]:
    """The built-in presets in the order of their files; raises RecipeError on a faulty one."""
    files = sorted(FOLDER.glob("*.json"))
    return tuple(build(Preset, entry, what="preset") for file in files for entry in json.loads(file.read_text("utf-8")))


def guidance_in(task: TaskName, recipe: Recipe, spec: BackboneSpec) -> float:
    """The guidance of a recipe that turns to another task: what was chosen stays, a default becomes the task's own."""
    untouched = recipe.guidance == spec.guidance_for(recipe.task)
    return spec.guidance_for(task) if untouched else recipe.guidance
