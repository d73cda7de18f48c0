"""Recipe and backbone in, clip out: the one place where a run is spelled out."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
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
from pusa_app.errors import ModelError, RecipeError, RunCancelled
from pusa_app.events import OnEvent, Phase, Preview, Progress
from pusa_app.sampling import SamplerState, draw_noise, sample
from pusa_app.timeline import Keyframe, Made, NoiseSchedule, Piece, Plan, Recipe, Timeline, plan_of

PREVIEW_PICTURES = 8
PREVIEW_WIDTH, PREVIEW_HEIGHT = 1024, 128
CHUNK = 16  # frames
# Colours are matched to keyframes that are kept about as they are, at so many places of each.
KNOWN_NOISE, KNOWN_PLACES = 0.4, 3
SCRATCH = "The folder for unfinished frames"


@dataclass(frozen=True)
class Clip:
    """A finished clip: its frames, uint8 (n, H, W, 3), when it was rendered into memory, else the file it is in."""

    frames: np.ndarray | None
    path: Path | None
    recipe: Recipe
    num_frames: int
    seconds: float  # that the run took


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

    out: the MP4 to write, with the recipe inside; None keeps the frames in memory. state_path: where the latents are
    kept after each step, so that an interrupted run of this recipe goes on from there; it is removed at the end (part k
    of several adds .k to the name). embed(recipe, folder): the recipe that a file in that folder holds, with other
    names for the same sources, or None for no recipe inside; without `embed` it is the recipe itself.
    on_event gets Progress and Preview. Raises RecipeError, MediaError, ModelError when the model's numbers run out of
    range, and RunCancelled when `cancelled()` is true.
    """
    _check((recipe.timeline,), backbone)
    plan = plan_of(recipe)
    _check(plan.parts, backbone)
    run = _Run(on_event, cancelled, len(plan.parts))
    run.tell("encoding", 0, 1)
    text = backbone.encode_text(recipe.prompt)
    null_text = text if recipe.guidance == 1 else backbone.encode_text(recipe.negative_prompt)
    states = _States(state_path, recipe)
    maker = _Maker(recipe, backbone, run, states, text, null_text)

    if plan.streams and not (recipe.color_match and recipe.timeline.keyframes):
        # Latents to frames to file, piece by piece: the clip is never in memory, nor on the disk twice.
        stop = plan.pieces[0].stop
        chunks = _until(maker.frames(plan.parts[0], 0, None), stop)
        return _finish(chunks, recipe, run, out, embed, states)
    folder = None if out is None else Path(out).absolute().parent
    with media.scratch_folder(folder) as scratch:
        return _finish(_pieces(plan, maker, scratch), recipe, run, out, embed, states)


def _check(timelines: Iterable[Timeline], backbone: Backbone) -> None:
    """Raises RecipeError when one of them is nothing that the model can make."""
    spec = backbone.spec
    for part in timelines:
        problems = part.problems(spec.size_multiple)
        if part.grid.temporal_stride != spec.temporal_stride:
            problems.append(f"This model has {spec.temporal_stride} frames per slot, not {part.grid.temporal_stride}.")
        if problems:
            raise RecipeError(" ".join(problems))


def _finish(
    chunks: Iterator[np.ndarray],
    recipe: Recipe,
    run: _Run,
    out: Path | None,
    embed: Callable[[Any, Path], Any] | None,
    states: _States,
) -> Clip:
    """Take the frames of the result to where they belong."""
    timeline, frames, count = recipe.timeline, None, 0
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
                    count += len(chunk)
                run.tell("writing", 0, 1)
            run.tell("writing", 1, 1)
    states.remove()
    return Clip(frames, out, recipe, count, run.seconds)


