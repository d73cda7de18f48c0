"""What each model of the catalogue would do on this machine, and what getting it takes, in sentences. No torch.

The sentences are made of the memory plan (plan.py) for the model's own size and length; where that length does not fit,
of the longest clip that does.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pusa_app.errors import ModelError
from pusa_app.models.catalogue import runs
from pusa_app.models.entry import Entry
from pusa_app.models.entry import entries as catalogue
from pusa_app.models.fitting import Memory, plan_for, work_for
from pusa_app.models.machine import GIB, Machine, imagined
from pusa_app.models.plan_cost import rough_seconds
from pusa_app.models.plan_types import MemoryPlan, Work
from pusa_app.models.room import shortage
from pusa_app.models.weights import State, size_words

DAY = 86_400
NOT_YET = "This version of the program cannot run it yet."
USUAL_GPUS = (6, 8, 12, 16, 24)


Lack = Literal["", "version", "memory", "gpu", "disk"]


@dataclass(frozen=True)
class Offer:
    """A model or LoRA that could be had, as a person is told of it.

    fits: it would run here, and there is room to get it. size: bytes to get, None where only the hub knows.
    clip: what it makes here and in what time; runs: the same in a sentence. how: what it takes and why it is run so.
    short: a first try, or "". faster: what a LoRA makes of the time, or "".
    question: whether to get it. reason: why it cannot be had, or "", and `lacks` of what there is too little. seconds:
    of the clip, None where it cannot be told.
    """

    id: str
    title: str
    fits: bool
    clip: str = ""
    runs: str = ""
    how: str = ""
    short: str = ""
    faster: str = ""
    question: str = ""
    reason: str = ""
    lacks: Lack = ""
    size: int | None = None
    num_frames: int = 0
    seconds: float | None = None
    plan: MemoryPlan | None = None


def offers(states: Sequence[State], machine: Machine, memory: Memory | None = None) -> list[Offer]:
    """An offer for every model and LoRA that could be downloaded, in the catalogue's order; not of a LoRA of which
    nobody knows how many steps it wants."""
    entries = [state for state in states if state.entry is not None and state.entry.parts and not state.entry.hub]
    found = [offer(state, machine, memory) for state in entries]
    loras = [(state.entry, one) for state, one in zip(entries, found, strict=True) if one.fits and one.plan is None]
    return [replace(one, faster=_faster(one, loras)) if one.fits and one.plan is not None else one for one in found]


def _faster(one: Offer, loras: Sequence[tuple[Entry | None, Offer]]) -> str:
    """What the first distilled LoRA for a model makes of its time."""
    for entry, lora in loras:
        if entry is not None and one.id in entry.base and lora.seconds and one.seconds:
            return f"With {lora.title}, in {entry.steps} steps, it takes {duration_words(lora.seconds)}."
    return ""


def offer(state: State, machine: Machine, memory: Memory | None = None) -> Offer:
    """What one model of the catalogue would do here. Of what is here already nothing has to be got."""
    entry = state.entry
    assert entry is not None
    if entry.kind == "lora":
        return _lora_offer(state, entry, machine, memory)
    if not runs(entry.spec.family if entry.spec else ""):
        return Offer(entry.id, entry.title, False, reason=NOT_YET, lacks="version")
    work, plan = _longest(entry.id, machine, memory)
    base = Offer(
        entry.id,
        entry.title,
        plan.fits and machine.gpu_kind != "cpu",
        clip=_clip_words(work, plan),
        runs=f"{entry.title} will run at {_clip_words(work, plan)}",
        how=_how(work, plan),
        size=_left(state),
        num_frames=work.num_frames,
        seconds=plan.seconds,
        plan=plan,
    )
    if not plan.fits:
        return _without(base, "memory", f"Even {work.num_frames} frames {_needs(plan)}.")
    if machine.gpu_kind == "cpu":
        days = duration_words(rough_seconds(work, plan))
        return _without(base, "gpu", f"Without a GPU one clip of {work.num_frames} frames would take {days}.")
    return _to_get(base, state, entry, work, _first_try(entry, work, machine, memory))


def recommended(found: Sequence[Offer]) -> Offer | None:
    """The one to begin with: the first model of the catalogue that fits."""
    return next((one for one in found if one.fits and one.plan is not None), None)


def machine_words(machine: Machine) -> str:
    """ "NVIDIA GeForce RTX 3060 with 12 GB, 32 GB of memory"."""
    words = [_gpu_words(machine)]
    if machine.ram_bytes:
        words.append(f"{machine.ram_bytes / GIB:.0f} GB of memory")
    return ", ".join(words)


def _gpu_words(machine: Machine) -> str:
    if machine.gpu_kind == "cpu":
        return "no GPU that this program can use"
    size, name = f"{machine.gpu_bytes / GIB:.0f} GB", machine.gpu_name or "a GPU"
    return name if not machine.gpu_bytes or size in name else f"{name} with {size}"


def verdict(machine: Machine, found: Sequence[Offer]) -> str:
    """What this machine can do when no model fits it, and what it lacks; "" when one does."""
    if recommended(found) is not None:
        return ""
    for one in found:
        if one.lacks == "disk":
            return f"{one.runs}, but there is too little disk. {one.reason}"
    no_gpu = machine.gpu_kind == "cpu"
    without = "no GPU that this program can use" if no_gpu else "too little memory for the models below"
    words = f"This machine has {without}. The built-in model mini runs here and makes small clips of shapes in seconds."
    return " ".join(filter(None, (words, _would_do(machine))))


def _would_do(machine: Machine) -> str:
    """The smallest GPU that would do for the first model of the catalogue, with the memory that there is."""
    models = [entry for entry in catalogue().values() if entry.parts and entry.spec and runs(entry.spec.family)]
    for gigabytes in USUAL_GPUS:
        if gigabytes * GIB <= machine.gpu_bytes:
            continue
        free = {"free_ram_bytes": machine.free_ram_bytes, "disk_bytes": machine.disk_bytes}
        other = imagined(gigabytes, machine.ram_bytes / GIB).model_copy(update=free)
        fitting = next((entry for entry in models if _planned(entry.id, other, None)[1].fits), None)
        if fitting is not None:
            return f"With a GPU of NVIDIA that has {gigabytes} GB, {fitting.title} would run."
    return "It has too little memory for more, with whatever GPU."


def duration_words(seconds: float) -> str:
    """About how long, as one says it: "about 40 seconds", "about 64 minutes", "about 5 hours", "about 6 days"."""
    if seconds < 55:
        return f"about {max(5, 5 * round(seconds / 5))} seconds"
    if seconds < 100 * 60:
        return f"about {_count(seconds / 60, 'minute')}"
    return f"about {_count(seconds / 3600, 'hour')}" if seconds < 2 * DAY else f"about {_count(seconds / DAY, 'day')}"


def _count(number: float, what: str) -> str:
    whole = max(1, round(number))
    return f"{whole} {what}{'s' if whole > 1 else ''}"


# --- one model --------------------------------------------------------------------------------------------------------


def _planned(
    model_id: str, machine: Machine, memory: Memory | None, num_frames: int | None = None
) -> tuple[Work, MemoryPlan]:
    work = work_for(model_id, machine, num_frames=num_frames, memory=memory)
    return work, plan_for(model_id, work, memory)


def _longest(model_id: str, machine: Machine, memory: Memory | None) -> tuple[Work, MemoryPlan]:
    """The plan for the model's own length, or for the longest that fits; for the shortest where none does."""
    usual = _planned(model_id, machine, memory)
    if usual[1].fits:
        return usual
    shorter = [count for count in usual[0].spec.lengths() if count < usual[0].num_frames]
    if not shorter or not (least := _planned(model_id, machine, memory, shorter[0]))[1].fits:
        return least if shorter else usual
    # Longer clips need more: the first that does not fit ends the search.
    fitting = bisect_left(shorter, True, key=lambda count: not _planned(model_id, machine, memory, count)[1].fits)
    return _planned(model_id, machine, memory, shorter[fitting - 1])


