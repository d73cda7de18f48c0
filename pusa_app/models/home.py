"""Where the weights of models are: the folder of the assembled ones, and what is remembered of them.

data_dir/models/<id>/     a model as the program opens it: links to files of the Hugging Face cache, and what was
                          converted; card.json is written last, so a folder with one is whole
data_dir/models.json      own: id -> a folder of the user's; files: id -> repository -> a file of the user's;
                          asked: what was asked for; lists: "repository@revision" -> what the hub said of its files;
                          got: repository -> hashes of the files that this program downloaded
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from pusa_app.errors import StoreError
from pusa_app.settings import default_data_dir

CARD_FILE = "card.json"
FIELDS = ("own", "files", "asked", "lists", "got")


@dataclass(frozen=True)
class Home:
    """The weights of one data folder. cache and endpoint: None takes those of huggingface_hub."""

    data_dir: Path
    cache: Path | None = None
    endpoint: str | None = None

    @classmethod
    def here(cls) -> Home:
        return cls(default_data_dir())

    @property
    def models_dir(self) -> Path:
        return self.data_dir / "models"

    @property
    def record_file(self) -> Path:
        return self.data_dir / "models.json"

    @property
    def hub_cache(self) -> Path:
        """The Hugging Face cache that all programs of this user share."""
        if self.cache is not None:
            return self.cache
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE)

    @property
    def hub_endpoint(self) -> str:
        if self.endpoint is not None:
            return self.endpoint.rstrip("/")
        from huggingface_hub import constants

        return str(constants.ENDPOINT)

    def record(self) -> dict[str, Any]:
        """What is remembered; a damaged file is nothing remembered, since all of it can be found out again."""
        try:
            data = json.loads(self.record_file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            data = {}
        data = data if isinstance(data, dict) else {}
        return {field: data[field] if isinstance(data.get(field), dict) else {} for field in FIELDS}

    @contextlib.contextmanager
    def change(self) -> Iterator[dict[str, Any]]:
        """What is remembered, to be changed inside the block; raises StoreError when it cannot be written."""
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            with FileLock(self.record_file.with_suffix(".lock"), timeout=30):
                data = self.record()
                yield data
                part = self.record_file.with_suffix(".part")
                part.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")
                os.replace(part, self.record_file)
        except OSError as error:  # filelock's Timeout is one
            raise StoreError(
                f"{self.record_file} cannot be written: {getattr(error, 'strerror', None) or error}."
            ) from None

    def folder(self, model_id: str) -> Path | None:
        """Where a model is, of which all is here; None when it is not."""
        own = self.record()["own"].get(model_id) if self.record_file.is_file() else None
        if own is not None:
            return Path(own) if Path(own).is_dir() else None
        folder = self.models_dir / model_id
        return folder if is_whole(folder) else None


def is_whole(folder: Path) -> bool:
    """Whether a folder was assembled, and what it links to is still there."""
    try:
        if not (folder / CARD_FILE).is_file():
            return False
        return all(path.exists() for path in folder.rglob("*"))
    except OSError:
        return False
