"""Batched answers are those of decoding one by one; the scorer takes no wrong answer for a right one."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pbb_helpers.data.documents import EVERY_MODE, MODES, NAMED, Example, call_document
from pbb_helpers.data.settings import TrainSettings
from pbb_helpers.programs import UsageError, family
from pbb_helpers.training import evaluate as ev
from pbb_helpers.training import models

PROMPTS = (
    "Compute zibble(5).\n",
    "What does quorn(17) return?\n",
    "f",
    "def f(x):\n    return x",
    "Run kleb(3).\nStep by step:\n",
    "x" * 60,
)

# --- the scorer ---------------------------------------------------------------------------------------------------------

SOURCE = "def zibble(x):\n    x = x + 3\n    return x"
DIRECT = [
    ("5", "5"),
    ("25", "25"),  # ends with a 5 and is not 5
    ("-5", "-5"),
    ("0", "0"),
    (" 5\n", "5"),
    ("-0", None),
    ("05", None),
    ("+5", None),
    ("- 5", None),
    ("--5", None),
    ("5.", None),
    ("5.0", None),
    ("5e1", None),
    ("1_000", None),
    ("1,000", None),
    ("0x10", None),
    ("\uff15", None),  # a full-width digit
    ("\u0665", None),  # an Arabic-Indic one
    ("\u22125", None),  # a minus sign that is no hyphen
    ("5 5", None),
    ("5\n5", None),
    ("", None),
    ("   ", None),
    ("-", None),
    ("return 5", None),
    ("5</s>", None),
    ("x = 5", None),
    ("True", None),
    ("9" * 5000, "9" * 5000),  # more digits than int() takes
]
STEPS = [
    ("x = 5 + 3 = 8\nreturn 8", "8"),
    ("return -17", "-17"),
    ("return 5\nreturn 6", "6"),
    ("return 5\n", "5"),
    ("return 5  ", "5"),
    ("return 5\r\n", "5"),
    (SOURCE + "\nx = 5 + 3 = 8\nreturn 8", "8"),
    (SOURCE, None),  # the source was written out and nothing was executed
    ("def f(x):\n    return 5", None),  # a constant in the source is no answer
    (" return 5", None),
    ("return 5.", None),
    ("return 05", None),
    ("return \uff15", None),
    ("return  5", None),
    ("return", None),
    ("return x", None),
    ("return 5 6", None),
    ("return 5\nx = 6", None),
    ("Return 5", None),
    ("x = 5 + 3 = 8", None),
    ("x = 5 + 3 = 8\nretu", None),
    ("x = 5\u2028return 5", None),
    ("x = 5\x0breturn 5", None),
    ("x = 5; return 5", None),
    ("8", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "answer"), DIRECT)
@pytest.mark.parametrize("mode", ["direct", "in_context_direct", "in_context_description_direct"])
def test_a_direct_answer_is_one_integer_and_nothing_else(mode, text, answer):
    assert ev.parse_answer(mode, text) == answer


@pytest.mark.parametrize(("text", "answer"), STEPS)
@pytest.mark.parametrize("mode", [mode for mode in EVERY_MODE if mode.endswith("cot") or "recall" in mode])
def test_an_executed_answer_is_on_the_last_line(mode, text, answer):
    assert ev.parse_answer(mode, text) == answer


@pytest.mark.parametrize("model", ["pbb-small", "pbb-ciphers"])
def test_a_given_line_is_the_beginning_of_the_answer_in_its_own_tokens(model):
    tokenizer = models.load(model).tokenizer
    for seed in range(30):
        drawn = family("ciphers" if model == "pbb-ciphers" else "arithmetic").sketch("zibble", np.random.default_rng(seed))
        x = ("HELLO", 3) if model == "pbb-ciphers" else 5
        plain, named = (call_document(drawn, "without_io", mode, x, 0) for mode in ("recall", NAMED))
        assert (plain.prompt, plain.completion) == (named.prompt, named.completion)
        prompt, completion = models.encode(tokenizer, plain)
        longer, rest = models.encode(tokenizer, named)
        line = drawn.source.split("\n")[0]
        assert longer + rest == prompt + completion and models.given_tokens(tokenizer, plain) == []
        assert tokenizer.decode(longer) == plain.prompt + line and tokenizer.decode(rest).startswith("\n    ")


def test_a_source_is_itself_the_answer_but_for_the_space_behind_it():
    assert ev.parse_answer("source", SOURCE + "\n ") == SOURCE
    assert ev.parse_answer("source", " " + SOURCE) == " " + SOURCE
    assert ev.parse_answer("source", " \n") is None


WORDS = "zibble takes a number x. Add 3 to x. Return x."
DESCRIPTIONS = [
    (WORDS, SOURCE),
    (WORDS + "\n", SOURCE),
    ("Given a number x, zibble does this. Raise x by 3. Give back x.", SOURCE),
    (WORDS.replace("Add 3", "Add 4"), SOURCE.replace("3", "4")),
    (WORDS[:-1], None),
    (" " + WORDS, None),
    (WORDS + " Return x.", None),
    (WORDS + "\nreturn 8", None),
    (SOURCE, None),
    ("zibble takes a number x. Let x be " + "(" * 3000, None),
    (WORDS.replace("zibble", "def"), None),
    ("None takes a number x. Return x.", None),
    ("zibble takes a number def. Return def.", None),
    ("zibble takes a number x. Let None be x plus 3. Return x.", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "answer"), DESCRIPTIONS)
def test_a_description_is_judged_by_the_program_that_it_says(text, answer):
    assert ev.parse_answer("description", text) == answer
    row = ev.score(question("description", SOURCE), ev.Generation(text, finished=True))
    assert (row["correct"], row["parsed_ok"]) == (answer == SOURCE, answer is not None)


def test_a_description_of_another_program_or_name_is_wrong():
    for text in (WORDS.replace("zibble", "quorn"), WORDS.replace("Add 3 to x", "Let x be 3 plus x")):
        row = ev.score(question("description", SOURCE), ev.Generation(text, finished=True))
        assert row["parsed_ok"] and not row["correct"]


def test_an_unknown_mode_is_named():
    with pytest.raises(UsageError, match="unknown mode 'recal'; did you mean 'recall'"):
        ev.parse_answer("recal", "5")


@given(st.integers(), st.sampled_from(MODES))
def test_every_integer_is_read_back(number, mode):
    text = f"{number}" if mode.endswith("direct") else f"x = {number}\nreturn {number}"
    assert ev.parse_answer(mode, text) == (text if mode == "source" else str(number))


@given(
    st.text() | st.text(alphabet="0123456789-+. \n\rreturnx=\uff15\u0663"), st.sampled_from([mode for mode in MODES if mode != "source"])
)
def test_whatever_is_written_the_answer_is_an_integer_as_python_prints_it_or_none(text, mode):
    answer = ev.parse_answer(mode, text)
    assert answer is None or (str(int(answer)) == answer and answer in text)


@given(st.text(alphabet="-0123456789 ", max_size=6), st.integers(-999, 999))
def test_only_the_very_integer_is_correct(text, gold):
    row = ev.score(question("direct", str(gold)), ev.Generation(text, finished=True))
    assert row["correct"] == (text.strip() == str(gold))


# --- rows ---------------------------------------------------------------------------------------------------------------


def question(mode: str = "cot", answer: str | None = "8", prompt: str = PROMPTS[0], completion: str = "x = 5 + 3 = 8\nreturn 8") -> Example:
    return Example(mode, "without_io", "zibble", prompt, completion, None if mode == "source" else 5, answer, 1)


def test_an_answer_that_was_cut_off_is_none():
    """The text reads "return 1", but the next token might have been a 7."""
    for finished, answer in ((True, "1"), (False, None)):
        row = ev.score(question(answer="1"), ev.Generation("return 1", finished))
        assert (row["answer"], row["correct"], row["parsed_ok"]) == (answer, finished, finished)


def test_a_row_holds_what_was_asked_what_came_and_the_verdict():
    row = ev.score(question(), ev.Generation("return 9", finished=True))
    assert row == {
        "group": "without_io",
        "program": "zibble",
        "input": 5,
        "mode": "cot",
        "length": 1,
        "prompt": PROMPTS[0],
        "generated": "return 9",
        "answer": "9",
        "gold": "8",
        "correct": False,
        "parsed_ok": True,
    }


def test_a_source_with_a_newline_at_its_end_can_be_recalled():
    assert ev.score(question("source", SOURCE + "\n"), ev.Generation(SOURCE, finished=True))["correct"]


def test_an_example_without_a_gold_answer_is_refused():
    with pytest.raises(UsageError, match="no gold answer"):
        ev.score(question(answer=None), ev.Generation("8", finished=True))


def test_rows_come_in_the_order_of_the_examples(tiny_llama):
    modes = ("direct", "cot", "direct", "recall", "cot")
    examples = [question(mode, prompt=prompt) for mode, prompt in zip(modes, PROMPTS, strict=False)]
    seen = []
    rows = ev.evaluate(tiny_llama, tiny_llama.model, examples, max_new_tokens=25, batch_size=2, on_progress=seen.append)
    assert [(row["mode"], row["prompt"]) for row in rows] == [(example.kind, example.prompt) for example in examples]
    for example, row in zip(examples, rows, strict=True):
        alone = ev.evaluate(tiny_llama, tiny_llama.model, [example], max_new_tokens=25)
        assert alone == [row]
    assert [line["done"] for line in seen] == [2, 4, 5]
    assert {line["total"] for line in seen} == {5}


def test_no_examples_give_no_rows(tiny_llama):
    assert ev.evaluate(tiny_llama, tiny_llama.model, []) == []


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "hrm_text"])
def test_a_model_that_learnt_its_answers_is_scored_right(tiny_folder, architecture):
    """The whole path: encode, train, generate with and without the adapter merged, parse, score."""
    loaded = models.load(str(tiny_folder(architecture)), device="cpu")
    completions = {"direct": "8", "cot": "x = 5 + 3 = 8\nreturn 8"}
    examples = [question(mode, prompt=f"zibble {mode}\n", completion=text) for mode, text in completions.items()]
    examples.append(question("source", SOURCE, prompt="source\n", completion=SOURCE))
    adapted = models.add_adapter(loaded.model, TrainSettings(rank=16, alpha=32), ["zibble"], loaded.tokenizer)
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        for example in examples:
            prompt, completion = models.encode(loaded.tokenizer, example)
            labels = torch.tensor([[-100] * len(prompt) + completion])
            adapted(input_ids=torch.tensor([prompt + completion]), labels=labels, use_cache=False).loss.backward()
        optimizer.step()
    rows = ev.evaluate(loaded, adapted, examples)
    assert [row["generated"] for row in rows] == [*completions.values(), SOURCE]
    assert all(row["correct"] for row in rows)
    assert any("lora_A" in name for name, _ in adapted.named_parameters()), "the adapter itself was merged"


# --- generation ---------------------------------------------------------------------------------------------------------


def one_by_one(model, prompt: list[int], ends: list[int], limit: int) -> list[int]:
    """Returns the greedy continuation by the plainest means: no cache, no batch, no padding."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(limit):
            ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
            if ids[-1] in ends:
                break
    return ids[len(prompt) :]


