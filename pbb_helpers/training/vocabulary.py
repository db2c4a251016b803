"""The tokenizer of the shipped models: byte-level BPE, one token for each made-up name, digit and sign."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pbb_helpers.data.corpus import Mix, documents
from pbb_helpers.data.documents import DESCRIPTION_TEMPLATES, SOURCE_TEMPLATES
from pbb_helpers.families import FAMILIES
from pbb_helpers.families.names import made_up_names

BEGIN = ["<|pad|>", "<|end|>"]


def build_tokenizer(folder: Path, *, mix: Mix | None = None, bpe_size: int = 1024, sample: int = 20_000, seed: int = 1) -> Any:
    """Trains, saves and returns a tokenizer: byte-level BPE, so that any text is encodable, whose tokens may hold spaces.

    It is trained on a sample of the documents of `mix`, by default of those of pbb-small. Every mix with language gets the tokenizer of
    code and language 1:1, and every mix with calls that of the same mix without, whose words are all it needs: models of different mixes
    differ in what they read and in nothing else.

    Each digit and each minus sign before a digit is a token of its own, each made-up name is one, and a token never crosses into a
    new line; "\\n    x = max(x, " may be one, which keeps documents to a third of the length of a word-level vocabulary. In a mix with
    language a token crosses no end of a sentence either: " Multiply x by " is one, whatever stands before it. In a mix with texts each
    capital of a text is a token of its own too.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    mix = replace(mix or Mix(), calls=0.0)
    mix = replace(mix, language=0.5) if mix.language else mix
    sentences = [pre_tokenizers.Split(Regex(r"(?<=[.:]) "), "merged_with_next")] if mix.language else []
    capitals = (
        [pre_tokenizers.Split(Regex(r"(?<![a-z])[A-Z](?![a-z])"), "isolated")]
        if any(FAMILIES[kind].takes == "text" for kind in mix.families)
        else []
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\d|-(?=\d)"), "isolated"),
        pre_tokenizers.Split("\n", "merged_with_next"),
        *sentences,
        *capitals,
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=bpe_size, special_tokens=BEGIN, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_corpus(mix, sample, seed), trainer)
    tokenizer.add_tokens([AddedToken(name, single_word=True, normalized=False) for name in made_up_names()])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=BEGIN[0], eos_token=BEGIN[1], clean_up_tokenization_spaces=False)
    fast.save_pretrained(folder)
    return fast


def _corpus(mix: Mix, sample: int, seed: int) -> Iterator[str]:
    """The pieces of text between names: no token may join a name's surroundings into one with the name."""
    for template in (*SOURCE_TEMPLATES, *(DESCRIPTION_TEMPLATES if mix.language else ())):
        for _ in range(200):
            yield from (template + "\n").split("{name}")
    for example in itertools.islice(documents(mix, seed, names=("zibble", "zabble", "zobble")), sample):
        for text in (example.prompt, example.completion):
            yield from text.replace("zabble", "zibble").replace("zobble", "zibble").split("zibble")
