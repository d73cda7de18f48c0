"""What is here of each model, without the network; taking in a user's own files; deleting.

The same file may belong to several models, and the cache to several programs: nothing is deleted that another model
here needs, or another snapshot of its repository.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from pusa_app.errors import ModelError, StoreError
from pusa_app.models.entry import ID, Entry, Part, entries, entry_file
from pusa_app.models.home import CARD_FILE, Home
from pusa_app.models.native import PICKLES
from pusa_app.models.weights.hub import File, Listing, is_there, storage_of

ROOT = Path(__file__).parents[3]
INDEX_FILE = "model_index.json"


@dataclass(frozen=True)
class State:
    """What is here of a model.

    here: it can be opened; partial: some of its files are here; missing: none. have and size are bytes to download;
    size is None where nobody knows, and `about` says that it is not the hub's own number. place: "built-in", "own" (a
    folder of the user's) or "" (the cache). entry is None for a folder that is no model of the catalogue. asked: a
    download of it was begun; without, what is here came for another model or with another program. complete: all files
    are here, and have only to be put together.
    """

    id: str
    entry: Entry | None
    state: Literal["here", "partial", "missing"]
    have: int = 0
    size: int | None = None
    about: bool = True
    place: Literal["", "built-in", "own"] = ""
    folder: Path | None = None
    own_files: tuple[str, ...] = ()
    asked: bool = False
    complete: bool = False


@dataclass(frozen=True)
class Wanted:
    """Files of a part: those of a listing, or one that the user has."""

    part: Part
    listing: Listing | None
    files: tuple[File, ...] = ()
    own: Path | None = None
    exact: bool = False  # the hub itself said that these are all

    def pointers(self, home: Home) -> list[tuple[File, Path]]:
        """The files with their places in the cache."""
        if self.listing is None:
            return []
        folder = storage_of(home, self.listing.repo) / "snapshots" / self.listing.commit
        return [(file, folder / file.name) for file in self.files]


@dataclass(frozen=True)
class Removal:
    """What deleting a model does. frees: bytes. kept: titles of the models that share some of its files."""

    id: str
    title: str
    frees: int
    kept: tuple[str, ...] = ()
    own: Path | None = None
    pointers: tuple[Path, ...] = field(default=(), repr=False)
    loose: tuple[Path, ...] = field(default=(), repr=False)


@contextlib.contextmanager
def alone(home: Home, entry: Entry, patience: float = 0) -> Iterator[None]:
    """Nobody else downloads or deletes this model meanwhile; raises ModelError when somebody does, for `patience`
    seconds. Raises StoreError when the data folder cannot be written."""
    try:
        home.models_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(home.models_dir / f".{entry.id}.lock", timeout=patience)
        lock.acquire()
    except Timeout:
        raise ModelError(f"{entry.title} is being downloaded by another program already.") from None
    except OSError as error:
        raise StoreError(f"{error.filename or home.models_dir} cannot be written: {error.strerror or error}.") from None
    try:
        yield
    finally:
        lock.release()


# --- what is here ----------------------------------------------------------------------------------------------------


def states(home: Home) -> list[State]:
    """All models of the catalogue and those that a user added, in the catalogue's order."""
    known, record = entries(home.data_dir), home.record()
    found = [state_of(home, entry, record) for entry in known.values()]
    for model_id, place in sorted(record["own"].items()):
        if model_id not in known:
            there = Path(place).is_dir()
            found.append(State(model_id, None, "here" if there else "missing", place="own", folder=Path(place)))
    return found


def state_of(home: Home, entry: Entry, record: dict[str, Any] | None = None) -> State:
    """What is here of one model."""
    record = home.record() if record is None else record
    if entry.here:
        folder = ROOT / entry.here
        there = (folder / INDEX_FILE).is_file()
        return State(entry.id, entry, "here" if there else "missing", place="built-in", folder=folder)
    if own := record["own"].get(entry.id):
        return State(entry.id, entry, "here" if Path(own).is_dir() else "missing", place="own", folder=Path(own))
    files = tuple(str(path) for path in record["files"].get(entry.id, {}).values())
    wanted = [known_files(home, entry, part, record) for part in entry.parts]
    have = sum(held(home, one) for one in wanted)
    exact = all(one.exact or one.own is not None for one in wanted)
    size = sum(file.size for one in wanted for file in one.files) if exact else entry.size
    folder_here = home.folder(entry.id)
    if folder_here is not None:
        # What was converted is no longer in the cache, and nothing is left to download.
        size = size if size is not None else have
        return State(entry.id, entry, "here", size, size, not exact, folder=folder_here, own_files=files)
    state: Literal["partial", "missing"] = "partial" if have or files else "missing"
    asked = entry.id in record["asked"]
    complete = all(is_complete(home, one) for one in wanted)
    return State(entry.id, entry, state, have, size, not exact, own_files=files, asked=asked, complete=complete)


