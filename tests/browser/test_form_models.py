"""What the form offers for a model: the tasks that it was trained for, its own numbers, and LoRAs.

The model is a tiny one in a folder of its own, whose card says that it does two tasks only.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.browser.conftest import Server, serve
from tests.browser.pages import generate, new_video, said, shown, toasts
from tests.browser.test_create import PHONE
from tests.browser.test_models import AT_THE_MACHINE, choose_model
from tests.conftest import TINY_SPEC

pytestmark = pytest.mark.browser

Visit = Callable[..., Any]
REASON = "It knows one noise level for all frames."
DOES = ("text-to-video", "restyle")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_mochi: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("form-models")
    model, data = folder / "narrow", folder / "data"
    shutil.copytree(tiny_mochi, model)
    (model / "card.json").write_text(json.dumps(card()))
    (data / "loras").mkdir(parents=True)
    (data / "models.json").write_text(json.dumps({"own": {"narrow": str(model)}}))
    save_lora(data / "loras" / "bright.safetensors")
    save_lora(folder / "elsewhere.safetensors", module="blocks.7.attention.query")
    put_turbo(data)
    yield from serve(folder, {"PUSA_TEST_FAKE": "1"})


def card() -> dict[str, Any]:
    from typing import get_args

    from pusa_app.timeline import TaskName

    spec = TINY_SPEC.model_dump(mode="json") | {"num_frames": 7}
    return {
        "id": "narrow",
        "title": "Narrow",
        "summary": "A tiny model.",
        "licence": "MIT",
        "spec": spec,
        "tasks": DOES,
        "why_not": {name: REASON for name in get_args(TaskName) if name not in DOES},
    }


def save_lora(path: Path, module: str = "transformer_blocks.0.attn1.to_q") -> None:
    from safetensors.numpy import save_file

    rng = np.random.default_rng(3)
    tensors = {
        f"transformer.{module}.lora_A.weight": rng.standard_normal((4, 32)),
        f"transformer.{module}.lora_B.weight": rng.standard_normal((32, 4)),
    }
    save_file({name: tensor.astype(np.float32) for name, tensor in tensors.items()}, path)


def put_turbo(data: Path) -> None:
    """A distilled LoRA of the catalogue, which is here."""
    entry = {
        "id": "turbo",
        "kind": "lora",
        "title": "Turbo",
        "summary": "Two steps are enough.",
        "licence": "MIT",
        "base": ["narrow"],
        "steps": 2,
        "guidance": 1.0,
        "parts": [
            {
                "repo": "tests/turbo",
                "files": ["turbo.safetensors"],
                "use": "lora",
                "into": "turbo",
                "lora": {"file": "", "strength": 0.8, "low": 0.5, "high": 1.0},
            }
        ],
    }
    folder = data / "models" / "turbo"
    (folder / "loras").mkdir(parents=True)
    (data / "catalogue").mkdir()
    for place in (data / "catalogue" / "turbo.json", folder / "card.json"):
        place.write_text(json.dumps(entry))
    save_lora(folder / "loras" / "turbo.safetensors")


def tab(page: Any, title: str) -> Any:
    return page.get_by_role("tab", name=title, exact=True)


def strength(page: Any, title: str) -> Any:
    return page.get_by_label(f"Strength in figures: {title}")


def with_narrow(page: Any) -> None:
    choose_model(page, "Narrow")
    page.wait_for_function("document.querySelector('#length input[type=number]')?.value === '7'")
    page.locator("#advanced button").first.click()
    page.locator("#steps").wait_for()


def test_a_model_offers_what_it_was_trained_for(server: Server, visit: Visit) -> None:
    page = visit(server.url, **AT_THE_MACHINE)
    tab(page, "Image to video").click()
    page.locator("#image").wait_for()
    with_narrow(page)
    page.locator(".task-why", has_text="Narrow was not trained for image to video.").wait_for()
    assert REASON in page.locator(".task-why").inner_text()
    assert tab(page, "Text to video").get_attribute("aria-selected") == "true"
    assert not page.locator("#image").is_visible()
    assert page.input_value("#steps input[type=number]") == "3"

    extend = tab(page, "Extend")
    assert extend.get_attribute("aria-disabled") == "true"
    extend.click(force=True)  # it cannot be chosen, and says why
    page.locator(".task-why", has_text="Narrow was not trained for extend.").wait_for()
    assert extend.get_attribute("aria-selected") == "false"
    page.get_by_role("button", name="All presets").click()
    titles = page.locator(".gallery-task").all_inner_texts()
    assert "Text to video" in titles and "Extend" not in titles
    page.get_by_role("button", name="Close").click()
    tab(page, "Restyle").click()
    page.locator("#clip").wait_for()
    assert not page.locator(".task-why").is_visible()

    choose_model(page, "Fake")
    page.wait_for_function("document.querySelector('#length input[type=number]')?.value === '37'")
    assert tab(page, "Restyle").get_attribute("aria-selected") == "true"
    assert tab(page, "Extend").get_attribute("aria-disabled") == "false"


def test_loras_are_chosen_used_told_and_come_back(
    server: Server, visit: Visit, shot: Callable[..., None], tmp_path: Path
) -> None:
    page = visit(server.url, **AT_THE_MACHINE)
    with_narrow(page)
    page.locator("#random input").uncheck()
    generate(page, "a red ball")
    plain = new_video(page, "", tmp_path)

    page.get_by_label("Add a LoRA").select_option("Turbo")
    assert strength(page, "Turbo").input_value() == "0.8"
    assert "Known to work from 0.5 to 1." in page.locator(".lora").inner_text()
    page.get_by_role("button", name="Use its 2 steps at guidance 1").click()
    page.wait_for_function("document.querySelector('#steps input[type=number]')?.value === '2'")
    assert page.input_value("#guidance input[type=number]") == "1"
    page.get_by_role("button", name="Take off: Turbo").click()
    page.fill("#steps input[type=number]", "3")
    page.keyboard.press("Tab")

    page.get_by_label("Add a LoRA").select_option("bright")
    strength(page, "bright").fill("1.5")
    strength(page, "bright").press("Tab")
    page.wait_for_timeout(300)
    shot(page, "loras")
    before = shown(page)
    generate(page)
    with_lora = new_video(page, before, tmp_path)
    assert with_lora.shape == plain.shape and not np.array_equal(with_lora, plain)
    page.locator("#caption", has_text="bright.safetensors at 1.5: 1 module").wait_for()

    page.get_by_role("button", name="Take off: bright").click()
    page.locator(".lora").wait_for(state="detached")
    page.get_by_role("button", name="Use these settings").click()
    page.get_by_label("Strength in figures: bright").wait_for()
    assert strength(page, "bright").input_value() == "1.5"


def test_a_file_of_ones_own_and_what_is_wrong_with_it(server: Server, visit: Visit) -> None:
    page = visit(server.url, **AT_THE_MACHINE)
    with_narrow(page)
    place = page.get_by_label("Or the path of a file")
    place.fill("/nowhere/at all.safetensors")
    page.get_by_role("button", name="Add", exact=True).click()
    assert "There is no LoRA /nowhere/at all.safetensors" in toasts(page)[0]
    place.fill(str(server.data.parent / "narrow" / "vae" / "diffusion_pytorch_model.safetensors"))
    page.get_by_role("button", name="Add", exact=True).click()
    assert "is no LoRA" in toasts(page)[0]
    place.fill(str(server.data.parent / "elsewhere.safetensors"))
    page.get_by_role("button", name="Add", exact=True).click()
    strength(page, "elsewhere.safetensors").wait_for()
    generate(page, "a red ball")
    said(page, ".stage", "The LoRA elsewhere.safetensors is for another model: none of its modules is in this one")


def test_a_visitor_chooses_among_what_is_here(server: Server, visit: Visit) -> None:
    page = visit(server.url, **PHONE)
    with_narrow(page)
    page.get_by_label("Add a LoRA").select_option("bright")
    strength(page, "bright").wait_for()
    assert not page.get_by_label("Or the path of a file").count()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert str(server.data) not in page.content()
