"""How the page looks: one neutral scale, one accent, no gradients, figures of one width."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gradio.themes import Base
from gradio.themes.utils import colors, sizes
from gradio.themes.utils.fonts import LocalFont

SHEETS = ("style", "queue", "library", "models", "guide", "loras")
STYLES = [Path(__file__).with_name(f"{name}.css") for name in SHEETS]

TEAL = colors.Color(
    name="pusa-teal",
    c50="#edf7f6",
    c100="#d3ecea",
    c200="#a9d9d5",
    c300="#76bfba",
    c400="#45a19c",
    c500="#24847f",
    c600="#126a67",
    c700="#105553",
    c800="#114443",
    c900="#113938",
    c950="#052221",
)
STONE = colors.Color(
    name="pusa-stone",
    c50="#f7f7f5",
    c100="#efefec",
    c200="#e2e2dd",
    c300="#cbcbc4",
    c400="#9b9c96",
    c500="#6f716c",
    c600="#555752",
    c700="#3a3d3b",
    c800="#262928",
    c900="#1a1d1d",
    c950="#111414",
)

# Gradio's variables; two values are (in light, in dark).
Look = dict[str, str | tuple[str, str]]

PAGE: Look = {
    "body_background_fill": ("*neutral_50", "*neutral_950"),
    "body_text_color": ("*neutral_900", "*neutral_100"),
    "body_text_color_subdued": ("*neutral_500", "*neutral_400"),
    "background_fill_primary": ("white", "*neutral_900"),
    "background_fill_secondary": ("*neutral_50", "*neutral_950"),
    "border_color_primary": ("*neutral_200", "*neutral_800"),
    "color_accent": "*primary_600",
    "color_accent_soft": ("*primary_50", "*primary_900"),
    "link_text_color": ("*primary_600", "*primary_300"),
    "panel_background_fill": ("white", "*neutral_900"),
    "loader_color": "*primary_600",
}
BLOCKS: Look = {
    "block_background_fill": ("white", "*neutral_900"),
    "block_border_width": "1px",
    "block_border_color": ("*neutral_200", "*neutral_800"),
    "block_shadow": "none",
    "block_radius": "10px",
    "block_info_text_size": "*text_sm",
    "block_info_text_color": ("*neutral_500", "*neutral_400"),
    "block_title_text_weight": "600",
    "block_title_text_color": ("*neutral_900", "*neutral_100"),
    "block_label_text_weight": "600",
    "block_label_text_color": ("*neutral_700", "*neutral_200"),
    "block_label_background_fill": ("white", "*neutral_900"),
}
FIELDS: Look = {
    "input_background_fill": ("*neutral_50", "*neutral_950"),
    "input_border_color": ("*neutral_200", "*neutral_700"),
    "input_border_color_focus": ("*primary_500", "*primary_400"),
    "input_border_width": "1px",
    "input_shadow": "none",
    "input_shadow_focus": ("0 0 0 3px *primary_100", "0 0 0 3px *primary_900"),
    "input_placeholder_color": ("*neutral_400", "*neutral_500"),
    "slider_color": ("*primary_600", "*primary_400"),
    "checkbox_background_color_selected": ("*primary_600", "*primary_500"),
    "checkbox_border_color_selected": ("*primary_600", "*primary_500"),
    "checkbox_label_background_fill": ("transparent", "transparent"),
    "checkbox_label_background_fill_hover": ("transparent", "transparent"),
    "checkbox_label_border_width": "0px",
    "checkbox_label_shadow": "none",
    "checkbox_label_padding": "4px 0",
}
BUTTONS: Look = {
    "button_large_radius": "8px",
    "button_medium_radius": "8px",
    "button_small_radius": "8px",
    "button_border_width": "1px",
    "button_transform_hover": "none",
    "button_transform_active": "none",
    "button_primary_background_fill": ("*primary_600", "*primary_400"),
    "button_primary_background_fill_hover": ("*primary_700", "*primary_300"),
    "button_primary_border_color": ("*primary_600", "*primary_400"),
    "button_primary_text_color": ("white", "*neutral_950"),
    "button_primary_shadow": "none",
    "button_primary_shadow_hover": "none",
    "button_secondary_background_fill": ("white", "*neutral_900"),
    "button_secondary_background_fill_hover": ("*neutral_100", "*neutral_800"),
    "button_secondary_border_color": ("*neutral_300", "*neutral_700"),
    "button_secondary_text_color": ("*neutral_800", "*neutral_100"),
    "button_secondary_shadow": "none",
    "button_secondary_shadow_hover": "none",
}
ERRORS: Look = {
    "error_background_fill": ("#fdf3f1", "#2a1815"),
    "error_border_color": ("#e3b7ae", "#6b3329"),
    "error_text_color": ("#9a2f1c", "#f0a394"),
    "error_icon_color": ("#b8432d", "#f0a394"),
}


class Calm(Base):
    """Flat surfaces with thin borders; the accent marks what can be pressed and what is noise."""

    def __init__(self) -> None:
        super().__init__(
            primary_hue=TEAL,
            secondary_hue=TEAL,
            neutral_hue=STONE,
            spacing_size=sizes.spacing_md,
            radius_size=sizes.radius_md,
            text_size=sizes.text_md,
            # The SemiBold that comes with Gradio holds a few letters only; 600 falls to Bold.
            font=(LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"),
            font_mono=(LocalFont("IBM Plex Mono"), "ui-monospace", "monospace"),
        )
        self.name = "calm"
        # In one call: each sets some of what it does not name back to Gradio's own.
        self.set(**dict(_variables(PAGE | BLOCKS | FIELDS | BUTTONS | ERRORS)))


def _variables(part: Look) -> Iterator[tuple[str, str]]:
    for name, value in part.items():
        if isinstance(value, str):
            yield name, value
        else:
            yield from zip((name, f"{name}_dark"), value, strict=True)


def look() -> dict[str, Any]:
    """The arguments of `launch` that dress the page."""
    return {"theme": Calm(), "css_paths": STYLES}