def known_files(home: Home, entry: Entry, part: Part, record: dict[str, Any]) -> Wanted:
    """The files of a part as far as this machine knows them: by what the hub said last, else by the cache."""
    if own := record["files"].get(entry.id, {}).get(key_of(part)):
        return Wanted(part, None, own=Path(own))
    said = Listing.from_json(part.repo, record["lists"].get(f"{part.repo}@{part.revision}"))
    if said is not None:
        return chosen(part, said, exact=True)
    cached = cached_listing(home, part.repo, part.revision)
    return Wanted(part, None) if cached is None else chosen(part, cached, exact=False)


def key_of(part: Part) -> str:
    """How a part is known among those of its model."""
    return f"{part.repo} {' '.join(part.files)}"


def chosen(part: Part, listing: Listing, *, exact: bool) -> Wanted:
    """The files of a listing that belong to a part."""
    return Wanted(part, listing, tuple(listing.files[n] for n in part.choose(list(listing.files))), exact=exact)


def is_complete(home: Home, wanted: Wanted) -> bool:
    """Whether all files of a part are here."""
    if wanted.own is not None:
        return wanted.own.is_file()
    there = [file.name for file, pointer in wanted.pointers(home) if is_there(pointer, file)]
    if wanted.exact and len(there) < len(wanted.files):
        return False
    return wanted.listing is not None and wanted.part.missing(there) is None


def held(home: Home, wanted: Wanted) -> int:
    """Bytes that are here of the files of a part, unfinished ones included."""
    count = 0
    for file, pointer in wanted.pointers(home):
        blob = storage_of(home, wanted.part.repo) / "blobs" / file.etag
        for place in (pointer, blob, blob.with_name(f"{blob.name}.incomplete")):
            with contextlib.suppress(OSError):
                count += min(place.stat().st_size, file.size)
                break
    return count


def cached_listing(home: Home, repo: str, revision: str) -> Listing | None:
    """What the cache holds of a repository's revision; None when that is nothing."""
    storage = storage_of(home, repo)
    try:
        ref = storage / "refs" / revision
        commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else revision
        if not re.fullmatch(r"[0-9a-f]{40}", commit):
            return None
        folder = storage / "snapshots" / commit
        files = {}
        for path in folder.rglob("*"):
            if path.is_file():
                name = path.relative_to(folder).as_posix()
                etag = Path(path.readlink()).name if path.is_symlink() else ""
                sha256 = etag if len(etag) == 64 else None
                files[name] = File(name, path.stat().st_size, etag, sha256)
    except OSError:
        return None
    return Listing(repo, commit, files) if files else None


# --- a user's own files ----------------------------------------------------------------------------------------------


def add(home: Home, path: Path, model_id: str | None = None) -> str:
    """Use a folder or a file that the user has, where it is; returns the id of the model.

    A diffusers folder is a model, of the catalogue if `model_id` says so. A single file, or a folder with one, stands
    for the part of a catalogue's model that it would have been downloaded for. Nothing is copied. Raises ModelError
    with one line when it is not used.
    """
    with contextlib.suppress(RuntimeError):  # the home of nobody
        path = path.expanduser()
    path = path.absolute()
    known = entries(home.data_dir)
    if model_id is not None and model_id not in known and not re.fullmatch(ID, model_id):
        raise ModelError(f"{model_id[:100]!r} cannot be the id of a model: use a-z, 0-9, dots, dashes and underscores.")
    if not path.exists():
        raise ModelError(f"There is no folder or file {path}.")
    if path.is_dir() and (path / INDEX_FILE).is_file():
        return _add_folder(home, path, model_id, known)
    return _add_file(home, path, model_id, known)


