"""Numbers in words."""

from __future__ import annotations


def size_words(count: float) -> str:
    """12_345_678 -> "12 MB"; as the hub counts, in powers of 1000."""
    for unit, step in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            value = count / step
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{count:.0f} bytes"
