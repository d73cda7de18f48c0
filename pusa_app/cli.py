"""The command line.

Exit codes: 0 done; 1 something broke, or some jobs of a batch failed; 2 a user's mistake, told in one line on standard
error, with nothing written; 3 training was stopped by --stop-after with more to do; 130 stopped with Ctrl-C. The last
line on standard output is the path of what was made.

Only the standard library is imported here; everything else waits until a command needs it, so that help is instant.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
import re
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pusa_app import __version__
from pusa_app.errors import RecipeError, RunCancelled, UserError
from pusa_app.events import Event, Progress
from pusa_app.pace import Pace, clock

if TYPE_CHECKING:
    from pusa_app.models import ModelCard
    from pusa_app.timeline import Recipe

OK, BROKEN, MISTAKE, INTERRUPTED = 0, 1, 2, 130
BENCHES = ("quality", "speed", "start")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
VIDEOS = (".mp4", ".mov", ".m4v", ".webm", ".mkv")
KEYFRAME_KEYS = ("slot", "image", "clip", "start", "span", "noise", "fit")
MAX_PROMPT_BYTES = 100_000
MAX_MESSAGE = 1000
MAX_NAME_BYTES = 255  # of every common file system


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _quiet()
    try:
        return _dispatch(arguments)
    except UserError as error:
        return _complain(str(error), MISTAKE)
    except (KeyboardInterrupt, RunCancelled):
        return _complain("Stopped.", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output left (`... | head`); there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN
    except Exception as error:  # noqa: BLE001 - the last line of defence: a user gets words, PUSA_DEBUG=1 gets the traceback
        if os.environ.get("PUSA_DEBUG") == "1":
            traceback.print_exc()
        return _complain(f"This should not have happened ({type(error).__name__}: {error}).", BROKEN)


def _complain(message: str, code: int) -> int:
    line = "".join(c if c.isprintable() else "?" for c in " ".join(message.split()))
    print(line if len(line) <= MAX_MESSAGE else f"{line[:MAX_MESSAGE]}...", file=sys.stderr)
    return code


def _quiet() -> None:
    """Standard error is ours: libraries warn about much that no user can change. PUSA_DEBUG=1 lets them speak."""
    # A path need not be text that the terminal can show, and it is printed after the work is done.
    with contextlib.suppress(AttributeError, ValueError):
        sys.stdout.reconfigure(errors="surrogateescape" if os.name == "posix" else "backslashreplace")  # type: ignore[union-attr]
    if os.environ.get("PUSA_DEBUG") == "1":
        return
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    if not logging.getLogger().handlers:
        logging.getLogger().addHandler(logging.NullHandler())


def _dispatch(argv: list[str]) -> int:
    # `train` and `bench` have parsers of their own; handing over before ours looks keeps their options theirs.
    if argv[:1] == ["train"]:
        from pusa_app.training import cli as training

        return training.main(argv[1:]) or OK
    if argv[:1] == ["bench"] and argv[1:2] and argv[1] in BENCHES:
        import importlib

        return importlib.import_module(f"pusa_app.bench.{argv[1]}").main(argv[2:]) or OK
    options = _parser().parse_args(argv)
    return options.run(options)


# --- the parser ------------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaint is a UserError."""

    def error(self, message: str) -> NoReturn:
        """One line instead of usage and an exit in the middle of nowhere."""
        raise UserError(f"{message[:1].upper()}{message[1:]}. See `{self.prog} --help`.")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m pusa_app", description="Pusa Studio: frame-level control over AI video.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"Pusa Studio {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_generate(commands)

    recipe = commands.add_parser("recipe", help="print the recipe inside a video, as JSON", allow_abbrev=False)
    recipe.add_argument("video", type=_path)
    recipe.set_defaults(run=_recipe)

    models = commands.add_parser("models", help="list the models, or convert a native file", allow_abbrev=False)
    actions = models.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="the models that this program knows", allow_abbrev=False)
    listing.set_defaults(run=_models_list)
    convert = actions.add_parser("convert", help="a native weights file to a diffusers folder", allow_abbrev=False)
    convert.add_argument("native", type=_path, metavar="NATIVE_FILE")
    convert.add_argument("out", type=_path, metavar="OUT_DIR")
    convert.set_defaults(run=_models_convert)

    commands.add_parser("train", help="train a model: train mini --help")
    bench = commands.add_parser("bench", help=f"measure: {', '.join(BENCHES)}", allow_abbrev=False)
    bench.add_argument("name", choices=BENCHES)
    bench.set_defaults(run=lambda _: OK)
    return parser