def _add_folder(home: Home, path: Path, model_id: str | None, known: dict[str, Entry]) -> str:
    from pusa_app.models.catalogue import get_card

    if model_id is None:
        model_id = re.sub(r"[^a-z0-9._-]+", "-", path.name.lower()).strip("-._")[:60] or "model"
        if model_id in known:
            model_id = f"my-{model_id}"
    entry = known.get(model_id)
    if entry is not None and (entry.here or entry.kind == "lora"):
        raise ModelError(f"{model_id} cannot be a folder of yours: choose another id with --as.")
    if entry is None:
        get_card(str(path))  # says why when it is no model
    with home.change() as record:
        record["own"][model_id] = str(path)
    return model_id


def _add_file(home: Home, path: Path, model_id: str | None, known: dict[str, Entry]) -> str:
    candidates = []
    for entry in known.values():
        for part in entry.parts:
            if part.use != "link" and not entry.hub and (model_id is None or entry.id == model_id):
                candidates.append((entry, part))
    files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file())
    found = [(e, p, f) for e, p in candidates for f in files if _could_be(p, f)]
    if not found and path.is_file() and len(candidates) == 1 and model_id is not None:
        found = [(*candidates[0], path)]  # whatever its name, the user says what it is
    if path.is_file() and path.suffix.lower() in PICKLES and not any(part.pickle for _, part, _ in found):
        raise ModelError(
            f"{path.name} is a pickle, which can run code when it is opened: get the model as a .safetensors file."
        )
    if not found:
        what = "a diffusers folder" if path.is_dir() else f"a file of a model that is known{_by(model_id)}"
        raise ModelError(f"{path.name} is not {what}: give a folder with {INDEX_FILE}, or say what it is with --as.")
    ids = sorted({entry.id for entry, _, _ in found})
    if len(ids) > 1:
        raise ModelError(f"{path.name} may belong to {' or '.join(ids)}: say which with --as.")
    with home.change() as record:
        for _, part, file in found:
            record["files"].setdefault(ids[0], {})[key_of(part)] = str(file)
    return ids[0]


def _by(model_id: str | None) -> str:
    return f" as {model_id}" if model_id else ""


def _could_be(part: Part, file: Path) -> bool:
    return any(file.name == pattern.rpartition("/")[2] for pattern in part.files)


# --- deleting --------------------------------------------------------------------------------------------------------


def removal(home: Home, model_id: str) -> Removal:
    """What deleting a model would free. Raises ModelError when there is nothing to delete."""
    known, record = entries(home.data_dir), home.record()
    entry = known.get(model_id)
    title = entry.title if entry is not None else model_id
    if own := record["own"].get(model_id):
        return Removal(model_id, title, 0, own=Path(own))
    if entry is None:
        raise ModelError(f"There is no model {model_id[:100]!r}.")
    if entry.here:
        raise ModelError(f"{entry.title} belongs to the program and cannot be removed.")
    state = state_of(home, entry, record)
    if state.state == "missing" and not entry.hub:  # what was asked of the hub is at least on the list
        raise ModelError(f"Nothing of {entry.title} is on this machine.")
    mine = _places(home, entry, record)
    kept, needed = [], set()
    for other in known.values():
        theirs = _places(home, other, record) if _is_wanted(home, other, record, model_id) else set()
        if theirs & mine:
            kept.append(other.title)
            needed |= theirs
    pointers = tuple(sorted(p for p in mine - needed if p.exists()))
    loose = tuple(sorted(p for p in mine - needed if p.name.endswith(".incomplete") and p.exists()))
    pointers = tuple(p for p in pointers if p not in loose)
    frees = _frees(home, pointers) + sum(p.stat().st_size for p in loose) + _own_bytes(home.models_dir / model_id)
    return Removal(model_id, entry.title, frees, tuple(kept), pointers=pointers, loose=loose)


def remove(home: Home, model_id: str) -> Removal:
    """Delete what `removal` says; a folder of the user's is only forgotten. Raises ModelError or StoreError."""
    plan, entry = removal(home, model_id), entries(home.data_dir).get(model_id)
    with contextlib.nullcontext() if entry is None else alone(home, entry, patience=5.0):
        _delete(home, plan, entry)
    return plan


