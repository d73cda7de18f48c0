"""LoRAs: from the files that people have to adapters on a transformer. No torch at import.

Files come in several formats, which differ in names only:

    diffusers, PEFT     transformer.blocks.0.attn1.to_q.lora_A.weight, base_model.model....
    native, ComfyUI     diffusion_model.blocks.0.self_attn.q.lora_down.weight with .alpha
    Kohya, musubi       lora_unet_blocks_0_self_attn_q.lora_down.weight with .alpha
    Pusa                blocks.0.self_attn.q.lora_A.default.weight, no alpha and no division by the rank

A layer becomes W + strength * scale * B @ A; scale is alpha / rank where the file says alpha, else 1. Distilled LoRAs
also hold whole differences of biases and norms (.diff, .diff_b), which are added to the parameters themselves.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import re
import shlex
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pusa_app.errors import ModelError
from pusa_app.models.hub_lora import HubLora
from pusa_app.models.lora_names import SECOND, Entry, Names, read_entries, shown
from pusa_app.models.native import PICKLES, Cut, one_line
from pusa_app.settings import default_data_dir
from pusa_app.timeline import LoraChoice, is_name

if TYPE_CHECKING:
    import torch

_EXPERTS = ("high", "low")
MOST_HASHED = 1024**3  # bytes, a second or two
_IN_FOLDERS = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoraReport:
    """What became of one LoRA: how many layers and parameters of the model it changes, and which of its own found no
    place. sha256: of the file, which tells it from others of its name; "" where nobody knows."""

    name: str
    strength: float
    matched: int
    unmatched: tuple[str, ...] = ()
    sha256: str = ""

    def __str__(self) -> str:
        text = f"{self.name} at {self.strength:g}: {self.matched} module{'' if self.matched == 1 else 's'}"
        return text + (f", {len(self.unmatched)} of the file found no place" if self.unmatched else "")


def loras_dir() -> Path:
    """Where LoRAs lie that are known by name."""
    return default_data_dir() / "loras"


def find_loras(name: str) -> list[Path]:
    """The safetensors files of a LoRA: a path, or the name of one that was downloaded, by its id or by its name on the
    hub, or put in the folder of LoRAs.

    Several only where a folder holds one for each of two experts. Raises ModelError with one line.
    """
    data, hub = default_data_dir(), HubLora.named(name)
    try:
        if hub is not None:
            places = [data / "models" / hub.id / "loras"]
        elif is_name(name):
            places = [data / "loras" / name, data / "loras" / f"{name}.safetensors", data / "models" / name / "loras"]
        else:
            places = [Path(name).expanduser()]
        found = next((path for path in places if path.exists()), None)
        files = _files_of(found) if found is not None else []
    except (OSError, ValueError, RuntimeError):  # a name that no file system takes, the home of nobody
        files = []
    if not files and hub is not None:
        how = f"`python -m pusa_app models download {shlex.quote(hub.name)}`"
        raise ModelError(f"The LoRA {hub.name[:300]} is not on this machine: get it on the page Models, or with {how}.")
    if not files:
        # Where the data folder is, is nothing for whoever visits a shared page.
        shown = " ".join(name[:200].split())
        raise ModelError(
            f"There is no LoRA {shown}: give the path of its file, put it into the folder loras of the data folder, or "
            "get one of the hub on the page Models."
        )
    for file in files:
        if file.suffix.lower() in PICKLES:
            raise ModelError(
                f"{file.name} is a pickle, which can run code when it is opened: convert it first with "
                f"`python -m pusa_app models convert {file.name} {file.stem}.safetensors`."
            )
    return files


def _files_of(found: Path) -> list[Path]:
    if not found.is_dir():
        return [found]
    for name in _IN_FOLDERS:
        if (found / name).is_file():
            return [found / name]
    files = sorted(found.glob("*.safetensors"))
    if len(files) > 1 and sorted(map(str, map(_expert_of, files))) != ["high", "low"]:
        raise ModelError(f"{found} holds several LoRAs: give the file of one.")
    return files


def _expert_of(path: Path) -> str | None:
    """high or low where the name of a file says that it is for one of two experts."""
    words = re.split(r"[^a-z]+", path.name.lower())
    return next((word for word in ("high", "low") if word in words), None)


def mark_of(choices: Iterable[LoraChoice]) -> str:
    """Changes when a file of these LoRAs does; of one that is missing, its name."""
    marks = []
    for choice in choices:
        try:
            states = [path.stat() for path in find_loras(choice.path)]
            marks += [f"{state.st_size} {state.st_mtime_ns}" for state in states]
        except (ModelError, OSError):
            marks.append(choice.path)
    return "\n".join(marks)


# --- files ------------------------------------------------------------------------------------------------------------


def hash_of(path: Path) -> str:
    """The SHA-256 of a LoRA's file; "" where it cannot be read, or to read it all would make a run wait."""
    try:
        real, status = path.resolve(), path.stat()
        # The cache of the hub calls large files by their hash.
        named = re.fullmatch(r"[0-9a-f]{64}", real.name) and real.parent.name == "blobs"
        if named or status.st_size > MOST_HASHED:
            return real.name if named else ""
        return _hash_of(real, status.st_size, status.st_mtime_ns)
    except OSError:
        return ""


