"""What the page says of the queue, with a studio that only remembers what it was told; and who is who."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from pusa_app import testing
from pusa_app.events import Preview, Progress
from pusa_app.jobs import Job
from pusa_app.studio import new_recipe
from pusa_app.timeline import ImageSource, Keyframe, Recipe, new_sweep
from pusa_app.ui import strings
from pusa_app.ui.player import noise_value, stage_value
from pusa_app.ui.queue import banner_value, line_value, live_value, place_words, queue_value, title_of, without_known
from pusa_app.ui.visitors import owner_of

NOW = 1_000_000.0
MARK = "0" * 32


def recipe(prompt: str = "a ball", **fields: Any) -> Recipe:
    return new_recipe(testing.card(), fields.pop("task", "text-to-video"), prompt=prompt, **fields)


class FakeStudio:
    """Just what the page asks for."""

    def __init__(self, *jobs: Job, pause: str = "") -> None:
        self.all, self._pause = list(jobs), pause
        self.times: dict[str, float] = {}
        self.steps: dict[str, tuple[Progress, float | None]] = {}
        self.looks: dict[str, Preview] = {}
        self.noise: list[float] | None = None

    def queue(self, owner: str) -> list[Job]:
        mine = [job for job in self.all if job.owner == owner]
        return [*(j for j in mine if j.state == "running"), *(j for j in mine if j.state == "queued")]

    def recent(self, owner: str, limit: int) -> list[Job]:
        return [job for job in reversed(self.all) if job.owner == owner and job.deleted is None][:limit]

    def interrupted(self, owner: str) -> list[Job]:
        return [job for job in self.recent(owner, 99) if job.state == "interrupted"]

    def paused(self, owner: str) -> str:
        return self._pause

    def ahead(self, job: Job) -> int:
        return [one.id for one in self.all if not one.ended].index(job.id)

    def expected(self, job: Job) -> float | None:
        return self.times.get(job.id)

    def expectations(self) -> dict[str, float]:
        return self.times

    def progress(self, job_id: str) -> tuple[Progress | None, float | None]:
        return self.steps.get(job_id, (None, None))

    def preview(self, job_id: str) -> Preview | None:
        return self.looks.get(job_id)

    def noise_now(self, job: Job) -> list[float] | None:
        return self.noise

    def can_resume(self, job: Job) -> int:
        return 12 if job.state == "interrupted" else 0

    def recipe(self, job: Job) -> Recipe:
        return Recipe.from_json(job.recipe)

    def sweep(self, job: Job) -> None:
        return None

    def made(self, job: Job) -> tuple[int, int]:
        return 0, 0


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")


def job(name: str, state: Any = "queued", prompt: str | None = None, owner: str = "ann", **fields: Any) -> Job:
    made = fields.pop("made", None) or recipe(name if prompt is None else prompt)
    return Job(owner=owner, recipe=made.to_json(), out="x.mp4", id=name, state=state, **fields)


def test_what_runs_stands_before_what_waits_and_others_are_not_seen() -> None:
    studio: Any = FakeStudio(job("bobs", "running", owner="bob"), job("first"), job("second"), job("runs", "running"))
    studio.steps["runs"] = Progress("sampling", 3, 8, memory=3_200_000_000), 12.0
    studio.times["second"] = 190.0
    value = queue_value(studio, "ann", NOW)
    assert [row["id"] for row in value["jobs"]] == ["runs", "first", "second"]
    running, first, second = value["jobs"]
    assert (running["step"], running["left"], running["memory"]) == ("Step 3 of 8", "about 0:12 left", "3.2 GB")
    assert 0.2 < running["fraction"] < 0.5
    assert first["expected"] == "" and second["expected"] == "ready in about 3:10"
    assert first["facts"] == ["Text to video", "Fake", "37 frames", "seed 0"] and first["editable"]
    assert value["summary"] == "1 running, 2 waiting"


def test_a_paused_queue_promises_no_time() -> None:
    studio: Any = FakeStudio(job("first"), pause="user")
    studio.times["first"] = 5.0
    value = queue_value(studio, "ann", NOW)
    assert value["jobs"][0]["expected"] == "" and value["summary"] == strings.SUMMARY_PAUSED
    assert line_value(studio, "ann")["facts"] == ["1 waiting", "paused"]
    assert place_words(studio, studio.all[0]) == strings.PAUSED
    assert not live_value(studio, "ann")["active"], "nothing will change by itself"


def test_what_ended_without_a_video_is_told_for_a_day() -> None:
    studio: Any = FakeStudio(
        job("old", "failed", message="Too old.", finished=NOW - 25 * 3600),
        job("good", "done", finished=NOW),
        job("bad", "failed", message="It broke.", finished=NOW - 60),
        job("gone", "failed", message="Dismissed.", finished=NOW, deleted=NOW),
        job("cut", "interrupted", message="The program ended.", finished=NOW - 30),
    )
    ended = queue_value(studio, "ann", NOW)["ended"]
    assert [row["id"] for row in ended] == ["cut", "bad"]
    assert (ended[0]["resume"], ended[0]["label"]) == ("Resume from step 12", "Interrupted")
    assert (ended[1]["resume"], ended[1]["message"]) == ("", "It broke.")


def test_a_place_in_the_queue_is_told_with_the_time() -> None:
    studio: Any = FakeStudio(job("a", "running"), job("b"), job("c"))
    studio.times["c"] = 190.0
    assert place_words(studio, studio.all[2]) == "2 videos before this one, ready in about 3:10"
    assert place_words(studio, studio.all[1]) == "1 video before this one."
    line = line_value(studio, "ann", studio.all[2], 4)
    assert line["added"] == "4 videos added to the queue. 2 videos before this one, ready in about 3:10"
    assert line["facts"] == ["1 running, 2 waiting", "all done in about 3:10"]
    assert line_value(FakeStudio(), "ann") == {}  # type: ignore[arg-type]
    held = dataclasses.replace(studio.all[1], held=True)
    assert place_words(studio, held) == strings.HELD


@pytest.mark.parametrize(
    ("states", "pause", "words", "button"),
    [
        (["queued", "queued"], "restart", "2 videos were waiting when the program ended.", "Resume 2 jobs"),
        (
            ["interrupted", "queued"],
            "restart",
            "1 video was interrupted and 1 video was waiting when the program ended.",
            "Resume 2 jobs",
        ),
        (["interrupted"], "", "1 video was interrupted when the program ended.", "Resume 1 job"),
        (["queued", "queued"], "user", None, None),
        (["queued"], "", None, None),
        ([], "restart", None, None),
    ],
)
def test_after_a_restart_it_is_asked_whether_to_go_on(
    states: list[Any], pause: str, words: str | None, button: str | None
) -> None:
    studio: Any = FakeStudio(*(job(f"job-{n}", state) for n, state in enumerate(states)), pause=pause)
    value = banner_value(studio, "ann")
    assert (value.get("words"), value.get("button")) == (words, button)


def test_the_script_knows_what_goes_on_and_what_ended() -> None:
    studio: Any = FakeStudio(job("done", "done", prompt="a <b>bold</b> one"), job("runs", "running"), job("waits"))
    studio.steps["runs"] = Progress("sampling", 4, 8), None
    value = live_value(studio, "ann")
    assert value["going"] == ["runs", "waits"] and value["active"] and value["fraction"] == 0.45
    assert value["ended"] == {"done": {"state": "done", "title": "a <b>bold</b> one"}}
    studio.steps["runs"] = Progress("sampling", 5, 8), None
    assert live_value(studio, "ann")["version"] == value["version"], "progress is no news for other tabs"
    studio.all.append(job("more"))
    assert live_value(studio, "ann")["version"] != value["version"]


def test_a_keyframe_is_the_picture_of_its_job_and_marked_in_the_noise(tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    Image.new("RGB", (40, 30), (200, 30, 30)).save(path)
    keyframe = Keyframe(slot=0, source=ImageSource(path=str(path)), noise=0.2)
    one = job("one", "running", made=recipe(task="image-to-video", keyframes=[keyframe]))
    studio: Any = FakeStudio(one, job("words"))
    rows = queue_value(studio, "ann", NOW)["jobs"]
    assert rows[0]["picture"].startswith("data:image/jpeg;base64,") and rows[1]["picture"] is None
    assert noise_value(studio, one) == {}
    studio.noise = [0.1, *[0.5] * 6]
    value = stage_value(studio, one)
    assert (value["noise"], value["kept"], value["of"]) == ([0.1, *[0.5] * 6], [0], [[0, 0.2]])
    path.unlink()
    assert queue_value(studio, "ann", NOW)["jobs"][0]["picture"], "it is made once"


def test_a_picture_is_sent_once(tmp_path: Path) -> None:
    path = tmp_path / "blue.png"
    Image.new("RGB", (40, 30), (30, 30, 200)).save(path)
    made = recipe(task="image-to-video", keyframes=[Keyframe(slot=0, source=ImageSource(path=str(path)))])
    studio: Any = FakeStudio(job("one", made=made), job("two", made=made), job("words"))
    value, known = without_known(queue_value(studio, "ann", NOW), ())
    (name,) = known
    assert [row["picture"] for row in value["jobs"]] == [name, name, None]
    assert list(value["pictures"]) == [name] and value["pictures"][name].startswith("data:image/")
    again, known = without_known(queue_value(studio, "ann", NOW), known)
    assert again["pictures"] == {} and known == [name] and len(json.dumps(again)) < 1500
    studio.all = studio.all[2:]
    _, known = without_known(queue_value(studio, "ann", NOW), known)
    assert known == [], "a picture that was let go is sent again when it is wanted again"


def test_a_sweep_is_called_one_and_can_be_edited() -> None:
    swept = new_sweep(recipe("a ball"), {"kind": "seed", "values": [1, 2, 3]})
    one = dataclasses.replace(job("sweep"), recipe=swept.to_json())
    assert title_of(one) == "Sweep: a ball"
    row = queue_value(FakeStudio(one), "ann", NOW)["jobs"][0]  # type: ignore[arg-type]
    assert row["editable"] and "3 videos" in row["facts"]


def request(client: str = "127.0.0.1", host: str = "127.0.0.1:7860", user: str = "", **headers: str) -> Any:
    named = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return SimpleNamespace(username=user, session_hash="open", headers=named, client=SimpleNamespace(host=client))


@pytest.mark.parametrize(
    ("asks", "shared", "owner"),
    [
        (request(), False, "local"),
        (request("::1", "localhost:7860"), False, "local"),
        (request("127.0.0.1", "[::1]:7860"), False, "local"),
        (request(), True, f"browser:{MARK}"),
        (request(user="ann"), True, "account:ann"),
        (request("192.168.1.9"), False, f"browser:{MARK}"),
        (request(x_forwarded_for="203.0.113.7"), False, f"browser:{MARK}"),
        (request(x_real_ip="203.0.113.7"), False, f"browser:{MARK}"),
        (request(forwarded="for=203.0.113.7"), False, f"browser:{MARK}"),
        (request(host="evil.example:7860"), False, f"browser:{MARK}"),
    ],
)
def test_an_owner_is_the_account_the_machine_or_the_browser(asks: Any, shared: bool, owner: str) -> None:
    assert owner_of(MARK, asks, shared) == owner


def test_a_mark_that_is_none_is_not_believed() -> None:
    assert owner_of("../somebody", request(), True) == "page:open"
