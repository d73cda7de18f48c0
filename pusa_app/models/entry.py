"""The catalogue's entries: what a model or a LoRA is, and of which files of the hub it is made.

An entry is a JSON file in entries/, or in the folder catalogue/ of the data folder for a user's own. Sizes are bytes
and None where nobody has written them down; the hub tells exact ones, and hashes, before a download begins.
"""

from __future__ import annotations

import json
import os
import re
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from pusa_app.errors import ModelError, StoreError
from pusa_app.models.card import BackboneSpec, Lora, ModelCard
from pusa_app.timeline import TaskName

ENTRIES = Path(__file__).with_name("entries")
ID = r"[a-z0-9][a-z0-9._-]{0,60}"
# What a model may consist of. Pickles, code and other people's formats stay where they are.
SUFFIXES = (".json", ".safetensors", ".model", ".txt", ".jinja")
SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")


def _stays_inside(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError("a path must stay inside its folder")
    return path


# Files of the hub may be called what they like, but for what leads elsewhere on some system.
Pattern = Annotated[str, Field(pattern=r"^[^\\:?\x00-\x1f]+$", max_length=300), AfterValidator(_stays_inside)]
RelativePath = Annotated[str, Field(pattern=r"^[\w.\-/]*$", max_length=200), AfterValidator(_stays_inside)]


class Part(BaseModel):
    """Some files of one repository, and what is made of them.

    files: patterns, each of which must have at least one file; literal: names, in which a star is a star. variant:
    where weights are there in this variant too (`model.bf16.safetensors`), only those are taken, under their plain
    names. use: "link" puts the files into the model's folder as they are, below `into`; "convert" makes the diffusers
    folder `into` of a native checkpoint; "lora" puts one file there as loras/<into>.safetensors. size: bytes, about.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    repo: Annotated[str, Field(pattern=r"^[\w.\-]+/[\w.\-]+$")]
    revision: str = "main"
    files: tuple[Pattern, ...] = Field(min_length=1)
    literal: bool = False
    variant: str | None = None
    use: Literal["link", "convert", "lora"] = "link"
    into: RelativePath = ""
    size: int | None = Field(default=None, ge=0)
    lora: Lora | None = None
    pickle: bool = False

    @model_validator(mode="after")
    def _has_place(self) -> Part:
        if self.use != "link" and not self.into:
            raise ValueError(f"a part to {self.use} needs a place: into")
        if self.pickle and self.use != "lora":
            raise ValueError("only a LoRA may come as a pickle")
        return self

    def choose(self, names: list[str] | tuple[str, ...]) -> list[str]:
        """The files of a repository that belong to this part, in the order of their names."""
        suffixes = (*SUFFIXES, ".pt") if self.pickle else SUFFIXES
        found = [n for n in sorted(names) if n.endswith(suffixes) and any(self._fits(n, p) for p in self.files)]
        if self.variant is None:
            return found if self.use != "link" else [n for n in found if not _variant_of(n)]
        rich = {_folder(name) for name in found if _variant_of(name) == self.variant}
        return [n for n in found if _wanted(n, self.variant, _folder(n) in rich)]

    def missing(self, names: list[str] | tuple[str, ...]) -> str | None:
        """A pattern, or a piece of a set of pieces, that has no file among these; None when they are complete.

        Without the hub's own list this is all that can be known.
        """
        chosen = self.choose(names)
        for pattern in self.files:
            fitting = [name for name in chosen if self._fits(name, pattern)]
            if not fitting:
                return pattern
            # A folder with a config but no weights was begun and not finished.
            weighty = pattern.endswith("/*") and any(name.endswith("/config.json") for name in fitting)
            if weighty and not any(name.endswith(".safetensors") for name in fitting):
                return pattern
        shards: dict[tuple[str, int], set[int]] = {}
        for name in chosen:
            if match := SHARD.fullmatch(name):
                shards.setdefault((match["stem"], int(match["count"])), set()).add(int(match["number"]))
        for (stem, count), numbers in shards.items():
            if gone := sorted(set(range(1, count + 1)) - numbers):
                return f"{stem}-{gone[0]:05d}-of-{count:05d}.safetensors"
        return None

    def _fits(self, name: str, pattern: str) -> bool:
        """Whether a path fits a pattern, or is it; a star never crosses a slash."""
        globs = not self.literal and name.count("/") == pattern.count("/")
        return name == pattern or (globs and fnmatchcase(name, pattern))

    def plain(self, name: str) -> str:
        """The name that a file has in the model's folder, below `into`: without its variant."""
        return name if self.variant is None else name.replace(f".{self.variant}", "")


class Entry(BaseModel):
    """A model of the catalogue, or a LoRA for some of them (`base`).

    trained_for: what it was trained for, from which follow `tasks` and, for every other task, a reason (`why_not`).
    here: a folder of this repository that holds it, instead of parts. missing: what to do when that is not there.
    hub: of a LoRA that a person asked the hub for, its name there; what it is for is known once its file was looked at.
    commit, etag: of the hub, by which what came under that name can be told from what came another day.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=rf"^{ID}$")]
    kind: Literal["model", "lora"] = "model"
    title: str
    summary: str
    trained_for: str = ""
    label: str = ""
    licence: str
    licence_link: str = ""
    page: str = ""
    gated: bool = False
    parts: tuple[Part, ...] = ()
    here: RelativePath = ""
    missing: str = ""
    base: tuple[str, ...] = ()
    hub: str = ""
    commit: str = ""
    etag: str = ""
    steps: int | None = Field(default=None, ge=1)
    guidance: float | None = Field(default=None, ge=0)
    spec: BackboneSpec | None = None
    tasks: tuple[TaskName, ...] = ()
    why_not: dict[TaskName, str] = {}

    @model_validator(mode="after")
    def _is_whole(self) -> Entry:
        if self.kind == "lora":
            if not (self.base or self.hub) or any(part.use != "lora" for part in self.parts):
                raise ValueError("a LoRA needs base models and files to use as lora")
            return self
        if bool(self.here) == bool(self.parts):
            raise ValueError("a model has either parts to get or a folder where it is")
        if self.parts:
            if self.spec is None:
                raise ValueError("a model needs a spec")
            untold = [name for name in get_args(TaskName) if name not in self.tasks and name not in self.why_not]
            if untold:
                raise ValueError(f"it is not said why it does not do {untold[0]}")
        return self

    @property
    def size(self) -> int | None:
        """Bytes to get, about; None where the size of a part is not known."""
        sizes = [part.size for part in self.parts]
        return None if None in sizes or not sizes else sum(size for size in sizes if size is not None)

    def card(self, folder: Path | None) -> ModelCard:
        """The card of a model that has parts."""
        assert self.spec is not None
        loras = tuple(
            (part.lora or Lora(file="")).model_copy(update={"file": f"loras/{part.into}.safetensors"})
            for part in self.parts
            if part.use == "lora"
        )
        return ModelCard(
            id=self.id,
            title=self.title,
            summary=self.summary,
            licence=self.licence,
            folder=folder,
            spec=self.spec,
            tasks=self.tasks,
            why_not=self.why_not,
            label=self.label,
            loras=loras,
        )


def entries(data_dir: Path | None = None, *, strict: bool = False) -> dict[str, Entry]:
    """The catalogue by id, in its order; with a data folder, a user's own entries after it.

    A file of the user's that is not an entry is left out; strict: raises ModelError with one line instead.
    """
    found = dict(_built_in())
    for path in sorted((data_dir / "catalogue").glob("*.json")) if data_dir is not None else ():
        try:
            entry = _read(path)
            if entry.here:
                raise ModelError(f"{path} is not a catalogue entry: only parts of repositories can be named.")
            found.setdefault(entry.id, entry)
        except ModelError:
            if strict:
                raise
    return found


@lru_cache(maxsize=1)
def _built_in() -> dict[str, Entry]:
    read = [_read(path) for path in sorted(ENTRIES.glob("*.json"))]
    return {entry.id: entry for entry in read}


def write_entry(data_dir: Path, entry: Entry) -> None:
    """Put an entry among the user's own; raises StoreError when that cannot be written."""
    path = entry_file(data_dir, entry.id)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(entry.model_dump_json(indent=2, exclude_defaults=True) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}.") from None


def entry_file(data_dir: Path, entry_id: str) -> Path:
    """Where an entry of the user's own is."""
    return data_dir / "catalogue" / f"{entry_id}.json"


def _read(path: Path) -> Entry:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Entry.model_validate(data)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}.") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"{path} is not a catalogue entry: {where + ': ' if where else ''}{first['msg']}.") from None
    except (ValueError, RecursionError):
        raise ModelError(f"{path} is not a catalogue entry: it is not valid JSON.") from None


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _variant_of(name: str) -> str | None:
    """ "model.fp16-00001-of-00002.safetensors" and "model.safetensors.index.fp16.json" -> "fp16"."""
    base = name.rpartition("/")[2]
    if match := re.fullmatch(r".+\.safetensors\.index\.(\w+)\.json", base):
        return match[1]
    match = re.fullmatch(r"[^.]+\.(\w+?)(?:-\d{5}-of-\d{5})?\.safetensors", base)
    return match[1] if match else None


def _wanted(name: str, variant: str, rich: bool) -> bool:
    """Whether to take a file of a folder; rich: its weights are there in the wanted variant."""
    weights = name.endswith(".safetensors") or ".safetensors.index." in name
    if not weights:
        return True
    return _variant_of(name) == (variant if rich else None)
