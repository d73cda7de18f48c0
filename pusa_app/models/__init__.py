"""Model cards, the catalogue, conversion and loading. Importing this never imports torch."""

from pusa_app.models.card import BackboneSpec, ModelCard, version_of
from pusa_app.models.catalogue import get_card, list_cards, load_backbone
from pusa_app.models.convert import convert_native

__all__ = ["BackboneSpec", "ModelCard", "convert_native", "get_card", "list_cards", "load_backbone", "version_of"]
