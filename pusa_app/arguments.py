"""From the words of a command line to a recipe.

Only the standard library is imported here; everything else waits until it is needed, so that help is instant.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pusa_app.errors import RecipeError

if TYPE_CHECKING:
    from pusa_app.models import BackboneSpec, ModelCard
    from pusa_app.timeline import Given, LoraChoice, Options, Recipe, Task, TaskNoise, Timeline

KEYFRAME_KEYS = ("slot", "image", "clip", "start", "span", "noise", "fit", "focus")
PICTURES, CLIPS = ("image", "end"), ("clip", "clip_b")
# Options of `generate` and the choices of a task that they are; --frames is one of restyle only.
CHOICES = {
    "direction": "direction",
    "frames_to_add": "frames",
    "gap": "gap",
    "style": "style",
    "closing": "closing",
    "result": "result",
}
PLACED = (*PICTURES, *CLIPS, "clip_range", "clip_b_range")
MAX_NOISES = 64
MAX_TIMELINE_CHARS = 1_000_000


# --- types of arguments -----------------------------------------------------------------------------------------------


def argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Turn a parser's ValueError into argparse's own error, which keeps the message."""

    def read(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def to_path(text: str) -> Path:
    """A path that the file system can be asked about, whether or not something is there."""
    try:
        os.stat(text or ".")
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise argparse.ArgumentTypeError(f"{shown(text)} cannot be used ({reason})") from None
    return Path(text)


def integer(low: int, high: int) -> Callable[[str], int]:
    """A type for add_argument: a whole number in a range."""
    return argument(lambda text: _whole(text, low, high))


def number(low: float, high: float) -> Callable[[str], float]:
    """A type for add_argument: a finite number in a range."""
    return argument(lambda text: _real(text, low, high))


def _whole(text: str, low: int, high: int) -> int:
    # The length comes first: turning a million digits into a number takes minutes.
    if not re.fullmatch(r"[+-]?\d{1,20}", text.strip()) or not low <= int(text) <= high:
        raise ValueError(f"a whole number from {low} to {high} is needed, not {shown(text)}")
    return int(text)


def _real(text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise ValueError(f"a number from {low:g} to {high:g} is needed, not {shown(text)}")
    return value


def shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")


def parse_size(text: str) -> tuple[int, int]:
    """ "64x48" -> (64, 48), in pixels; raises ValueError."""
    width, x, height = text.lower().partition("x")
    if not x:
        raise ValueError(f"a size looks like 64x64, not {shown(text)}")
    return _whole(width, 8, 8192), _whole(height, 8, 8192)


def parse_schedule(text: str) -> dict[str, Any]:
    """ "shift:2" -> the fields of a ScheduleSpec; raises ValueError."""
    from pusa_app.timeline.schedule import SCHEDULE_VALUES

    kind, colon, value = text.partition(":")
    if kind not in SCHEDULE_VALUES:
        raise ValueError(f"a schedule is linear-quadratic or shift, not {shown(text)}")
    name, bounds = SCHEDULE_VALUES[kind]
    return {"kind": kind} | ({name: _real(value, *bounds)} if colon else {})


def parse_range(text: str) -> tuple[int, int | None]:
    """ "10:50" -> (10, 50), frames 10 to 49; ":50" begins with the first, "10:" ends with the last. ValueError."""
    first, colon, stop = text.partition(":")
    if not colon:
        raise ValueError(f"a range of frames looks like 10:50, not {shown(text)}")
    start, end = _whole(first or "0", 0, 10_000_000), _whole(stop, 1, 10_000_000) if stop.strip() else None
    if end is not None and start >= end:
        raise ValueError(f"a range of frames needs a last one behind the first, not {shown(text)}")
    return start, end


def parse_lora(text: str) -> dict[str, Any]:
    """ "FILE=1.4" or "FILE=1.4:high" -> the fields of a LoraChoice; raises ValueError. Paths may hold = and colons."""
    path, equals, value = text.rpartition("=")
    if not equals:
        return {"path": text}
    strength, colon, expert = value.partition(":")
    if not path or (colon and expert not in ("high", "low")):
        raise ValueError(f"a LoRA looks like FILE=1.4 or FILE=1.4:high, not {shown(text)}")
    return {"path": path, "strength": _real(strength, -10, 10), "expert": expert or None}


def parse_gap(text: str) -> tuple[int, int]:
    """ "13:25" -> (13, 25), frames 13 to 24; raises ValueError."""
    first, stop = parse_range(text)
    if stop is None:
        raise ValueError(f"a gap looks like 13:25, not {shown(text)}")
    return first, stop


def parse_noises(text: str) -> tuple[float, ...]:
    """ "0,0.2,0.4" -> (0.0, 0.2, 0.4); raises ValueError."""
    values = text.split(",")
    if len(values) > MAX_NOISES:
        raise ValueError(f"at most {MAX_NOISES} noise values are taken, not {len(values)}")
    return tuple(_real(value, 0, 1) for value in values)


def parse_keyframe(text: str) -> dict[str, Any]:
    """ "slot=0,image=a.png,noise=0.2" -> the fields of a Keyframe; raises ValueError. Paths may hold commas."""
    keys = "|".join(KEYFRAME_KEYS)
    fields: dict[str, str] = {}
    for part in re.split(rf",(?=(?:{keys})=)", text):
        key, equals, value = part.partition("=")
        if not equals or key not in KEYFRAME_KEYS:
            raise ValueError(f"a keyframe looks like slot=0,image=a.png,noise=0.2, not {shown(text)}")
        if key in fields:
            raise ValueError(f"{key} is there twice in {shown(text)}")
        fields[key] = value
    if ("image" in fields) == ("clip" in fields) or "slot" not in fields:
        raise ValueError(f"a keyframe needs a slot and either an image or a clip: {shown(text)}")
    if "image" in fields and ("start" in fields or "span" in fields):
        raise ValueError(f"start and span belong to a clip: {shown(text)}")
    if fields.get("fit", "crop") not in ("crop", "pad"):
        raise ValueError(f"fit is crop or pad, not {shown(fields['fit'])}")
    if "image" in fields:
        source: dict[str, Any] = {"kind": "image", "path": fields["image"]}
    else:
        source = {"kind": "clip", "path": fields["clip"], "start": _whole(fields.get("start", "0"), 0, 10_000_000)}
    keyframe: dict[str, Any] = {"slot": _whole(fields["slot"], 0, 100_000), "source": source}
    if "span" in fields:
        keyframe["span"] = _whole(fields["span"], 1, 100_000)
    if "fit" in fields:
        keyframe["fit"] = fields["fit"]
    if "focus" in fields:
        keyframe["focus"] = _focus(fields["focus"])
    if "noise" in fields:
        noises = [_real(value, 0, 1) for value in fields["noise"].split(":")]
        keyframe["noise"] = noises[0] if len(noises) == 1 else noises
    return keyframe


def _focus(text: str) -> tuple[float, float]:
    x, colon, y = text.partition(":")
    if not colon:
        raise ValueError(f"a focus looks like 0.5:0.2 (from the left, from the top), not {shown(text)}")
    return _real(x, 0, 1), _real(y, 0, 1)


# --- the arguments of a recipe ----------------------------------------------------------------------------------------


def add_recipe_arguments(make: argparse.ArgumentParser) -> None:
    """All that `recipe_from` reads."""
    _add_subject(make)
    _add_sources(make)
    _add_task_choices(make)
    _add_run_settings(make)


def _add_subject(make: argparse.ArgumentParser) -> None:
    what = make.add_argument_group("what to make")
    what.add_argument(
        "--task",
        help="text-to-video, image-to-video, start-end, keyframes, transition, loop, extend, complete or restyle; "
        "the default follows from what you give",
    )
    what.add_argument("--model", help="id of a model, see `models list`; mini by default")
    what.add_argument("--prompt", help="what happens in the video")
    what.add_argument("--negative", metavar="PROMPT", help="what should not be in it")


def _add_sources(make: argparse.ArgumentParser) -> None:
    of = make.add_argument_group("from what", "frames of a clip are counted from 0, at the model's frame rate")
    of.add_argument("--image", metavar="FILE", help="the first frame, or the picture of a loop")
    of.add_argument("--end", metavar="FILE", help="the last frame (start-end)")
    of.add_argument("--clip", metavar="FILE", help="the clip of extend, complete, restyle and loop; A of a transition")
    of.add_argument("--clip-b", metavar="FILE", help="B of a transition")
    for name in ("clip", "clip-b"):
        of.add_argument(
            f"--{name}-range",
            type=argument(parse_range),
            metavar="FIRST:STOP",
            help=f"only these frames of --{name}, STOP not included; 10: and :50 leave one end open",
        )
    of.add_argument(
        "--keyframe",
        action="append",
        type=argument(parse_keyframe),
        metavar="slot=0,image=FILE,noise=0.2",
        help="a picture or a clip (clip=FILE,start=0,span=3,noise=0.1:0.2:0.3) in a slot, fit=crop|pad, focus=x:y "
        "(0:0 is the top left); repeatable; stands instead of what the task places",
    )
    of.add_argument("--timeline", type=to_path, metavar="FILE", help="a timeline as JSON instead of all these")


def _add_task_choices(make: argparse.ArgumentParser) -> None:
    how = make.add_argument_group("how the task does it")
    how.add_argument(
        "--noise",
        type=argument(parse_noises),
        metavar="N[,N...]",
        help="0 keeps what is placed, 1 ignores it; the model's advice by default. Several: of the first and the last "
        "picture, or of a clip's slots towards the new frames, in the order of time (behind them mirrored)",
    )
    how.add_argument("--direction", choices=("forwards", "backwards", "both"), help="where extend adds frames")
    how.add_argument(
        "--frames-to-add", type=integer(1, 100_000), metavar="N", help="by extend, at each end; one run's by default"
    )
    how.add_argument("--gap", type=argument(parse_gap), metavar="FIRST:STOP", help="frames that complete makes anew")
    how.add_argument("--style", choices=("bridge", "cross"), help="of a transition: through new frames, or crossed")
    how.add_argument("--closing", type=number(0, 1), metavar="N", help="noise of the frame that closes a loop of words")
    how.add_argument(
        "--result", choices=("joined", "made"), help="with the frames of the clips, as by default, or only the new ones"
    )
    how.add_argument(
        "--color-match",
        action=argparse.BooleanOptionalAction,
        help="give new frames the colours of what they join; by default where a clip goes on",
    )


def _add_run_settings(make: argparse.ArgumentParser) -> None:
    size = make.add_argument_group("how to make it")
    size.add_argument("--frames", type=integer(1, 100_000), help="length of a run in frames; of restyle: of the video")
    size.add_argument("--size", type=argument(parse_size), metavar="WxH", help="width and height in pixels")
    size.add_argument("--steps", type=integer(1, 1000), help="denoising steps")
    size.add_argument("--guidance", type=number(0, 100), help="how strictly the prompt is followed")
    size.add_argument(
        "--guidance-2", type=number(0, 100), metavar="N", help="of the second expert of a model with two; the same"
    )
    size.add_argument(
        "--guidance-interval",
        nargs=2,
        type=number(0, 1),
        metavar=("LOW", "HIGH"),
        help="guide only where the sigma of the schedule (1 to 0) is from LOW to HIGH; other steps take half the time",
    )
    size.add_argument(
        "--cache",
        type=number(0, 1),
        metavar="T",
        help="First Block Cache: leave out the other blocks of the model in steps where the first one's result changed "
        "by less than this share; 0.05 is careful, 0.2 fast, 0 (off) by default",
    )
    size.add_argument("--seed", type=integer(0, 2**63 - 1), help="0 by default")
    size.add_argument(
        "--schedule",
        type=argument(parse_schedule),
        metavar="KIND[:VALUE]",
        help="linear-quadratic[:THRESHOLD] or shift[:SHIFT]; the model's own by default",
    )
    size.add_argument(
        "--lora",
        action="append",
        type=argument(parse_lora),
        metavar="FILE=STRENGTH",
        help="a LoRA on the model, by its file or its name (of one of the hub OWNER/REPO:FILE), 1 by default; "
        "repeatable; FILE=1.4:high is for the expert for high noise of a model with two",
    )


FASTER = ("guidance_2", "guidance_interval", "cache")
RECIPE_ARGUMENTS = (
    *("task", "model", "prompt", "negative", *PLACED, "keyframe", "timeline", "noise", *CHOICES, "color_match"),
    *("frames", "size", "steps", "guidance", "seed", "schedule", "lora"),
    *FASTER,
)
# What a batch of pictures has no use for, or takes from its folder.
NOT_OF_A_BATCH = ("prompt", *PLACED, "keyframe", "timeline", *CHOICES)


def refuse(options: argparse.Namespace, because: str, names: Sequence[str], why: str) -> None:
    """Raises RecipeError when one of these options was given."""
    for name in names:
        if getattr(options, name) is not None:
            raise RecipeError(f"Leave out {_flag(name)}: {because} {why}.")


def recipe_from(options: argparse.Namespace) -> Recipe:
    """The recipe that the options describe. Raises RecipeError, MediaError or ModelError with what is wrong."""
    from pusa_app.studio import card_of
    from pusa_app.timeline import get_task

    if options.timeline is not None:
        refuse(options, "--timeline", (*PLACED, "keyframe", "noise", "frames", "size"), "already says it")
    if options.keyframe:
        refuse(options, "--keyframe", PLACED, "says itself what is placed where")
    task = get_task(options.task or default_task(options))
    card = card_of(options.model or "mini")
    if not (options.prompt or "").strip() and _needs_words(task, options):
        raise RecipeError("Say what to make: --prompt needs a few words.")
    if options.timeline is not None:
        timeline = _timeline_file(options.timeline, card)
        return numbers(options, card, task.name, timeline, _choices(options, task))
    if options.keyframe:
        return _with_keyframes(options, card, task)
    given = _given(options, task, card.spec)
    length, choices = _length(options, task, card.spec, given)
    noise = _task_noise(options, task, card.spec.noise)
    blank = numbers(argparse.Namespace(**vars(options) | {"frames": length}), card, task.name).timeline
    timeline = task.timeline(blank, given, choices, noise)
    if options.noise and not timeline.keyframes:
        raise RecipeError("Leave out --noise: it is for pictures and clips, and none is given.")
    return numbers(options, card, task.name, timeline, choices)


def default_task(options: argparse.Namespace) -> str:
    """The task that follows from what is given; raises RecipeError where it might be several."""
    from pusa_app import timeline

    if options.timeline is not None:
        return "keyframes"
    if options.keyframe:
        first = options.keyframe[0]
        alone = len(options.keyframe) == 1 and first["slot"] == 0 and first["source"]["kind"] == "image"
        return "image-to-video" if alone else "keyframes"
    given = [name for name in (*PICTURES, *CLIPS) if getattr(options, name) is not None]
    return timeline.default_task(given, gap=options.gap is not None, say="--task")


def numbers(
    options: argparse.Namespace,
    card: ModelCard,
    task: str,
    timeline: Timeline | None = None,
    choices: Options | None = None,
) -> Recipe:
    """The recipe of a finished timeline; without one, that of an empty one of the length and size in the options."""
    from pusa_app.studio import new_recipe
    from pusa_app.timeline import Recipe, build

    recipe = new_recipe(
        card,
        task,
        prompt=options.prompt or "",
        negative_prompt=options.negative or "",
        keyframes=() if timeline is None else timeline.keyframes,
        num_frames=options.frames if timeline is None else timeline.grid.num_frames,
        size=options.size if timeline is None else (timeline.width, timeline.height),
        steps=options.steps,
        guidance=options.guidance,
        seed=options.seed or 0,
        schedule=options.schedule,
        options=choices,
        color_match=options.color_match,
    )
    more: dict[str, Any] = {name: value for name in FASTER if (value := getattr(options, name)) is not None}
    if options.lora:
        more["loras"] = _loras(options.lora)
    return build(Recipe, dict(recipe) | more, what="recipe") if more else recipe


def _loras(given: Sequence[dict[str, Any]]) -> tuple[LoraChoice, ...]:
    """Files are named in full, for it may be another program that opens them."""
    from pusa_app.timeline import LoraChoice, build

    found = []
    for fields in given:
        path = os.path.expanduser(fields["path"])
        at_hand = "\0" not in path and os.path.exists(path)
        found.append(build(LoraChoice, fields | {"path": os.path.abspath(path) if at_hand else path}, what="LoRA"))
    return tuple(found)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _needs_words(task: Task, options: argparse.Namespace) -> bool:
    placed = options.timeline or options.keyframe or options.image or options.clip
    return task.needs_prompt or (task.name == "loop" and not placed)


def _choices(options: argparse.Namespace, task: Task, **more: Any) -> Options:
    """The choices of the task; raises RecipeError for one that it does not have."""
    from pusa_app.timeline import Options, build

    values = {field: getattr(options, name) for name, field in CHOICES.items()}
    for name, field in CHOICES.items():
        # `frames` is a choice of restyle too, but --frames says it there.
        has = field in task.options and (name != "frames_to_add" or task.name == "extend")
        if values[field] is not None and not has:
            raise RecipeError(f"Leave out {_flag(name)}: {task.name} has no such choice.")
    return build(Options, {k: v for k, v in (values | more).items() if v is not None}, what="choice")


def _given(options: argparse.Namespace, task: Task, spec: BackboneSpec) -> dict[str, Given]:
    """What the task asks for; raises RecipeError for what it does not."""
    from pusa_app.studio import given_clip
    from pusa_app.timeline import Given, build

    asked = {ask.name for ask in task.asks}
    refuse(options, task.name, [name for name in (*PICTURES, *CLIPS) if name not in asked], "has no use for it")
    noise = options.noise[0] if options.noise and len(options.noise) == 1 else None
    found: dict[str, Given] = {}
    for name in CLIPS:
        if getattr(options, f"{name}_range") is not None and getattr(options, name) is None:
            raise RecipeError(f"Leave out {_flag(name)}-range: there is no {_flag(name)}.")
    for name in (name for name in (*PICTURES, *CLIPS) if getattr(options, name) is not None):
        file = getattr(options, name)
        if name in PICTURES:
            found[name] = build(Given, {"path": file, "noise": noise}, what="picture")
        else:
            start, stop = getattr(options, f"{name}_range") or (0, None)
            found[name] = given_clip(file, spec.fps, noise=noise, start=start, stop=stop)
    return found


def _length(
    options: argparse.Namespace, task: Task, spec: BackboneSpec, given: Mapping[str, Given]
) -> tuple[int | None, Options]:
    """The length of one run, and the choices of the task, of which the length of a restyled clip is one."""
    if task.name != "restyle" or "clip" not in given:
        return options.frames, _choices(options, task)
    lengths, wanted = spec.lengths(), options.frames
    if wanted is None:
        have = given["clip"].end - given["clip"].start
        if have < lengths[0]:
            raise RecipeError(
                f"The clip has {have} frames at {spec.fps:g} frames a second, fewer than a run of the model makes: "
                f"use a clip of at least {lengths[0]} frames."
            )
        return max((n for n in lengths if n <= min(have, spec.num_frames)), default=lengths[0]), _choices(options, task)
    run = next((n for n in lengths if n >= wanted), spec.num_frames)
    return run, _choices(options, task, frames=None if run == wanted else wanted)


def _task_noise(options: argparse.Namespace, task: Task, advised: TaskNoise) -> TaskNoise:
    """The noise of what the task places; one value for all goes with what is given."""
    from pusa_app.timeline import last_picture

    values: tuple[float, ...] = options.noise or ()
    if len(values) < 2:
        return advised
    if task.name == "start-end" or (task.name == "loop" and options.image is not None):
        if len(values) == 2:
            return advised.model_copy(update={"start": values[0], last_picture(task.name): values[1]})
        raise RecipeError("--noise takes one value for both pictures, or two: one for each.")
    if options.clip is None or task.name == "restyle" or options.style == "cross":
        raise RecipeError("--noise takes one value here: there are no slots of a clip that lead to new frames.")
    after = values if task.name == "extend" else values[::-1]
    return advised.model_copy(update={"before": values, "after": after})


def _with_keyframes(options: argparse.Namespace, card: ModelCard, task: Task) -> Recipe:
    """The recipe of --keyframe; pictures without a noise get the model's advice for their place."""
    from pusa_app.studio import new_recipe

    if options.noise and len(options.noise) > 1:
        raise RecipeError("With --keyframe, --noise takes one value: give the others as noise=N of a keyframe.")
    advised = card.spec.noise.of_pictures(task.name)
    slots = numbers(options, card, task.name).timeline.grid.num_slots

    def noise(keyframe: Mapping[str, Any]) -> dict[str, float]:
        if options.noise:
            return {"noise": options.noise[0]}
        return {"noise": advised.at(keyframe["slot"], slots)} if keyframe["source"]["kind"] == "image" else {}

    placed = new_recipe(
        card,
        task.name,
        keyframes=[noise(k) | k for k in options.keyframe],
        num_frames=options.frames,
        size=options.size,
    )
    return numbers(options, card, task.name, placed.timeline, _choices(options, task))


def _timeline_file(file: Path, card: ModelCard) -> Timeline:
    """A timeline from a JSON file; raises RecipeError when it is none, or one for another model."""
    from pusa_app.timeline import Timeline, build

    try:
        with file.open(encoding="utf-8-sig") as opened:
            data = json.loads(opened.read(MAX_TIMELINE_CHARS + 1))
    except OSError as error:
        raise RecipeError(f"The timeline {file} cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError):
        raise RecipeError(f"{file.name} is not a timeline: it is not valid JSON.") from None
    if not isinstance(data, dict):
        raise RecipeError(f"{file.name} is not a timeline: a timeline is a JSON object.")
    timeline = build(Timeline, data, what="timeline")
    grid, spec = timeline.grid, card.spec
    if (grid.temporal_stride, grid.fps) != (spec.temporal_stride, spec.fps):
        raise RecipeError(
            f"This timeline has {grid.temporal_stride} frames a slot at {grid.fps:g} frames a second and {card.id} has "
            f"{spec.temporal_stride} at {spec.fps:g}: it was made for another model."
        )
    return timeline
