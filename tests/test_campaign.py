"""The campaign's own checks can fail: stores that lose, change or repeat what is finished are found out, by each kind of fault that could do it."""

from __future__ import annotations

import json

import faults
import pytest

MUTANTS = """
import json
import random
import sys
from pathlib import Path

import torch

torch.set_num_threads(1)
from campaign import Campaign
from pbb_helpers.training import evaluate, models, train  # once, before the forks
from pbb_helpers.training.store import Store


class Fixed(random.Random):
    def randrange(self, *_):
        return self.point


campaign, real = Campaign(sys.argv[1], Path(sys.argv[2]), 0, False), vars(Store).copy()
campaign.draws, campaign.number = Fixed(), 3  # of the kinds with a choice: SIGKILL at a write, and the injected full disk from the start
in_stage_2, answering = campaign.point_after("checkpoint-2", 2), campaign.training_writes + 4
first, second = [number for number, write in enumerate(campaign.answer_writes) if write == "rename rows.jsonl"][:2]
per_rows = second - first  # writes of one set of rows


def others(store, key, pattern):
    return [path for path in store.root.glob(pattern) if path.parts[len(store.root.parts)] != store.folder(key).name]


def begin(store, key, config):
    for path in others(store, key, "*/manifest.json"):
        path.unlink()
    real["write_config"](store, key, config)


def finish(store, key, *rest):
    real["finish"](store, key, *rest)
    for path in others(store, key, "*/adapter/*.safetensors"):
        path.unlink()


def finish_twice(training, done=train.Training.finish):
    done(training)
    done(training)


def truncate(store, key, evaluation_key, rows):
    for path in store.root.glob("*/rows/*/rows.jsonl"):
        path.write_text("")
    return real["save_rows"](store, key, evaluation_key, rows)


def swap(store, key, evaluation_key, rows):
    for path in store.root.glob("*/rows/*"):
        real["save_rows"](store, key, path.name, rows)
    return real["save_rows"](store, key, evaluation_key, rows)


nothing = ()
stage_1_goes = (Store, "write_config", begin)
adapter_goes = (Store, "finish", finish)
for name, mutant, kind, point in [
    ("no mutant", nothing, campaign.training, in_stage_2),
    ("manifest of stage 1 goes when stage 2 starts", stage_1_goes, campaign.training, in_stage_2),
    ("adapter of stage 1 goes when stage 2 is finished", adapter_goes, campaign.training, answering),
    ("adapter of stage 1 goes, full disk", adapter_goes, campaign.disk, answering),
    ("adapter of stage 1 goes, clock", adapter_goes, campaign.clock, answering),
    ("rows go", (Store, "save_rows", truncate), campaign.training, answering + per_rows),
    # Whole rows, sealed as the question's own; these are writes too.
    ("rows are those of another question", (Store, "save_rows", swap), campaign.training, answering + 2 * per_rows),
    ("rows are never found", (Store, "load_rows", lambda *_: None), campaign.answers, 4 + per_rows),
    ("every stage is finished twice", (train.Training, "finish", finish_twice), campaign.training, answering),
]:
    campaign.draws.point = point
    if mutant:
        owner, attribute, new = mutant
        old = getattr(owner, attribute)
        setattr(owner, attribute, new)
    what, bad = kind()
    if mutant:
        setattr(owner, attribute, old)
    print(json.dumps([name, what, bad]))
stages = sorted(campaign.reference.glob("*/manifest.json"), key=lambda path: path.stat().st_mtime_ns)
rows = sorted(campaign.reference.glob("*/rows/*/manifest.json"), key=lambda path: path.stat().st_mtime_ns)
print(json.dumps([path.parent.relative_to(campaign.reference).as_posix() for path in (*stages, *rows)]))
"""


@pytest.fixture(scope="module")
def found(shipped_like, tmp_path_factory) -> tuple[dict[str, str | None], list[str]]:
    """Returns what the campaign says of each mutant, and the names of both stages and all sets of rows, in the order they are made."""
    lines = [json.loads(line) for line in faults.python(MUTANTS, shipped_like, tmp_path_factory.mktemp("mutants")).splitlines()]
    return {name: bad for name, _, bad in lines[:-1]}, lines[-1]


@pytest.mark.parametrize(
    ("name", "says", "what"),
    [
        ("manifest of stage 1 goes when stage 2 starts", "lost", 0),
        ("adapter of stage 1 goes when stage 2 is finished", "lost", 0),
        ("adapter of stage 1 goes, full disk", "lost", 0),
        ("adapter of stage 1 goes, clock", "lost", 0),
        ("rows go", "lost", 2),
        ("rows are those of another question", "wrong bytes", 2),
        ("rows are never found", "done again though it was finished", 2),
    ],
)
def test_a_store_that_does_not_keep_what_is_finished_is_found_out(found, name, says, what):
    bad, names = found
    assert bad[name] == f"{says}: {[names[what]]}"


def test_what_one_process_finishes_twice_was_done_again(found):
    bad, (first, *_) = found
    assert bad["every stage is finished twice"].startswith(f"done again though it was finished: ['{first}'")


def test_the_same_fault_with_the_store_as_it_is_is_survived(found):
    assert found[0]["no mutant"] is None
