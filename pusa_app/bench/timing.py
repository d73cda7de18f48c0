"""Times side by side: variants take turns within one process, and ratios are taken within each round, so that a busy
machine slows both sides; or between the fastest rounds, which were disturbed least."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

Seconds = dict[str, list[float]]
Variants = dict[str, Callable[[], Any]]


def take_turns(variants: Variants, rounds: int, wait: Callable[[], Any] = lambda: None) -> Seconds:
    """Time every variant once per round after one warm-up each; every round starts with another variant.

    wait: comes back when the device has done what it was given.
    """
    seconds: Seconds = {name: [] for name in variants}
    names = list(variants)
    for number in range(-1, rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            wait()
            started = time.perf_counter()
            variants[name]()
            wait()
            if number >= 0:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(seconds: Seconds, name: str, base: str) -> float:
    """Median over the rounds of the time relative to `base` in the same round."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[base], strict=True))


def best_ratio(seconds: Seconds, name: str, base: str) -> float:
    """Of the fastest round of each."""
    return min(seconds[name]) / min(seconds[base])


def print_table(seconds: Seconds, base: str, more: dict[str, str] | None = None) -> None:
    """A line per variant: the median of its seconds and ratios, and the ratio of the fastest rounds; more: what else is
    to be said of it."""
    width = max(map(len, seconds))
    for name, values in seconds.items():
        text = f"  {name:<{width}} {statistics.median(values):8.3f} s   {ratio(seconds, name, base):5.2f} x"
        text += f"   fastest {best_ratio(seconds, name, base):5.2f} x"
        print(f"{text}   {more[name]}" if more and name in more else text)


def verdict(name: str, found: float, goal: float) -> bool:
    """Print whether a ratio meets its goal."""
    print(f"  goal: {name} at most {goal:g} x: {'pass' if found <= goal else 'FAIL'} ({found:.3f})")
    return found <= goal
