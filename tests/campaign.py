"""The campaign against training, evaluation, store and reports: `python campaign.py MODEL FOLDER COUNT SEED MOUNT`.

Prints one JSON line per fault that was injected: its kind, what it was, and what was wrong afterwards (null: survived). After each:
what was finished is there, in the very bytes of a run without faults; the same command again gives the same table, byte for byte,
repeats nothing that was finished, and leaves nothing temporary. What was finished the faulty processes tell themselves, as soon as it is and
outside of the store: a stage that the fault destroys would come again in equal bytes. `test_campaign.py` holds that all this can fail.
"""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import faults
from faults import forked

KINDS = {
    "signal while training": (4, 3),
    "signal while answering": (3, 3),
    "signal while rendering a report": (3, 4),
    "full disk": (3, 3),
    "damaged or foreign file": (8, 12),
    "foreign folder, whole in itself": (1, 2),
    "two processes on one store": (1, 2),
    "clock that jumps": (1, 2),
}
"""Their shares of a campaign, and the fewest of each: as many as it takes for every signal, every file with every harm, and both of two."""
FILES = ("*/adapter/*", "*/*.json*", "*/rows/*/*")
"""What of a finished store is damaged."""
TRIES = 20
"""How often a fault is drawn until it is one: a signal may come too late, and a damage do no harm."""


Fault = tuple[str, str | None]
"""What it was, and what was wrong afterwards."""


def wanted(kind: str, count: int) -> int:
    """Returns how many faults of a kind are injected in a campaign of about `count`."""
    share, fewest = KINDS[kind]
    return max(fewest, round(count * share / sum(share for share, _ in KINDS.values())))


def experiment(model: str):
    """Returns the smallest experiment with two stages, asked in two ways only."""
    from pbb_helpers.data.budget import Budget
    from pbb_helpers.data.conditions import CONDITIONS
    from pbb_helpers.data.plan import Experiment
    from pbb_helpers.data.settings import TrainSettings

    CONDITIONS["proactive"] = replace(CONDITIONS["proactive"], modes=("direct", "source"))
    settings = TrainSettings(rank=2, alpha=4, batch_size=4, dropout=0.1, dtype="float32", checkpoint_every=2, log_every=1)
    budget = Budget(settings, replace(settings, lr=1e-3), stage1_steps=6, stage2_steps=4)
    return Experiment(
        model=model, family_settings=(("max_statements", 1),), conditions=("proactive",), n_with_io=4, n_without_io=2, n_eval_inputs=4,
        inputs_per_program=1, n_with_io_asked=2, budget=budget,
    )  # fmt: skip


