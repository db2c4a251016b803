"""Talk to what a run trained: one question, answered greedily, with the probability of every token that was written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from pbb_helpers.data.documents import Example, call_document, description_document, source_document
from pbb_helpers.explore.past_runs import stages_behind
from pbb_helpers.programs import Program, UsageError
from pbb_helpers.training import evaluate, models
from pbb_helpers.training.store import Store
from pbb_helpers.training.train import load_stage

SMALL = 100_000_000
"""Parameters below which one thread answers fastest on a CPU, by far where trainings keep all cores busy."""
ROOM = 200
"""Tokens that an answer may have at least; a run allows twice its longest gold answer, which is not known here."""
OTHERS = 3  # further tokens that are shown beside the one that was written


@dataclass(frozen=True)
class Token:
    """A written token: its text, its probability in [0, 1], and the likeliest others with theirs."""

    text: str
    probability: float
    others: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Reply:
    """An answer: the question with its gold answer, the row of `evaluate.score`, and the tokens, the end token included."""

    example: Example
    row: dict[str, Any]
    tokens: tuple[Token, ...]


def question(program: Program, x: Any, mode: str, *, template: int = 0) -> Example:
    """Returns the question about a program in a mode of `documents.EVERY_MODE`, in one of 20 phrasings."""
    if mode == "source":
        return source_document(program, "asked", template)
    if mode == "description":
        return description_document(program, "asked", template)
    return call_document(program, "asked", mode, x, template)


class Talker:
    """The weights of one folder of the store, loaded when they are first asked.

    Args:
        store: The store of the runs.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._base: models.LoadedModel | None = None
        self._model: Any = None
        self._folder = ""

    def load(self, folder: str, base: str) -> None:
        """Loads the weights that rows call `run`, those of the stage in this folder of the store or of the untuned model itself.

        Code that a model brings with it is not run here.

        Args:
            folder: 16 hex digits.
            base: The base model, as the run was given it.

        Raises:
            UsageError: They have gone from the store, are damaged, or belong to another model than the one of that name now.
        """
        if folder == self._folder:
            return
        stages = stages_behind(self.store.root, folder)
        name, key = (stages[-1][1]["base"]["name"], stages[-1][1]["key"]) if stages else (base, "")
        if self._base is None or self._base.name != name:
            self._base = models.load(name)
        if stages and stages[-1][1]["base"]["key"] != self._base.key:
            raise UsageError(f"these weights were trained on another model than what is called {name!r} now; run the notebook again")
        if not stages and self.store.folder(self._base.key).name != folder:
            raise UsageError(f"the weights {folder} are no longer in {self.store.root}; run the notebook again to train them")
        self._model = load_stage(self._base, self.store, key or self._base.key, merge=True)
        self._folder = folder

    def ask(self, example: Example) -> Reply:
        """Returns the greedy answer to a question, as `evaluate.complete` gives it; only the length at which it would be cut off may differ."""
        assert self._base is not None, "load first"
        tokenizer = self._base.tokenizer
        prompt, completion = models.encode(tokenizer, example)
        with _few_threads(self._model):
            ids, tokens = _decode(self._model, tokenizer, prompt, max(2 * len(completion) + 8, ROOM))
        finished = bool(ids) and ids[-1] in evaluate.end_tokens(self._model, tokenizer)
        text = evaluate.text_of(tokenizer, ids[:-1] if finished else ids)
        return Reply(example, evaluate.score(example, evaluate.Generation(text, finished)), tokens)


@contextlib.contextmanager
def _few_threads(model: Any) -> Iterator[None]:
    threads = torch.get_num_threads()
    if sum(weight.numel() for weight in model.parameters()) < SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@torch.inference_mode()
def _decode(model: Any, tokenizer: Any, prompt: list[int], limit: int) -> tuple[list[int], tuple[Token, ...]]:
    """Returns the ids that are written after the prompt, and what is told of each."""
    room = (getattr(model.config, "max_position_embeddings", None) or len(prompt) + limit) - len(prompt)
    if room < 1:
        raise UsageError(f"the question has {len(prompt)} tokens and the model reads {len(prompt) + room}; take a shorter program")
    ends, vocabulary = evaluate.end_tokens(model, tokenizer), max(tokenizer.get_vocab().values()) + 1
    ids, cache = torch.tensor([prompt], device=model.get_input_embeddings().weight.device), None
    written: list[int] = []
    tokens: list[Token] = []
    for _ in range(min(limit, room)):
        output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache, logits = output.past_key_values, output.logits[0, -1, :vocabulary]
        written.append(int(logits.argmax()))
        tokens.append(_token(tokenizer, logits.float().softmax(-1), written[-1]))
        if written[-1] in ends:
            break
        ids = torch.tensor([written[-1:]], device=ids.device)
    return written, tuple(tokens)


def _token(tokenizer: Any, probabilities: torch.Tensor, written: int) -> Token:
    values, likeliest = probabilities.topk(min(OTHERS + 1, len(probabilities)))
    others = [(evaluate.text_of(tokenizer, [i]), p) for i, p in zip(likeliest.tolist(), values.tolist(), strict=True) if i != written]
    return Token(evaluate.text_of(tokenizer, [written]), float(probabilities[written]), tuple(others[:OTHERS]))
