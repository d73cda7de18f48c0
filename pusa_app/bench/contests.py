"""The contests: for each task of the studio what is given of procedural clips, and what is measured on the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from pusa_app.bench import tracks
from pusa_app.bench.contest import (
    FREEZE,
    LINE,
    NEAR_VAE,
    OLD,
    OPEN,
    OURS,
    RESTART,
    SOURCE,
    TRUTH,
    UNMATCHED,
    VAE,
    Bench,
    Better,
    Contest,
    Goal,
    Row,
    draw_specs,
    whole_rounds,
)
from pusa_app.bench.tracks import View
from pusa_app.timeline import ImageSource, Keyframe, Options, Timeline, get_task
from pusa_app.training.captions import plain_caption
from pusa_app.training.clips import COLORS, CYCLIC, MOTIONS, NUM_FRAMES, PERIOD, ClipSpec, draw

LONG = 61  # frames of the clips of which a part is given
FIRST = 25  # frames of a first part
LATE = 31  # where a last part starts
GAP = range(13, 25)  # of 37 frames: two slots
SEGMENTS = 3  # of a chain
STYLES = (0.5, 0.6, 0.7, 0.8)  # noises of restyle
ORBITS = ("orbits clockwise", "orbits counterclockwise")
CURVED = ("bounces", *ORBITS, "sways")  # whose way is no straight line
SPREAD = 3  # times as many clips where values are compared as a spread: that of few is scattered by chance
TWICE = 0.35  # of the usual difference between neighbours: less at the seam is a frame that stands twice


# --- pictures --------------------------------------------------------------------------------------------------------


def image_to_video(bench: Bench) -> list[Contest]:
    """Given: the first frame of a clip."""
    specs = bench.specs()
    lines = [bench.timeline("image-to-video", {"image": bench.picture(draw(spec)[0])}) for spec in specs]
    made = bench.make_all("image-to-video", specs, lines)
    contest = bench.contest("image to video", specs, made, range(NUM_FRAMES))
    contest.add(FREEZE, [np.repeat(truth.frames[:1], NUM_FRAMES, axis=0) for truth in contest.columns[TRUTH]])
    # Clip by clip: a picture and a prompt leave only the speed of straight ways open, by some tenths of a pixel.
    contest.row("jump 0 to 1, px", "as truth", lambda v, _, __: tracks.jump(v, 0), NEAR_VAE)
    contest.row("centre error 12-24, px", "lower", lambda v, t, _: tracks.off(v, t, range(12, 25)), Goal(1, FREEZE))
    _shows(contest, (6, 18, 36))
    contest.row("motion", "higher", lambda v, _, spec: tracks.motion_right(v, spec))
    return [contest]


def start_end(bench: Bench) -> list[Contest]:
    """Given: the first and the last frame of a clip."""
    specs, last = bench.specs(), NUM_FRAMES - 1
    lines = []
    for spec in specs:
        truth = draw(spec)
        lines.append(bench.timeline("start-end", {"image": bench.picture(truth[0]), "end": bench.picture(truth[last])}))
    made = bench.make_all("start-end", specs, lines)
    contest = bench.contest("start-end", specs, made, range(NUM_FRAMES))
    contest.add(LINE, [tracks.dissolve(truth, 0, last) for truth in contest.columns[TRUTH]])
    _beats_line(contest, range(12, 25))
    _shows(contest, (12, 18, 24), Goal(1, LINE, least=True))
    contest.row("jump 0 to 1, px", "as truth", lambda v, _, __: tracks.jump(v, 0), NEAR_VAE)
    end = range(last - 6, last)
    contest.row("largest jump into the end, 30 to 36, px", "as truth", lambda v, _, __: tracks.leap(v, end), NEAR_VAE)
    contest.row("way 30 to 36, share of the truth's", "as truth", lambda v, t, _: tracks.way_share(v, t, range(30, 37)))
    contest.rows += _slopes(bench)
    return [contest]


def _slopes(bench: Bench) -> list[Row]:
    """The same start, opposite ends, no words: how far the way depends on its end; an even way is 1 everywhere."""
    reach, last = 16.0, NUM_FRAMES - 1
    fulls = [np.array(way) * reach for way in ((1.0, 0.0), (0.0, 1.0), (0.7, 0.7), (0.7, -0.7))]
    specs = draw_specs(whole_rounds(bench.clips, len(fulls)), motions=("still",))
    pairs: dict[str, list[list[View]]] = {TRUTH: [], VAE: [], OURS: [], OLD: []}
    for seed, spec in enumerate(specs):
        truths = [draw(_heading(spec, sign * fulls[seed % len(fulls)])) for sign in (1, -1)]
        pairs[TRUTH].append([View.of(truth) for truth in truths])
        pairs[VAE].append([View.of(bench.rebuilt(truth)) for truth in truths])
        lines = [
            bench.timeline("start-end", {"image": bench.picture(t[0]), "end": bench.picture(t[last])}) for t in truths
        ]
        for method in (OURS, OLD):
            pairs[method].append([View.of(bench.make("start-end", line, "", seed, method)) for line in lines])
    rows = []
    for frame in (12, 18, 24):
        clips = {
            method: [tracks.slope(*pair, frame, fulls[i % len(fulls)]) for i, pair in enumerate(views)]
            for method, views in pairs.items()
        }
        rows.append(Row.of(f"slope of the way's dependence on the end at {frame}", "as truth", clips))
    return rows


def _heading(spec: ClipSpec, full: np.ndarray) -> ClipSpec:
    """The clip's object on an even way of `full` pixels from the middle of the picture."""
    x, y = (32 + np.linspace(0, length, NUM_FRAMES, dtype=np.float32) for length in full)
    return replace(spec, x=x, y=y, radius=np.full(NUM_FRAMES, 12, np.float32))


