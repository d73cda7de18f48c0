"""What every training here shares: a budget counted in samples, a learning-rate curve, averages, checkpoints, a log."""

from __future__ import annotations

import csv
import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch


@dataclass(frozen=True)
class Budget:
    """How long to train and how fast to learn; all lengths are in samples, so that the machine's speed does not matter.

    The learning rate rises over `warmup` samples, stays, and falls on a cosine to `floor` of itself from `decay_from`
    (a share of the budget) on.
    """

    samples: int
    learning_rate: float
    warmup: int
    decay_from: float = 0.4
    floor: float = 0.02

    def rate(self, seen: int) -> float:
        share = seen / self.samples
        rise = min(1.0, (seen + 1) / self.warmup)
        if share < self.decay_from:
            return self.learning_rate * rise
        fall = min(1.0, (share - self.decay_from) / (1 - self.decay_from))
        return self.learning_rate * rise * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * fall)))


class Average:
    """Exponential moving average of parameters (updated after each step, used for what is shipped)."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], decay: float) -> None:
        self.parameters = list(parameters)
        self.decay = decay
        self.values = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the parameters with their averages; call it twice to be back."""
        for p, value in zip(self.parameters, self.values, strict=True):
            kept = p.detach().clone()
            p.copy_(value)
            value.copy_(kept)


@dataclass
class TrainingRun:
    """One training that can stop at any time and go on from its last checkpoint.

    The checkpoint holds weights, optimizer, average, random state and counters; it is replaced atomically every
    `save_every` seconds. `curve.csv` beside it gets a row per report.
    """

    name: str
    folder: Path
    module: torch.nn.Module
    budget: Budget
    optimizer: torch.optim.Optimizer
    ema_decay: float
    save_every: float = 120.0
    report_every: float = 30.0
    seen: int = 0
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.average = Average(self.module.parameters(), self.ema_decay)
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        if self.checkpoint.exists():
            self._load()

    @property
    def checkpoint(self) -> Path:
        return self.folder / f"{self.name}.pt"

    @property
    def finished(self) -> bool:
        return self.seen >= self.budget.samples

    def train(
        self,
        loss_of: Callable[[int], tuple[torch.Tensor, int]],
        validate: Callable[[], dict[str, float]] | None = None,
        stop_after: float | None = None,
    ) -> bool:
        """Step until the budget is used (True) or `stop_after` seconds are over (False).

        loss_of(step) returns the loss and how many samples it was made of. Parameter groups keep the ratio of the
        learning rates that they were made with.
        """
        began = saved = reported = time.monotonic()
        before = self.seconds
        while not self.finished:
            now = time.monotonic()
            self.seconds = before + now - began
            if stop_after is not None and now - began > stop_after:
                break
            rate = self.budget.rate(self.seen)
            for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
                group["lr"] = rate * base
            loss, count = loss_of(self.step)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
            self.optimizer.step()
            self.average.update(self.step)
            self.step += 1
            self.seen += count
            self.losses.append(loss.item())
            if now - saved > self.save_every:
                self.save()
                saved = time.monotonic()
            if now - reported > self.report_every:
                self._report(rate, validate)
                reported = time.monotonic()
        self._report(self.budget.rate(self.seen), validate)
        self.save()
        return self.finished

    def _report(self, rate: float, validate: Callable[[], dict[str, float]] | None) -> None:
        recent = self.losses[-100:]
        row = {
            "seconds": round(self.seconds, 1),
            "samples": self.seen,
            "step": self.step,
            "loss": round(sum(recent) / max(1, len(recent)), 5),
            "rate": f"{rate:.2e}",
        }
        if validate is not None:
            self.average.swap()
            row |= {key: round(value, 5) for key, value in validate().items()}
            self.average.swap()
        speed = self.seen / max(self.seconds, 1e-9)
        left = (self.budget.samples - self.seen) / max(speed, 1e-9) / 60
        print(
            f"{self.name} {100 * self.seen / self.budget.samples:5.1f}%  "
            + "  ".join(f"{key} {value}" for key, value in row.items())
            + f"  {speed:.1f}/s  about {left:.0f} min left",
            file=sys.stderr,
            flush=True,
        )
        path = self.folder / f"{self.name}.csv"
        fresh = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if fresh:
                writer.writeheader()
            writer.writerow(row)

    def save(self) -> None:
        state = {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.values,
            "random": torch.get_rng_state(),
            "counters": [self.seen, self.step, self.seconds],
            "losses": self.losses[-100:],
        }
        beside = self.checkpoint.with_suffix(".tmp")
        torch.save(state, beside)
        os.replace(beside, self.checkpoint)

    def _load(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        for value, kept in zip(self.average.values, state["average"], strict=True):
            value.copy_(kept)
        torch.set_rng_state(state["random"])
        self.seen, self.step, self.seconds = state["counters"]
        self.losses = state["losses"]
