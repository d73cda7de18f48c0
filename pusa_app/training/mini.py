"""The recipe of `mini`: budgets, sizes and the order in which its parts are trained, from nothing to a model folder."""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLMochi, FlowMatchEulerDiscreteScheduler

from pusa_app.backbones.mochi import VectorizedMochiTransformer3DModel
from pusa_app.backbones.preview import LatentPreview, fit_preview
from pusa_app.models.card import BackboneSpec
from pusa_app.timeline import TASKS, ScheduleSpec, TaskName, TaskNoise
from pusa_app.training.captions import MAX_TOKENS
from pusa_app.training.clips import NUM_FRAMES, SIDE, ClipSpec, draw, sample_spec
from pusa_app.training.latents import LatentSet, encode_clips, read_shards, visibility, write_shards
from pusa_app.training.mochi import TextToVelocity, init_transformer, make_muon, make_optimizer, train_transformer
from pusa_app.training.run import Budget, TrainingRun
from pusa_app.training.text import TEXT_WIDTH, make_text_encoder, make_tokenizer
from pusa_app.training.timesteps import Mixture, shifted
from pusa_app.training.vae import LATENT_CHANNELS, make_vae, train_decoder, train_vae

FPS = 12.0
SHIFT = 2.0
# Where clips or pictures at the end say where to go, strong guidance makes the arrival jump (`bench tasks`). A clip
# that is extended has said what is seen and how it moves: there guidance makes nothing better.
TASK_GUIDANCE: dict[TaskName, float] = {
    "start-end": 2.0,
    "keyframes": 2.0,
    "transition": 1.5,
    "loop": 1.25,
    "extend": 1.0,
    "complete": 1.5,
}
# Pictures in later slots stand for six frames, which need room to move (`bench tasks`: jumps around the middle one).
# A freer end of a loop (0.8) moves through the seam where the motion has a period, and jumps there where it has none.
NOISE = TaskNoise(middle=0.5, end=0.5, closing=0.3)
SHARD_SIZE = "9MB"
VAE_BUDGET = Budget(samples=9_000, learning_rate=7e-4, warmup=200, decay_from=0.3)
DECODER_BUDGET = Budget(samples=62_000, learning_rate=6e-4, warmup=400, decay_from=0.15)
TRANSFORMER_BUDGET = Budget(samples=240_000, learning_rate=1e-3, warmup=5_000, decay_from=0.4)
REFINE_BUDGET = Budget(samples=120_000, learning_rate=6e-4, warmup=5_000, decay_from=0.15)
POLISH_BUDGET = Budget(samples=60_000, learning_rate=4e-4, warmup=4_000, decay_from=0.1)
SETTLE_BUDGET = Budget(samples=225_000, learning_rate=6e-4, warmup=5_000, decay_from=0.15)
DEEPEN_BUDGET = Budget(samples=205_000, learning_rate=7e-4, warmup=3_000, decay_from=0.15)
TIE_BUDGET = Budget(samples=300_000, learning_rate=5e-4, warmup=3_000, decay_from=0.1)
MIXTURE = Mixture(draw_sigma=shifted(SHIFT))
# At the end, more of what `bench tasks` finds hardest: ways between two clips, pictures in the middle, joints.
POLISH_PLACES = (
    ("start", 0.2),
    ("ends", 0.15),
    ("extended", 0.1),
    ("led to", 0.05),
    ("bridged far", 0.32),
    ("anywhere", 0.05),
    ("in the middle", 0.13),
)
POLISH = replace(MIXTURE, independent=0.1, tasks=0.6, clean=0.75, places=POLISH_PLACES, joint=2.0)
# The next stages keep those places, and give what is made from words alone its share back.
SETTLE = replace(POLISH, independent=0.08, tasks=0.54)
# The last one has keyframes where the tasks place them, with the noise that they give them.
TIE_PLACES = (
    ("start", 0.2),
    ("ends", 0.17),
    ("extended", 0.12),
    ("led to", 0.07),
    ("bridged far", 0.06),
    ("tied", 0.22),
    ("anywhere", 0.03),
    ("in the middle", 0.13),
)
TIE = replace(SETTLE, places=TIE_PLACES, free_pictures=0.5)


