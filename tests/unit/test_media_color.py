"""Colour correction: a cast is undone, what is right stays as it is, bit by bit, and nothing known is no harm."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image, ImageFilter

from pusa_app.media import ColorMatch
from pusa_app.media.color import MAX_GAIN, MAX_SHIFT, MIN_GAIN

HEIGHT, WIDTH = 96, 144


def scene(seed: int = 0, low: float = 40, high: float = 210) -> np.ndarray:
    """A smooth coloured picture with fine grain on it: uint8 (HEIGHT, WIDTH, 3), between about `low` and `high`."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(low, high, (5, 7, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float64)
    return np.clip(smooth + rng.normal(0, 4, (HEIGHT, WIDTH, 1)), 0, 255).astype(np.uint8)


def cast(frame: np.ndarray, gain: object = 1.0, offset: object = 0.0) -> np.ndarray:
    return np.clip(np.rint(np.asarray(gain) * frame + np.asarray(offset)), 0, 255).astype(np.uint8)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b).max())


def corrected(match: ColorMatch, frame: np.ndarray, index: int = 0) -> np.ndarray:
    return match.apply(frame[None], index)[0]


CASTS = [
    ((1.0, 1.0, 1.0), (9.0, -7.0, 4.0)),
    ((0.9, 1.1, 0.97), (0.0, 0.0, 0.0)),
    ((1.1, 0.92, 1.0), (-12.0, 8.0, 3.0)),
    ((0.85, 0.85, 0.85), (20.0, 20.0, 20.0)),
]


@pytest.mark.parametrize(("gain", "offset"), CASTS)
def test_a_cast_is_undone_on_frames_that_were_never_seen(gain: tuple[float, ...], offset: tuple[float, ...]) -> None:
    match = ColorMatch.fit([(0, cast(scene(0), gain, offset), scene(0))])
    for seed in range(4):
        assert distance(corrected(match, cast(scene(seed), gain, offset), 5), scene(seed)) <= 2


@pytest.mark.parametrize(("gain", "offset"), CASTS)
def test_a_decoder_that_blurs_and_adds_noise_is_not_taken_for_a_cast(
    gain: tuple[float, ...], offset: tuple[float, ...]
) -> None:
    blurred = np.asarray(Image.fromarray(scene(0)).filter(ImageFilter.GaussianBlur(1.5)), np.float64)
    noisy = np.clip(blurred + np.random.default_rng(1).normal(0, 3, blurred.shape), 0, 255).astype(np.uint8)
    match = ColorMatch.fit([(0, cast(noisy, gain, offset), scene(0))])
    assert distance(corrected(match, cast(scene(1), gain, offset)), scene(1)) <= 2


def test_a_thing_that_is_elsewhere_in_the_made_frame_is_no_matter() -> None:
    made, known = scene(0), scene(0)
    known[10:50, 10:60] = (250, 30, 30)
    made[40:80, 70:120] = (250, 30, 30)
    match = ColorMatch.fit([(0, cast(made, 0.95, (8, 0, -6)), known)])
    assert distance(corrected(match, cast(scene(1), 0.95, (8, 0, -6))), scene(1)) <= 2


def test_highlights_and_shadows_that_are_clipped_are_no_matter() -> None:
    known = scene(0, 0, 255)
    known[:30], known[-12:] = 255, 0
    shift = (14.0, -11.0, 6.0)
    match = ColorMatch.fit([(0, cast(known, 1.0, shift), known)])
    assert distance(corrected(match, cast(scene(1), 1.0, shift)), scene(1)) <= 2


@pytest.mark.parametrize("frame", [scene(0), scene(3, 0, 255), np.zeros((HEIGHT, WIDTH, 3), np.uint8)])
def test_frames_that_are_right_stay_bit_by_bit(frame: np.ndarray) -> None:
    match = ColorMatch.fit([(0, frame, frame), (7, frame.copy(), frame)])
    noise = np.random.default_rng(2).integers(0, 256, (9, 33, 47, 3)).astype(np.uint8)
    assert np.array_equal(match.apply(noise, 0), noise)


def test_nothing_known_is_the_identity() -> None:
    match = ColorMatch.fit([])
    frames = np.stack([scene(0), scene(1)])
    before = frames.copy()
    result = match.apply(frames, 100)
    assert np.array_equal(result, frames)
    result[:] = 0
    assert np.array_equal(frames, before), "the caller's frames are the caller's"


def test_between_two_places_the_correction_changes_linearly_and_outside_not_at_all() -> None:
    known = scene(0, 60, 180)
    match = ColorMatch.fit([(20, cast(known, offset=-16), known), (10, cast(known, offset=8), known)])
    offsets = [round(float(match.at(i)[1].mean()), 6) for i in (0, 10, 15, 20, 99)]
    assert offsets == [-8, -8, 4, 16, 16]
    grey = np.full((30, 8, 8, 3), 100, np.uint8)
    levels = match.apply(grey, 0)[:, 0, 0, 0].astype(int)
    assert list(levels[[0, 10, 15, 20, 29]]) == [92, 92, 104, 116, 116]
    assert max(abs(b - a) for a, b in itertools.pairwise(levels)) <= 3