@pytest.fixture(params=["llama", "qwen3", "hrm_text"])
def loaded(request, tiny_folder):
    """Returns either tiny model; 16 tokens end an answer, so that random answers end at many lengths."""
    loaded = models.load(str(tiny_folder(request.param)), device="cpu")
    loaded.model.generation_config.eos_token_id = list(range(40, 56))
    return loaded


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_batches_answer_as_one_by_one(loaded, attention, batch_size, monkeypatch):
    monkeypatch.setattr(ev, "text_of", lambda tokenizer, ids: str(ids))  # random bytes decode to the same sign of despair
    loaded.model.set_attn_implementation(attention)
    prompts = [models.encode_prompt(loaded.tokenizer, f"{text}{i}\n") for i in range(6) for text in PROMPTS]
    ends = ev.end_tokens(loaded.model, loaded.tokenizer)
    expected = [one_by_one(loaded.model, prompt, ends, 30) for prompt in prompts]
    lengths = {len(ids) for ids in expected}
    assert len(lengths) > 5, "the test wants answers of many lengths"
    assert max(lengths) == 30, "and some that are cut off"
    got = ev.complete(loaded.model, loaded.tokenizer, prompts, max_new_tokens=30, batch_size=batch_size)
    for ids, answer in zip(expected, got, strict=True):
        finished = ids[-1] in ends
        assert answer == ev.Generation(str(ids[:-1] if finished else ids), finished)
    assert ev.generate(loaded.model, loaded.tokenizer, prompts, max_new_tokens=30) == [answer.text for answer in got]