def _add_generate(commands: Any) -> None:
    make = commands.add_parser("generate", help="make a video", allow_abbrev=False)
    make.set_defaults(run=_generate)
    make.add_argument("--out", required=True, type=_path, help="the video to write (.mp4), or the folder of a batch")
    make.add_argument("--recipe", type=_path, help="make the video of a recipe again: a .json file or a video")
    make.add_argument(
        "--batch", type=_path, metavar="FOLDER", help="every picture with a .txt file of the same name is a job"
    )
    what = make.add_argument_group("what to make")
    what.add_argument("--task", help="text-to-video or image-to-video; the default follows from what you give")
    what.add_argument("--model", help="id of a model, see `models list`; mini by default")
    what.add_argument("--prompt", help="what happens in the video")
    what.add_argument("--negative", metavar="PROMPT", help="what should not be in it")
    what.add_argument("--image", metavar="FILE", help="the first frame; short for --keyframe slot=0,image=FILE")
    what.add_argument(
        "--keyframe",
        action="append",
        type=_argument(parse_keyframe),
        metavar="slot=0,image=FILE,noise=0.2",
        help="a picture or a clip (clip=FILE,start=0,span=3,noise=0.1:0.2:0.3,fit=crop|pad) in a slot; repeatable",
    )
    how = make.add_argument_group("how to make it")
    how.add_argument("--frames", type=integer(1, 100_000), help="length in frames")
    how.add_argument("--size", type=_argument(parse_size), metavar="WxH", help="width and height in pixels")
    how.add_argument("--steps", type=integer(1, 1000), help="denoising steps")
    how.add_argument("--guidance", type=number(0, 100), help="how strictly the prompt is followed")
    how.add_argument("--seed", type=integer(0, 2**63 - 1), help="0 by default")
    how.add_argument(
        "--schedule",
        type=_argument(parse_schedule),
        metavar="KIND[:VALUE]",
        help="linear-quadratic[:THRESHOLD] or shift[:SHIFT]; the model's own by default",
    )


