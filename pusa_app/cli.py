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
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from pusa_app import __version__, cli_export, cli_jobs, cli_models
from pusa_app.arguments import (
    NOT_OF_A_BATCH,
    RECIPE_ARGUMENTS,
    add_recipe_arguments,
    integer,
    number,
    numbers,
    recipe_from,
    refuse,
    shown,
    to_path,
)
from pusa_app.errors import RecipeError, RunCancelled, UserError
from pusa_app.events import Event, Progress
from pusa_app.outputs import check_folder, checked_out, writable
from pusa_app.pace import Pace, clock

if TYPE_CHECKING:
    from pusa_app.timeline import Recipe, Sweep

Work = TypeVar("Work", "Recipe", "Sweep")

__all__ = ["Parser", "integer", "main", "number", "read_recipe"]

OK, BROKEN, MISTAKE, INTERRUPTED = 0, 1, 2, 130
EXAMPLES = """\
examples (each with --out FILE.mp4; PROMPT stands for --prompt "what happens"):
  generate PROMPT                                              text to video
  generate --image a.png PROMPT                                image to video
  generate --image a.png --end b.png                           start-end
  generate --clip a.mp4 --frames-to-add 48 --direction both    extend
  generate --clip a.mp4 --clip-b b.mp4 --style cross           transition
  generate --clip a.mp4 --gap 13:25                            complete
  generate --task loop --clip a.mp4 --clip-range 10:50         loop
  generate --task restyle --clip a.mp4 --noise 0.6 PROMPT      restyle
  generate --keyframe slot=0,image=a.png --keyframe slot=4,image=b.png,noise=0.3,focus=0.5:0.2
"""
BENCHES = ("quality", "tasks", "timeline", "speed", "start", "queue", "memory")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
VIDEOS = (".mp4", ".mov", ".m4v", ".webm", ".mkv")
MAX_PROMPT_BYTES = 100_000
MAX_MESSAGE = 1000


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
    _add_sweep(commands)
    cli_jobs.add_parser(commands)
    cli_export.add_parser(commands)

    recipe = commands.add_parser("recipe", help="print the recipe inside a video, as JSON", allow_abbrev=False)
    recipe.add_argument("video", type=to_path)
    recipe.set_defaults(run=_recipe)

    cli_models.add_parser(commands)

    commands.add_parser("train", help="train a model: train mini --help")
    bench = commands.add_parser("bench", help=f"measure: {', '.join(BENCHES)}", allow_abbrev=False)
    bench.add_argument("name", choices=BENCHES)
    bench.set_defaults(run=lambda _: OK)
    return parser