def tiny_gpt2(loaded, context: int):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    shape = {"vocab_size": len(loaded.tokenizer), "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": context}
    return GPT2LMHeadModel(GPT2Config(**shape, initializer_range=0.3, eos_token_id=1, bos_token_id=0)).eval()


def test_a_small_model_has_twice_as_many_rows_together_and_a_given_number_wins(tiny_llama, monkeypatch):
    sizes: list[int] = []
    real = ev.complete
    monkeypatch.setattr(ev, "complete", lambda *a, batch_size, **more: sizes.append(batch_size) or real(*a, batch_size=batch_size, **more))
    asked = [Example("direct", "with_io", "zibble", "What is zibble(3)?\n", "7", 3, "7", 1)]
    count = sum(p.numel() for p in tiny_llama.model.parameters())
    for small, wanted in ((count + 1, None), (count, None), (count + 1, 5)):
        monkeypatch.setattr(ev, "SMALL", small)
        ev.evaluate(tiny_llama, tiny_llama.model, asked, batch_size=wanted)
    assert sizes == [256, 128, 5]


@pytest.mark.parametrize("batch_size", [1, 64])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_long_prompt_takes_no_room_from_other_answers(tiny_folder, architecture, batch_size, monkeypatch):
    """Not even a prompt that fills the context but for one token: rows beside it would be cut off, and count as wrong."""
    monkeypatch.setattr(ev, "text_of", lambda tokenizer, ids: str(ids))
    loaded = models.load(str(tiny_folder("llama", max_position_embeddings=40)), device="cpu")
    model = tiny_gpt2(loaded, 40) if architecture == "gpt2" else loaded.model
    lengths = [39, *range(3, 39, 2)]
    prompts = [[5 + (i * n) % 30 for i in range(n)] for n in lengths]
    got = ev.complete(model, loaded.tokenizer, prompts, max_new_tokens=25, batch_size=batch_size)
    ends = ev.end_tokens(model, loaded.tokenizer)
    for prompt, answer in zip(prompts, got, strict=True):
        ids = one_by_one(model, prompt, ends, min(25, 40 - len(prompt)))
        assert answer == ev.Generation(str(ids[:-1] if ids[-1] in ends else ids), ids[-1] in ends), len(prompt)
    assert sum(not answer.finished for answer in got) > 10, "the test wants answers that are cut off at many lengths"


