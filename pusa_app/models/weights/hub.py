"""Files of the hub into the Hugging Face cache, so that a download can stop at any byte and go on from there.

`hf_hub_download` of huggingface_hub 2.4 begins a file anew whenever the process ends (its temporary files have random
names and are removed), so the bytes are fetched here: with its client, token, errors and cache layout, into
`blobs/<etag>.incomplete`, which later versions and other programs know too. Importing this does not import torch.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from filelock import FileLock, Timeout

from pusa_app.errors import ModelError, PusaError, StoreError, UserError
from pusa_app.models.home import Home
from pusa_app.models.room import existing

PIECE = 1024 * 1024
HASH = r"[0-9a-f]{40,64}"
PATIENCE = 30.0  # seconds without a byte
TRIES = 5  # without a new byte
WAIT = 1.0  # seconds before the second try, then twice as long each time
Told = Callable[[int], None]  # bytes that came


class Gone(ModelError):
    """The hub no longer has a file or a commit."""


class Stopped(PusaError):
    """A download was stopped on request; what came is kept."""


@dataclass(frozen=True)
class File:
    """A file of a repository. sha256 is None for small ones, which git names by `blob`, the hash of its own."""

    name: str
    size: int
    blob: str
    sha256: str | None

    @property
    def etag(self) -> str:
        return self.sha256 or self.blob


@dataclass(frozen=True)
class Listing:
    """The files of a repository at a commit, and what its page names, which is not written down: the licence, and the
    model that it was made for."""

    repo: str
    commit: str
    files: dict[str, File]
    licence: str = field(default="", compare=False)
    base_model: str = field(default="", compare=False)

    def to_json(self) -> dict[str, Any]:
        return {"commit": self.commit, "files": {f.name: [f.size, f.blob, f.sha256] for f in self.files.values()}}

    @classmethod
    def from_json(cls, repo: str, data: Any) -> Listing | None:
        """None when it is not one."""
        try:
            files = {
                name: File(str(name), int(size), str(blob), sha256 and str(sha256))
                for name, (size, blob, sha256) in data["files"].items()
            }
            return cls(repo, str(data["commit"]), files)
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


class Hub:
    """The hub as one program sees it. All that goes wrong is a UserError of one sentence, or Stopped."""

    def __init__(self, home: Home, token: str | None = None, stop: Callable[[], bool] = lambda: False) -> None:
        self._home, self._token, self._stop = home, token, stop

    def listing(self, repo: str, revision: str = "main") -> Listing:
        """What a repository holds now, with exact sizes and hashes."""
        from huggingface_hub import HfApi

        with self._in_words(repo):
            info = HfApi(endpoint=self._home.hub_endpoint, token=self._token).model_info(
                repo, revision=revision, files_metadata=True, timeout=PATIENCE
            )
            files = {
                s.rfilename: File(s.rfilename, s.size or 0, s.blob_id or "", s.lfs.sha256 if s.lfs else None)
                for s in info.siblings or []
            }
            licence, base = (getattr(info.card_data, name, None) for name in ("license", "base_model"))
        # What these become are names of files here.
        if not info.sha or not re.fullmatch(HASH, info.sha) or not all(map(_is_sound, files.values())):
            raise ModelError(f"The hub says nothing of use about {repo}: try again later.")
        return Listing(repo, info.sha, files, licence if isinstance(licence, str) else "", _words(base))

    def fetch(self, listing: Listing, file: File, told: Told = lambda count: None) -> bool:
        """Have a file in the cache; whether bytes had to come for it. What is there of it already is kept.

        Raises ModelError or StoreError with one line, Stopped on request.
        """
        storage = storage_of(self._home, listing.repo)
        pointer = storage / "snapshots" / listing.commit / file.name
        blob = storage / "blobs" / file.etag
        if is_there(pointer, file):
            return False
        with self._in_words(listing.repo, file.name):
            discard(pointer, blob, file)
            for folder in (blob.parent, pointer.parent):
                folder.mkdir(parents=True, exist_ok=True)
            came = False
            if not blob.exists():
                with self._alone(listing.repo, file):
                    came = not blob.exists()
                    if came:
                        self._complete(listing, file, blob, told)
            _point(pointer, blob)
        return came

    def begin(self, listing: Listing, file: File, count: int) -> bytes:
        """The first bytes of a file, as many as asked for if it has them: of the cache where it is there, else of the
        hub, which keeps nothing of it here. Raises ModelError with one line."""
        pointer = storage_of(self._home, listing.repo) / "snapshots" / listing.commit / file.name
        with self._in_words(listing.repo, file.name):
            if is_there(pointer, file):
                with pointer.open("rb") as opened:
                    return opened.read(count)
            came = b""
            with self._asked(listing, file, f"bytes=0-{count - 1}") as response:
                for data in response.iter_raw():  # the hub may send all of it
                    came += data
                    if len(came) >= count:
                        break
                    if self._stop():
                        raise Stopped("Nobody waits for it any more.")
            return came[:count]

    def check(self, listing: Listing, file: File) -> bool:
        """Hash a file that is here again; a damaged one is taken away, so that `fetch` gets it anew. Returns whether it
        was right."""
        storage = storage_of(self._home, listing.repo)
        pointer, blob = storage / "snapshots" / listing.commit / file.name, storage / "blobs" / file.etag
        with self._in_words(listing.repo, file.name):
            if not pointer.exists() or self._is_right(file, pointer):
                return True
            pointer.unlink()
            blob.unlink(missing_ok=True)
            return False

    # --- one file ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _alone(self, repo: str, file: File) -> Iterator[None]:
        """No other program, huggingface_hub's own included, fetches this file meanwhile."""
        lock = self._home.hub_cache / ".locks" / _folder_name(repo) / f"{file.etag}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(lock, timeout=0):
                yield
        except Timeout:
            raise ModelError(f"{file.name} is being downloaded by another program: wait for it.") from None

    def _complete(self, listing: Listing, file: File, blob: Path, told: Told) -> None:
        part = blob.with_name(f"{blob.name}.incomplete")
        for chance in (1, 2):
            self._receive(listing, file, part, told)
            if self._is_right(file, part):
                os.replace(part, blob)
                return
            told(-part.stat().st_size)
            part.unlink()
            if chance == 2:
                raise ModelError(
                    f"{file.name} of {listing.repo} arrived damaged twice (its hash is not what the hub says): "
                    "try again later."
                )

    def _receive(self, listing: Listing, file: File, part: Path, told: Told) -> None:
        """Append what is missing, through cut connections."""
        tries, wait = TRIES, WAIT
        if part.exists() and part.stat().st_size > file.size:
            part.unlink()
        while True:
            have = part.stat().st_size if part.exists() else 0
            if have == file.size and part.exists():
                return
            try:
                self._stream(listing, file, part, have, told)
                problem: Exception | None = None
            except Exception as error:
                if not _is_cut(error):
                    raise
                problem = error
            now = part.stat().st_size if part.exists() else 0
            if now == file.size:
                return
            tries, wait = (TRIES, WAIT) if now > have else (tries - 1, wait * 2)
            if not tries:
                raise problem or OSError(errno.ECONNRESET, "the connection ends too early")
            self._pause(min(wait, 20.0))

    def _stream(self, listing: Listing, file: File, part: Path, have: int, told: Told) -> None:
        with self._asked(listing, file, f"bytes={have}-" if have else "") as response:
            if have and response.status_code != 206:  # it does not know ranges
                told(-have)
                part.unlink()
            # Without a buffer of ours: whatever came is in the file, however this process ends.
            with part.open("ab", buffering=0) as out:
                for data in response.iter_raw():
                    out.write(data)
                    told(len(data))
                    if self._stop():
                        raise Stopped("The download was stopped.")

    @contextlib.contextmanager
    def _asked(self, listing: Listing, file: File, wanted: str = "") -> Iterator[Any]:
        """The hub's answer to a question for a file. wanted: a range of it."""
        from huggingface_hub import get_session, hf_raise_for_status
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public by its documentation

        headers = build_hf_headers(token=self._token) | {"Accept-Encoding": "identity"}
        if wanted:
            headers["Range"] = wanted
        url = f"{self._home.hub_endpoint}/{listing.repo}/resolve/{listing.commit}/{quote(file.name)}"
        # The client leaves the token behind when it is sent on to another host.
        with get_session().stream("GET", url, headers=headers, timeout=PATIENCE, follow_redirects=True) as response:
            hf_raise_for_status(response)
            yield response

    def _is_right(self, file: File, part: Path) -> bool:
        hasher = (
            hashlib.sha256() if file.sha256 else hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
        )
        with part.open("rb") as opened:
            while data := opened.read(8 * PIECE):
                hasher.update(data)
                if self._stop():
                    raise Stopped("The download was stopped.")
        return hasher.hexdigest() == file.etag

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._stop():
                raise Stopped("The download was stopped.")
            time.sleep(0.05)

    # --- what went wrong ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _in_words(self, repo: str, name: str = "") -> Iterator[None]:
        try:
            yield
        except PusaError:
            raise
        except Exception as error:
            told = self._told(error, repo, name)
            if told is None:
                raise
            raise told from None

    def _told(self, error: Exception, repo: str, name: str) -> UserError | None:  # noqa: PLR0912
        """One sentence for what huggingface_hub, its client or the disk raises; None for what is a fault of ours."""
        from huggingface_hub import errors, get_token

        host = urlsplit(self._home.hub_endpoint).netloc
        page = f"{self._home.hub_endpoint}/{repo}"
        has_token = bool(self._token or get_token())
        response = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        if isinstance(error, errors.GatedRepoError):
            if has_token:
                return ModelError(
                    f"The account of your access token may not read {repo} yet: "
                    f"accept its terms at {page}, then try again."
                )
            return ModelError(
                f"{repo} is gated: accept its terms at {page}, make an access token at "
                f"{self._home.hub_endpoint}/settings/tokens, and give it on the page Models or with --token."
            )
        if isinstance(error, errors.OfflineModeIsEnabled):
            return ModelError(
                "Downloads are switched off by HF_HUB_OFFLINE: take that away, or give a folder that you have."
            )
        if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
            if has_token and status == 401:
                return ModelError(
                    f"The hub does not accept your access token, or {repo} is not there for it: "
                    f"make a new token at {self._home.hub_endpoint}/settings/tokens."
                )
            return ModelError(f"There is no {repo} at {host}, or it is private: give an access token that may read it.")
        if isinstance(error, errors.RevisionNotFoundError | errors.EntryNotFoundError) or status == 404:
            return Gone(f"{name or repo} is no longer at {page}: look for a newer version of this program.")
        if status == 403:
            return ModelError(f"The hub refuses {name or repo}: see {page}, and which rights your access token has.")
        if status == 416:
            return ModelError(f"{name} has another length than the hub said: remove the download and begin it anew.")
        if status is not None:
            return ModelError(f"{host} is busy or broken (status {status}): try again later; it goes on from here.")
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = _size(shutil.disk_usage(existing(self._home.hub_cache)).free)
            return StoreError(
                f"The disk is full: {free} are left in {self._home.hub_cache}; make room, then go on from here."
            )
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            return StoreError(f"{error.filename or self._home.hub_cache} cannot be written: {error.strerror}.")
        if _is_cut(error):
            return ModelError(
                f"The connection to {host} does not hold: check the network; a download that had begun "
                "goes on from there."
            )
        if isinstance(error, OSError):
            return StoreError(f"The download cannot be written: {error.strerror or error}.")
        if isinstance(error, errors.HFValidationError):
            return ModelError(f"{repo[:200]} is no name of a repository: look at its address at {host}.")
        if isinstance(error, ValueError):
            return ModelError(f"{host} answers in a way that is not a hub's: check HF_ENDPOINT and the network.")
        return None