def keyframes(bench: Bench) -> list[Contest]:
    """Given: the first, the middle and the last frame of a clip."""
    specs, middle, last = bench.specs(), NUM_FRAMES // 2, NUM_FRAMES - 1
    lines = [_with_pictures(bench, draw(spec), middle) for spec in specs]
    made = bench.make_all("keyframes", specs, lines)
    contest = bench.contest("keyframes", specs, made, range(NUM_FRAMES))
    halves = [tracks.dissolve(tracks.dissolve(t, 0, middle), middle, last) for t in contest.columns[TRUTH]]
    contest.add(LINE, halves)
    _beats_line(contest, (*range(6, 13), *range(24, 31)), "6-12 and 24-30")
    _shows(contest, (6, 12, 24, 30), Goal(1, LINE, least=True))
    for where, frames in (("the middle, 12 to 19", range(12, 19)), ("the end, 30 to 36", range(30, last))):
        contest.row(
            f"largest jump around {where}, px", "as truth", lambda v, _, __, f=frames: tracks.leap(v, f), NEAR_VAE
        )
    return [contest]


def _with_pictures(bench: Bench, truth: np.ndarray, middle: int) -> Timeline:
    """Frames 0, `middle` and the last in their slots; the task leaves this to its user."""
    blank, noise = bench.timeline("keyframes", {}), bench.noise
    places = ((0, noise.start), (middle, noise.middle), (len(truth) - 1, noise.end))
    return blank.having(
        *(
            Keyframe(
                slot=blank.grid.slot_of(frame), source=ImageSource(path=bench.picture(truth[frame]).path), noise=value
            )
            for frame, value in places
        )
    )


# --- clips -----------------------------------------------------------------------------------------------------------


def extend(bench: Bench) -> list[Contest]:
    return [_forwards(bench), _backwards(bench), _chain(bench)]


def _forwards(bench: Bench) -> Contest:
    """Given: the first 25 of 61 frames."""
    specs = bench.specs(LONG)
    lines = [bench.timeline("extend", {"clip": bench.clip(draw(spec)[:FIRST])}) for spec in specs]
    made = bench.make_all("extend", specs, lines)
    size, last = len(made[OURS][0]), FIRST - 1
    contest = bench.contest("extend forwards", specs, made, range(FIRST, size))
    fresh = [
        bench.make("text-to-video", bench.timeline("text-to-video", {}), plain_caption(s), i)
        for i, s in enumerate(specs)
    ]
    kept = [frames[:FIRST] for frames in made[OURS]]
    contest.add(FREEZE, [np.concatenate((own, np.repeat(own[-1:], size - FIRST, axis=0))) for own in kept])
    contest.add(RESTART, [np.concatenate((own, new[: size - FIRST])) for own, new in zip(kept, fresh, strict=True)])
    _joint(contest, "the joint", last)
    contest.row(
        "direction cosine over 6 frames",
        "higher",
        lambda v, t, _: tracks.cosine(v, t, last, last + 6),
        Goal(0.9, least=True),
    )
    for later in (12, 24):
        contest.row(f"centre error at +{later}, px", "lower", lambda v, t, _, at=last + later: tracks.off(v, t, (at,)))
    _shows(contest, (last + 6, last + 24))
    return contest


