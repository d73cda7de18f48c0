"""Muon: momentum whose matrices are made nearly orthogonal before each step.

    M <- beta * M + (1 - beta) * G
    W <- W - rate * 0.2 * sqrt(max(m, n)) * orthogonal((1 - beta) * G + beta * M)

(Jordan et al., "Muon", 2024; the factor, which makes steps as large as AdamW's, from arXiv 2502.16982.) The steps are
those of `torch.optim.Muon(adjust_lr_fn="match_rms_adamw")`; a step of mini takes a third of its time here, since it
multiplies transposed views in bf16, which is slow on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # brings all singular values to between 0.7 and 1.2 in five rounds
ROUNDS = 5
LIKE_ADAMW = 0.2


class Muon(torch.optim.Optimizer):
    """For matrices (m, n) alone; raises ValueError for other parameters."""

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        if any(p.ndim != 2 for group in self.param_groups for p in group["params"]):
            raise ValueError("Muon is for matrices")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].lerp_(p.grad, 1 - momentum)
                update = orthogonal(p.grad.lerp(state["momentum"], momentum))
                p.mul_(1 - rate * group["weight_decay"])
                p.add_(update, alpha=-rate * LIKE_ADAMW * max(p.shape) ** 0.5)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """A matrix (m, n) with the same singular vectors and singular values of about 1."""
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).bfloat16().contiguous()
    x = x / (x.norm() + 1e-7)
    for _ in range(ROUNDS):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).to(matrix.dtype)


class Optimizers(torch.optim.Optimizer):
    """Several optimizers that step as one, each with parameters of its own."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = parts
        self._share_groups()

    def _share_groups(self) -> None:
        """Whoever sets a learning rate here sets it there."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()
