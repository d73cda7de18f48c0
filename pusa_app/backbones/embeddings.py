"""Encoded prompts on the disk, so that a text encoder of ten gigabytes need not be loaded for a prompt that is known.

A file is named by a hash of the encoder's files, how it was run, and the text; the text itself is not written down.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pusa_app.backbones.base import Text

MAX_BYTES = 500_000_000  # some hundred prompts
SUFFIX = ".safetensors"


class Embeddings:
    """A folder of encoded prompts. version: changes with everything that an encoding depends on but the text.

    Never raises: what cannot be read is not known, what cannot be written is encoded again next time.
    """

    def __init__(self, folder: Path, version: str, max_bytes: int = MAX_BYTES) -> None:
        self._folder, self._version, self._max_bytes = folder, version, max_bytes

    def get(self, prompt: str) -> Text | None:
        """What was put for a prompt, on the CPU, or None."""
        path = self._path(prompt)
        try:
            tensors = load_file(path)
            os.utime(path)  # what is used stays longest
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, ValueError):
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        embeds, pooled = tensors.get("embeds"), tensors.get("pooled")
        return Text(embeds, pooled) if embeds is not None and embeds.ndim == 2 else None

    def put(self, prompt: str, text: Text) -> None:
        path = self._path(prompt)
        part = path.with_name(f".{path.stem}.{os.getpid()}.part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            tensors = {"embeds": text.embeds} | ({} if text.pooled is None else {"pooled": text.pooled})
            save_file({name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}, part)
            os.replace(part, path)
        except (OSError, SafetensorError):
            with contextlib.suppress(OSError):
                part.unlink()
            return
        self._forget_oldest()

    def knows(self, prompt: str) -> bool:
        return self._path(prompt).exists()

    def _path(self, prompt: str) -> Path:
        mark = hashlib.sha256(f"{self._version}\n{prompt}".encode(errors="surrogatepass"))
        return self._folder / f"{mark.hexdigest()[:40]}{SUFFIX}"

    def _forget_oldest(self) -> None:
        with contextlib.suppress(OSError):
            files = sorted((p.stat().st_mtime_ns, p.stat().st_size, p) for p in self._folder.glob(f"*{SUFFIX}"))
            excess = sum(size for _, size, _ in files) - self._max_bytes
            for _, size, path in files[:-1]:
                if excess <= 0:
                    return
                path.unlink(missing_ok=True)
                excess -= size