def _delete(home: Home, plan: Removal, entry: Entry | None) -> None:
    model_id = plan.id
    try:
        if plan.own is None:
            folder = home.models_dir / model_id
            with contextlib.suppress(FileNotFoundError):
                (folder / CARD_FILE).unlink()  # a folder that is half gone must not look whole
            for place in (folder, home.models_dir / f".making-{model_id}"):
                if place.exists():
                    shutil.rmtree(place)
            for path in plan.loose:
                path.unlink(missing_ok=True)
            drop(home, plan.pointers)
    except OSError as error:
        raise StoreError(
            f"{plan.title} could not be removed completely: {error.strerror or error}; close what uses it, try again."
        ) from None
    with home.change() as record:
        for field_name in ("own", "files", "asked"):
            record[field_name].pop(model_id, None)
        # What was asked of the hub is gone from the list too: a person's own entries stay.
        if entry is not None and entry.hub:
            entry_file(home.data_dir, model_id).unlink(missing_ok=True)
        for name in [n for n in record["lists"] if not storage_of(home, n.rpartition("@")[0]).exists()]:
            del record["lists"][name]


def drop(home: Home, pointers: tuple[Path, ...]) -> int:
    """Take files out of the cache, with their contents where no other snapshot has them; returns the bytes freed."""
    if not pointers:
        return 0
    info, files = _scanned(home, pointers)
    strategy = info.delete_files(*files)
    strategy.execute()
    for path in pointers:
        path.unlink(missing_ok=True)  # those of a repository that the scan could not read
    for storage in {_storage(path) for path in pointers}:
        _tidy(storage)
    return int(strategy.expected_freed_size)


def needed_elsewhere(home: Home, model_id: str) -> set[Path]:
    """Files in the cache that other models need, of those that are here or were asked for."""
    known, record = entries(home.data_dir), home.record()
    needed: set[Path] = set()
    for other in known.values():
        if _is_wanted(home, other, record, model_id):
            needed |= _places(home, other, record)
    return needed


def _is_wanted(home: Home, other: Entry, record: dict[str, Any], model_id: str) -> bool:
    if other.id == model_id or other.here or other.id in record["own"]:
        return False
    return other.id in record["asked"] or home.folder(other.id) is not None


def _places(home: Home, entry: Entry, record: dict[str, Any]) -> set[Path]:
    """Where the files of a model are in the cache, or would be; unfinished ones included."""
    # What its folder links to is its own also when the hub's list has gone on since.
    places = {link for link in _links(home.models_dir / entry.id) if link.is_relative_to(home.hub_cache)}
    for part in entry.parts:
        wanted = known_files(home, entry, part, record)
        for file, pointer in wanted.pointers(home):
            blobs = storage_of(home, part.repo) / "blobs"
            places |= {pointer, blobs / f"{file.etag}.incomplete"}
    return places


def _links(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from (path.readlink() for path in folder.rglob("*") if path.is_symlink())


def _frees(home: Home, pointers: tuple[Path, ...]) -> int:
    if not pointers:
        return 0
    info, files = _scanned(home, pointers)
    return int(info.delete_files(*files).expected_freed_size)


def _scanned(home: Home, pointers: tuple[Path, ...]) -> tuple[Any, list[Any]]:
    """huggingface_hub's view of the cache, and of these files in it; it knows what other snapshots share."""
    from huggingface_hub import scan_cache_dir

    info, wanted = scan_cache_dir(home.hub_cache), set(pointers)
    cached = (file for repo in info.repos for revision in repo.revisions for file in revision.files)
    return info, [file for file in cached if file.file_path in wanted]


def _own_bytes(folder: Path) -> int:
    """Bytes of the files in a model's folder that are no links, such as a converted transformer."""
    count = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            status = path.lstat()
            # A hard link to the cache frees nothing by itself.
            if path.is_file() and not path.is_symlink() and status.st_nlink == 1:
                count += status.st_size
    return count


def _storage(pointer: Path) -> Path:
    """The repository's folder in the cache that a file of a snapshot is in."""
    return next(parent.parent for parent in pointer.parents if parent.name == "snapshots")


def _tidy(storage: Path) -> None:
    """Remove folders that are empty now, and a repository of which nothing is left."""
    snapshots = storage / "snapshots"
    for folder in sorted((p for p in snapshots.rglob("*") if p.is_dir() and not p.is_symlink()), reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()
    left = {path.name for path in snapshots.iterdir()} if snapshots.is_dir() else set()
    for ref in [path for path in (storage / "refs").rglob("*") if path.is_file()]:
        with contextlib.suppress(OSError):
            if ref.read_text(encoding="utf-8").strip() not in left:
                ref.unlink()
    blobs = storage / "blobs"
    if not left and not (blobs.is_dir() and any(blobs.iterdir())):
        shutil.rmtree(storage, ignore_errors=True)


__all__ = ["Removal", "State", "Wanted", "add", "drop", "removal", "remove", "state_of", "states"]