def _argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Turn a parser's ValueError into argparse's own error, which keeps the message."""

    def read(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _path(text: str) -> Path:
    """A path that the file system can be asked about, whether or not something is there."""
    try:
        os.stat(text or ".")
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise argparse.ArgumentTypeError(f"{_shown(text)} cannot be used ({reason})") from None
    return Path(text)


def integer(low: int, high: int) -> Callable[[str], int]:
    """A type for add_argument: a whole number in a range."""
    return _argument(lambda text: _whole(text, low, high))


def number(low: float, high: float) -> Callable[[str], float]:
    """A type for add_argument: a finite number in a range."""
    return _argument(lambda text: _real(text, low, high))


def _whole(text: str, low: int, high: int) -> int:
    # The length comes first: turning a million digits into a number takes minutes.
    if not re.fullmatch(r"[+-]?\d{1,20}", text.strip()) or not low <= int(text) <= high:
        raise ValueError(f"a whole number from {low} to {high} is needed, not {_shown(text)}")
    return int(text)


def _real(text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise ValueError(f"a number from {low:g} to {high:g} is needed, not {_shown(text)}")
    return value


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")


def parse_size(text: str) -> tuple[int, int]:
    """ "64x48" -> (64, 48), in pixels; raises ValueError."""
    width, x, height = text.lower().partition("x")
    if not x:
        raise ValueError(f"a size looks like 64x64, not {_shown(text)}")
    return _whole(width, 8, 8192), _whole(height, 8, 8192)


def parse_schedule(text: str) -> dict[str, Any]:
    """ "shift:2" -> the fields of a ScheduleSpec; raises ValueError."""
    kind, colon, value = text.partition(":")
    fields = {"linear-quadratic": "threshold", "shift": "shift"}
    if kind not in fields:
        raise ValueError(f"a schedule is linear-quadratic or shift, not {_shown(text)}")
    bounds = (1e-6, 0.5) if kind == "linear-quadratic" else (1e-3, 100.0)
    return {"kind": kind} | ({fields[kind]: _real(value, *bounds)} if colon else {})


def parse_keyframe(text: str) -> dict[str, Any]:
    """ "slot=0,image=a.png,noise=0.2" -> the fields of a Keyframe; raises ValueError. Paths may hold commas."""
    keys = "|".join(KEYFRAME_KEYS)
    fields: dict[str, str] = {}
    for part in re.split(rf",(?=(?:{keys})=)", text):
        key, equals, value = part.partition("=")
        if not equals or key not in KEYFRAME_KEYS:
            raise ValueError(f"a keyframe looks like slot=0,image=a.png,noise=0.2, not {_shown(text)}")
        if key in fields:
            raise ValueError(f"{key} is there twice in {_shown(text)}")
        fields[key] = value
    if ("image" in fields) == ("clip" in fields) or "slot" not in fields:
        raise ValueError(f"a keyframe needs a slot and either an image or a clip: {_shown(text)}")
    if "image" in fields and ("start" in fields or "span" in fields):
        raise ValueError(f"start and span belong to a clip: {_shown(text)}")
    if fields.get("fit", "crop") not in ("crop", "pad"):
        raise ValueError(f"fit is crop or pad, not {_shown(fields['fit'])}")
    if "image" in fields:
        source: dict[str, Any] = {"kind": "image", "path": fields["image"]}
    else:
        source = {"kind": "clip", "path": fields["clip"], "start": _whole(fields.get("start", "0"), 0, 10_000_000)}
    keyframe: dict[str, Any] = {"slot": _whole(fields["slot"], 0, 100_000), "source": source}
    if "span" in fields:
        keyframe["span"] = _whole(fields["span"], 1, 100_000)
    if "fit" in fields:
        keyframe["fit"] = fields["fit"]
    if "noise" in fields:
        noises = [_real(value, 0, 1) for value in fields["noise"].split(":")]
        keyframe["noise"] = noises[0] if len(noises) == 1 else noises
    return keyframe


# --- generate --------------------------------------------------------------------------------------------------------


def _generate(options: argparse.Namespace) -> int:
    if options.batch is not None:
        return _batch(options)
    if options.recipe is not None:
        _refuse(options, "--recipe", _RECIPE_OPTIONS, "already says it")
        recipe = read_recipe(options.recipe)
    else:
        recipe = _recipe_from(options)
    out = _checked_out(options.out, recipe)
    from pusa_app.studio import check_recipe

    check_recipe(recipe)
    _render(recipe, out)
    print(options.out)
    return OK


_RECIPE_OPTIONS = tuple(
    "task model prompt negative image keyframe frames size steps guidance seed schedule".split()  # noqa: SIM905
)


def _refuse(options: argparse.Namespace, because: str, names: Sequence[str], why: str) -> None:
    for name in names:
        if getattr(options, name) is not None:
            raise RecipeError(f"Leave out --{name}: {because} {why}.")


def read_recipe(path: Path) -> Recipe:
    """The recipe in a JSON file or inside a video, whatever the file is called; raises RecipeError or MediaError."""
    from pusa_app.timeline import Recipe

    if not path.is_file():
        raise RecipeError(f"There is no file {path}.")
    if path.suffix.lower() not in VIDEOS and not _holds_video(path):
        return Recipe.from_file(path)
    from pusa_app.media import read_recipe_text

    return _beside(Recipe.from_json(read_recipe_text(path)), path.parent)


def _beside(recipe: Recipe, folder: Path) -> Recipe:
    """Finds sources that are named as seen from the video's folder, which is how the page writes them."""

    def found(path: str) -> str:
        # os.path: a name that no file system takes is just not there.
        return path if os.path.exists(path) or not os.path.exists(folder / path) else str(folder / path)

    return recipe.with_paths(found)