@dataclass(frozen=True)
class MiniRecipe:
    """Everything that decides the weights of mini. Lengths are in samples (clips)."""

    seed: int = 0
    vae: Budget = VAE_BUDGET
    decoder: Budget = DECODER_BUDGET
    vae_batch: int = 4
    clips: int = 12_000
    transformer: Budget = TRANSFORMER_BUDGET
    refine: Budget = REFINE_BUDGET
    polish: Budget = POLISH_BUDGET
    settle: Budget = SETTLE_BUDGET
    deepen: Budget = DEEPEN_BUDGET
    tie: Budget = TIE_BUDGET
    transformer_batch: int = 32
    muon_batch: int = 64
    heads: int = 8
    layers: int = 6
    mixture: Mixture = MIXTURE
    polish_mixture: Mixture = POLISH
    settle_mixture: Mixture = SETTLE
    tie_mixture: Mixture = TIE
    shorter: tuple[float, ...] = (0.0, 0.06, 0.0, 0.04)
    compiled: bool = True

    @classmethod
    def smoke(cls) -> MiniRecipe:
        """A run of a minute that goes through every stage; for tests, its clips are noise."""
        return cls(
            vae=Budget(samples=16, learning_rate=7e-4, warmup=8),
            decoder=Budget(samples=16, learning_rate=7e-4, warmup=8),
            clips=40,
            transformer=Budget(samples=64, learning_rate=1e-3, warmup=8),
            refine=Budget(samples=32, learning_rate=1e-3, warmup=8),
            polish=Budget(samples=32, learning_rate=1e-3, warmup=8),
            settle=Budget(samples=32, learning_rate=1e-3, warmup=8),
            deepen=Budget(samples=32, learning_rate=1e-3, warmup=8),
            tie=Budget(samples=32, learning_rate=1e-3, warmup=8),
            transformer_batch=16,
            muon_batch=16,
            heads=2,
            layers=2,
            compiled=False,
        )


@dataclass(frozen=True)
class _Stage:
    """A part of the transformer's training.

    emphasis: see `train_transformer`. visible: channels of the latents weigh as much as their errors show.
    """

    name: str
    budget: Budget
    mixture: Mixture
    batch: int
    emphasis: Callable[[ClipSpec], float] | None = None
    optimizer: Callable[[TextToVelocity], torch.optim.Optimizer] = make_optimizer
    visible: bool = False


def _stages(recipe: MiniRecipe) -> tuple[_Stage, ...]:
    batch = recipe.transformer_batch
    return (
        _Stage("transformer", recipe.transformer, recipe.mixture, batch),
        _Stage("refined", recipe.refine, recipe.mixture, batch, emphasis),
        _Stage("polished", recipe.polish, recipe.polish_mixture, batch, emphasis),
        _Stage("settled", recipe.settle, recipe.settle_mixture, batch, strong_emphasis),
        _Stage("deepened", recipe.deepen, recipe.settle_mixture, recipe.muon_batch, late_emphasis, make_muon, True),
        _Stage("tied", recipe.tie, recipe.tie_mixture, recipe.muon_batch, last_emphasis, make_muon, True),
    )