def test_a_clip_may_come_in_pieces() -> None:
    known = scene(0)
    match = ColorMatch.fit([(3, cast(known, 0.9, 5), known), (17, cast(known, 1.1, -9), known)])
    frames = np.stack([scene(i) for i in range(20)])
    whole = match.apply(frames, 0)
    pieces = [match.apply(frames[at : at + 6], at) for at in range(0, 20, 6)]
    assert np.array_equal(np.concatenate(pieces), whole)
    assert match.apply(frames[:0], 5).shape == (0, HEIGHT, WIDTH, 3)


def plain(level: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), level, np.uint8)


@pytest.mark.parametrize(
    ("made", "known"),
    [
        (plain(0), plain(0)),
        (plain(6), plain(0)),
        (plain(0), plain(9)),
        (plain(250), plain(255)),
        (cast(scene(0), 0.05), cast(scene(0), 0.07)),
    ],
    ids=["black", "lifted black", "crushed black", "white", "nearly black"],
)
def test_flat_frames_move_the_mean_and_never_the_contrast(made: np.ndarray, known: np.ndarray) -> None:
    match = ColorMatch.fit([(0, made, known)])
    gain, _ = match.at(0)
    assert np.abs(gain - 1).max() < 0.12
    assert distance(corrected(match, made), known) <= 3
    bright = scene(1)
    assert distance(corrected(match, bright), bright) <= 20


def test_one_flat_channel_is_only_shifted() -> None:
    made, known = scene(0), scene(0)
    made[..., 2], known[..., 2] = 30, 36
    gain, offset = ColorMatch.fit([(0, made, known)]).at(0)
    assert gain == pytest.approx([1, 1, 1])
    assert offset == pytest.approx([0, 0, 6])


def test_a_frame_of_something_else_is_left_out() -> None:
    known = scene(0)
    strangers = [scene(9), plain(120), 255 - known]
    for stranger in strangers:
        assert not len(ColorMatch.fit([(0, stranger, known)]).places)
    assert not len(ColorMatch.fit([(0, plain(255), plain(0))]).places)
    match = ColorMatch.fit([(0, strangers[0], known), (8, cast(known, offset=10), known)])
    assert list(match.places) == [8]


def test_gain_and_shift_are_limited() -> None:
    known = scene(0, 60, 200)
    for gain, offset in ((0.5, 60), (2.0, -120), (1.0, 40), (1.0, -40)):
        match = ColorMatch.fit([(0, cast(known, gain, offset), known)])
        for made in (cast(known, gain, offset), plain(128)):
            found, _ = match.at(0)
            assert (found >= MIN_GAIN - 1e-9).all()
            assert (found <= MAX_GAIN + 1e-9).all()
            moved = corrected(match, made).astype(float).mean() - made.mean()
            assert abs(moved) <= MAX_SHIFT + 0.25 * 128 + 1


def test_small_and_odd_frames() -> None:
    for height, width in ((1, 1), (1, 50), (3, 2), (5, 7), (33, 47), (480, 848)):
        known = np.random.default_rng(0).integers(60, 200, (height, width, 3)).astype(np.uint8)
        match = ColorMatch.fit([(0, cast(known, offset=10), known)])
        assert distance(corrected(match, cast(known, offset=10)), known) <= 2


GOOD = np.zeros((8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("made", "known"),
    [
        (GOOD, np.zeros((8, 9, 3), np.uint8)),
        (GOOD[..., 0], GOOD[..., 0]),
        (GOOD[None], GOOD[None]),
        (GOOD.astype(np.float32), GOOD),
        (GOOD, GOOD.astype(np.int64)),
        (np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 4), np.uint8)),
        (GOOD[:0], GOOD[:0]),
        (GOOD[:, :0], GOOD[:, :0]),
        (GOOD.tolist(), GOOD),
        (None, GOOD),
    ],
)
def test_other_arrays_are_the_callers_mistake(made: object, known: object) -> None:
    with pytest.raises(ValueError, match=r"frame 4"):
        ColorMatch.fit([(4, made, known)])  # type: ignore[list-item]


def test_an_index_given_twice_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="frame 4 is given twice"):
        ColorMatch.fit([(4, GOOD, GOOD), (4, GOOD, GOOD)])


@pytest.mark.parametrize(
    "frames",
    [GOOD, GOOD[None].astype(float), np.zeros((2, 8, 8, 1), np.uint8), np.zeros((2, 0, 8, 3), np.uint8), [GOOD]],
)
def test_only_frames_are_corrected(frames: object) -> None:
    with pytest.raises(ValueError, match="frames must be uint8"):
        ColorMatch.fit([]).apply(frames)  # type: ignore[arg-type]
