"""`models`: what there is and what is here, downloads, a user's own files, deleting, conversion."""

from __future__ import annotations

import argparse
import getpass
import os
import shlex
import sys
import time
from typing import TYPE_CHECKING, Any

from pusa_app import cli_plan
from pusa_app.arguments import to_path
from pusa_app.errors import ModelError, UserError
from pusa_app.pace import clock

if TYPE_CHECKING:
    from pusa_app.models.weights import State, Step

OK = 0
HUB = "OWNER/REPO[:FILE][@REVISION]"
REPORT_SECONDS = 2.0  # between two lines where the output is not a terminal
HERE = {"here": "ready", "partial": "partial", "missing": "not here"}


def add_parser(commands: Any) -> None:
    """Add the command to a parser's commands."""
    models = commands.add_parser(
        "models", help="the models: list, download, add your own, remove, convert", allow_abbrev=False
    )
    actions = models.add_subparsers(title="actions", metavar="ACTION", required=True)

    listing = actions.add_parser("list", help="all models: what is here, sizes, licences", allow_abbrev=False)
    listing.add_argument("--ready", action="store_true", help="only those that can be used now")
    listing.set_defaults(run=_list)

    download = actions.add_parser(
        "download", help="get a model or a LoRA, or go on with it; also LoRAs of huggingface.co", allow_abbrev=False
    )
    download.add_argument("id", metavar="ID", help=f"of the catalogue, or a LoRA of the hub as {HUB}, or its address")
    download.add_argument(
        "--token",
        nargs="?",
        const="",
        metavar="TOKEN",
        help="access token of huggingface.co, for gated models; without a value it is asked for (also: HF_TOKEN)",
    )
    download.add_argument("--check", action="store_true", help="hash what is here again; what is damaged comes anew")
    download.set_defaults(run=_download)

    remove = actions.add_parser("remove", help="delete a model; says what that frees", allow_abbrev=False)
    remove.add_argument("id", metavar="ID", help="as `models list` shows it")
    remove.add_argument("--yes", action="store_true", help="do it; without, it is only told")
    remove.set_defaults(run=_remove)

    add = actions.add_parser("add", help="use a folder or a file that you have, where it is", allow_abbrev=False)
    add.add_argument("path", type=to_path)
    add.add_argument("--as", dest="model_id", metavar="ID", help="which model it is, or what to call it")
    add.set_defaults(run=_add)

    convert = actions.add_parser(
        "convert",
        help="a native weights file to a diffusers folder, or a pickled LoRA to a .safetensors file",
        allow_abbrev=False,
    )
    convert.add_argument("native", type=to_path, metavar="NATIVE_FILE")
    convert.add_argument("out", type=to_path, metavar="OUT")
    convert.set_defaults(run=_convert)

    cli_plan.add_parser(actions)


def _list(options: argparse.Namespace) -> int:
    from pusa_app.models.entry import entries
    from pusa_app.models.home import Home
    from pusa_app.models.weights import states
    from pusa_app.studio import cards, default_card

    default_card()  # says what to do when there is no model at all
    home = Home.here()
    entries(home.data_dir, strict=True)
    found = states(home)
    known = {state.id for state in found}
    for card in cards():
        if card.id not in known:  # the model of the tests
            print(f"{card.id:<18} {'ready':<9} {'':>12}  {card.title}. {card.summary}")
    for state in found:
        if not options.ready or state.state == "here":
            print(_line(state))
    return OK


def _line(state: State) -> str:
    from pusa_app.models.catalogue import runs

    entry = state.entry
    if entry is None:
        return f"{state.id:<18} {HERE[state.state]:<9} {'your folder':>12}  {state.folder}"
    cannot = entry.spec is not None and not runs(entry.spec.family)
    labels = ", ".join(filter(None, (entry.label, "this version cannot run it yet" if cannot else "")))
    label = f" ({labels})" if labels else ""
    words = f"{entry.title}{label}. {entry.summary} Licence: {entry.licence}"
    link = f", {entry.licence_link}" if entry.licence_link else ""
    return f"{entry.hub or state.id:<18} {HERE[state.state]:<9} {_size(state):>12}  {words}{link}"


def _size(state: State) -> str:
    from pusa_app.models.weights import size_words

    if state.place:
        return {"built-in": "built in", "own": "your folder"}[state.place]
    if state.size is None:
        return "size unknown" if not state.have else size_words(state.have)
    whole = ("about " if state.about else "") + size_words(state.size)
    return f"{100 * state.have // max(1, state.size)}% of {whole}" if state.state == "partial" else whole


