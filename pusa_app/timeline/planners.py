"""From a finished timeline to what is run and how the result is put together: one small function per task.

A planner reads the timeline as the user left it, so it also says what the task lacks there (RecipeError).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

from pusa_app.errors import RecipeError
from pusa_app.timeline.options import Options
from pusa_app.timeline.plan import MAX_PARTS, Kept, Made, Piece, Plan
from pusa_app.timeline.timeline import Keyframe, PartSource, Timeline

Planner = Callable[[Timeline, Options], Plan]
# Slots of a finished part that the next part of a long restyle, and a loop from text on either side of its seam, take.
OVERLAP = 2


def text_to_video(timeline: Timeline, options: Options) -> Plan:
    if timeline.keyframes:
        raise RecipeError(
            "Text to video starts from words alone: take the keyframes out, or choose the task keyframes."
        )
    return Plan.single(timeline)


def image_to_video(timeline: Timeline, options: Options) -> Plan:
    if not any(k.slot == 0 and k.source.kind == "image" for k in timeline.keyframes):
        raise RecipeError("Image to video needs a picture in slot 0: add one.")
    return Plan.single(timeline)


def start_end(timeline: Timeline, options: Options) -> Plan:
    pictures = {k.slot for k in timeline.keyframes if k.source.kind == "image"}
    last = timeline.grid.num_slots - 1
    if not {0, last} <= pictures:
        raise RecipeError(f"Start-end needs a picture in slot 0 and one in slot {last}: add both.")
    return Plan.single(timeline)


def keyframes(timeline: Timeline, options: Options) -> Plan:
    if not timeline.keyframes:
        raise RecipeError("The timeline has no keyframe yet: put a picture or a clip into a slot.")
    return Plan.single(timeline)


def transition(timeline: Timeline, options: Options) -> Plan:
    before, after = _clip_at_start(timeline), _clip_at_end(timeline)
    if before is None or after is None or before is after:
        raise RecipeError("A transition needs a clip at the start of the timeline and one at its end: add both.")
    if options.style == "cross":
        # All of the length is made; what the clips have before and after their crossing is kept.
        stop = _start(after) + after.num_frames(timeline.grid.temporal_stride)
        made = Made(part=0, start=0, stop=timeline.grid.num_frames)
        kept = _kept(before, _begin(before), _start(before)), _kept(after, stop, _end(after))
    else:
        made, kept = _between(timeline, before, after), (_kept_until(before, timeline), _kept_from(after))
    return Plan(parts=(timeline,), pieces=_chosen((*kept[0], made, *kept[1]), options))


def loop(timeline: Timeline, options: Options) -> Plan:
    """The last frame before the seam is followed by the first: no frame stands there twice.

    A clip goes on through the bridge to its own start. A picture at both ends gives one frame less than the timeline
    has, since the last would be the first again. Words alone take two parts: a scene, and a loop around its middle.
    """
    before, after = _clip_at_start(timeline), _clip_at_end(timeline)
    if before is not None and after is not None and before is not after:
        if _path(before) != _path(after):
            raise RecipeError("A loop goes back to its own clip: put the same clip at both ends, or use a transition.")
        _check_framing((before, after), "clip")
        first, stop = _start(after), _start(before) + before.num_frames(timeline.grid.temporal_stride)
        if first >= stop:
            raise RecipeError("The loop's first frame lies behind its last: choose the start of the clip earlier.")
        kept = _kept(before, first, stop)
        return Plan(parts=(timeline,), pieces=_chosen((*kept, _between(timeline, before, after)), options))
    last = timeline.grid.num_slots - 1
    frames = timeline.grid.num_frames
    if last < 2:
        raise RecipeError("A loop needs at least three slots: choose a longer length.")
    ends = {k.slot: k for k in timeline.keyframes if k.slot in (0, last) and k.still}
    if len(ends) == 2:
        if _path(ends[0]) != _path(ends[last]):
            raise RecipeError("A loop ends where it starts: put the same picture into the first and the last slot.")
        _check_framing(ends.values(), "picture")
        return Plan(parts=(timeline,), pieces=(Made(part=0, start=0, stop=frames - 1),))
    overlap = min(OVERLAP, last // 2)
    if any(k.slot < overlap or k.slots.stop > timeline.grid.num_slots - overlap for k in timeline.keyframes):
        raise RecipeError("A loop needs the same picture or clip at both ends of the timeline, or nothing at either.")
    return Plan(parts=_scene_and_loop(timeline, options, overlap), pieces=(Made(part=1, start=0, stop=frames - 1),))


def _scene_and_loop(timeline: Timeline, options: Options, overlap: int) -> tuple[Timeline, Timeline]:
    """A scene, and a loop that starts in the middle of it and ends with what came before, so that things move through
    the seam as they did there. Both hold frame `seam` of the scene, the loop as its first frame and as its last."""
    slots, seam = timeline.grid.num_slots, overlap * timeline.grid.temporal_stride
    later = (k.model_copy(update={"slot": k.slot + overlap}) for k in timeline.keyframes)
    start = Keyframe(slot=0, source=PartSource(part=0, start=seam), span=overlap)
    end = Keyframe(slot=slots - overlap, source=PartSource(part=0, start=1), span=overlap, noise=options.closing)
    return timeline.having(*later), timeline.having(start, *timeline.keyframes, end)


def extend(timeline: Timeline, options: Options) -> Plan:
    """Segments that overlap: each begins with the last slots of the one before it (or ends with the first ones)."""
    both = options.direction == "both"
    if both and options.result == "made":
        raise RecipeError("New frames at both ends do not make one clip without the old ones: choose joined.")
    if options.direction == "backwards":
        anchor = _needed(_clip_at_end(timeline), "Extending backwards needs the clip at the end of the timeline.")
        parts, pieces = _backwards(timeline, anchor, options.frames)
        return Plan(parts=parts, pieces=_chosen((*pieces, *_kept_from(anchor)), options))
    anchor = _needed(_clip_at_start(timeline), "Extending needs the clip at the start of the timeline.")
    kept = _kept_until(anchor, timeline)
    if not both:
        parts, pieces = _forwards(timeline, anchor, options.frames, first_part=0)
        return Plan(parts=parts, pieces=_chosen((*kept, *pieces), options))
    # First what comes before the clip, since the result is written in the order of time.
    mirrored = _mirrored(anchor, timeline)
    before, earlier = _backwards(timeline.having(mirrored), mirrored, options.frames)
    parts, later = _forwards(timeline, anchor, options.frames, first_part=len(before))
    return Plan(parts=before + parts, pieces=(*earlier, *kept, *later))


def complete(timeline: Timeline, options: Options) -> Plan:
    """The clip with the frames of the gap made anew; frame t of the timeline is frame `origin` + t of the clip."""
    if options.gap is None:
        raise RecipeError("Say which frames to make anew: the gap needs a first and a last frame.")
    first, stop = options.gap
    stride, frames = timeline.grid.temporal_stride, timeline.grid.num_frames
    parts = [k for k in (_clip_at_start(timeline), *timeline.keyframes) if k is not None and k.source.kind == "clip"]
    if not parts:
        raise RecipeError("Completing needs the clip on the timeline, before the gap, after it or both: add it.")
    origin = _start(parts[0]) - parts[0].frames(stride).start
    same = all(_path(k) == _path(parts[0]) and _start(k) - k.frames(stride).start == origin for k in parts)
    if not same:
        raise RecipeError("The parts of the clip must keep their places around the gap: undo the move, or add it anew.")
    _check_framing(parts, "clip")
    if not 0 <= first - origin < stop - origin <= frames:
        raise RecipeError(f"The gap, frames {first} to {stop - 1} of the clip, is not on the timeline: add it anew.")
    made = Made(part=0, start=first - origin, stop=stop - origin)
    clip = parts[0]
    before, after = _kept(clip, _begin(clip), first), _kept(clip, stop, _end(clip))
    return Plan(parts=(timeline,), pieces=_chosen((*before, made, *after), options))


def restyle(timeline: Timeline, options: Options) -> Plan:
    """A longer clip than one run makes is done in parts, each going on from the last slots of the one before it."""
    clip = _needed(_clip_at_start(timeline), "Restyle needs a clip on the timeline, from slot 0 on.")
    frames, stride = timeline.grid.num_frames, timeline.grid.temporal_stride
    total = options.frames or frames
    if total <= frames:
        return Plan(parts=(timeline,), pieces=(Made(part=0, start=0, stop=total),))
    if clip.span < timeline.grid.num_slots or clip.span <= OVERLAP:
        raise RecipeError("A long restyle needs every slot from the clip: choose a longer clip or fewer frames.")
    step = frames - _frames(OVERLAP, stride)
    _check_parts(-(-(total - frames) // step) + 1)
    parts, pieces, at = [timeline], [Made(part=0, start=0, stop=frames)], 0
    while at + frames < total:
        before, at = at, min(at + step, total - frames)
        known = before + frames - at  # frames of this part that the part before it has made
        span = (known - 1) // stride + 1
        overlap = Keyframe(slot=0, source=PartSource(part=len(parts) - 1, start=at - before), span=span)
        source = clip.source.model_copy(update={"start": _start(clip) + at + _frames(span, stride)})
        rest = clip.model_copy(
            update={"slot": span, "span": clip.span - span, "noise": clip.noises[span:], "source": source}
        )
        pieces.append(Made(part=len(parts), start=known, stop=frames))
        parts.append(timeline.having(overlap, rest))
    return Plan(parts=tuple(parts), pieces=tuple(pieces))


# --- chains ----------------------------------------------------------------------------------------------------------


def _forwards(
    timeline: Timeline, anchor: Keyframe, add: int | None, first_part: int
) -> tuple[tuple[Timeline, ...], tuple[Made, ...]]:
    """Parts that go on after `anchor`, and the `add` frames of them. Further keyframes belong to the last part."""
    frames, stride = timeline.grid.num_frames, timeline.grid.temporal_stride
    others = tuple(k for k in timeline.keyframes if k is not anchor)
    known = anchor.num_frames(stride)
    add, count, surplus = _share(add, _new_frames(frames, known))
    parts, used = [timeline if count == 1 else timeline.having(anchor)], [(known, frames)]
    for number in range(1, count):
        last, span = number == count - 1, anchor.span
        if last and others:
            # They say where it ends, so the part before it is cut.
            used[-1] = (used[-1][0], frames - surplus)
        elif last:
            # It makes only as many slots as are still wanted and sees more of what came before.
            span += surplus // stride
        source = PartSource(part=first_part + number - 1, start=used[-1][1] - _frames(span, stride))
        noises = (anchor.noises[0],) * (span - anchor.span) + anchor.noises
        overlap = Keyframe(slot=0, source=source, span=span, noise=noises)
        parts.append(timeline.having(overlap, *(others if last else ())))
        used.append((_frames(span, stride), frames))
    used[-1] = (used[-1][0], used[-1][1] - _excess(used, add))
    if count == 1:
        _check_shown(timeline, others, range(*used[0]))
    return tuple(parts), tuple(Made(part=first_part + n, start=a, stop=b) for n, (a, b) in enumerate(used))


def _backwards(timeline: Timeline, anchor: Keyframe, add: int | None) -> tuple[tuple[Timeline, ...], tuple[Made, ...]]:
    """Parts that lead to `anchor`, in the order of making, and the `add` frames of them in the order of time."""
    frames, stride, slots = timeline.grid.num_frames, timeline.grid.temporal_stride, timeline.grid.num_slots
    others = tuple(k for k in timeline.keyframes if k is not anchor)
    new = _new_frames(frames, anchor.num_frames(stride))
    add, count, surplus = _share(add, new)
    parts, used = [timeline if count == 1 else timeline.having(anchor)], [(0, new)]
    for number in range(1, count):
        last, span = number == count - 1, anchor.span
        if last and others:
            used[-1] = (surplus, used[-1][1])
        elif last:
            span += surplus // stride
        source = PartSource(part=number - 1, start=used[-1][0])
        noises = anchor.noises + (anchor.noises[-1],) * (span - anchor.span)
        overlap = Keyframe(slot=slots - span, source=source, span=span, noise=noises)
        parts.append(timeline.having(overlap, *(others if last else ())))
        used.append((0, frames - span * stride))
    used[-1] = (used[-1][0] + _excess(used, add), used[-1][1])
    if count == 1:
        _check_shown(timeline, others, range(*used[0]))
    return tuple(parts), tuple(Made(part=n, start=a, stop=b) for n, (a, b) in enumerate(used))[::-1]


def _share(add: int | None, new: int) -> tuple[int, int, int]:
    """Frames to add (by default what one part makes), parts that make them, and frames that these make beyond."""
    add = new if add is None else add
    count = _check_parts(-(-add // new))
    return add, count, count * new - add


def _excess(used: Iterable[tuple[int, int]], add: int) -> int:
    return sum(stop - start for start, stop in used) - add


def _check_shown(timeline: Timeline, others: tuple[Keyframe, ...], shown: range) -> None:
    """Raises RecipeError where fewer frames are asked for than a single part makes and a keyframe is in the rest."""
    stride = timeline.grid.temporal_stride

    def least(keyframe: Keyframe) -> int:
        """Frames to ask for so that they reach as far as the keyframe does."""
        frames = keyframe.frames(stride)
        return max(shown.stop, frames.stop) - min(shown.start, frames.start)

    cut = max(others, key=least, default=None)
    if cut is None or least(cut) <= len(shown):
        return
    # It may move towards the clip, as far as the next keyframe.
    early = cut.frames(stride).start < shown.start
    nearer = range(cut.slot + 1, timeline.grid.num_slots) if early else reversed(range(cut.slot))
    taken = {slot for k in timeline.keyframes if k is not cut for slot in k.slots}
    moves = (cut.model_copy(update={"slot": slot}) for slot in nearer)
    free = itertools.takewhile(lambda moved: taken.isdisjoint(moved.slots), moves)
    slot = next((moved.slot for moved in free if least(moved) <= len(shown)), None)
    move = "" if slot is None else f", or move it to slot {slot}"
    what = "picture" if cut.still else "clip"
    raise RecipeError(f"The {what} in slot {cut.slot} would be cut off: ask for at least {least(cut)} frames{move}.")


def _mirrored(anchor: Keyframe, timeline: Timeline) -> Keyframe:
    """The beginning of the clip whose end is `anchor`, in the last slots, with the same noises turned around."""
    stride = timeline.grid.temporal_stride
    have = _start(anchor) + anchor.num_frames(stride) - _begin(anchor)
    span = min(anchor.span, have // stride)
    if span < 1:
        raise RecipeError(f"Extending backwards needs at least {stride} frames of the clip: use a longer one.")
    source = anchor.source.model_copy(update={"start": _begin(anchor)})
    slot = timeline.grid.num_slots - span
    noises = tuple(reversed(anchor.noises))[:span]
    return anchor.model_copy(update={"slot": slot, "span": span, "source": source, "noise": noises})


def _new_frames(frames: int, known: int) -> int:
    if known >= frames:
        raise RecipeError("The clip fills the whole timeline: leave slots free for new frames.")
    return frames - known


def _check_parts(count: int) -> int:
    if count > MAX_PARTS:
        raise RecipeError(
            f"That would take {count} runs of the model, and {MAX_PARTS} is the most: ask for fewer frames."
        )
    return count


# --- what they share -------------------------------------------------------------------------------------------------


def _clip_at_start(timeline: Timeline) -> Keyframe | None:
    return next((k for k in timeline.keyframes if k.slot == 0 and k.source.kind == "clip"), None)


def _clip_at_end(timeline: Timeline) -> Keyframe | None:
    end = timeline.grid.num_slots
    return next((k for k in timeline.keyframes if k.slots.stop == end and k.source.kind == "clip"), None)


def _needed(keyframe: Keyframe | None, message: str) -> Keyframe:
    if keyframe is None:
        raise RecipeError(message)
    return keyframe


def _check_framing(keyframes: Iterable[Keyframe], what: str) -> None:
    """Raises RecipeError where keyframes of one source are cropped differently: the result would jump between them."""
    # Where nothing is cut off the focus changes nothing.
    if len({(k.fit, k.focus if k.fit == "crop" else None) for k in keyframes}) > 1:
        raise RecipeError(f"The keyframes show different parts of the {what}: give all of them the same fit and focus.")


def _path(keyframe: Keyframe) -> str:
    assert keyframe.source.kind != "part"
    return keyframe.source.path


def _start(keyframe: Keyframe) -> int:
    assert keyframe.source.kind == "clip"
    return keyframe.source.start


def _begin(keyframe: Keyframe) -> int:
    assert keyframe.source.kind == "clip"
    return keyframe.source.begin


def _end(keyframe: Keyframe) -> int | None:
    assert keyframe.source.kind == "clip"
    return keyframe.source.end


def _frames(span: int, stride: int) -> int:
    """Frames of the first `span` slots of a clip."""
    return (span - 1) * stride + 1


def _between(timeline: Timeline, before: Keyframe, after: Keyframe) -> Made:
    """The frames between two clips at the ends of a timeline."""
    stride = timeline.grid.temporal_stride
    start, stop = before.frames(stride).stop, after.frames(stride).start
    if start >= stop:
        raise RecipeError("The two clips leave no slot between them: shorten one, or make the length longer.")
    return Made(part=0, start=start, stop=stop)


def _kept(keyframe: Keyframe, start: int, stop: int | None) -> tuple[Kept, ...]:
    """Frames of a keyframe's clip as a piece, or as none where there are no frames."""
    if stop is not None and start >= stop:
        return ()
    return (Kept(path=_path(keyframe), start=start, stop=stop, fit=keyframe.fit, focus=keyframe.focus),)


def _kept_until(keyframe: Keyframe, timeline: Timeline) -> tuple[Kept, ...]:
    """The clip up to the last frame that a keyframe uses."""
    stop = _start(keyframe) + keyframe.num_frames(timeline.grid.temporal_stride)
    return _kept(keyframe, _begin(keyframe), stop)


def _kept_from(keyframe: Keyframe) -> tuple[Kept, ...]:
    """The clip from the first frame that a keyframe uses on."""
    return _kept(keyframe, _start(keyframe), _end(keyframe))


def _chosen(pieces: Iterable[Piece], options: Options) -> tuple[Piece, ...]:
    return tuple(p for p in pieces if options.result == "joined" or p.kind == "made")
