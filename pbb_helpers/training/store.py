"""Checkpoints and rows under the hash of what made them. Writing is temp-then-rename; what was written carries its checksums.

    <root>/<first 16 hex digits of the key>/
        config.json  metrics.jsonl  adapter/   a finished stage, listed with checksums in manifest.json
        checkpoint-<step>/                     an unfinished one
        rows/<evaluation key>/rows.jsonl       answers of this stage's model
    <root>/.known/<first 16 hex digits>.json   the keys of stages, under the hash of what their documents follow from

A damaged file is never read, never deleted and never in the way: it is set aside as *.damaged, in one line, and made again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pbb_helpers.disk import Damage, check_manifest, fsync_folder, lock, plain_errors, write_manifest, write_text
from pbb_helpers.programs import UsageError

log = logging.getLogger(__name__)

FORMAT = 1
"""Part of every key: raise it when the same examples and settings no longer give the same weights or rows."""
NOT_IN_KEY = ("checkpoint_every", "log_every")
"""Settings that change nothing in the result."""
EVALUATION_KEY = 16
NOTES = ".known"
"""The folder of notes of what stages' documents follow from."""


def digest(*parts: Any) -> str:
    """Returns the SHA-256, 64 hex digits, of plain data and dataclasses; the same in every process and on every machine.

    >>> digest("a", 1, {"y": 2, "x": (None, 0.5)}) == digest("a", 1, {"x": [None, 0.5], "y": 2})
    True
    """
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(json.dumps(part, sort_keys=True, ensure_ascii=True, default=_plain).encode() + b"\n")
    return hasher.hexdigest()


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no place in a key: use numbers, text, lists, dicts or dataclasses")


