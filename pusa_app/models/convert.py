"""From genmo's own checkpoint of a Mochi transformer (Pusa V0.5 too) to a diffusers folder.

Only names and row order differ, so every target tensor is cut out of the source file when its turn comes: memory stays
at one shard, whatever the size of the model.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pusa_app.errors import ModelError

if TYPE_CHECKING:
    import torch

SHARD_BYTES = 2 * 1024**3
MAX_SEQUENCE_LENGTH = 256  # of the published models; no tensor depends on it
WEIGHTS_NAME = "diffusion_pytorch_model"
PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl"}


@dataclass(frozen=True)
class Cut:
    """Which rows of a native tensor make a target: part `part` of `parts`, or all with the two halves swapped."""

    source: str
    part: int = 0
    parts: int = 1
    swapped: bool = False

    def read(self, file: Any) -> torch.Tensor:
        import torch

        rows = file.get_slice(self.source)
        if not self.swapped and self.parts == 1:
            return file.get_tensor(self.source)
        count = rows.get_shape()[0]
        if self.swapped:
            return torch.cat((rows[count // 2 :], rows[: count // 2]))
        size = count // self.parts
        return rows[self.part * size : (self.part + 1) * size].contiguous()


def convert_native(src: Path, out_dir: Path) -> Path:
    """Convert `src`, a safetensors file with genmo's keys, to the diffusers transformer folder `out_dir`.

    `out_dir` appears only when it is complete. Raises ModelError with one line for a missing, truncated or foreign
    file, for a pickle, and when `out_dir` already holds something or cannot be written.
    """
    from safetensors import SafetensorError, safe_open

    src, out_dir = Path(src), Path(out_dir)
    _check_paths(src, out_dir)
    try:
        file = safe_open(src, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{src.name} is not a complete safetensors file ({_line(error)}): download it again."
        ) from None
    with file:
        names = file.keys()
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
        config = infer_config(shapes, src.name)
        cuts = _mapping(config["num_layers"])
        _check_names(shapes, cuts, src.name)
        _check_shapes(config, shapes, cuts, src.name)
        try:
            return _write(file, config, cuts, out_dir)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"The converted model cannot be written to {out_dir}: {_line(error)}.") from None


def infer_config(shapes: dict[str, tuple[int, ...]], name: str) -> dict[str, Any]:
    """The diffusers config that fits these tensor shapes; ModelError when key tensors are missing or odd."""
    try:
        width, in_channels, patch, _ = shapes["x_embedder.proj.weight"]
        (head_dim,) = shapes["blocks.0.attn.q_norm_x.weight"]
        pooled, text_dim = shapes["t5_yproj.weight"]
        _, time_dim = shapes["t_embedder.mlp.0.weight"]
        out_features, _ = shapes["final_layer.linear.weight"]
        layers = 1 + max(int(m[1]) for m in (re.match(r"blocks\.(\d{1,4})\.", key) for key in shapes) if m)
        heads, out_channels = width // head_dim, out_features // patch**2
    except (KeyError, ValueError, ZeroDivisionError) as error:
        what = f"{error.args[0]} is missing" if isinstance(error, KeyError) else "its tensors have other shapes"
        raise ModelError(f"{name} is not a Mochi transformer in genmo's format: {what}.") from None
    return {
        "patch_size": patch,
        "num_attention_heads": heads,
        "attention_head_dim": head_dim,
        "num_layers": layers,
        "pooled_projection_dim": pooled,
        "in_channels": in_channels,
        "out_channels": None if out_channels == in_channels else out_channels,
        "qk_norm": "rms_norm",
        "text_embed_dim": text_dim,
        "time_embed_dim": time_dim,
        "activation_fn": "swiglu",
        "max_sequence_length": MAX_SEQUENCE_LENGTH,
    }


def _mapping(layers: int) -> dict[str, Cut]:
    """diffusers name -> where it is in the native file."""

    def linear(target: str, source: str, **cut: Any) -> Iterator[tuple[str, Cut]]:
        for kind in ("weight", "bias"):
            yield f"{target}.{kind}", Cut(f"{source}.{kind}", **cut)

    def block(i: int, last: bool) -> Iterator[tuple[str, Cut]]:
        to, of = f"transformer_blocks.{i}", f"blocks.{i}"
        yield from linear(f"{to}.norm1.linear", f"{of}.mod_x")
        # The last block only reads its text: it has one modulation and no way out for the text stream.
        yield from linear(f"{to}.norm1_context.linear{'_1' if last else ''}", f"{of}.mod_y")
        for part, letter in enumerate("qkv"):
            yield f"{to}.attn1.to_{letter}.weight", Cut(f"{of}.attn.qkv_x.weight", part, 3)
            yield f"{to}.attn1.add_{letter}_proj.weight", Cut(f"{of}.attn.qkv_y.weight", part, 3)
        for letter in "qk":
            yield f"{to}.attn1.norm_{letter}.weight", Cut(f"{of}.attn.{letter}_norm_x.weight")
            yield f"{to}.attn1.norm_added_{letter}.weight", Cut(f"{of}.attn.{letter}_norm_y.weight")
        yield from linear(f"{to}.attn1.to_out.0", f"{of}.attn.proj_x")
        # genmo gates with the first half of w1, diffusers with the second.
        yield f"{to}.ff.net.0.proj.weight", Cut(f"{of}.mlp_x.w1.weight", swapped=True)
        yield f"{to}.ff.net.2.weight", Cut(f"{of}.mlp_x.w2.weight")
        if not last:
            yield from linear(f"{to}.attn1.to_add_out", f"{of}.attn.proj_y")
            yield f"{to}.ff_context.net.0.proj.weight", Cut(f"{of}.mlp_y.w1.weight", swapped=True)
            yield f"{to}.ff_context.net.2.weight", Cut(f"{of}.mlp_y.w2.weight")

    cuts = dict(linear("patch_embed.proj", "x_embedder.proj"))
    cuts.update(linear("time_embed.timestep_embedder.linear_1", "t_embedder.mlp.0"))
    cuts.update(linear("time_embed.timestep_embedder.linear_2", "t_embedder.mlp.2"))
    for name in ("to_kv", "to_q", "to_out"):
        cuts.update(linear(f"time_embed.pooler.{name}", f"t5_y_embedder.{name}"))
    cuts.update(linear("time_embed.caption_proj", "t5_yproj"))
    cuts["pos_frequencies"] = Cut("pos_frequencies")
    for i in range(layers):
        cuts.update(block(i, last=i == layers - 1))
    # genmo splits the last modulation into shift and scale, diffusers into scale and shift.
    cuts.update(linear("norm_out.linear", "final_layer.mod", swapped=True))
    cuts.update(linear("proj_out", "final_layer.linear"))
    return cuts


def _check_paths(src: Path, out_dir: Path) -> None:
    if src.suffix.lower() in PICKLES:
        raise ModelError(
            f"{src.name} is a pickle, which can run code when it is opened: get the model as a .safetensors file."
        )
    if not src.is_file():
        raise ModelError(f"There is no file {src}.")
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise ModelError(f"{out_dir} already exists: choose a new folder for the converted model.")


def _check_names(shapes: dict[str, tuple[int, ...]], cuts: dict[str, Cut], name: str) -> None:
    wanted = {cut.source for cut in cuts.values()}
    complaints = []
    if missing := sorted(wanted - shapes.keys()):
        complaints.append(f"missing {_some(missing)}")
    if unknown := sorted(shapes.keys() - wanted):
        complaints.append(f"unknown {_some(unknown)}")
    if complaints:
        raise ModelError(f"{name} is not a Mochi transformer in genmo's format: {'; '.join(complaints)}.")


def _check_shapes(config: dict[str, Any], shapes: dict[str, tuple[int, ...]], cuts: dict[str, Cut], name: str) -> None:
    """Compare with the shapes of the model that the config makes, built without memory."""
    import torch
    from diffusers import MochiTransformer3DModel

    try:
        with torch.device("meta"):
            model = MochiTransformer3DModel.from_config(config)
    except (RuntimeError, ValueError, ZeroDivisionError) as error:
        raise ModelError(f"{name} has shapes that make no Mochi transformer ({_line(error)}).") from None
    wrong = []
    for target, tensor in model.state_dict().items():
        cut = cuts[target]
        rows, *rest = shapes[cut.source] or (0,)  # a single number has no rows
        if (rows // cut.parts, *rest) != tuple(tensor.shape) or rows % (2 if cut.swapped else cut.parts):
            wrong.append(cut.source)
    if wrong:
        raise ModelError(f"{name} has tensors of the wrong shape: {_some(sorted(set(wrong)))}.")


def _write(file: Any, config: dict[str, Any], cuts: dict[str, Cut], out_dir: Path) -> Path:
    """Write beside `out_dir`, then rename: a reader never sees half a model."""
    from diffusers import __version__

    out_dir.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}-", dir=out_dir.parent))
    try:
        work.chmod(0o755)
        header = {"_class_name": "MochiTransformer3DModel", "_diffusers_version": __version__}
        _write_json(work / "config.json", header | config)
        _write_shards(file, cuts, work)
        for path in [*work.iterdir(), work]:
            _flush(path)
        os.replace(work, out_dir)
        _flush(out_dir.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return out_dir


def _write_shards(file: Any, cuts: dict[str, Cut], work: Path) -> None:
    from safetensors.torch import save_file

    shards, total = _plan(file, cuts)
    weight_map = {}
    for number, names in enumerate(shards, 1):
        tail = f"-{number:05}-of-{len(shards):05}" if len(shards) > 1 else ""
        path = work / f"{WEIGHTS_NAME}{tail}.safetensors"
        save_file({name: cuts[name].read(file) for name in names}, path, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(names, path.name))
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        _write_json(work / f"{WEIGHTS_NAME}.safetensors.index.json", index)


def _plan(file: Any, cuts: dict[str, Cut]) -> tuple[list[list[str]], int]:
    """Names per shard and the bytes of all tensors, from the header alone."""
    shards: list[list[str]] = [[]]
    filled = total = 0
    for name, cut in cuts.items():
        rows = file.get_slice(cut.source)
        count = 1
        for side in rows.get_shape():
            count *= side
        size = count // cut.parts * _bytes_of(rows.get_dtype())
        if filled and filled + size > SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
        total += size
    return shards, total


def _bytes_of(dtype: str) -> int:
    """Bytes of one number of a safetensors dtype such as F32, BF16 or F8_E4M3."""
    match = re.match(r"[A-Z]+(\d+)", dtype)
    return max(1, int(match[1]) // 8) if match else 1


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _flush(path: Path) -> None:
    """Make a file or folder survive a power cut; folders cannot be opened on Windows."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _line(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0][:200]
