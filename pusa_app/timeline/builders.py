"""From what a user gave to a timeline: one small function per task.

A builder gets a blank timeline (grid and size), what was given, the options and the noise that the model advises. It
puts keyframes into slots and nothing else; the user may move them before they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pusa_app.errors import RecipeError
from pusa_app.timeline.options import Options, TaskNoise
from pusa_app.timeline.schedule import Unit
from pusa_app.timeline.timeline import ClipSource, ImageSource, Keyframe, Timeline

# In a transition that crosses two clips their noise rises to this value where they meet.
CROSS_NOISE = 0.9
# Fewer free slots between two clean keyframes than this leave the model no time for a way between them.
LEAST_FREE = 2


class Given(BaseModel):
    """One thing that the user put in: a file, and how freely the model may treat it.

    noise in [0, 1]: 0 keeps the source as it is, 1 ignores it, None is what the model advises. Of a clip, `frames` is
    its length at the timeline's frame rate, and start and stop (one past the last) say which of them are used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(min_length=1, max_length=4096)
    noise: Unit | None = None
    fit: Literal["crop", "pad"] = "crop"
    focus: tuple[Unit, Unit] = (0.5, 0.5)
    frames: int | None = Field(default=None, ge=1)
    start: int = Field(default=0, ge=0)
    stop: int | None = Field(default=None, ge=1)

    @property
    def end(self) -> int:
        """One past the last frame that is used. Raises RecipeError when the chosen range is not in the clip."""
        if self.frames is None:
            raise RecipeError("The length of the clip is not known: add it again.")
        end = self.frames if self.stop is None else self.stop
        if not self.start < end <= self.frames:
            what = f"Frames {self.start} to {end - 1} are" if self.start < end else f"Frame {self.start} is"
            raise RecipeError(
                f"{what} not a part of the clip, which has {self.frames} frames: "
                "choose a first and a last frame inside it."
            )
        return end


Builder = Callable[[Timeline, Mapping[str, Given], Options, TaskNoise], Timeline]


def text_to_video(blank: Timeline, given: Mapping[str, Given], options: Options, noise: TaskNoise) -> Timeline:
    return blank


def image_to_video(blank: Timeline, given: Mapping[str, Given], options: Options, noise: TaskNoise) -> Timeline:
    return blank.having(_picture(given["image"], 0, noise.start))


def start_end(blank: Timeline, given: Mapping[str, Given], options: Options, noise: TaskNoise) -> Timeline:
    last = _last_slot(blank)
    return blank.having(_picture(given["image"], 0, noise.start), _picture(given["end"], last, noise.end))


def keyframes(blank: Timeline, given: Mapping[str, Given], options: Options, noise: TaskNoise) -> Timeline:
    """Nothing is asked for: the user places what he has on the timeline itself."""
    return blank