def _holds_video(path: Path) -> bool:
    """MP4 and its relatives say so in their first box, Matroska and WebM in their first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False  # whoever reads it next says why
    return head[4:8] == b"ftyp" or head[:4] == b"\x1aE\xdf\xa3"


def _recipe_from(options: argparse.Namespace) -> Recipe:
    from pusa_app.studio import card_of
    from pusa_app.timeline import get_task

    if options.image is not None and options.keyframe:
        raise RecipeError("Give --image or --keyframe, not both: --image FILE is --keyframe slot=0,image=FILE.")
    pictured = options.image is not None or options.keyframe
    task = get_task(options.task or ("image-to-video" if pictured else "text-to-video"))
    card = card_of(options.model or "mini")
    if task.name == "text-to-video" and not (options.prompt or "").strip():
        raise RecipeError("Say what to make: --prompt needs a few words.")
    keyframes = list(options.keyframe or ())
    if options.image is not None:
        keyframes.append({"slot": 0, "source": {"kind": "image", "path": options.image}})
    return _build_recipe(options, card, task.name, options.prompt or "", keyframes)


def _build_recipe(
    options: argparse.Namespace, card: ModelCard, task: str, prompt: str, keyframes: Sequence[dict[str, Any]]
) -> Recipe:
    from pusa_app.studio import new_recipe

    noise = {"noise": card.spec.noise.start}
    return new_recipe(
        card,
        task,
        prompt=prompt,
        negative_prompt=options.negative or "",
        keyframes=[noise | k if k["source"]["kind"] == "image" else k for k in keyframes],
        num_frames=options.frames,
        size=options.size,
        steps=options.steps,
        guidance=options.guidance,
        seed=options.seed or 0,
        schedule=options.schedule,
    )


def _checked_out(out: Path, recipe: Recipe | None = None) -> Path:
    """The absolute output path; raises RecipeError when a video could not be written there. Writes nothing."""
    if out.suffix.lower() != ".mp4":
        raise RecipeError(f"The output must be an .mp4 file, not {out.name or out}.")
    if out.is_dir():
        raise RecipeError(f"The output {out} is a folder: add a file name.")
    if len(os.fsencode(out.name)) > MAX_NAME_BYTES:
        raise RecipeError(f"The output cannot be called {_shown(out.name)}: the name is too long.")
    _check_folder(out.absolute().parent)
    if out.exists() and not os.access(out, os.W_OK):
        raise RecipeError(f"The output {out} cannot be overwritten: it is read-only.")
    sources = [] if recipe is None else recipe.paths
    if out.exists() and any(os.path.exists(path) and out.samefile(path) for path in sources):
        raise RecipeError(f"The output {out} is also a source of this video: choose another name.")
    return out.absolute()


def _check_folder(folder: Path) -> None:
    """Raises RecipeError when the folder neither exists nor can be made."""
    existing = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
    if not existing.is_dir():
        raise RecipeError(f"The output cannot be written: {existing} is not a folder.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise RecipeError(f"The output cannot be written: no permission to write in {existing}.")


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Make the folder, and see that it takes a file, before the work; made folders go again when the work fails.

    Raises RecipeError when nothing can be written there.
    """
    made = [parent for parent in (folder, *folder.parents) if not os.path.lexists(parent)]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise RecipeError(f"The output cannot be written in {folder}: {error.strerror or error}.") from None
        yield
    except BaseException:
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise


_loaded: dict[str, Any] = {}


def _render(recipe: Recipe, out: Path) -> None:
    """Render to `out`, in this process; the model stays loaded for the next one of a batch."""
    from pusa_app.worker import load_backbone

    show = ProgressLine(sys.stderr)
    with _writable(out.parent), contextlib.closing(show):
        if recipe.model not in _loaded:
            show(Progress("loading"))
            _loaded.clear()
            _loaded[recipe.model] = load_backbone(recipe.model)
        from pusa_app.render import render

        render(recipe, _loaded[recipe.model], show, out=out)


