"""A diffusers folder of the Wan family as a Backbone: Wan 2.1, Wan 2.2 (two experts), TI2V-5B, SkyReels-V2-DF."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan, SkyReelsV2Transformer3DModel
from transformers import AutoTokenizer, PreTrainedTokenizerBase, UMT5EncoderModel

from pusa_app.backbones.base import Text
from pusa_app.backbones.embeddings import Embeddings
from pusa_app.backbones.fit import Fit
from pusa_app.backbones.parts import load_part, load_weights, silent_libraries
from pusa_app.backbones.preview import PREVIEW_FILE, LatentPreview
from pusa_app.backbones.tiles import decode_tiled
from pusa_app.backbones.wan.decoder import decode_slots
from pusa_app.backbones.wan.transformer import VectorizedWanTransformer3DModel
from pusa_app.errors import ModelError
from pusa_app.models.card import BackboneSpec, version_of
from pusa_app.models.lora import LoraReport, Loras
from pusa_app.models.plan import MemoryPlan
from pusa_app.timeline import LoraChoice

PARTS = ("tokenizer", "text_encoder", "transformer", "vae")
SECOND = "transformer_2"
MODEL_TIME = 1000
MAX_CACHED_TEXTS = 64


class WanBackbone:
    """Wan 2.1 and 2.2, and what Pusa V1 makes of them: whatever has WanPipeline's parts."""

    takes_level = True
    text_class = UMT5EncoderModel
    transformer_class: ClassVar[Any] = VectorizedWanTransformer3DModel
    batches: ClassVar[bool] = True

    def __init__(
        self,
        spec: BackboneSpec,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: UMT5EncoderModel | None,
        transformer: Any,
        vae: AutoencoderKLWan,
        preview: LatentPreview | None = None,
        transformer_2: Any = None,
        *,
        device: torch.device | None = None,
        lean: bool = False,
        version: str = "",
        fit: Fit | None = None,
        late_text: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        """transformer_2: the expert for a schedule below spec.boundary, where there are two.

        preview None: it is measured with the VAE. device: where to compute, None where the transformer is. lean: as
        little memory as gives the same result, and slower: texts run one by one, and of text encoder, transformer and
        VAE only the one in use is on a GPU. Of two experts only one is there in any case. fit: how it was loaded,
        instead of lean. late_text: ids (B, L) -> (B, L, D), where there is no text encoder to stay.
        """
        self.spec, self.version = spec, version
        self.tokenizer, self.vae = tokenizer, vae.eval()
        self.text_encoder = None if text_encoder is None else text_encoder.eval()
        self.transformer, self.transformer_2 = transformer.eval(), transformer_2
        self.experts = [self.transformer] if transformer_2 is None else [self.transformer, transformer_2.eval()]
        # Not transformer.dtype: its norms and time embedding are fp32 whatever the rest is.
        self.dtype = transformer.patch_embedding.weight.dtype
        self.device = device or transformer.device
        self._texts: dict[str, Text] = {}
        self._mean = torch.tensor(vae.config.latents_mean).view(-1, 1, 1, 1)
        self._std = torch.tensor(vae.config.latents_std).view(-1, 1, 1, 1)
        self.embeddings: Embeddings | None = None
        self._late_text = late_text
        self.fit = fit or Fit.without_plan(self.device, self.dtype, lean)
        self.fit.place(self.text_encoder, self.experts, vae)
        self.loras = Loras(self.experts, spec.family)
        self._preview = preview or self._measured_preview()

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        spec: BackboneSpec,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        lean: bool = False,
        plan: MemoryPlan | None = None,
    ) -> WanBackbone:
        """Load a diffusers folder; dtype defaults to fp32 on the CPU and bf16 elsewhere, the VAE is fp32 everywhere, as
        its authors run it. lean: see the constructor. plan: says all of this instead.

        Only safetensors are read. Raises ModelError with one line when a part is missing or broken.
        """
        folder, device = Path(folder), torch.device(device)
        if dtype is None:
            dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        for part in PARTS if spec.boundary is None else (*PARTS, SECOND):
            if not (folder / part).is_dir():
                raise ModelError(f"The model in {folder} is incomplete: its folder {part} is missing.")
        with silent_libraries():
            fit = Fit(plan, device) if plan is not None else Fit.without_plan(device, dtype, lean)
            return cls._from_folder(folder, spec, fit)

    @classmethod
    def _from_folder(cls, folder: Path, spec: BackboneSpec, fit: Fit) -> WanBackbone:
        version = version_of(folder)  # before the files are read: what changes meanwhile is another version
        options = {"local_files_only": True, "trust_remote_code": False}
        tokenizer = load_part(folder / "tokenizer", lambda path: AutoTokenizer.from_pretrained(path, **options))
        text_encoder = fit.text_encoder(UMT5EncoderModel, folder / "text_encoder")
        names = ("transformer",) if spec.boundary is None else ("transformer", SECOND)
        experts = [fit.transformer(cls.transformer_class, folder / name) for name in names]
        vae = load_weights(AutoencoderKLWan, folder / "vae", torch.float32)
        for name, expert in zip(names, experts, strict=True):
            _check_spec(spec, expert, vae, folder / name)
        preview = None
        if (folder / PREVIEW_FILE).is_file():
            preview = load_part(folder, lambda path: LatentPreview.from_folder(path, spec.latent_channels))
        return cls(
            spec,
            tokenizer,
            text_encoder,
            experts[0],
            vae,
            preview,
            *experts[1:],
            device=fit.device,
            version=version,
            fit=fit,
            late_text=None if text_encoder is not None else fit.late_text(UMT5EncoderModel, folder / "text_encoder"),
        )

    @torch.inference_mode()
    def encode_text(self, prompt: str) -> Text:
        if prompt not in self._texts:
            if len(self._texts) >= MAX_CACHED_TEXTS:
                self._texts.clear()
            self._texts[prompt] = self._encode_text(prompt)
        return self._texts[prompt]

    def _encode_text(self, prompt: str) -> Text:
        """As WanPipeline does it: padded with zeros behind the text, which the model attends to."""
        length = self.spec.max_text_tokens
        embeds = self.embeddings.get(prompt) if self.embeddings is not None else None
        if embeds is None:
            embeds = self._hidden(self.ids(self.tokenizer, prompt, self.spec))[0].to(self.dtype)
            if self.embeddings is not None:
                self.embeddings.put(prompt, embeds)
        embeds = embeds.to(self.device, self.dtype)
        return Text(F.pad(embeds, (0, 0, 0, length - len(embeds))))

    def has_text(self, prompt: str) -> bool:
        """Whether `encode_text` needs no text encoder for a prompt."""
        return prompt in self._texts or (self.embeddings is not None and self.embeddings.knows(prompt))

    @staticmethod
    def ids(tokenizer: PreTrainedTokenizerBase, prompt: str, spec: BackboneSpec) -> torch.Tensor:
        """The ids (1, L) of a prompt, trimmed to what is valid."""
        text, length = _clean(prompt), spec.max_text_tokens
        return tokenizer(text, max_length=length, truncation=True, return_tensors="pt", verbose=False).input_ids

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
        return (raw - self._mean) / self._std

    @torch.inference_mode()
    def velocity(
        self, z: torch.Tensor, sigma: torch.Tensor, texts: Sequence[Text], *, level: float | None = None
    ) -> list[torch.Tensor]:
        """See Backbone. level: the sigma of the schedule, which chooses the expert; None is the noisiest slot's."""
        expert = self._expert(float(sigma.max()) if level is None else level)
        tokens = z[0].numel() // self.spec.patch**2
        time = (sigma.float() * MODEL_TIME)[None]
        if self.spec.integer_time:
            time = time.trunc()
        x = z[None].to(self.dtype)
        self.fit.need(expert)
        same = self.batches and len({len(text.embeds) for text in texts}) == 1
        if len(texts) > 1 and same and self.fit.batches(tokens):
            batch, embeds = len(texts), torch.stack([text.embeds for text in texts])
            output = self._forward(expert, x.expand(batch, -1, -1, -1, -1), time.expand(batch, -1), embeds)
        else:
            output = torch.cat([self._forward(expert, x, time, text.embeds[None]) for text in texts])
        return list(-output.float())  # Wan predicts eps - z0

    def _expert(self, level: float) -> Any:
        """As in WanPipeline the first works down to the boundary, the second below it."""
        return self.experts[0 if self.spec.boundary is None or level >= self.spec.boundary else -1]

    def _forward(self, expert: Any, x: torch.Tensor, time: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
        """x (B, C, F, h, w), time (B, F), embeds (B, L, D) -> eps - z0."""
        return expert(x, time, embeds, return_dict=False)[0]

    @torch.inference_mode()
    def decode(self, z: torch.Tensor) -> Iterator[np.ndarray]:
        raw = z.float().cpu() * self._std + self._mean
        self.fit.need(self.vae)
        raw, tile = raw.to(self.device, self.vae.dtype), self.fit.plan.decode_tile
        if tile is None:
            pieces = decode_slots(self.vae, raw)
        else:
            pieces = decode_tiled(lambda part: decode_slots(self.vae, part), raw, tile, self.spec.spatial_stride)
        for frames in pieces:
            pixels = ((frames.float() + 1) * 127.5).round()
            yield pixels.byte().permute(1, 2, 3, 0).contiguous().cpu().numpy()

    def set_loras(self, loras: Sequence[LoraChoice]) -> list[LoraReport]:
        """See pusa_app.models.lora.Loras.set."""
        return self.fit.set_loras(self.loras, loras, self.experts)

    def preview(self, z: torch.Tensor) -> np.ndarray:
        return self._preview(z)

    def _measured_preview(self) -> LatentPreview:
        return LatentPreview.measured(self.encode_frames, self.spec.spatial_stride, self.spec.temporal_stride)


class SkyReelsBackbone(WanBackbone):
    """SkyReels-V2 diffusion forcing: diffusers' own class takes a time per slot, and repeats it for every token."""

    transformer_class: ClassVar[Any] = SkyReelsV2Transformer3DModel
    batches = False  # with a frame rate it takes one clip at a time

    def _forward(self, expert: Any, x: torch.Tensor, time: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
        more = {}
        if expert.config.inject_sample_info:  # it knows two frame rates: 16 and 24
            more["fps"] = [0 if self.spec.fps == 16 else 1] * len(x)
        return expert(x, time, embeds, enable_diffusion_forcing=True, return_dict=False, **more)[0]


def _clean(prompt: str) -> str:
    """What WanPipeline makes of a prompt where ftfy is not installed: entities resolved, one space between words."""
    return " ".join(html.unescape(html.unescape(prompt)).split())


def _check_spec(spec: BackboneSpec, transformer: Any, vae: AutoencoderKLWan, folder: Path) -> None:
    """The card's geometry is what the page and the recipes count with, so it must be the model's."""
    pairs = {
        "latent_channels": (spec.latent_channels, transformer.config.in_channels, vae.config.z_dim),
        "patch": (spec.patch, *transformer.config.patch_size[1:]),
        "the patch in time": (1, transformer.config.patch_size[0]),
        "temporal_stride": (spec.temporal_stride, vae.config.scale_factor_temporal),
        "spatial_stride": (spec.spatial_stride, vae.config.scale_factor_spatial),
    }
    for name, values in pairs.items():
        if len(set(values)) > 1:
            raise ModelError(
                f"The card of the model in {folder} does not fit it: {name} is {values[0]}, not {values[-1]}."
            )