def train(recipe: MiniRecipe, folder: Path, out: Path, stop_after: float | None = None) -> bool:
    """Run all stages that are not finished yet and write the model folder; False when `stop_after` seconds ended it.

    The transformer is trained in stages, each from the averaged weights of the one before. The model folder is
    written at the end, whether all were finished or not, so an early stop is usable.
    """
    began = time.monotonic()

    def left() -> float | None:
        return None if stop_after is None else stop_after - (time.monotonic() - began)

    torch.manual_seed(recipe.seed)
    vae_run = _vae_run(recipe, folder)
    if not vae_run.finished and not train_vae(vae_run, vae_run.module, recipe.vae_batch, recipe.seed, left()):
        return False
    vae = _averaged(vae_run)
    decoder_run = _decoder_run(recipe, folder, vae)
    if not decoder_run.finished and not train_decoder(decoder_run, vae, recipe.vae_batch, recipe.seed, left()):
        return False
    _averaged(decoder_run)
    if not write_shards(vae, folder / "data", recipe.clips, recipe.seed, left()):
        return False
    data = read_shards(folder / "data")
    torch.manual_seed(recipe.seed + 1)
    tokenizer = make_tokenizer()
    model: TextToVelocity | None = None
    for stage in _stages(recipe):
        run = _transformer_run(recipe, folder, stage, model)
        finished = run.finished or train_transformer(
            run,
            run.module,
            tokenizer,
            data,
            stage.mixture,
            batch=stage.batch,
            max_tokens=MAX_TOKENS,
            seed=recipe.seed,
            held_out=min(64, len(data) // 4),
            shorter=recipe.shorter,
            emphasis=stage.emphasis,
            channels=visibility(vae, data) if stage.visible else None,
            compiled=recipe.compiled,
            stop_after=left(),
        )
        model = _averaged(run)
        if not finished:
            break
    export(vae, model, data, out)
    return finished


def export_now(recipe: MiniRecipe, folder: Path, out: Path) -> None:
    """Write the model folder from the last checkpoints, while a training may go on."""
    vae = _averaged(_vae_run(recipe, folder))
    _averaged(_decoder_run(recipe, folder, vae))
    begun = [stage for stage in _stages(recipe) if (folder / f"{stage.name}.pt").exists()]
    run = _transformer_run(recipe, folder, begun[-1])
    print(f"{run.name} at {run.seen} of {run.budget.samples} samples", file=sys.stderr)
    export(vae, _averaged(run), read_shards(folder / "data"), out)


def _vae_run(recipe: MiniRecipe, folder: Path) -> TrainingRun:
    vae = make_vae().to(memory_format=torch.channels_last_3d)
    return TrainingRun("vae", folder, vae, recipe.vae, _adam(vae), ema_decay=0.998)


def _decoder_run(recipe: MiniRecipe, folder: Path, vae: AutoencoderKLMochi) -> TrainingRun:
    """The training that goes on with the decoder of a finished VAE, in place."""
    return TrainingRun("decoder", folder, vae.decoder, recipe.decoder, _adam(vae.decoder), ema_decay=0.999)


def _adam(module: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(module.parameters(), lr=1.0, betas=(0.9, 0.98), weight_decay=1e-4, fused=True)


def emphasis(spec: ClipSpec) -> float:
    """How often a clip is drawn after the first stage: more of what that stage gets wrong most."""
    return (1.6 if spec.shape == "cross" else 1.0) * (1.5 if spec.motion.startswith("orbits") else 1.0)


def strong_emphasis(spec: ClipSpec) -> float:
    """The same in the fourth stage: crosses that came out too thick were more than half of the wrong shapes."""
    return emphasis(spec) * (1.5 if spec.shape == "cross" else 1.0)


def late_emphasis(spec: ClipSpec) -> float:
    """And spinning shapes, in the stage after that."""
    return strong_emphasis(spec) * (1.3 if spec.motion == "spins" else 1.0)


def last_emphasis(spec: ClipSpec) -> float:
    """And the other ways that are not straight."""
    return late_emphasis(spec) * (1.3 if spec.motion in ("bounces", "sways") else 1.0)


def _transformer_run(
    recipe: MiniRecipe, folder: Path, stage: _Stage, base: TextToVelocity | None = None
) -> TrainingRun:
    """The training of a stage; where it has not begun yet it starts with the weights of `base`."""
    transformer = VectorizedMochiTransformer3DModel(
        patch_size=2,
        num_attention_heads=recipe.heads,
        attention_head_dim=32,
        num_layers=recipe.layers,
        pooled_projection_dim=16 * recipe.heads,
        in_channels=LATENT_CHANNELS,
        text_embed_dim=TEXT_WIDTH,
        time_embed_dim=256,
        max_sequence_length=MAX_TOKENS,
    )
    init_transformer(transformer, (SIDE // 16, SIDE // 16))
    model = TextToVelocity(transformer, make_text_encoder())
    if base is not None:
        model.load_state_dict(base.state_dict())
    return TrainingRun(stage.name, folder, model, stage.budget, stage.optimizer(model), ema_decay=0.999)


def _averaged(run: TrainingRun) -> Any:
    """The module of a run with its averaged weights, for use and not for further training."""
    run.average.swap()
    return run.module.eval()


def spec() -> BackboneSpec:
    """mini's geometry and defaults."""
    return BackboneSpec(
        family="mochi",
        fps=FPS,
        width=SIDE,
        height=SIDE,
        num_frames=NUM_FRAMES,
        min_frames=13,
        max_frames=NUM_FRAMES,
        steps=20,
        guidance=3.0,
        schedule=ScheduleSpec(kind="shift", shift=SHIFT),
        noise=NOISE,
        task_guidance=TASK_GUIDANCE,
        max_text_tokens=MAX_TOKENS,
    )


def export(vae: AutoencoderKLMochi, model: TextToVelocity, data: LatentSet, out: Path) -> None:
    """Write a diffusers Mochi folder (fp16 safetensors, no file over 10 MB) and its card; replaces `out` at the end.

    A README.md that is there already is kept: it is the model card for people.
    """
    beside = out.with_name(out.name + ".new")
    shutil.rmtree(beside, ignore_errors=True)
    vae.register_to_config(latents_mean=data.mean.tolist(), latents_std=data.std.tolist(), scaling_factor=1.0)
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(beside / "tokenizer")
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0, invert_sigmas=True)
    scheduler.save_pretrained(beside / "scheduler")
    for name, module in (
        ("vae", vae),
        ("transformer", model.transformer),
        ("text_encoder", model.text_encoder),
    ):
        copy.deepcopy(module).half().save_pretrained(beside / name, max_shard_size=SHARD_SIZE)
    _write_json(
        beside / "model_index.json",
        {
            "_class_name": "MochiPipeline",
            "_diffusers_version": "0.42.1",
            "force_zeros_for_empty_prompt": True,
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
            "text_encoder": ["transformers", "T5EncoderModel"],
            "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
            "transformer": ["diffusers", "MochiTransformer3DModel"],
            "vae": ["diffusers", "AutoencoderKLMochi"],
        },
    )
    card = {
        "id": "mini",
        "title": "mini",
        "summary": "The built-in model: coloured shapes at 64x64, seconds on a CPU. Try every task with it.",
        "licence": "Apache-2.0",
        "spec": spec().model_dump(),
        "tasks": list(TASKS),
    }
    _write_json(beside / "card.json", card)
    _fit_preview(vae, data).save(beside)
    if (out / "README.md").exists():
        shutil.copy(out / "README.md", beside / "README.md")
    if out.exists():
        old = out.with_name(out.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(out, old)
        os.replace(beside, out)
        shutil.rmtree(old)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        os.replace(beside, out)


def _fit_preview(vae: AutoencoderKLMochi, data: LatentSet) -> LatentPreview:
    """The linear map from normalized latents to colours that previews use, fitted on 32 clips."""
    rng = np.random.default_rng(7)
    frames = np.stack([draw(sample_spec(rng)) for _ in range(32)])
    latents = torch.cat([encode_clips(vae, part)[0] for part in np.split(frames, 4)])
    return fit_preview((latents - data.mean.view(-1, 1, 1, 1)) / data.std.view(-1, 1, 1, 1), frames)


def _write_json(path: Path, data: object) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def size_of(folder: Path) -> float:
    """Megabytes of all files in a folder."""
    return math.fsum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
