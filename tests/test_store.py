"""What the store holds is whole or absent, whatever happened to the disk or the process."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import faults
import pytest
from safetensors import SafetensorError

from pbb_helpers import disk
from pbb_helpers.data.documents import Example
from pbb_helpers.data.settings import Stage, TrainSettings
from pbb_helpers.programs import UsageError
from pbb_helpers.training.store import FORMAT, Store, digest, set_aside

EXAMPLE = Example("direct", "with_io", "zibble", "zibble(5)\n", "8", 5, "8", 1)
OTHER = replace(EXAMPLE, prompt="zibble(6)\n", completion="9", input=6, answer="9")
STAGE = Stage("stage1", (EXAMPLE, OTHER), TrainSettings(), ("zibble",))
KEY = "ab" * 32
ROWS = [{"answer": None, "correct": False, "generated": "5\u2028\x0b\nreturn é"}, {"answer": "8", "correct": True, "generated": "8"}]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def finish(store: Store, key: str = KEY, weights: bytes = b"weights" * 100) -> None:
    with store.locked(key):
        metrics = [{"step": 1, "loss": 2.5}]
        store.finish(key, {"name": "stage1"}, metrics, lambda folder: (folder / "adapter.safetensors").write_bytes(weights))


# --- keys ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        replace(STAGE, examples=STAGE.examples[::-1]),
        replace(STAGE, examples=(*STAGE.examples, EXAMPLE)),
        replace(STAGE, examples=(replace(EXAMPLE, completion="9"), STAGE.examples[1])),
        replace(STAGE, examples=(replace(EXAMPLE, group="replay"), STAGE.examples[1])),
        replace(STAGE, settings=replace(STAGE.settings, lr=1e-3)),
        replace(STAGE, settings=replace(STAGE.settings, seed=1)),
        replace(STAGE, names=()),
    ],
)
def test_key_changes_with_what_is_trained(store, changed):
    assert store.stage_key("base", STAGE, "float32") != store.stage_key("base", changed, "float32")


def test_key_changes_with_parent_and_dtype(store):
    keys = {store.stage_key(parent, STAGE, dtype) for parent in ("base", "other") for dtype in ("float32", "bfloat16")}
    assert len(keys) == 4


@pytest.mark.parametrize("changed", [{"checkpoint_every": 7}, {"log_every": 7}, {"dtype": "float32"}])
def test_key_does_not_change_with_what_changes_no_result(store, changed):
    stage = replace(STAGE, settings=replace(STAGE.settings, **changed))
    assert store.stage_key("base", STAGE, "float32") == store.stage_key("base", stage, "float32")


def test_a_setting_that_came_later_changes_no_key_where_it_is_not_given(store):
    """Trainings of months stand under the keys that they had before."""
    known = {k: v for k, v in asdict(STAGE.settings).items() if k not in ("checkpoint_every", "log_every", "dtype", "order_seed")}
    assert store.stage_key("base", STAGE, "float32") == digest(FORMAT, "base", "float32", known, STAGE.names, *STAGE.examples)
    ordered = replace(STAGE, settings=replace(STAGE.settings, order_seed=STAGE.settings.seed))
    assert store.stage_key("base", STAGE, "float32") != store.stage_key("base", ordered, "float32")


def test_key_does_not_change_with_the_name_of_the_stage(store):
    assert store.stage_key("base", STAGE, "float32") == store.stage_key("base", replace(STAGE, name="mixture"), "float32")


def test_digest_is_the_same_in_every_process():
    code = "from pbb_helpers.training.store import digest; print(digest('a', {'y': 1.5, 'x': [None, 'é']}))"
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment).stdout
    assert printed.strip() == digest("a", {"x": (None, "é"), "y": 1.5})


def test_digest_refuses_what_has_no_stable_text():
    with pytest.raises(TypeError, match="set has no place in a key"):
        digest({1, 2})


# --- stages and rows ----------------------------------------------------------------------------------------------------


def test_finished_stage(store):
    assert not store.is_done(KEY)
    with store.locked(KEY):
        store.save_checkpoint(KEY, 5, lambda folder: (folder / "state").write_text("x"))
    finish(store)
    assert store.is_done(KEY)
    assert store.config(KEY) == {"name": "stage1"}
    assert store.metrics(KEY) == [{"step": 1, "loss": 2.5}]
    store.drop_checkpoints(KEY)
    assert store.checkpoints(KEY) == [] and store.is_done(KEY)


def test_rows_come_back_as_they_went_in(store):
    assert store.load_rows(KEY, "eval") is None
    path = store.save_rows(KEY, "eval", ROWS)
    assert store.load_rows(KEY, "eval") == ROWS
    assert store.load_rows(KEY, "other") is None
    assert path.read_bytes().count(b"\n") == 2
    store.save_rows(KEY, "eval", ROWS[:1])
    assert store.load_rows(KEY, "eval") == ROWS[:1]


def test_nan_is_refused(store):
    with pytest.raises(ValueError):
        store.save_rows(KEY, "eval", [{"accuracy": float("nan")}])
    assert store.load_rows(KEY, "eval") is None


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def cut_a_line(path: Path) -> None:
    path.write_bytes(b"\n".join(path.read_bytes().split(b"\n")[:-2]) + b"\n")


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("harm", [truncate, cut_a_line, flip_a_bit, empty, remove])
@pytest.mark.parametrize("name", ["rows.jsonl", "manifest.json"])
def test_damaged_rows_are_set_aside_and_made_again(store, caplog, harm, name):
    path = store.save_rows(KEY, "eval", ROWS)
    harm(path.with_name(name))
    assert store.load_rows(KEY, "eval") is None
    assert len(caplog.records) == 1
    assert "eval.damaged" in caplog.text and name in caplog.text and caplog.records[0].getMessage().count("\n") == 0
    assert (path.parents[1] / "eval.damaged").is_dir()
    store.save_rows(KEY, "eval", ROWS)
    assert store.load_rows(KEY, "eval") == ROWS


@pytest.mark.parametrize("harm", [truncate, flip_a_bit, empty, remove])
@pytest.mark.parametrize("name", ["adapter/adapter.safetensors", "adapter/manifest.json", "config.json", "metrics.jsonl", "manifest.json"])
def test_damaged_stage_is_not_done_and_can_be_made_again(store, caplog, harm, name):
    finish(store)
    harm(store.folder(KEY) / name)
    assert not store.is_done(KEY)
    if not (harm is remove and name == "manifest.json"):  # without it a stage was never finished
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert "is damaged" in caplog.text and "set aside" in caplog.text
    finish(store)
    assert store.is_done(KEY)


def test_a_second_damage_does_not_overwrite_the_first(store):
    for number in range(3):
        path = store.save_rows(KEY, "eval", ROWS)
        truncate(path)
        store.load_rows(KEY, "eval")
        assert len(list(path.parents[1].glob("eval.damaged*"))) == number + 1


def test_checkpoints_are_numbers_and_the_last_two_are_kept(store):
    for step in (8, 9, 10, 100):
        store.save_checkpoint(KEY, step, lambda folder: (folder / "state").write_text("x"))
    assert store.checkpoints(KEY) == [100, 10]
    assert store.last_checkpoint(KEY) == (100, store.folder(KEY) / "checkpoint-100")


def test_damaged_checkpoint_falls_back_to_the_one_before(store, caplog):
    for step in (1, 2):
        store.save_checkpoint(KEY, step, lambda folder: (folder / "state").write_text("whole"))
    flip_a_bit(store.folder(KEY) / "checkpoint-2" / "state")
    assert store.last_checkpoint(KEY) == (1, store.folder(KEY) / "checkpoint-1")
    assert len(caplog.records) == 1 and "checkpoint-2" in caplog.text and "checksum" in caplog.text
    truncate(store.folder(KEY) / "checkpoint-1" / "state")
    assert store.last_checkpoint(KEY) is None


# --- the disk -----------------------------------------------------------------------------------------------------------


def full_disk(*args: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_is_one_line_and_loses_nothing(store, monkeypatch):
    finish(store)
    store.save_rows(KEY, "eval", ROWS)
    monkeypatch.setattr(disk.os, "fsync", full_disk)
    for write in (
        lambda: store.save_rows(KEY, "eval", ROWS[:1]),
        lambda: store.save_rows(KEY, "other", ROWS),
        lambda: store.save_checkpoint(KEY, 1, lambda folder: (folder / "state").write_text("x")),
        lambda: store.write_config(KEY, {}),
    ):
        with pytest.raises(UsageError, match="no space left on the disk of .*; what is finished is kept") as caught:
            write()
        assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert store.is_done(KEY)
    assert store.load_rows(KEY, "eval") == ROWS
    assert store.load_rows(KEY, "other") is None
    assert not list(store.folder(KEY).rglob("*.tmp"))


def test_full_disk_in_the_words_of_safetensors_is_recognised():
    with pytest.raises(UsageError, match="no space left on the disk of adapter"), disk.plain_errors(Path("adapter")):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_other_errors_pass(store):
    with pytest.raises(ZeroDivisionError):
        store.write_folder(store.root / "x", lambda folder: 1 / 0)
    assert not (store.root / "x").exists()


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_no_permission_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="no permission to write"):
        Store(tmp_path / "store")


def test_read_only_root_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.raises(UsageError, match="no permission to write to"):
        Store(tmp_path)


def test_what_a_killed_process_left_is_swept(store):
    left = store.folder(KEY) / ".adapter.123.new.tmp"
    left.mkdir(parents=True)
    (left / "half").write_text("x")
    with store.locked(KEY):
        assert not left.exists()


def test_what_was_killed_while_saving_rows_is_swept_though_its_process_id_comes_again(store):
    """In a container the first process has the same id after every start."""
    left = store.folder(KEY) / "rows" / f".eval.{os.getpid()}.new.tmp"
    left.mkdir(parents=True)
    (left / "rows.jsonl").write_text("half")
    store.save_rows(KEY, "eval", ROWS)
    assert store.load_rows(KEY, "eval") == ROWS and not left.exists()


def test_rows_stay_when_their_replacement_is_stopped_between_two_renames(store, monkeypatch):
    path = store.save_rows(KEY, "eval", ROWS)
    real = os.rename

    def rename(source: Path, target: Path) -> None:
        if Path(source).name.endswith(".new.tmp"):
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        store.save_rows(KEY, "eval", ROWS[:1])
    monkeypatch.undo()
    assert store.load_rows(KEY, "eval") == ROWS

    path.parent.rename(path.parent.with_name(".eval.123.old.tmp"))  # what SIGKILL leaves there
    assert store.load_rows(KEY, "eval") == ROWS


REPLACED = """
import itertools
import json
import sys
from pathlib import Path

