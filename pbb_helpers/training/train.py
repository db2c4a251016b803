"""One stage of finetuning: batches, loss, loop, resume.

On a CPU with a fixed number of threads a run that was killed and resumed gives the very bits of one that was not: the order of the
batches and the dropout of a step follow from the seed, and the rest of the state lies in the checkpoint.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pbb_helpers.processes import release_memory
from pbb_helpers.programs import UsageError, did_you_mean
from pbb_helpers.provenance import provenance
from pbb_helpers.training import models, parallel
from pbb_helpers.training.batches import Batch as Batch
from pbb_helpers.training.batches import Encoded, batches
from pbb_helpers.training.loss import autocast, loss
from pbb_helpers.training.merged import inputs_as_they_are, merged_forward
from pbb_helpers.training.models import LoadedModel
from pbb_helpers.training.store import Store, digest

if TYPE_CHECKING:
    from pbb_helpers.data.settings import Stage, TrainSettings

WINDOW = 16
"""Batches that are sorted by length together."""
SAME_ADAPTER = ("method", "rank", "alpha", "dropout")
"""Settings that a stage shares with the one it goes on from."""


class Diverged(UsageError):
    """A loss or gradient is no number any more; `number` is the place of the training in a stack."""

    number = 0


def train_stage(
    loaded: LoadedModel, stage: Stage, *, store: Store, parent: str | None = None, on_progress: Callable[[dict], None] | None = None
) -> str:
    """Returns the key under which the store holds the trained stage; trains only what is not there yet.

    Args:
        loaded: The base model; it is left as it is.
        stage: Its examples are trained in their order.
        store: Where checkpoints and results go. A killed training goes on from its last whole checkpoint. Under `accelerate launch` each
            process calls this with the same arguments, and takes its part of every batch; see `parallel`.
        parent: Key of the finished stage whose adapter is trained further; None starts a fresh adapter on the base model.
        on_progress: Gets, every `log_every` steps, a dict of step, steps, loss (mean since the last, nats per token), lr, grad_norm (before
            clipping), tokens and examples (so far, without padding), seconds. The same lines become metrics.jsonl.

    Raises:
        UsageError: The stage does not fit its parent, an example is too long, or the disk is full.
        Diverged: The loss or the norm of the gradient is not finite.
    """
    dtype = resolve_dtype(stage.settings.dtype, loaded.model.device)
    key = store.stage_key(parent or loaded.key, stage, str(dtype).removeprefix("torch."))
    if stage.settings.dropout and (world := parallel.processes()[1]) > 1:
        key = digest(key, f"in {world} processes")  # each draws masks of its own: another result than that of one
    gpus = [loaded.model.device] if loaded.model.device.type == "cuda" else []
    store = parallel.view(store)
    with store.locked(key), torch.random.fork_rng(gpus):
        if not parallel.agree(store.is_done(key)):
            tell = on_progress if parallel.processes()[0] == 0 else None
            Training(loaded, stage, store, key, parent, dtype).run(tell or (lambda line: None))
        store.drop_checkpoints(key)  # a process may have been killed just before it did
    return parallel.agree(key)  # not before the first process has written it


def load_stage(loaded: LoadedModel, store: Store, key: str, *, merge: bool = False) -> Any:
    """Returns the model of a finished stage, in eval mode; of the base model's own key the base model.

    Args:
        loaded: The base model the stage was trained on; it is left as it is.
        merge: Whether the adapter is folded into a copy of the weights: faster to generate with.

    Raises:
        UsageError: There is no such stage, or it is damaged (then it is set aside and can be trained again).
    """
    if key == loaded.key:
        return loaded.model
    folder = store.folder(key) / "adapter"
    _require_done(store, key)
    model = models.load_adapter(fresh(loaded.model, share=is_lora(folder)), folder, trainable=False).eval()
    return models.merged(model).eval() if merge else model


def fresh(model: Any, *, share: bool) -> Any:
    """Returns a copy of the base model for an adapter to change; `share`: with the same weights in memory, which LoRA never writes."""
    memo: dict[int, Any] = {}
    if share:
        memo = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, memo)


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Returns the dtype to compute in: "auto" is bfloat16 where the processor multiplies it natively, else float32."""
    valid = {"bfloat16": torch.bfloat16, "float32": torch.float32}
    if name != "auto":
        if name not in valid:
            raise did_you_mean("dtype", name, ["auto", *valid])
        return valid[name]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = any(getattr(torch.cpu, f"_is_{unit}_supported", bool)() for unit in ("avx512_bf16", "amx_tile"))
    return torch.bfloat16 if native else torch.float32


