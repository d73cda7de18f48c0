"""What the form held survives a reload: the browser keeps it for its tab, and brings it when the page is loaded again.

What comes may be anything: of each field that what can be is taken, within the bounds that the field has, and the
field's default for all else. Files are those that were uploaded and are still there.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import gradio as gr
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, field_validator
from pydantic_core import PydanticUseDefault

from pusa_app.errors import UserError
from pusa_app.models import ModelCard
from pusa_app.models.known_loras import checked_lora, known_loras
from pusa_app.settings import Settings
from pusa_app.studio import card_of, cards, default_card
from pusa_app.timeline import MAX_FRAMES, MAX_STEPS, TASKS, LoraChoice, Timeline, get_task
from pusa_app.ui import strings
from pusa_app.ui.choices import MAX_SEED, NAMES, Choices
from pusa_app.ui.drawn import DrawnWithEvents
from pusa_app.ui.exact import size_of
from pusa_app.ui.form import MAX_PROMPT, MAX_SEEDS, UPLOADS, Form
from pusa_app.ui.loras import chosen_of
from pusa_app.ui.player import is_uploaded, publish
from pusa_app.ui.sweeps import AT_FIRST, MAX_TEXT, NO_AXIS, AxisChoice
from pusa_app.ui.timeline_editor.thumbs import look_at
from pusa_app.ui.timeline_editor.value import MAX_KEYFRAMES, EditorKeyframe, EditorValue, to_timeline
from pusa_app.ui.uploads import file_problem
from pusa_app.ui.visitors import is_local

SCRIPT = Path(__file__).with_name("draft.js")
MAX_CHARS = 4_000_000  # of a draft; browsers keep some five million for all of a page
MAX_NAMED = 5  # of the files that are gone
MAX_FRAME = 10_000_000
MAX_STOPPED = 1000
# Fields that mean something for one model only.
OF_MODEL = ("frames", "steps", "guidance", "size", "loras", "cache", "guided_high", "guided_low", "guidance_2")
OF_MODEL += ("schedule", "schedule_value")
SWEEP = tuple(f"sweep_{field}_{number}" for number in (1, 2) for field in ("kind", "keyframe", "values"))
BESIDE = ("random", "count", "embed", *SWEEP)  # fields of the form that are no choices
# The script hears what the form holds; the program does not.
HOLD = "(...held) => { document.dispatchEvent(new CustomEvent('pusa-form', { detail: held })); return []; }"
ANSWERED = "() => {{ document.dispatchEvent(new CustomEvent('pusa-restored', {{ detail: {well} }})); return []; }}"
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

Text = Annotated[str, Field(max_length=MAX_PROMPT)]
Unit = Annotated[float, Field(ge=0, le=1)]
Frame = Annotated[int, Field(ge=0, le=MAX_FRAME)]
AxisKeyframe = Annotated[int, Field(ge=1, le=MAX_KEYFRAMES)]
AxisValues = Annotated[str, Field(max_length=MAX_TEXT)]


class Upload(BaseModel):
    """As much as counts of Gradio's FileData."""

    path: str = Field(min_length=1, max_length=4096)


