"""How noise is drawn per slot in training: one module for every model that learns vectorized timesteps.

A `Mixture` draws a `NoiseDraw` for a batch. Its parts are those that the field uses and that the tasks need:

    synchronous   one sigma for all slots: ordinary video diffusion, keeps text-to-video
    independent   one sigma per slot (FVDM, arXiv 2410.03160, section 3; Pusa V0.5 trains with this alone)
    task masks    keyframes at the places where the tasks put them, with the noise that the sampler gives them:
                  multiplier * sigma, so that training sees the rows of the noise matrix S

FVDM's probabilistic timestep sampling (PTSS) is the mixture of the first two with independent = 0.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

# How often the places of keyframes are those of each kind of task, see `PLACES`.
SHARES = (("start", 0.36), ("ends", 0.24), ("extended", 0.12), ("led to", 0.08), ("bridged", 0.12), ("anywhere", 0.08))


@dataclass(frozen=True)
class NoiseDraw:
    """For a batch of B clips with F slots.

    sigma (B, F) in [0, 1]. weight (B, F): 0 where a slot is a clean keyframe, whose velocity nobody asks for, else 1.
    still (B, F) bool: the keyframe is a single picture, not the latent of its six frames. led (B,) int: so many slots
    at the end are a keyframe that was encoded by itself, 0 where there is none. drop_text (B,) bool: train this clip
    without its caption.
    """

    sigma: torch.Tensor
    weight: torch.Tensor
    still: torch.Tensor
    led: torch.Tensor
    drop_text: torch.Tensor


def uniform(shape: tuple[int, ...]) -> torch.Tensor:
    """sigma uniform in [0, 1)."""
    return torch.rand(shape)


def shifted(shift: float) -> Callable[[tuple[int, ...]], torch.Tensor]:
    """sigma = shift*u / (1 + (shift - 1)*u) with u uniform: the density that a shifted sampling schedule visits."""

    def draw(shape: tuple[int, ...]) -> torch.Tensor:
        u = torch.rand(shape)
        return shift * u / (1 + (shift - 1) * u)

    return draw


def linear_quadratic_grid(sigmas: tuple[float, ...]) -> Callable[[tuple[int, ...]], torch.Tensor]:
    """sigma uniform over the values of a schedule, as Pusa V0.5 draws from the 1000-step linear-quadratic one."""
    values = torch.tensor(sigmas)

    def draw(shape: tuple[int, ...]) -> torch.Tensor:
        return values[torch.randint(len(values), shape)]

    return draw


@dataclass(frozen=True)
class Mixture:
    """Shares of the ways to draw noise; what is left of 1 is synchronous.

    clean: how often all keyframes are clean; else they get multipliers uniform in [0, most_noise]. free_pictures: how
    often pictures in later slots, each the last frame of its slot, have one noise between a third and all of
    most_noise, and one in slot 0 none: so do the tasks place them. places: shares of `PLACES`. joint: the weight of a
    slot beside a keyframe, where others weigh 1.
    """

    draw_sigma: Callable[[tuple[int, ...]], torch.Tensor] = uniform
    independent: float = 0.15
    tasks: float = 0.45
    clean: float = 0.65
    most_noise: float = 0.7
    drop_text: float = 0.1
    drop_text_with_keyframes: float = 0.25
    still: float = 0.5
    places: tuple[tuple[str, float], ...] = SHARES
    joint: float = 1.0
    free_pictures: float = 0.0

    def draw(self, batch: int, slots: int) -> NoiseDraw:
        sigma = self.draw_sigma((batch, 1)).expand(batch, slots).clone()
        weight = torch.ones(batch, slots)
        still = torch.zeros(batch, slots, dtype=torch.bool)
        led = torch.zeros(batch, dtype=torch.long)
        drop = torch.rand(batch)
        kind = torch.rand(batch)
        drop_text = drop < self.drop_text
        for b in range(batch):
            if kind[b] < self.independent:
                sigma[b] = self.draw_sigma((slots,))
            elif kind[b] < self.independent + self.tasks:
                keyframes, pictures = draw_keyframes(slots, self.places)
                for slot in keyframes:
                    weight[b, max(0, slot - 1) : slot + 2] = self.joint
                free = pictures and keyframes[-1] > 0 and float(torch.rand(())) < self.free_pictures
                multipliers = self._free(keyframes) if free else self._multipliers(len(keyframes))
                for slot, multiplier in zip(keyframes, multipliers, strict=True):
                    sigma[b, slot] *= multiplier
                    weight[b, slot] = float(multiplier > 0)
                    still[b, slot] = pictures and slot > 0 and (free or bool(torch.rand(()) < self.still))
                led[b] = 0 if pictures else _suffix(keyframes, slots)
                drop_text[b] = drop[b] < self.drop_text_with_keyframes
        return NoiseDraw(sigma, weight, still, led, drop_text)

    def _multipliers(self, count: int) -> list[float]:
        """All keyframes clean, all with one noise, or each with its own (ramps, a clean start with a noisy end)."""
        kind = torch.rand(())
        if kind < self.clean:
            return [0.0] * count
        values = torch.rand(count) * self.most_noise
        if kind < self.clean + (1 - self.clean) / 3:
            values[:] = values[0]
        elif torch.rand(()) < 0.5:
            values[0] = 0.0
        return values.tolist()

    def _free(self, keyframes: list[int]) -> list[float]:
        """Room to move around pictures in later slots, none around one in slot 0."""
        noise = self.most_noise * (1 + 2 * float(torch.rand(()))) / 3
        return [noise if slot else 0.0 for slot in keyframes]


def ptss(draw_sigma: Callable[[tuple[int, ...]], torch.Tensor], independent: float = 0.2) -> Mixture:
    """FVDM's probabilistic timestep sampling strategy."""
    return Mixture(draw_sigma=draw_sigma, independent=independent, tasks=0.0)