def learning_rate(settings: TrainSettings, step: int, steps: int) -> float:
    """Returns the rate of a step, 1 to `steps`: a linear warm-up, then the decay, which ends just above zero.

    Raises:
        UsageError: There is no such decay.
    """
    warm = round(settings.warmup * steps)
    if step <= warm:
        return settings.lr * step / warm
    left = (steps - step + 1) / (steps - warm)
    shapes = {"constant": 1.0, "linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2}
    if settings.decay not in shapes:
        raise did_you_mean("decay", settings.decay, shapes)
    return settings.lr * shapes[settings.decay]


def order_generator(settings: TrainSettings) -> torch.Generator:
    """Returns the generator from which the order of a stage's batches is drawn."""
    return torch.Generator().manual_seed(_seed(settings.seed if settings.order_seed is None else settings.order_seed, "order"))


def exposures(stage: Stage) -> list[dict]:
    """Returns, for each group and kind of document, how many programs and documents there are, and documents per program."""
    counts = Counter((e.group, e.kind, e.program) for e in stage.examples)
    table: dict[tuple[str, str], list[int]] = {}
    for (group, kind, _), n in counts.items():
        table.setdefault((group, kind), []).append(n)
    return [
        {"group": g, "kind": k, "programs": len(n), "documents": sum(n), "min": min(n), "mean": statistics.fmean(n), "max": max(n)}
        for (g, k), n in sorted(table.items())
    ]


def is_lora(folder: Path) -> bool:
    """Returns whether an adapter's folder holds a peft adapter, not a whole model."""
    return (folder / models.ADAPTER_CONFIG).is_file()


def _require_done(store: Store, key: str) -> None:
    if not store.is_whole(key):
        raise UsageError(f"{store.folder(key)} holds no finished stage; run the same command again to train it")


def _seed(*parts: Any) -> int:
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:7])