def _clip_words(work: Work, plan: MemoryPlan) -> str:
    width, height = work.size
    most = " at most," if work.num_frames < work.spec.num_frames else ""
    took = f" in {duration_words(plan.seconds)}" if plan.seconds is not None else ""
    return f"{width}x{height}, {work.num_frames} frames{most if took else most.rstrip(',')}{took}"


def _how(work: Work, plan: MemoryPlan) -> str:
    """What it takes and why it is run so, by the plan; what that does to the result; how sure it is."""
    result = "changes nothing in the result" if plan.exact else "gives nearly the published result"
    if plan.seconds is None:
        known = "How long a clip takes on this GPU is known after the first one."
    else:
        known = "The time is from what ran here." if work.pace != 1.0 else "Predicted, not measured here yet."
    return f"{plan.reason} It computes in {plan.dtype} and {result}. {known}"


def _first_try(entry: Entry, work: Work, machine: Machine, memory: Memory | None) -> str:
    """How soon a second of video is there, where the usual clip is much longer."""
    spec = work.spec
    count = spec.nearest_length(round(spec.fps) + 1)
    if 2 * count > work.num_frames:
        return ""
    plan = _planned(entry.id, machine, memory, count)[1]
    if not plan.fits or plan.seconds is None:
        return ""
    return f"A first try of {count} frames, about a second of video, takes {duration_words(plan.seconds)}."


