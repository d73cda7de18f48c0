"""What a bench writes beside what it prints: checked before it measures, since that takes minutes to an hour."""

from __future__ import annotations

from pathlib import Path

from pusa_app.errors import UserError


def check_outputs(json: Path | None, pictures: Path | None = None) -> None:
    """Raises UserError when the figures cannot go into the file `json`, or contact sheets into the folder `pictures`,
    which is made."""
    if json and not json.absolute().parent.is_dir():
        raise UserError(f"The figures cannot be written: there is no folder {json.absolute().parent}.")
    if json and json.is_dir():
        raise UserError(f"The figures cannot be written: {json} is a folder. Name a file in it.")
    if pictures:
        try:
            pictures.mkdir(parents=True, exist_ok=True)
        except OSError:
            raise UserError(
                f"Contact sheets cannot be written: {pictures} is not a folder, and cannot be made one. Name another."
            ) from None
