"""A recipe: all that is needed to make a video again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from pusa_app.errors import RecipeError
from pusa_app.timeline.options import Options
from pusa_app.timeline.schedule import MAX_STEPS, ScheduleSpec, Unit
from pusa_app.timeline.timeline import Timeline

M = TypeVar("M", bound=BaseModel)
RECIPE_VERSION: Final = 2
MAX_RECIPE_CHARS = 1_000_000
MAX_SEED = 2**63 - 1
WHOLE_INTERVAL = (0.0, 1.0)
LATER_FIELDS = ("loras", "guidance_2", "guidance_interval", "cache")  # that recipes of version 2 had not at first
Text = Annotated[str, Field(max_length=10_000)]
TaskName = Literal[
    "text-to-video",
    "image-to-video",
    "start-end",
    "keyframes",
    "transition",
    "loop",
    "extend",
    "complete",
    "restyle",
]


def is_name(text: str) -> bool:
    """Whether a text is the name of something, and no path: nothing in it leads anywhere."""
    return text.strip(".") != "" and not re.search(r"[/\\~:\0]", text)


HUB_LORA = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*):(?P<file>[^\\:*?\0-\x1f]+\.(?:safetensors|pt))"
    r"(?:@(?P<revision>[A-Za-z0-9][\w.\-/]*))?"
)


def hub_parts(text: str) -> tuple[str, str, str] | None:
    """ "owner/repo:file.safetensors" or "owner/repo:folder/file.safetensors@revision" -> (repository, file, revision),
    the name of a LoRA of the hub; None for what is none. It says what to ask the hub for, and leads to no file here."""
    match = HUB_LORA.fullmatch(text)
    if match is None or not text.isprintable():
        return None
    revision = match["revision"] or "main"
    if {"", ".", ".."} & {*match["file"].split("/"), *revision.split("/")}:
        return None
    return match["repo"], match["file"], revision


class LoraChoice(BaseModel):
    """A LoRA on the model: a file, or the name of one that this machine knows, and how strongly it works.

    expert: which transformer of a model with two of them it is for; None goes by the name of the file, or both.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(min_length=1, max_length=4096)
    strength: float = Field(default=1.0, ge=-10, le=10, allow_inf_nan=False)
    expert: Literal["high", "low"] | None = None

    @property
    def named(self) -> bool:
        """Whether it is one that the machine knows by its name, or that of the hub, and not a file anywhere."""
        return is_name(self.path) or hub_parts(self.path) is not None