def transition(blank: Timeline, given: Mapping[str, Given], options: Options, noise: TaskNoise) -> Timeline:
    """bridge: the last slots of A first, the first slots of B last, free ones between. cross: A's frames, noisier and
    noisier, then B's, less and less noisy, so that every slot of the length has one of them below its noise."""
    slots = _last_slot(blank) + 1
    if options.style == "cross":
        ramp, first = crossing(slots), (slots + 1) // 2
        return blank.having(
            _end_of(given["clip"], blank, ramp[:first], to_last=False),
            _start_of(given["clip_b"], blank, ramp[first:], to_last=True),
        )
    room = max(2, slots - LEAST_FREE)
    return blank.having(
        _end_of(given["clip"], blank, noise.before, (room + 1) // 2),
        _start_of(given["clip_b"], blank, noise.after, room // 2),
    )


def crossing(slots: int) -> tuple[float, ...]:
    """The noise of each slot in which two clips cross: 0 at both ends, CROSS_NOISE in the middle."""
    top = max(1, (slots + 1) // 2 - 1)
    return tuple(CROSS_NOISE * min(slot, slots - 1 - slot, top) / top for slot in range(slots))


def loop(blank: Timeline, given: Mapping[str, Given], options: Options, noise: TaskNoise) -> Timeline:
    """A clip is bridged from its end to its start; a picture stands at both ends; words alone need no keyframe."""
    if {"clip", "image"} <= set(given):
        raise RecipeError("A loop goes around a picture or leads a clip back: give a picture or a clip, not both.")
    if "clip" in given:
        return transition(blank, {"clip": given["clip"], "clip_b": given["clip"]}, Options(), noise)
    if "image" in given:
        picture = given["image"]
        last = _last_slot(blank)
        return blank.having(_picture(picture, 0, noise.start), _picture(picture, last, noise.closing))
    return blank


def extend(blank: Timeline, given: Mapping[str, Given], options: Options, noise: TaskNoise) -> Timeline:
    _last_slot(blank)
    most = max(1, blank.grid.num_slots // 2)
    if options.direction == "backwards":
        return blank.having(_start_of(given["clip"], blank, noise.after, most))
    return blank.having(_end_of(given["clip"], blank, noise.before, most))


def complete(blank: Timeline, given: Mapping[str, Given], options: Options, noise: TaskNoise) -> Timeline:
    """The frames around the gap in their places, the slots that hold frames of the gap free.

    The gap begins with a slot where enough of the clip follows it, and the slot in which it ends is free too. Else the
    slots lie earlier, by as much as it takes for the last of them to hold the end of the clip: the model shall see what
    it has to lead to. Frames beside the gap that are made so are not used.
    """
    clip, stride, slots = given["clip"], blank.grid.temporal_stride, blank.grid.num_slots
    if options.gap is None:
        raise RecipeError("Say which frames to make anew: the gap needs a first and a last frame.")
    first, stop = options.gap
    if not clip.start <= first < stop <= clip.end:
        raise RecipeError(
            f"The gap, frames {first} to {stop - 1}, is not inside the clip, which goes from frame {clip.start} "
            f"to {clip.end - 1}: move it."
        )
    if clip.end - clip.start == stop - first:
        raise RecipeError("The gap is the whole clip: leave some frames to go on from.")
    if first == clip.start:
        have, room = (clip.end - stop) // stride, slots - 1 - _slots_of(stop - first - 1, stride)
        if have < 1:
            raise RecipeError(f"Only {clip.end - stop} frames follow the gap, and {stride} are needed: end it earlier.")
        if room < 1:
            raise _gap_too_long(stop - first, blank)
        after = min(have, room)
        return blank.having(_part(clip, stop, slots - after, after, noise.after))
    free = _slots_of(stop - first, stride)
    room = slots - free
    if room < (2 if clip.end > stop else 1):
        raise _gap_too_long(stop - first, blank)
    shift = max(0, (free + 1) * stride - (clip.end - first))
    if clip.end - stop < stride or first - shift <= clip.start:
        shift = 0  # what follows fills no slot, or nothing would be left before the gap
    begin = first - shift
    known_before = (begin - clip.start - 1) // stride + 1  # slots that the clip has on either side
    known_after = max(0, (clip.end - begin - free * stride) // stride)
    after = min(known_after, max(room // 2, room - known_before))
    before = min(known_before, room - after)
    placed = [_part(clip, begin - (before - 1) * stride - 1, 0, before, noise.before, to_last=True)]
    if after:
        placed.append(_part(clip, begin + free * stride, before + free, after, noise.after))
    return blank.having(*placed)


def restyle(blank: Timeline, given: Mapping[str, Given], options: Options, noise: TaskNoise) -> Timeline:
    clip, slots = given["clip"], blank.grid.num_slots
    have, wanted = clip.end - clip.start, blank.grid.num_frames
    if have < wanted:
        stride = blank.grid.temporal_stride
        # One slot is no video to ask for.
        shorter = f"choose a length of at most {(have - 1) // stride * stride + 1} frames, or a longer clip."
        raise RecipeError(
            f"The clip has {have} frames at {blank.grid.fps:g} frames a second and the length is {wanted}: "
            + (shorter if have > stride else f"use a clip of at least {wanted} frames.")
        )
    if options.frames is not None and have < options.frames:
        raise RecipeError(
            f"The clip has {have} frames at {blank.grid.fps:g} frames a second, but {options.frames} are asked for: "
            "ask for fewer, or use a longer clip."
        )
    return blank.having(_part(clip, clip.start, 0, slots, (noise.restyle,)))


# --- what they share -------------------------------------------------------------------------------------------------


def _picture(given: Given, slot: int, noise: float) -> Keyframe:
    source = ImageSource(path=given.path)
    chosen = noise if given.noise is None else given.noise
    return Keyframe(slot=slot, source=source, noise=chosen, fit=given.fit, focus=given.focus)


def _end_of(
    given: Given, blank: Timeline, noises: tuple[float, ...], most: int | None = None, to_last: bool = True
) -> Keyframe:
    """The last frames of a clip in the first slots; fewer slots when the clip is short."""
    stride = blank.grid.temporal_stride
    have = given.end - given.start
    span = min(len(noises), (have - 1) // stride + 1, most or len(noises))
    return _part(given, given.end - (span - 1) * stride - 1, 0, span, noises, to_last)


def _start_of(
    given: Given, blank: Timeline, noises: tuple[float, ...], most: int | None = None, to_last: bool = False
) -> Keyframe:
    """The first frames of a clip in the last slots; fewer slots when the clip is short."""
    stride = blank.grid.temporal_stride
    have = given.end - given.start
    if have < stride:
        raise RecipeError(
            f"The clip has {have} frames at {blank.grid.fps:g} frames a second, but its beginning needs {stride}: "
            "use a longer clip."
        )
    span = min(len(noises), have // stride, most or len(noises))
    return _part(given, given.start, blank.grid.num_slots - span, span, noises, to_last)


def _part(given: Given, start: int, slot: int, span: int, noises: tuple[float, ...], to_last: bool = False) -> Keyframe:
    """Frames of a clip from `start` on; to_last: the noises end at its last slot, else they begin at its first."""
    if given.noise is not None:
        chosen: tuple[float, ...] = (given.noise,) * span
    elif to_last:
        chosen = (noises[0],) * (span - len(noises)) + noises[max(0, len(noises) - span) :]
    else:
        chosen = noises[:span] + (noises[-1],) * (span - len(noises))
    return Keyframe(
        slot=slot,
        source=ClipSource(path=given.path, start=start, begin=given.start, end=given.stop),
        noise=chosen[0] if len(set(chosen)) == 1 else chosen,
        span=span,
        fit=given.fit,
        focus=given.focus,
    )


def _last_slot(blank: Timeline) -> int:
    """The last slot; raises RecipeError where it is too near to the first to leave one free between."""
    if blank.grid.num_slots < 3:
        needed = 2 * blank.grid.temporal_stride + 1
        raise RecipeError(f"A length of {blank.grid.num_frames} frames leaves nothing between: use at least {needed}.")
    return blank.grid.num_slots - 1


def _slots_of(frames: int, stride: int) -> int:
    """Slots of `stride` frames that hold so many frames."""
    return -(-frames // stride)


def _gap_too_long(frames: int, blank: Timeline) -> RecipeError:
    return RecipeError(
        f"A gap of {frames} frames does not fit into a length of {blank.grid.num_frames} with frames on both sides: "
        "make the gap shorter, or the length longer."
    )
