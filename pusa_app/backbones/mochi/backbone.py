"""Any diffusers Mochi folder as a Backbone: text encoder, vectorized transformer, VAE."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLMochi
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5EncoderModel

from pusa_app.backbones.base import Text
from pusa_app.backbones.embeddings import Embeddings
from pusa_app.backbones.fit import Fit
from pusa_app.backbones.mochi.decoder import decode_chunks, enable_streaming
from pusa_app.backbones.mochi.transformer import VectorizedMochiTransformer3DModel
from pusa_app.backbones.parts import load_part, load_weights, silent_libraries
from pusa_app.backbones.preview import LatentPreview
from pusa_app.backbones.tiles import decode_tiled
from pusa_app.errors import ModelError
from pusa_app.models.card import BackboneSpec, version_of
from pusa_app.models.lora import LoraReport, Loras
from pusa_app.models.plan import MemoryPlan
from pusa_app.timeline import LoraChoice

PARTS = ("tokenizer", "text_encoder", "transformer", "vae")
MODEL_TIME = 1000
MAX_CACHED_TEXTS = 64


class MochiBackbone:
    """Mochi 1, Pusa V0.5, mini: whatever has MochiPipeline's parts."""

    text_class = T5EncoderModel

    def __init__(
        self,
        spec: BackboneSpec,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: T5EncoderModel | None,
        transformer: VectorizedMochiTransformer3DModel,
        vae: AutoencoderKLMochi,
        preview: LatentPreview | None = None,
        null_is_empty: bool = True,
        *,
        device: torch.device | None = None,
        lean: bool = False,
        version: str = "",
        fit: Fit | None = None,
        late_text: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        """null_is_empty: the empty prompt is no token at all, as Mochi was trained, not an end-of-text token.

        device: where to compute, None where the transformer is. lean: as little memory as gives the same result, and
        slower: texts run one by one, one slot is decoded at a time, and of text encoder, transformer and VAE only the
        one in use is on a GPU. The VAE encodes whole clips all the same: its encoder attends to all frames, and the
        norms of both halves go over whole pictures, so tiles in time or space would be another clip. fit: how it was
        loaded, instead of lean. late_text: ids (B, L) -> (B, L, D), where there is no text encoder to stay.
        """
        self.spec, self.version = spec, version
        self.tokenizer, self.text_encoder = tokenizer, None if text_encoder is None else text_encoder.eval()
        self.transformer, self.vae = transformer.eval(), vae.eval()
        self.null_is_empty = null_is_empty
        self.loras = Loras([transformer], spec.family)
        enable_streaming(vae)
        self._preview = preview or LatentPreview.neutral(spec.latent_channels)
        self._texts: dict[str, Text] = {}
        config = vae.config
        ones = [1.0] * config.latent_channels
        self._mean = torch.tensor(config.latents_mean or [0.0 for _ in ones]).view(-1, 1, 1, 1)
        self._std = torch.tensor(config.latents_std or ones).view(-1, 1, 1, 1) / config.scaling_factor
        self.device = device or transformer.device
        self.embeddings: Embeddings | None = None
        self._late_text = late_text
        self.fit = fit or Fit.without_plan(self.device, transformer.dtype, lean)
        self.fit.place(self.text_encoder, [transformer], vae)

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        spec: BackboneSpec,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        lean: bool = False,
        plan: MemoryPlan | None = None,
    ) -> MochiBackbone:
        """Load a diffusers folder; dtype defaults to fp32 on the CPU and bf16 elsewhere. lean: see the constructor.
        plan: says all of this instead.

        Only safetensors are read. Raises ModelError with one line when a part is missing or broken.
        """
        folder, device = Path(folder), torch.device(device)
        if dtype is None:
            dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        for part in PARTS:
            if not (folder / part).is_dir():
                raise ModelError(f"The model in {folder} is incomplete: its folder {part} is missing.")
        with silent_libraries():
            fit = Fit(plan, device) if plan is not None else Fit.without_plan(device, dtype, lean)
            return cls._from_folder(folder, spec, fit)

    @classmethod
    def _from_folder(cls, folder: Path, spec: BackboneSpec, fit: Fit) -> MochiBackbone:
        version = version_of(folder)  # before the files are read: what changes meanwhile is another version
        # Without trust_remote_code=False a folder with code in it makes transformers ask whether to run it.
        options = {"local_files_only": True, "trust_remote_code": False}
        tokenizer = load_part(folder / "tokenizer", lambda path: AutoTokenizer.from_pretrained(path, **options))
        text_encoder = fit.text_encoder(T5EncoderModel, folder / "text_encoder")
        transformer = fit.transformer(VectorizedMochiTransformer3DModel, folder / "transformer")
        vae = load_weights(AutoencoderKLMochi, folder / "vae", fit.dtype)
        preview = load_part(folder, lambda path: LatentPreview.from_folder(path, transformer.config.in_channels))
        _check_spec(spec, transformer, vae, folder)
        return cls(
            spec,
            tokenizer,
            text_encoder,
            transformer,
            vae,
            preview,
            null_is_empty=_null_is_empty(folder),
            device=fit.device,
            version=version,
            fit=fit,
            late_text=None if text_encoder is not None else fit.late_text(T5EncoderModel, folder / "text_encoder"),
        )

    @torch.inference_mode()
    def encode_text(self, prompt: str) -> Text:
        if prompt not in self._texts:
            if len(self._texts) >= MAX_CACHED_TEXTS:
                self._texts.clear()
            self._texts[prompt] = self._encode_text(prompt)
        return self._texts[prompt]

    def _encode_text(self, prompt: str) -> Text:
        if not prompt and self.null_is_empty:
            width = self.transformer.config.text_embed_dim
            return Text(torch.zeros(0, width, dtype=self.fit.dtype, device=self.device))
        known = self.embeddings.get(prompt) if self.embeddings is not None else None
        if known is not None:
            return Text(known.to(self.device, self.fit.dtype))
        embeds = self._hidden(self.ids(self.tokenizer, prompt, self.spec))[0].to(self.fit.dtype)
        if self.embeddings is not None:
            self.embeddings.put(prompt, embeds)
        return Text(embeds)

    def has_text(self, prompt: str) -> bool:
        """Whether `encode_text` needs no text encoder for a prompt."""
        if prompt in self._texts or (not prompt and self.null_is_empty):
            return True
        return self.embeddings is not None and self.embeddings.knows(prompt)

    @staticmethod
    def ids(tokenizer: PreTrainedTokenizerBase, prompt: str, spec: BackboneSpec) -> torch.Tensor:
        """The ids (1, L) of a prompt, trimmed to what is valid."""
        length = spec.max_text_tokens
        return tokenizer(prompt, max_length=length, truncation=True, return_tensors="pt", verbose=False).input_ids

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
        x = x.to(self.vae.dtype) / 127.5 - 1
        self.fit.need(self.vae)
        with self.fit.encoding(self.vae):
            raw = self.vae.encode(x).latent_dist.mode()[0].float().cpu()
        # Pusa V0.5's own sampler puts raw latents into z, though it decodes all of z as normalized.
        return raw if self.spec.latent_space == "pusa_raw" else (raw - self._mean) / self._std

    @torch.inference_mode()
    def velocity(self, z: torch.Tensor, sigma: torch.Tensor, texts: Sequence[Text]) -> list[torch.Tensor]:
        tokens = z[0].numel() // self.transformer.config.patch_size**2
        time = ((1 - sigma.float()) * MODEL_TIME)[None]
        x = z[None].to(self.fit.dtype)
        self.fit.need(self.transformer)
        # Batched texts need padding and a mask, and twice the activations; it pays where a step is mostly overhead.
        if len(texts) > 1 and self.fit.batches(tokens):
            embeds, mask = _pad([text.embeds for text in texts])
            batch = len(texts)
            output = self.transformer(
                x.expand(batch, -1, -1, -1, -1), embeds, time.expand(batch, -1), mask, return_dict=False
            )[0]
            return list(output.float())
        return [self.transformer(x, text.embeds[None], time, return_dict=False)[0][0].float() for text in texts]

    @torch.inference_mode()
    def decode(self, z: torch.Tensor) -> Iterator[np.ndarray]:
        raw = z.float().cpu() * self._std + self._mean
        self.fit.need(self.vae)
        raw, tile = raw.to(self.device, self.vae.dtype), self.fit.plan.decode_tile
        if tile is None:
            pieces = decode_chunks(self.vae, raw, self.fit.decode_slots)
        else:
            pieces = decode_tiled(lambda part: decode_chunks(self.vae, part, 1), raw, tile, self.spec.spatial_stride)
        for frames in pieces:
            pixels = ((frames.float() + 1) * 127.5).round().clamp(0, 255)
            yield pixels.byte().permute(1, 2, 3, 0).contiguous().cpu().numpy()

    def set_loras(self, loras: Sequence[LoraChoice]) -> list[LoraReport]:
        """See pusa_app.models.lora.Loras.set."""
        return self.fit.set_loras(self.loras, loras, [self.transformer])

    def preview(self, z: torch.Tensor) -> np.ndarray:
        return self._preview(z)


