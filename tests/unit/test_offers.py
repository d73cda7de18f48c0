"""What each model would do on a machine, and what getting it takes, in sentences."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import pytest

from pusa_app.models import room
from pusa_app.models.entry import entries
from pusa_app.models.fitting import Memory, plan_for, work_for
from pusa_app.models.home import Home
from pusa_app.models.machine import Machine, imagined, this_machine
from pusa_app.models.offers import Offer, duration_words, machine_words, offer, offers, recommended, verdict
from pusa_app.models.plan_words import too_large
from pusa_app.models.room import Disks, apart
from pusa_app.models.weights import State, size_words, states

CARD_12 = imagined(12, 32, "NVIDIA GeForce RTX 3060", (8, 6))
NO_GPU = imagined(0, 16)


def of(model_id: str, machine: Machine = CARD_12, memory: Memory | None = None, **more: object) -> Offer:
    """The offer of a model of which nothing is here, unless `more` says so."""
    entry = entries()[model_id]
    return offer(dataclasses.replace(State(model_id, entry, "missing", 0, entry.size), **more), machine, memory)


@pytest.fixture
def nothing(tmp_path: Path) -> list[State]:
    return states(Home(tmp_path / "data", tmp_path / "cache", "http://127.0.0.1:9"))


def test_a_card_of_12_gb_is_offered_pusa(nothing: list[State]) -> None:
    found = offers(nothing, CARD_12)
    first = recommended(found)
    assert first is not None and first.id == "pusa-v0.5" and verdict(CARD_12, found) == ""
    minutes = round(plan_for("pusa-v0.5", work_for("pusa-v0.5", CARD_12)).seconds / 60)
    clip = f"Pusa V0.5 will run at 848x480, 85 frames in about {minutes} minutes"
    assert first.question == f"{clip}; download about 30 GB?"
    assert "of the 11.1 GB that can be used" in first.how and "blocks come to the GPU" in first.how
    assert "bf16" in first.how and "Predicted" in first.how
    assert "31 frames" in first.short
    assert {one.id for one in found} == set(entries()) - {"mini"}


def test_the_sentence_follows_the_plan() -> None:
    small, large = of("pusa-v0.5", imagined(8, 16, "RTX 4060")), of("pusa-v0.5", imagined(80, 128, "H100"))
    assert small.plan.offload == "disk" and "from the disk" in small.how and "nearly the published result" in small.how
    assert large.plan.offload == "none" and "stays on the GPU" in large.how and "changes nothing" in large.how
    assert small.seconds > 10 * large.seconds


def test_a_shorter_clip_is_offered_where_the_usual_one_does_not_fit() -> None:
    found = of("skyreels-v2-df")
    spec = entries()["skyreels-v2-df"].spec
    assert found.fits and found.num_frames in spec.lengths() and found.num_frames < spec.num_frames
    assert f"{found.num_frames} frames at most, in" in found.runs
    longer = work_for("skyreels-v2-df", CARD_12, num_frames=found.num_frames + spec.temporal_stride)
    assert not plan_for("skyreels-v2-df", longer).fits


def test_a_gpu_that_is_not_in_the_table_is_told_no_time() -> None:
    found = of("pusa-v0.5", imagined(12, 32))
    assert found.question == "Pusa V0.5 will run at 848x480, 85 frames; download about 30 GB?"
    assert "known after the first one" in found.how and found.short == ""


def test_what_ran_here_counts(tmp_path: Path) -> None:
    memory, work = Memory(tmp_path), work_for("pusa-v0.5", CARD_12)
    plan = plan_for("pusa-v0.5", work)
    memory.remember("pusa-v0.5", work, plan, step_seconds=plan.step_seconds / 2)
    found = of("mochi-1", memory=memory)
    assert found.seconds < 0.6 * of("mochi-1").seconds and "from what ran here" in found.how


def test_without_a_gpu_it_is_said_what_there_is_and_what_would_do(nothing: list[State]) -> None:
    found = offers(nothing, NO_GPU)
    assert recommended(found) is None
    words = verdict(NO_GPU, found)
    assert "no GPU" in words and "mini runs here" in words
    assert (size := re.search(r"that has (\d+) GB, Pusa V0.5 would run", words))
    assert plan_for("pusa-v0.5", work_for("pusa-v0.5", imagined(int(size[1]), 16))).fits
    pusa = next(one for one in found if one.id == "pusa-v0.5")
    assert pusa.lacks == "memory" and re.fullmatch(
        r"Even 7 frames would take .+ of memory where .+ can be used\.", pusa.reason
    )
    assert of("pusa-v0.5", imagined(0, 128)).reason == "Without a GPU one clip of 85 frames would take about 6 days."


def test_too_small_a_gpu_is_told_what_it_lacks(nothing: list[State]) -> None:
    found = offers(nothing, imagined(4, 8))
    assert not any(one.fits for one in found) and "too little memory" in verdict(imagined(4, 8), found)
    assert "GPU memory where 3.4 GB can be used" in found[0].reason


def test_too_little_disk_is_told(nothing: list[State]) -> None:
    machine = CARD_12.model_copy(update={"disk_bytes": 20 * 10**9})
    found = of("pusa-v0.5", machine)
    assert found.reason.startswith("Setting it up takes 51 GB of disk, and 20 GB are free: make 31 GB")
    assert not found.fits and not found.question
    full = CARD_12.model_copy(update={"disk_bytes": 5 * 10**9})
    assert "too little disk" in verdict(full, offers(nothing, full))
    # Of a model whose size nobody wrote down, the weights must fit at least.
    assert of("wan2.2-ti2v-5b", machine).lacks == "disk"


def test_the_disk_that_counts_is_the_one_that_downloads_go_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The offer and the download ask the same question of the same disks."""
    cache = tmp_path / "cache"
    free = {cache: 20 * 10**9, tmp_path: 900 * 10**9}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("PUSA_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("PUSA_TEST_MACHINE", raising=False)
    monkeypatch.setattr(room, "device_of", lambda path: int(cache in (path, *path.parents)))
    monkeypatch.setattr(
        shutil,
        "disk_usage",
        lambda path: shutil._ntuple_diskusage(10**12, 0, free[cache if path == cache else tmp_path]),
    )
    cache.mkdir()
    here = this_machine()
    assert (here.disk_bytes, here.cache_bytes) == (900 * 10**9, 20 * 10**9)
    disks = {"disk_bytes": here.disk_bytes, "cache_bytes": here.cache_bytes}
    found = of("pusa-v0.5", CARD_12.model_copy(update=disks))
    assert found.lacks == "disk" and "30 GB of disk where downloads go, and 20 GB are free: make 11 GB" in found.reason
    assert room.shortage(Disks.of(Home.here()), 30 * 10**9, 0) == room.Shortage(30 * 10**9, 20 * 10**9)
    # The other way about: files have room, what is made of them has none.
    swapped = CARD_12.model_copy(update={"disk_bytes": 10 * 10**9, "cache_bytes": 900 * 10**9})
    assert "of disk where models are put together, and 10 GB are free" in of("pusa-v0.5", swapped).reason
    # On one disk both count; on two each has its own.
    assert room.shortage(Disks(40 * 10**9), 30 * 10**9, 20 * 10**9) is not None
    assert room.shortage(Disks(40 * 10**9, 40 * 10**9, two=True), 30 * 10**9, 20 * 10**9) is None


def test_a_reason_never_has_two_equal_figures() -> None:
    """ "needs 24 GB, and 24 GB are free" is no reason."""
    close = {"disk_bytes": 50_700_000_000}
    words = of("pusa-v0.5", CARD_12.model_copy(update=close)).reason
    needs, free = re.findall(r"[\d.]+ GB", words)[:2]
    assert float(needs.split()[0]) > float(free.split()[0]), words
    assert apart(24.04e9, 23.96e9, size_words) == ("24.1 GB", "23.9 GB")
    assert apart(51e9, 20e9, size_words) == ("51 GB", "20 GB")


def test_a_plan_that_just_does_not_fit_says_so_in_figures() -> None:
    work = work_for("pusa-v0.5", CARD_12)
    least = plan_for("pusa-v0.5", work)
    tight = least.model_copy(update={"vram": work.room + 10_000, "fits": False})
    needs, usable = re.findall(r"([\d.]+) GB", too_large(work, tight))[:2]
    assert float(needs) > float(usable)


def test_what_is_here_need_not_be_got_again() -> None:
    partly = of("pusa-v0.5", state="partial", have=18_500_000_000)
    assert partly.question.endswith("; download the rest, about 12 GB?")
    assert of("pusa-v0.5", state="partial", have=10, complete=True).question.endswith("set it up, all files are here?")
    here = of("pusa-v0.5", CARD_12.model_copy(update={"disk_bytes": 10**9}), state="here")
    assert here.fits and not here.question


def test_a_lora_is_told_by_what_it_makes_of_its_model() -> None:
    words = of("lightx2v-wan2.1").runs
    fast, slow = (work_for("pusa-v1", CARD_12, steps=s, guidance=g) for s, g in ((4, 1.0), (None, None)))
    assert duration_words(plan_for("pusa-v1", fast).seconds) in words and "4 steps" in words
    assert plan_for("pusa-v1", slow).seconds > 5 * plan_for("pusa-v1", fast).seconds


def test_a_model_is_told_what_a_lora_makes_of_its_time(nothing: list[State]) -> None:
    found = {one.id: one for one in offers(nothing, CARD_12)}
    words = duration_words(found["lightx2v-wan2.1"].seconds)
    assert found["pusa-v1"].faster == f"With LightX2V for Wan 2.1, in 4 steps, it takes {words}."
    assert found["pusa-v0.5"].faster == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (2, "about 5 seconds"),
        (44, "about 45 seconds"),
        (70, "about 1 minute"),
        (64 * 60, "about 64 minutes"),
        (132 * 60, "about 2 hours"),
        (7 * 86_400, "about 7 days"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration_words(seconds) == words


def test_a_machine_in_words() -> None:
    assert machine_words(CARD_12) == "NVIDIA GeForce RTX 3060 with 12 GB, 32 GB of memory"
    assert machine_words(NO_GPU).startswith("no GPU that this program can use, 16 GB of memory")
