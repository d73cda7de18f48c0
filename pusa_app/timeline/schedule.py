"""Noise schedules: sigma over the steps, and the noise matrix over steps and slots."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Unit = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
MAX_STEPS = 1000


# What the value of each kind of schedule is called, and from where to where people may choose it.
SCHEDULE_VALUES: dict[str, tuple[str, tuple[float, float]]] = {
    "shift": ("shift", (1e-3, 100.0)),
    "linear-quadratic": ("threshold", (1e-6, 0.5)),
}


class ScheduleSpec(BaseModel):
    """Which sigmas a run goes through.

    linear-quadratic: Mochi's: half of the steps go linearly from 1 to 1 - threshold, the rest quadratically to 0
    (genmo mochi, `linear_quadratic_schedule`); with a threshold above 0.5 that curve can swing below 0.
    shift: u from 1 to 0 mapped to shift*u / (shift*u + (1 - u)), Wan's and mini's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["linear-quadratic", "shift"]
    threshold: float = Field(default=0.025, gt=0, le=0.5, allow_inf_nan=False)
    shift: float = Field(default=1.0, gt=0, le=100, allow_inf_nan=False)

    def sigmas(self, steps: int) -> tuple[float, ...]:
        """steps + 1 values from 1 down to 0."""
        if not 1 <= steps <= MAX_STEPS:
            raise ValueError(f"steps must be from 1 to {MAX_STEPS}, not {steps}")
        if self.kind == "shift":
            us = [1 - i / steps for i in range(steps + 1)]
            return tuple(self.shift * u / (self.shift * u + (1 - u)) for u in us)  # exact 1 and 0 at the ends
        return _linear_quadratic(steps, self.threshold)


def _linear_quadratic(steps: int, threshold: float) -> tuple[float, ...]:
    if steps == 1:
        return (1.0, 0.0)
    linear = steps // 2
    quadratic = steps - linear
    rise = [i * threshold / linear for i in range(linear)]
    # The quadratic part starts with the slope of the linear one and ends at 1.
    difference = linear - threshold * steps
    a = difference / (linear * quadratic**2)
    b = threshold / linear - 2 * difference / quadratic**2
    c = a * linear**2
    curve = [a * i**2 + b * i + c for i in range(linear, steps)]
    return tuple([1 - x for x in rise + curve] + [0.0])


class NoiseSchedule(BaseModel):
    """Sigmas times multipliers: how much noise each slot has at each step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sigmas: tuple[Unit, ...]
    multipliers: tuple[Unit, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _falls_to_zero(self) -> NoiseSchedule:
        if len(self.sigmas) < 2:
            raise ValueError("a schedule needs at least one step")
        if self.sigmas[-1] != 0:
            raise ValueError("the last sigma must be 0")
        if any(a < b for a, b in zip(self.sigmas, self.sigmas[1:], strict=False)):
            raise ValueError("sigmas must not rise")
        return self

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    def matrix(self) -> tuple[tuple[float, ...], ...]:
        """S[i][f] = sigma_i * m_f: (steps + 1) rows, one column per slot, last row 0 (FVDM, arXiv 2410.03160; Pusa)."""
        return tuple(tuple(s * m for m in self.multipliers) for s in self.sigmas)
