"""Room on the disks that a download goes to. The offer of one and the download itself ask the same function."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pusa_app.models.home import Home

RESERVE = 500_000_000  # bytes that a download leaves on a disk
UNITS = {"TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3, "bytes": 1.0}


@dataclass(frozen=True)
class Disks:
    """Free bytes, None where nobody knows. cache: where the files of the hub go. own: where models are put together,
    which is the same disk or, with `two`, another one."""

    cache: int | None
    own: int | None = None
    two: bool = False

    @classmethod
    def of(cls, home: Home) -> Disks:
        """Those of this machine; raises OSError when they cannot be asked."""
        cache, own = existing(home.hub_cache), existing(home.models_dir)
        two = device_of(cache) != device_of(own)
        return cls(shutil.disk_usage(cache).free, shutil.disk_usage(own).free if two else None, two)


@dataclass(frozen=True)
class Shortage:
    """Too little room on one disk. need: bytes that come to it; more: bytes to make room for. own: it is that of the
    models, and not that of the cache."""

    need: int
    free: int
    own: bool = False

    @property
    def more(self) -> int:
        return self.need + RESERVE - self.free

    def words(self, size_words: Callable[[float], str]) -> tuple[str, str, str]:
        """What is needed, what is free, and how much room to make."""
        # Where the files alone would just fit it is the reserve that does not.
        need = self.need if self.need > self.free else self.need + RESERVE
        return *apart(need, self.free, size_words), size_words(self.more)


def shortage(disks: Disks, files: int, made: int) -> Shortage | None:
    """What is lacking for `files` bytes of the hub and `made` bytes of what is made of them; None when it is enough."""
    needs = (
        [(files, disks.cache, False), (made, disks.own, True)] if disks.two else [(files + made, disks.cache, False)]
    )
    for need, free, own in needs:
        if need and free is not None and free < need + RESERVE:
            return Shortage(need, free, own)
    return None


def existing(path: Path) -> Path:
    """The path, or the closest folder above it that is there."""
    return next((folder for folder in (path, *path.parents) if folder.exists()), path)


def device_of(path: Path) -> int:
    return path.stat().st_dev


def apart(more: float, less: float, words: Callable[[float], str]) -> tuple[str, str]:
    """Two amounts in words, the greater one first. Where both words would be the same they get one decimal, the greater
    rounded up and the other down: "needs 24 GB where 24 GB are free" is no reason."""
    first, second = words(more), words(less)
    if first != second or more <= less:
        return first, second
    unit = first.rpartition(" ")[2]
    step = UNITS.get(unit, 1.0)
    return f"{math.ceil(10 * more / step) / 10:.1f} {unit}", f"{math.floor(10 * less / step) / 10:.1f} {unit}"
