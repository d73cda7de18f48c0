"""Files that are whole or not there, and one-line words for what is wrong with them."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pusa_app.errors import MediaError

StrPath = str | os.PathLike[str]

_LEFTOVER_PREFIX = ".pusa-"
_LEFTOVER_SUFFIX = ".part"


def label(path: StrPath) -> str:
    """The file's name, fit for a one-line message: control characters replaced, long names shortened."""
    name = os.path.basename(os.fspath(path)) or os.fspath(path)
    clean = "".join(c if c.isprintable() else "?" for c in name)
    return clean if len(clean) <= 80 else f"{clean[:60]}…{clean[-16:]}"


def readable_file(path: StrPath, what: str) -> Path:
    """`path` as an existing, regular, readable, non-empty file; `what` names it in messages ("picture", "clip")."""
    name = label(path)
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise MediaError(f"{name} is a folder, not a {what}: name a file in it.")
        # A pipe or a device would be waited for without end.
        if not stat.S_ISREG(status.st_mode):
            raise MediaError(f"{name} is not an ordinary file: copy the {what} to a file first.")
        if status.st_size == 0:
            raise MediaError(f"{name} is empty: copy or export the {what} again.")
        with open(path, "rb"):
            pass
    except (FileNotFoundError, NotADirectoryError):
        raise MediaError(f"The {what} {name} does not exist: check the path.") from None
    except PermissionError:
        raise MediaError(f"The {what} {name} cannot be opened: this account may not read it.") from None
    except (OSError, ValueError) as error:
        raise MediaError(f"The {what} {name} cannot be opened: {_reason(error)}.") from None
    return Path(path)


@contextlib.contextmanager
def atomic_output(path: StrPath) -> Iterator[Path]:
    """Give a hidden path beside `path` to write to; on success it takes the place of `path`, else it is removed.

    The data and the folder's entry are flushed to disk, so that after a power cut the file is whole or not there.
    Raises MediaError when the folder is missing, not writable or full, or when `path` is a folder.
    """
    target = Path(os.path.abspath(path))
    name = label(target)
    if target.is_dir():
        raise MediaError(f"{name} is a folder: give the name of a file to write.")
    if not target.parent.is_dir():
        raise MediaError(f"{name} cannot be written: the folder {label(target.parent)} does not exist.")
    # The name of the target is not part of it: together they could be too long for the file system.
    part = target.parent / f"{_LEFTOVER_PREFIX}{secrets.token_hex(6)}{_LEFTOVER_SUFFIX}"
    try:
        with writing(name):
            part.touch(exist_ok=False)
        yield part
        with writing(name):
            _flush(part)
            os.replace(part, target)
            _flush_folder(target.parent)
    finally:
        with contextlib.suppress(OSError, ValueError):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(name: str) -> Iterator[None]:
    """What the operating system has against writing the file `name` becomes a MediaError."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise MediaError(f"{name} cannot be written: {_reason(error)}.") from None


@contextlib.contextmanager
def scratch_folder(beside: StrPath | None) -> Iterator[Path]:
    """A hidden folder for raw frames, removed at the end: in the folder `beside`, else in the system's.

    Raises MediaError when it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        with writing("The folder for unfinished frames"):
            folder = tempfile.TemporaryDirectory(
                prefix=_LEFTOVER_PREFIX, suffix=_LEFTOVER_SUFFIX, dir=beside, ignore_cleanup_errors=True
            )
        yield Path(stack.enter_context(folder))


def remove_leftovers(folder: StrPath, older_than: float = 3600.0) -> int:
    """Remove what killed writers left in `folder` more than `older_than` seconds ago; returns how many."""
    removed = 0
    for part in Path(folder).glob(f"{_LEFTOVER_PREFIX}*{_LEFTOVER_SUFFIX}"):
        # The age keeps a writer of another process safe.
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime >= older_than:
                if part.is_dir():
                    shutil.rmtree(part)
                else:
                    part.unlink()
                removed += 1
    return removed


def _flush(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # elsewhere a folder cannot be opened, and the rename is journaled
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return text[:1].lower() + text[1:].rstrip(".")
