"""LoRAs of the Hugging Face hub by what people call them: OWNER/REPO, OWNER/REPO:FILE, or an address that was copied.

A recipe names one as "owner/repo:file", with "@revision" where that is not main. Its folder here has an id that follows
from that name, so a name leads there and nowhere else. What an owner has put under a name since is another file on
another machine: results note the hash of the file that was used, and "@COMMIT" names one that never changes. No
network, no torch.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from pusa_app.errors import ModelError
from pusa_app.timeline import hub_parts

HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
MAIN, SUFFIX, PICKLE = "main", ".safetensors", ".pt"
MOST = 300  # characters of a file's name, as entry.py takes them
MOST_PART = 255  # bytes between two slashes, as file systems take them
_REPO = re.compile(r"[A-Za-z0-9][\w.\-]{0,95}/[A-Za-z0-9][\w.\-]{0,95}", re.ASCII)
_WITH_REVISION = re.compile(r"(?P<repo>[^:@]+)(?:@(?P<revision>[A-Za-z0-9][\w.\-/]*))?", re.ASCII)


@dataclass(frozen=True)
class HubLora:
    """A file of a repository at a revision; file "" is the only one that it has."""

    repo: str
    file: str = ""
    revision: str = MAIN

    @property
    def name(self) -> str:
        at = "" if self.revision == MAIN else f"@{self.revision}"
        return f"{self.repo}:{self.file}{at}" if self.file else f"{self.repo}{at}"

    @property
    def id(self) -> str:
        """Of its entry and its folder: words of the name, to be read, and its hash, which makes it the only one."""
        words = re.sub(r"[^a-z0-9]+", "-", f"{self.repo.partition('/')[2]} {self.stem}".lower()).strip("-")
        return f"{words[:48].strip('-') or 'lora'}-{hashlib.sha256(self.name.encode()).hexdigest()[:10]}"

    @property
    def stem(self) -> str:
        return self.file.rpartition("/")[2].rpartition(".")[0]

    @property
    def is_sound(self) -> bool:
        """Whether its name is one, and read again means the same."""
        whole = self if self.file else HubLora(self.repo, f"x{SUFFIX}", self.revision)
        right = HubLora.named(whole.name) == whole
        short = max(len(self.file), len(self.revision)) <= MOST
        storable = all(len(part.encode(errors="replace")) <= MOST_PART for part in self.file.split("/"))
        return right and short and storable and bool(_REPO.fullmatch(self.repo))

    @classmethod
    def named(cls, text: str) -> HubLora | None:
        """The LoRA that a recipe names so; None for a path, and for a name that is not of the hub."""
        parts = hub_parts(text)
        return None if parts is None else cls(*parts)

    @classmethod
    def asked(cls, text: str, host: str = "") -> HubLora:
        """What a person wrote or pasted. host: of the hub that is asked, where that is another one.

        Raises ModelError with one line.
        """
        text = text.strip().strip("\"'")
        address = _address(text, {*HOSTS, host} - {""})
        found = cls.named(text) if address is None else _at(address)
        if found is None and address is None and (match := _WITH_REVISION.fullmatch(text)):
            found = cls(match["repo"], revision=match["revision"] or MAIN)
        if found is None or not found.is_sound:
            raise ModelError(
                f"{text[:100]!r} is no LoRA of the hub: write OWNER/REPO or OWNER/REPO:FILE.safetensors, or paste its "
                "address at huggingface.co."
            )
        return found


def looks_like(text: str) -> bool:
    """Whether a text could be meant for a LoRA of the hub, and not for the id of a model."""
    return "/" in text


def _address(text: str, hosts: set[str]) -> str | None:
    """The path of an address of the hub; None for what is no address."""
    if "://" not in text:
        if text.partition("/")[0].lower() not in hosts:
            return None
        text = f"https://{text}"
    try:
        parts = urlsplit(text)
        return parts.path if parts.netloc.lower() in hosts and parts.scheme in ("https", "http") else ""
    except ValueError:
        return ""


def _at(address: str) -> HubLora | None:
    """/owner/repo, /owner/repo/tree/main, /owner/repo/blob/main/folder/file.safetensors."""
    owner, repo, kind, revision, *file = [*(unquote(part) for part in address.strip("/").split("/")), "", "", "", ""]
    if owner in ("datasets", "spaces", "api") or not repo or kind not in ("", "tree", "blob", "resolve", "raw"):
        return None
    path = "/".join(part for part in file if part) if kind in ("blob", "resolve", "raw") else ""
    return HubLora(f"{owner}/{repo}", path, revision or MAIN)
