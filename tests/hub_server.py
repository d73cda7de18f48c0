"""A small Hugging Face Hub: repositories in memory, and the faults that a download must survive.

Serves what huggingface_hub asks for: model info and trees with sizes and hashes, resolve (HEAD and GET, with ranges,
through a redirect to a storage host as the real hub does), whoami. Set HF_ENDPOINT to `Hub.url`.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".pt", ".model")


@dataclass
class Repo:
    """Files by name. gated: only `allowed` tokens may read files; private: others are told that it does not exist.
    licence, base_model: as its page names them."""

    files: dict[str, bytes]
    gated: bool = False
    private: bool = False
    licence: str = ""
    base_model: str = ""
    allowed: set[str] = field(default_factory=set)

    @property
    def commit(self) -> str:
        mark = hashlib.sha1()
        for name, data in sorted(self.files.items()):
            mark.update(name.encode() + hashlib.sha1(data).digest())
        return mark.hexdigest()


@dataclass
class Sent:
    """An answer to a request for a file's content: where it began and how many bytes went out."""

    name: str
    begin: int
    count: int


class Hub:
    """with Hub() as hub: hub.add(...). Faults, by file name:
    cut: bytes after which the connection breaks, once for each number in the list; spoil: how many answers have wrong
    content; status: statuses answered instead, one after another. rate: bytes a second of every answer, 0 for all.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.tokens: dict[str, str] = {}  # token -> user
        self.cut: dict[str, list[int]] = {}
        self.spoil: dict[str, int] = {}
        self.status: dict[str, list[int]] = {}
        self.rate = 0
        self.forgetful = False  # old commits are not there any more
        self.ranges = True
        self.sent: list[Sent] = []
        self.requests: list[tuple[str, str, str]] = []  # method, path, token
        hub = self

        class Handler(_Handler):
            owner = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, repo: str, files: dict[str, bytes] | Path, **more: object) -> Repo:
        if isinstance(files, Path):
            files = {p.relative_to(files).as_posix(): p.read_bytes() for p in files.rglob("*") if p.is_file()}
        self.repos[repo] = Repo(dict(files), **more)  # type: ignore[arg-type]
        return self.repos[repo]

    def bytes_of(self, name: str) -> int:
        """How many bytes of a file went out in all."""
        return sum(sent.count for sent in self.sent if sent.name == name)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Handler(BaseHTTPRequestHandler):
    owner: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.owner.requests.append((self.command, path, token))
        if path == "/api/whoami-v2":
            user = self.owner.tokens.get(token)
            if user is None:
                return self._json(401, {"error": "Invalid credentials in Authorization header"})
            auth = {"accessToken": {"displayName": "tests", "role": "read"}}
            return self._json(200, {"type": "user", "name": user, "auth": auth})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/revision/(.+))?", path):
            return self._info(match[1], match[2], token)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            return self._tree(match[1], token)
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(match[1], match[2], match[3], token)
        if match := re.fullmatch(r"/storage/([^/]+/[^/]+)/(.+)", path):
            return self._storage(self.owner.repos[match[1]], match[2], body)
        return self._json(404, {"error": "no such page"})

    def _repo(self, name: str, token: str) -> Repo | None:
        repo = self.owner.repos.get(name)
        known = not token or token in self.owner.tokens
        if repo is None or (repo.private and token not in repo.allowed) or not known:
            kind = {} if token and not known else {"X-Error-Code": "RepoNotFound"}
            self._json(401, {"error": "Repository not found"}, kind)
            return None
        return repo

    def _info(self, name: str, revision: str | None, token: str) -> None:
        repo = self._repo(name, token)
        if repo is None:
            return None
        if revision not in (None, "main", repo.commit):
            return self._json(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        siblings = []
        for file, data in sorted(repo.files.items()):
            entry = {"rfilename": file, "size": len(data), "blobId": _git(data)}
            if file.endswith(LFS_SUFFIXES):
                entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            siblings.append(entry)
        info = {"id": name, "modelId": name, "sha": repo.commit, "siblings": siblings, "private": repo.private}
        card = {"license": repo.licence, "base_model": repo.base_model}
        said = {"cardData": {key: text for key, text in card.items() if text}}
        return self._json(200, info | said | {"gated": "auto" if repo.gated else False})

    def _tree(self, name: str, token: str) -> None:
        repo = self._repo(name, token)
        if repo is None:
            return None
        found = []
        for file, data in sorted(repo.files.items()):
            entry = {"type": "file", "path": file, "size": len(data), "oid": _git(data)}
            if file.endswith(LFS_SUFFIXES):
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            found.append(entry)
        return self._json(200, found)

    def _resolve(self, name: str, revision: str, file: str, token: str) -> None:
        repo = self._repo(name, token)
        if repo is None:
            return None
        if repo.gated and token not in repo.allowed:
            status = 403 if token else 401
            return self._json(status, {"error": "Access is restricted"}, {"X-Error-Code": "GatedRepo"})
        if self.owner.forgetful and revision not in ("main", repo.commit):
            return self._json(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        if file not in repo.files:
            return self._json(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        if waiting := self.owner.status.get(file):
            return self._json(waiting.pop(0), {"error": "broken"})
        data = repo.files[file]
        large = file.endswith(LFS_SUFFIXES)
        headers = {
            "X-Repo-Commit": repo.commit,
            "ETag": f'"{_git(data)}"',
            # Another host by name, as the storage of the real hub is: the token must not go there.
            "Location": f"http://localhost:{self.server.server_address[1]}/storage/{name}/{file}",
            "Content-Length": "0",
        }
        if large:
            headers |= {"X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Linked-Size": str(len(data))}
        self._head(302, headers)
        return None

    def _storage(self, repo: Repo, file: str, body: bool) -> None:
        data = repo.files[file]
        begin, status = 0, 200
        whole = len(data)
        if self.owner.ranges and (match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
            begin, status = int(match[1]), 206
            if begin >= whole:
                return self._json(416, {"error": "range"})
            data = data[: int(match[2]) + 1] if match[2] else data
        headers = {"Content-Length": str(len(data) - begin), "Content-Type": "application/octet-stream"}
        if status == 206:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{whole}"
        self._head(status, headers)
        if body:
            self._send(file, data, begin)
        return None

    def _send(self, file: str, data: bytes, begin: int) -> None:
        hub = self.owner
        if hub.spoil.get(file):
            hub.spoil[file] -= 1
            data = bytes(255 - b for b in data)
        cuts = hub.cut.get(file)
        end = min(len(data), begin + cuts.pop(0)) if cuts else len(data)
        piece = max(1, hub.rate // 20) if hub.rate else 1 << 20
        sent = Sent(file, begin, 0)
        hub.sent.append(sent)
        try:
            while begin < end:
                part = data[begin : min(begin + piece, end)]
                self.wfile.write(part)
                begin += len(part)
                sent.count += len(part)
                if hub.rate:
                    time.sleep(0.05)
        except OSError:
            pass
        if begin < len(data):
            self.close_connection = True

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _json(self, status: int, data: object, headers: dict[str, str] | None = None) -> None:
        text = json.dumps(data).encode()
        self._head(status, {"Content-Length": str(len(text)), "Content-Type": "application/json"} | (headers or {}))
        if self.command != "HEAD":
            self.wfile.write(text)


def _git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
