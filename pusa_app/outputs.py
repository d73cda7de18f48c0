"""Where the command line writes: checked before the work, which may take an hour.

Only the standard library is imported here, so that help is instant.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pusa_app.arguments import shown
from pusa_app.errors import RecipeError

if TYPE_CHECKING:
    from pusa_app.timeline import Recipe, Sweep

StrPath = str | os.PathLike[str]

MAX_NAME_BYTES = 255  # of every common file system


def checked_out(out: Path, recipe: Recipe | Sweep | None = None) -> Path:
    """The absolute path of a video to make; raises RecipeError when it could not be written there. Writes nothing."""
    if out.suffix.lower() != ".mp4":
        raise RecipeError(f"The output must be an .mp4 file, not {out.name or out}.")
    return checked_file(out, [] if recipe is None else recipe.paths)


def checked_file(out: Path, sources: Sequence[StrPath]) -> Path:
    """The absolute path of a file to make of `sources`; raises RecipeError as `checked_out`."""
    if out.is_dir():
        raise RecipeError(f"The output {out} is a folder: add a file name.")
    if len(os.fsencode(out.name)) > MAX_NAME_BYTES:
        raise RecipeError(f"The output cannot be called {shown(out.name)}: the name is too long.")
    check_folder(out.absolute().parent)
    if out.exists() and not os.access(out, os.W_OK):
        raise RecipeError(f"The output {out} cannot be overwritten: it is read-only.")
    if out.exists() and any(os.path.exists(path) and out.samefile(path) for path in sources):
        raise RecipeError(f"The output {out} is also a source of this video: choose another name.")
    return out.absolute()


def check_folder(folder: Path) -> None:
    """Raises RecipeError when the folder neither exists nor can be made."""
    existing = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
    if not existing.is_dir():
        raise RecipeError(f"The output cannot be written: {existing} is not a folder.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise RecipeError(f"The output cannot be written: no permission to write in {existing}.")


@contextlib.contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Make the folder, and see that it takes a file, before the work; made folders go again when the work fails.

    Raises RecipeError when nothing can be written there.
    """
    made = [parent for parent in (folder, *folder.parents) if not os.path.lexists(parent)]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise RecipeError(f"The output cannot be written in {folder}: {error.strerror or error}.") from None
        yield
    except BaseException:
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise
