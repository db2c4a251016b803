"""The shipped model is a function of its settings: same stream, same weights, also when it is stopped on the way."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pbb_helpers.data import corpus
from pbb_helpers.data.budget import Budget
from pbb_helpers.data.conditions import CONDITIONS
from pbb_helpers.data.corpus import Mix
from pbb_helpers.data.datasets import draw_dataset
from pbb_helpers.data.descriptions import find, parse
from pbb_helpers.data.documents import CALL_TEMPLATES, SOURCE_TEMPLATES, call_document, source_document
from pbb_helpers.data.settings import TrainSettings
from pbb_helpers.data.stages import build_stage
from pbb_helpers.disk import write_manifest
from pbb_helpers.families.names import made_up_names
from pbb_helpers.programs import Program, UsageError, family
from pbb_helpers.provenance import hardware, hardware_line
from pbb_helpers.training import models, pretrain, pretrain_documents, pretrain_questions, vocabulary
from pbb_helpers.training.evaluate import generate
from pbb_helpers.training.model_files import shipped
from pbb_helpers.training.pretrain import schedule
from pbb_helpers.training.pretrain_documents import WINDOW, window_of_rows
from pbb_helpers.training.recipes import LADDER, PretrainSettings
from pbb_helpers.training.train import loss

TINY = PretrainSettings(
    name="tiny", hidden=32, layers=1, intermediate=32, steps=2 * WINDOW, batch_size=4, warmup=4, dtype="float32", compile=False, threads=1,
    evaluate_every=WINDOW, questions=4,
)  # fmt: skip
ZIBBLE = Program("zibble", "arithmetic", "def zibble(x):\n    x = x + 3\n    return x", 1)


@pytest.fixture(scope="module")
def tokenizer(shipped_like):
    return AutoTokenizer.from_pretrained(shipped_like)


# ---------------------------------------------------------------- the tokenizer


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(max_size=60)
    | st.lists(st.sampled_from(["zibble", "-17", " ", "\n", "\n    ", "x = ", "<|end|>", "é", "𝄞", *made_up_names()[:3]])).map("".join)
)
def test_any_text_comes_back_from_the_tokenizer(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False), skip_special_tokens=False) == text


def test_every_document_comes_back_from_the_tokenizer(tokenizer):
    data = draw_dataset(family("arithmetic"), n_with_io=12, n_without_io=6, n_eval_inputs=10, seed=0)
    budget = Budget(TrainSettings(batch_size=16), TrainSettings(batch_size=16), stage1_steps=12, stage2_steps=6)
    for example in build_stage(CONDITIONS["mixture"].stages[0], data, budget).examples:
        prompt, completion = models.encode(tokenizer, example)
        assert tokenizer.decode(prompt) == example.prompt
        assert completion[-1] == tokenizer.eos_token_id and tokenizer.decode(completion[:-1]) == example.completion


def test_every_name_is_one_token_wherever_it_stands(tokenizer):
    templates = [t.format(name="{name}", input=7) for t in SOURCE_TEMPLATES + CALL_TEMPLATES] + [ZIBBLE.source.replace("zibble", "{name}")]
    names = made_up_names()
    ids = dict(zip(names, tokenizer.convert_tokens_to_ids(list(names)), strict=True))
    assert len(set(ids.values())) == len(names)
    for i, name in enumerate(names):
        encoded = tokenizer.encode(templates[i % len(templates)].format(name=name))
        assert encoded.count(ids[name]) == 1, (name, templates[i % len(templates)])
        rest = tokenizer.decode([token for token in encoded if token != ids[name]])
        assert rest == templates[i % len(templates)].format(name="")


def test_digits_and_the_sign_are_tokens_of_their_own(tokenizer):
    for number in (*range(-199, 200), 12345):
        for text in (str(number), f"x = max({number}, 4) = {number}\nreturn {number}"):
            pieces = [tokenizer.decode([token]) for token in tokenizer.encode(text)]
            assert all(len(piece) == 1 for piece in pieces if re.search(r"\d", piece)), pieces
            assert "".join(pieces) == text
    assert [tokenizer.decode([t]) for t in tokenizer.encode("-17")] == ["-", "1", "7"]


def test_the_tokenizer_is_the_same_in_every_process(shipped_like, tmp_path):
    code = "import sys; from pathlib import Path; from pbb_helpers.training.vocabulary import build_tokenizer; build_tokenizer(Path(sys.argv[1]), sample=300)"
    environment = os.environ | {"PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "3", "TOKENIZERS_PARALLELISM": "true"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment, timeout=120, capture_output=True)
    assert (tmp_path / "tokenizer.json").read_bytes() == (shipped_like / "tokenizer.json").read_bytes()


# ---------------------------------------------------------------- the stream


def test_the_stream_is_that_which_the_shipped_model_was_made_with():
    """A change here makes the shipped models irreproducible: then pretrain them anew."""
    stream = itertools.islice(corpus.conversations(Mix(), [0, 0]), 200)
    texts = [example.prompt + example.completion for document in stream for example in document]
    assert hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16] == "93725f9105992bbb"


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_a_share_of_the_documents_has_its_programs_in_words(share):
    made = list(itertools.islice(corpus.conversations(Mix(language=share), 0), 300))
    in_words = [document for document in made if document[0].kind.startswith("in_context_description_")]
    assert abs(len(in_words) / 300 - share) < 0.08
    for document in made:
        example = document[0]
        described = document in in_words
        assert ("def " in example.prompt) == (not described) and bool(find(example.prompt)) == described
        if described:
            sources = find(example.prompt)
            (asked,) = (s for s in sources if s.startswith(f"def {example.program}("))
            assert [str(Program(example.program, "arithmetic", asked, 1).run(e.input)) for e in document] == [e.answer for e in document]
            if example.kind.endswith("recall"):
                text, _, steps = example.completion.partition("\n")
                assert text in example.prompt.split("\n\n") and parse(text) == asked and steps.endswith(f"return {example.answer}")
    assert {len(find(document[0].prompt)) for document in in_words} <= {1, 2, 3}


def test_the_same_programs_are_worded_in_many_ways():
    said = {e.prompt.split(".")[0].replace(e.program, "") for e in itertools.islice(corpus.documents(Mix(language=1), 0), 100)}
    assert len(said) > 10


@pytest.mark.parametrize(("wrong", "message"), [
    ({"language": 1.5}, "language 1.5; give the share of documents in words, from 0 to 1"),
    ({"calls": -0.1}, "calls -0.1; give the share of documents with a program that calls others, from 0 to 1"),
    ({"calls": 0.5, "families": {"arithmetic": 1.0, "ciphers": 1.0}}, "calls 0.5 with families .* are of arithmetic alone"),
])  # fmt: skip
def test_a_share_that_is_none_is_refused(wrong, message):
    with pytest.raises(UsageError, match=message):
        Mix(**wrong)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_documents_asks_for_a_program_that_calls_two_others(share):
    mix, inputs = Mix(language=0.5, calls=share), tuple(range(-4, 30))
    made = list(itertools.islice(corpus.conversations(mix, 0, inputs=inputs), 300))
    called = [(d, re.search(rf"def {d[0].program}\(x\):\n    return (\w+)\((\w+)\(x\)\)", d[0].prompt)) for d in made]
    called = [(document, match.groups()) for document, match in called if match]
    assert abs(len(called) / 300 - share) < 0.08
    for document, (outer, inner) in called:
        first = document[0]
        sources = first.prompt.rpartition("\n\n")[0].split("\n\n")
        assert len(sources) == len({source.partition("(")[0] for source in sources}) <= 5
        space: dict = {}
        exec("\n".join(sources), space)
        for e in document:
            assert e.input in inputs and space[inner](e.input) in inputs and str(space[first.program](e.input)) == e.answer
        if first.kind == "in_context_direct":
            assert len(document) == corpus.TURNS and all(e.completion == e.answer for e in document)
        else:
            steps = first.completion.splitlines()
            assert [line for line in steps if re.fullmatch(r"\w+\(-?\d+\)", line)] == [
                f"{inner}({first.input})", f"{outer}({space[inner](first.input)})"
            ]  # fmt: skip
            assert steps[-1] == f"return {first.answer}"
            written = re.findall(r"def (\w+)\(", first.completion)
            assert written == ([first.program, inner, outer] if first.kind == "in_context_recall" else [])


def test_programs_with_an_excluded_behaviour_are_in_no_document_not_even_composed():
    mix = Mix(lengths={1: 1.0}, calls=1.0)
    made = [document[0] for document in itertools.islice(corpus.conversations(mix, 0), 200)]
    inputs = family("arithmetic").inputs()

    def behaviours(example):
        space: dict = {}
        exec("\n".join(example.prompt.rpartition("\n\n")[0].split("\n\n")), space)
        return {name: tuple(space[name](x) for x in inputs) for name in space if not name.startswith("__")}

    unwanted = frozenset(behaviours(example)[example.program] for example in made[:40])
    left = [document[0] for document in itertools.islice(corpus.conversations(mix, 0, exclude=unwanted), 200)]
    assert not any(unwanted & set(behaviours(example).values()) for example in left)


def test_a_window_is_a_function_of_seed_and_index(shipped_like):
    window = partial(window_of_rows, shipped_like)
    first = window(TINY, 0)
    assert first == window(TINY, 0) and len(first) == WINDOW and {len(batch) for batch in first} == {4}
    assert first != window(TINY, 1) and first != window(replace(TINY, seed=1), 0)


def test_names_are_bound_anew_in_each_document():
    bound: dict[str, set[str]] = {}
    for document in itertools.islice(corpus.conversations(Mix(), 0, names=made_up_names()[:8]), 100):
        for name, body in re.findall(r"def (\w+)\(x\):\n(.*?)return x", document[0].prompt, re.DOTALL):
            bound.setdefault(name, set()).add(body)
    assert all(len(bodies) > 5 for bodies in bound.values())


def test_a_conversation_is_supervised_on_its_answers_and_their_end(tokenizer):
    document = [call_document(ZIBBLE, "replay", "in_context_direct", 5, 0), call_document(ZIBBLE, "replay", "direct", 39, 1)]
    ids, marks = pretrain_documents.encode_conversation(tokenizer, document)
    assert tokenizer.decode([i for i, mark in zip(ids, marks, strict=True) if mark]) == "8<|end|>42<|end|>"
    assert tokenizer.decode(ids) == f"{document[0].prompt}8<|end|>\n\n{document[1].prompt}42<|end|>"
    batch = pretrain_documents.collate([(ids, marks), (ids[:-2], marks[:-2])])
    row = batch.input_ids.shape[1]
    assert batch.targets.tolist() == [i for i, mark in zip(ids, marks, strict=True) if mark] + [
        i for i, m in zip(ids[:-2], marks[:-2], strict=True) if m
    ]
    for position, target in zip(batch.positions.tolist(), batch.targets.tolist(), strict=True):
        assert ids[position % row + 1] == target


def test_a_single_question_is_encoded_as_finetuning_and_evaluation_do(tokenizer):
    for example in (call_document(ZIBBLE, "replay", "in_context_cot", 5, 0), source_document(ZIBBLE, "with_io", 3)):
        prompt, completion = models.encode(tokenizer, example)
        ids, marks = pretrain_documents.encode_conversation(tokenizer, [example])
        assert ids == [*prompt, *completion] and marks == [0] * len(prompt) + [1] * len(completion)


# ---------------------------------------------------------------- learning rate and measure


def test_the_learning_rate_rises_stays_and_falls_to_zero():
    plan = PretrainSettings(steps=1000, warmup=100, decay_share=0.2)
    shares = [schedule(step, plan) for step in range(1000)]
    assert shares[0] == pytest.approx(0.01) and shares[99] == 1.0 and set(shares[99:801]) == {1.0}
    assert all(a < b for a, b in itertools.pairwise(shares[:100])) and all(a > b for a, b in itertools.pairwise(shares[800:]))
    assert shares[900] == pytest.approx(0.5) and 0 < shares[-1] == pytest.approx(1 / 200)
    assert schedule(999, replace(plan, decay_share=0.0)) == 1.0


def test_muon_trains_the_matrices_of_the_layers_and_adamw_the_rest(tokenizer):
    plan = replace(TINY, optimizer="muon", lr=0.5, matrix_lr=0.25)
    model = pretrain.new_model(tokenizer, plan)
    muon, adamw = pretrain.optimizers(model, plan)
    names = {id(p): name for name, p in model.named_parameters()}
    held = [{names[id(p)] for group in optimizer.param_groups for p in group["params"]} for optimizer in (muon, adamw)]
    assert held[0] | held[1] == set(names.values()) and not held[0] & held[1]
    assert all(name.endswith("_proj.weight") for name in held[0]) and "model.embed_tokens.weight" in held[1]
    assert (muon.param_groups[0]["lr"], adamw.param_groups[0]["lr"]) == (0.25, 0.5)


def test_layers_run_twice_are_the_parameters_of_layers_run_once(tokenizer):
    plans = [replace(TINY, layers=2, passes=passes, optimizer="muon") for passes in (1, 2)]
    once, twice = (pretrain.new_model(tokenizer, plan) for plan in plans)
    parameters = dict(once.named_parameters())
    assert parameters.keys() == dict(twice.named_parameters()).keys()
    assert all(torch.equal(p, parameters[name]) for name, p in twice.named_parameters())
    runs = []
    for layer in (layer for half in (twice.model.L_module, twice.model.H_module) for layer in half.layers):
        layer.register_forward_hook(lambda *_, layer=layer: runs.append(layer))
    ids = torch.arange(10, 18)[None]
    assert not torch.allclose(twice(ids).logits, once(ids).logits, atol=1e-3) and len(runs) == 4 and len(set(runs)) == 2
    other = torch.cat([ids[:, :5], ids[:, 5:] + 50], dim=1)
    assert torch.equal(twice(ids).logits[:, :5], twice(other).logits[:, :5]), "a token saw what comes after it"
    muon, _ = pretrain.optimizers(twice, plans[1])
    matrices = {name for name, p in twice.named_parameters() if any(p is held for g in muon.param_groups for held in g["params"])}
    assert matrices == {name for name, p in twice.named_parameters() if name.endswith("_proj.weight")}


def test_exact_match_agrees_with_greedy_generation(tokenizer):
    torch.manual_seed(0)
    questions = pretrain_questions.held_out_questions(6)
    some = [example for mode in ("direct", "cot", "recall") for example in questions[mode]]
    model = pretrain.new_model(tokenizer, replace(TINY, hidden=64, intermediate=128))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    batch = pretrain_documents.collate(
        [pretrain_documents.encode_conversation(tokenizer, [example]) for example in some[::2]]
    )  # half of them by heart
    while (value := loss(model, batch)) > 0.02:
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    written = generate(model, tokenizer, [models.encode_prompt(tokenizer, e.prompt) for e in some], max_new_tokens=120)
    right = [text == example.completion for text, example in zip(written, some, strict=True)]
    assert 0.1 < np.mean(right) < 0.9, right
    assert pretrain_questions.exact_match(model, tokenizer, some, batch_size=5) == pytest.approx(np.mean(right))
    assert [pretrain_questions.exact_match(model, tokenizer, [example]) for example in some[:12]] == right[:12]


def test_held_out_questions_are_in_context_and_the_same_every_time():
    one, same = pretrain_questions.held_out_questions(6), pretrain_questions.held_out_questions(6)
    assert one == same and set(one) == {"direct", "cot", "recall"}
    for mode, some in one.items():
        assert len({e.program for e in some}) == 6 and all(
            e.kind == f"in_context_{mode}" and f"def {e.program}(x)" in e.prompt for e in some
        )
        assert [(e.program, e.input) for e in some] == [(e.program, e.input) for e in one["direct"]]


# ---------------------------------------------------------------- the whole


@pytest.fixture
def quick(monkeypatch, shipped_like):
    """Small tokenizer, and windows made in this process: the second one is tested once, below."""
    monkeypatch.setattr(pretrain, "build_tokenizer", partial(vocabulary.build_tokenizer, sample=300))

    def windows(folder, plan, first):
        return (
            (i, window(shipped_like, PretrainSettings(seed=plan.seed, batch_size=plan.batch_size), i))
            for i in range(first, -(-plan.steps // WINDOW))
        )

    monkeypatch.setattr(pretrain, "windows", windows)
    torch.set_num_threads(1)


KEPT: dict = {}


def window(folder, plan, index):
    """Returns `window_of_rows`, made once for all tests here: it takes longer than training on it."""
    key = (plan.seed, plan.batch_size, index)
    if key not in KEPT:
        KEPT[key] = window_of_rows(folder, plan, index)
    return KEPT[key]


def weights(folder) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_stopped_run_goes_on_to_the_same_weights(quick, tmp_path, optimizer):
    plan = replace(TINY, optimizer=optimizer)
    lines: list[str] = []
    whole = pretrain.pretrain(plan, tmp_path / "whole", log=lines.append)
    card = json.loads((whole / "card.json").read_text())
    assert [point["step"] for point in card["curve"]] == [16, 32] and card["in_context_n"] == 4 and len(lines) == 4
    assert card["hardware"] == f"{hardware_line(hardware())}, 1 thread"

    def stop(line: str) -> None:
        if line.startswith("step 32"):
            raise KeyboardInterrupt  # after the steps, before their checkpoint

    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain(plan, tmp_path / "stopped", log=stop)
    assert not (tmp_path / "stopped" / "card.json").exists()
    os.rename(tmp_path / "stopped" / "work", tmp_path / "stopped" / "work.new")  # killed between the two renames
    resumed = pretrain.pretrain(plan, tmp_path / "stopped", log=lines.append)
    assert weights(resumed) == weights(whole)
    assert json.loads((resumed / "card.json").read_text())["curve"] == card["curve"]
    assert lines[4].startswith("step 32") and len(lines) == 6

    before = weights(whole)
    pretrain.pretrain(plan, whole, log=lambda line: pytest.fail(line))  # finished: nothing is trained again
    assert weights(whole) == before and models.load(str(whole), device="cpu").model.config.hidden_size == 32


def test_a_finished_run_is_prolonged_from_where_it_ended(quick, tmp_path):
    plan = replace(TINY, decay_share=0.0, steps=40, evaluate_every=1000)
    whole = pretrain.pretrain(plan, tmp_path / "whole", log=lambda line: None)
    short = pretrain.pretrain(replace(plan, steps=20), tmp_path / "short", log=lambda line: None)
    assert weights(short) != weights(whole)
    assert weights(pretrain.pretrain(plan, short, log=lambda line: None)) == weights(whole)
    before = {path.name: path.read_bytes() for path in short.iterdir() if path.is_file()}
    for changes, message in (
        ({"seed": 1, "steps": 60}, "holds a run with seed 0, not 1; take another folder"),
        ({"lr": 1e-4}, "holds a run with lr .*, not 0.0001"),
        ({"bpe_size": 700}, "holds a run with bpe_size"),
        ({"mix": Mix(calls=0.5)}, "holds a run with mix"),
        ({"steps": 30}, "holds a run of 40 steps, and 30 are asked for"),
    ):
        with pytest.raises(UsageError, match=message):
            pretrain.pretrain(replace(plan, **changes), short, log=lambda line: None)
    assert {path.name: path.read_bytes() for path in short.iterdir() if path.is_file()} == before, "a call that is refused touches nothing"


def test_a_checkpoint_of_a_version_that_knew_fewer_settings_is_gone_on_from(quick, tmp_path):
    plan = replace(TINY, steps=16)
    folder = pretrain.pretrain(plan, tmp_path / "one", log=lambda line: None)
    state = json.loads((folder / "work" / "state.json").read_text())
    state["fixed"]["mix"].pop("calls")
    state["fixed"].pop("lr")
    (folder / "work" / "state.json").write_text(json.dumps(state))
    write_manifest(folder / "work", sorted(p for p in (folder / "work").iterdir() if p.name != "manifest.json"), pretrain.CHECKPOINT)
    lines: list[str] = []
    pretrain.pretrain(replace(plan, steps=32), folder, log=lines.append)
    assert lines and lines[0].startswith("step 32")


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_a_damaged_checkpoint_is_named_and_left_where_it_is(quick, tmp_path, name):
    pretrain.pretrain(TINY, tmp_path, log=lambda line: None)
    file = tmp_path / "work" / name
    whole = file.read_bytes()
    for damage in (whole[: len(whole) // 2], bytes([whole[0] ^ 1]) + whole[1:], b""):
        file.write_bytes(damage)
        with pytest.raises(UsageError, match=rf"{name} (has|does not have|cannot be|was changed).*; delete .*work to begin anew"):
            pretrain.pretrain(TINY, tmp_path, log=lambda line: None)
        assert file.read_bytes() == damage
    file.write_bytes(whole)
    pretrain.pretrain(TINY, tmp_path, log=lambda line: pytest.fail(line))


def test_windows_come_from_a_second_process_in_order(shipped_like):
    made = list(pretrain_documents.windows(shipped_like, replace(TINY, steps=3 * WINDOW, batch_size=1), 1))
    assert [index for index, _ in made] == [1, 2] and made[1][1] == window_of_rows(shipped_like, replace(TINY, batch_size=1), 2)


def test_a_model_of_both_representations_is_made_and_asked_in_both(monkeypatch, tmp_path):
    monkeypatch.setattr(pretrain, "build_tokenizer", partial(vocabulary.build_tokenizer, sample=300))
    small = {name: getattr(TINY, name) for name in TINY.__dataclass_fields__ if name not in ("name", "mix")}
    folder = pretrain.main("both", tmp_path, **small | {"steps": WINDOW, "bpe_size": 600, "longest": 300}, language=0.5)
    card = json.loads((folder / "card.json").read_text())
    assert card["settings"]["mix"]["language"] == 0.5 and card["settings"]["bpe_size"] == 600
    ways = ("direct", "cot", "recall")
    assert set(card["in_context"]) == {*ways, *(f"description_{way}" for way in ways)} < set(card["curve"][0])
    with pytest.raises(UsageError, match="holds a run with mix .* take another folder"):
        pretrain.main("both", tmp_path, **small | {"bpe_size": 600, "longest": 300}, language=0.6)


def test_a_token_of_a_language_mix_crosses_no_end_of_a_sentence(tmp_path):
    both = vocabulary.build_tokenizer(tmp_path, mix=Mix(language=1), bpe_size=800, sample=300)
    for example in itertools.islice(corpus.documents(Mix(language=1), 3), 50):
        pieces = [both.decode([token]) for token in both.encode(example.prompt)]
        assert "".join(pieces) == example.prompt and not any(". " in piece.rstrip() for piece in pieces), pieces


@pytest.mark.parametrize("name", ["pbb-small", "pbb-m", "pbb-m-calls", "pbb-ciphers", "pbb-twice"])
def test_a_card_gives_back_the_settings_of_its_recipe(name):
    assert pretrain_documents.settings_of(shipped()[name].folder) == LADDER[name]


def test_a_mix_with_calls_has_the_tokenizer_of_the_mix_without(tmp_path):
    files = []
    for share in (0.0, 0.25):
        vocabulary.build_tokenizer(tmp_path / f"{share}", mix=Mix(language=0.5, calls=share), bpe_size=600, sample=100)
        files.append((tmp_path / f"{share}" / "tokenizer.json").read_bytes())
    assert files[0] == files[1]


def test_a_mix_of_families_has_documents_of_each_in_its_share_and_a_document_of_one_alone():
    mixed = Mix(families={"arithmetic": 0.7, "ciphers": 0.3}, language=0.5)
    made = list(itertools.islice(corpus.conversations(mixed, 0), 300))
    of_ciphers = [document for document in made if isinstance(document[0].input, tuple)]
    assert abs(len(of_ciphers) / 300 - 0.3) < 0.08
    for document in made:
        sources = re.findall(r"def \w+\((.*)\):", document[0].prompt)
        assert set(sources) <= ({"t, k"} if document in of_ciphers else {"x"})


@pytest.mark.parametrize("families", [{}, {"arithmetic": 0.0}, {"arithmetic": 1.0, "ciphers": -0.5}, {"cyphers": 1.0}])
def test_shares_of_families_that_are_none_are_refused(families):
    with pytest.raises(UsageError, match="families|unknown family 'cyphers'; did you mean 'ciphers'"):
        Mix(families=families)


def test_in_a_mix_with_ciphers_each_letter_of_a_text_is_a_token(tmp_path):
    mix = Mix(families={"ciphers": 1.0}, language=0.3)
    tokenizer = pretrain.build_tokenizer(tmp_path, mix=mix, bpe_size=700, sample=300)
    for example in itertools.islice(corpus.documents(mix, 3), 50):
        text = f"{example.prompt}{example.completion}"
        pieces = [tokenizer.decode([token]) for token in tokenizer.encode(text)]
        assert "".join(pieces) == text and not any(re.search(r"[A-Z]{2}", piece) for piece in pieces), pieces


def test_questions_in_words_are_the_same_questions():
    both = pretrain_questions.held_out_questions(6, language=True)
    assert {mode: both[mode] for mode in ("direct", "cot", "recall")} == pretrain_questions.held_out_questions(6)
    for mode in ("direct", "cot", "recall"):
        for one, other in zip(both[mode], both[f"description_{mode}"], strict=True):
            assert (one.program, one.input, one.answer) == (other.program, other.input, other.answer)
            assert f"def {one.program}(" in one.prompt and len(find(other.prompt)) == 1 and "def " not in other.prompt


@pytest.mark.parametrize(("wrong", "message"), [
    ({"hiden": 3}, "unknown setting 'hiden'; did you mean 'hidden'"), ({"langage": 0.5}, "did you mean 'language'"),
    ({"bpe_size": 10}, "bpe_size 10; give at least 258"), ({"longest": 5}, "longest 5; give at least 64"),
    ({"passes": 2, "layers": 3}, "passes 2 over 3 layers; give at least 1 pass, over an even number"),
    ({"seed": -1}, "seed -1; give a whole number from 0"), ({"seed": 2**63}, "below 2 to the 63rd"),
    ({"one_distractor": 5}, "one_distractor 5.*together at most 1"), ({"two_distractors": 0.9}, "two_distractors 0.9; give shares"),
])  # fmt: skip
def test_a_setting_that_is_none_is_named(wrong, message):
    with pytest.raises(UsageError, match=message):
        pretrain.main(**wrong)


def test_a_length_that_hardly_any_document_has_is_one_line_and_no_endless_wait():
    rows = (([0] * (50 + i % 100), [1]) for i in itertools.count())
    assert [len(ids) for ids, _ in itertools.islice(pretrain_documents.short_enough(rows, 60), 12)] == [*range(50, 61), 50]
    with pytest.raises(UsageError, match="longest 40: only 0 of the first 1000 documents have no more tokens than that; give a larger"):
        next(pretrain_documents.short_enough(rows, 40))
    with pytest.raises(UsageError, match="longest 60: only 110 of the first 1000"):
        list(itertools.islice(pretrain_documents.short_enough((([0] * (50 + i % 100), [1]) for i in itertools.count()), 60), 200))


def test_fresh_questions_on_calls_are_the_same_in_every_mode_and_leave_the_others_as_they_were():
    plain, both = pretrain_questions.held_out_questions(8), pretrain_questions.held_out_questions(8, calls=True)
    assert {mode: both[mode] for mode in plain} == plain and set(both) - set(plain) == {"calls_direct", "calls_cot", "calls_recall"}
    for one, other, third in zip(*(both[f"calls_{mode}"] for mode in ("direct", "cot", "recall")), strict=True):
        assert one.prompt.rpartition("\n\n")[0] == other.prompt.rpartition("\n\n")[0] == third.prompt.rpartition("\n\n")[0]
        assert one.answer == other.answer == third.answer and one.prompt.count("def ") == 3


def test_fresh_questions_are_asked_of_every_family_of_the_mix_under_names_of_their_own():
    plain = pretrain_questions.held_out_questions(8)
    both = pretrain_questions.held_out_questions(8, families=["arithmetic", "ciphers"])
    assert {mode: both[mode] for mode in plain} == plain  # those of arithmetic are the same beside others
    assert set(both) - set(plain) == {"ciphers_direct", "ciphers_cot", "ciphers_recall"}
    for mode, examples in both.items():
        assert all(isinstance(e.input, tuple) == mode.startswith("ciphers") for e in examples)
