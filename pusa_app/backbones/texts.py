"""From a prompt to its Text, as the pipeline of a family does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from transformers import AutoTokenizer

from pusa_app.backbones.base import Text
from pusa_app.backbones.parts import load_part
from pusa_app.models.card import BackboneSpec

# Ids of a prompt (1, L) -> the last hidden state of the text encoder (1, L, D), wherever it works.
Hidden = Callable[[torch.Tensor], torch.Tensor]


class Prompts:
    """Everything about the texts of a family but its large text encoder, which comes and goes.

    encoder_class: of the text encoder, with `last_hidden_state` in what it returns.
    """

    encoder_class: ClassVar[Any]

    def __init__(self, tokenizer: Any, spec: BackboneSpec) -> None:
        self.tokenizer, self.spec = tokenizer, spec

    @classmethod
    def from_folder(cls, folder: Path, spec: BackboneSpec) -> Prompts:
        """Read from a model folder. Raises ModelError with one line."""
        return cls(load_tokenizer(folder / "tokenizer"), spec)

    def takes_encoder(self, prompt: str) -> bool:
        """Whether a prompt has to be encoded at all."""
        return True

    def ids(self, prompt: str) -> torch.Tensor:
        """The ids (1, L) of a prompt, trimmed to what is valid."""
        length = self.spec.max_text_tokens
        return self.tokenizer(prompt, max_length=length, truncation=True, return_tensors="pt", verbose=False).input_ids

    def text(self, prompt: str, hidden: Hidden) -> Text:
        """Encode a prompt. The result is where `hidden` puts it, in the encoder's dtype."""
        return Text(hidden(self.ids(prompt))[0])


def load_tokenizer(folder: Path) -> Any:
    # Without trust_remote_code=False a folder with code in it makes transformers ask whether to run it.
    options = {"local_files_only": True, "trust_remote_code": False}
    return load_part(folder, lambda path: AutoTokenizer.from_pretrained(path, **options))


def padded(embeds: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Texts (L_i, D) -> a batch (B, L, D) and its mask (B, L), or None when all have the same length."""
    length = max(len(e) for e in embeds)
    batch = torch.stack([F.pad(e, (0, 0, 0, length - len(e))) for e in embeds])
    if all(len(e) == length for e in embeds):
        return batch, None
    positions = torch.arange(length, device=batch.device)
    return batch, torch.stack([positions < len(e) for e in embeds])
