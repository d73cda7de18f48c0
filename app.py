"""Start the page of Pusa Studio: python app.py

Imports wait until they are needed: the worker process imports this file too, and has no use for a web server.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pusa_app.zerogpu import Making

LOCAL = ("127.0.0.1", "localhost", "::1")
# Not every system has them all.
ENDS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def main() -> int:
    """Parse the arguments, start, and serve until Ctrl-C; returns the exit code."""
    parser = _parser()
    options = parser.parse_args()
    _end_as_by_ctrl_c()
    in_space = bool(os.environ.get("SPACE_ID"))
    host = options.host or ("0.0.0.0" if in_space else "127.0.0.1")
    auth = _auth(parser, options.auth or os.environ.get("PUSA_AUTH"))
    if (options.share or host not in LOCAL) and not (auth or options.no_auth or in_space):
        parser.error("others could reach this page: give --auth USER:PASSWORD, or --no-auth if that is what you want")

    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    from pusa_app import zerogpu

    borrowing = zerogpu.available()
    if borrowing:
        import spaces  # noqa: F401  # before anything that might start CUDA

    from pusa_app.control import Control
    from pusa_app.errors import UserError
    from pusa_app.settings import SHARED_BYTES, SHARED_QUEUE, Settings, default_data_dir
    from pusa_app.studio import Studio
    from pusa_app.ui import build, lasting, look, own_cache

    data_dir = options.data_dir.expanduser().absolute() if options.data_dir else default_data_dir()
    os.environ["PUSA_DATA_DIR"] = str(data_dir)  # where the worker processes look for models
    shared = options.share or host not in LOCAL or auth is not None or options.shared
    settings = Settings(
        data_dir=data_dir,
        host=host,
        port=options.port,
        workers=max(options.workers, zerogpu.AT_ONCE) if borrowing else options.workers,
        shared=shared,
        **({"max_queue_per_owner": SHARED_QUEUE, "quota_bytes": SHARED_BYTES} if shared else {}),
    )
    studio = control = None
    try:
        studio = Studio(settings, making=_borrowed(settings.log_file) if borrowing else None)
        control = Control(studio)
        own_cache(settings)
        page = build(studio)
        _, local, public = page.launch(
            quiet=True,
            prevent_thread_lock=True,
            server_name=host,
            server_port=settings.port,
            share=options.share,
            auth=auth,
            max_file_size=settings.max_upload_bytes,
            allowed_paths=[],
            blocked_paths=[str(settings.data_dir)],
            strict_cors=True,
            show_error=False,
            ssr_mode=False,
            run_history=False,
            footer_links=["api"],
            app_kwargs={"lifespan": lasting(page, settings)},
            # Gradio would fetch the page to see whether it is there, and give up after three seconds: a machine at its
            # limits may take longer.
            _frontend=False,
            **look(),
        )
        print(f"Pusa Studio is at {public or local} (Ctrl-C ends it). Data: {settings.data_dir}", flush=True)
        page.block_thread()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError:  # Gradio says so when it finds no port
        print(f"Port {settings.port} is taken: choose another one with --port.", file=sys.stderr)
        return 2
    finally:
        _hear_no_signals()  # closing takes seconds at most: once is enough
        for part in (control, studio):
            if part is not None:
                part.close()
    return 0


def _borrowed(log_file: Path) -> Making:
    """What makes videos on ZeroGPU. The platform wants it, and the model, to be here before the page is."""
    from pusa_app.studio import default_card
    from pusa_app.zerogpu import Making

    making = Making(log_file)
    making.warm(default_card().id)
    return making


def _end_as_by_ctrl_c() -> None:
    """Whoever asks the program to end, or closes its terminal, gets what Ctrl-C does: checkpoints, no worker left."""
    for number in ENDS:
        if number != signal.SIGINT and signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, signal.default_int_handler)


def _hear_no_signals() -> None:
    for number in ENDS:
        signal.signal(number, signal.SIG_IGN)


def _parser() -> argparse.ArgumentParser:
    # Without its usage the parser tells a mistake in one line.
    parser = argparse.ArgumentParser(
        prog="app.py", usage=argparse.SUPPRESS, description="The page of Pusa Studio.", allow_abbrev=False
    )
    parser.add_argument("--host", help="address to listen on; 127.0.0.1, this machine only, by default")
    parser.add_argument("--port", type=int, default=os.environ.get("GRADIO_SERVER_PORT", "7860"))
    parser.add_argument("--share", action="store_true", help="also make a public link (needs a login)")
    parser.add_argument("--data-dir", type=Path, help="where videos and logs are kept (also: PUSA_DATA_DIR)")
    parser.add_argument(
        "--workers", type=int, default=1, choices=range(1, 17), metavar="N", help="videos made at once, one on each GPU"
    )
    parser.add_argument(
        "--shared", action="store_true", help="behind a proxy: every visitor has a queue and a library of his own"
    )
    login = parser.add_mutually_exclusive_group()
    login.add_argument("--auth", metavar="USER:PASSWORD", help="ask visitors for this login (also: PUSA_AUTH)")
    login.add_argument("--no-auth", action="store_true", help="let everybody in who can reach the page")
    return parser


def _auth(parser: argparse.ArgumentParser, text: str | None) -> tuple[str, str] | None:
    if not text:
        return None
    user, colon, password = text.partition(":")
    if not (user and colon and password):
        parser.error("a login looks like USER:PASSWORD")
    return user, password


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # before the page was there
        sys.exit(130)
