"""Presets of a user: one JSON file each, in a folder of the user's data."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from pusa_app.errors import RecipeError
from pusa_app.presets.preset import Preset, name_of, presets
from pusa_app.timeline import build

MAX_OWN = 500
MAX_FILE_BYTES = 200_000


class Own(NamedTuple):
    """A user's presets by title, and a sentence for each file that holds none."""

    presets: tuple[Preset, ...]
    problems: tuple[str, ...]


def own_presets(folder: Path) -> Own:
    """What was saved in a folder; a damaged file is left out and told, a missing folder holds nothing."""
    found: dict[str, Preset] = {}
    problems = []
    for file in itertools.islice(sorted(_files(folder)), MAX_OWN):
        try:
            preset = _read(file)
            found.setdefault(preset.name, preset)
        except RecipeError as error:
            problems.append(str(error))
    return Own(tuple(sorted(found.values(), key=lambda preset: preset.title.casefold())), tuple(problems))


def save_preset(folder: Path, preset: Preset, replace: bool = False) -> Path:
    """Write a user's preset to a file named after it: whole or not at all. Its files are not taken along.

    Only a file that holds this very preset is ever replaced; where another one has the name, a number is put behind.
    Raises RecipeError when the name is taken (replace: by a built-in preset) or the folder cannot be written.
    """
    if preset.name in {p.name for p in presets()}:
        raise RecipeError(f"There is a built-in preset called {preset.title}: choose another name.")
    own = {p.name for p in own_presets(folder).presets}
    if preset.name in own and not replace:
        raise RecipeError(f"There is a preset called {preset.title} already: choose another name, or delete it first.")
    if len(own) >= MAX_OWN and preset.name not in own:
        raise RecipeError(f"There are {MAX_OWN} presets already: delete one first.")
    text = preset.model_copy(update={"files": {}}).model_dump_json(indent=2, exclude_defaults=True)
    path = _file_of(folder, preset.name) or _free(folder, preset.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=folder, prefix=".", delete=False) as part:
            try:
                part.write(text)
                part.flush()
                os.fsync(part.fileno())
                part.close()
                os.replace(part.name, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(part.name)
                raise
    except OSError as error:
        raise RecipeError(f"The preset cannot be saved: {error.strerror or error}.") from None
    return path


def delete_preset(folder: Path, name: str) -> None:
    """Remove a user's preset by its name or title; raises RecipeError when there is none, or it cannot be removed."""
    file = _file_of(folder, name_of(name))
    if file is None:
        raise RecipeError(f"There is no preset of yours called {name[:60]!r}.")
    try:
        file.unlink()
    except OSError as error:
        raise RecipeError(f"The preset cannot be deleted: {error.strerror or error}.") from None


def _file_of(folder: Path, name: str) -> Path | None:
    """The file of the preset with this name, of several the one that is shown; it need not be named after it."""
    for file in sorted(_files(folder)):
        with contextlib.suppress(RecipeError):
            if _read(file).name == name:
                return file
    return None


def _free(folder: Path, name: str) -> Path:
    """A file name that nothing has."""
    names = itertools.chain((name,), (f"{name}-{number}" for number in itertools.count(2)))
    return next(path for name in names if not os.path.lexists(path := folder / f"{name}.json"))


def _files(folder: Path) -> list[Path]:
    try:
        return [file for file in folder.glob("*.json") if not file.name.startswith(".")]
    except OSError:
        return []


def _read(file: Path) -> Preset:
    """Raises RecipeError with one sentence that names the file."""
    name = "".join(c if c.isprintable() else "?" for c in file.name)[:80]
    try:
        if not file.is_file() or file.stat().st_size > MAX_FILE_BYTES:
            raise RecipeError(f"{name} is not a preset: it is not a small text file.")
        data = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RecipeError(f"The preset {name} cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError):
        raise RecipeError(f"{name} is not a preset: it is not valid JSON.") from None
    if not isinstance(data, dict):
        raise RecipeError(f"{name} is not a preset: a preset is a JSON object.")
    try:
        return build(Preset, data, what="preset")
    except RecipeError as error:
        raise RecipeError(f"{name}: {error}") from None


def find_preset(name: str, folder: Path | None = None) -> Preset:
    """A preset by its name or title, built in or of a user; raises RecipeError that lists the known names."""
    known = [*presets(), *(own_presets(folder).presets if folder is not None else ())]
    for preset in known:
        if preset.name == name_of(name):
            return preset
    raise RecipeError(f"There is no preset {name[:60]!r}: choose one of {', '.join(p.name for p in known)}.")