def _needs(plan: MemoryPlan) -> str:
    """ "would take 4.6 GB of GPU memory where 3.4 GB can be used", of a plan that does not fit."""
    return plan.reason.removeprefix("It ").partition(":")[0]


def _to_get(base: Offer, state: State, entry: Entry, work: Work, short: str) -> Offer:
    """The offer with what getting it takes, or the reason why there is no room for it."""
    if state.state == "here":
        return replace(base, short=short, size=0)
    least = base.size if base.size is not None else _least(work)
    # What is converted is there twice until it is done.
    made = sum(part.size or 0 for part in entry.parts if part.use == "convert" or part.pickle)
    lack = shortage(work.machine.disks, least, made) if least else None
    if lack is not None:
        need, free, more = lack.words(size_words)
        where = " where downloads go" if work.machine.disks.two else ""
        where = " where models are put together" if lack.own else where
        return _without(
            base, "disk", f"Setting it up takes {need} of disk{where}, and {free} are free: make {more} of room first."
        )
    return replace(base, short=short, question=f"{base.runs}; {_download_words(state, base.size, least)}?")


def _download_words(state: State, size: int | None, least: int) -> str:
    if state.state == "partial" and state.complete:
        return "set it up, all files are here"
    if size is None:
        return "download the rest" if state.have else f"download {size_words(least)} or more"
    rest = "the rest, " if state.have else ""
    return f"download {rest}{'about ' if state.about else ''}{size_words(size)}"


def _least(work: Work) -> int:
    """Bytes that a model's files have at least where nobody wrote down their sizes: its weights in bf16."""
    model = work.architecture
    return round(model.experts * model.weights() + model.encoder.bytes() + model.vae.bytes)


def _left(state: State) -> int | None:
    return None if state.size is None else max(0, state.size - state.have)


def _lora_offer(state: State, entry: Entry, machine: Machine, memory: Memory | None) -> Offer:
    """A LoRA: what the first model that it is for does with its steps and its guidance."""
    plain = Offer(entry.id, entry.title, False, size=_left(state))
    for base in entry.base:
        try:
            work = work_for(base, machine, steps=entry.steps, guidance=entry.guidance, memory=memory)
        except ModelError:
            continue
        plan = plan_for(base, work, memory)
        if not plan.fits or machine.gpu_kind == "cpu":
            return _without(plain, "memory", "The model that it is for does not fit this machine.")
        steps = f", in {work.steps} steps" if entry.steps else ""
        title = catalogue()[base].title if base in catalogue() else base
        runs = f"With it {title} will run at {_clip_words(work, plan)}{steps}."
        return replace(plain, fits=True, runs=runs, seconds=plan.seconds)
    return plain


def _without(offer: Offer, lacks: Lack, reason: str) -> Offer:
    return replace(offer, fits=False, reason=reason, lacks=lacks)