def _add_generate(commands: Any) -> None:
    make = commands.add_parser(
        "generate",
        help="make a video",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    make.set_defaults(run=_generate)
    make.add_argument("--out", type=to_path, help="the video to write (.mp4), or the folder of a batch")
    make.add_argument(
        "--queue", action="store_true", help="leave it to the running program, which keeps the video in its library"
    )
    make.add_argument("--recipe", type=to_path, help="make the video of a recipe again: a .json file or a video")
    make.add_argument(
        "--batch", type=to_path, metavar="FOLDER", help="every picture with a .txt file of the same name is a job"
    )
    add_recipe_arguments(make)


def _add_sweep(commands: Any) -> None:
    make = commands.add_parser(
        "sweep", help="vary one or two choices: a video of each, side by side", allow_abbrev=False
    )
    make.set_defaults(run=_sweep)
    make.add_argument("--out", required=True, type=to_path, help="the grid video to write (.mp4)")
    make.add_argument("--recipe", type=to_path, help="what to vary: a .json file or a video; a sweep is made again")
    make.add_argument(
        "--axis",
        action="append",
        type=parse_axis,
        metavar="KIND=VALUE,VALUE",
        help="noise:0=0,0.2,0.4 (of a keyframe, counted from 0), seed=1,2,3, steps=10,20, guidance=1,3 or "
        "preset=exact-first-frame,soft-arrival; given twice it makes rows and columns",
    )
    add_recipe_arguments(make)


# --- generate --------------------------------------------------------------------------------------------------------


def _generate(options: argparse.Namespace) -> int:
    if options.queue:
        refuse(options, "--queue", ("out", "batch"), "keeps one video in the library")
    elif options.out is None:
        raise RecipeError("Say which video to write: --out FILE.mp4, or --queue for the library.")
    if options.batch is not None:
        return _batch(options)
    if options.recipe is not None:
        refuse(options, "--recipe", RECIPE_ARGUMENTS, "already says it")
        recipe = read_recipe(options.recipe)
    else:
        recipe = recipe_from(options)
    from pusa_app.studio import check_recipe

    if options.queue:
        check_recipe(recipe)
        _warn(recipe)
        return cli_jobs.submit(recipe)
    out = checked_out(options.out, recipe)
    check_recipe(recipe)
    _warn(recipe)
    _render(recipe, out)
    print(options.out)
    return OK


def _warn(recipe: Recipe) -> None:
    """What will probably not look well is said before the work begins."""
    from pusa_app.media import count_frames
    from pusa_app.timeline import advise

    for warning in advise(recipe.task, recipe.timeline, recipe.options, count_frames).warnings:
        _complain(f"Note: {warning}", OK)


def read_recipe(path: Path) -> Recipe:
    """The recipe in a JSON file or inside a video, whatever the file is called; raises RecipeError or MediaError."""
    from pusa_app.timeline import Sweep

    work = _read_work(path)
    if isinstance(work, Sweep):
        raise RecipeError(f"{path.name} is a sweep and not one video: make it again with `sweep --recipe`.")
    return work


def _read_work(path: Path) -> Recipe | Sweep:
    """The recipe or the sweep in a file."""
    from pusa_app.timeline import Recipe, Sweep, is_sweep

    if not path.is_file():
        raise RecipeError(f"There is no file {path}.")
    if path.suffix.lower() not in VIDEOS and not _holds_video(path):
        return Sweep.from_file(path) or Recipe.from_file(path)
    from pusa_app.media import read_recipe_text

    text = read_recipe_text(path)
    if is_sweep(text):
        return _beside(Sweep.from_json(text), path.parent)
    return _beside(Recipe.from_json(text), path.parent)


def _beside(work: Work, folder: Path) -> Work:
    """Finds sources that are named as seen from the video's folder; older videos name them as they were typed."""
    real = os.path.realpath(folder)  # whoever shortens a path by its names must not be led out of a link

    def found(path: str) -> str:
        # os.path: a name that no file system takes is just not there.
        beside = os.path.join(real, path)
        return beside if os.path.exists(beside) else path

    return work.with_paths(found)


def _holds_video(path: Path) -> bool:
    """MP4 and its relatives say so in their first box, Matroska and WebM in their first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False  # whoever reads it next says why
    return head[4:8] == b"ftyp" or head[:4] == b"\x1aE\xdf\xa3"


_loaded: dict[str, Any] = {}


def _render(recipe: Recipe, out: Path) -> None:
    """Render to `out`, in this process; the model stays loaded for the next one of a batch."""
    with _rendering(recipe, out) as (backbone, show):
        from pusa_app.render import render
        from pusa_app.worker import seen_from

        render(recipe, backbone, show, out=out, embed=seen_from)


@contextlib.contextmanager
def _rendering(work: Recipe | Sweep, out: Path) -> Iterator[tuple[Any, ProgressLine]]:
    """The loaded model, and where progress goes, while something is written to `out`."""
    from pusa_app.timeline import Sweep
    from pusa_app.worker import load_backbone, planned

    model = work.recipe.model if isinstance(work, Sweep) else work.model
    show = ProgressLine(sys.stderr)
    with writable(out.parent), contextlib.closing(show):
        if model not in _loaded:
            show(Progress("loading"))
            _loaded.clear()
            if (run := planned(model, work)) is None:
                _loaded[model] = load_backbone(model)
            else:
                run.encode_texts()
                _loaded[model] = load_backbone(model, plan=run.plan)
        yield _loaded[model], show


class ProgressLine:
    """Progress on standard error: one line that rewrites itself on a terminal, plain lines in a log."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._live, self._pace, self._last = stream, stream.isatty(), Pace(), ""

    def __call__(self, event: Event) -> None:
        # In a log, a model that cannot be loaded is one line and not two.
        if not isinstance(event, Progress) or (event.phase == "loading" and not self._live):
            return
        self._pace.see(event)
        text = event.phase if event.parts == 1 else f"part {event.part + 1}/{event.parts}  {event.phase}"
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
    refuse(options, "--batch", NOT_OF_A_BATCH, "makes image-to-video of the pictures and texts in its folder")
    if options.recipe is not None:
        raise RecipeError("Give --recipe or --batch, not both.")
    if options.task not in (None, "image-to-video"):
        raise RecipeError("A batch of pictures is image-to-video: leave out --task.")
    if options.out.exists() and not options.out.is_dir():
        raise RecipeError(f"The output of a batch is a folder, and {options.out} is a file.")
    check_folder(options.out.absolute())
    from pusa_app.studio import card_of, check_recipe

    card = card_of(options.model or "mini")
    check_recipe(numbers(options, card, "image-to-video"), sources=False)
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
            pair = {"task": "image-to-video", "image": str(picture), "prompt": _prompt_beside(picture)}
            recipe = recipe_from(argparse.Namespace(**vars(options) | pair))
            check_recipe(recipe)
            out = options.out / f"{picture.stem}.mp4"
            _render(recipe, checked_out(out))
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


# --- sweep -----------------------------------------------------------------------------------------------------------


def _sweep(options: argparse.Namespace) -> int:
    sweep = _sweep_from(options)
    out = checked_out(options.out, sweep)
    from pusa_app.studio import check_sweep
    from pusa_app.sweep import check_out, render_sweep, state_of
    from pusa_app.worker import seen_from

    check_out(sweep, out)
    check_sweep(sweep)
    with _rendering(sweep, out) as (backbone, show):
        result = render_sweep(sweep, backbone, show, out=out, embed=seen_from, state_path=state_of(out))
    failed = [cell for cell in result.cells if cell.path is None]
    for cell in failed:
        _complain(f"{', '.join(cell.labels)}: {cell.problem}", BROKEN)
    print(options.out)
    return BROKEN if failed else OK


def _sweep_from(options: argparse.Namespace) -> Sweep:
    from pusa_app.timeline import Sweep, new_sweep

    if options.recipe is None:
        recipe = recipe_from(options)
    else:
        refuse(options, "--recipe", RECIPE_ARGUMENTS, "already says it")
        work = _read_work(options.recipe)
        if isinstance(work, Sweep):
            refuse(options, "the sweep", ("axis",), "already says it")
            return work
        recipe = work
    if not options.axis:
        raise RecipeError("Say what to vary: --axis seed=1,2,3.")
    if len(options.axis) > 2:
        raise RecipeError("A sweep has one or two axes: leave out an --axis.")
    return new_sweep(recipe, *(_with_presets(axis, recipe) for axis in options.axis))


def parse_axis(text: str) -> dict[str, Any]:
    """ "noise:0=0,0.2" -> the fields of an Axis, with names as the values of a preset's; raises ArgumentTypeError."""
    name, _, values = text.partition("=")
    kind, colon, index = name.partition(":")
    readers: dict[str, Callable[[str], Any]] = {
        "noise": number(0, 1),
        "seed": integer(0, 2**63 - 1),
        "steps": integer(1, 1000),
        "guidance": number(0, 100),
        "preset": str.strip,
    }
    if not values or kind not in readers or (colon and kind != "noise"):
        raise argparse.ArgumentTypeError(f"an axis looks like noise:0=0,0.2,0.4 or seed=1,2,3, not {shown(text)}")
    axis = {"kind": kind, "values": [readers[kind](value) for value in values.split(",")]}
    return axis | ({"keyframe": integer(0, 999)(index)} if colon else {})


def _with_presets(axis: dict[str, Any], recipe: Recipe) -> Any:
    """An axis, with presets in the place of their names."""
    if axis["kind"] != "preset":
        return axis
    from pusa_app.presets import find_preset, preset_axis
    from pusa_app.settings import LOCAL, Settings
    from pusa_app.studio import card_of

    folder = Settings().presets_dir(LOCAL)
    return preset_axis(recipe, card_of(recipe.model), [find_preset(name, folder) for name in axis["values"]])


# --- the other commands ----------------------------------------------------------------------------------------------


def _recipe(options: argparse.Namespace) -> int:
    print(_read_work(options.video).to_json())
    return OK
