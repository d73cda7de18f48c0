"""What the user changed on the timeline that his task had made, brought to the one that the task makes next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pusa_app.timeline import Keyframe, Timeline

Fit = Callable[[Timeline], tuple[Timeline, list[str]]]
# What makes a keyframe of one timeline that of another, of those with the same file: the first that any two share.
ALIKE: tuple[Callable[[Keyframe], Any], ...] = (
    lambda keyframe: (keyframe.slot, keyframe.span),
    lambda keyframe: keyframe.slot == 0,
    lambda keyframe: None,
)


def same(one: Timeline, other: Timeline) -> bool:
    """Whether two timelines hold the same keyframes. A file in the cache is known by its folder and its name."""
    return sorted(map(_plain, one.keyframes)) == sorted(map(_plain, other.keyframes))


def carried(made: Timeline, own: Timeline, new: Timeline, fit: Fit) -> tuple[Timeline, bool]:
    """`new` with what the user changed, and whether that is all of it.

    made: what the task had made; own: what the user made of that; new: what the task makes now; fit: brings a timeline
    to the grid and the size of `new`. What the task makes as before is as the user left it; what it makes otherwise has
    the user's fit, focus and noise; what the user added is there where slots are free.
    """
    if same(made, own):
        return new, True
    owned, before = _partners(made.keyframes, own.keyframes), _partners(new.keyframes, made.keyframes)
    # What the task puts nowhere any longer cannot be as the user left it, and what he took out is there again.
    again = set(before.values())
    lost = any(index not in owned and index in again for index in range(len(made.keyframes)))
    lost |= any(not _same(made.keyframes[i], own.keyframes[o]) and i not in again for i, o in owned.items())
    placed, as_before = list(new.keyframes), _clock(made) == _clock(new)
    for at, index in before.items():
        if index not in owned:
            continue
        theirs, mine = made.keyframes[index], own.keyframes[owned[index]]
        if as_before and _same(placed[at], theirs) and _has_room(mine, new, placed[:at] + placed[at + 1 :]):
            placed[at] = mine
        else:
            placed[at], whole = _with_changes(theirs, mine, placed[at])
            lost |= not whole
    added = [k for index, k in enumerate(own.keyframes) if index not in owned.values()]
    for keyframe in fit(own.having(*added))[0].keyframes:
        if _has_room(keyframe, new, placed):
            placed.append(keyframe)
    lost |= len(placed) < len(new.keyframes) + len(added)
    return new.having(*sorted(placed, key=lambda keyframe: keyframe.slot)), not lost


def _with_changes(made: Keyframe, own: Keyframe, new: Keyframe) -> tuple[Keyframe, bool]:
    """`new` with the fit, focus and noise of `own` that `made` had otherwise, and whether nothing else differs."""
    changes: dict[str, Any] = {
        name: getattr(own, name) for name in ("fit", "focus") if getattr(own, name) != getattr(made, name)
    }
    whole = _place(own) == _place(made)
    if own.noises != _over(made, own.span):
        if len(set(own.noises)) == 1:
            changes["noise"] = own.noises[0]
        elif (own.slot == 0) == (new.slot == 0):
            changes["noise"] = _over(own, new.span)
        else:  # at the other end of the video a ramp would go the wrong way
            whole = False
    return new.model_copy(update=changes), whole


def _partners(these: Sequence[Keyframe], those: Sequence[Keyframe]) -> dict[int, int]:
    """For each of these keyframes that is among those, by their indexes, which of them it is."""
    found: dict[int, int] = {}
    for trait in ALIKE:
        for one, keyframe in enumerate(these):
            if one in found:
                continue
            wanted = _file(keyframe), trait(keyframe)
            free = (n for n, k in enumerate(those) if n not in found.values() and (_file(k), trait(k)) == wanted)
            if (other := next(free, None)) is not None:
                found[one] = other
    return found


def _over(keyframe: Keyframe, span: int) -> tuple[float, ...]:
    """The noises of a keyframe over another span. What a video starts with is joined at its end, all else at its
    beginning: the slots there keep theirs."""
    known, more = keyframe.noises, max(0, span - keyframe.span)
    return ((known[0],) * more + known)[-span:] if keyframe.slot == 0 else (known + (known[-1],) * more)[:span]


def _has_room(keyframe: Keyframe, timeline: Timeline, others: Iterable[Keyframe]) -> bool:
    taken = {slot for other in others for slot in other.slots}
    return keyframe.slots.stop <= timeline.grid.num_slots and taken.isdisjoint(keyframe.slots)


def _clock(timeline: Timeline) -> tuple[int, float]:
    return timeline.grid.temporal_stride, timeline.grid.fps


def _same(one: Keyframe, other: Keyframe) -> bool:
    return _plain(one) == _plain(other)


def _plain(keyframe: Keyframe) -> tuple[Any, ...]:
    """All that counts of a keyframe."""
    return *_place(keyframe), keyframe.noises, keyframe.fit, keyframe.focus


def _place(keyframe: Keyframe) -> tuple[Any, ...]:
    """Its slots, and which frames of which file are in them."""
    frames = keyframe.source.model_dump(exclude={"path", "kind"})
    return keyframe.slot, keyframe.span, _file(keyframe), repr(frames)


def _file(keyframe: Keyframe) -> tuple[str, ...]:
    source = keyframe.source
    return (source.kind,) if source.kind == "part" else (source.kind, *Path(source.path).parts[-2:])