class Recipe(BaseModel):
    """Everything that decides the frames of a clip. The same recipe on the same machine gives the same video.

    guidance 1 turns classifier-free guidance off; schedule None means the model's own. Part k of a run in several parts
    draws its noise from seed + k. color_match: made frames get the colours of the known frames that they meet. loras:
    beside those that belong to the model. guidance_2: below the sigma where a model with two experts changes to the
    second; None is the same. guidance_interval: sigmas of the schedule between which there is guidance; outside only
    the prompt is asked, which takes half the time (arXiv 2404.07724). cache: the threshold of First Block Cache, 0 is
    off. A recipe with the usual value of one of these four is written as if there were no such field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1, 2] = RECIPE_VERSION
    task: TaskName
    model: str = Field(default="mini", min_length=1, max_length=500)
    prompt: Text = ""
    negative_prompt: Text = ""
    timeline: Timeline
    options: Options = Options()
    color_match: bool = False
    steps: int = Field(ge=1, le=MAX_STEPS)
    guidance: float = Field(ge=0, le=100, allow_inf_nan=False)
    seed: int = Field(ge=0, le=MAX_SEED)
    schedule: ScheduleSpec | None = None
    loras: tuple[LoraChoice, ...] = Field(default=(), max_length=16)
    guidance_2: float | None = Field(default=None, ge=0, le=100, allow_inf_nan=False)
    guidance_interval: tuple[Unit, Unit] = WHOLE_INTERVAL
    cache: Unit = 0.0

    @model_serializer(mode="wrap")
    def _without_what_is_usual(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        for name in LATER_FIELDS:
            if getattr(self, name) == Recipe.model_fields[name].default:
                data.pop(name, None)
        return data

    @model_validator(mode="after")
    def _interval_in_order(self) -> Recipe:
        if self.guidance_interval[0] > self.guidance_interval[1]:
            raise ValueError("the guidance interval goes from its lower sigma to its higher one")
        return self

    @model_validator(mode="after")
    def _clips_mean_the_same(self) -> Recipe:
        # In version 1 a clip in a later slot stood for the last frame of its first slot and what follows it.
        if self.version == 1 and any(k.source.kind == "clip" and k.slot > 0 for k in self.timeline.keyframes):
            raise ValueError("it is of version 1, where clips in later slots meant other frames: make it anew")
        return self

    @property
    def guided(self) -> bool:
        """Whether any step may need the negative prompt."""
        return self.guidance != 1 or self.guidance_2 not in (None, 1)

    @property
    def faster(self) -> bool:
        """Whether some of its steps take less time than the others."""
        return self.cache > 0 or (self.guided and self.guidance_interval != WHOLE_INTERVAL)

    def guidances(self, sigmas: Sequence[float], boundary: float | None = None) -> tuple[float, ...]:
        """The guidance of each step. sigmas: the schedule, steps + 1 of them; boundary: where the experts change."""
        low, high = self.guidance_interval
        second = self.guidance if self.guidance_2 is None else self.guidance_2

        def at(sigma: float) -> float:
            if not low <= sigma <= high:
                return 1.0
            return self.guidance if boundary is None or sigma >= boundary else second

        return tuple(map(at, sigmas[:-1]))

    @property
    def paths(self) -> list[str]:
        """The files of its keyframes, in their order."""
        return [k.source.path for k in self.timeline.keyframes if k.source.kind != "part"]

    def with_paths(self, change: Callable[[str], str]) -> Recipe:
        """The same recipe with other names for its files."""
        keyframes = []
        for keyframe in self.timeline.keyframes:
            source = keyframe.source
            if source.kind != "part":
                source = source.model_copy(update={"path": change(source.path)})
            keyframes.append(keyframe.model_copy(update={"source": source}))
        return self.model_copy(update={"timeline": self.timeline.having(*keyframes)})

    def with_bare_loras(self) -> Recipe:
        """The same recipe with LoRAs by the names of their files: where they lie is nobody else's business."""
        bare = (
            lora if lora.named else lora.model_copy(update={"path": re.split(r"[/\\]", lora.path)[-1] or lora.path})
            for lora in self.loras
        )
        return self.model_copy(update={"loras": tuple(bare)})

    def to_json(self) -> str:
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Raises RecipeError with one line when the text is not a recipe."""
        if len(text) > MAX_RECIPE_CHARS:
            raise RecipeError("This is not a recipe: the file is far too long.")
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RecipeError(f"This is not a recipe: it is not valid JSON ({_short(error)}).") from None
        if not isinstance(data, dict):
            raise RecipeError("This is not a recipe: a recipe is a JSON object.")
        data.pop("made_with", None)  # how a machine made it, which says nothing of what it is
        version = data.get("version", RECIPE_VERSION)
        if isinstance(version, int) and version > RECIPE_VERSION:
            raise RecipeError(f"This recipe has version {str(version)[:20]}; update Pusa Studio to use it.")
        return build(cls, data, what="recipe")

    @classmethod
    def from_file(cls, path: Path) -> Recipe:
        """Relative paths of keyframes in the file are kept as they are. Raises RecipeError with one line."""
        try:
            # Windows editors put a byte order mark in front. One character too many is enough to refuse a huge file.
            with path.open(encoding="utf-8-sig") as file:
                return cls.from_json(file.read(MAX_RECIPE_CHARS + 1))
        except UnicodeDecodeError:
            raise RecipeError(f"{path.name} is not a recipe: it is not a text file.") from None
        except OSError as error:
            raise RecipeError(f"The recipe {path} cannot be read: {error.strerror or error}.") from None


def build(cls: type[M], data: dict[str, Any], what: str) -> M:
    """Validate `data` as `cls`; a mistake becomes a RecipeError that names the field in one line."""
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = _short(".".join(str(part) for part in first["loc"]) or what)
        message = str(first["msg"]).removeprefix("Value error, ")
        raise RecipeError(f"The {what} is not valid at {where}: {message[:1].lower()}{message[1:]}.") from None


def _short(text: object) -> str:
    """One line of at most 120 characters; names in a foreign file may hold anything."""
    line = " ".join(str(text).split())
    return line if len(line) <= 120 else f"{line[:117]}..."
