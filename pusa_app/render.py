"""Recipe and backbone in, clip out: the one place where a run is spelled out."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pusa_app.backbones.base import Backbone
from pusa_app.errors import ModelError, RecipeError, RunCancelled
from pusa_app.events import OnEvent, Phase, Preview, Progress
from pusa_app.sampling import SamplerState, draw_noise, sample
from pusa_app.timeline import Keyframe, NoiseSchedule, Recipe, frames_for_slots

PREVIEW_PICTURES = 8
PREVIEW_WIDTH, PREVIEW_HEIGHT = 1024, 128


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
    embedded: Recipe | None = None,
) -> Clip:
    """Make the clip of a recipe: the same recipe on the same machine gives the same frames, bit for bit.

    out: the MP4 to write, with the recipe inside; None keeps the frames in memory. state_path: where the latents are
    kept after each step, so that an interrupted run of this recipe goes on from there; it is removed at the end.
    embedded: the recipe that the file holds where it is not this one (other names for the same sources).
    on_event gets Progress and Preview. Raises RecipeError, MediaError, ModelError when the model's numbers run out of
    range, and RunCancelled when `cancelled()` is true.
    """
    run = _Run(on_event, cancelled)
    spec, timeline = backbone.spec, recipe.timeline

    # 1. Is this a clip that the model can make?
    problems = timeline.problems(spec.size_multiple)
    if timeline.grid.temporal_stride != spec.temporal_stride:
        problems.append(f"This model has {spec.temporal_stride} frames per slot, not {timeline.grid.temporal_stride}.")
    if problems:
        raise RecipeError(" ".join(problems))

    # 2. Words and keyframes to numbers; what is not known is zero.
    run.tell("encoding", 0, len(timeline.keyframes) + 1)
    text = backbone.encode_text(recipe.prompt)
    null_text = text if recipe.guidance == 1 else backbone.encode_text(recipe.negative_prompt)
    run.tell("encoding", 1, len(timeline.keyframes) + 1)
    stride = spec.spatial_stride
    shape = (spec.latent_channels, timeline.grid.num_slots, timeline.height // stride, timeline.width // stride)
    z0 = torch.zeros(shape)
    for number, keyframe in enumerate(timeline.keyframes, 2):
        run.check()
        z0[:, keyframe.slot : keyframe.slot + keyframe.span] = backbone.encode_frames(_frames_of(keyframe, recipe))
        run.tell("encoding", number, len(timeline.keyframes) + 1)

    # 3. Noise to latents, along the noise matrix.
    schedule = recipe.schedule or spec.schedule
    S = NoiseSchedule(sigmas=schedule.sigmas(recipe.steps), multipliers=timeline.noise_multipliers()).matrix()
    states = _States(state_path, recipe, shape)
    state = states.load()
    run.tell("sampling", state.step if state else 0, recipe.steps)

    def on_step(i: int, steps: int, z: torch.Tensor, x0: torch.Tensor) -> None:
        states.save(i, z)
        run.tell("sampling", i, steps)
        run.show(i, backbone, x0)

    z = sample(
        backbone, S, z0, draw_noise(recipe.seed, shape), text, null_text, recipe.guidance, on_step, run.cancelled, state
    )
    if not z.isfinite().all():
        states.remove()
        raise ModelError("The model's numbers ran out of range: try a lower guidance, or get the model's files again.")

    # 4. Latents to frames, and out with them.
    chunks = run.decoding(backbone.decode(z), timeline.grid.num_frames)
    frames = None
    if out is None:
        frames = np.concatenate(list(chunks))
    else:
        out = Path(out)
        _write(chunks, out, embedded or recipe, run)
    states.remove()
    return Clip(frames, out, recipe, timeline.grid.num_frames, run.seconds)


def _frames_of(keyframe: Keyframe, recipe: Recipe) -> np.ndarray:
    """The pixels of a keyframe: one picture, or as many frames as give its span of latents.

    The VAE is causal and makes the first latent of whatever it encodes from one frame, so a clip keyframe takes
    stride*(span-1)+1 frames wherever it stands.
    """
    from pusa_app import media

    source, timeline = keyframe.source, recipe.timeline
    size = timeline.width, timeline.height
    if source.kind == "image":
        return media.load_image(source.path, *size, fit=keyframe.fit, focus=keyframe.focus)[None]
    return media.load_clip(
        source.path,
        *size,
        fps=timeline.grid.fps,
        start=source.start,
        num_frames=frames_for_slots(keyframe.span, timeline.grid.temporal_stride),
        fit=keyframe.fit,
        focus=keyframe.focus,
    )


def _write(chunks: Iterator[np.ndarray], out: Path, recipe: Recipe, run: _Run) -> None:
    """Decode and write piece by piece: the whole clip is never in memory."""
    from pusa_app import media

    timeline, text = recipe.timeline, recipe.to_json()
    with media.ClipWriter(out, timeline.width, timeline.height, timeline.grid.fps, recipe_text=text) as writer:
        for frames in chunks:
            writer.write(frames)
        run.tell("writing", 0, 1)
    run.tell("writing", 1, 1)


class _Run:
    """What one run tells and hears: numbered events out, cancellation in."""

    def __init__(self, on_event: OnEvent | None, cancelled: Callable[[], bool] | None) -> None:
        self._on_event, self.cancelled = on_event, cancelled
        self._started = time.monotonic()
        self._sequence = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def tell(self, phase: Phase, step: int, steps: int) -> None:
        self._send(Progress(phase, step, steps, self.seconds))

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
    """Keeps the sampler's state on disk, if there is a path for it."""

    def __init__(self, path: Path | None, recipe: Recipe, shape: tuple[int, int, int, int]) -> None:
        self._path, self._shape, self._steps = path, shape, recipe.steps
        self._run = hashlib.sha256(recipe.to_json().encode()).hexdigest()

    def load(self) -> SamplerState | None:
        """The state to go on from; None when there is none for this very recipe."""
        if self._path is None or not self._path.is_file():
            return None
        from safetensors import SafetensorError

        try:
            state = SamplerState.load(self._path)
        except (OSError, ValueError, SafetensorError):
            return None  # a damaged state costs the time of a fresh start, not the run
        fits = state.run == self._run and state.z.shape == self._shape and 0 < state.step <= self._steps
        return state if fits else None

    def save(self, step: int, z: torch.Tensor) -> None:
        if self._path is not None:
            SamplerState(step, z, self._run).save(self._path)

    def remove(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)


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