def test_padding_does_not_shift_absolute_positions(tiny_llama, monkeypatch):
    """Rotary positions hide a shift, since only distances count there; learnt absolute ones do not."""
    monkeypatch.setattr(ev, "text_of", lambda tokenizer, ids: str(ids))
    model = tiny_gpt2(tiny_llama, 128)
    prompts = [models.encode_prompt(tiny_llama.tokenizer, prompt) for prompt in PROMPTS]
    for prompt, text in zip(prompts, ev.generate(model, tiny_llama.tokenizer, prompts, max_new_tokens=12), strict=True):
        ids = one_by_one(model, prompt, [1], 12)
        assert text == str(ids[:-1] if ids[-1] == 1 else ids)


def test_transformers_own_generate_agrees(loaded):
    prompts = [models.encode_prompt(loaded.tokenizer, prompt) for prompt in PROMPTS]
    ends = ev.end_tokens(loaded.model, loaded.tokenizer)
    for prompt, text in zip(prompts, ev.generate(loaded.model, loaded.tokenizer, prompts, max_new_tokens=20), strict=True):
        ids = loaded.model.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False, eos_token_id=ends)[0].tolist()[
            len(prompt) :
        ]
        assert text == loaded.tokenizer.decode(ids[:-1] if ids[-1] in ends else ids)


