"""Killed again and again, wherever it is: the store opens, nothing is lost or made twice, at the end all are done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 240.0
KILLS, JOBS = 12, 8

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the program is started by forking, which is quick"),
]

# A program whose worker has no model: it writes a checkpoint after each step, and the video as all videos are written.
PROGRAM = """
import contextlib, os, random, signal, sys, time
from pathlib import Path
from pusa_app import media, testing, worker
from pusa_app.events import Done, Progress
from pusa_app.settings import Settings
from pusa_app.studio import Studio, new_recipe
from pusa_app.timeline import Recipe

def light(pipe, *more):
    worker._die_with_parent()
    mailbox = worker.Mailbox(pipe)
    while True:
        _, job_id, recipe, out, options = mailbox.tasks.get()
        state, steps = Path(options["state"]), Recipe.from_json(recipe).steps
        done = int(state.read_text()) if state.exists() else 0
        for step in range(done + 1, steps + 1):
            time.sleep(0.03)
            with media.atomic_output(state) as part:
                part.write_text(str(step))
            mailbox.send(job_id, Progress("sampling", step, steps))
        with media.atomic_output(Path(out)) as part:
            part.write_text(f"{recipe}")
        with open(Path(out).with_suffix(".made"), "a") as made:
            made.write(job_id + "\\n")
        state.unlink(missing_ok=True)
        mailbox.send(job_id, Done(out, recipe, 0.0, 1))

def once(data, first):
    studio = Studio(Settings(data_dir=data))
    if first:
        recipe = new_recipe(testing.card(), "text-to-video", prompt="blue", num_frames=7, steps=12)
        print("submitted", *(job.id for job in studio.submit_seeds(recipe, "me", JOBS)), flush=True)
    studio.resume_all("me")
    while studio.queue() or studio.interrupted("me"):
        time.sleep(0.05)
    studio.close()

if __name__ == "__main__":
    worker.main, worker.save_beside = light, lambda out, work: None
    data, seed, kills, JOBS = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    def written():
        found = set()
        for path in data.glob("runs/*/*.state"):
            with contextlib.suppress(FileNotFoundError):
                found.add((path, path.stat().st_mtime_ns))
        return found

    chance, first, hit = random.Random(seed), True, 0
    while True:
        child = os.fork()
        if child == 0:
            once(data, first)
            os._exit(0)
        # Every other one while it starts, the others once they have come so far that a checkpoint is written.
        at_work, before, ended = first or chance.random() < 0.5, written(), 0
        deadline = time.monotonic() + (120 if at_work or hit == kills else chance.uniform(0.02, 1.0))
        while not ended and time.monotonic() < deadline:
            if at_work and hit < kills and written() - before:
                at_work, deadline = False, time.monotonic() + chance.uniform(0.0, 0.6)
            ended, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.005)
        if ended:
            print("ended", os.waitstatus_to_exitcode(status), "after", hit, "kills", flush=True)
            break
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        first, hit = False, hit + 1
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_moments_many_times_in_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setenv("PUSA_TEST_FAKE", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    script, data = tmp_path / "program.py", tmp_path / "data"
    script.write_text(PROGRAM)
    command = [sys.executable, str(script), str(data), str(seed), str(KILLS), str(JOBS)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert said.returncode == 0, said.stderr
    submitted, ended = [line.split() for line in said.stdout.splitlines()]
    assert ended == ["ended", "0", "after", str(KILLS), "kills"], "all of them hit a program that was at work"
    asked = submitted[1:]

    from pusa_app.settings import Settings
    from pusa_app.studio import Studio

    studio = Studio(Settings(data_dir=data), idle=True)
    try:
        assert studio.notice == "", "the database was never damaged"
        everything = {job.id: job for job in studio._store.jobs()}
        assert set(asked) <= set(everything)
        done = studio.library("me", limit=1000)
        assert sorted(job.seed for job in done) == list(range(JOBS)), "each is done, and once"
        assert {job.state for job in everything.values()} == {"done", "interrupted"}
        for job in everything.values():  # every other one was cut off, and has one that went on from it
            if job.state == "interrupted":
                assert job.deleted and sum(heir.source == job.id for heir in everything.values()) == 1
        assert {Path(job.out).name for job in done} == {p.name for p in studio.settings.results_dir.glob("*.mp4")}
        for job in done:
            assert json.loads(Path(job.out).read_text())["seed"] == job.seed
            made = Path(job.out).with_suffix(".made")
            assert not made.exists() or len(made.read_text().split()) == 1, "what had its video was not made again"
        files = [p.name for p in data.rglob("*") if p.name.startswith(".pusa-") or ".state" in p.name]
        assert files == [] and len(list(studio.settings.runs_dir.iterdir())) == 1
    finally:
        studio.close()