def _backwards(bench: Bench) -> Contest:
    """Given: the last 30 of 61 frames."""
    specs = bench.specs(LONG)
    options = Options(direction="backwards")
    lines = [bench.timeline("extend", {"clip": bench.clip(draw(spec)[LATE:])}, options) for spec in specs]
    made = bench.make_all("extend", specs, lines, options)
    new = len(made[OURS][0]) - (LONG - LATE)
    contest = bench.contest("extend backwards", [spec.cut(LATE - new, LONG) for spec in specs], made, range(new))
    kept = [frames[new:] for frames in made[OURS]]
    contest.add(FREEZE, [np.concatenate((np.repeat(own[:1], new, axis=0), own)) for own in kept])
    _joint(contest, "the joint", new - 1)
    contest.row("direction cosine over 6 frames", "higher", lambda v, t, _: tracks.cosine(v, t, new, new - 6))
    for before in (12, new):
        contest.row(f"centre error at -{before}, px", "lower", lambda v, t, _, at=new - before: tracks.off(v, t, (at,)))
    _shows(contest, (0, new - 6))
    return contest


def _chain(bench: Bench) -> Contest:
    """Given: the first 25 frames of a motion that has no end; made: three segments, each from the one before it."""
    length = FIRST + SEGMENTS * 24
    specs = bench.specs(length, (*CYCLIC, "still"))
    lines = [bench.timeline("extend", {"clip": bench.clip(draw(spec)[:FIRST])}) for spec in specs]
    options = Options(frames=length - FIRST)
    made = bench.make_all("extend", specs, lines, options)
    contest = bench.contest("extend, three segments", specs, made, range(FIRST, length))
    contest.add(UNMATCHED, bench.make_all("extend", specs, lines, options, (OURS,), color_match=False)[OURS])
    ends = [FIRST + segment * 24 - 1 for segment in range(1, SEGMENTS + 1)]
    for segment, end in enumerate(ends, 1):
        after = f"after segment {segment}"
        contest.row(f"object's colour {after}, levels off", "lower", lambda v, _, s, t=end: tracks.color_error(v, s, t))
        contest.row(f"background {after}, levels off", "lower", lambda v, t, _, at=end: tracks.ground_error(v, t, at))
        contest.row(f"shape {after}", "higher", lambda v, _, s, t=end: tracks.shape_held(v, s, (t - 6, t)))
    joints = [FIRST - 1, *ends[:-1]]
    contest.row("mean jump at three joints, px", "as truth", lambda v, _, __: tracks.jumps(v, joints), NEAR_VAE)
    period = slice(-NUM_FRAMES, None)  # the detector knows clips of one period
    contest.row("motion", "higher", lambda v, _, spec: tracks.motion_right(View.of(v.frames[period]), spec))
    return contest


def complete(bench: Bench) -> list[Contest]:
    """Given: a clip whose frames 13 to 24 are black."""
    specs = bench.specs()
    options = Options(gap=(GAP.start, GAP.stop))
    lines = []
    for spec in specs:
        frames = draw(spec)
        frames[GAP.start : GAP.stop] = 0
        lines.append(bench.timeline("complete", {"clip": bench.clip(frames)}, options))
    made = bench.make_all("complete", specs, lines, options)
    return [_bridged(bench.contest("complete", specs, made, GAP), GAP)]


def transition(bench: Bench) -> list[Contest]:
    """Given: the first 25 of 61 frames, and what follows them after as many frames as the transition makes."""
    specs = bench.specs(LONG)
    lines, gap = [], range(0)
    for spec in specs:
        frames = draw(spec)
        a, b = bench.clip(frames[:FIRST]), frames[FIRST:]
        free = get_task("transition").plan(bench.timeline("transition", {"clip": a, "clip_b": bench.clip(b)})).pieces[1]
        gap = range(FIRST, FIRST + free.stop - free.start)
        lines.append(bench.timeline("transition", {"clip": a, "clip_b": bench.clip(frames[gap.stop :])}))
    made = bench.make_all("transition", specs, lines)
    return [_bridged(bench.contest("transition", specs, made, gap), gap)]


def loop(bench: Bench) -> list[Contest]:
    return [_loop_of_clip(bench), _loop_of_picture(bench), _loop_of_words(bench)]


