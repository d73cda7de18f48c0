"""Recipe and backbone in, clip out: the one place where a run is spelled out."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pusa_app import media
from pusa_app.backbones.base import Backbone, Text
from pusa_app.checkpoint import Checkpoint
from pusa_app.errors import ModelError, RecipeError, RunCancelled
from pusa_app.events import OnEvent, Phase, Preview, Progress
from pusa_app.sampling import draw_noise, may_go_on_from, sample
from pusa_app.timeline import Keyframe, Made, NoiseSchedule, Piece, Plan, Recipe, Timeline, plan_of

PREVIEW_PICTURES = 8
PREVIEW_WIDTH, PREVIEW_HEIGHT = 1024, 128
# Previews come eight times a second at most, and so rarely that they take a fiftieth of the time.
PREVIEW_SECONDS, PREVIEW_COST = 1 / 8, 0.02
CHUNK = 16  # frames
# Colours are matched to keyframes that are kept about as they are, at so many places of each.
KNOWN_NOISE, KNOWN_PLACES = 0.4, 3
SCRATCH = "The folder for unfinished frames"


@dataclass(frozen=True)
class Clip:
    """A finished clip: its frames, uint8 (n, H, W, 3), when it was rendered into memory, else the file it is in.

    middle: a frame from about its middle, (H, W, 3), of a clip in a file; reading it back would take two programs.
    """

    frames: np.ndarray | None
    path: Path | None
    recipe: Recipe
    num_frames: int
    seconds: float  # that the run took
    middle: np.ndarray | None = None


def render(
    recipe: Recipe,
    backbone: Backbone,
    on_event: OnEvent | None = None,
    *,
    out: Path | None = None,
    cancelled: Callable[[], bool] | None = None,
    state_path: Path | None = None,
    embed: Callable[[Any, Path], Any] | None = None,
) -> Clip:
    """Make the clip of a recipe: the same recipe on the same machine gives the same frames, bit for bit.

    out: the MP4 to write, with the recipe inside; None keeps the frames in memory. embed(recipe, folder): the recipe
    that a file in that folder holds, with other names for the same sources, or None for no recipe inside; without
    `embed` it is the recipe itself. state_path: where the latents are kept from time to time, and when the run is
    cancelled or fails, so that the next run of this recipe goes on from there; removed at the end (pusa_app.checkpoint
    names its files).
    on_event gets Progress and Preview. Raises RecipeError, MediaError, ModelError when the model's numbers run out of
    range, and RunCancelled when `cancelled()` is true.
    """
    _check((recipe.timeline,), backbone)
    plan = plan_of(recipe)
    _check(plan.parts, backbone)
    _use_loras(recipe, backbone)
    if recipe.cache and not hasattr(backbone, "set_cache"):
        raise ModelError("This model has no blocks to cache: turn the cache off, or choose another model.")
    run = _Run(on_event, cancelled, len(plan.parts))
    run.tell("encoding", 0, 1)
    checkpoint = Checkpoint(state_path, recipe, backbone.version)
    try:
        clip = _make(plan, _Maker(recipe, backbone, run, checkpoint), out, embed)
    except Exception:
        checkpoint.flush()
        raise
    checkpoint.remove()
    return clip


def _make(plan: Plan, maker: _Maker, out: Path | None, embed: Callable[[Any, Path], Any] | None) -> Clip:
    recipe = maker.recipe
    if plan.streams and not (recipe.color_match and recipe.timeline.keyframes):
        # Latents to frames to file, piece by piece: the clip is never in memory, nor on the disk twice.
        stop = plan.pieces[0].stop
        return _finish(_until(maker.frames(plan.parts[0], 0, None), stop), recipe, maker.run, out, embed)
    folder = None if out is None else Path(out).absolute().parent
    with media.scratch_folder(folder) as scratch:
        return _finish(_pieces(plan, maker, scratch), recipe, maker.run, out, embed)


def _check(timelines: Iterable[Timeline], backbone: Backbone) -> None:
    """Raises RecipeError when one of them is nothing that the model can make."""
    spec = backbone.spec
    for part in timelines:
        problems = part.problems(spec.size_multiple)
        if part.grid.temporal_stride != spec.temporal_stride:
            problems.append(f"This model has {spec.temporal_stride} frames per slot, not {part.grid.temporal_stride}.")
        if problems:
            raise RecipeError(" ".join(problems))


def _use_loras(recipe: Recipe, backbone: Backbone) -> None:
    """Put the recipe's LoRAs on the model, and those of an earlier recipe off it. Raises ModelError."""
    set_loras = getattr(backbone, "set_loras", None)
    if set_loras is not None:
        set_loras(recipe.loras)
    elif recipe.loras:
        raise ModelError("This model takes no LoRAs: leave them out, or choose another model.")