def _download(options: argparse.Namespace) -> int:
    from pusa_app.models.entry import entries
    from pusa_app.models.home import Home
    from pusa_app.models.hub_lora import looks_like
    from pusa_app.models.weights import ask, fetch

    home = Home.here()
    entry = entries(home.data_dir, strict=True).get(options.id)
    if entry is None and not looks_like(options.id):
        raise ModelError(
            f"There is no model {options.id[:100]!r}: `models list` shows the ones that there are; a LoRA of the hub "
            "is OWNER/REPO."
        )
    token = _token(options.token)
    entry = entry or ask(home, options.id, token)
    reporter = _Reporter()
    try:
        folder = fetch(home, entry, token=token, check=options.check, tell=reporter.tell)
    except KeyboardInterrupt:
        reporter.end()
        name = shlex.quote(entry.hub or entry.id)
        print(f"What came is kept: `models download {name}` goes on from here.", file=sys.stderr)
        raise
    finally:
        reporter.end()
    if entry.hub:
        found = entries(home.data_dir).get(entry.id, entry)
        print(f"{found.summary} Use it with `--lora {shlex.quote(f'{entry.hub}=1')}`.", file=sys.stderr)
    print(folder)
    return OK


def _token(given: str | None) -> str | None:
    if given != "":
        return given
    if not sys.stdin.isatty():
        raise UserError("There is no terminal to ask for the token: give it after --token, or set HF_TOKEN.")
    return getpass.getpass("Access token (it is not shown): ").strip() or None


class _Reporter:
    """Progress on standard error: one line that changes in a terminal, else a line now and then."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._last, self._phase, self._open = 0.0, "", False

    def tell(self, step: Step) -> None:
        words = _words(step)
        now = time.monotonic()
        if self._live:
            width = max(20, _columns() - 1)
            print(f"\r{words[:width]:<{width}}", end="", file=sys.stderr, flush=True)
            self._open = True
        elif step.phase != self._phase or now - self._last >= REPORT_SECONDS:
            self._last, self._phase = now, step.phase
            print(words, file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._open:
            print(file=sys.stderr)
            self._open = False


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        return 80


def _words(step: Step) -> str:
    from pusa_app.models.weights import size_words

    if step.phase == "checking":
        return "Checking what is here"
    if step.phase == "looking":
        return "Asking the hub"
    if step.phase == "converting":
        return "Putting the model together"
    if step.phase == "done":
        return "Done"
    percent = 100 * step.done // max(1, step.total)
    speed = f", {size_words(step.speed)}/s" if step.speed else ""
    left = f", {clock(step.left)} left" if step.left is not None and step.done < step.total else ""
    return f"{percent}% of {size_words(step.total)}{speed}{left}"


def _remove(options: argparse.Namespace) -> int:
    from pusa_app.models.home import Home
    from pusa_app.models.weights import listed_of, removal, remove, size_words

    home = Home.here()
    found = listed_of(home, options.id)
    if len(found) > 1:
        names = ", ".join(entry.hub for entry in found)
        raise ModelError(f"{len(found)} LoRAs of {options.id} are on the list: {names}. Say which.")
    model_id = found[0].id if found else options.id
    plan = removal(home, model_id)
    if plan.own is not None:
        words = f"{plan.title} is your folder {plan.own}: it is forgotten, and stays as it is."
    else:
        shared = f" What {' and '.join(plan.kept)} need too is kept." if plan.kept else ""
        words = f"Removing {plan.title} frees {size_words(plan.frees)}.{shared}"
    if not options.yes:
        raise UserError(f"{words} Do it with --yes.")
    remove(home, model_id)
    print(words, file=sys.stderr)
    return OK


def _add(options: argparse.Namespace) -> int:
    from pusa_app.models.entry import entries
    from pusa_app.models.home import Home
    from pusa_app.models.weights import add, state_of

    home = Home.here()
    model_id = add(home, options.path, options.model_id)
    entry = entries(home.data_dir).get(model_id)
    if entry is not None and state_of(home, entry).state != "here":
        print(f"It is used for {entry.title}; get the rest with `models download {model_id}`.", file=sys.stderr)
    print(model_id)
    return OK


def _convert(options: argparse.Namespace) -> int:
    if not options.native.is_file():
        raise UserError(f"There is no file {options.native}.")
    from pusa_app.models import convert_native
    from pusa_app.models.native import PICKLES

    if options.native.suffix.lower() in PICKLES and options.out.suffix == ".safetensors":
        from pusa_app.models.unpickle import convert_pickle

        print(convert_pickle(options.native, options.out))
        return OK
    print(convert_native(options.native, options.out))
    return OK
