"""The page. It talks to the studio and never to a model: torch is not loaded in this process."""

from pusa_app.ui.blocks import build
from pusa_app.ui.lasting import lasting, own_cache
from pusa_app.ui.theme import look

__all__ = ["build", "lasting", "look", "own_cache"]