import faults
from pbb_helpers.training.store import Store


def replace(store, point):
    faults.kill_at_write(point)
    store.save_rows("ab" * 32, "eval", [{"answer": "new"}])


for point in itertools.count(1):
    store = Store(Path(sys.argv[1]) / str(point))
    folder = store.save_rows("ab" * 32, "eval", [{"answer": "old"}]).parent
    status, _ = faults.forked(lambda: replace(store, point))
    there = folder.is_dir()
    (row,) = store.load_rows("ab" * 32, "eval")
    print(json.dumps([status, there, row["answer"], store.load_rows("ab" * 32, "eval") == [row]]))
    if status == 0:
        break
"""


def test_rows_are_the_old_or_the_new_wherever_their_replacement_is_killed(tmp_path):
    """Also between the two renames, when neither stands in its place: they would be answered again, though they were finished."""
    *killed, last = map(json.loads, faults.python(REPLACED, tmp_path).splitlines())
    assert last == [0, True, "new", True] and {status for status, *_ in killed} == {-signal.SIGKILL}
    assert [there for _, there, *_ in killed].count(False) == 1, "one kill comes between the two renames"
    answers = [answer for *_, answer, _ in killed]
    assert answers == sorted(answers, reverse=True) and set(answers) == {"old", "new"} and all(same for *_, same in killed)


def test_whole_answers_of_another_question_are_not_taken(store, caplog):
    store.save_rows(KEY, "eval", ROWS)
    other = store.save_rows(KEY, "other", ROWS[:1])
    shutil.copytree(store.folder(KEY) / "rows" / "eval", other.parent, dirs_exist_ok=True)
    assert store.load_rows(KEY, "other") is None and "manifest.json is that of abababababababab/rows/eval" in caplog.text


def test_a_store_that_was_moved_is_whole(store, tmp_path):
    finish(store)
    store.save_rows(KEY, "eval", ROWS)
    moved = Store(store.root.rename(tmp_path / "elsewhere"))
    assert moved.is_done(KEY) and moved.load_rows(KEY, "eval") == ROWS


def sealed(manifest: dict) -> str:
    """Returns a manifest's text with a seal that fits it, as anybody can make one."""
    text = json.dumps(manifest["files"], sort_keys=True) + manifest.get("of", "")
    return json.dumps(manifest | {"sha256": hashlib.sha256(text.encode()).hexdigest()})


