"""The answering of `evaluate.py` beside transformers' own: plain `generate`, and its continuous batching."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import ContinuousBatchingConfig, GenerationConfig

from pbb_helpers.data.documents import Example, call_document
from pbb_helpers.families.names import draw_names
from pbb_helpers.performance.benchmark import Arm, Work
from pbb_helpers.programs import UsageError, family
from pbb_helpers.training import evaluate, models
from pbb_helpers.training.models import LoadedModel
from pbb_helpers.training.train import fresh

MODES = ("direct", "cot", "recall")
HOW = {
    "ours": "`evaluate.complete`, 256 rows together (128 of a large model): sorted by length; rows that are done leave the batch and its cache; the model's attention (eager on a CPU, SDPA elsewhere); no mask where a batch has no padding",
    "plain generate, eager": "`model.generate`, 128 rows together (with more of them it was slower in a trial): batches in the order of the questions, each until its last row is done; eager attention",
    "plain generate, sdpa": "the same with SDPA attention",
    "continuous batching": "`model.generate_batch`, at most 256 rows together: a prompt takes the place of a finished one, a paged cache; SDPA attention",
}
"""What differs between the arms; weights, questions, limits of new tokens and dtype do not."""


@dataclass
class Questions:
    """What is asked: in one mode after the other, each with its limit of new tokens, as `evaluate.evaluate` does."""

    loaded: LoadedModel
    examples: Sequence[Example]
    groups: list[tuple[list[int], list[list[int]], int]] = field(init=False)

    def __post_init__(self) -> None:
        self.groups = []
        for mode in dict.fromkeys(example.kind for example in self.examples):
            places = [place for place, example in enumerate(self.examples) if example.kind == mode]
            encoded = [models.encode(self.loaded.tokenizer, self.examples[place]) for place in places]
            limit = 2 * max(len(completion) for _, completion in encoded) + 8
            self.groups.append((places, [prompt for prompt, _ in encoded], limit))

    def work(self, seconds: float, answers: Sequence[evaluate.Generation]) -> Work:
        """Returns the work of answering all in so many seconds, scored."""
        exact = sum(evaluate.score(example, answer)["correct"] for example, answer in zip(self.examples, answers, strict=True))
        written = sum(len(self.loaded.tokenizer.encode(answer.text, add_special_tokens=False)) + answer.finished for answer in answers)
        return Work(seconds, len(self.examples), written, exact=exact)


def in_context(loaded: LoadedModel, count: int, seed: int) -> Questions:
    """Returns questions about `count` fresh programs of one to two statements with the source in the prompt, once in each mode."""
    draws = np.random.Generator(np.random.PCG64(seed))
    programs = family("arithmetic").draw(draw_names(count, draws), draws)
    inputs = draws.integers(0, 50, size=count).tolist()
    asked = [
        call_document(p, "without_io", f"in_context_{mode}", x, k % 20)
        for mode in MODES
        for k, (p, x) in enumerate(zip(programs, inputs, strict=True))
    ]
    return Questions(loaded, asked)


class _Answering(Arm):
    """An arm that answers questions; `answers` holds those of the last run."""

    name = ""

    def __init__(self, questions: Questions) -> None:
        self.questions = questions
        self.answers: list[evaluate.Generation] = []

    def prepare(self) -> None:
        self.answers = []

    def run(self) -> Work:
        answers: list[Any] = [None] * len(self.questions.examples)
        began = time.perf_counter()
        for places, prompts, limit in self.questions.groups:
            for place, answer in zip(places, self.complete(prompts, limit), strict=True):
                answers[place] = answer
        seconds = time.perf_counter() - began
        self.answers = answers
        return self.questions.work(seconds, answers)

    def complete(self, prompts: list[list[int]], limit: int) -> list[evaluate.Generation]:
        """Returns the greedy continuation of each prompt."""
        raise NotImplementedError


class Ours(_Answering):
    """`evaluate.complete`: sorted by length, rows that are done leave the batch and its cache."""

    name = "ours"

    def complete(self, prompts: list[list[int]], limit: int) -> list[evaluate.Generation]:
        model, tokenizer = self.questions.loaded.model, self.questions.loaded.tokenizer
        return evaluate.complete(model, tokenizer, prompts, max_new_tokens=limit, batch_size=evaluate.rows_together(model))


class _Theirs(_Answering):
    def __init__(self, questions: Questions, attention: str = "sdpa") -> None:
        super().__init__(questions)
        self.model = fresh(questions.loaded.model, share=True)  # the same weights, another attention
        self.model.set_attn_implementation(attention)

    def config(self, limit: int, **more: Any) -> GenerationConfig:
        """Returns what is asked of transformers: greedy, up to the end token or the limit."""
        tokenizer = self.questions.loaded.tokenizer
        end = tokenizer.eos_token_id
        return GenerationConfig(do_sample=False, max_new_tokens=limit, eos_token_id=end, pad_token_id=end, **more)

    def generation(self, ids: list[int]) -> evaluate.Generation:
        """Returns the answer that the written tokens are, cut after the first end token."""
        tokenizer = self.questions.loaded.tokenizer
        finished = tokenizer.eos_token_id in ids
        kept = ids[: ids.index(tokenizer.eos_token_id)] if finished else ids
        return evaluate.Generation(tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False), finished)


class PlainGenerate(_Theirs):
    """`model.generate` on batches in the order of the questions, padded on the left, each until its last row is done."""

    rows = evaluate.BATCH_SIZE

    def __init__(self, questions: Questions, attention: str) -> None:
        super().__init__(questions, attention)
        self.name = f"plain generate, {attention}"

    def complete(self, prompts: list[list[int]], limit: int) -> list[evaluate.Generation]:
        answers = []
        for start in range(0, len(prompts), self.rows):
            batch = prompts[start : start + self.rows]
            width, pad = max(map(len, batch)), self.questions.loaded.tokenizer.eos_token_id
            ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in batch], device=self.model.device)
            mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in batch], device=self.model.device)
            with torch.inference_mode():
                out = self.model.generate(ids, attention_mask=mask, generation_config=self.config(limit))
            answers += [self.generation(row) for row in out[:, width:].tolist()]
        return answers


class ContinuousBatching(_Theirs):
    """transformers' `generate_batch`: a new prompt takes the place of a finished one in the running batch."""

    name = "continuous batching"
    page = 32

    def complete(self, prompts: list[list[int]], limit: int) -> list[evaluate.Generation]:
        rows = min(evaluate.rows_together(self.model), len(prompts))
        pages = -(-(max(map(len, prompts)) + limit) // self.page)
        # By default it takes 90 % of the machine's memory; this is what as many rows as ours decodes together can need.
        room = ContinuousBatchingConfig(page_size=self.page, num_blocks=rows * pages, max_requests_per_batch=rows, max_batch_tokens=2048,
                                            auto_switch_to_flash=False)  # that takes no float32, and may fetch its kernels from the hub  # fmt: skip
        outputs = self.model.generate_batch(
            prompts, generation_config=self.config(limit), continuous_batching_config=room, progress_bar=False
        )
        if len(outputs) < len(prompts):
            raise UsageError(f"continuous batching answered {len(outputs)} of {len(prompts)} prompts")
        return [self.generation(output.generated_tokens) for output in outputs.values()]  # in the order of the prompts


def arms(questions: Questions) -> list[_Answering]:
    """Returns all arms, in the order of `HOW`."""
    return [Ours(questions), *(PlainGenerate(questions, attention) for attention in ("eager", "sdpa")), ContinuousBatching(questions)]


def agreement(arms: Sequence[_Answering]) -> dict[str, float]:
    """Returns the share of answers of each arm's last run that are, letter by letter, those of the first arm."""
    first = arms[0].answers
    return {arm.name: sum(a == b for a, b in zip(arm.answers, first, strict=True)) / len(first) for arm in arms[1:]}
