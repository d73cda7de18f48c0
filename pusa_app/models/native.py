"""Native checkpoints: where their tensors lie in the files, and which bytes of them make a tensor of another layout.

Nothing here holds a tensor: bytes go from file to file in small pieces, whatever the size of the model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pusa_app.errors import ModelError

PIECE = 16 * 1024**2
PREFIXES = ("model.diffusion_model.", "diffusion_model.")  # ComfyUI's
PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl"}
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Stored:
    """A tensor in a safetensors file: its bytes begin at `begin`."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    size: int


@dataclass(frozen=True)
class Cut:
    """Which rows of a native tensor make a target: `span` parts of `parts` from `part` on, or all with the two halves
    swapped."""

    source: str
    part: int = 0
    parts: int = 1
    swapped: bool = False
    span: int = 1

    def rows(self, count: int) -> list[tuple[int, int]]:
        """The ranges (start, stop) of `count` rows, in the order in which they make the target."""
        if self.swapped:
            return [(count // 2, count), (0, count // 2)]
        size = count // self.parts
        return [(self.part * size, (self.part + self.span) * size)]

    def shape(self, stored: Stored) -> tuple[int, ...]:
        return (stored.shape[0] // self.parts * self.span, *stored.shape[1:]) if stored.shape else ()

    def pieces(self, stored: Stored, files: Files) -> Iterator[bytes]:
        """The bytes of the target."""
        if not stored.shape:
            yield from files.read(stored.path, stored.begin, stored.size)
            return
        row = stored.size // stored.shape[0] if stored.shape[0] else 0
        for start, stop in self.rows(stored.shape[0]):
            yield from files.read(stored.path, stored.begin + start * row, (stop - start) * row)


class Files:
    """Open files, each read in pieces."""

    def __init__(self) -> None:
        self._open: dict[Path, BinaryIO] = {}

    def read(self, path: Path, begin: int, size: int) -> Iterator[bytes]:
        """Raises OSError, also when the file ends too early."""
        if path not in self._open:
            self._open[path] = path.open("rb")
        file = self._open[path]
        file.seek(begin)
        while size > 0:
            data = file.read(min(size, PIECE))
            if not data:
                raise OSError(f"{path.name} ended early")
            size -= len(data)
            yield data

    def close(self) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()


@dataclass(frozen=True)
class Family:
    """What a converter must know of a model family.

    what: for messages. mark: a tensor that only its checkpoints have. infer: shapes, hints and the name for messages ->
    diffusers config, or ModelError; hints is what a config.json beside the files says. mapping: config -> diffusers
    name -> where it is in the native files.
    """

    what: str
    class_name: str
    mark: str
    infer: Callable[[Shapes, dict[str, Any], str], dict[str, Any]]
    mapping: Callable[[dict[str, Any]], dict[str, Cut]]


def linear(target: str, source: str, **cut: Any) -> Iterator[tuple[str, Cut]]:
    """The cuts of a layer's weight and bias."""
    for kind in ("weight", "bias"):
        yield f"{target}.{kind}", Cut(f"{source}.{kind}", **cut)


def layers_of(shapes: Shapes) -> int:
    """How many blocks there are; ValueError when there is none."""
    return 1 + max(int(m[1]) for m in (re.match(r"blocks\.(\d{1,4})\.", key) for key in shapes) if m)


def stored_in(src: Path) -> dict[str, Stored]:
    """The tensors of a safetensors file, or of all that lie in a folder, without ComfyUI's prefixes.

    Raises ModelError with one line for what is missing, truncated or not safetensors.
    """
    found: dict[str, Stored] = {}
    for path in _paths(src):
        for name, stored in _header(path).items():
            if name in found:
                raise ModelError(f"{src.name} holds {name} twice, in {found[name].path.name} and {path.name}.")
            found[name] = stored
    for prefix in PREFIXES:
        if found and all(name.startswith(prefix) for name in found):
            return {name.removeprefix(prefix): stored for name, stored in found.items()}
    return found


def hints_for(src: Path) -> dict[str, Any]:
    """What a config.json in the folder of a checkpoint says; empty without one."""
    path = (src if src.is_dir() else src.parent) / "config.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _paths(src: Path) -> list[Path]:
    if src.suffix.lower() in PICKLES:
        raise ModelError(
            f"{src.name} is a pickle, which can run code when it is opened: get the model as a .safetensors file."
        )
    if src.is_file():
        return [src]
    if not src.is_dir():
        raise ModelError(f"There is no file {src}.")
    paths = sorted(src.glob("*.safetensors"))
    if not paths:
        raise ModelError(f"{src} holds no .safetensors file.")
    _check_complete(paths, src)
    return paths


def _check_complete(paths: list[Path], src: Path) -> None:
    """Of model-00001-of-00006 and its like, all six must be there, and nothing of another set."""
    sets = {}
    for path in paths:
        if match := re.fullmatch(r"(.+)-(\d+)-of-(\d+)", path.stem):
            sets.setdefault((match[1], match[3]), set()).add(int(match[2]))
    if not sets:
        if len(paths) > 1:
            raise ModelError(f"{src} holds several .safetensors files: give the one to convert.")
        return
    if len(sets) > 1:
        raise ModelError(f"{src} holds several checkpoints in pieces: move each to a folder of its own.")
    ((_, count), numbers), *_ = sets.items()
    if missing := sorted(set(range(1, int(count) + 1)) - numbers):
        raise ModelError(f"{src} is incomplete: part {missing[0]} of {int(count)} is missing; download it again.")


def _header(path: Path) -> dict[str, Stored]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt"):  # checks the header, and that the file is as long as it says
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{path.name} is not a complete safetensors file ({one_line(error)}): download it again."
        ) from None
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            found[name] = Stored(path, entry["dtype"], tuple(entry["shape"]), 8 + length + begin, end - begin)
    return found


def one_line(error: Exception) -> str:
    """What an error says, short."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0][:200]
