"""Grids of clips: every frame where it belongs, labels that fit, and nothing left open."""

from __future__ import annotations

import functools
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pusa_app.errors import MediaError
from pusa_app.media import ClipWriter, Grid, check_clip, stream_clip
from pusa_app.media import grid as grids
from pusa_app.media.grid import MAX_GRID_SIZE, MAX_OPEN, _font, wrap_label

SIZE = (192, 128)
WHITE, EMPTY = (255, 255, 255), (240, 240, 240)


def counting(red: int, count: int, size: tuple[int, int] = SIZE, piece: int = 3) -> Callable[[], Iterator[np.ndarray]]:
    """A clip of one colour: `red`, and 10 times the number of the frame as green."""

    def frames() -> Iterator[np.ndarray]:
        for at in range(0, count, piece):
            colours = [(red, 10 * number, 0) for number in range(at, min(at + piece, count))]
            yield np.broadcast_to(np.array(colours, np.uint8)[:, None, None], (len(colours), size[1], size[0], 3))

    return frames


def runs(picture: np.ndarray, axis: int) -> list[tuple[int, int]]:
    """Begin and end of what stands out from white in every second pixel of some line along `axis`."""
    coloured = (picture[..., 2] == 0).any(1 - axis)
    edges = np.flatnonzero(np.diff(np.r_[0, coloured.astype(int), 0]))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def levels(picture: np.ndarray) -> list[list[tuple[int, int]]]:
    """Red and green in the middle of each cell, row by row."""
    middles = [[(a + b) // 2 for a, b in runs(picture, axis)] for axis in (0, 1)]
    return [[(int(picture[y, x, 0]), int(picture[y, x, 1])) for x in middles[1]] for y in middles[0]]


def test_every_clip_plays_in_its_place_and_holds_its_last_frame() -> None:
    grid = Grid(SIZE, columns=2, rows=2)
    frames = list(grid.tile([counting(100, 5), counting(110, 2), counting(120, 1), counting(130, 4)]))
    assert [frame.shape for frame in frames] == [(1, grid.height, grid.width, 3)] * 5
    for number, frame in enumerate(frames):
        green = [10 * min(number, length - 1) for length in (5, 2, 1, 4)]
        assert levels(frame[0]) == [[(100, green[0]), (110, green[1])], [(120, green[2]), (130, green[3])]]


def test_cells_have_their_size_and_the_gap_between_them() -> None:
    frame = next(Grid(SIZE, 3, 2, gap=14).tile([counting(100 + i, 1) for i in range(6)]))[0]
    across, down = runs(frame, 1), runs(frame, 0)
    assert [end - begin for begin, end in across] == [192] * 3
    assert [end - begin for begin, end in down] == [128] * 2
    assert across[1][0] - across[0][1] == down[1][0] - down[0][1] == 14


@pytest.mark.parametrize("dark", [False, True])
def test_labels_take_room_of_their_own(dark: bool) -> None:
    cells = [counting(100, 1)] * 4
    plain = Grid(SIZE, 2, 2, dark=dark)
    named = Grid(SIZE, 2, 2, ["seed 1", "seed 2"], ["four", "eight"], dark=dark)
    assert named.width > plain.width + 20
    assert named.height > plain.height + 10
    frame = next(named.tile(cells))[0]
    ground = frame[0, 0].astype(int)
    assert ground.mean() == (17 if dark else 255)
    cell = (frame == (100, 0, 0)).all(-1)
    assert cell.sum() == 4 * 192 * 128, "no letter is on a cell"
    text = (np.abs(frame.astype(int) - ground).max(-1) > 60) & ~cell
    left, top = np.flatnonzero(cell.any(0))[0], np.flatnonzero(cell.any(1))[0]
    assert text[:top].any()
    assert text[:, :left].any()
    assert not text[top:, left:].any()
    assert not text[:top, :left].any()


@pytest.mark.parametrize(
    ("size", "columns", "rows"), [((96, 64), 4, 3), ((48, 85), 1, 1), ((33, 47), 3, 1), ((848, 480), 5, 5)]
)
def test_a_grid_is_even_legible_and_no_larger_than_needed(size: tuple[int, int], columns: int, rows: int) -> None:
    grid = Grid(size, columns, rows, [f"seed {i}" for i in range(columns)], ["a label"] * rows)
    assert (grid.width % 2, grid.height % 2) == (0, 0)
    assert grid.width < 2300
    frame = next(grid.tile([counting(100, 1, size)] * columns * rows))[0]
    assert frame.shape == (grid.height, grid.width, 3)
    assert all(end - begin >= 160 for begin, end in runs(frame, 1))


def test_the_scale_can_be_given() -> None:
    for scale, wide in ((0.5, 96), (1, 192), (2.0, 384)):
        frame = next(Grid(SIZE, 1, 1, scale=scale).tile([counting(100, 1)]))[0]
        assert runs(frame, 1)[0][1] - runs(frame, 1)[0][0] == wide


def broken(frames: int) -> Callable[[], Iterator[np.ndarray]]:
    def read() -> Iterator[np.ndarray]:
        yield from counting(200, frames)()
        raise MediaError("a.mp4 is damaged.")

    return read


def never() -> Iterator[np.ndarray]:
    raise MediaError("a.mp4 does not exist.")


@pytest.mark.parametrize("cell", [None, never, broken(0)], ids=["no clip", "no file", "no frame"])
def test_a_cell_without_a_clip_is_a_plain_field_with_a_word(cell: Callable[[], Iterator[np.ndarray]] | None) -> None:
    grid = Grid(SIZE, 2, 1)
    frames = [frame[0] for frame in grid.tile([counting(100, 3), cell])]
    assert len(frames) == 3
    for frame in [*frames, grid.contact_sheet([counting(100, 3), cell], 2)]:
        x = runs(frame, 1)[-1][1] + 30
        assert tuple(frame[frame.shape[0] // 3, x]) == EMPTY
        field = frame[:, x:][(frame[:, x:] != WHITE).any(-1)]
        assert 20 < (field < 200).all(-1).sum() < 2000, "the word"


def test_a_clip_that_breaks_holds_its_last_frame() -> None:
    frames = list(Grid(SIZE, 2, 1).tile([counting(100, 5), broken(2)]))
    assert levels(frames[4][0]) == [[(100, 40), (200, 10)]]


def test_nothing_at_all_is_one_frame() -> None:
    assert len(list(Grid(SIZE, 2, 1).tile([None, None]))) == 1
    assert len(list(Grid(SIZE, 2, 1).tile([]))) == 1


def test_clips_are_opened_when_played_and_closed_with_the_grid() -> None:
    state: list[str] = []

    def watched() -> Iterator[np.ndarray]:
        state.append("open")
        try:
            yield from counting(100, 100)()
        finally:
            state.append("closed")

    def mistaken() -> Iterator[np.ndarray]:
        raise RuntimeError("of the caller")
        yield

    frames = Grid(SIZE, 2, 1).tile([watched, watched])
    assert not state
    next(frames)
    assert state == ["open"] * 2
    frames.close()
    assert state == ["open"] * 2 + ["closed"] * 2
    with pytest.raises(RuntimeError, match="of the caller"):
        next(Grid(SIZE, 2, 1).tile([watched, mistaken]))
    assert state[-1] == "closed"


def test_memory_does_not_grow_with_the_clips() -> None:
    grid = Grid(SIZE, 2, 1)
    tracemalloc.start()
    try:
        assert sum(len(frames) for frames in grid.tile([counting(100, 24)] * 2)) == 24
        _, few = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        short = Grid(SIZE, 2, 1).tile([lambda: (next(counting(9, 1)()) for _ in range(300))] * 2)
        assert sum(len(frames) for frames in short) == 300
        _, many = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert many < few + 500_000


class Readers:
    """Clips that count how many of them are open at once, and how often they were opened."""

    def __init__(self) -> None:
        self.now = self.most = self.opened = 0

    def __call__(self, clip: Callable[[], Iterator[np.ndarray]]) -> Callable[[], Iterator[np.ndarray]]:
        def frames() -> Iterator[np.ndarray]:
            self.now, self.opened = self.now + 1, self.opened + 1
            self.most = max(self.most, self.now)
            try:
                yield from clip()
            finally:
                self.now -= 1

        return frames


# At the clips' size, made smaller and made larger.
@pytest.mark.parametrize("scale", [1, 0.4, 1.7])
@pytest.mark.parametrize("window", [1, 3, 4, 100])
def test_many_clips_are_read_one_by_one_and_look_the_same(
    scale: float, window: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lengths = [5, 2, 8, 1, 4, 3, 7, 6, 3, 8]
    clips = [counting(100 + 10 * number, length, (64, 48)) for number, length in enumerate(lengths)]
    clips[5] = broken(0)
    cells = [*clips, None, counting(60, 2, (64, 48))]
    grid = Grid((64, 48), 4, 3, ["a", "b", "c", "d"], scale=scale)
    monkeypatch.setattr(grids, "MAX_OPEN", len(cells))
    wanted = np.concatenate(list(grid.tile(cells)))
    monkeypatch.setattr(grids, "MAX_OPEN", 8)
    size = len(cells) * round(64 * scale) * round(48 * scale) * 3
    monkeypatch.setattr(grids, "MAX_SPOOL_BYTES", window * size)
    assert grid.spool_bytes(len(cells), 8) == min(window, 8) * size and grid.spool_bytes(MAX_OPEN, 8) == 0
    readers = Readers()
    frames = grid.tile([cell and readers(cell) for cell in cells], scratch=tmp_path)
    np.testing.assert_array_equal(np.concatenate(list(frames)), wanted)
    assert len(wanted) == 8 and (readers.most, readers.now) == (1, 0)
    if window == 100:
        assert readers.opened == 11, "clips that fit in are read once"
    assert not list(tmp_path.iterdir())


def test_as_many_as_may_be_open_are_read_once_and_side_by_side() -> None:
    readers = Readers()
    grid = Grid((64, 48), MAX_OPEN, 1, scale=1)
    assert len(list(grid.tile([readers(counting(100, 3, (64, 48)))] * MAX_OPEN))) == 3
    assert (readers.most, readers.opened, readers.now) == (MAX_OPEN, MAX_OPEN, 0)


def test_many_clips_without_any_frame_are_one_frame() -> None:
    assert len(list(Grid((64, 48), 5, 2).tile([None] * 10))) == 1


def test_what_is_given_up_leaves_nothing_open(tmp_path: Path) -> None:
    readers = Readers()
    frames = Grid((64, 48), 5, 2).tile([readers(counting(100, 3, (64, 48)))] * 10, scratch=tmp_path)
    next(frames)
    frames.close()
    assert readers.now == 0 and not list(tmp_path.iterdir())


def test_no_room_for_many_clips_is_said_in_words(tmp_path: Path) -> None:
    cells = [counting(100, 3, (64, 48))] * 10
    with pytest.raises(MediaError, match="frames of a grid cannot be written: no such file"):
        next(Grid((64, 48), 5, 2).tile(cells, scratch=tmp_path / "gone"))
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(MediaError, match="frames of a grid cannot be written: file too large"):
            next(Grid((64, 48), 5, 2).tile(cells, scratch=tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with pytest.raises(ValueError, match="frames of a cell must be"):
        next(Grid((64, 48), 5, 2).tile([counting(100, 3)] * 10, scratch=tmp_path))


def test_memory_does_not_grow_with_many_clips() -> None:
    grid, peaks = Grid((64, 48), 5, 2, scale=1), []
    tracemalloc.start()
    try:
        for length in (24, 400):
            tracemalloc.reset_peak()
            frames = grid.tile([lambda length=length: (next(counting(9, 1, (64, 48))()) for _ in range(length))] * 10)
            assert sum(len(frame) for frame in frames) == length
            peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 500_000


@pytest.mark.parametrize(("length", "greens"), [(9, [0, 30, 50, 80]), (4, [0, 10, 20, 30]), (2, [0, 0, 10, 10])])
def test_a_contact_sheet_shows_each_clip_from_its_first_to_its_last_frame(length: int, greens: list[int]) -> None:
    sheet = Grid(SIZE, 1, 2, ["a"], ["b", "c"]).contact_sheet([counting(100, length), counting(110, length)], 4)
    assert levels(sheet) == [[(100, green) for green in greens], [(110, green) for green in greens]]
    one = Grid(SIZE, 1, 1).contact_sheet([counting(100, length)], 1)
    assert levels(one) == [[(100, 0)]]


def test_real_clips_become_a_clip(tmp_path: Path) -> None:
    cells = []
    for number, length in enumerate((7, 5)):
        with ClipWriter(tmp_path / f"{number}.mp4", 96, 64, 12) as clip:
            clip.write(np.full((length, 64, 96, 3), 90 * (number + 1), np.uint8))
        cells.append(functools.partial(stream_clip, tmp_path / f"{number}.mp4", 96, 64, fps=12))
    cells.append(functools.partial(stream_clip, tmp_path / "gone.mp4", 96, 64, fps=12))
    grid = Grid((96, 64), 3, 1, ["one", "two", "three"])
    with ClipWriter(tmp_path / "grid.mp4", grid.width, grid.height, 12) as clip:
        for frames in grid.tile(cells):
            clip.write(frames)
    info = check_clip(tmp_path / "grid.mp4")
    assert (info.width, info.height, info.num_frames) == (grid.width, grid.height, 7)
    assert grid.contact_sheet(cells, 3).shape[2] == 3


# Labels


def test_a_label_is_wrapped_and_what_does_not_fit_is_an_ellipsis() -> None:
    font = _font(14)
    assert wrap_label("seed 1", font, 200, 3) == ["seed 1"]
    assert wrap_label("", font, 200, 3) == []
    assert wrap_label(" \n\t ", font, 200, 3) == []
    long = "a red ball rolls over a green meadow under a blue sky and birds fly away from it"
    for width in (60, 100, 170):
        for lines in (1, 2, 3, 9):
            rows = wrap_label(long, font, width, lines)
            assert len(rows) <= lines
            assert all(font.getlength(row) <= width for row in rows)
            text = " ".join(rows)
            assert text == long or (text.endswith("…") and long.startswith(text[:-1].rstrip()))
    assert wrap_label("x" * 10_000, font, 60, 2)[0].endswith("…")
    assert wrap_label("wide", font, 3, 1) in ([""], ["…"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines\tand\r\nmore", "two lines and more"),
        ("café, naïve", "cafe, naive"),
        ("64×96 → 2", "64x96 -> 2"),
        ("猫 and 日本", "… and …"),
        ("猫\x00\x1b猫", "…"),
        ("🎉🎉 go", "… go"),
    ],
)
def test_letters_that_the_font_has_not(text: str, shown: str) -> None:
    assert wrap_label(text, _font(14), 1000, 1) == [shown]


# Mistakes


def test_labels_and_cells_must_match() -> None:
    with pytest.raises(ValueError, match="3 column labels do not go with 2 columns"):
        Grid(SIZE, 2, 1, ["a", "b", "c"])
    with pytest.raises(ValueError, match="1 row labels do not go with 2 rows"):
        Grid(SIZE, 2, 2, row_labels=["a"])
    with pytest.raises(ValueError, match="3 cells do not go into 2x1 places"):
        Grid(SIZE, 2, 1).tile([None] * 3)
    with pytest.raises(ValueError, match="3 cells"):
        Grid(SIZE, 2, 1).contact_sheet([None] * 3)
    with pytest.raises(ValueError, match="at least one frame"):
        Grid(SIZE, 2, 1).contact_sheet([None], 0)


@pytest.mark.parametrize(
    "wrong", [{"size": (0, 64)}, {"columns": 0}, {"rows": -1}, {"gap": -1}, {"scale": 0.0}, {"scale": float("nan")}]
)
def test_impossible_grids_are_the_callers_mistake(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Grid(**({"size": SIZE, "columns": 1, "rows": 1} | wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "frames", [np.zeros((1, 64, 96, 3), np.uint8), np.zeros((1, 128, 192, 3)), np.zeros((128, 192, 3), np.uint8)]
)
def test_frames_of_another_size_are_the_callers_mistake(frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match="frames of a cell must be"):
        next(Grid(SIZE, 1, 1).tile([lambda: [frames]]))


def test_a_grid_that_is_too_large_is_refused_before_anything_is_read() -> None:
    with pytest.raises(MediaError, match=f"{MAX_GRID_SIZE} is the limit"):
        Grid(SIZE, 100, 1)
    with pytest.raises(MediaError, match="show fewer clips"):
        Grid(SIZE, 1, 1, scale=1e6)
    with pytest.raises(MediaError, match="show fewer clips"):
        Grid(SIZE, 10, 1).contact_sheet([None], 8)
