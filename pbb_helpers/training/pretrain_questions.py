"""What a model is asked while it is pretrained: to run fresh programs from a source, or a description, in its prompt."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np

from pbb_helpers.data.corpus import Mix, documents
from pbb_helpers.data.documents import Example, call_document
from pbb_helpers.families.names import draw_names
from pbb_helpers.programs import family
from pbb_helpers.training.pretrain_documents import collate, encode_conversation


def held_out_questions(
    count: int, seed: int = 10_000, *, language: bool = False, families: Iterable[str] = ("arithmetic",), calls: bool = False
) -> dict[str, list[Example]]:
    """Returns fresh in-context questions per mode, of one to two statements: the programs of the quick profile.

    With `language` the same are asked with the description in the prompt as well: modes "description_direct", … Those of another family
    than arithmetic have its name before the mode: "ciphers_cot". With `calls` programs that call two such are asked too: "calls_cot".
    """
    questions = {}
    for mode in ("direct", "cot", "recall") if calls else ():
        mix = Mix(lengths={1: 0.5, 2: 0.5}, modes={mode: 1.0}, one_distractor=0, two_distractors=0, calls=1)
        questions[f"calls_{mode}"] = list(itertools.islice(documents(mix, seed), count))
    for kind in families:
        generator = np.random.Generator(np.random.PCG64(seed))
        drawn_from = family(kind)
        programs = drawn_from.draw(draw_names(count, generator), generator)
        inputs = [drawn_from.inputs()[i] for i in generator.integers(0, len(drawn_from.inputs()), size=count)]
        for mode in (f"{words}{way}" for words in ("", "description_")[: 1 + language] for way in ("direct", "cot", "recall")):
            questions[mode if kind == "arithmetic" else f"{kind}_{mode}"] = [
                call_document(p, "with_io", f"in_context_{mode}", x, i % 20, phrasing=i)
                for i, (p, x) in enumerate(zip(programs, inputs, strict=True))
            ]
    return questions


def exact_match(model: Any, tokenizer: Any, questions: list[Example], batch_size: int = 100) -> float:
    """Returns the share of questions whose whole gold completion is the greedy one, which one forward pass decides.

    Each token of the gold is the most likely one after those before it exactly when greedy decoding writes the gold: for direct answers
    this is the accuracy; for chain of thought it is stricter, since there a wrong step with a right answer counts as wrong.
    """
    import torch

    right = 0
    for start in range(0, len(questions), batch_size):
        batch = collate([encode_conversation(tokenizer, [e]) for e in questions[start : start + batch_size]])
        with torch.no_grad():
            hidden = model.model(input_ids=batch.input_ids.to(model.device), use_cache=False).last_hidden_state.flatten(0, 1)
            hit = model.lm_head(hidden[batch.positions.to(model.device)]).argmax(-1).cpu() == batch.targets
        wrong = set((batch.positions // batch.input_ids.shape[1])[~hit].tolist())
        right += len(batch) - len(wrong)
    return right / len(questions)