class _Maker:
    """Makes the frames of one part after another with the same words."""

    def __init__(
        self, recipe: Recipe, backbone: Backbone, run: _Run, states: _States, text: Text, null_text: Text
    ) -> None:
        self.recipe, self.run, self._backbone, self._states = recipe, run, backbone, states
        self._text, self._null_text = text, null_text

    def frames(self, timeline: Timeline, part: int, parts: _Parts | None) -> Iterator[np.ndarray]:
        """uint8 chunks (n, H, W, 3) of a part; `parts` holds the frames of the earlier ones."""
        run, recipe, backbone, spec = self.run, self.recipe, self._backbone, self._backbone.spec
        run.part = part

        # 1. Keyframes to latents; what is not known is zero.
        run.tell("encoding", 1, len(timeline.keyframes) + 1)
        stride = spec.spatial_stride
        shape = (spec.latent_channels, timeline.grid.num_slots, timeline.height // stride, timeline.width // stride)
        z0 = torch.zeros(shape)
        for number, keyframe in enumerate(timeline.keyframes, 2):
            run.check()
            source = source_frames(keyframe, timeline, parts)
            z0[:, keyframe.slot : keyframe.slot + keyframe.span] = _encode(backbone, keyframe, source)
            run.tell("encoding", number, len(timeline.keyframes) + 1)

        # 2. Noise to latents, along the noise matrix.
        schedule = recipe.schedule or spec.schedule
        S = NoiseSchedule(sigmas=schedule.sigmas(recipe.steps), multipliers=timeline.noise_multipliers()).matrix()
        state = self._states.load(part, shape)
        run.tell("sampling", state.step if state else 0, recipe.steps)

        def on_step(i: int, steps: int, z: torch.Tensor, x0: torch.Tensor) -> None:
            self._states.save(part, i, z)
            run.tell("sampling", i, steps)
            run.show(i, backbone, x0)

        noise = draw_noise(recipe.seed + part, shape)
        z = sample(backbone, S, z0, noise, self._text, self._null_text, recipe.guidance, on_step, run.cancelled, state)
        if not z.isfinite().all():
            self._states.remove()
            raise ModelError(
                "The model's numbers ran out of range: try a lower guidance, or get the model's files again."
            )

        # 3. Latents to frames.
        yield from run.decoding(backbone.decode(z), timeline.grid.num_frames)


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

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def tell(self, phase: Phase, step: int, steps: int) -> None:
        self._send(Progress(phase, step, steps, self.seconds, part=self.part, parts=self._parts))

    def show(self, step: int, backbone: Backbone, x0: torch.Tensor) -> None:
        """A strip of small pictures of the clip as it looks now; nothing is computed when nobody watches."""
        if self._on_event is not None:
            self._send(Preview(step, contact_strip(backbone.preview(x0))))

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


class _States:
    """Keeps the sampler's state of each part on disk, if there is a path for it."""

    def __init__(self, path: Path | None, recipe: Recipe) -> None:
        self._path, self._steps = path, recipe.steps
        self._run = hashlib.sha256(recipe.to_json().encode()).hexdigest()
        self._parts: set[int] = set()

    def _file(self, part: int) -> Path | None:
        if self._path is None or part == 0:
            return self._path
        return self._path.with_name(f"{self._path.name}.{part}")

    def load(self, part: int, shape: tuple[int, int, int, int]) -> SamplerState | None:
        """The state to go on from; None when there is none for this very recipe."""
        path = self._file(part)
        if path is None:
            return None
        self._parts.add(part)
        if not path.is_file():
            return None
        from safetensors import SafetensorError

        try:
            state = SamplerState.load(path)
        except (OSError, ValueError, SafetensorError):
            return None  # a damaged state costs the time of a fresh start, not the run
        fits = state.run == self._run and state.z.shape == shape and 0 < state.step <= self._steps
        return state if fits else None

    def save(self, part: int, step: int, z: torch.Tensor) -> None:
        if path := self._file(part):
            SamplerState(step, z, self._run).save(path)

    def remove(self) -> None:
        for part in self._parts:
            if path := self._file(part):
                path.unlink(missing_ok=True)


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
