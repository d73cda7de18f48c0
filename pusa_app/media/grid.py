"""Clips side by side: a labelled grid as a video or as one picture, for sweeps over seeds, prompts or options."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import tempfile
import unicodedata
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pusa_app.errors import MediaError
from pusa_app.media._files import StrPath, writing
from pusa_app.media.fit import Frames

# Opens a clip: pieces of uint8 (n, height, width, 3), as `stream_clip` gives them. None: there is no clip.
Cell: TypeAlias = Callable[[], Iterable[Frames]] | None

MAX_GRID_SIZE = 8192
MAX_LABEL_LENGTH = 500
MAX_OPEN = 8  # clips that are read side by side
MAX_SPOOL_BYTES = 500_000_000

_Colour = tuple[int, int, int]

_MIN_SHOWN_WIDTH = 160
# Large cells are made smaller until the grid is about as large as a screen; one can zoom into a picture.
_COMFORTABLE_VIDEO = 1920
_COMFORTABLE_SHEET = 2560
_FRAME_GAP = 2
_SPOOL_NAME = "The file for the frames of a grid"
_SHEET_GAP = 10  # at least: the frames of one clip belong together
_LABEL_LINES = 3
_ELLIPSIS = "…"
_SPELLED = str.maketrans({"×": "x", "→": "->", "–": "-", "—": "-", "−": "-", "σ": "sigma", "≤": "<=", "≥": ">="})


@dataclass(frozen=True)
class _Look:
    ground: _Colour
    text: _Colour
    empty: _Colour
    faint: _Colour


_LIGHT = _Look(ground=(255, 255, 255), text=(60, 60, 60), empty=(240, 240, 240), faint=(140, 140, 140))
_DARK = _Look(ground=(17, 17, 17), text=(200, 200, 200), empty=(34, 34, 34), faint=(125, 125, 125))


@dataclass(frozen=True)
class Grid:
    """A grid of clips of one size, row by row, with a name above each column and one left of each row.

        grid = Grid((96, 64), columns=2, rows=2, column_labels=["seed 1", "seed 2"], row_labels=["4 steps", "8 steps"])
        with ClipWriter(path, grid.width, grid.height, fps) as clip:
            for frames in grid.tile(cells):
                clip.write(frames)

    size: width and height of the clips in pixels.  gap: pixels between the cells.  scale: of the cells; None enlarges
    small ones to 160 pixels of width or more and makes large ones smaller until the grid fits a screen.  dark: a
    near-black ground instead of a white one.  failed: the word in a cell whose clip is not there. Labels that do not
    fit are shortened; an ellipsis stands for letters that the font has not (it is a Latin one).
    Raises ValueError when labels and cells do not match, MediaError when the grid is too large for a video.
    """

    size: tuple[int, int]
    columns: int
    rows: int
    column_labels: Sequence[str] = ()
    row_labels: Sequence[str] = ()
    gap: int = 8
    scale: float | None = None
    dark: bool = False
    failed: str = "failed"

    def __post_init__(self) -> None:
        if min(*self.size, self.columns, self.rows) < 1 or self.gap < 0 or not (self.scale is None or self.scale > 0):
            raise ValueError("size, columns, rows and scale of a grid must be positive, and gap not negative")
        for name, labels, count in (("column", self.column_labels, self.columns), ("row", self.row_labels, self.rows)):
            if labels and len(labels) != count:
                raise ValueError(f"{len(labels)} {name} labels do not go with {count} {name}s")
        self._video.check()

    @property
    def width(self) -> int:
        """Width in pixels of the frames that `tile` gives; even, as H.264 wants it."""
        return self._video.size[0]

    @property
    def height(self) -> int:
        """Height in pixels of the frames that `tile` gives; even."""
        return self._video.size[1]

    def tile(self, cells: Sequence[Cell], scratch: StrPath | None = None) -> Generator[Frames, None, None]:
        """The frames of the grid, one at a time: uint8 (1, height, width, 3), until the longest clip ends.

        A clip that is shorter holds its last frame. Up to MAX_OPEN clips are read side by side (the ffmpeg of a
        `stream_clip` takes about 60 MB). More are read one after another, as small as they are shown, into a temporary
        file without a name in the folder `scratch` (by default the system's), which never grows beyond
        MAX_SPOOL_BYTES: what is longer is read from its beginning again for every such piece. Memory does not grow
        with the length of clips; they are closed with the generator. A cell whose clip cannot be read (MediaError) is
        one without. Raises ValueError for more cells than places and for frames of another size, MediaError when the
        temporary file finds no room.
        """
        self._check(cells)
        return self._tile(cells, scratch)

    def spool_bytes(self, cells: int, num_frames: int) -> int:
        """How large the temporary file of `tile` grows with so many cells of so many frames."""
        size = cells * self._video.shown_bytes
        return 0 if cells <= MAX_OPEN else size * min(num_frames, max(1, MAX_SPOOL_BYTES // size))

    def contact_sheet(self, cells: Sequence[Cell], num_frames: int = 4) -> Frames:
        """One picture of the grid: uint8 (height, width, 3), with `num_frames` frames of each clip in a row.

        The frames are evenly spaced, the first and the last among them. Each clip is read twice, one clip at a time,
        as its length is not known before. Cells and errors as in `tile`, and MediaError for too large a picture.
        """
        self._check(cells)
        if num_frames < 1:
            raise ValueError("a contact sheet shows at least one frame of a clip")
        layout = _Layout(self, num_frames, _COMFORTABLE_SHEET)
        layout.check()
        canvas = layout.ground()
        for number, cell in enumerate(cells):
            length = sum(1 for _ in self._play(cell))
            if not length:
                layout.draw_failed(canvas, number)
                continue
            wanted = [round(i * (length - 1) / max(num_frames - 1, 1)) for i in range(num_frames)]
            for index, frame in enumerate(self._play(cell)):
                for position in (position for position, at in enumerate(wanted) if at == index):
                    layout.draw(canvas, frame, number, position)
        return np.array(canvas)

    @functools.cached_property
    def _video(self) -> _Layout:
        return _Layout(self, 1, _COMFORTABLE_VIDEO)

    def _check(self, cells: Sequence[Cell]) -> None:
        if len(cells) > self.columns * self.rows:
            raise ValueError(f"{len(cells)} cells do not go into {self.columns}x{self.rows} places")

    def _tile(self, cells: Sequence[Cell], scratch: StrPath | None) -> Generator[Frames, None, None]:
        layout = self._video
        canvas = layout.ground()
        begun = False
        steps = self._side_by_side(cells) if len(cells) <= MAX_OPEN else self._one_by_one(cells, scratch)
        with contextlib.closing(steps):
            # Without any clip there is one frame, which says that they failed.
            for frames in itertools.chain(steps, [{}]):
                if begun and not frames:
                    break
                for number, frame in frames.items():
                    layout.draw(canvas, frame, number)
                for number in () if begun else range(len(cells)):
                    if number not in frames:
                        layout.draw_failed(canvas, number)
                begun = True
                yield np.array(canvas)[None]

    def _side_by_side(self, cells: Sequence[Cell]) -> Generator[Mapping[int, Frames], None, None]:
        """The frames of each step, (height, width, 3) by the numbers of the clips that go on; all are open at once."""
        with contextlib.ExitStack() as stack:
            clips = [stack.enter_context(contextlib.closing(self._play(cell))) for cell in cells]
            while frames := {n: frame for n, clip in enumerate(clips) if (frame := next(clip, None)) is not None}:
                yield frames

    def _one_by_one(
        self, cells: Sequence[Cell], scratch: StrPath | None
    ) -> Generator[Mapping[int, Frames], None, None]:
        """As `_side_by_side`, one clip open at a time; the frames are as large as they are shown."""
        layout, going, begin = self._video, dict(enumerate(cells)), 0
        window = max(1, MAX_SPOOL_BYTES // (len(cells) * layout.shown_bytes))
        with contextlib.closing(_Spool(layout.shown_shape, scratch)) as spool:
            while going:
                lengths = {}
                for number, cell in going.items():
                    lengths[number] = 0
                    with contextlib.closing(self._play(cell)) as clip:
                        for frame in itertools.islice(clip, begin, begin + window):
                            spool.write(number * window + lengths[number], np.asarray(layout.shown(frame)))
                            lengths[number] += 1
                for step in range(max(lengths.values())):
                    on = (number for number, length in lengths.items() if step < length)
                    yield {number: spool.read(number * window + step) for number in on}
                going = {number: cell for number, cell in going.items() if lengths[number] == window}
                begin += window

    def _play(self, cell: Cell) -> Generator[Frames, None, None]:
        """The frames of a clip one by one, (height, width, 3); none, or fewer, when it cannot be read."""
        if cell is None:
            return
        with contextlib.ExitStack() as stack, contextlib.suppress(MediaError):
            pieces = cell()
            if isinstance(pieces, Generator):
                stack.enter_context(contextlib.closing(pieces))
            for piece in pieces:
                if piece.dtype != np.uint8 or piece.shape[1:] != (self.size[1], self.size[0], 3):
                    size = f"(n, {self.size[1]}, {self.size[0]}, 3)"
                    raise ValueError(f"frames of a cell must be uint8 {size}, not {piece.dtype} {piece.shape}")
                yield from piece


class _Spool:
    """Frames of one shape in a temporary file that has no name, by their places in it. Raises MediaError.

    It is no memory map: a full disk is an error of a write, and of a map the end of the program.
    """

    def __init__(self, shape: tuple[int, int, int], folder: StrPath | None) -> None:
        self._shape, self._size = shape, math.prod(shape)
        with writing(_SPOOL_NAME):
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed by `close`

    def write(self, place: int, frame: Frames) -> None:
        data = memoryview(frame.tobytes())
        with writing(_SPOOL_NAME):
            self._file.seek(place * self._size)
            while data:  # a disk that becomes full takes the beginning first
                data = data[self._file.write(data) :]

    def read(self, place: int) -> Frames:
        frame = np.empty(self._shape, np.uint8)
        left = frame.data.cast("B")
        with writing(_SPOOL_NAME):
            self._file.seek(place * self._size)
            while left and (count := self._file.readinto(left)):
                left = left[count:]
        return frame

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()


class _Layout:
    """Where things are in the picture of a grid whose cells show `num_frames` frames in a row."""

    def __init__(self, grid: Grid, num_frames: int, comfortable: int) -> None:
        self._grid = grid
        self._look = _DARK if grid.dark else _LIGHT
        self._shown = _shown_size(grid, num_frames, comfortable)
        self._field = num_frames * (self._shown[0] + _FRAME_GAP) - _FRAME_GAP, self._shown[1]
        self._gap = grid.gap if num_frames == 1 else max(grid.gap, _SHEET_GAP)
        # A large picture is looked at from further away.
        text_size = min(max(self._shown[0] // 12, grid.columns * self._field[0] // 100, 13), 24)
        self._font = _font(text_size)
        self._line = sum(self._font.getmetrics())
        space = text_size // 2
        margin = max(self._gap, space)
        # Names of rows may take about the width of a frame: a prompt needs it, a number takes less.
        side = min(max(self._shown[0], 80), 12 * text_size)
        lines = min(max(self._field[1] // self._line, 1), 2 * _LABEL_LINES)
        self._row_names = [wrap_label(text, self._font, side, lines) for text in grid.row_labels]
        self._column_names = [wrap_label(text, self._font, self._field[0], _LABEL_LINES) for text in grid.column_labels]
        widths = [math.ceil(self._font.getlength(line)) for name in self._row_names for line in name]
        heights = [self._line * len(name) for name in self._column_names]
        self._left = margin + (max(widths) + space if widths else 0)
        self._top = margin + (max(heights) + space // 2 if any(heights) else 0)
        self._space = space
        right = self._left + grid.columns * (self._field[0] + self._gap) - self._gap + margin
        bottom = self._top + grid.rows * (self._field[1] + self._gap) - self._gap + margin
        self.size = right + right % 2, bottom + bottom % 2

    def check(self) -> None:
        """Raises MediaError when encoders and browsers would not take a picture of this size."""
        if max(self.size) > MAX_GRID_SIZE:
            raise MediaError(
                f"The grid would be {self.size[0]}x{self.size[1]} pixels, and {MAX_GRID_SIZE} is the limit: "
                "show fewer clips at once, or make them smaller."
            )

    def ground(self) -> Image.Image:
        """The picture with its labels and no cells."""
        canvas = Image.new("RGB", self.size, self._look.ground)
        draw = ImageDraw.Draw(canvas)
        for column, lines in enumerate(self._column_names):
            x, _ = self._corner(column)
            top = self._top - self._space // 2 - self._line * len(lines)
            for number, line in enumerate(lines):
                at = x + (self._field[0] - self._font.getlength(line)) // 2, top + number * self._line
                draw.text(at, line, self._look.text, self._font)
        for row, lines in enumerate(self._row_names):
            _, y = self._corner(row * self._grid.columns)
            top = y + (self._field[1] - self._line * len(lines)) // 2
            for number, line in enumerate(lines):
                at = self._left - self._space - self._font.getlength(line), top + number * self._line
                draw.text(at, line, self._look.text, self._font)
        return canvas

    @property
    def shown_shape(self) -> tuple[int, int, int]:
        """Of a frame as large as it is shown: (height, width, 3)."""
        return self._shown[1], self._shown[0], 3

    @property
    def shown_bytes(self) -> int:
        return math.prod(self.shown_shape)

    def shown(self, frame: Frames) -> Image.Image:
        """A frame (height, width, 3) as large as it is shown."""
        picture = Image.fromarray(frame)
        if picture.size != self._shown:
            smaller = picture.width > self._shown[0]
            method = Image.Resampling.LANCZOS if smaller else Image.Resampling.BICUBIC
            picture = picture.resize(self._shown, method)
        return picture

    def draw(self, canvas: Image.Image, frame: Frames, cell: int, position: int = 0) -> None:
        """Paste a frame (height, width, 3) into a cell, at one of its positions."""
        x, y = self._corner(cell)
        canvas.paste(self.shown(frame), (x + position * (self._shown[0] + _FRAME_GAP), y))

    def draw_failed(self, canvas: Image.Image, cell: int) -> None:
        """A plain field with a word in it."""
        x, y = self._corner(cell)
        width, height = self._field
        draw = ImageDraw.Draw(canvas)
        draw.rectangle((x, y, x + width - 1, y + height - 1), fill=self._look.empty)
        for line in wrap_label(self._grid.failed, self._font, width, 1):
            draw.text((x + width / 2, y + height / 2), line, self._look.faint, self._font, anchor="mm")

    def _corner(self, cell: int) -> tuple[int, int]:
        row, column = divmod(cell, self._grid.columns)
        x = self._left + column * (self._field[0] + self._gap)
        return x, self._top + row * (self._field[1] + self._gap)


def wrap_label(text: str, font: ImageFont.FreeTypeFont, width: float, lines: int) -> list[str]:
    """A text as at most `lines` lines of at most `width` pixels; what does not fit gives way to an ellipsis."""
    words = _legible(text[:MAX_LABEL_LENGTH], font).split()
    rows: list[str] = []
    while words and len(rows) < lines:
        count = len(words)
        while len(rows) < lines - 1 and count > 1 and font.getlength(" ".join(words[:count])) > width:
            count -= 1
        rows.append(_shorten(" ".join(words[:count]), font, width))
        words = words[count:]
    return rows


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text.rstrip() + _ELLIPSIS) > width:
        text = text[:-1]
    return text.rstrip() + _ELLIPSIS


def _legible(text: str, font: ImageFont.FreeTypeFont) -> str:
    """The text in letters that the font has: without accents where need be, an ellipsis for what it lacks."""
    missing = bytes(font.getmask("\ufffe"))
    kept = []
    for letter in text.translate(_SPELLED):
        if letter.isspace() or (letter.isprintable() and bytes(font.getmask(letter)) != missing):
            kept.append(letter)
            continue
        plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
        if plain.isprintable() and plain:
            kept.append(plain)
        elif kept[-1:] != [_ELLIPSIS]:
            kept.append(_ELLIPSIS)
    return "".join(kept)


def _shown_size(grid: Grid, num_frames: int, comfortable: int) -> tuple[int, int]:
    width, height = grid.size
    scale = grid.scale
    if scale is None:
        scale = max(1.0, math.ceil(_MIN_SHOWN_WIDTH / width))
        for edge, count in ((width, grid.columns * num_frames), (height, grid.rows)):
            scale = min(scale, max(comfortable / count, _MIN_SHOWN_WIDTH) / edge)
    return max(round(width * scale), 1), max(round(height * scale), 1)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise MediaError("Labels cannot be drawn: this Pillow has no FreeType. Run pip install --upgrade pillow.")
    return font
