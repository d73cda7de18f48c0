"""What a contest of the tasks needs: held-out clips, the making of results, a table of measures, and goals.

Each contest takes clips whose truth is known, gives a task a part of each, and compares what comes back with the truth,
with the VAE's round trip of it (the ceiling), with trivial answers, and with replacement (replacement.py).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from pusa_app.backbones.base import Backbone
from pusa_app.bench.replacement import Replacement, clean
from pusa_app.bench.tracks import View
from pusa_app.media import ClipWriter
from pusa_app.models import ModelCard
from pusa_app.render import render
from pusa_app.studio import new_recipe
from pusa_app.timeline import Given, Options, Timeline, get_task
from pusa_app.training.captions import plain_caption
from pusa_app.training.clips import MOTIONS, NUM_FRAMES, ClipSpec, draw, sample_spec

SEED = 30_000_001  # far from every seed of the training
TRUTH, VAE = "truth", "VAE"
FREEZE, LINE, RESTART, OPEN = "freeze", "straight line", "restart", "left open"
SOURCE = "source"
OURS, OLD, UNMATCHED = "vectorized", "replacement", "no colour match"

# "as truth": each clip's value is best where it is that clip's truth's. "spread as truth", where a clip's truth is not
# in what was given: the values of all clips together are best where they are spread as the truth's.
Better = Literal["lower", "higher", "as truth", "spread as truth"]
Measure = Callable[[View, View, ClipSpec], float]


@dataclass(frozen=True)
class Goal:
    """What is asked of a row: its value, or the ratio of its value to another method's, is at most or at least so much.

    of: the other method; None asks of the value itself.
    """

    asked: float
    of: str | None = None
    least: bool = False

    def reached(self, values: Mapping[str, float]) -> float:
        """NaN where there is nothing to compare with, which meets no goal."""
        if self.of is None:
            return values[OURS]
        return values[OURS] / values[self.of] if values[self.of] else math.nan

    def met(self, values: Mapping[str, float]) -> bool:
        reached = self.reached(values)
        return reached >= self.asked if self.least else reached <= self.asked


NEAR_VAE = Goal(1.3, VAE)
SWAPS, CHANCE, SWAP_SEED = 4000, 0.025, 5
DRAWS, MIDDLE, DRAW_SEED = 4000, 0.9, 6
ROUNDING = 1e-9  # means of the same values in another order differ by less


@dataclass(frozen=True)
class Row:
    """One measure: its mean over the clips for each method, which way is better, and what is asked of it.

    values: the means, which are printed and of which the goal asks. Methods are compared by them too, but where "truth"
    is best by the mean distance from it (see Better): clips that fall short do not make up for others that go beyond.
    clips: what was measured of each clip, in the same order for each method; NaN is a clip that does not count, and
    where the truth is best a NaN of the truth is one that counts for nobody.
    """

    what: str
    better: Better
    values: dict[str, float]
    goal: Goal | None = None
    clips: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, what: str, better: Better, clips: dict[str, list[float]], goal: Goal | None = None) -> Row:
        values = {method: float(_means(np.array([found], float))[0]) for method, found in clips.items()}
        return cls(what, better, values, goal, clips)

    def holds(self, method: str, other: str) -> bool:
        """Whether `method` is at least as good as `other`."""
        return self._lead(method, other) >= 0

    def leads(self, method: str, other: str) -> bool:
        """Whether `method` is better than `other`."""
        return self._lead(method, other) > 0

    def _lead(self, method: str, other: str) -> float:
        """By how much `method` is better than `other`; NaN where one of them has no value."""
        if not self._beside(method, other):
            return math.nan
        a, b = (np.array([self.clips[name]], float) for name in (method, other))
        lead = float((self._badness(b) - self._badness(a))[0])
        return 0.0 if abs(lead) < ROUNDING else lead

    def wins(self, method: str, other: str) -> bool:
        """Whether `method` leads by more than chance gives: a paired permutation test on the clips. With the two
        methods swapped in clips at random, a lead as large comes up in at most CHANCE of SWAPS tries."""
        if not self.leads(method, other):
            return False
        a, b = (np.array(self.clips[name], float) for name in (method, other))
        swapped = np.random.default_rng(SWAP_SEED).random((SWAPS, len(a))) < 0.5
        swapped[0] = False
        leads = self._badness(np.where(swapped, a, b)) - self._badness(np.where(swapped, b, a))
        return float((leads >= leads[0] - ROUNDING).mean()) <= CHANCE

    def interval(self) -> tuple[float, float] | None:
        """From where to where the middle 90 % of the values go that the goal is asked of when as many clips are drawn
        anew with repetition, the same for both methods of a ratio; None where there is no value. A bootstrap."""
        assert self.goal
        methods = [OURS] if self.goal.of is None else [OURS, self.goal.of]
        if math.isnan(self.goal.reached(self.values)) or not self._beside(*methods):
            return None
        size = len(self.clips[OURS])
        drawn = np.random.default_rng(DRAW_SEED).integers(0, size, (DRAWS, size))
        found = [_means(np.array(self.clips[method], float)[drawn]) for method in methods]
        with np.errstate(divide="ignore", invalid="ignore"):  # where the other method has nothing in all that was drawn
            reached = found[0] / found[1] if len(found) == 2 else found[0]
        ends = (1 - MIDDLE) / 2, (1 + MIDDLE) / 2
        low, high = np.nanquantile(reached, ends, method="nearest")  # the mean of two would be NaN at infinity
        return float(low), float(high)

    def _beside(self, *methods: str) -> bool:
        """Whether each of these was measured on the same clips, and the truth where it is needed."""
        needed = (*methods, TRUTH) if self.better.endswith("truth") else methods
        sizes = {len(self.clips.get(name, ())) for name in needed}
        return len(sizes) == 1 and sizes != {0}

    def _badness(self, values: np.ndarray) -> np.ndarray:
        """(tries, clips) -> how far each try is from the best, but for a constant; NaN where no clip counts."""
        if not self.better.endswith("truth"):
            return _means(values) if self.better == "lower" else -_means(values)
        truth = np.array(self.clips[TRUTH], float)
        counted = ~np.isnan(truth)
        values, truth = values[:, counted], truth[counted]
        if self.better == "spread as truth":
            values, truth = np.sort(values), np.sort(truth)
        return _means(abs(values - truth))


def _means(values: np.ndarray) -> np.ndarray:
    """(tries, clips) -> the mean of each try, without clips that do not count; NaN where none does."""
    counted = ~np.isnan(values)
    sizes = counted.sum(1)
    return np.where(sizes > 0, np.where(counted, values, 0).sum(1) / np.maximum(sizes, 1), math.nan)


@dataclass
class Contest:
    """What several methods made of the same clips. specs: what the results should show from their first frame on."""

    name: str
    specs: list[ClipSpec]
    columns: dict[str, list[View]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    def add(self, method: str, clips: Iterable[np.ndarray | View]) -> None:
        self.columns[method] = [clip if isinstance(clip, View) else View.of(clip) for clip in clips]

    def row(
        self,
        what: str,
        better: Better,
        measure: Measure,
        goal: Goal | None = None,
        motions: Sequence[str] = MOTIONS,
        without: Sequence[str] = (),
    ) -> None:
        """Measure the methods on clips with one of these motions; a NaN is a clip that does not count. without: methods
        that this row has nothing to say about."""
        clips = {
            method: [
                measure(view, truth, spec)
                for view, truth, spec in zip(views, self.columns[TRUTH], self.specs, strict=True)
                if spec.motion in motions
            ]
            for method, views in self.columns.items()
            if method not in without
        }
        self.rows.append(Row.of(what, better, clips, goal))


class Bench:
    """Makes clips with one model through `render`, the way that users' runs take, from files in a scratch folder.

    clips: how many a contest takes, rounded up to whole rounds of its motions.
    """

    def __init__(
        self,
        card: ModelCard,
        backbone: Backbone,
        folder: Path,
        clips: int,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> None:
        self.card, self.clips, self.noise, self.closing = card, clips, card.spec.noise, Options().closing
        self._backbone, self._folder, self._files = backbone, folder, 0
        self._steps, self._guidance = steps, guidance

    def specs(self, num_frames: int = NUM_FRAMES, motions: Sequence[str] = MOTIONS, times: int = 1) -> list[ClipSpec]:
        """What a contest plays: held-out clips with these motions in turn, `times` as many as usual."""
        return draw_specs(whole_rounds(times * self.clips, len(motions)), num_frames, motions)

    def picture(self, frame: np.ndarray) -> Given:
        """A frame as an image file."""
        path = self._new_file("png")
        Image.fromarray(frame).save(path)
        return Given(path=str(path))

    def clip(self, frames: np.ndarray) -> Given:
        """Frames as a video file."""
        path = self._new_file("mp4")
        height, width = frames.shape[1:3]
        with ClipWriter(path, width, height, self.card.spec.fps) as writer:
            writer.write(frames)
        return Given(path=str(path), frames=len(frames))

    def _new_file(self, ending: str) -> Path:
        self._files += 1
        return self._folder / f"{self._files}.{ending}"

    def timeline(self, task: str, given: Mapping[str, Given], options: Options | None = None) -> Timeline:
        """What was given in its slots, with the noise that the model's card advises."""
        return get_task(task).timeline(self.card.spec.timeline(), given, options, self.noise)

    def make(
        self,
        task: str,
        timeline: Timeline,
        prompt: str,
        seed: int,
        method: str = OURS,
        options: Options | None = None,
        color_match: bool | None = None,
    ) -> np.ndarray:
        """uint8 (n, H, W, 3): the result of a task, by vectorized times or by replacement."""
        backbone = self._backbone
        if method == OLD:
            timeline, backbone = clean(timeline), Replacement(backbone, seed)
            options = options and options.model_copy(update={"closing": 0.0})
        recipe = new_recipe(
            self.card,
            task,
            prompt=prompt,
            keyframes=timeline.keyframes,
            steps=self._steps,
            guidance=self._guidance,
            seed=seed,
            options=options,
            color_match=color_match,
        )
        print(f"\r\033[K{task}, {method}: {seed + 1}", end="", file=sys.stderr, flush=True)
        frames = render(recipe, backbone).frames
        assert frames is not None
        return frames

    def make_all(
        self,
        task: str,
        specs: Sequence[ClipSpec],
        timelines: Sequence[Timeline],
        options: Options | None = None,
        methods: Sequence[str] = (OURS, OLD),
        color_match: bool | None = None,
    ) -> dict[str, list[np.ndarray]]:
        """The results of some methods, with the plain captions of the clips as prompts."""
        pairs = list(zip(specs, timelines, strict=True))
        return {
            method: [
                self.make(task, line, plain_caption(spec), seed, method, options, color_match)
                for seed, (spec, line) in enumerate(pairs)
            ]
            for method in methods
        }

    def contest(
        self, name: str, specs: Sequence[ClipSpec], made: Mapping[str, Sequence[np.ndarray]], new: range
    ) -> Contest:
        """The truth, the round trip and what was made. Frames outside `new` are the user's own: the round trip has them
        too, so that its joints are those between real frames and the best that a model could make."""
        contest, size = Contest(name, list(specs)), len(made[OURS][0])
        truths = [draw(spec) for spec in specs]
        contest.add(TRUTH, [truth[:size] for truth in truths])
        rebuilt = [self.rebuilt(truth)[:size] for truth in truths]
        contest.add(VAE, [with_new(own, clip, new) for own, clip in zip(made[OURS], rebuilt, strict=True)])
        for method, clips in made.items():
            contest.add(method, clips)
        return contest

    def rebuilt(self, frames: np.ndarray) -> np.ndarray:
        """Frames through the VAE and back, a long clip in pieces that overlap, as its parts are made."""
        size, overlap = self.card.spec.num_frames, 2 * self.card.spec.temporal_stride + 1
        result, start = self._through_vae(frames[:size]), 0
        while len(result) < len(frames):
            start += size - overlap
            result = np.concatenate((result, self._through_vae(frames[start : start + size])[overlap:]))
        return result

    def _through_vae(self, frames: np.ndarray) -> np.ndarray:
        """The last frame is repeated up to a length that the VAE takes."""
        padding = np.repeat(frames[-1:], -(len(frames) - 1) % self.card.spec.temporal_stride, axis=0)
        latents = self._backbone.encode_frames(np.concatenate((frames, padding)))
        return np.concatenate(list(self._backbone.decode(latents)))[: len(frames)]


def with_new(own: np.ndarray, frames: np.ndarray, new: range) -> np.ndarray:
    """A clip whose frames `new` come from another clip."""
    result = own.copy()
    result[new.start : new.stop] = frames[new.start : new.stop]
    return result


def draw_specs(count: int, num_frames: int = NUM_FRAMES, motions: Sequence[str] = MOTIONS) -> list[ClipSpec]:
    """Clips that no training has seen, with the motions in turn."""
    rng = np.random.default_rng(SEED + num_frames)
    return [sample_spec(rng, num_frames, motion=motions[i % len(motions)]) for i in range(count)]


def whole_rounds(clips: int, kinds: int) -> int:
    """`clips` rounded up so that each of some kinds comes as often; as it is where it is less than one round."""
    return clips if clips < kinds else math.ceil(clips / kinds) * kinds
