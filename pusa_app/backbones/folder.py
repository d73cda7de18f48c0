"""A diffusers folder as a Backbone: what all families have in common.

Of a family there is a class with its transformer, its VAE, its `Prompts`, and the few methods at the end of
FolderBackbone that differ.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from pusa_app.backbones.base import Text
from pusa_app.backbones.cache import FirstBlockCache
from pusa_app.backbones.embeddings import Embeddings
from pusa_app.backbones.fit import Fit
from pusa_app.backbones.parts import load_part, load_weights, silent_libraries
from pusa_app.backbones.preview import PREVIEW_FILE, LatentPreview
from pusa_app.backbones.texts import Hidden, Prompts
from pusa_app.backbones.tiles import decode_tiled
from pusa_app.errors import ModelError
from pusa_app.models.card import BackboneSpec, version_of
from pusa_app.models.lora import LoraReport, Loras
from pusa_app.models.plan_types import MemoryPlan
from pusa_app.timeline import LoraChoice

MODEL_TIME = 1000
MAX_CACHED_TEXTS = 64


class FolderBackbone(ABC):
    """A model whose parts are in a diffusers folder: text encoder, one transformer or two experts, VAE."""

    takes_level: ClassVar[bool] = False
    parts: ClassVar[tuple[str, ...]] = ("tokenizer", "text_encoder", "transformer", "vae")
    prompts_class: ClassVar[type[Prompts]]
    transformer_class: ClassVar[Any]
    vae_class: ClassVar[Any]
    vae_dtype: ClassVar[torch.dtype | None] = None  # None: the dtype of the rest

    def __init__(
        self,
        spec: BackboneSpec,
        prompts: Prompts,
        text_encoder: Any | None,
        experts: Sequence[Any],
        vae: Any,
        preview: LatentPreview | None = None,
        *,
        device: torch.device | None = None,
        lean: bool = False,
        version: str = "",
        fit: Fit | None = None,
        late_text: Hidden | None = None,
    ) -> None:
        """experts: the transformer, or the two that take turns.

        preview None: as the family usually has it. device: where to compute, None where the transformer is. lean: as
        little memory as gives the same result, and slower: texts run one by one, and of text encoder, transformer and
        VAE only the one in use is on a GPU. fit: how it was loaded, instead of lean. late_text: encodes ids where
        there is no text encoder to stay.
        """
        self.spec, self.version, self.prompts = spec, version, prompts
        self.text_encoder = None if text_encoder is None else text_encoder.eval()
        self.experts, self.vae = [expert.eval() for expert in experts], vae.eval()
        self.transformer = self.experts[0]
        self.device = device or self.transformer.device
        self.embeddings: Embeddings | None = None
        self._texts: dict[str, Text] = {}
        self._late_text = late_text
        self._mean, self._std = (numbers.view(-1, 1, 1, 1) for numbers in self.latent_statistics(vae))
        self.fit = fit or Fit.without_plan(self.device, self.dtype_of(self.transformer), lean)
        self.fit.place(self.text_encoder, self.experts, vae)
        self.loras = Loras(self.experts, spec.family)
        self.cache = FirstBlockCache()
        self._preview = preview or self.usual_preview()

    @property
    def tokenizer(self) -> Any:
        return self.prompts.tokenizer

    # --- loading ------------------------------------------------------------------------------------------------------

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        spec: BackboneSpec,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        lean: bool = False,
        plan: MemoryPlan | None = None,
    ) -> Self:
        """Load a diffusers folder; dtype defaults to fp32 on the CPU and bf16 elsewhere, but for VAEs that their
        authors run in fp32 everywhere. lean: see the constructor. plan: says all of this instead.

        Only safetensors are read. Raises ModelError with one line when a part is missing or broken.
        """
        folder, device = Path(folder), torch.device(device)
        if dtype is None:
            dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        experts = cls.expert_parts(spec)
        for part in dict.fromkeys((*cls.parts, *experts)):
            if not (folder / part).is_dir():
                raise ModelError(f"The model in {folder} is incomplete: its folder {part} is missing.")
        with silent_libraries():
            fit = Fit(plan, device) if plan is not None else Fit.without_plan(device, dtype, lean)
            return cls._from_folder(folder, spec, fit, experts)

    @classmethod
    def _from_folder(cls, folder: Path, spec: BackboneSpec, fit: Fit, names: Sequence[str]) -> Self:
        version = version_of(folder)  # before the files are read: what changes meanwhile is another version
        prompts = cls.prompts_class.from_folder(folder, spec)
        encoder_class = prompts.encoder_class
        text_encoder = fit.text_encoder(encoder_class, folder / "text_encoder")
        experts = [fit.transformer(cls.transformer_class, folder / name) for name in names]
        vae = load_weights(cls.vae_class, folder / "vae", cls.vae_dtype or fit.dtype)
        for name, expert in zip(names, experts, strict=True):
            _check(spec, cls.geometry(expert, vae), folder / name)
        preview = None
        if (folder / PREVIEW_FILE).is_file():
            preview = load_part(folder, lambda path: LatentPreview.from_folder(path, spec.latent_channels))
        late = None if text_encoder is not None else fit.late_text(encoder_class, folder / "text_encoder")
        how = {"device": fit.device, "version": version, "fit": fit, "late_text": late}
        return cls(spec, prompts, text_encoder, experts, vae, preview, **how)

    # --- the contract -------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def encode_text(self, prompt: str) -> Text:
        if prompt not in self._texts:
            if len(self._texts) >= MAX_CACHED_TEXTS:
                self._texts.clear()
            self._texts[prompt] = self._encode_text(prompt)
        return self._texts[prompt]

    def _encode_text(self, prompt: str) -> Text:
        if not self.prompts.takes_encoder(prompt):
            return self.finished(None)
        text = self.embeddings.get(prompt) if self.embeddings is not None else None
        if text is None:
            text = self.prompts.text(prompt, self._hidden).to(self.fit.dtype)
            if self.embeddings is not None:
                self.embeddings.put(prompt, text)
        return self.finished(text.to(self.device, self.fit.dtype))

    def has_text(self, prompt: str) -> bool:
        """Whether `encode_text` needs no text encoder for a prompt."""
        if prompt in self._texts or not self.prompts.takes_encoder(prompt):
            return True
        return self.embeddings is not None and self.embeddings.knows(prompt)

    def _hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids (B, L) -> (B, L, D)."""
        if self.text_encoder is None:
            assert self._late_text is not None
            return self._late_text(ids)
        self.fit.need(self.text_encoder)
        return self.text_encoder(ids.to(self.device)).last_hidden_state

    @torch.inference_mode()
    def encode_frames(self, frames: np.ndarray) -> torch.Tensor:
        x = torch.from_numpy(frames).to(self.device).permute(3, 0, 1, 2)[None]
        x = (x.float() / 127.5 - 1).to(self.pixel_dtype())
        self.fit.need(self.vae)
        with self.fit.encoding(self.vae):
            raw = self.vae.encode(x).latent_dist.mode()[0].float().cpu()
        return self.normalized(raw)

    @torch.inference_mode()
    def velocity(
        self, z: torch.Tensor, sigma: torch.Tensor, texts: Sequence[Text], *, level: float | None = None
    ) -> list[torch.Tensor]:
        """See Backbone. level: the sigma of the schedule, which chooses the expert; None is the noisiest slot's."""
        expert = self.expert(float(sigma.max()) if level is None else level)
        tokens = z[0].numel() // self.spec.patch**2
        x, time = z[None].to(self.fit.dtype), self.model_time(sigma.float())[None]
        self.cache.turn_to(expert, len(texts))
        self.fit.need(expert)
        # Batched texts take twice the activations; it pays where a step is mostly overhead.
        together = len(texts) > 1 and self.fit.batches(tokens) and self.can_batch(texts)
        velocities: list[torch.Tensor] = []
        for number, group in enumerate([texts] if together else [[text] for text in texts]):
            batch = x.expand(len(group), -1, -1, -1, -1), time.expand(len(group), -1), group
            with self.cache.around(expert, sigma, number, len(texts)):
                velocities += self.fit.compiled(self.experts, lambda: self.forward(expert, *batch)).float()  # noqa: B023
        return velocities

    @torch.inference_mode()
    def decode(self, z: torch.Tensor) -> Iterator[np.ndarray]:
        raw, tile = self.raw(z.float().cpu()), self.fit.plan.decode_tile
        self.fit.need(self.vae)
        raw = raw.to(self.device, self.vae.dtype)
        if tile is None:
            pieces = self.decoded(raw, self.fit.decode_slots)
        else:
            pieces = decode_tiled(lambda part: self.decoded(part, 1), raw, tile, self.spec.spatial_stride)
        for frames in pieces:
            pixels = ((frames.float() + 1) * 127.5).round().clamp(0, 255)
            yield pixels.byte().permute(1, 2, 3, 0).contiguous().cpu().numpy()

    def set_loras(self, loras: Sequence[LoraChoice]) -> list[LoraReport]:
        """See pusa_app.models.lora.Loras.set."""
        return self.fit.set_loras(self.loras, loras, self.experts)

    def set_cache(self, threshold: float) -> None:
        """See pusa_app.backbones.cache.FirstBlockCache.set."""
        self.cache.set(threshold)

    def preview(self, z: torch.Tensor) -> np.ndarray:
        return self._preview(z)

    # --- what a family says of itself ---------------------------------------------------------------------------------

    @abstractmethod
    def forward(self, expert: Any, x: torch.Tensor, time: torch.Tensor, texts: Sequence[Text]) -> torch.Tensor:
        """x (B, C, F, h, w), model time (B, F), B texts -> velocities z0 - eps (B, C, F, h, w)."""

    @abstractmethod
    def decoded(self, raw: torch.Tensor, slots: int | None) -> Iterator[torch.Tensor]:
        """Raw latents (C, F, h, w) -> pieces of frames (3, n, H, W) in [-1, 1]. slots: to decode at once."""

    @staticmethod
    @abstractmethod
    def geometry(transformer: Any, vae: Any) -> Mapping[str, tuple[float, ...]]:
        """By the names of BackboneSpec (or in words, of what must be a known number), what the parts say."""

    @staticmethod
    @abstractmethod
    def latent_statistics(vae: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation of raw latents, (C,) each: what makes them the ones that the transformer sees."""

    @classmethod
    def expert_parts(cls, spec: BackboneSpec) -> tuple[str, ...]:
        """The folders of the transformers."""
        return ("transformer",)

    @staticmethod
    def dtype_of(transformer: Any) -> torch.dtype:
        """What a transformer takes and gives."""
        return transformer.dtype

    def usual_preview(self) -> LatentPreview:
        """The preview of a model whose folder has none: measured with its own VAE."""
        return LatentPreview.measured(self.encode_frames, self.spec.spatial_stride, self.spec.temporal_stride)

    def finished(self, text: Text | None) -> Text:
        """A text as `forward` wants it, from what is kept of it; None where it took no encoder."""
        assert text is not None
        return text

    def pixel_dtype(self) -> torch.dtype:
        """What the VAE's encoder takes."""
        return self.vae.dtype

    def normalized(self, raw: torch.Tensor) -> torch.Tensor:
        """Raw latents (C, F, h, w) as the transformer sees them."""
        return (raw - self._mean) / self._std

    def raw(self, z: torch.Tensor) -> torch.Tensor:
        """What the VAE decodes, of latents (C, F, h, w) as the transformer sees them."""
        return z * self._std + self._mean

    def expert(self, level: float) -> Any:
        """The transformer that works at this sigma of the schedule."""
        return self.transformer

    def model_time(self, sigma: torch.Tensor) -> torch.Tensor:
        """What the transformer is told of the noise."""
        return sigma * MODEL_TIME

    def can_batch(self, texts: Sequence[Text]) -> bool:
        """Whether one forward takes these texts together."""
        return len({len(text.embeds) for text in texts}) == 1


def _check(spec: BackboneSpec, found: Mapping[str, tuple[float, ...]], folder: Path) -> None:
    """The card's geometry is what the page and the recipes count with, so it must be the model's."""
    for name, said in found.items():
        values = (getattr(spec, name), *said) if name in BackboneSpec.model_fields else said
        if len(set(values)) > 1:
            raise ModelError(
                f"The card of the model in {folder} does not fit it: {name} is {values[0]}, not {values[-1]}."
            )
