"""From files in the cache to a model folder: links for what is there already, conversion of what is not diffusers'."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from pusa_app.errors import ModelError, StoreError
from pusa_app.models.convert import convert_native
from pusa_app.models.entry import Entry
from pusa_app.models.home import CARD_FILE, Home
from pusa_app.models.native import PICKLES
from pusa_app.models.weights.hub import Stopped
from pusa_app.models.weights.shelf import Wanted

INDEX_FILE = "model_index.json"


def cost_of(entry: Entry, wanted: list[Wanted]) -> int:
    """Bytes that a model's own folder takes: those of what is converted, since links take none."""
    count = 0
    for one in wanted:
        if one.part.use == "convert" or (one.part.use == "lora" and one.part.pickle):
            count += one.own.stat().st_size if one.own is not None else sum(file.size for file in one.files)
    return count


def assemble(home: Home, entry: Entry, wanted: list[Wanted], stop: Callable[[], bool] = lambda: False) -> Path:
    """Make the folder of a model whose files are all here; it appears when it is whole, with its card.

    Raises ModelError or StoreError with one line, Stopped on request.
    """
    out, making = home.models_dir / entry.id, home.models_dir / f".making-{entry.id}"
    try:
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        for one in wanted:
            if stop():
                raise Stopped("The download was stopped.")
            {"link": _link_files, "convert": _convert, "lora": _lora}[one.part.use](home, one, making)
        if entry.kind == "model":
            if not (making / INDEX_FILE).is_file():
                raise ModelError(f"{entry.title} cannot be put together: it has no {INDEX_FILE}.")
            card = entry.card(None).model_dump_json(exclude={"folder"}, indent=2)
        else:
            card = _as_it_came(entry, wanted).model_dump_json(indent=2)
        (making / CARD_FILE).write_text(card + "\n", encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        os.replace(making, out)
    except OSError as error:
        raise StoreError(f"The folder {out} cannot be written: {error.strerror or error}.") from None
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return out


def _as_it_came(entry: Entry, wanted: list[Wanted]) -> Entry:
    """A LoRA's entry with what its file was on the hub."""
    for one in wanted:
        file = next((file for file in one.files if not file.name.endswith(".json")), None)
        if one.listing is not None and file is not None:
            return entry.model_copy(update={"commit": one.listing.commit, "etag": file.etag})
    return entry


def link(src: Path, dst: Path) -> None:
    """`src` under another name: a link where the file system has any, else a copy."""
    dst.parent.mkdir(parents=True, exist_ok=True)
    try:
        dst.symlink_to(src.absolute())
        return
    except (OSError, NotImplementedError):
        pass
    try:
        os.link(src.resolve(), dst)
    except OSError:
        shutil.copyfile(src, dst)


def _link_files(home: Home, one: Wanted, making: Path) -> None:
    for file, pointer in one.pointers(home):
        target = making / one.part.into / one.part.plain(file.name)
        if one.part.variant and ".safetensors.index." in file.name:
            _plain_index(pointer, target, one)
        else:
            link(pointer, target)


def _plain_index(src: Path, dst: Path, one: Wanted) -> None:
    """An index of pieces that names them as they are linked, without the variant."""
    try:
        index = json.loads(src.read_text(encoding="utf-8"))
        index["weight_map"] = {name: one.part.plain(piece) for name, piece in index["weight_map"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(f"{src.name} is damaged: remove the model and download it again.") from None
    dst.parent.mkdir(parents=True, exist_ok=True)
    dst.write_text(json.dumps(index, indent=1), encoding="utf-8")


def _convert(home: Home, one: Wanted, making: Path) -> None:
    out = making / one.part.into
    sources = _sources(home, one)
    if len(sources) == 1:
        convert_native(sources[0], out)
        return
    with tempfile.TemporaryDirectory(dir=making) as pieces:
        for source in sources:
            link(source, Path(pieces) / source.name)
        convert_native(Path(pieces), out)


def _lora(home: Home, one: Wanted, making: Path) -> None:
    sources = _sources(home, one)
    source = next(path for path in sources if path.suffix != ".json")
    out = making / "loras" / f"{one.part.into}.safetensors"
    for note in sources:
        if note.suffix == ".json":  # PEFT keeps the scale of a LoRA in a file beside it
            link(note, out.with_name(note.name))
    if source.suffix.lower() not in PICKLES:
        link(source, out)
        return
    from pusa_app.models.unpickle import convert_pickle

    out.parent.mkdir(parents=True, exist_ok=True)
    convert_pickle(source, out)


def _sources(home: Home, one: Wanted) -> list[Path]:
    return [one.own] if one.own is not None else [pointer for _, pointer in one.pointers(home)]
