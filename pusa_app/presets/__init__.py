"""Presets: choices that are known to work, each with an example of its own; built in, or saved by a user.

The built-in ones are lists in the *.json files of the folder `presets`, beside the files of their examples.
"""

from pusa_app.presets.own import Own, delete_preset, find_preset, own_presets, save_preset
from pusa_app.presets.preset import (
    FOLDER,
    Filled,
    FromEnd,
    Noises,
    Placed,
    Preset,
    RunSettings,
    Share,
    guidance_in,
    name_of,
    preset_axis,
    presets,
)
from pusa_app.presets.roles import given_of
from pusa_app.presets.template import preset_from

__all__ = [
    "FOLDER",
    "Filled",
    "FromEnd",
    "Noises",
    "Own",
    "Placed",
    "Preset",
    "RunSettings",
    "Share",
    "delete_preset",
    "find_preset",
    "given_of",
    "guidance_in",
    "name_of",
    "own_presets",
    "preset_axis",
    "preset_from",
    "presets",
    "save_preset",
]
