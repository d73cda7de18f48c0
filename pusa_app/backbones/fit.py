"""Load and place the parts of a model as a memory plan says.

What only a GPU can do is done as diffusers and transformers document it; on the CPU work dtypes, layerwise fp8,
torchao's int8, blocks that come one after the other (without streams), tiles, and text encoders that go after use.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from pusa_app.backbones.attention import WITHOUT_MASK, use_attention
from pusa_app.backbones.compiled import compile_blocks, fall_back
from pusa_app.backbones.parts import Turns, load_weights
from pusa_app.errors import ModelError
from pusa_app.models.lora import LoraReport, Loras
from pusa_app.models.plan_choices import SMALL_TOKENS
from pusa_app.models.plan_cost import OVERLAP
from pusa_app.models.plan_types import MemoryPlan
from pusa_app.settings import default_data_dir
from pusa_app.timeline import LoraChoice

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
LATE_TEXTS = ("load", "stream", "cpu")
OFFLOAD_FOLDER = "offload"


class Fit:
    """The parts of one model on a device. plan: see MemoryPlan; its tiles, slots and batching may change at any time
    (`plan` may be set to one that is loaded alike), the rest is what was loaded. usual: nobody made a plan, so small
    clips are batched and decoded at once."""

    def __init__(self, plan: MemoryPlan, device: torch.device, *, usual: bool = False) -> None:
        self.plan, self.device, self._usual = plan, device, usual
        self.dtype = DTYPES[plan.dtype]
        self._turns: Turns | None = None
        self._takes_turns: tuple[torch.nn.Module, ...] = ()
        self._guest: torch.nn.Module | None = None  # a text encoder that is on the device for its turn only
        self._offloaded: list[torch.nn.Module] = []
        self._folders: list[Path] = []
        self.is_compiled = False

    @classmethod
    def without_plan(cls, device: torch.device, dtype: torch.dtype, lean: bool) -> Fit:
        """As models are loaded where nobody planned. lean: as little memory as gives the same result."""
        name = next((name for name, known in DTYPES.items() if known == dtype), "fp32")
        plan = MemoryPlan.model_validate(
            {
                "dtype": name,
                "offload": "model" if lean else "none",
                "text": "turns" if lean else "resident",
                "batched": not lean,
            }
        )
        return cls(plan, device, usual=not lean)

    def batches(self, tokens: int) -> bool:
        """Whether the texts of a step share one forward. tokens: of the clip."""
        return self.plan.batched and (not self._usual or tokens < SMALL_TOKENS)

    @property
    def takes_masks(self) -> bool:
        """Whether texts of different lengths can share a forward."""
        return self.plan.attention not in WITHOUT_MASK

    def compiled(self, experts: Sequence[Any], forward: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What a forward gives; one that fails because its blocks cannot be compiled is made again without."""
        try:
            return forward()
        except Exception as error:
            if not self.is_compiled or not fall_back(experts, error):
                raise
        self.is_compiled = False
        return forward()

    @property
    def decode_slots(self) -> int | None:
        """Slots to decode at once; None as many as are usual."""
        return None if self._usual else self.plan.decode_slots

    # --- loading ------------------------------------------------------------------------------------------------------

    def transformer(self, cls: Any, folder: Path) -> Any:
        """A transformer with its weights as planned, on the CPU unless its format lives on the GPU only."""
        kind = self.plan.quantization
        more: dict[str, Any] = {}
        if kind in ("nf4", "int8-bnb"):
            from diffusers import BitsAndBytesConfig

            more = {"quantization_config": self._bitsandbytes(BitsAndBytesConfig, kind), "device_map": str(self.device)}
        elif kind in ("int8", "fp8"):
            more = {"quantization_config": _torchao(kind)}
        model = load_weights(cls, folder, self.dtype, **more)
        if kind == "fp8-layerwise":
            model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=self.dtype)
        use_attention(model, self.plan.attention)
        if self.plan.compile:
            self.is_compiled |= compile_blocks(model)
        return model

    def text_encoder(self, cls: Any, folder: Path) -> Any | None:
        """The text encoder, None where it is loaded when a prompt needs it (`late_text`)."""
        return None if self.plan.text in LATE_TEXTS else self._load_text(cls, folder)

    def late_text(self, cls: Any, folder: Path) -> Callable[[torch.Tensor], torch.Tensor]:
        """A function that encodes the ids (B, L) of a prompt: it loads the encoder, and lets it go again."""

        def encode(ids: torch.Tensor) -> torch.Tensor:
            self._alone()
            encoder = self._load_text(cls, folder)
            place = torch.device("cpu") if self.plan.text == "cpu" else self.device
            try:
                if self.plan.text == "stream":
                    from diffusers.hooks import apply_group_offloading

                    apply_group_offloading(
                        stack_of(encoder), onload_device=place, offload_type="block_level", num_blocks_per_group=1
                    )
                elif self.plan.text_quantization == "none":
                    encoder = encoder.to(place)
                return encoder(ids.to(place)).last_hidden_state.to(self.device)
            finally:
                del encoder
                gc.collect()
                _empty(self.device)

        return encode

    def _load_text(self, cls: Any, folder: Path) -> Any:
        kind = self.plan.text_quantization
        if kind == "none":
            return load_weights(cls, folder, self.dtype).eval()
        from transformers import BitsAndBytesConfig

        config = self._bitsandbytes(BitsAndBytesConfig, kind)
        return load_weights(cls, folder, self.dtype, quantization_config=config, device_map=str(self.device)).eval()

    def _bitsandbytes(self, config: Any, kind: str) -> Any:
        if kind == "nf4":
            return config(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=self.dtype)
        return config(load_in_8bit=True)

    # --- placing ------------------------------------------------------------------------------------------------------

    def place(self, text_encoder: Any | None, experts: Sequence[Any], vae: Any) -> None:
        """Bring the parts to where the plan wants them. Of two experts one is on the GPU at a time."""
        plan = self.plan
        fixed = plan.quantization in ("nf4", "int8-bnb")  # on the GPU already
        blocks = plan.offload in ("group", "disk")
        self._offloaded = list(experts) if blocks else []
        turns: list[torch.nn.Module] = []
        if plan.offload != "none":
            turns.append(vae)
        if text_encoder is not None and plan.text == "turns":
            turns.append(text_encoder)
            self._guest = text_encoder
        if not blocks and not fixed and (plan.offload == "model" or len(experts) > 1):
            turns += experts
        if self.device.type == "cpu":
            turns = []
        self._takes_turns = tuple(turns)
        self._turns = Turns(turns, self.device) if turns else None
        for part in (text_encoder, vae, *([] if blocks or fixed else experts)):
            if part is not None and all(part is not other for other in turns):
                part.to(self.device)

    def need(self, part: torch.nn.Module) -> None:
        """A part is to work now."""
        if any(part is other for other in self._takes_turns):
            assert self._turns is not None
            self._turns.take(part)
            return
        # With no offload nobody else may ask for the place of the text encoder: experts stay, it goes.
        if self.plan.offload != "none":
            self._alone()
        elif self._turns is not None and self._guest is not None and self._turns.has(self._guest):
            self._turns.leave()
        if any(part is other for other in self._offloaded) and not _is_offloaded(part):
            self._offload(part)

    def _alone(self) -> None:
        """What takes turns leaves the GPU."""
        if self._turns is not None and self.plan.offload != "none":
            self._turns.leave()

    def _offload(self, model: Any) -> None:
        """Blocks of a transformer come one after the other. Late, because LoRAs must be on it before."""
        more: dict[str, Any] = {}
        if self.plan.streams:
            more = {"use_stream": True, "non_blocking": True}
        if self.plan.offload == "disk":
            more["offload_to_disk_path"] = str(self._folder())
        model.enable_group_offload(
            onload_device=self.device,
            offload_device=torch.device("cpu"),
            offload_type="block_level",
            num_blocks_per_group=1,
            **more,
        )

    def set_loras(self, loras: Loras, choices: Sequence[LoraChoice], experts: Sequence[Any]) -> list[LoraReport]:
        """Put LoRAs on transformers, or take them off; their blocks are looked at anew before the next step."""
        if not any(map(_is_offloaded, experts)):
            return loras.set(choices)
        if not loras.would_change(choices):
            return loras.set(choices)
        if self.plan.offload == "disk":
            raise ModelError("LoRAs of a model whose blocks are on the disk change only when it is loaded again.")
        for model in experts:
            if _is_offloaded(model):
                _stay(model)
        return loras.set(choices)

    def _folder(self) -> Path:
        """A new folder for blocks on the disk; it goes with this process."""
        parent = default_data_dir() / OFFLOAD_FOLDER
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        self._folders.append(folder)
        return folder

    def close(self) -> None:
        """The model goes: so do its blocks on the disk."""
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)
        self._folders.clear()

    # --- while it works -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def encoding(self, vae: Any) -> Iterator[None]:
        """Inside, the VAE encodes in tiles where the plan says so."""
        tile = self.plan.encode_tile
        if tile is None:
            yield
            return
        multiple = max(16, getattr(vae, "spatial_compression_ratio", 16))  # of LTX-Video 32
        stride = int(tile * (1 - OVERLAP)) // multiple * multiple
        vae.enable_tiling(
            tile_sample_min_height=tile,
            tile_sample_min_width=tile,
            tile_sample_stride_height=stride,
            tile_sample_stride_width=stride,
        )
        try:
            yield
        finally:
            vae.disable_tiling()