class ProgressLine:
    """Progress on standard error: one line that rewrites itself on a terminal, plain lines in a log."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._live, self._pace, self._last = stream, stream.isatty(), Pace(), ""

    def __call__(self, event: Event) -> None:
        # In a log, a model that cannot be loaded is one line and not two.
        if not isinstance(event, Progress) or (event.phase == "loading" and not self._live):
            return
        self._pace.see(event)
        text = event.phase
        if event.steps:
            text += f" {event.step}/{event.steps}"
        if event.seconds:
            text += f"  {clock(event.seconds)}"
        if (left := self._pace.remaining) is not None:
            text += f"  about {clock(left)} left"
        if text == self._last:
            return
        self._last = text
        self._stream.write(f"\r\x1b[K{text}" if self._live else f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        if self._live and self._last:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def _batch(options: argparse.Namespace) -> int:
    """Every picture of a folder whose text file holds a prompt; a bad pair is told and the others run."""
    folder: Path = options.batch
    if not folder.is_dir():
        raise RecipeError(f"There is no folder {folder}.")
    _refuse(options, "--batch", ("prompt", "image", "keyframe"), "takes it from the folder")
    if options.recipe is not None:
        raise RecipeError("Give --recipe or --batch, not both.")
    if options.task not in (None, "image-to-video"):
        raise RecipeError("A batch of pictures is image-to-video: leave out --task.")
    if options.out.exists() and not options.out.is_dir():
        raise RecipeError(f"The output of a batch is a folder, and {options.out} is a file.")
    _check_folder(options.out.absolute())
    from pusa_app.studio import card_of, check_recipe

    card = card_of(options.model or "mini")
    check_recipe(_build_recipe(options, card, "image-to-video", "", []), sources=False)
    visible = [p for p in folder.iterdir() if not p.name.startswith(".")]  # macOS keeps shadows: ._a.png
    pictures = sorted(p for p in visible if p.is_file() and p.suffix.lower() in PICTURES)
    if not pictures:
        raise RecipeError(f"There is no picture in {folder}: a batch is pictures with text files of the same name.")
    stems = [p.stem for p in pictures]
    failed = 0
    for picture in pictures:
        try:
            if stems.count(picture.stem) > 1:
                raise RecipeError(f"several pictures are called {picture.stem}")
            keyframe = {"slot": 0, "source": {"kind": "image", "path": str(picture)}}
            recipe = _build_recipe(options, card, "image-to-video", _prompt_beside(picture), [keyframe])
            check_recipe(recipe)
            out = options.out / f"{picture.stem}.mp4"
            _render(recipe, _checked_out(out))
            print(out, flush=True)
        except UserError as error:
            failed += 1
            _complain(f"{picture.name}: {error}", MISTAKE)
    for text in sorted(p for p in visible if p.suffix == ".txt"):
        if text.stem not in stems:
            failed += 1
            _complain(f"{text.name}: there is no picture of that name", MISTAKE)
    if failed:
        return _complain(f"{failed} of the batch could not be made.", BROKEN)
    print(options.out)
    return OK


def _prompt_beside(picture: Path) -> str:
    text = picture.with_suffix(".txt")
    if not text.is_file():
        raise RecipeError(f"there is no {text.name} with its prompt")
    try:
        with text.open(encoding="utf-8-sig") as file:
            prompt = file.read(MAX_PROMPT_BYTES).strip()
    except (OSError, UnicodeDecodeError):
        raise RecipeError(f"{text.name} cannot be read as text") from None
    if not prompt:
        raise RecipeError(f"{text.name} is empty")
    return prompt


# --- the other commands ----------------------------------------------------------------------------------------------


def _recipe(options: argparse.Namespace) -> int:
    print(read_recipe(options.video).to_json())
    return OK


def _models_list(options: argparse.Namespace) -> int:
    from pusa_app.studio import cards, default_card

    default_card()  # says what to do when there is no model at all
    for card in cards():
        where = "ready" if card.folder is not None else "not on this machine"
        print(f"{card.id:<12} {where:<20} {card.title}. {card.summary}")
    return OK


def _models_convert(options: argparse.Namespace) -> int:
    if not options.native.is_file():
        raise UserError(f"There is no file {options.native}.")
    from pusa_app.models import convert_native

    print(convert_native(options.native, options.out))
    return OK