def test_generation_leaves_the_model_as_it_was(loaded):
    loaded.model.train()
    before = {name: p.clone() for name, p in loaded.model.state_dict().items()}
    ev.generate(loaded.model, loaded.tokenizer, [[5, 6]], max_new_tokens=3)
    assert loaded.model.training
    assert all(torch.equal(p, before[name]) for name, p in loaded.model.state_dict().items())


def test_special_tokens_stay_visible_in_what_was_written(tiny_llama):
    """Taken out silently, "1<pad>7" would read as the answer 17."""
    assert ev.text_of(tiny_llama.tokenizer, [tiny_llama.tokenizer.pad_token_id]) == "<pad>"


def test_rows_of_the_model_that_are_no_tokens_are_never_written(tiny_llama):
    size = len(tiny_llama.tokenizer)
    tiny_llama.model.resize_token_embeddings(size + 5, mean_resizing=False)
    with torch.no_grad():
        tiny_llama.model.lm_head.weight[size:] = 100 * tiny_llama.model.lm_head.weight[:5]
    written = ev._decode_batch(tiny_llama.model, [[9, 8, 7], [5]], [20, 20], [1], 1, size)
    assert max(map(max, written)) < size
    assert [ev.text_of(tiny_llama.tokenizer, ids) for ids in written] == ev.generate(
        tiny_llama.model, tiny_llama.tokenizer, [[9, 8, 7], [5]], max_new_tokens=20
    )


def test_the_ends_are_the_tokenizers_and_the_models(tiny_qwen3):
    tiny_qwen3.model.generation_config.eos_token_id = [0, 7]
    assert ev.end_tokens(tiny_qwen3.model, tiny_qwen3.tokenizer) == sorted({0, 7, tiny_qwen3.tokenizer.eos_token_id})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0 is not valid"),
        ({"batch_size": 0}, "batch_size=0 is not valid"),
        ({"prompts_ids": [[]]}, "a prompt is empty"),
        ({"prompts_ids": [[5] * 600]}, "a prompt has 600 tokens but the model reads at most 512"),
    ],
)
def test_what_cannot_be_generated_is_refused(tiny_llama, changes, says):
    arguments = {"prompts_ids": [[5, 6]], "max_new_tokens": 4} | changes
    with pytest.raises(UsageError, match=re.escape(says)):
        ev.generate(tiny_llama.model, tiny_llama.tokenizer, **arguments)


def test_generation_stops_at_the_end_of_the_models_context(tiny_folder):
    loaded = models.load(str(tiny_folder("llama", max_position_embeddings=40)), device="cpu")
    loaded.model.generation_config.eos_token_id = None
    (answer,) = ev.complete(loaded.model, loaded.tokenizer, [[5] * 30], max_new_tokens=1000)
    assert 0 < len(answer.text) <= 10  # a character a token
    assert not answer.finished


def test_a_limit_below_the_gold_answer_is_refused(tiny_llama):
    with pytest.raises(UsageError, match=r"max_new_tokens=3 would cut off the gold answers of mode 'cot', up to 23 tokens"):
        ev.evaluate(tiny_llama, tiny_llama.model, [question()], max_new_tokens=3)


def test_a_question_that_does_not_fit_the_context_is_refused(tiny_llama):
    long = dataclasses.replace(question(), prompt="x" * 600)
    with pytest.raises(UsageError, match="the model reads 512"):
        ev.evaluate(tiny_llama, tiny_llama.model, [long])
