"""First Block Cache: where the first block of a transformer changes its input about as it did before, so do all of
them, and what they added is added again without computing it.

Source: ParaAttention (chengzeyi), and diffusers' `FirstBlockCacheConfig`, with two differences. A clip whose slots have
noise of their own is compared slot by slot, and the slot that changed most decides: a mean over all of them would not
see the few slots that are made between many that are kept. Of the texts of a step the first decides for all, so that
it makes no difference whether they share a forward. And the blocks are not hooked but stand in for while a
forward runs, so that it goes with compiled blocks, and blocks that are left out are not brought to the GPU either.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

BLOCKS = ("transformer_blocks", "blocks", "single_transformer_blocks")  # in the order in which models run them
COMPARED = 4  # every so many-th token of a slot is enough to see how much it changed


@dataclass
class _Memory:
    """What is known of earlier forwards with one text: how the first block changed some tokens (B, F, S / COMPARED, D),
    and what all blocks after it added (like the hidden states)."""

    first: torch.Tensor | None = None
    rest: torch.Tensor | None = None


class FirstBlockCache:
    """The cache of one backbone; off until `set`."""

    def __init__(self) -> None:
        self._threshold = 0.0
        self._memories: dict[tuple[int, int], _Memory] = {}
        self._of = 0, 0  # how many texts the last step had, and which model it was
        self._decided = False
        self.forwards, self.skipped = 0, 0  # since it was turned on

    def set(self, threshold: float) -> None:
        """Forget everything. threshold: how much a slot's tokens may change, as a share of what the first block did to
        them when all blocks were computed last; 0 is off."""
        if self._threshold == 0:
            self.forwards = self.skipped = 0
        self._threshold = threshold
        self._memories.clear()

    def turn_to(self, model: Any, texts: int = 1) -> None:
        """Forget where guidance begins or ends, or the other expert works from here on. Called before that comes to the
        GPU, what is forgotten leaves it first."""
        if (texts, id(model)) != self._of:
            self._memories.clear()
            self._of = texts, id(model)

    @contextlib.contextmanager
    def around(self, model: Any, sigma: torch.Tensor, number: int = 0, texts: int = 1) -> Iterator[None]:
        """Inside, one forward of a transformer may leave out its blocks but the first. sigma (F,): slots without noise
        are not looked at. number: of the text (0 too where all share the forward), of so many in this step."""
        if self._threshold == 0:
            yield
            return
        self.turn_to(model, texts)
        memory = self._memories.setdefault((id(model), number), _Memory())
        run = _Run(memory, self._threshold, sigma, None if number == 0 else self._decided)
        lists = {name: getattr(model, name) for name in BLOCKS if hasattr(model, name)}
        blocks = [block for held in lists.values() for block in held]
        stand_ins = iter([_StandIn(block, run, n == 0, n == len(blocks) - 1) for n, block in enumerate(blocks)])
        try:
            for name, held in lists.items():
                model._modules[name] = torch.nn.ModuleList([next(stand_ins) for _ in held])
            yield
        finally:
            model._modules.update(lists)
        self._decided = run.skips
        self.forwards += 1
        self.skipped += run.skips


class _Run:
    """One forward. decided: whether it skips, None where that is to be seen."""

    def __init__(self, memory: _Memory, threshold: float, sigma: torch.Tensor, decided: bool | None) -> None:
        self.memory, self._threshold, self._sigma, self._decided = memory, threshold, sigma, decided
        self.skips = False
        self.pairs = False  # blocks return hidden states and text
        self.after_first: torch.Tensor | None = None

    def see_first(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Hidden states before and after the first block -> those that go on."""
        change = self._some(after) - self._some(before)
        known = self.memory.rest is not None and self.memory.rest.shape == after.shape
        self.skips = known and (self._is_like(change, self.memory.first) if self._decided is None else self._decided)
        if self.skips:
            return after + self.memory.rest
        self.memory.first, self.memory.rest, self.after_first = change, None, after
        return after

    def see_last(self, after: torch.Tensor) -> None:
        assert self.after_first is not None
        self.memory.rest, self.after_first = after - self.after_first, None

    def _is_like(self, now: torch.Tensor, then: torch.Tensor | None) -> bool:
        assert then is not None
        change = (now - then)[0].float().abs().mean((1, 2)) / then[0].float().abs().mean((1, 2)).clamp(min=1e-12)
        return bool((change * (self._sigma > 0)).max() < self._threshold)

    def _some(self, x: torch.Tensor) -> torch.Tensor:
        """Some tokens of (B, F, S, D) or (B, F*S, D), by slot."""
        return (x if x.ndim == 4 else x.unflatten(1, (len(self._sigma), -1)))[:, :, ::COMPARED]


class _StandIn(torch.nn.Module):
    """Takes the place of a block for one forward."""

    def __init__(self, block: torch.nn.Module, run: _Run, first: bool, last: bool) -> None:
        super().__init__()
        self.block, self._run, self._first, self._last = block, run, first, last

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the block's: hidden states, or a tuple that begins with them and the text."""
        before = args[0] if args else kwargs["hidden_states"]
        if self._run.skips:
            # No model looks at its text behind its last block.
            text = args[1] if len(args) > 1 else kwargs.get("encoder_hidden_states")
            return (before, text) if self._run.pairs else before
        output = self.block(*args, **kwargs)
        after = output[0] if isinstance(output, tuple) else output
        if self._first:
            self._run.pairs = isinstance(output, tuple)
            after = self._run.see_first(before, after)
        if self._last and not self._run.skips:
            self._run.see_last(after)
        return (after, *output[1:]) if isinstance(output, tuple) else after