def test_answers_that_do_not_say_what_they_are_of_are_not_taken(store, caplog):
    path = store.save_rows(KEY, "eval", ROWS).with_name("manifest.json")
    manifest = json.loads(path.read_text())
    del manifest["of"]
    path.write_text(sealed(manifest))
    assert store.load_rows(KEY, "eval") is None and "manifest.json does not say what it is of" in caplog.text


@pytest.mark.parametrize("name", ["{outside}", "../../../mine.txt", "adapter/../../../mine.txt", "elsewhere/mine.txt"])
def test_a_manifest_of_anothers_making_reaches_no_file_outside_of_its_folder(store, tmp_path, caplog, name):
    mine = tmp_path / "mine.txt"
    mine.write_text("precious")
    finish(store)
    (store.folder(KEY) / "elsewhere").symlink_to(tmp_path)
    path = store.folder(KEY) / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"] = {name.format(outside=mine): {"bytes": 1, "sha256": "0" * 64}} | manifest["files"]
    path.write_text(sealed(manifest))
    with store.locked(KEY):
        assert not store.is_done(KEY)
    assert "names a file outside of its folder" in caplog.text and "manifest.json.damaged" in caplog.text
    assert mine.read_text() == "precious" and {path.name for path in tmp_path.iterdir()} == {"mine.txt", "store"}


