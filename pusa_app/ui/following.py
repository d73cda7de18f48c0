"""Which timeline follows from a change in the form, what becomes of what the user did on the last, and what is said."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pusa_app.errors import UserError
from pusa_app.timeline import Timeline, get_task
from pusa_app.ui import strings
from pusa_app.ui.carried import carried, same
from pusa_app.ui.choices import Basis, Choices, Left, Memory


@dataclass(frozen=True)
class Followed:
    """choices: with numbers that were changed too; basis: what the next change is compared with; notice: one or more
    sentences on what the program changed."""

    choices: Choices
    basis: Basis
    timeline: Timeline
    notice: str


def follow(before: Basis, chosen: Choices) -> Followed:
    """What follows from `chosen`, where the timeline that it holds followed from `before`."""
    now = chosen.basis
    choices, memory, words = _counted(before, chosen)
    if now.sources != before.sources:
        timeline, notice, memory = _made_anew(before, choices, memory)
    elif now != before:
        timeline, notice, memory = _resized(before, choices, memory)
    else:
        choices, timeline, notice, memory = _edited(choices, memory)
    said = " ".join(filter(None, (words, notice)))
    return Followed(choices, replace(choices.basis, memory=memory), timeline, said)


def basis_of(choices: Choices) -> Basis:
    """What is followed from where a recipe fills the form: what its task makes otherwise is the user's."""
    return replace(choices.basis, memory=Memory(made=_of_task(choices)))


def _made_anew(before: Basis, choices: Choices, memory: Memory) -> tuple[Timeline, str, Memory]:
    """The task's timeline from what was given, with what the user had changed."""
    own, left, task = choices.timeline or choices.blank(), dict(memory.left), choices.task
    made = memory.made or own.having()
    touched, back = not same(made, own), left.pop(task, None)
    # What stands where the task had put nothing may be what it cannot do with, and nobody wants that back.
    if touched and task != before.task and (made.keyframes or before.task == "keyframes"):
        left[before.task] = Left(before.files, made, own)
    if task == "keyframes":
        return _gone_on(touched, back, choices, replace(memory, left=left))
    anew = _of_task(choices)
    if touched and task == before.task:
        back = Left(before.files, made, own)
    if back is None:
        timeline, whole = anew, True
    elif back.made.keyframes and not anew.keyframes:
        # Nothing can be made for now, perhaps because a number is half typed.
        timeline, whole, left[task] = anew, False, back
    else:
        timeline, whole = carried(back.made, back.own, anew, choices.fitted)
    if timeline == choices.timeline:
        notice = ""
    elif touched:
        notice = strings.REMADE_KEPT if whole and task == before.task else strings.REMADE
    else:
        notice = "" if back is None or not timeline.keyframes else strings.REMADE_KEPT if whole else strings.REMADE_PART
    return timeline, notice, replace(memory, made=anew, left=left)


def _gone_on(touched: bool, back: Left | None, choices: Choices, memory: Memory) -> tuple[Timeline, str, Memory]:
    """The task keyframes builds nothing: it goes on with what is there, or after a look at other tasks with its own."""
    if back is None or touched or back.files != choices.basis.files:
        timeline, notes = choices.current()
        # What another task made there is not the user's yet.
        return timeline, " ".join(notes), replace(memory, made=None if touched else timeline)
    there = [k for k in back.own.keyframes if k.source.kind != "part" and Path(k.source.path).is_file()]
    timeline, notes = choices.fitted(back.own.having(*there))
    return timeline, " ".join([strings.REMADE_KEPT, *notes]), replace(memory, made=None)


def _resized(before: Basis, choices: Choices, memory: Memory) -> tuple[Timeline, str, Memory]:
    """Another length, size or model: keyframes move along, and it is said which."""
    timeline, notes = choices.current()
    if timeline == choices.timeline:
        return timeline, "", memory
    if choices.made_by_task:
        return _made_anew(before, choices, memory)
    return timeline, " ".join(notes), _fitted(memory, choices)


def _edited(choices: Choices, memory: Memory) -> tuple[Choices, Timeline, str, Memory]:
    """The timeline is the user's, and the length too if he undid one. A model or a size is not undone there."""
    own, blank = choices.timeline or choices.blank(), choices.blank()
    other_clock = (own.grid.temporal_stride, own.grid.fps) != (blank.grid.temporal_stride, blank.grid.fps)
    if not other_clock and own.grid.num_frames != choices.frames:
        choices = replace(choices, frames=choices.card.spec.nearest_length(own.grid.num_frames))
        memory = _fitted(memory, choices)
    timeline, notes = choices.fitted(own)
    if timeline == own:
        return choices, timeline, "", memory
    if other_clock:
        notes.insert(0, strings.OF_OTHER_MODEL.format(model=choices.card.title))
    elif (own.width, own.height) != (timeline.width, timeline.height):
        notes.insert(0, strings.OF_OTHER_SIZE.format(width=timeline.width, height=timeline.height))
    return choices, timeline, " ".join(notes), memory


def _of_task(choices: Choices) -> Timeline:
    """What the task makes; what is wrong with what was given is told at its control."""
    try:
        return choices.built()
    except UserError:
        return choices.blank()


def _fitted(memory: Memory, choices: Choices) -> Memory:
    return memory if memory.made is None else replace(memory, made=choices.fitted(memory.made)[0])


# --- numbers of frames -----------------------------------------------------------------------------------------------


def _counted(before: Basis, choices: Choices) -> tuple[Choices, Memory, str]:
    """The choices with their gap and their number of frames as the task and the model count them, and what is said of
    that. Each task has its own number; at another frame rate they take as long as before."""
    options = get_task(choices.task).options
    memory = replace(before.memory, more=_numbers(before, choices))
    if choices.task != before.task and "frames" in options and memory.more:
        choices = replace(choices, more=memory.more.get(choices.task))
    rate = choices.card.spec.fps / before.fps
    if rate == 1:
        return choices, memory, ""
    memory = replace(memory, more={task: _longer(more, rate) for task, more in memory.more.items()})
    there = replace(choices, more=_longer(choices.more, rate), **_moved_gap(choices, rate))
    words = []
    if "frames" in options and there.more is not None and there.more != choices.more:
        words.append(strings.MORE_NOW.format(what=strings.MORE[choices.task], count=int(there.more)))
    if "gap" in options and there.gap_first is not None and there.gap_last is not None:
        words.append(strings.GAP_NOW.format(first=int(there.gap_first), last=int(there.gap_last)))
    return there, memory, " ".join(words)


def _numbers(before: Basis, choices: Choices) -> Mapping[str, float | None]:
    """The numbers of frames by task, with that of the task that was left."""
    if choices.task == before.task or "frames" not in get_task(before.task).options:
        return before.memory.more
    return {**before.memory.more, before.task: choices.more}


def _longer(more: float | None, rate: float) -> float | None:
    return more if more is None or more < 1 else max(1, round(more * rate))


def _moved_gap(choices: Choices, rate: float) -> dict[str, Any]:
    """The fields of the gap at another rate: all of the frames that were in it, to the end of the clip at most."""
    first, last = choices.gap_first, choices.gap_last
    moved: dict[str, Any] = {}
    if first is not None:
        moved["gap_first"] = math.floor(first * rate + 1e-6)
    if last is not None:
        moved["gap_last"] = math.ceil((last + 1) * rate - 1e-6) - 1
        with contextlib.suppress(UserError, KeyError):
            end = choices.uploads({"clip": "clip"})["clip"].end
            moved["gap_last"] = max(min(moved["gap_last"], end - 1), moved.get("gap_first", 0))
    return moved