class Draft(BaseModel):
    """Fields as in Choices, and those beside them; None: the default of the model or of the task."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    task: Literal[tuple(TASKS)] = next(iter(TASKS))  # type: ignore[valid-type]
    prompt: Text = ""
    image: Upload | None = None
    end: Upload | None = None
    clip: Upload | None = None
    clip_b: Upload | None = None
    style: Literal["bridge", "cross"] = "bridge"
    direction: Literal["forwards", "backwards", "both"] = "forwards"
    more: Annotated[int, Field(ge=1, le=MAX_FRAMES)] | None = None
    gap_first: Frame | None = None
    gap_last: Frame | None = None
    closing: Unit = 0.0
    result: Literal["joined", "made"] = "joined"
    timeline: EditorValue | None = None
    frames: Annotated[int, Field(ge=1, le=MAX_FRAMES)] | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = 0
    negative: Text = ""
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    guidance: Annotated[float, Field(ge=1, le=15)] | None = None
    color_match: bool | None = None
    model: Annotated[str, Field(max_length=4096)] = ""
    loras: dict[str, Any] | None = None
    cache: Unit = 0.0
    guided_high: Unit | None = 1.0
    guided_low: Unit | None = 0.0
    guidance_2: Annotated[float, Field(ge=0, le=15)] | None = None
    schedule: Literal["", "shift", "linear-quadratic"] = ""
    schedule_value: Annotated[float, Field(ge=0, le=100)] | None = None
    size: Annotated[str, Field(max_length=40)] | None = None
    random: bool = True
    count: Annotated[int, Field(ge=1, le=MAX_SEEDS)] = 1
    embed: bool = True
    sweep_kind_1: Literal[tuple(strings.SWEEP_KINDS)] = AT_FIRST.kind  # type: ignore[valid-type]
    sweep_keyframe_1: AxisKeyframe | None = 1
    sweep_values_1: AxisValues = AT_FIRST.values or ""
    sweep_kind_2: Literal[("", *strings.SWEEP_KINDS)] = NO_AXIS.kind  # type: ignore[valid-type]
    sweep_keyframe_2: AxisKeyframe | None = 1
    sweep_values_2: AxisValues = NO_AXIS.values or ""

    @property
    def sweep(self) -> list[AxisChoice]:
        """What the fields of a sweep held."""
        return [AxisChoice(*(getattr(self, name) for name in SWEEP[at : at + 3])) for at in (0, 3)]

    @field_validator("*", mode="wrap")
    @classmethod
    def _or_default(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        """One field that cannot be does not take the others with it."""
        try:
            return handler(value)
        except ValidationError:
            raise PydanticUseDefault from None


def draft_in(text: Any) -> Draft | None:
    """What a browser brought; None where that is no draft at all."""
    if not isinstance(text, str) or len(text) > MAX_CHARS:
        return None
    try:
        return Draft.model_validate_json(text)
    except (ValidationError, ValueError):
        return None


def choices_in(draft: Draft, max_steps: int, may: bool) -> tuple[Choices, str]:
    """What the form is to hold, and what is to be told of it. may: whether LoRAs may be files of this machine."""
    here = draft.model in {card.id for card in cards()}
    if not here:
        usual = {name: Draft.model_fields[name].get_default() for name in OF_MODEL}
        draft = draft.model_copy(update={**usual, "model": default_card().id})
    card = card_of(draft.model)
    spec, gone = card.spec, dict[str, str]()
    task = draft.task if draft.task in card.tasks else card.tasks[0]
    files = {name: _upload(getattr(draft, name), kind, gone) for name, kind in UPLOADS.items()}
    plain = {name: getattr(draft, name) for name in NAMES if name not in {*files, "timeline"}}
    pixels = size_of(draft.size, spec) or (spec.width, spec.height)
    color = get_task(task).color_match if draft.color_match is None else draft.color_match
    own: dict[str, Any] = {
        "task": task,
        "frames": spec.nearest_length(draft.frames or spec.num_frames),
        "steps": min(draft.steps or spec.steps, max_steps),
        "guidance": spec.guidance_for(task) if draft.guidance is None else draft.guidance,
        "color_match": color,
        "loras": _loras(draft.loras, card, may),
        "size": f"{pixels[0]}x{pixels[1]}",
    }
    choices = Choices(timeline=_timeline(draft.timeline, gone), **files, **plain | own)
    # The page may have been left before what was chosen last had changed the timeline.
    timeline, notes = choices.current()
    return replace(choices, timeline=timeline), " ".join([*_told(list(gone.values())), *notes])


class Drafts:
    """Builds a part of the page that nobody sees; what it does is in `wire`."""

    def __init__(self, form: Form, settings: Settings) -> None:
        self._form, self._settings = form, settings
        self._stopped: deque[str | None] = deque(maxlen=MAX_STOPPED)  # pages
        self._beside = [form.random, form.count, form.embed, *form.sweep.inputs]
        words = {"names": [*NAMES, *BESIDE], "files": list(UPLOADS)}
        self.part = Kept({}, script=SCRIPT, elem_id="draft", words=words)

    def wire(self) -> None:
        form, part = self._form, self.part
        # What is a state of the program is not in the browser: the tabs know the task too.
        held = [form.tabs if one is form.task else one for one in (*form.inputs, *self._beside)]
        changes = [one.change for one in held]
        drawn = [form.timeline.input, form.loras.input, form.tabs.select]
        gr.on([part.hold, *changes, *drawn], None, held, None, js=HOLD, **QUIET)
        # A page that was loaded again waits for nothing but this.
        back = part.restore(self._restore, None, self.outputs, concurrency_limit=None, **QUIET)
        back.success(None, None, None, js=ANSWERED.format(well="true"), **QUIET)
        back.failure(None, None, None, js=ANSWERED.format(well="false"), **QUIET)
        # Not in the queue, where what is to be stopped may wait too.
        part.stop(self._stop, None, None, queue=False, **QUIET)

    @property
    def outputs(self) -> list[Any]:
        # Each once: of two answers for one field it would not be sure which is the last.
        return [*dict.fromkeys(self._form.everything), *self._beside[1:]]

    def _restore(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        draft, nothing = draft_in(event.form), [gr.skip() for _ in self.outputs]
        if draft is None:
            return nothing
        updates = self.restored(draft, may=not self._settings.shared and is_local(request))
        return nothing if request.session_hash in self._stopped else updates

    def _stop(self, request: gr.Request) -> None:
        """Something else fills the form meanwhile."""
        self._stopped.append(request.session_hash)

    def restored(self, draft: Draft, may: bool) -> list[Any]:
        """Updates for `outputs`."""
        form = self._form
        choices, told = choices_in(draft, self._settings.max_steps, may)
        shape = form.shape_of(choices.task, choices.card)
        updates: dict[Any, Any] = {}
        for part, news in zip(form.everything, [*shape, *form.hold(choices, told, draft.random)], strict=True):
            updates[part] = _as_update(updates[part]) | _as_update(news) if part in updates else news
        # The script has put it back already: the visitor may be writing.
        updates[form.prompt] = gr.skip()
        return [*updates.values(), draft.count, draft.embed, *form.sweep.hold(draft.sweep)]


class Kept(DrawnWithEvents):
    """Events: hold (what the form holds is wanted), restore ({form: a draft as JSON}), stop (nothing is to be put
    back any more)."""

    EVENTS = [*gr.HTML.EVENTS, "hold", "restore", "stop"]  # noqa: RUF012


def _as_update(news: Any) -> dict[str, Any]:
    return news if isinstance(news, dict) and news.get("__type__") == "update" else gr.update(value=news)


def _upload(file: Upload | None, kind: str, gone: dict[str, str]) -> str | None:
    """A file that a field may hold; else None, and its name is among those that are gone."""
    if file is None:
        return None
    if not _is_here(file.path) or file_problem(file.path, kind) is not None:
        gone[file.path] = _name(file.path)
        return None
    return publish(Path(file.path))


def _timeline(value: EditorValue | None, gone: dict[str, str]) -> Timeline | None:
    """The timeline with the keyframes whose files are there."""
    if value is None:
        return None
    kept = []
    for keyframe in value.keyframes:
        if _is_sound(keyframe, value.grid.fps):
            kept.append(keyframe)
        else:
            gone[keyframe.file.path] = keyframe.name or _name(keyframe.file.path)
    try:
        return to_timeline(value.model_copy(update={"keyframes": kept}))
    except (gr.Error, UserError):
        return None


def _is_sound(keyframe: EditorKeyframe, fps: float) -> bool:
    if not _is_here(keyframe.file.path):
        return False
    try:
        look_at(keyframe.file.path, fps, keyframe.kind)
    except UserError:
        return False
    return True


def _is_here(path: str) -> bool:
    """Whether it is an upload that is still there; nothing is asked of other paths."""
    return "\0" not in path and len(path) <= 4096 and is_uploaded(path) and os.path.isfile(path)


def _loras(value: dict[str, Any] | None, card: ModelCard, may: bool) -> tuple[LoraChoice, ...]:
    """Those that may be chosen for the model."""
    try:
        chosen = chosen_of(value) if value and value.get("model") == card.id else ()
    except UserError:
        return ()
    known = {one.name for one in known_loras(card)} if chosen else set()
    return tuple(one for one in chosen if one.path in known or (may and _is_lora(one.path)))


def _is_lora(place: str) -> bool:
    try:
        return checked_lora(place) == place
    except UserError:
        return False


def _told(names: list[str]) -> list[str]:
    """A sentence on the files that are gone, if there are."""
    if not names:
        return []
    some = [name if len(name) <= 60 else f"{name[:40]}…{name[-12:]}" for name in dict.fromkeys(names)]
    rest = f" (+{len(some) - MAX_NAMED})" if len(some) > MAX_NAMED else ""
    words = strings.DRAFT_GONE_ONE if len(some) == 1 else strings.DRAFT_GONE
    return [words.format(names=", ".join(some[:MAX_NAMED]) + rest)]


def _name(path: str) -> str:
    return os.path.basename(path.replace("\0", "")) or path[:20]


__all__ = ["Draft", "Drafts", "choices_in", "draft_in"]
