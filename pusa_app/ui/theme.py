"""How the page looks: one neutral scale, one accent, no gradients, figures of one width."""

from __future__ import annotations

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
        self.set(
            body_background_fill="*neutral_50",
            body_background_fill_dark="*neutral_950",
            body_text_color="*neutral_900",
            body_text_color_dark="*neutral_100",
            body_text_color_subdued="*neutral_500",
            body_text_color_subdued_dark="*neutral_400",
            background_fill_primary="white",
            background_fill_primary_dark="*neutral_900",
            background_fill_secondary="*neutral_50",
            background_fill_secondary_dark="*neutral_950",
            border_color_primary="*neutral_200",
            border_color_primary_dark="*neutral_800",
            color_accent="*primary_600",
            color_accent_soft="*primary_50",
            color_accent_soft_dark="*primary_900",
            link_text_color="*primary_600",
            link_text_color_dark="*primary_300",
            block_background_fill="white",
            block_background_fill_dark="*neutral_900",
            block_border_width="1px",
            block_border_color="*neutral_200",
            block_border_color_dark="*neutral_800",
            block_shadow="none",
            block_radius="10px",
            block_info_text_size="*text_sm",
            block_info_text_color="*neutral_500",
            block_info_text_color_dark="*neutral_400",
            block_title_text_weight="600",
            block_title_text_color="*neutral_900",
            block_title_text_color_dark="*neutral_100",
            block_label_text_weight="600",
            block_label_text_color="*neutral_700",
            block_label_text_color_dark="*neutral_200",
            block_label_background_fill="white",
            block_label_background_fill_dark="*neutral_900",
            input_background_fill="*neutral_50",
            input_background_fill_dark="*neutral_950",
            input_border_color="*neutral_200",
            input_border_color_dark="*neutral_700",
            input_border_color_focus="*primary_500",
            input_border_color_focus_dark="*primary_400",
            input_border_width="1px",
            input_shadow="none",
            input_shadow_focus="0 0 0 3px *primary_100",
            input_shadow_focus_dark="0 0 0 3px *primary_900",
            input_placeholder_color="*neutral_400",
            input_placeholder_color_dark="*neutral_500",
            slider_color="*primary_600",
            slider_color_dark="*primary_400",
            checkbox_background_color_selected="*primary_600",
            checkbox_background_color_selected_dark="*primary_500",
            checkbox_border_color_selected="*primary_600",
            checkbox_border_color_selected_dark="*primary_500",
            checkbox_label_background_fill="transparent",
            checkbox_label_background_fill_dark="transparent",
            checkbox_label_background_fill_hover="transparent",
            checkbox_label_background_fill_hover_dark="transparent",
            checkbox_label_border_width="0px",
            checkbox_label_shadow="none",
            checkbox_label_padding="4px 0",
            button_large_radius="8px",
            button_medium_radius="8px",
            button_small_radius="8px",
            button_border_width="1px",
            button_transform_hover="none",
            button_transform_active="none",
            button_primary_background_fill="*primary_600",
            button_primary_background_fill_dark="*primary_400",
            button_primary_background_fill_hover="*primary_700",
            button_primary_background_fill_hover_dark="*primary_300",
            button_primary_border_color="*primary_600",
            button_primary_border_color_dark="*primary_400",
            button_primary_text_color="white",
            button_primary_text_color_dark="*neutral_950",
            button_primary_shadow="none",
            button_primary_shadow_hover="none",
            button_secondary_background_fill="white",
            button_secondary_background_fill_dark="*neutral_900",
            button_secondary_background_fill_hover="*neutral_100",
            button_secondary_background_fill_hover_dark="*neutral_800",
            button_secondary_border_color="*neutral_300",
            button_secondary_border_color_dark="*neutral_700",
            button_secondary_text_color="*neutral_800",
            button_secondary_text_color_dark="*neutral_100",
            button_secondary_shadow="none",
            button_secondary_shadow_hover="none",
            panel_background_fill="white",
            panel_background_fill_dark="*neutral_900",
            loader_color="*primary_600",
            error_background_fill="#fdf3f1",
            error_background_fill_dark="#2a1815",
            error_border_color="#e3b7ae",
            error_border_color_dark="#6b3329",
            error_text_color="#9a2f1c",
            error_text_color_dark="#f0a394",
            error_icon_color="#b8432d",
            error_icon_color_dark="#f0a394",
        )


def look() -> dict[str, Any]:
    """The arguments of `launch` that dress the page."""
    return {"theme": Calm(), "css_paths": STYLES}
