"""Greedy answers, parsed strictly and compared exactly: one row per answer."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from pbb_helpers.data.descriptions import canonical, parse
from pbb_helpers.data.documents import EVERY_MODE, way_of_answering
from pbb_helpers.programs import UsageError, did_you_mean, to_cell
from pbb_helpers.training.models import LoadedModel, encode, given_tokens, merged

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from pbb_helpers.data.documents import Example

INTEGER = r"0|-?[1-9][0-9]*"  # not \d, which takes digits of every script
TEXT = r"[A-Z]+"
BATCH_SIZE = 128
"""Prompts decoded together; by `rows_together` twice as many of a small model."""
SMALL = 50_000_000
"""Parameters below which Python's way from one operation to the next is much of a step's time, and the cache of twice the rows is no burden."""
COMPACT_AT = 1 / 8
"""Share of finished rows at which they are taken out of the batch; taking out every one at once copies the cache too often."""


@dataclass(frozen=True)
class Generation:
    """What a model wrote; `finished` is False where the limit cut it off, so that "return 1" may have been about to be "return 17"."""

    text: str
    finished: bool


def evaluate(
    loaded: LoadedModel,
    model: Any,
    examples: Sequence[Example],
    *,
    max_new_tokens: int | None = None,
    batch_size: int | None = None,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Returns one row per example, in their order: what `model` wrote, what was parsed from it, and whether that is the gold answer.

    Args:
        loaded: The base model, for its tokenizer.
        model: The base itself, or with an adapter around it, which is merged into a copy for the time of generating.
        max_new_tokens: None: twice the longest gold completion of each mode and a little, so that only rambling is cut off.
        batch_size: Prompts decoded together; None: `rows_together`.
        on_progress: Gets {"done", "total", "seconds"} after every batch.

    Raises:
        UsageError: A gold answer is missing or longer than `max_new_tokens`, or a prompt does not fit the model's context.
    """
    started, done = time.monotonic(), 0

    def report(count: int) -> None:
        nonlocal done
        done += count
        if on_progress:
            on_progress({"done": done, "total": len(examples), "seconds": time.monotonic() - started})

    rows: list[dict[str, Any]] = [{} for _ in examples]
    plain = merged(model)
    rows_at_once = rows_together(plain) if batch_size is None else batch_size
    # One mode at a time: its answers are of similar length, so a batch ends together.
    for mode in dict.fromkeys(example.kind for example in examples):
        places = [place for place, example in enumerate(examples) if example.kind == mode]
        encoded = [encode(loaded.tokenizer, examples[place]) for place in places]
        longest = max(len(prompt) + len(completion) for prompt, completion in encoded)
        if longest > _context(plain):
            raise UsageError(f"mode {mode!r} takes up to {longest} tokens but the model reads {_context(plain)}; take shorter programs")
        limit = _limit(mode, max(len(completion) for _, completion in encoded), max_new_tokens)
        prompts = [prompt for prompt, _ in encoded]
        answers = complete(plain, loaded.tokenizer, prompts, max_new_tokens=limit, batch_size=rows_at_once, on_batch=report)
        for place, generation in zip(places, answers, strict=True):
            rows[place] = score(examples[place], replace(generation, text=_given(loaded.tokenizer, examples[place]) + generation.text))
    return rows


def rows_together(model: Any) -> int:
    """Returns how many prompts are decoded together: more of a small model, whose step takes little longer for them."""
    return 2 * BATCH_SIZE if sum(p.numel() for p in model.parameters()) < SMALL else BATCH_SIZE


def _given(tokenizer: PreTrainedTokenizerBase, example: Example) -> str:
    """Returns the beginning of the answer that was given with the question: it counts as written."""
    return text_of(tokenizer, given_tokens(tokenizer, example))


def score(example: Example, generation: Generation) -> dict[str, Any]:
    """Returns the row of one answer; one that was cut off or cannot be parsed has `answer` None and is wrong."""
    if example.answer is None:
        raise UsageError(f"the {example.kind} example of {example.program!r} has no gold answer; evaluation needs Example.answer")
    answer = (
        parse_answer(example.kind, generation.text, TEXT if isinstance(example.input, tuple) else INTEGER) if generation.finished else None
    )
    gold = canonical(example.answer) if example.kind == "description" else example.answer.rstrip()
    return {
        "group": example.group,
        "program": example.program,
        "input": to_cell(example.input),
        "mode": example.kind,
        "length": example.length,
        "prompt": example.prompt,
        "generated": generation.text,
        "answer": answer,
        "gold": gold,
        "correct": answer == gold,
        "parsed_ok": answer is not None,
    }


def parse_answer(mode: str, text: str, output: str = INTEGER) -> str | None:
    r"""Returns the answer that `text` gives in `mode`, or None where it gives none; `output` is what an output looks like.

    An integer counts in the one way Python prints it: "05", "+5", "5." and full-width digits are no answers. In the modes that
    step through the execution the answer is on the last line, "return N" and nothing else, not indented: an indented return is
    a line of source, not of execution. A source is itself the answer; a description is judged by the program that it says, in
    whatever words but for the name of its variable, so its answer is that program's source, and a text that says none has no answer.

    >>> parse_answer("direct", "-17"), parse_answer("direct", "17 or so")
    ('-17', None)
    >>> parse_answer("cot", "x = 5 + 3 = 8\nreturn 8"), parse_answer("cot", "x = 5 + 3 = 8")
    ('8', None)
    """
    if mode not in EVERY_MODE:
        raise did_you_mean("mode", mode, EVERY_MODE)
    kind, _ = way_of_answering(mode)
    if kind == "source":
        return text.rstrip() or None
    if kind == "description":
        try:
            return parse(text.rstrip())
        except UsageError:
            return None
    line = text.strip() if kind == "direct" else text.rstrip().split("\n")[-1]
    match = re.fullmatch(f"({output})" if kind == "direct" else f"return ({output})", line)
    return match[1] if match else None