def _pad(embeds: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Texts (L_i, D) -> a batch (B, L, D) and its mask (B, L), or None when all have the same length."""
    length = max(len(e) for e in embeds)
    batch = torch.stack([F.pad(e, (0, 0, 0, length - len(e))) for e in embeds])
    if all(len(e) == length for e in embeds):
        return batch, None
    positions = torch.arange(length, device=batch.device)
    return batch, torch.stack([positions < len(e) for e in embeds])


def _check_spec(
    spec: BackboneSpec, transformer: VectorizedMochiTransformer3DModel, vae: AutoencoderKLMochi, folder: Path
) -> None:
    """The card's geometry is what the page and the recipes count with, so it must be the model's."""
    pairs = {
        "latent_channels": (spec.latent_channels, transformer.config.in_channels, vae.config.latent_channels),
        "patch": (spec.patch, transformer.config.patch_size),
        "temporal_stride": (spec.temporal_stride, vae.temporal_compression_ratio),
        "spatial_stride": (spec.spatial_stride, vae.spatial_compression_ratio),
    }
    for name, values in pairs.items():
        if len(set(values)) > 1:
            raise ModelError(
                f"The card of the model in {folder} does not fit it: {name} is {values[0]}, not {values[-1]}."
            )


def _null_is_empty(folder: Path) -> bool:
    """MochiPipeline's force_zeros_for_empty_prompt; the published Mochi has it on."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        return bool(index.get("force_zeros_for_empty_prompt", True))
    except (OSError, ValueError, AttributeError):
        return True
