"""`python -m pusa_app train mini`: make the built-in model from nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pusa_app.cli import Parser, integer, number
from pusa_app.errors import UserError


def main(argv: Sequence[str]) -> int:
    """Returns the exit code: 0 finished, 3 stopped by --stop-after with more to do."""
    parser = Parser(prog="python -m pusa_app train", description="Train a model of this project.")
    models = parser.add_subparsers(dest="model", required=True)
    mini = models.add_parser("mini", help="the built-in model, from nothing: VAE, data, transformer and text encoder")
    mini.add_argument("--run", type=Path, default=Path("runs/mini"), help="checkpoints, data and curves; resumable")
    mini.add_argument("--out", type=Path, default=Path("runs/mini/model"), help="the model folder that is written")
    mini.add_argument(
        "--stop-after", type=number(0.01, 1e6), metavar="MINUTES", help="stop here; the same command goes on later"
    )
    mini.add_argument("--threads", type=integer(1, 1024), help="CPU threads (default: torch's choice)")
    mini.add_argument("--export-only", action="store_true", help="write the model folder from the last checkpoint")
    mini.add_argument("--smoke", action="store_true", help="go through every stage in a minute; the result is noise")
    args = parser.parse_args(argv)

    import torch

    from pusa_app.training.mini import MiniRecipe, export_now, train

    if args.threads:
        torch.set_num_threads(args.threads)
    recipe = MiniRecipe.smoke() if args.smoke else MiniRecipe()
    finished = True
    if args.export_only:
        if not (args.run / "transformer.pt").exists():
            raise UserError(f"There is no checkpoint in {args.run} yet: train first.")
        export_now(recipe, args.run, args.out)
    else:
        finished = train(recipe, args.run, args.out, args.stop_after and args.stop_after * 60)
    print(args.out)
    return 0 if finished else 3