def stack_of(encoder: torch.nn.Module) -> torch.nn.Module:
    """The part of a text encoder that has its blocks as a list: diffusers looks for them nowhere deeper, and would
    bring an encoder that wraps its stack, as T5 does, to the GPU whole."""
    for part in (encoder, *encoder.children()):
        if any(isinstance(child, torch.nn.ModuleList) for child in part.children()):
            return part
    return encoder


def _torchao(kind: str) -> Any:
    from diffusers import TorchAoConfig

    try:
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig
    except ImportError:
        raise ModelError("The plan needs torchao: install it with `pip install torchao`, or choose another.") from None
    return TorchAoConfig(Int8WeightOnlyConfig() if kind == "int8" else Float8WeightOnlyConfig())


def _is_offloaded(model: Any) -> bool:
    from diffusers.hooks.group_offloading import _is_group_offload_enabled

    return bool(_is_group_offload_enabled(model))


def _stay(model: Any) -> None:
    """Take the hooks of group offloading off a model whose blocks are in the machine's memory."""
    from diffusers.hooks import group_offloading as library

    hooks = library.HookRegistry.check_if_exists_or_initialize(model)
    for name in (
        library._GROUP_OFFLOADING,
        library._LAYER_EXECUTION_TRACKER,
        library._LAZY_PREFETCH_GROUP_OFFLOADING,
    ):
        hooks.remove_hook(name, recurse=True)


def _sweep(parent: Path) -> None:
    """Remove what processes that are no more left on the disk."""
    for folder in parent.iterdir():
        pid = folder.name.partition("-")[0]
        if pid.isdecimal() and not _lives(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _lives(pid: int) -> bool:
    import psutil

    return bool(psutil.pid_exists(pid))


def _empty(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