@functools.lru_cache(maxsize=64)
def _hash_of(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _scales(path: Path, notes: Mapping[str, str]) -> Mapping[str, Any]:
    """What PEFT or diffusers wrote down about alpha: lora_alpha, alpha_pattern, use_rslora; empty when nobody did."""
    data: Any = {}
    try:
        if text := notes.get("lora_adapter_metadata"):
            # One dictionary for all parts of a pipeline: transformer.lora_alpha.
            data = {key.rpartition("transformer.")[2]: value for key, value in json.loads(text).items()}
        elif path.name == "adapter_model.safetensors":
            data = json.loads((path.parent / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, AttributeError):
        return {}
    return data if isinstance(data, dict) else {}


def _scale(module: str, rank: int, alpha: float | None, notes: Mapping[str, Any]) -> float:
    if alpha is not None:
        return alpha / rank
    patterns = notes.get("alpha_pattern") or {}
    alpha = next((value for key, value in patterns.items() if module.endswith(key)), notes.get("lora_alpha"))
    if not isinstance(alpha, int | float):
        return 1.0  # nobody said one: the authors of Pusa add B @ A as it is
    return alpha / (rank**0.5 if notes.get("use_rslora") else rank)


# --- a transformer ----------------------------------------------------------------------------------------------------


class Target:
    """A transformer that LoRAs are put on. Its adapters stay on it until they are no longer wanted."""

    def __init__(self, model: Any, family: str) -> None:
        self.model = model
        own = {name.rpartition(".")[0] for name, _ in model.named_parameters() if name.endswith((".weight", ".bias"))}
        self._names = Names(own, model.config, family)
        self._loaded: dict[str, _Loaded] = {}
        self._strengths: dict[str, float] = {}
        self._originals: dict[str, torch.Tensor] = {}

    def use(self, wanted: Mapping[str, tuple[Path, float, int | None]]) -> dict[str, _Loaded]:
        """Have these LoRAs on the model: adapter name -> (file, strength, expert of the file or None for either).

        Returns what was found in each file. What is on already is not read again. Raises ModelError; after that only
        `use({})` leaves the model in a known state.
        """
        # What goes leaves its memory to what comes.
        self._drop([name for name in self._loaded if name not in wanted])
        for name, (path, _, part) in wanted.items():
            if name not in self._loaded:
                self._loaded[name] = self._load(name, path, part)
        strengths = {name: strength for name, (_, strength, _) in wanted.items()}
        if strengths != self._strengths:
            self._strengths = strengths
            self._set_strengths()
        return dict(self._loaded)

    def _load(self, name: str, path: Path, part: int | None) -> _Loaded:
        found = _read(path, part, self._names.find, self._weight)
        if found.pairs:
            from pusa_app.backbones.parts import silent_libraries

            state = {}
            for module, (a, b) in found.pairs.items():
                state[f"{module}.lora_A.weight"], state[f"{module}.lora_B.weight"] = a, b
            try:
                with silent_libraries(), warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of PEFT, where there are several
                    self.model.load_lora_adapter(state, prefix=None, adapter_name=name, low_cpu_mem_usage=True)
            except (ValueError, RuntimeError, KeyError) as error:
                raise ModelError(f"The LoRA {path.name} cannot be put on this model ({one_line(error)}).") from error
            on = sum(name in layer.lora_A for layer in self._layers() if hasattr(layer, "lora_A"))
            if on != len(found.pairs):
                raise ModelError(
                    f"Of the LoRA {path.name} {on} of {len(found.pairs)} modules could be put on the model."
                )
            found.pairs.clear()  # they are on the model now
        return found

    def _weight(self, module: str, kind: str) -> Any:
        """A parameter of a layer, under an adapter or not; None when it has none."""
        try:
            layer = self.model.get_submodule(module)
        except AttributeError:
            return None
        return getattr(getattr(layer, "base_layer", layer), kind, None)

    def _layers(self) -> list[Any]:
        from peft.tuners.tuners_utils import BaseTunerLayer

        return [module for module in self.model.modules() if isinstance(module, BaseTunerLayer)]

    def _drop(self, names: Sequence[str]) -> None:
        for name in names:
            if name in getattr(self.model, "peft_config", {}):
                self.model.delete_adapters(name)
            self._loaded.pop(name, None)
            self._strengths.pop(name, None)
        if names:
            self._set_differences()

    def _set_strengths(self) -> None:
        on = {name: strength for name, strength in self._strengths.items() if strength}
        for layer in self._layers():
            here = [name for name in on if name in layer.scaling]
            layer.enable_adapters(bool(here))
            layer.set_adapter(here, inference_mode=True)
            for name in here:
                layer.scaling[name] = on[name]
        self._set_differences()

    def _set_differences(self) -> None:
        """Parameters that LoRAs change as a whole: what they were, plus all differences. Never added to twice."""
        import torch

        sums: dict[str, torch.Tensor] = {}
        for name, loaded in self._loaded.items():
            for key, difference in loaded.differences.items():
                part = difference.float() * self._strengths.get(name, 0.0)
                sums[key] = sums[key] + part if key in sums else part
        with torch.no_grad():
            for key in self._originals.keys() | sums.keys():
                parameter = self._weight(*key.rsplit(".", 1))
                original = self._originals.setdefault(key, parameter.detach().cpu().clone())
                parameter.data.copy_(original.float() + sums[key] if key in sums else original)
                if key not in sums:
                    del self._originals[key]


@dataclass
class _Loaded:
    """What one file has for one transformer."""

    matched: int
    unmatched: list[str]
    pairs: dict[str, tuple[torch.Tensor, torch.Tensor]]  # module -> A (rank, in), B (out, rank) with the scale in it
    differences: dict[str, torch.Tensor]  # parameter -> what is added to it


def _read(path: Path, part: int | None, find: Any, weight: Any) -> _Loaded:
    """The tensors of a file that fit a model. part: only what the file has for this expert; None is what is for any."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            entries, odd = read_entries(file.keys(), path.name)
            notes = _scales(path, file.metadata() or {})
            found = _Loaded(0, odd, {}, {})
            for (expert, module), entry in entries.items():
                if part is None or expert == part:
                    _take(file, module, entry, find(module), weight, notes, found)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"The LoRA {path.name} cannot be read ({one_line(error)}): get it again.") from None
    return found


def _take(
    file: Any, module: str, entry: Entry, places: list[tuple[str, Cut]], weight: Any, notes: Any, found: _Loaded
) -> None:
    """Add what an entry has for the layers at its places to `found`; the entry is unmatched when nothing fits."""
    keys, fits = entry.keys, False
    if places and "A" in keys and "B" in keys:
        a, b = file.get_tensor(keys["A"]), file.get_tensor(keys["B"])
        alpha = float(file.get_tensor(keys["alpha"])) if "alpha" in keys else None
        scale = _scale(module, max(1, a.shape[0]), alpha, notes)
        for target, cut in places:
            layer = weight(target, "weight")
            rows = _rows(b, cut)
            if _fits(a, rows, layer):
                dtype = layer.dtype if layer.dtype.is_floating_point and layer.dtype.itemsize > 1 else a.dtype
                found.pairs[target] = a.to(dtype), (rows.float() * scale).to(dtype)
                fits = True
    for kind, parameter in (("diff", "weight"), ("diff_b", "bias")):
        for target, cut in places if kind in keys else ():
            layer, difference = weight(target, parameter), _rows(file.get_tensor(keys[kind]), cut)
            if layer is not None and layer.shape == difference.shape:
                found.differences[f"{target}.{parameter}"] = difference.clone()
                fits = True
    if fits:
        found.matched += 1
    else:
        found.unmatched.append(module)


def _fits(a: torch.Tensor, b: torch.Tensor, layer: Any) -> bool:
    """Whether B @ A is a change of this layer's weight; a quantized weight tells its shape by its layer only."""
    if layer is None or a.ndim != b.ndim or a.shape[0] != b.shape[1]:
        return False
    shape = getattr(getattr(layer, "quant_state", None), "shape", layer.shape)
    return len(shape) == a.ndim and b.shape[0] == shape[0] and a.shape[1:] == tuple(shape[1:])


def _rows(tensor: torch.Tensor, cut: Cut) -> torch.Tensor:
    if cut.parts == 1 and not cut.swapped:
        return tensor
    import torch

    return torch.cat([tensor[start:stop] for start, stop in cut.rows(len(tensor))])


# --- a model ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Want:
    """A file, how strongly, for which expert."""

    path: Path
    strength: float
    expert: str | None


class Loras:
    """The LoRAs of a loaded model: one transformer, or two experts (high noise, low noise).

    own: those that the model is made of, as its card says; they are always on. A choice of the same name gives one of
    them another strength.
    """

    def __init__(self, experts: Sequence[Any], family: str, own: Sequence[LoraChoice] = ()) -> None:
        self._experts, self._family, self.own = experts, family, tuple(own)
        self._reports: list[LoraReport] = []
        self._now: Any = []

    @property
    def reports(self) -> list[LoraReport]:
        """Of what is on the model now."""
        return list(self._reports)

    @functools.cached_property
    def _targets(self) -> list[Target]:
        return [Target(expert, self._family) for expert in self._experts]

    def set(self, choices: Sequence[LoraChoice]) -> list[LoraReport]:
        """Have exactly these LoRAs on the model, beside its own, at these strengths; one report for each file.

        A file is read once and stays on the model as long as it is wanted: another strength costs nothing. Raises
        ModelError with one line when a file is missing, damaged or for another model; then the model has none.
        """
        if not self.would_change(choices):
            return self._reports
        wants = self._wants(choices)
        names = [_adapter_name(want.path) for want in wants]
        try:
            self._reports = self._set(wants, names)
            self._now = wants, names
        except Exception:
            self._reports, self._now = [], []
            for target in self._targets:
                target.use({})
            raise
        return self._reports

    def would_change(self, choices: Sequence[LoraChoice]) -> bool:
        """Whether `set` would do anything. Raises ModelError when a file is missing."""
        wants = self._wants(choices)
        names = [_adapter_name(want.path) for want in wants]
        return not ((wants, names) == self._now or (not wants and not self._now))

    def _wants(self, choices: Sequence[LoraChoice]) -> list[_Want]:
        own = {Path(choice.path).stem: choice for choice in self.own}
        changed = {choice.path: choice.strength for choice in choices if choice.path in own}
        wants = [
            _Want(path, changed.get(name, choice.strength), choice.expert)
            for name, choice in own.items()
            for path in find_loras(choice.path)
        ]
        for choice in choices:
            if choice.path not in own:
                wants += [_Want(path, choice.strength, choice.expert) for path in find_loras(choice.path)]
        return wants

    def _set(self, wants: list[_Want], names: list[str]) -> list[LoraReport]:
        targets: list[dict[str, tuple[Path, float, int | None]]] = [{} for _ in self._targets]
        for want, name in zip(wants, names, strict=True):
            part_for_each = len(targets) > 1 and _has_second(want.path)
            for number in self._experts_for(want):
                known = targets[number].get(name)
                strength = want.strength + (known[1] if known else 0.0)
                targets[number][name] = want.path, strength, number if part_for_each else None
        on = [target.use(wanted) for target, wanted in zip(self._targets, targets, strict=True)]
        return [
            _report(want, [loaded[name] for loaded in on if name in loaded])
            for want, name in zip(wants, names, strict=True)
        ]

    def _experts_for(self, want: _Want) -> list[int]:
        """Which transformers a LoRA is for: as chosen, else as its file is called, else all."""
        expert = want.expert or _expert_of(want.path)
        return (
            list(range(len(self._targets))) if len(self._targets) == 1 or expert is None else [_EXPERTS.index(expert)]
        )


def _report(want: _Want, loaded: Sequence[_Loaded]) -> LoraReport:
    matched = sum(found.matched for found in loaded)
    unmatched = tuple(sorted({name for found in loaded for name in found.unmatched}))
    if not matched:
        such = f", such as {shown(unmatched[0])}" if unmatched else ""
        raise ModelError(f"The LoRA {want.path.name} is for another model: none of its modules is in this one{such}.")
    report = LoraReport(want.path.name, want.strength, matched, unmatched, hash_of(want.path))
    _log.info("LoRA %s", report)
    return report


def _adapter_name(path: Path) -> str:
    """Another one for another file, or for another content of it."""
    status = path.stat()
    text = f"{os.path.realpath(path)} {status.st_size} {status.st_mtime_ns}"
    return "lora_" + hashlib.sha256(text.encode()).hexdigest()[:12]


def _has_second(path: Path) -> bool:
    """Whether a file names the second expert itself, as diffusers saves both."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return any(key.startswith(SECOND) for key in file.keys())  # noqa: SIM118 - not a dictionary
    except (SafetensorError, OSError):
        return False