def _finish(
    chunks: Iterator[np.ndarray],
    recipe: Recipe,
    run: _Run,
    out: Path | None,
    embed: Callable[[Any, Path], Any] | None,
) -> Clip:
    """Take the frames of the result to where they belong."""
    timeline, frames, count, middle = recipe.timeline, None, 0, _Middle()
    with contextlib.closing(chunks):  # type: ignore[type-var]
        if out is None:
            frames = np.concatenate(list(chunks))
            count = len(frames)
        else:
            out = Path(out)
            held = recipe if embed is None else embed(recipe, out.parent)
            text = None if held is None else held.to_json()
            with media.ClipWriter(out, timeline.width, timeline.height, timeline.grid.fps, recipe_text=text) as writer:
                for chunk in chunks:
                    run.check()
                    writer.write(chunk)
                    middle.see(chunk)
                    count += len(chunk)
                run.tell("writing", 0, 1)
            run.tell("writing", 1, 1)
    return Clip(frames, out, recipe, count, run.seconds, middle.frame)


class _Middle:
    """A frame from about the middle of a stream whose length nobody knows: at most MOST of them are held."""

    MOST = 16

    def __init__(self) -> None:
        self._held: list[np.ndarray] = []
        self._every, self._count = 1, 0

    def see(self, chunk: np.ndarray) -> None:
        for frame in chunk:
            if self._count % self._every == 0:
                self._held.append(frame.copy())
                if len(self._held) > self.MOST:
                    del self._held[1::2]
                    self._every *= 2
            self._count += 1

    @property
    def frame(self) -> np.ndarray | None:
        if not self._held:
            return None
        return self._held[min(round(self._count // 2 / self._every), len(self._held) - 1)]


class _Maker:
    """Makes the frames of one part after another with the same words."""

    def __init__(self, recipe: Recipe, backbone: Backbone, run: _Run, checkpoint: Checkpoint) -> None:
        self.recipe, self.run, self._backbone, self._checkpoint = recipe, run, backbone, checkpoint

    @functools.cached_property
    def _texts(self) -> tuple[Text, Text]:
        """The prompt and the null text, encoded when a part needs them first: one that is sampled needs none."""
        text = self._backbone.encode_text(self.recipe.prompt)
        two = self.recipe.guided and not self._backbone.spec.distilled
        return text, self._backbone.encode_text(self.recipe.negative_prompt) if two else text

    def frames(self, timeline: Timeline, part: int, parts: _Parts | None) -> Iterator[np.ndarray]:
        """uint8 chunks (n, H, W, 3) of a part; `parts` holds the frames of the earlier ones."""
        run, recipe, backbone, spec = self.run, self.recipe, self._backbone, self._backbone.spec
        run.part = part
        stride = spec.spatial_stride
        shape = (spec.latent_channels, timeline.grid.num_slots, timeline.height // stride, timeline.width // stride)

        # 1. Keyframes and noise to latents, unless an earlier attempt left some. It left latents and no frames, which
        # are two dozen times as large: a part that was finished is decoded again, the lesser share of its time.
        state = self._checkpoint.load(part, shape)
        if state is None:
            z0, noise = self._keyframes(timeline, parts, shape), draw_noise(recipe.seed + part, shape)
        else:
            z0 = noise = state.z  # a state has both in it
        run.tell("sampling", state.step if state else 0, recipe.steps)

        # 2. Noise to latents, along the noise matrix.
        if state is not None and state.step == recipe.steps:
            z = state.z
            run.show(state.step, backbone, z, last=True)
        else:
            schedule = recipe.schedule or spec.schedule
            sigmas = schedule.sigmas(recipe.steps)
            S = NoiseSchedule(sigmas=sigmas, multipliers=timeline.noise_multipliers()).matrix()

            def on_step(i: int, steps: int, z: torch.Tensor, x0: torch.Tensor) -> None:
                if may_go_on_from(i, steps, recipe.cache):
                    self._checkpoint.keep(part, i, z)
                run.tell("sampling", i, steps)
                run.show(i, backbone, x0, last=i == steps)

            text, null_text = self._texts
            guided = text, null_text, recipe.guidances(sigmas, spec.boundary)
            more = {"sigmas": sigmas, "cache": recipe.cache}
            z = sample(backbone, S, z0, noise, *guided, on_step, run.cancelled, state, **more)
        if not z.isfinite().all():
            self._checkpoint.remove()
            raise ModelError(
                "The model's numbers ran out of range: try a lower guidance, or get the model's files again."
            )

        # 3. Latents to frames.
        for frames in run.decoding(backbone.decode(z), timeline.grid.num_frames):
            yield frames
            self._checkpoint.tick()

    def _keyframes(self, timeline: Timeline, parts: _Parts | None, shape: tuple[int, int, int, int]) -> torch.Tensor:
        """Keyframe latents (C, F, h, w) in their slots; what is not known is zero."""
        run, count = self.run, len(timeline.keyframes) + 1
        run.tell("encoding", 1, count)
        z0 = torch.zeros(shape)
        for number, keyframe in enumerate(timeline.keyframes, 2):
            run.check()
            source = source_frames(keyframe, timeline, parts)
            z0[:, keyframe.slot : keyframe.slot + keyframe.span] = _encode(self._backbone, keyframe, source)
            run.tell("encoding", number, count)
        return z0


def _encode(backbone: Backbone, keyframe: Keyframe, frames: np.ndarray) -> torch.Tensor:
    """Latents (C, span, h, w) of a keyframe's frames.

    The VAE is causal and makes the first latent of what it encodes from one frame. That is right for slot 0 and for a
    picture; a clip in a later slot is led in by its own first frame, whose latent is left out. (Frames of the source
    that lie before would do about .2 dB better, and would bring in what the user did not choose.)
    """
    if keyframe.still or keyframe.slot == 0:
        return backbone.encode_frames(frames)
    return backbone.encode_frames(np.concatenate((frames[:1], frames)))[:, 1:]


def source_frames(keyframe: Keyframe, timeline: Timeline, parts: _Parts | None = None) -> np.ndarray:
    """The pixels of a keyframe at the size of the timeline: uint8 (n, H, W, 3), n as `Keyframe.num_frames` says."""
    source, count = keyframe.source, keyframe.num_frames(timeline.grid.temporal_stride)
    size = timeline.width, timeline.height
    if source.kind == "image":
        return media.load_image(source.path, *size, fit=keyframe.fit, focus=keyframe.focus)[None]
    if source.kind == "part":
        assert parts is not None
        return parts.read(source.part, source.start, source.start + count)
    return media.load_clip(
        source.path,
        *size,
        fps=timeline.grid.fps,
        start=source.start,
        num_frames=count,
        fit=keyframe.fit,
        focus=keyframe.focus,
    )


# --- results of several pieces ---------------------------------------------------------------------------------------


class _Parts:
    """Frames of finished parts, raw in files of a scratch folder, so that memory does not grow with their number."""

    def __init__(self, plan: Plan, scratch: Path) -> None:
        self._plan, self._scratch = plan, scratch
        self._shape = (plan.parts[0].height, plan.parts[0].width, 3)
        self._matches: dict[int, media.ColorMatch] = {}
        self.done: set[int] = set()

    def _file(self, part: int) -> Path:
        return self._scratch / f"part-{part}.rgb"

    def keep(self, part: int, chunks: Iterable[np.ndarray], known: list[tuple[int, np.ndarray]]) -> None:
        """Write the frames of a part; `known` are (index, frame) whose colours it takes over when it is read."""
        places, at = dict(known), 0
        made: list[tuple[int, np.ndarray, np.ndarray]] = []
        with contextlib.ExitStack() as stack:
            with media.writing(SCRATCH):
                file = stack.enter_context(self._file(part).open("wb"))
            for chunk in chunks:
                made += [(i, chunk[i - at].copy(), places[i]) for i in range(at, at + len(chunk)) if i in places]
                at += len(chunk)
                # Only this: a ValueError of the model is no fault of the disk.
                with media.writing(SCRATCH):
                    file.write(np.ascontiguousarray(chunk).data)
                    file.flush()
        if made:
            self._matches[part] = media.ColorMatch.fit(made)
        self.done.add(part)

    def read(self, part: int, start: int, stop: int) -> np.ndarray:
        size = int(np.prod(self._shape))
        frames = np.fromfile(self._file(part), np.uint8, (stop - start) * size, offset=start * size)
        frames = frames.reshape(stop - start, *self._shape)
        return self._matches[part].apply(frames, start) if part in self._matches else frames

    def chunks(self, piece: Made) -> Iterator[np.ndarray]:
        for start in range(piece.start, piece.stop, CHUNK):
            yield self.read(piece.part, start, min(start + CHUNK, piece.stop))

    def forget(self, waiting: Iterable[Piece]) -> None:
        """Remove the files that neither a later part nor a piece that is still to be written needs."""
        needed = {piece.part for piece in waiting if piece.kind == "made"}
        for number, timeline in enumerate(self._plan.parts):
            if number not in self.done:
                needed |= {k.source.part for k in timeline.keyframes if k.source.kind == "part"}
        for part in self.done - needed:
            self._file(part).unlink(missing_ok=True)


def _pieces(plan: Plan, maker: _Maker, scratch: Path) -> Iterator[np.ndarray]:
    """The frames of the result in order of time, each as soon as it can be had."""
    parts, waiting = _Parts(plan, scratch), list(plan.pieces)
    for number, timeline in enumerate(plan.parts):
        known = _known(timeline, parts) if maker.recipe.color_match else []
        parts.keep(number, maker.frames(timeline, number, parts), known)
        while waiting and (waiting[0].kind == "kept" or waiting[0].part in parts.done):
            yield from _frames_of(waiting.pop(0), timeline, parts)
        parts.forget(waiting)


def _frames_of(piece: Piece, timeline: Timeline, parts: _Parts) -> Iterator[np.ndarray]:
    if piece.kind == "made":
        return parts.chunks(piece)
    if piece.stop is None and media.count_frames(piece.path, timeline.grid.fps) <= piece.start:
        return iter(())
    return media.stream_clip(
        piece.path,
        timeline.width,
        timeline.height,
        fps=timeline.grid.fps,
        start=piece.start,
        num_frames=None if piece.stop is None else piece.stop - piece.start,
        fit=piece.fit,
        focus=piece.focus,
        chunk=CHUNK,
    )


def _known(timeline: Timeline, parts: _Parts) -> list[tuple[int, np.ndarray]]:
    """(index, frame) of a few frames of each keyframe, from slots that a part keeps about as they are."""
    found, grid = [], timeline.grid
    for keyframe in timeline.keyframes:
        places = keyframe.frames(grid.temporal_stride)
        noises = [keyframe.noises[grid.slot_of(place) - keyframe.slot] for place in places]
        firm = [i for i, noise in enumerate(noises) if noise <= KNOWN_NOISE]
        if not firm:
            continue
        frames = source_frames(keyframe, timeline, parts)
        chosen = {firm[i] for i in np.linspace(0, len(firm) - 1, KNOWN_PLACES).round().astype(int)}
        found += [(places[i], frames[i].copy()) for i in sorted(chosen)]
    return found


def _until(chunks: Iterator[np.ndarray], stop: int) -> Iterator[np.ndarray]:
    """The first `stop` frames of chunks; the rest is made and left out, so that the run ends as it should."""
    at = 0
    for chunk in chunks:
        if at < stop:
            yield chunk[: stop - at]
        at += len(chunk)


class _Run:
    """What one run tells and hears: numbered events out, cancellation in."""

    def __init__(self, on_event: OnEvent | None, cancelled: Callable[[], bool] | None, parts: int) -> None:
        self._on_event, self.cancelled = on_event, cancelled
        self.part, self._parts = 0, parts
        self._started = time.monotonic()
        self._sequence = 0
        self._next_preview = self._started

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def tell(self, phase: Phase, step: int, steps: int) -> None:
        self._send(Progress(phase, step, steps, self.seconds, part=self.part, parts=self._parts))

    def show(self, step: int, backbone: Backbone, x0: torch.Tensor, last: bool) -> None:
        """A strip of small pictures of the clip as it looks now; nothing is computed when nobody watches.

        A fast model shows some of its steps only, and the last one always.
        """
        started = time.monotonic()
        if self._on_event is None or (started < self._next_preview and not last):
            return
        self._send(Preview(step, contact_strip(backbone.preview(x0))))
        ended = time.monotonic()
        self._next_preview = max(started + PREVIEW_SECONDS, ended + (ended - started) / PREVIEW_COST)

    def check(self) -> None:
        if self.cancelled is not None and self.cancelled():
            raise RunCancelled("The run was cancelled.")

    def decoding(self, chunks: Iterator[np.ndarray], num_frames: int) -> Iterator[np.ndarray]:
        """Pass the chunks on, counting frames."""
        done = 0
        self.tell("decoding", 0, num_frames)
        for frames in chunks:
            self.check()
            yield frames
            done += len(frames)
            self.tell("decoding", done, num_frames)

    def _send(self, event: Progress | Preview) -> None:
        if self._on_event is not None:
            self._sequence += 1
            self._on_event(dataclasses.replace(event, sequence=self._sequence))


def contact_strip(pictures: np.ndarray) -> bytes:
    """Slots, uint8 (F, h, w, 3), as a JPEG: at most eight of them side by side, enlarged smoothly."""
    count = min(len(pictures), PREVIEW_PICTURES)
    chosen = pictures[np.linspace(0, len(pictures) - 1, count).round().astype(int)]
    strip = Image.fromarray(np.ascontiguousarray(np.concatenate(list(chosen), axis=1)))
    scale = min(PREVIEW_HEIGHT / strip.height, PREVIEW_WIDTH / strip.width)
    size = max(1, round(strip.width * scale)), max(1, round(strip.height * scale))
    data = io.BytesIO()
    strip.resize(size, Image.Resampling.BICUBIC).save(data, "JPEG", quality=85)
    return data.getvalue()