def generate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts_ids: Sequence[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int = BATCH_SIZE,
) -> list[str]:
    """Returns the greedy continuation of each prompt, without the end token."""
    return [answer.text for answer in complete(model, tokenizer, prompts_ids, max_new_tokens=max_new_tokens, batch_size=batch_size)]


def complete(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts_ids: Sequence[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int = BATCH_SIZE,
    on_batch: Callable[[int], None] | None = None,
) -> list[Generation]:
    """Returns the greedy continuation of each prompt and whether it came to an end by itself.

    Prompts are sorted by length, so that a batch holds little padding. In float32 the answers are those of decoding one by one,
    whatever the batch size, unless two logits are equal up to rounding; in bfloat16 they do depend on the batch.
    """
    _check(model, prompts_ids, max_new_tokens, batch_size)
    # Each to the end of the context by itself: a long prompt takes no room from the answer to a short one.
    limits = [min(max_new_tokens, _context(model) - len(prompt)) for prompt in prompts_ids]
    ends, pad = end_tokens(model, tokenizer), tokenizer.eos_token_id
    # Many models have more rows than tokens: such an id decodes to nothing, and "1", id, "7" would read as 17.
    vocabulary = max(tokenizer.get_vocab().values()) + 1
    order = sorted(range(len(prompts_ids)), key=lambda place: len(prompts_ids[place]))
    answers: list[Generation] = [Generation("", False)] * len(prompts_ids)
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            prompts, its_limits = ([each[place] for place in places] for each in (prompts_ids, limits))
            written = _decode_batch(model, prompts, its_limits, ends, pad, vocabulary)
            for place, ids in zip(places, written, strict=True):
                finished = bool(ids) and ids[-1] in ends
                answers[place] = Generation(text_of(tokenizer, ids[:-1] if finished else ids), finished)
            if on_batch:
                on_batch(len(places))
    finally:
        model.train(was_training)
    return answers


@torch.inference_mode()
def _decode_batch(
    model: PreTrainedModel, prompts: list[list[int]], limits: list[int], ends: list[int], pad: int, vocabulary: int
) -> list[list[int]]:
    """Returns the tokens written after each prompt, to its limit, the end token included. Rows that are done leave the batch and its cache."""
    width = max(map(len, prompts))
    device = model.get_input_embeddings().weight.device
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    # Without padding no mask is given, which saves building it in every step.
    padded = not bool(mask.all())
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    ends_here, left_to_write = torch.tensor(ends, device=device), torch.tensor(limits, device=device)
    written: list[list[int]] = [[] for _ in prompts]
    rows, cache, alive = list(range(len(prompts))), None, torch.ones(len(prompts), dtype=torch.bool, device=device)
    for _ in range(max(limits)):
        output = model(
            input_ids=ids,
            attention_mask=mask if padded else None,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache, token = output.past_key_values, output.logits[:, -1, :vocabulary].argmax(-1)
        for row, value, wanted in zip(rows, token.tolist(), alive.tolist(), strict=True):
            if wanted:
                written[row].append(value)
        left_to_write = left_to_write - 1
        alive = alive & ~torch.isin(token, ends_here) & (left_to_write > 0)
        left = int(alive.sum())
        if not left:
            break
        positions = positions[:, -1:] + alive[:, None]  # a row that is done may stay a while, and must not run out of the context
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        if len(rows) - left >= COMPACT_AT * len(rows):
            keep = alive.nonzero().squeeze(1)
            cache.batch_select_indices(keep)
            rows = [rows[place] for place in keep.tolist()]
            token, positions, mask, alive, left_to_write = (each[keep] for each in (token, positions, mask, alive, left_to_write))
        ids = token.unsqueeze(1)
    return written


def end_tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Returns the ids that end an answer: the tokenizer's, which training appends, and those the model itself declares."""
    declared = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    declared = declared if isinstance(declared, list) else [declared]
    return sorted({tokenizer.eos_token_id, *(end for end in declared if end is not None)})


def text_of(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """Returns the text of tokens. Special ones stay visible: an answer with one in it is no clean answer."""
    text = str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
    return text.encode(errors="backslashreplace").decode()  # half a surrogate pair is no text to pandas, nor to a file


def _limit(mode: str, longest: int, asked: int | None) -> int:
    if asked is not None and asked < longest:
        raise UsageError(
            f"max_new_tokens={asked} would cut off the gold answers of mode {mode!r}, up to {longest} tokens; give that or more"
        )
    return 2 * longest + 8 if asked is None else asked


def _check(model: Any, prompts_ids: Sequence[list[int]], max_new_tokens: int, batch_size: int) -> None:
    for name, value in {"max_new_tokens": max_new_tokens, "batch_size": batch_size}.items():
        if value < 1:
            raise UsageError(f"{name}={value} is not valid; give a whole number from 1")
    if not all(prompts_ids):
        raise UsageError("a prompt is empty: there is nothing to continue; give it at least one token")
    longest = max(map(len, prompts_ids), default=0)
    if longest >= _context(model):
        raise UsageError(f"a prompt has {longest} tokens but the model reads at most {_context(model)}; shorten it or take another model")


def _context(model: Any) -> int:
    """Returns how many tokens the model can read, or a very large number where it does not say."""
    return getattr(model.config, "max_position_embeddings", None) or sys.maxsize
