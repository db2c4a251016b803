"""What notebook 90 asks a GPU for, without a notebook: `python -m pbb_helpers.performance.gpu --out DIR`.

The most important comes first, and each row is written as soon as it is measured: a run that is killed keeps what it has. It needs torch,
transformers, peft and pandas alone; what else is missing is left out, and said.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pbb_helpers.performance import benchmark, gate, measurements, profiling
from pbb_helpers.performance import performance_findings as findings
from pbb_helpers.performance.performance_plan import Plan, missing, plan_of
from pbb_helpers.performance.random_models import SHAPES, random_model, too_large
from pbb_helpers.performance.tasks import Task
from pbb_helpers.performance.workloads import documents
from pbb_helpers.programs import UsageError
from pbb_helpers.provenance import provenance

PARTS = ("gate", "shapes", "seeds", "profiles", "training", "evaluation")
"""In the order of their importance; the gate takes seconds, and is held whatever is asked for: without it nothing may be compared."""
SPEEDS = ("examples_per_s", "tokens_per_s", "of_peak", "peak_mb")


class Output:
    """What was measured so far, and the folder in which it lies line by line.

    Raises:
        UsageError: The folder holds an earlier run.
    """

    def __init__(self, folder: Path) -> None:
        if list(folder.glob("*.jsonl")):
            raise UsageError(f"{folder} holds what an earlier run measured; give another folder")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        self.profiles: dict[str, pd.DataFrame] = {}
        self.agreement: dict[str, float] = {}
        self.device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"

    def write(self, name: str, lines: Sequence[Mapping[str, Any]]) -> None:
        """Appends lines to NAME.jsonl; what is no number is null."""
        with (self.folder / f"{name}.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({key: None if value != value else value for key, value in line.items()}) + "\n" for line in lines)

    def row(self, row: dict[str, Any]) -> None:
        """Keeps and writes one run of an arm."""
        self.rows.append(row | {"device": self.device})
        self.write("rows", self.rows[-1:])
        print(f"  {row['suite']}, {row['arm']}, {row['phase']} {row['round']}: {row['seconds']:.3f} s", flush=True)

    def profile(self, found: Mapping[str, pd.DataFrame]) -> None:
        """Keeps and writes where the time went, by suite."""
        self.profiles |= found
        for suite, table in found.items():
            self.write("profiles", table.assign(suite=suite).to_dict("records"))

    def table(self, plan: Plan) -> str:
        """Returns medians, ratios and goals as text."""
        if not self.rows:
            return "Nothing was measured."
        rows = pd.DataFrame(self.rows)
        medians = [benchmark.summary(rows, value, ["suite", "arm"]).set_index(["suite", "arm"])["median"].rename(value) for value in SPEEDS]
        ratios = findings.results(rows)
        ratios.to_csv(self.folder / "results.csv", index=False)
        said = findings.sentences(ratios, self.profiles, missing(plan), self.agreement)
        return "\n\n".join([pd.concat(medians, axis=1).to_string(), ratios.to_string(index=False), "\n".join(said)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0 if all that this machine can measure was measured, else 1.

    A gate that fails ends it: what was measured before is kept, and nothing more is compared.
    """
    command = parser()
    given = command.parse_args(arguments)
    changes: dict[str, Any] = {"threads": (given.threads,), "steps": given.steps, "short": given.steps}
    changes |= {name: value for name in ("rounds", "stacked") if (value := getattr(given, name)) is not None}
    changes |= {"shapes": tuple(given.shapes)} if given.shapes is not None else {}
    try:
        from pbb_helpers.training import models

        if torch.cuda.device_count() > 1:  # transformers would put its arms on all of them, and ours takes one
            raise UsageError(f"{torch.cuda.device_count()} GPUs are visible; show one: set CUDA_VISIBLE_DEVICES=0")
        plan, out = plan_of(given.model, "quick", **changes), Output(given.out)
        loaded = models.load(plan.model)
    except (UsageError, OSError) as error:
        command.error(str(error))
    (given.out / "machine.json").write_text(json.dumps({"device": out.device, "plan": repr(plan)} | provenance(), indent=1) + "\n")
    for absent in missing(plan):
        print(f"not measured: {absent.name}: {absent.why}")
    done = []
    for name, part in _parts(plan, loaded, out, given.only).items():
        done.append(_done(name, part))
        if not done[-1] and name.startswith("gate"):
            print(f"stopped: the {name} does not hold, so nothing more is measured", flush=True)
            break
    print(out.table(plan))
    return 0 if all(done) else 1


def _parts(plan: Plan, loaded: Any, out: Output, only: Sequence[str]) -> dict[str, Callable[[], Any]]:
    """Returns what is to be done, in its order: of the parts those in `only`, each shape after a gate of its own."""
    shapes = [name for name in plan.shapes if not too_large(name)]

    def both_models() -> None:
        out.write("gate", gate.gate(Task(loaded, documents(plan, min(plan.steps, 4)))).to_dict("records"))
        out.write("gate", gate.one_batch(Task(random_model(plan.large, loaded), documents(plan, 1))).to_dict("records"))

    def gate_of(name: str) -> None:
        out.write("gate", measurements.shape_gate(plan, name, loaded).to_dict("records"))

    def evaluation() -> None:
        out.agreement = measurements.evaluation(plan, loaded, out.row)[1]

    measured: dict[str, Callable[[], Any]] = {}
    for name in shapes:
        measured |= {f"gate, {name}": functools.partial(gate_of, name)} if {"gate", "shapes"} & set(only) else {}
        measured[f"shapes, {name}"] = functools.partial(measurements.shape, plan, name, loaded, out.row)
    measured |= {
        "seeds": lambda: measurements.seeds(plan, loaded, out.row),
        **{f"profiles, {name}": lambda name=name: out.profile(profiling.profiled_shape(plan, name, loaded)) for name in shapes},  # type: ignore[misc]
        "profiles, seeds": lambda: out.profile(profiling.profiled_stack(plan, loaded)),
        "training": lambda: measurements.training(plan, loaded, out.row),
        "evaluation": evaluation,
    }
    return {"gate": both_models} | {name: part for name, part in measured.items() if name.split(",")[0] in (*only, "gate")}


def _done(name: str, part: Callable[[], Any]) -> bool:
    """Returns whether a part ran to its end; one that fails is said, and the next may go well."""
    print(f"{name}:", flush=True)
    try:
        part()
    except Exception as error:
        if not isinstance(error, UsageError | torch.cuda.OutOfMemoryError):
            traceback.print_exc()
        print(f"not measured: {name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", flush=True)
        return False
    return True


def parser() -> argparse.ArgumentParser:
    """Returns what reads the command line."""
    command = argparse.ArgumentParser(prog="python -m pbb_helpers.performance.gpu", description=__doc__)
    command.add_argument("--out", type=Path, required=True, help="a folder: rows.jsonl and what else is found")
    command.add_argument("--model", default="pbb-small", help="the shipped model that is stacked, trained and asked")
    command.add_argument("--shapes", nargs="*", metavar="NAME", help=f"of {', '.join(SHAPES)}; by default the large ones on a GPU")
    command.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, help="what is measured beside the gate; by default all, in this order"
    )
    command.add_argument("--rounds", type=int, help="each arm runs once in each")
    command.add_argument("--steps", type=int, default=Plan.steps, help="of one run")
    command.add_argument("--threads", type=int, default=2, help="of torch on the CPU")
    command.add_argument("--stacked", type=int, help="seeds trained together")
    return command


if __name__ == "__main__":
    sys.exit(main())