def _loop_of_clip(bench: Bench) -> Contest:
    """Given: so much of a motion with a period of 36 frames that the bridge has as many as are missing."""
    specs = _cyclic(bench)
    probe = bench.timeline("loop", {"clip": bench.clip(draw(specs[0]))})
    bridge = get_task("loop").plan(probe).pieces[1]
    new = range(PERIOD - (bridge.stop - bridge.start), PERIOD)
    lines = [bench.timeline("loop", {"clip": bench.clip(draw(spec)[: new.start])}) for spec in specs]
    contest = bench.contest("loop of a clip", specs, bench.make_all("loop", specs, lines), new)
    contest.add(LINE, [tracks.dissolve(view, new.start - 1, new.stop) for view in contest.columns[OURS]])
    _joint(contest, "the joint", new.start - 1)
    _seam(contest)
    _beats_line(contest, new[3:-3])
    _shows(contest, (new[3], new[len(new) // 2], new[-4]), Goal(1, LINE, least=True))
    return contest


def _loop_of_picture(bench: Bench) -> Contest:
    """Given: the first frame of a period; the same picture without its end is what is left open."""
    specs = _cyclic(bench, SPREAD)
    pictures = [bench.picture(draw(spec)[0]) for spec in specs]
    made = bench.make_all("loop", specs, [bench.timeline("loop", {"image": picture}) for picture in pictures])
    contest = bench.contest("loop of a picture", specs, made, range(PERIOD))
    lines = [bench.timeline("image-to-video", {"image": picture}) for picture in pictures]
    opened = bench.make_all("image-to-video", specs, lines, methods=(OURS,))[OURS]
    contest.add(OPEN, [frames[:PERIOD] for frames in opened])
    _seam(contest)
    _goes_around(contest)
    _shows(contest, (6, 18, 30))
    return contest


def _loop_of_words(bench: Bench) -> Contest:
    """Given: a prompt. Neither the size of the way is in it nor where on it a clip begins, so only the kind of the
    motion is scored, and how the values are spread.

    A scene is made first, and the loop around its seam. What the loop has of the scene, the seam too, both methods hold
    alike: there they are not compared, but where the loop leaves the scene, comes back to it, and between."""
    specs, options = _cyclic(bench, SPREAD), Options(closing=bench.closing)
    blanks = [bench.timeline("loop", {}) for _ in specs]
    looped = get_task("loop").plan(blanks[0], options).parts[1]
    leaves, back = (keyframe.frames(looped.grid.temporal_stride) for keyframe in looped.keyframes)
    new = range(leaves.stop, back.start)
    made = bench.make_all("loop", specs, blanks, options)
    contest = bench.contest("loop of words", specs, made, range(PERIOD))
    opened = bench.make_all("text-to-video", specs, blanks, methods=(OURS,))[OURS]
    contest.add(OPEN, [frames[:PERIOD] for frames in opened])
    _seam(contest, "spread as truth", without=(OLD,))
    for where, at in (("leaves the scene", new.start - 1), ("is back in it", new.stop - 1)):
        contest.row(
            f"jump where the loop {where}, px", "spread as truth", lambda v, _, __, at=at: tracks.jump(v, at), NEAR_VAE
        )
    contest.row(
        f"pace from {new.start - 1} to {new.stop}, of the others'",
        "spread as truth",
        lambda v, _, __: tracks.pace(v, range(new.start - 1, new.stop)),
        motions=CURVED,
    )
    contest.row("motion", "higher", lambda v, _, spec: tracks.motion_right(v, spec))
    _shows(contest, (new[3], new[len(new) // 2], new[-4]))
    return contest


def _cyclic(bench: Bench, times: int = 1) -> list[ClipSpec]:
    """Clips of 37 frames whose last is their first again, `times` as many as usual."""
    return bench.specs(motions=CYCLIC, times=times)


def restyle(bench: Bench) -> list[Contest]:
    """Given: a clip, and a prompt that gives its object another colour. For several noises.

    All slots have one sigma here, so replacement would be the same thing.
    """
    specs = bench.specs()
    wanted = [replace(spec, color=_other(spec.color)) for spec in specs]
    clips = [bench.clip(draw(spec)) for spec in specs]
    made = {}
    for noise in sorted({*STYLES, bench.noise.restyle}):
        method = OURS if noise == bench.noise.restyle else f"noise {noise:g}"
        lines = [bench.timeline("restyle", {"clip": clip.model_copy(update={"noise": noise})}) for clip in clips]
        made[method] = bench.make_all("restyle", wanted, lines, methods=(OURS,))[OURS]
    contest = bench.contest("restyle", wanted, made, range(NUM_FRAMES))
    contest.add(SOURCE, [draw(spec) for spec in specs])
    _shows(contest, (0, 12, 24, 36))
    contest.row("centre error, px", "lower", lambda v, t, _: tracks.off(v, t, range(NUM_FRAMES)))
    contest.row("motion", "higher", lambda v, _, spec: tracks.motion_right(v, spec))
    return [contest]


def _other(color: str) -> str:
    """Another colour of the palette, far from the first."""
    names = list(COLORS)
    return names[(names.index(color) + 3) % len(names)]


# --- what several measure --------------------------------------------------------------------------------------------


def _shows(contest: Contest, frames: tuple[int, ...], goal: Goal | None = None) -> None:
    at = ", ".join(str(frame) for frame in frames)
    contest.row(f"shape at {at}", "higher", lambda v, _, spec: tracks.shape_held(v, spec, frames), goal)
    contest.row(f"colour at {at}", "higher", lambda v, _, spec: tracks.color_held(v, spec, frames))


def _joint(contest: Contest, where: str, at: int) -> None:
    """Rows of the step from one frame to the next. A clip that stands still there jumps least, and is not the best."""
    contest.row(f"jump at {where}, px", "as truth", lambda v, _, __: tracks.jump(v, at), NEAR_VAE)
    contest.row(f"jump at {where}, levels", "as truth", lambda v, _, __: tracks.levels(v, at))


def _beats_line(contest: Contest, frames: Sequence[int], where: str = "") -> None:
    """Where the way is straight the straight line is the truth; it is to be beaten where it is not."""
    straight = [motion for motion in MOTIONS if motion not in CURVED]
    what = f"centre error {where or f'{frames[0]}-{frames[-1]}'}, px:"
    contest.row(f"{what} curved ways", "lower", lambda v, t, _: tracks.off(v, t, frames), Goal(1, LINE), CURVED)
    contest.row(f"{what} the others", "lower", lambda v, t, _: tracks.off(v, t, frames), motions=straight)


def _bridged(contest: Contest, gap: range) -> Contest:
    """Rows of a gap between frames that are the user's own."""
    contest.add(LINE, [tracks.dissolve(view, gap.start - 1, gap.stop) for view in contest.columns[OURS]])
    _joint(contest, "the first joint", gap.start - 1)
    _joint(contest, "the second joint", gap.stop - 1)
    _beats_line(contest, gap[3:-3] or gap)
    _shows(contest, (gap[len(gap) // 4], gap[len(gap) // 2], gap[-1 - len(gap) // 4]), Goal(1, LINE, least=True))
    return contest


def _seam(contest: Contest, better: Better = "as truth", without: Sequence[str] = ()) -> None:
    """Rows of the step from the last frame of a loop to its first, and of the slot before it, where a loop that only
    closes with a picture comes to a stop: a small jump there says nothing when nothing moves.

    better: clip by clip where what is given tells the way and its beginning, as a spread where it does not. without:
    see `Contest.row`."""

    def pace(view: View, _: View, __: ClipSpec) -> float:
        return tracks.pace(view, range(PERIOD - 6, PERIOD))

    contest.row("frames", "as truth", lambda v, _, __: len(v.frames))
    contest.row(
        "jump at the seam, px",
        better,
        lambda v, _, __: tracks.jump(v, len(v.frames) - 1, 0),
        NEAR_VAE,
        without=without,
    )
    contest.row(
        "pace of the last 6 frames, of the others'", better, pace, Goal(0.7, least=True), CURVED, without=without
    )
    contest.row("difference at the seam, of the usual", better, lambda v, _, __: tracks.seam(v), without=without)
    contest.row("a frame twice at the seam", "lower", lambda v, _, __: float(tracks.seam(v) < TWICE), without=without)


def _goes_around(contest: Contest) -> None:
    """Rows of the way of a loop. Its first picture tells how far an orbit goes, around the middle of the picture, but
    neither how high something bounces nor how far it sways: their ways can only be spread as the truth's."""

    def share(view: View, truth: View, _: ClipSpec) -> float:
        return tracks.way_share(view, truth, range(PERIOD))

    contest.row("length of the way, of the truth's: orbits", "as truth", share, motions=ORBITS)
    contest.row(
        "length of the way is .8 to 1.2 of it: orbits",
        "higher",
        lambda *case: float(0.8 <= share(*case) <= 1.2),
        motions=ORBITS,
    )
    contest.row(
        "length of the way, px: bounces and sways",
        "spread as truth",
        lambda v, _, __: tracks.way(v, range(PERIOD)),
        motions=[motion for motion in CURVED if motion not in ORBITS],
    )
    contest.row("motion", "higher", lambda v, _, spec: tracks.motion_right(v, spec))


CONTESTS: dict[str, Callable[[Bench], list[Contest]]] = {
    "image-to-video": image_to_video,
    "start-end": start_end,
    "keyframes": keyframes,
    "transition": transition,
    "loop": loop,
    "extend": extend,
    "complete": complete,
    "restyle": restyle,
}