class Campaign:
    """Draws and injects faults; `reference` is a store of a run without any, `table` its rows."""

    def __init__(self, model: str, folder: Path, seed: int, mount: bool) -> None:
        self.plan, self.folder, self.draws = experiment(model), folder, random.Random(seed)
        self.reference, self.root, self.number = folder / "reference", folder / "small" / "store", 0
        self.root.parent.mkdir()
        self.mounted = (
            mount and not subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(self.root.parent)], capture_output=True).returncode
        )
        self.plan.dataset(0)  # drawn once, before the forks
        self.seconds, self.writes = self.measured(lambda: self.everything(self.reference))
        self.table = self.table_of(self.reference)
        self.trained = self.copy(self.reference, folder / "trained")
        for rows in self.trained.glob("*/rows"):
            shutil.rmtree(rows)
        self.start(self.trained)
        self.answering, self.answer_writes = self.measured(lambda: self.everything(self.root))
        self.training_writes = len(self.writes) - len(self.answer_writes)
        self.halfway = folder / "halfway"  # killed in stage 2, with checkpoints
        point = self.point_after("checkpoint-2", 2)
        assert forked(lambda: (faults.kill_at_write(point), self.everything(self.halfway)))[0] == -signal.SIGKILL
        assert list(self.halfway.glob("*/checkpoint-2")), "the campaign wants a checkpoint to damage"

    # --- work ---------------------------------------------------------------------------------------------------------------

    def everything(self, root: Path) -> None:
        """Runs the experiment in this process and leaves its table; tells what it finishes."""
        from pbb_helpers.experiments.jobs import jobs, run_job

        self.tell(root)
        rows = [row for job in jobs(self.plan) for row in run_job(job, root)[0]]
        (self.folder / f"{root.name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def tell(self, root: Path) -> None:
        """Has this process write down every stage and set of rows, with its hash, as soon as the store says that it is finished."""
        from pbb_helpers.training.store import Store, digest, jsonl

        finish, save_rows = Store.finish, Store.save_rows
        # No fsync, which would count as a write of the store's: what reads this is a process of the same machine, which is not killed.
        handle = os.open(self.log(root), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

        def line(folder: Path, key: str) -> None:
            os.write(handle, f"{os.getpid()} {folder.relative_to(root).as_posix()} {key}\n".encode())

        def finish_and_tell(store: Store, key: str, *rest) -> None:
            finish(store, key, *rest)
            line(store.folder(key), self.results(store.folder(key)))

        def save_and_tell(store: Store, key: str, evaluation_key: str, rows: list[dict]) -> Path:
            path = save_rows(store, key, evaluation_key, rows)
            line(path.parent, digest([], jsonl(rows).encode().hex()))  # not from the disk: another process may be replacing it
            return path

        Store.finish, Store.save_rows = finish_and_tell, save_and_tell

    def log(self, root: Path) -> Path:
        return self.folder / f"{root.name}.finished"

    def told(self) -> list[tuple[str, str, str]]:
        """Returns process, name and hash of everything that was finished in the store since `start`, in order."""
        lines = self.log(self.root).read_text().splitlines() if self.log(self.root).is_file() else []
        return [tuple(line.split()) for line in lines]

    def measured(self, work: Callable[[], object]) -> tuple[float, list[str]]:
        """Returns the seconds and the writes (see `faults.at_write`) of work that no fault disturbs."""
        log = self.folder / "writes"

        def counted() -> None:
            writes = faults.at_write(None, print)
            work()
            log.write_text(json.dumps(writes))

        began = time.perf_counter()
        assert forked(counted) == (0, "")
        return time.perf_counter() - began, json.loads(log.read_text())

    def point_after(self, name: str, occurrence: int) -> int:
        """Returns the number of the first write after the `occurrence`-th folder called `name` was put in its place, from an empty store."""
        return [number for number, write in enumerate(self.writes, 1) if write == f"rename {name}"][occurrence - 1] + 1

    def table_of(self, root: Path) -> bytes:
        return (self.folder / f"{root.name}.jsonl").read_bytes()

    @staticmethod
    def copy(source: Path, target: Path) -> Path:
        shutil.rmtree(target, ignore_errors=True)
        return shutil.copytree(source, target)

    def start(self, source: Path | None = None) -> dict[str, str]:
        """Makes the store a copy of `source`, or an empty one; returns the hashes of what is finished in it."""
        self.log(self.root).unlink(missing_ok=True)
        self.copy(source, self.root) if source else shutil.rmtree(self.root, ignore_errors=True)
        return hashes(self.finished(self.root))

    @staticmethod
    def results(folder: Path) -> str:
        """Returns a hash of what a stage or a set of rows is: its adapter or rows, and its losses."""
        from pbb_helpers.training.store import digest, read_metrics

        files = [path for path in (folder / "rows.jsonl", *sorted(folder.glob("adapter/*.safetensors"))) if path.is_file()]
        return digest([line | {"seconds": None} for line in read_metrics(folder)], *(path.read_bytes().hex() for path in files))

    def finished(self, root: Path) -> dict[str, tuple[str, int]]:
        """Returns, for each whole finished stage and set of rows, a hash of its results and the time of its manifest."""
        from pbb_helpers.training.store import Store

        store, found = Store(root), {}
        for manifest in sorted((*root.glob("*/manifest.json"), *root.glob("*/rows/*/manifest.json"))):
            folder = manifest.parent
            if "damaged" not in folder.name and store.damage(folder) is None:
                found[folder.relative_to(root).as_posix()] = (self.results(folder), manifest.stat().st_mtime_ns)
        return found

    # --- checks -------------------------------------------------------------------------------------------------------------

    def check(self, before: dict[str, str], *, gone: str = "", says: str = "") -> str | None:
        """Returns what is wrong after a fault, or None; reruns, which must say `says`. `gone` is what the fault itself destroyed.

        What has to be there is what was finished `before`, and what the faulty processes told since; what they were at may be there.
        """
        told, truth, kept = self.told(), hashes(self.finished(self.reference)), self.finished(self.root)
        finished = before | {name: key for _, name, key in told}
        if lost := [name for name in finished if name != gone and name not in kept]:
            return f"lost: {lost}"
        if wrong := sorted({name for name, key in (*finished.items(), *hashes(kept).items()) if truth.get(name) != key}):
            return f"wrong bytes: {wrong}"
        if again := [name for number, (process, name, _) in enumerate(told) if name in before or repeated(process, name, told[:number])]:
            return f"done again though it was finished: {again}"
        (self.folder / f"{self.root.name}.jsonl").unlink(missing_ok=True)
        status, err = forked(lambda: self.everything(self.root))
        if status != 0 or "Traceback" in err:
            return f"the rerun ended with {status}: {err[-1500:]}"
        if says not in err:
            return f"the rerun did not say {says!r}: {err[-1500:]}"
        if self.table_of(self.root) != self.table:
            return "the rerun gave another table"
        after = self.finished(self.root)
        if hashes(after) != truth:
            return "the store differs from that of a run without faults"
        if again := [name for name in kept if name != gone and after[name] != kept[name]]:
            return f"done again though it was finished: {again}"
        left = [
            path
            for path in self.root.rglob("*")
            if path.name.endswith(".tmp") or path.name.startswith("checkpoint-") and path.name[11:].isdecimal()
        ]
        return f"left behind: {left}" if left else None

    # --- faults -------------------------------------------------------------------------------------------------------------

    def run(self, count: int) -> Iterator[dict]:
        """Yields a line per fault that was one, as many of each kind as `wanted`."""
        methods = (self.training, self.answers, self.rendering, self.disk, self.damage, self.foreign_folder, self.two, self.clock)
        for kind, inject in zip(KINDS, methods, strict=True):
            for self.number in range(wanted(kind, count)):
                began = time.perf_counter()
                tries = (inject() for _ in range(TRIES))
                what, bad = next(filter(None, tries), ("nothing", f"no fault in {TRIES} tries"))
                yield {"kind": kind, "what": what, "bad": bad, "seconds": round(time.perf_counter() - began, 2)}

    def training(self) -> Fault | None:
        """A signal at a random moment or write, from an empty store."""
        return self.interrupted(None, self.seconds - self.answering, self.training_writes)

    def answers(self) -> Fault | None:
        """A signal at a random moment or write while the trained model answers."""
        return self.interrupted(self.trained, self.answering, len(self.answer_writes))

    def interrupted(self, source: Path | None, seconds: float, writes: int) -> Fault | None:
        number = faults.SIGNALS[self.number % 3]
        name = signal.Signals(number).name
        before = self.start(source)
        if self.number % 2:
            point = self.draws.randrange(1, writes)
            what = f"{name} at write {point}"
            status, err = forked(functools.partial(self.killed_at, point, number))
        else:
            after = self.draws.uniform(0.02, 0.9) * seconds
            what = f"{name} after {after:.2f} s"
            status, err = forked(lambda: self.everything(self.root), number=number, after=after)
        if status == 0:  # it had ended before the signal came
            return None
        if status != (130 if number == signal.SIGINT else -number):
            return what, f"ended with {status}, not by the signal: {err[-1500:]}"
        return what, self.check(before)

    def killed_at(self, point: int, number: int) -> None:
        faults.kill_at_write(point, number)
        self.everything(self.root)

    def disk(self) -> Fault:
        """No space from a random write on: injected, and on a real small file system where mounting is allowed."""
        from_start = self.number % 2
        before = self.start(None if from_start else self.trained)
        if self.mounted and self.number % 3:
            room = int(self.draws.uniform(0.02, 0.9) * (blocks(self.reference) - blocks(self.root)) // 4096 * 4096)
            self.resize(blocks(self.root) + room)
            status, err = forked(lambda: self.everything(self.root))
            self.resize(2**28)
            what = f"a file system with {room} bytes left"
        else:
            point = self.draws.randrange(1, self.training_writes if from_start else len(self.answer_writes))
            status, err = forked(lambda: (faults.at_write(point, faults.full_disk), self.everything(self.root)))
            what = f"ENOSPC from write {point} on"
        if status != 2 or "no space left on the disk of" not in err or err.count("\n") != 1:
            return what, f"ended with {status}: {err[-1500:]}"
        return what, self.check(before)

    def resize(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.root.parent)], check=True)

    def damage(self) -> Fault | None:
        """One file of a finished or, every fourth time, unfinished store is cut, has a bit turned, or is something else: each harm to each."""
        from pbb_helpers.training.store import NOTES, Store, note_damage

        halfway = self.number % 4 == 3
        before = self.start(self.halfway if halfway else self.reference)
        number = self.number // 4 if halfway else self.number - self.number // 4
        pattern = "*/checkpoint-*/*" if halfway else FILES[number % 3]
        harm = faults.HARMS[number % 3 if halfway else number // 3 % 3]
        path = self.draws.choice(sorted(path for path in self.root.glob(pattern) if path.is_file()))
        old = path.read_bytes()
        harm(path, self.draws)
        what = f"{harm.__name__} {pattern}: {path.relative_to(self.root).as_posix()}"
        if path.read_bytes() == old:
            return None
        # What lies below rows/ is an answer's folder; else the stage's.
        parts = path.relative_to(self.root).parts
        folder = "/".join(parts[:3] if parts[1] == "rows" else parts[:2] if halfway else parts[:1])
        damage = note_damage(path) if folder == NOTES else Store(self.root).damage(self.root / folder)
        harmless = damage is None  # a blank in a manifest that became another, or the end of a note's line cut off
        bad = self.check(before, gone=folder, says="" if harmless else "is damaged")
        return None if harmless and bad is None else (what, bad)

    def foreign_folder(self) -> Fault:
        """A checkpoint or answers of something else, with a manifest that fits them."""
        if self.number % 2:
            before = self.start(self.reference)
            one, other = self.draws.sample(sorted(self.root.glob("*/rows/*")), 2)
        else:
            before = self.start(self.halfway)
            one = next(self.root.glob("*/checkpoint-2"))
            other = self.folder / "foreign"
            shutil.rmtree(other, ignore_errors=True)
            self.another_checkpoint(one, other)
        shutil.rmtree(one)
        shutil.copytree(other, one)
        gone = one.relative_to(self.root).as_posix()
        return f"{gone} is that of {other.name}", self.check(before, gone=gone, says="is damaged: manifest.json is that of")

    def another_checkpoint(self, one: Path, other: Path) -> None:
        """Writes what another training of the same shape would have left: other weights, whole."""
        from safetensors.torch import load_file, save_file

        from pbb_helpers.disk import write_manifest

        shutil.copytree(one, other)
        weights = load_file(other / "state.safetensors")
        save_file({name: tensor * 2 for name, tensor in weights.items()}, other / "state.safetensors")
        write_manifest(other, [path for path in sorted(other.iterdir())], "0123456789abcdef/checkpoint-2")

    def two(self) -> Fault | None:
        """Two processes on one store; every second time one of them is killed."""
        before = self.start()

        def work() -> None:
            self.everything(self.root)

        pid = os.fork()
        if pid == 0:
            os._exit(faults._status(work))
        after = self.draws.uniform(0.1, 0.9) * self.seconds if self.number % 2 else None
        status, err = forked(work, number=signal.SIGKILL, after=after)
        other = faults._wait(pid, 300)
        what = "two at once" + (f", one killed after {after:.2f} s" if after else "")
        if other != 0 or status not in ((0,) if after is None else (0, -signal.SIGKILL)):
            return what, f"ended with {other} and {status}: {err[-1500:]}"
        if after and status == 0:  # it had ended before the signal came
            return None
        if self.table_of(self.root) != self.table:
            return what, "another table"
        return what, self.check(before)

    def clock(self) -> Fault:
        """The clock jumps by up to ten years in both directions while it runs; it is killed, and its files are from another time."""
        before = self.start()
        real, jumps = time.time, random.Random(self.draws.random())
        point = self.draws.randrange(10, self.training_writes)

        def work() -> None:
            time.time = lambda: real() + jumps.uniform(-3e8, 3e8)
            time.gmtime = lambda seconds=None, gmtime=time.gmtime: gmtime(time.time() if seconds is None else seconds)
            faults.kill_at_write(point)
            self.everything(self.root)

        status, err = forked(work)
        if status != -signal.SIGKILL:
            return "jumps", f"ended with {status}: {err[-1500:]}"
        shift = jumps.choice([-3e8, 3e8])
        for path in self.root.rglob("*"):
            os.utime(path, (real() + shift, real() + shift))
        return f"jumps, killed at write {point}, files {shift / 3e7:+.0f} years", self.check(before)

    # --- reports ------------------------------------------------------------------------------------------------------------

    def rendering(self) -> Fault | None:
        """A signal or a full disk at a random moment of rendering: a page is whole or not there."""
        from pbb_helpers.sharing.report_index import render_all

        runs, reports = self.folder / "runs", self.folder / "reports"
        if not runs.is_dir():
            write_runs(runs)
            self.render_seconds, self.render_writes = self.measured(lambda: render_all(runs, self.folder / "pages"))
        shutil.rmtree(reports, ignore_errors=True)
        whole = {path.relative_to(self.folder / "pages"): path.read_bytes() for path in (self.folder / "pages").rglob("*.html")}
        if self.number % 4 == 3:
            point = self.draws.randrange(1, len(self.render_writes))
            what, expected = f"ENOSPC from write {point} on", 2
            status, err = forked(lambda: (faults.at_write(point, faults.full_disk), render_all(runs, reports)))
            if "no space left on the disk" not in err:
                return what, err[-1500:]
        else:
            number = faults.SIGNALS[self.number % 4]
            expected = 130 if number == signal.SIGINT else -number
            after = self.draws.uniform(0.02, 0.9) * self.render_seconds
            what = f"{signal.Signals(number).name} after {after:.2f} s"
            status, err = forked(lambda: render_all(runs, reports), number=number, after=after)
            if status == 0:  # it had ended before the signal came
                return None
        if status != expected:
            return what, f"ended with {status}: {err[-1500:]}"
        if wrong := [path for path in reports.rglob("*.html") if path.read_bytes() != whole[path.relative_to(reports)]]:
            return what, f"half a page, or another: {wrong}"
        status, err = forked(lambda: render_all(runs, reports))
        again = {path.relative_to(reports): path.read_bytes() for path in reports.rglob("*.html")}
        return what, None if (status, again) == (
            0,
            whole,
        ) else f"the second rendering ended with {status}, pages {sorted(again)}: {err[-1500:]}"


def hashes(found: dict[str, tuple[str, int]]) -> dict[str, str]:
    """Returns what `Campaign.finished` found, without the times."""
    return {name: key for name, (key, _) in found.items()}


def repeated(process: str, name: str, earlier: list[tuple[str, str, str]]) -> bool:
    """Returns whether this was finished earlier; two processes may have answered the same questions at once, but trained no stage twice."""
    return any(name == other and ("/rows/" not in name or process == its) for its, other, _ in earlier)


def blocks(folder: Path) -> int:
    """Returns the bytes that the files of a folder take on a disk of whole pages."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


def write_runs(folder: Path) -> None:
    """Writes two finished runs, as `pbb run` leaves them."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

    from pbb_helpers.running.run_record import RunResult, seal

    for name in ("one", "two"):
        run = folder / name / "0123456789ab"
        run.mkdir(parents=True)
        output = new_output("stream", name="stdout", text="x = 5 + 3 = 8\n" * 200)
        cells = [new_markdown_cell(f"# {name}\n\nA question."), new_code_cell("print(1)", outputs=[output])]
        for cell, number in zip(cells, "ab", strict=True):
            cell["id"] = number
        nbformat.write(new_notebook(cells=cells), run / f"{name}.ipynb")
        record = {"notebook": name, "status": "completed", "key": run.name, "parameters": {}, "started": f"2026-01-0{len(name)}T00:00:00"}
        (run / "run.json").write_text(json.dumps(record))
        seal(RunResult(run, record))


def main() -> None:
    model, folder, count, seed, mount = sys.argv[1:]
    import nbconvert  # noqa: F401 - once, before the forks
    import peft  # noqa: F401
    import torch

    torch.set_num_threads(1)
    from pbb_helpers.training import evaluate, models, train  # noqa: F401

    models.load(model, device="cpu")
    for line in Campaign(model, Path(folder), int(seed), mount == "mount").run(int(count)):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