@dataclass
class _State:
    """What a checkpoint holds beside tensors: the steps done, the seconds they took, the lines logged."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    examples: int = 0
    lines: list[dict] = field(default_factory=list)


class Training:
    """One stage being trained: what it starts from, its batches, its state. `stacked` trains several of them in one forward pass."""

    def __init__(
        self, loaded: LoadedModel, stage: Stage, store: Store, key: str, parent: str | None, dtype: torch.dtype, **notes: Any
    ) -> None:
        self.loaded, self.stage, self.store, self.key, self.parent, self.dtype = loaded, stage, store, key, parent, dtype
        self.settings, self.device = stage.settings, loaded.model.device
        self.notes = notes  # further facts for config.json
        self.finished = False  # in a stack one may be while others are not: it goes along, but what it wrote stays as it is
        self.encoded = self._encode()
        self.steps = -(-len(self.encoded) // self.settings.batch_size)
        self.mean_tokens = sum(len(prompt) + len(completion) for prompt, completion in self.encoded) // self.steps
        self.model = self._build()
        self.trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.optimizer = self._optimizer()
        self.state = _State()
        self.running = torch.zeros((), device=self.device)  # sum of the losses since the last line; kept here to sync rarely

    def run(self, on_progress: Callable[[dict], None]) -> None:
        """Trains the stage from its last checkpoint to its end, on its own."""
        self.begin(parallel.agree(self.store.last_checkpoint(self.key)))
        casts = inputs_as_they_are(self.model) if self.dtype != torch.float32 else nullcontext()
        with merged_forward(self.model, self.mean_tokens), casts:
            self._loop(on_progress)
        self.finish()

    def _loop(self, on_progress: Callable[[dict], None]) -> None:
        weights = list(self.trained.values())
        for batch in self.plan():
            rate = self.next_step(batch)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            torch.manual_seed(_seed(self.settings.seed, "dropout", self.state.step, *parallel.number()))
            value = parallel.backward(batch, weights, self._loss)
            norm = nn.utils.clip_grad_norm_(weights, self.clip, foreach=True)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.record(value, norm, rate, on_progress)

    # --- the parts of a run -----------------------------------------------------------------------------------------------

    def begin(self, checkpoint: tuple[int, Path] | None) -> None:
        """Gets ready for the step after the checkpoint's, or for the first."""
        if not self.finished:
            self.store.write_config(self.key, self._config())
        if checkpoint is not None:
            self._restore(*checkpoint)
        if not self.finished:
            self.store.start_metrics(self.key, self.state.lines)
        self.model.train()
        self.began = time.perf_counter() - self.state.seconds

    def plan(self) -> Iterator[Batch]:
        """Yields the batches that are left, in their order."""
        order = order_generator(self.settings)
        return itertools.islice(batches(self.encoded, self.settings.batch_size, WINDOW, order), self.state.step, None)

    def next_step(self, batch: Batch) -> float:
        """Counts a step, and returns its learning rate."""
        state = self.state
        state.step += 1
        state.tokens, state.examples = state.tokens + batch.tokens, state.examples + len(batch)
        return learning_rate(self.settings, state.step, self.steps)

    def record(self, value: Tensor, norm: Tensor, rate: float, on_progress: Callable[[dict], None]) -> None:
        """Ends a step of that loss, norm of the gradient and learning rate: writes the log and checkpoints when they are due."""
        state, settings = self.state, self.settings
        self.running += value
        state.seconds = time.perf_counter() - self.began
        if state.step % settings.log_every == 0 or state.step == self.steps:
            self._log(rate, norm, on_progress)
        if state.step % settings.checkpoint_every == 0 and state.step < self.steps:
            self.store.save_checkpoint(self.key, state.step, self._write_checkpoint)

    def finish(self) -> None:
        """Writes the results, and marks the stage as finished."""
        if self.finished:
            return
        config = self._config() | {"finished": _now(), "seconds": round(self.state.seconds, 1)}
        self.store.finish(self.key, config, self.state.lines, lambda folder: models.save_adapter(self.model, folder))

    @property
    def clip(self) -> float:
        """The largest norm of a gradient."""
        return self.settings.clip if self.settings.clip > 0 else math.inf

    def _loss(self, batch: Batch) -> Tensor:
        with autocast(self.device, self.dtype):
            return loss(self.model, batch.to(self.device))

    def _require_finite(self, norm: Tensor) -> None:
        for what, value in zip(("loss", "norm of the gradient"), torch.stack([self.running, norm]).tolist(), strict=True):
            if not math.isfinite(value):
                raise Diverged(
                    f"the {what} of {self.stage.name} is {value} by step {self.state.step}; lower lr (now {self.settings.lr}) or raise warmup"
                )

    def _log(self, rate: float, norm: Tensor, on_progress: Callable[[dict], None]) -> None:
        state = self.state
        mean = self.running.item() / (state.step - (state.lines[-1]["step"] if state.lines else 0))
        state.seconds = time.perf_counter() - self.began  # not before: a GPU goes on after it was asked, and `item` waits for it
        self._require_finite(norm)
        self.running.zero_()
        counts = {"tokens": state.tokens, "examples": state.examples, "seconds": round(state.seconds, 3)}
        line = {"step": state.step, "steps": self.steps, "loss": mean, "lr": rate, "grad_norm": norm.item(), **counts}
        state.lines.append(line)
        if not self.finished:
            self.store.append_metrics(self.key, line)
        release_memory()
        on_progress(dict(line))

    # --- what it starts from --------------------------------------------------------------------------------------------

    def _encode(self) -> list[Encoded]:
        unique = {example: models.encode(self.loaded.tokenizer, example) for example in dict.fromkeys(self.stage.examples)}
        if not unique:
            raise UsageError(f"{self.stage.name} has no examples; a stage needs at least one")
        longest = max(unique, key=lambda example: sum(map(len, unique[example])))
        if (length := sum(map(len, unique[longest]))) > self.settings.max_length:
            raise UsageError(
                f"{self.stage.name}: the {longest.kind} document of {longest.program} has {length} tokens, more than max_length "
                f"{self.settings.max_length}; raise max_length or use shorter programs"
            )
        return [unique[example] for example in self.stage.examples]

    def _build(self) -> Any:
        settings, tokenizer = self.settings, self.loaded.tokenizer
        base = fresh(self.loaded.model, share=settings.method == "lora")
        if settings.method == "full":
            base = base.float()
        if self.parent is None:
            return models.add_adapter(base, settings, self.stage.names, tokenizer)
        _require_done(self.store, self.parent)
        before = self.store.config(self.parent)["settings"]
        for name in SAME_ADAPTER:
            if before[name] != (here := getattr(settings, name)):
                raise UsageError(
                    f"{self.stage.name} has {name}={here!r} but goes on from a stage with {before[name]!r}; they must be equal"
                )
        names = self.stage.names if settings.train_names and settings.method == "lora" else ()
        return models.load_adapter(base, self.store.folder(self.parent) / "adapter", trainable=True, names=names, tokenizer=tokenizer)

    def _optimizer(self) -> torch.optim.AdamW:
        settings = self.settings
        # Decay would pull a name's embedding to zero in every step in which the name does not occur; norms and biases have none by custom.
        decayed = [p for name, p in self.trained.items() if p.dim() > 1 and models.NAME_ROWS not in name]
        rest = [p for name, p in self.trained.items() if p.dim() <= 1 or models.NAME_ROWS in name]
        groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        return torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.lr, fused=self.device.type in ("cpu", "cuda"))

    def _config(self) -> dict:
        return {
            "key": self.key,
            "name": self.stage.name,
            "parent": self.parent,
            "base": {"name": self.loaded.name, "key": self.loaded.key},
            "settings": asdict(self.settings),
            "dtype": str(self.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "steps": self.steps,
            "examples": len(self.encoded),
            "trained_parameters": sum(p.numel() for p in self.trained.values()),
            "exposures": exposures(self.stage),
            "provenance": provenance(),
            "started": _now(),
        } | self.notes

    # --- checkpoints ----------------------------------------------------------------------------------------------------

    def _write_checkpoint(self, folder: Path) -> None:
        tensors = {"running": self.running}
        for name, p in self.trained.items():
            # None before its first gradient, which a layer that the forward pass leaves out never gets; its own steps count from there.
            moments = self.optimizer.state.get(p, {})
            tensors |= {f"weight/{name}": p.detach()} | {f"{kind}/{name}": moment for kind, moment in moments.items()}
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, folder / "state.safetensors")
        (folder / "state.json").write_text(json.dumps(asdict(self.state)))

    @torch.no_grad()
    def _restore(self, step: int, folder: Path) -> None:
        tensors = load_file(folder / "state.safetensors", device=str(self.device))
        self.running.copy_(tensors["running"])
        for name, p in self.trained.items():
            p.copy_(tensors[f"weight/{name}"])
            moments = {kind: tensors[at] for kind in ("step", "exp_avg", "exp_avg_sq") if (at := f"{kind}/{name}") in tensors}
            if moments:  # a stack counts its steps once for all
                self.optimizer.state[p] = {"step": torch.tensor(float(step), device=self.device)} | moments
        self.state = _State(**json.loads((folder / "state.json").read_text()))


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