def draw_keyframes(slots: int, shares: tuple[tuple[str, float], ...] = SHARES) -> tuple[list[int], bool]:
    """Slots that a task clamps, and whether they may be single pictures (True) or are parts of a clip (False)."""
    if slots < 3:
        return _start(slots), True
    chosen = int(torch.multinomial(torch.tensor([share for _, share in shares]), 1))
    place, pictures = PLACES[shares[chosen][0]]
    return place(slots), pictures


def _start(slots: int) -> list[int]:
    """Image to video."""
    return [0]


def _ends(slots: int) -> list[int]:
    """Start and end, loop of a picture."""
    return [0, slots - 1]


def _extended(slots: int) -> list[int]:
    """Extension."""
    return list(range(_between(2, min(4, slots - 1))))


def _led_to(slots: int) -> list[int]:
    """Extension backwards."""
    return list(range(slots - _between(1, min(3, slots - 2)), slots))


def _bridged(slots: int) -> list[int]:
    """Completion, transition, loop of a clip: clips at both ends."""
    before = _between(1, max(1, slots - 3))
    after = _between(1, max(1, slots - before - 1))
    return [*range(before), *range(slots - after, slots)]


def _far(slots: int) -> list[int]:
    """The same with as much between them as the tasks ask for: two slots or more, and at most three at the end."""
    after = _between(1, min(3, slots - 3))
    before = _between(1, max(1, slots - after - 2))
    return [*range(before), *range(slots - after, slots)]


def _tied(slots: int) -> list[int]:
    """The same as the tasks tie a result to clips: two slots or three before, two after."""
    before = max(1, min(_between(2, 3), slots - 4))
    return [*range(before), *range(max(before + 1, slots - 2), slots)]


def _anywhere(slots: int) -> list[int]:
    return sorted(torch.randperm(slots)[: _between(1, min(3, slots - 1))].tolist())


def _middle(slots: int) -> list[int]:
    """A picture between two others, or between the first and what comes."""
    ends = [0, slots - 1][: _between(1, 2)]
    return sorted({*ends, _between(1, slots - 2)})


PLACES: dict[str, tuple[Callable[[int], list[int]], bool]] = {
    "start": (_start, True),
    "ends": (_ends, True),
    "extended": (_extended, False),
    "led to": (_led_to, False),
    "bridged": (_bridged, False),
    "bridged far": (_far, False),
    "tied": (_tied, False),
    "anywhere": (_anywhere, True),
    "in the middle": (_middle, True),
}


def _suffix(keyframes: list[int], slots: int) -> int:
    """How many slots in a row a clip keyframe takes at the end, without one that begins in slot 0."""
    count = 0
    while slots - 1 - count in keyframes:
        count += 1
    return count if count < slots else 0


def _between(low: int, high: int) -> int:
    return int(torch.randint(low, max(low, high) + 1, ()))