class Store:
    """The results below one folder.

    Args:
        root: Made where it does not exist.

    Raises:
        UsageError: It cannot be made or written to.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        with plain_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise UsageError(f"no permission to write to {self.root}; choose another folder for runs or change its permissions")

    def stage_key(self, parent: str, stage: Any, dtype: str) -> str:
        """Returns the key of a `Stage` trained in `dtype` on top of `parent` (a stage's key or a base model's)."""
        settings = {k: v for k, v in _plain(stage.settings).items() if k not in (*NOT_IN_KEY, "dtype")}
        if settings.get("order_seed") is None:
            settings.pop("order_seed", None)  # so that what was trained before there was such a thing keeps its key
        return digest(FORMAT, parent, dtype, settings, stage.names, *stage.examples)

    def folder(self, key: str) -> Path:
        """Returns where everything of a key lies; it need not exist."""
        # A hub model's key is "org/name@commit": its first letters neither name it alone nor make a single folder.
        name = key if re.fullmatch("[0-9a-f]{64}", key) else digest(key)
        return self.root / name[:16]

    @contextmanager
    def locked(self, key: str, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
        """Holds a key for this process: others wait. A process that died holds nothing, on this machine or another.

        Args:
            on_wait: Called once with who holds it, if one has to wait; by default that is logged.
        """
        folder = self.folder(key)
        with plain_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with lock(folder / ".lock", on_wait or (lambda who: log.warning("waiting for %s, which works on %s", who, folder))) as alone:
            if alone:  # without a lock another process may be writing what would be swept
                sweep(folder)
            yield

    # --- stages -----------------------------------------------------------------------------------------------------

    def is_whole(self, key: str) -> bool:
        """Returns whether the stage is finished and its files are whole; changes nothing."""
        return self.damage(self.folder(key)) is None

    def is_done(self, key: str) -> bool:
        """Returns whether the stage is finished and its files are whole; for who holds its lock: a damaged one is set aside, to be made again."""
        folder = self.folder(key)
        if not (folder / "manifest.json").is_file():
            return False
        damage = self.damage(folder)
        if damage is None:
            return True
        self.set_stage_aside(folder, damage)
        return False

    def damage(self, folder: Path) -> Damage | None:
        """Returns what is wrong with a finished stage, a checkpoint or a folder of rows, or None."""
        return check_manifest(folder, self._place(folder))

    def set_stage_aside(self, folder: Path, damage: Damage) -> None:
        """Makes a damaged stage an unfinished one: its manifest and what is damaged become *.damaged; the rest stays."""
        # The manifest goes first: without it nothing passes for finished, whatever happens in between.
        set_aside(folder / "manifest.json", f"{damage.path} {damage.why}", rebuilt="the stage is trained again")
        if damage.path.is_relative_to(folder / "adapter"):
            set_aside(folder / "adapter", damage.why, rebuilt=None)
        elif damage.path.exists() and damage.path.name != "manifest.json":
            set_aside(damage.path, damage.why, rebuilt=None)

    def finish(self, key: str, config: dict, metrics: Iterable[dict], write_adapter: Callable[[Path], None]) -> None:
        """Writes a stage's results, and marks it as finished; then its checkpoints may go."""
        folder = self.folder(key)
        self.write_folder(folder / "adapter", write_adapter)
        self.write_config(key, config)
        self.start_metrics(key, metrics)
        with plain_errors(folder):
            files = [folder / "config.json", folder / "metrics.jsonl", *sorted((folder / "adapter").iterdir())]
            write_manifest(folder, files, self._place(folder))

    def config(self, key: str) -> dict:
        """Returns the config.json of a stage.

        Raises:
            UsageError: There is no such stage.
        """
        try:
            return json.loads((self.folder(key) / "config.json").read_text())
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.folder(key)}: no readable config.json ({error}); run the same command again to train it") from error

    def write_config(self, key: str, config: dict) -> None:
        """Writes config.json of a stage that starts; `finish` writes it again."""
        with plain_errors(self.folder(key)):
            write_text(self.folder(key) / "config.json", json.dumps(config, indent=2) + "\n")

    def start_metrics(self, key: str, lines: Iterable[dict]) -> None:
        """Cuts metrics.jsonl back to `lines`, those of the checkpoint that training goes on from."""
        with plain_errors(self.folder(key)):
            write_text(self.folder(key) / "metrics.jsonl", jsonl(lines))

    def append_metrics(self, key: str, line: dict) -> None:
        """Adds a line to metrics.jsonl for whoever watches; the lines that count lie in the checkpoint."""
        path = self.folder(key) / "metrics.jsonl"
        with plain_errors(path), open(path, "a", encoding="utf-8") as file:
            file.write(jsonl([line]))

    def metrics(self, key: str) -> list[dict]:
        """Returns the logged lines of a stage; of an unfinished one those so far."""
        return read_metrics(self.folder(key))

    # --- what their documents follow from ---------------------------------------------------------------------------

    def remember(self, recipe: str, keys: list[str]) -> None:
        """Writes down the keys of the stages that came of a recipe, a hash of what their documents follow from."""
        path = self._known(recipe)
        with plain_errors(path):
            path.parent.mkdir(exist_ok=True)
            write_text(path, json.dumps({"recipe": recipe, "keys": keys, "check": digest(recipe, keys)}) + "\n")

    def recall(self, recipe: str) -> list[str] | None:
        """Returns the keys that came of a recipe, or None where that is not known or the note of it is damaged (then it is set aside)."""
        path = self._known(recipe)
        if not path.is_file():
            return None
        damage = note_damage(path)
        if damage is not None:
            set_aside(path, damage.why, rebuilt="the documents are drawn and read again")
            return None
        said = json.loads(path.read_text(encoding="utf-8"))
        return said["keys"] if said["recipe"] == recipe else None  # the first digits alone do not make it the same

    def _known(self, recipe: str) -> Path:
        return self.root / NOTES / f"{recipe[:16]}.json"

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def checkpoints(self, key: str) -> list[int]:
        """Returns the steps of which there are checkpoints, latest first."""
        names = (path.name.removeprefix("checkpoint-") for path in self.folder(key).glob("checkpoint-*"))
        return sorted((int(name) for name in names if name.isdecimal()), reverse=True)

    def save_checkpoint(self, key: str, step: int, write: Callable[[Path], None], keep: int = 2) -> None:
        """Writes checkpoint-<step>/ and deletes all but the last `keep`: one is left should the last turn out damaged."""
        self.write_folder(self.folder(key) / f"checkpoint-{step}", write)
        self.drop_checkpoints(key, keep)

    def drop_checkpoints(self, key: str, keep: int = 0, *, after: int = -1) -> None:
        """Deletes all but the last `keep` of the checkpoints later than step `after`."""
        for step in [step for step in self.checkpoints(key) if step > after][keep:]:
            shutil.rmtree(self.folder(key) / f"checkpoint-{step}", ignore_errors=True)

    def last_checkpoint(self, key: str, at_most: float = math.inf) -> tuple[int, Path] | None:
        """Returns step and folder of the last whole checkpoint, of step `at_most` or before, or None. Damaged ones are set aside on the way."""
        for step in (step for step in self.checkpoints(key) if step <= at_most):
            path = self.folder(key) / f"checkpoint-{step}"
            damage = self.damage(path)
            if damage is None:
                return step, path
            set_aside(path, f"{damage.path.name} {damage.why}", rebuilt="training goes on from the checkpoint before it, or from the start")
        return None

    # --- rows -------------------------------------------------------------------------------------------------------

    def save_rows(self, key: str, evaluation_key: str, rows: Iterable[dict]) -> Path:
        """Returns the JSONL file the rows, one per answer, were written to; rows of the same keys are replaced."""
        folder = self._rows(key, evaluation_key)
        with self.locked(key):  # two notebooks may ask the same questions at once
            self.write_folder(folder, lambda temp: write_text(temp / "rows.jsonl", jsonl(rows)))
        return folder / "rows.jsonl"

    def load_rows(self, key: str, evaluation_key: str) -> list[dict] | None:
        """Returns the rows, or None where there are none or the file is damaged (then it is set aside)."""
        folder = self._rows(key, evaluation_key)
        if folder.is_dir() and self.damage(folder) is None:
            return self._read_rows(folder)
        if not folder.is_dir() and not list(folder.parent.glob(f".{folder.name}.*.old.tmp")):
            return None
        with self.locked(key):  # who is replacing them is waited for; what one left that was killed in between goes back
            if folder.is_dir() and (damage := self.damage(folder)):
                set_aside(folder, f"{damage.path.name} {damage.why}", rebuilt="it is evaluated again")
            return self._read_rows(folder) if folder.is_dir() else None

    def _read_rows(self, folder: Path) -> list[dict]:
        # Not splitlines(): what a model wrote may hold other characters that it takes for the end of a line.
        return [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").split("\n") if line]

    def _rows(self, key: str, evaluation_key: str) -> Path:
        return self.folder(key) / "rows" / evaluation_key[:EVALUATION_KEY]

    # --- folders ----------------------------------------------------------------------------------------------------

    def write_folder(self, folder: Path, write: Callable[[Path], None]) -> None:
        """Makes `folder` with what `write` puts into it and a manifest.json of checksums: whole, or not at all."""
        temp, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{kind}.tmp") for kind in ("new", "old"))
        with plain_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                temp.mkdir()
                write(temp)
                write_manifest(temp, sorted(path for path in temp.rglob("*") if path.is_file()), self._place(folder))
                if folder.exists():
                    os.rename(folder, old)
                os.rename(temp, folder)
                fsync_folder(folder.parent)
            finally:
                if old.exists() and not folder.exists():  # stopped between the two: what was there stays
                    os.rename(old, folder)
                for path in (temp, old):
                    shutil.rmtree(path, ignore_errors=True)

    def _place(self, folder: Path) -> str:
        """Returns what a folder is, the same wherever the whole store is moved to."""
        return folder.relative_to(self.root).as_posix()


def note_damage(path: Path) -> Damage | None:
    """Returns what is wrong with a note of `Store.remember`, or None."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        whole = said["check"] == digest(said["recipe"], said["keys"]) and path.stem == said["recipe"][:16]
        return None if whole else Damage(path, "does not say what was written")
    except (OSError, ValueError, TypeError, KeyError):
        return Damage(path, "cannot be read")


def read_metrics(folder: Path) -> list[dict]:
    """Returns the logged lines of the stage in a folder of a store that may be another's, and is not written to."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}\n")]  # a last line may be half written


def sweep(folder: Path) -> list[Path]:
    """Returns what a killed process left in a key's folder, after taking it away; for who holds its lock.

    What had been moved out of the way, to be replaced, goes back unless the replacement arrived.
    """
    found = left_over(folder)
    for left in found:
        moved = re.fullmatch(r"\.(.+)\.\d+\.old\.tmp", left.name)
        if moved and not (back := left.with_name(moved[1])).exists():
            os.rename(left, back)
        else:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    return found


def left_over(folder: Path) -> list[Path]:
    """Returns the temporary files and folders of a key: of a process at work on it, or of one that was killed."""
    return sorted((*folder.glob(".*.tmp"), *folder.glob("rows/.*.tmp")))


def set_aside(path: Path, why: str, rebuilt: str | None) -> Path:
    """Returns the new name, *.damaged, of a damaged file or folder; says so in one line unless `rebuilt` is None."""
    target = path.with_name(path.name + ".damaged")
    number = 2
    while target.exists():
        target = path.with_name(f"{path.name}.damaged-{number}")
        number += 1
    try:
        os.rename(path, target)
    except FileNotFoundError:  # another process found it at the same time
        return target
    if rebuilt is not None:
        log.warning("%s is damaged: %s; set aside as %s, %s", path, why, target.name, rebuilt)
    return target


def jsonl(rows: Iterable[dict]) -> str:
    """Returns the rows as JSON Lines. NaN is refused: a missing value is null. What a model wrote stays ASCII, even half a character."""
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
