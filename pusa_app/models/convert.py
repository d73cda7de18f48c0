"""From a native checkpoint to a diffusers folder: genmo's Mochi (Pusa V0.5 too) and Wan, by the shapes of the tensors.

Only names and row order differ, so the bytes of every target tensor are copied from file to file: memory stays at a few
megabytes, whatever the size of the model.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pusa_app.errors import ModelError
from pusa_app.models.convert_wan import WAN
from pusa_app.models.native import Cut, Family, Files, Shapes, Stored, hints_for, layers_of, linear, one_line, stored_in

SHARD_BYTES = 2 * 1024**3
MAX_SEQUENCE_LENGTH = 256  # of the published models; no tensor depends on it
WEIGHTS_NAME = "diffusion_pytorch_model"


def convert_native(src: Path, out_dir: Path) -> Path:
    """Convert `src`, a safetensors file or a folder of its pieces with native keys, to the diffusers folder `out_dir`.

    `out_dir` appears only when it is complete. Raises ModelError with one line for a missing, truncated or foreign
    file, for a pickle, and when `out_dir` already holds something or cannot be written.
    """
    src, out_dir = Path(src), Path(out_dir)
    native = stored_in(src)
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise ModelError(f"{out_dir} already exists: choose a new folder for the converted model.")
    shapes = {name: stored.shape for name, stored in native.items()}
    family = family_of(shapes, src.name)
    config = family.infer(shapes, hints_for(src), src.name)
    cuts = family.mapping(config)
    _check_names(shapes, cuts, family, src.name)
    _check_shapes(config, shapes, cuts, family, src.name)
    try:
        return _write(native, config, cuts, family, out_dir)
    except OSError as error:
        raise ModelError(f"The converted model cannot be written to {out_dir}: {one_line(error)}.") from None


def family_of(shapes: Shapes, name: str) -> Family:
    """The family whose checkpoint has these tensors; ModelError when it is none."""
    for family in FAMILIES:
        if family.mark in shapes:
            return family
    raise ModelError(f"{name} is not {MOCHI.what} ({MOCHI.mark} is missing), nor {WAN.what} ({WAN.mark} is missing).")


def infer_config(shapes: Shapes, hints: dict[str, Any], name: str) -> dict[str, Any]:
    """The diffusers config that fits these tensor shapes; ModelError when key tensors are missing or odd."""
    try:
        width, in_channels, patch, _ = shapes["x_embedder.proj.weight"]
        (head_dim,) = shapes["blocks.0.attn.q_norm_x.weight"]
        pooled, text_dim = shapes["t5_yproj.weight"]
        _, time_dim = shapes["t_embedder.mlp.0.weight"]
        out_features, _ = shapes["final_layer.linear.weight"]
        layers = layers_of(shapes)
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


def mapping(config: dict[str, Any]) -> dict[str, Cut]:
    """diffusers name -> where it is in the native file."""

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

    layers = config["num_layers"]
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


MOCHI = Family(
    what="a Mochi transformer in genmo's format",
    class_name="MochiTransformer3DModel",
    mark="x_embedder.proj.weight",
    infer=infer_config,
    mapping=mapping,
)
FAMILIES = (MOCHI, WAN)


def _check_names(shapes: Shapes, cuts: dict[str, Cut], family: Family, name: str) -> None:
    wanted = {cut.source for cut in cuts.values()}
    complaints = []
    if missing := sorted(wanted - shapes.keys()):
        complaints.append(f"missing {_some(missing)}")
    if unknown := sorted(shapes.keys() - wanted):
        complaints.append(f"unknown {_some(unknown)}")
    if complaints:
        raise ModelError(f"{name} is not {family.what}: {'; '.join(complaints)}.")


def _check_shapes(config: dict[str, Any], shapes: Shapes, cuts: dict[str, Cut], family: Family, name: str) -> None:
    """Compare with the shapes of the model that the config makes, built without memory."""
    import diffusers
    import torch

    try:
        with torch.device("meta"):
            model = getattr(diffusers, family.class_name).from_config(config)
    except (RuntimeError, ValueError, ZeroDivisionError) as error:
        raise ModelError(
            f"{name} has shapes that make no model: it is not {family.what} ({one_line(error)})."
        ) from None
    wrong = []
    for target, tensor in model.state_dict().items():
        cut = cuts[target]
        rows, *rest = shapes[cut.source] or (0,)  # a single number has no rows
        if (rows // cut.parts, *rest) != tuple(tensor.shape) or rows % (2 if cut.swapped else cut.parts):
            wrong.append(cut.source)
    if wrong:
        raise ModelError(f"{name} has tensors of the wrong shape: {_some(sorted(set(wrong)))}.")


def _write(
    native: dict[str, Stored], config: dict[str, Any], cuts: dict[str, Cut], family: Family, out_dir: Path
) -> Path:
    """Write beside `out_dir`, then rename: a reader never sees half a model."""
    from diffusers import __version__

    out_dir.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}-", dir=out_dir.parent))
    try:
        work.chmod(0o755)
        header = {"_class_name": family.class_name, "_diffusers_version": __version__}
        _write_json(work / "config.json", header | config)
        _write_shards(native, cuts, work)
        for path in [*work.iterdir(), work]:
            _flush(path)
        os.replace(work, out_dir)
        _flush(out_dir.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return out_dir


def _write_shards(native: dict[str, Stored], cuts: dict[str, Cut], work: Path) -> None:
    shards, total = _plan(native, cuts)
    weight_map = {}
    for number, names in enumerate(shards, 1):
        tail = f"-{number:05}-of-{len(shards):05}" if len(shards) > 1 else ""
        path = work / f"{WEIGHTS_NAME}{tail}.safetensors"
        _write_file(native, {name: cuts[name] for name in names}, path)
        weight_map.update(dict.fromkeys(names, path.name))
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        _write_json(work / f"{WEIGHTS_NAME}.safetensors.index.json", index)


def _write_file(native: dict[str, Stored], cuts: dict[str, Cut], path: Path) -> None:
    """A safetensors file: eight bytes of length, a JSON header, the bytes of the tensors without gaps."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    # Wide numbers first, as safetensors does, so that every tensor begins at a multiple of its number's size.
    order = sorted(cuts, key=lambda name: -_bytes_of(native[cuts[name].source].dtype))
    at = 0
    for name in order:
        stored = native[cuts[name].source]
        end = at + stored.size // cuts[name].parts
        header[name] = {"dtype": stored.dtype, "shape": cuts[name].shape(stored), "data_offsets": (at, end)}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    files = Files()
    try:
        with path.open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for name in order:
                for piece in cuts[name].pieces(native[cuts[name].source], files):
                    out.write(piece)
    finally:
        files.close()


def _plan(native: dict[str, Stored], cuts: dict[str, Cut]) -> tuple[list[list[str]], int]:
    """Names per shard and the bytes of all tensors."""
    shards: list[list[str]] = [[]]
    filled = total = 0
    for name, cut in cuts.items():
        size = native[cut.source].size // cut.parts
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