def _words(said: Any) -> str:
    """A text, or a list of them."""
    return " ".join(one for one in (said if isinstance(said, list) else [said]) if isinstance(one, str))


def _is_sound(file: File) -> bool:
    return re.fullmatch(HASH, file.etag) is not None and not {"", ".", ".."} & set(re.split(r"[/\\]", file.name))


# --- the cache -------------------------------------------------------------------------------------------------------


def storage_of(home: Home, repo: str) -> Path:
    """The folder of a repository in the cache."""
    return home.hub_cache / _folder_name(repo)


def is_there(pointer: Path, file: File) -> bool:
    """Whether a file is in the cache, as long as it should be."""
    try:
        return pointer.stat().st_size == file.size
    except OSError:
        return False


def discard(pointer: Path, blob: Path, file: File) -> None:
    """Take away what is not as long as it should be."""
    for path in (pointer, blob):
        if path.is_file() and path.stat().st_size != file.size:
            path.unlink()


def _folder_name(repo: str) -> str:
    return f"models--{repo.replace('/', '--')}"


def _point(pointer: Path, blob: Path) -> None:
    """The name under which a snapshot shows a blob; where no links can be made it is the file itself, as
    huggingface_hub does it."""
    if pointer.exists():
        return
    with contextlib.suppress(FileNotFoundError):
        pointer.unlink()  # a link that leads nowhere
    try:
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    except (OSError, NotImplementedError):
        os.replace(blob, pointer)


def _is_cut(error: BaseException) -> bool:
    """Whether this is the network's doing, which may pass."""
    names = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return status in (408, 429, 500, 502, 503, 504)
    return bool(names & {"TransportError", "TimeoutException", "StreamError", "ConnectionError"}) or (
        isinstance(error, OSError) and error.errno in (errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT)
    )


def _size(count: float) -> str:
    from pusa_app.models.weights.words import size_words

    return size_words(count)