@pytest.mark.parametrize("entry", [{}, {"bytes": 1}, 7, None])
def test_a_manifest_that_says_too_little_of_a_file_is_damaged(store, caplog, entry):
    path = store.save_rows(KEY, "eval", ROWS).with_name("manifest.json")
    manifest = json.loads(path.read_text())
    path.write_text(sealed(manifest | {"files": {"rows.jsonl": entry}}))
    assert store.load_rows(KEY, "eval") is None and "manifest.json cannot be read" in caplog.text


def test_answers_that_another_process_puts_in_their_place_are_not_set_aside(store, monkeypatch, caplog):
    path = store.save_rows(KEY, "eval", ROWS)
    whole, real = path.with_name("manifest.json").read_bytes(), store.locked

    def locked(key, *_):
        path.with_name("manifest.json").write_bytes(whole)  # what the other process did while this one waited
        return real(key)

    path.with_name("manifest.json").unlink()
    monkeypatch.setattr(store, "locked", locked)
    assert store.load_rows(KEY, "eval") == ROWS and not caplog.records


def test_whether_a_stage_is_whole_is_asked_without_changing_anything(store):
    assert not store.is_whole(KEY) and not store.folder(KEY).exists()
    finish(store)
    assert store.is_whole(KEY)
    truncate(store.folder(KEY) / "metrics.jsonl")
    before = sorted(store.folder(KEY).rglob("*"))
    assert not store.is_whole(KEY) and sorted(store.folder(KEY).rglob("*")) == before


def test_two_processes_may_set_the_same_thing_aside(store, monkeypatch, caplog):
    path = store.save_rows(KEY, "eval", ROWS)
    truncate(path)
    damaged = store.damage(path.parent)
    assert damaged is not None
    shutil.rmtree(path.parent)  # the other process was faster
    set_aside(path.parent, damaged.why, rebuilt="it is evaluated again")
    assert not caplog.records


# --- locks --------------------------------------------------------------------------------------------------------------


HOLD = """
import pathlib, sys, time
from pbb_helpers.training.store import Store
with Store(sys.argv[1]).locked(sys.argv[2]):
    (pathlib.Path(sys.argv[1]) / "held").touch()
    time.sleep(float(sys.argv[3]))
"""


def hold(root: Path, seconds: float) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(root), KEY, str(seconds)])
    wait_for(root / "held")
    return process


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_second_process_waits_for_the_first(store):
    process = hold(store.root, 1.0)
    said: list[str] = []
    with store.locked(KEY, said.append):
        assert process.wait(10) == 0  # it is on its way out
    assert said == [f"process {process.pid} on {socket.gethostname()}"]


def test_lock_of_a_killed_process_is_free(store):
    process = hold(store.root, 60.0)
    process.kill()
    process.wait()
    said: list[str] = []
    with store.locked(KEY, said.append):
        assert said == []
        assert f"process {os.getpid()}" in (store.folder(KEY) / ".lock").read_text()


def test_different_keys_do_not_wait(store):
    with store.locked(KEY), store.locked("cd" * 32):
        pass


def test_rows_are_json_lines(store):
    path = store.save_rows(KEY, "eval", ROWS)
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]] == ROWS


def test_the_key_of_a_hub_model_is_one_folder_of_its_own(store: Store) -> None:
    small, large = (store.folder(f"meta-llama/Llama-3.2-{size}@0123456789abcdef") for size in ("1B", "3B"))
    assert small != large and small.parent == store.root and large.parent == store.root
