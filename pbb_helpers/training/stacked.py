"""Many seeds at once: the same stage of several seeds trained over one frozen base, in one forward pass of the model's own code.

A batch is laid out as [S * B, T], a block of B rows for each of S adapters. The layers that carry adapters are patched to take the blocks
apart, (S, B * T, d), and to multiply each by weights of its own; everything else is the base model, which does not mix rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.utils.other import TrainableTokensWrapper
from torch import Tensor, nn

from pbb_helpers.data.settings import Stage
from pbb_helpers.programs import UsageError
from pbb_helpers.training.batches import Batch, side_by_side
from pbb_helpers.training.loss import RESCALED_LOGITS, autocast, causal_lm, head_loss, head_weight
from pbb_helpers.training.merged import is_plain, merging_pays
from pbb_helpers.training.models import NAME_ROWS, LoadedModel
from pbb_helpers.training.store import Store, digest
from pbb_helpers.training.train import Diverged, Training, resolve_dtype, train_stage

Progress = Callable[[int, dict], None]


class NotStackable(UsageError):
    """These stages or this model cannot be trained as a stack; one by one they can."""


def train_stages(
    loaded: LoadedModel, stages: Sequence[Stage], *, store: Store, parents: Sequence[str] | None = None, on_progress: Progress | None = None
) -> list[str]:
    """Returns the keys under which the store holds the trained stages, as `train.train_stage` does for one; trains them together.

    A stage sees the very batches that it would see alone, and its loss, clipping and moments are its own. Its weights agree with those of
    a training alone up to rounding only: sums are taken in another order. So its key is another one, which holds the whole stack's keys;
    with one companion more or less it is trained anew. A stack of one is `train_stage`, key and bits. A step is as wide as the widest of its
    batches: with one `order_seed` they are about as long as each other's, without they are short and long as chance has it.

    Args:
        loaded: The base model; it is left as it is.
        stages: Of equal settings but for `seed`, by LoRA without dropout, and of equal number of steps.
        store: Each stage lies in it as if trained alone. A killed stack goes on from the last checkpoint that all have, to the same bits.
        parents: For each stage the key of the finished stage that it goes on from; None starts fresh adapters on the base model.
        on_progress: Gets the number of the stage in `stages` and what `train_stage` reports; `seconds` are those of the whole stack.

    Raises:
        NotStackable: These stages or this model cannot be stacked.
        UsageError: What `train_stage` raises; of a `Diverged`, `number` says which stage it was.
    """
    tell = on_progress or (lambda number, line: None)
    before = [None] * len(stages) if parents is None else list(parents)
    if len(stages) == 1:
        return [train_stage(loaded, stages[0], store=store, parent=before[0], on_progress=partial(tell, 0))]
    _require_alike(stages)
    dtype = resolve_dtype(stages[0].settings.dtype, loaded.model.device)
    name = str(dtype).removeprefix("torch.")
    alone = [store.stage_key(parent or loaded.key, stage, name) for stage, parent in zip(stages, before, strict=True)]
    if len(set(alone)) < len(alone):
        raise UsageError(f"two of the {len(stages)} stages of the stack are the same; give each once")
    keys = [digest("stacked", key, alone) for key in alone]
    with ExitStack() as locks:
        for key in sorted(keys):  # in one order everywhere, so that no two processes wait for each other
            locks.enter_context(store.locked(key))
        done = [store.is_done(key) for key in keys]
        if not all(done):
            trainings = [
                Training(loaded, stage, store, key, parent, dtype, stack=keys)
                for stage, key, parent in zip(stages, keys, before, strict=True)
            ]
            _require_stackable(trainings)
            for training, finished in zip(trainings, done, strict=True):
                training.finished = finished
            _begin(trainings, store)
            _Stack(trainings).run(tell)
        for key in keys:  # not before all are finished: a stage that is damaged or missing needs those of its companions
            store.drop_checkpoints(key)
    return keys


def in_one_order(stages: Sequence[Stage]) -> list[Stage]:
    """Returns the stages with the order of their batches in common, so that a stack of them pads little; one by itself, and such as have an order, as they are."""
    if len(stages) == 1:
        return list(stages)
    orders = [0 if stage.settings.order_seed is None else stage.settings.order_seed for stage in stages]
    return [replace(stage, settings=replace(stage.settings, order_seed=order)) for stage, order in zip(stages, orders, strict=True)]


# --- what can be stacked --------------------------------------------------------------------------------------------------


def _require_alike(stages: Sequence[Stage]) -> None:
    if not stages:
        raise UsageError("no stages to train; give at least one")
    first = stages[0].settings
    for stage in stages:
        for name in (field.name for field in fields(first) if field.name != "seed"):
            if (here := getattr(stage.settings, name)) != getattr(first, name):
                raise NotStackable(
                    f"{stage.name} has {name}={here!r}, another stage of the stack {getattr(first, name)!r}; only seed may differ"
                )
    if first.method != "lora" or first.dropout:
        raise NotStackable(
            f"method {first.method!r} with dropout {first.dropout}: only LoRA without dropout can be stacked; train one by one"
        )
    steps = sorted({-(-len(stage.examples) // first.batch_size) for stage in stages})
    if len(steps) > 1:
        raise NotStackable(
            f"stages of {steps[0]} to {steps[-1]} steps in one stack; give stages of equal number of steps, or train one by one"
        )


def _require_stackable(trainings: Sequence[Training]) -> None:
    """Refuses a model in which a row of the batch could depend on another, on chance, or on weights that are not stacked."""
    training = _host(trainings)
    lm = causal_lm(training.model)
    config = lm.config.to_dict()
    reason = None
    if random := [
        name for name, value in config.items() if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, float) and value
    ]:
        reason = f"its config has {random[0]} {config[random[0]]}"
    elif any(config.get(name) for name in RESCALED_LOGITS) or head_weight(lm.get_output_embeddings()) is None:
        reason = "its head is more than one matrix"
    for name, module in training.model.named_modules():
        if isinstance(module, LoraLinear) and not is_plain(module):
            reason = f"{name} is no plain linear layer"
        elif isinstance(module, TrainableTokensLayer) and type(module.get_base_layer()) not in (nn.Embedding, nn.Linear):
            reason = f"{name} is no plain embedding"
    layers = {f"{name}.lora_{x}.default.weight" for name, m in training.model.named_modules() if isinstance(m, LoraLinear) for x in "AB"}
    if odd := [name for name in training.trained if name not in layers and NAME_ROWS not in name]:
        reason = f"{odd[0]} is neither LoRA of a linear layer nor a name's row"
    if reason is not None:
        raise NotStackable(f"{training.loaded.name} cannot be trained as a stack: {reason}; train one by one")


# --- where they go on from ------------------------------------------------------------------------------------------------


def _begin(trainings: Sequence[Training], store: Store) -> None:
    """Takes all to the last step of which all have a whole checkpoint; those that are finished go the rest of the way with the others."""
    at_most = math.inf
    while True:
        found = [store.last_checkpoint(training.key, at_most) for training in trainings]
        steps = {checkpoint[0] if checkpoint else 0 for checkpoint in found}
        if len(steps) == 1:
            break
        at_most = min(steps)
    for training, checkpoint in zip(trainings, found, strict=True):
        store.drop_checkpoints(training.key, after=min(steps))
        training.begin(checkpoint)


# --- the stack ------------------------------------------------------------------------------------------------------------


def _host(trainings: Sequence[Training]) -> Training:
    """Returns the training whose model's forward is the stack's: one with rows of names, if there are any."""
    return max(trainings, key=lambda training: len(training.trained))


class _Stack:
    """S trainings whose adapters are rows of a few tensors: one optimizer step, one gradient norm, and one forward pass for all.

    The trained tensors of a training become views of its row, so that it saves adapters and checkpoints as if it were alone.
    """

    def __init__(self, trainings: Sequence[Training]) -> None:
        self.trainings, self.settings, self.device = trainings, trainings[0].settings, trainings[0].device
        self.host = _host(trainings)
        self.shapes = {name: self._shape(name) for name in self.host.trained}
        groups = self.host.optimizer.param_groups
        called = {id(p): name for name, p in self.host.trained.items()}
        self.groups = [[called[id(p)] for p in group["params"]] for group in groups]
        self.flat = [nn.Parameter(torch.zeros(len(trainings), self._numel(names), device=self.device)) for names in self.groups]
        self.optimizer = torch.optim.AdamW(
            [{"params": [flat], "weight_decay": group["weight_decay"]} for flat, group in zip(self.flat, groups, strict=True)],
            lr=self.settings.lr,
            fused=self.device.type in ("cpu", "cuda"),
        )
        for names, flat in zip(self.groups, self.flat, strict=True):
            self._take(names, flat)
        self.weights: dict[str, Tensor] = {}  # of the step that is going on: name to (S, *shape)
        self.ids = {name: self._ids(name) for name in self.shapes if NAME_ROWS in name}
        self.slots = {name: self._slots(name) for name in self.ids}

    def _shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of a tensor that holds that of every training: these may have different numbers of names, or none."""
        shapes = [tuple(training.trained[name].shape) for training in self.trainings if name in training.trained]
        return max(shapes)

    def _numel(self, names: Sequence[str]) -> int:
        return sum(math.prod(self.shapes[name]) for name in names)

    @torch.no_grad()
    def _take(self, names: Sequence[str], flat: nn.Parameter) -> None:
        """Moves weights and moments of the trainings into `flat` and moments beside it; what they keep are views."""
        moments = {"exp_avg": torch.zeros_like(flat), "exp_avg_sq": torch.zeros_like(flat)}
        self.optimizer.state[flat] = {"step": torch.tensor(float(self.trainings[0].state.step), device=self.device), **moments}
        for row, training in enumerate(self.trainings):
            start = 0
            for name in names:
                p = training.trained.get(name)
                if p is not None:
                    place = row, slice(start, start + p.numel())
                    state = training.optimizer.state[p]
                    state.pop("step", None)  # from here on it is the stack's
                    for kind, tensor in moments.items():
                        view = tensor[place].view(p.shape)
                        if kind in state:
                            view.copy_(state[kind])
                        state[kind] = view
                    flat[place] = p.flatten()
                    p.data = flat.data[place].view(p.shape)
                start += math.prod(self.shapes[name])

    def _ids(self, name: str) -> list[Tensor]:
        """Returns for each adapter the tokens that its rows of names are the embeddings of."""
        module = name.partition(f".{NAME_ROWS}")[0]
        found = [t.model.get_submodule(module).token_indices["default"] if name in t.trained else [] for t in self.trainings]
        return [torch.tensor(ids, dtype=torch.long, device=self.device) for ids in found]

    def _slots(self, name: str) -> Tensor:
        """Returns (S, vocabulary) int64: which of the S * n rows of names is an adapter's embedding of a token, or -1."""
        layer = self.host.model.get_submodule(name.partition(f".{NAME_ROWS}")[0])
        slots = torch.full((len(self.trainings), len(layer.get_base_layer().weight)), -1, device=self.device)
        for row, ids in enumerate(self.ids[name]):
            slots[row, ids] = row * self.shapes[name][0] + torch.arange(len(ids), device=self.device)
        return slots

    def run(self, on_progress: Progress) -> None:
        trainings = self.trainings
        with self._patched(sum(training.mean_tokens for training in trainings) // len(trainings)):
            for batches in zip(*(training.plan() for training in trainings), strict=True):
                (rate,) = {training.next_step(batch) for training, batch in zip(trainings, batches, strict=True)}
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                with autocast(self.device, trainings[0].dtype):
                    values = self.losses(batches)
                values.sum().backward()
                norms = self._clip()
                self.optimizer.step()
                self.optimizer.zero_grad()
                for number, (training, value, norm) in enumerate(zip(trainings, values.detach(), norms, strict=True)):
                    try:
                        training.record(value, norm, rate, partial(on_progress, number))
                    except Diverged as error:
                        error.number = number
                        raise
        for training in trainings:
            training.finish()

    def losses(self, batches: Sequence[Batch]) -> Tensor:
        """Returns (S,) the loss of each adapter on its own batch."""
        self.weights = {}
        for names, flat in zip(self.groups, self.flat, strict=True):
            parts = flat.split([math.prod(self.shapes[name]) for name in names], dim=1)
            self.weights |= {name: part.view(len(flat), *self.shapes[name]) for name, part in zip(names, parts, strict=True)}
        batch = side_by_side(batches).to(self.device)
        lm = causal_lm(self.host.model)
        decoder = getattr(lm, lm.base_model_prefix)
        hidden = decoder(input_ids=batch.input_ids, use_cache=False).last_hidden_state.flatten(0, 1)[batch.positions]
        counts = [len(b.targets) for b in batches]
        parts = zip(hidden.split(counts), batch.targets.split(counts), strict=True)
        return torch.stack([head_loss(h, self._head(row), targets) for row, (h, targets) in enumerate(parts)])

    def _head(self, row: int) -> Tensor:
        """Returns the (vocabulary, d) head of one adapter: the base model's with that adapter's rows of names."""
        head = causal_lm(self.host.model).get_output_embeddings()
        if not isinstance(head, TrainableTokensWrapper):
            return head.weight
        rows = head.token_adapter.trainable_tokens_delta["default"]  # with a tied head those of the embedding
        name = next(name for name, p in self.host.trained.items() if p is rows)
        weight, ids = head.original_module.weight, self.ids[name][row]
        return weight.index_copy(0, ids, self.weights[name][row, : len(ids)].to(weight.dtype))

    @torch.no_grad()
    def _clip(self) -> Tensor:
        """Returns (S,) the norms of the adapters' gradients, each of which was scaled to the limit where it was above."""
        grads = [flat.grad for flat in self.flat if flat.grad is not None]
        norms = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(grad, dim=1) for grad in grads]), dim=0)
        factors = (self.trainings[0].clip / (norms + 1e-6)).clamp(max=1.0)
        for grad in grads:
            grad.mul_(factors[:, None])
        return norms

    # --- patched layers -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _patched(self, tokens: int) -> Iterator[None]:
        """Makes the layers of the host's model compute with S adapters; `tokens`: of one adapter's batch."""
        changed: list[Any] = []
        for name, layer in self.host.model.named_modules():
            if isinstance(layer, LoraLinear):
                merge = merging_pays(layer, self.settings.rank, tokens)
                layer.forward = partial(self._merged_linear if merge else self._linear, layer, name)
                changed.append(layer)
            elif isinstance(layer, TrainableTokensLayer) and isinstance(layer.get_base_layer(), nn.Embedding):
                layer.forward = partial(self._embedding, layer, f"{name}.{NAME_ROWS}.default")
                changed.append(layer)
        try:
            yield
        finally:
            for layer in changed:
                del layer.forward

    def _blocks(self, x: Tensor, layer: str) -> Tensor:
        """Returns the (S * B, T, d) input of a layer as (S, B * T, d)."""
        if x.dim() != 3 or len(x) % len(self.trainings):
            raise NotStackable(f"{layer} gets an input of shape {tuple(x.shape)}, not (rows, tokens, width): train one by one")
        return x.reshape(len(self.trainings), -1, x.shape[-1])

    def _adapter(self, name: str) -> tuple[Tensor, Tensor]:
        return self.weights[f"{name}.lora_A.default.weight"], self.weights[f"{name}.lora_B.default.weight"]

    def _merged_linear(self, layer: LoraLinear, name: str, x: Tensor) -> Tensor:
        (a, b), base = self._adapter(name), layer.get_base_layer()
        with torch.autocast(x.device.type, enabled=False):  # as in `merged`: the sum in the adapter's float32
            weight = torch.baddbmm(base.weight.to(a.dtype), b, a, alpha=layer.scaling["default"])
        weight = weight if torch.is_autocast_enabled(x.device.type) else weight.to(x.dtype)
        y = torch.bmm(self._blocks(x, name), weight.transpose(1, 2))
        y = y if base.bias is None else y + base.bias.to(y.dtype)
        return y.view(*x.shape[:-1], -1)

    def _linear(self, layer: LoraLinear, name: str, x: Tensor) -> Tensor:
        a, b = self._adapter(name)
        low = torch.bmm(self._blocks(x, name), a.transpose(1, 2))
        y = layer.get_base_layer()(x)
        return y + torch.bmm(low, b.transpose(1, 2)).view(y.shape).to(y.dtype) * layer.scaling["default"]

    def _embedding(self, layer: TrainableTokensLayer, name: str, ids: Tensor) -> Tensor:
        frozen, slots = layer.get_base_layer()(ids), self.slots[name]
        at = slots.gather(1, ids.reshape(len(slots), -1)).view(ids.shape)[..., None]
        rows = F.embedding(at[..., 0].clamp(min=0), self.weights[name].flatten(0, 1)).to(frozen.dtype)
        return torch.where(at >= 0, rows, frozen)
