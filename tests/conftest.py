"""Tiny random models of the real architectures, saved as a user's folder would be: config, safetensors, a real tokenizer file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

NAMES = ("zibble", "quorn", "florp", "mantix", "drebbo", "wexil", "yonder", "kleb")  # one token each in the Llama's tokenizer
SAMPLE = [
    "def f(x):\n    x = x + 3\n    return x",
    "for i in range(3):\n    x = x * 2\n    if x > 20: x = x - 7",
    "x = 5 + 3 = 8\nreturn 8",
    "Write the source of f. What does f(5) return?",
]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns a function that gives the folder of a saved tiny model, made once per session; keywords go to its config.

    `tiny_folder("llama")` has tied embeddings, a BOS token, single digits and one token per name of `NAMES`;
    `tiny_folder("qwen3")` has untied embeddings, grouped-query attention, a chat template and names of several tokens;
    `tiny_folder("hrm_text")` is a "llama" whose layers run twice.
    Treat the folder as read-only: copy it before damaging it.
    """
    made: dict[tuple, Path] = {}

    def folder(architecture: str, **config: object) -> Path:
        key = (architecture, *sorted(config.items()))
        if key not in made:
            made[key] = save_tiny(architecture, tmp_path_factory.mktemp(architecture), **config)
        return made[key]

    return folder


@pytest.fixture
def tiny_llama(tiny_folder):
    """Returns a fresh `LoadedModel` of the tiny Llama: every test may change its weights."""
    from pbb_helpers.training.models import load

    return load(str(tiny_folder("llama")), device="cpu")


@pytest.fixture
def tiny_qwen3(tiny_folder):
    """Returns a fresh `LoadedModel` of the tiny Qwen3, the one with a chat template."""
    from pbb_helpers.training.models import load

    return load(str(tiny_folder("qwen3")), device="cpu")


def save_tiny(architecture: str, folder: Path, **config: object) -> Path:
    """Returns `folder`, into which a random tiny model and its tokenizer were saved."""
    import torch
    from transformers import AutoModelForCausalLM, HrmTextConfig, LlamaConfig, Qwen3Config

    tokenizer = qwen3_tokenizer() if architecture == "qwen3" else llama_tokenizer()
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2 if architecture == "qwen3" else 4,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "tie_word_embeddings": architecture != "qwen3",
        # Wide enough that the logits of a random model lie well apart: greedy decoding must not hang on rounding.
        "initializer_range": 0.3,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    } | config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if architecture == "hrm_text":
            config = HrmTextConfig(**shape | {"num_hidden_layers": 1}, H_cycles=2, L_cycles=1, prefix_lm=False)
        else:
            config = (LlamaConfig if architecture == "llama" else Qwen3Config)(**shape)
        model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def llama_tokenizer():
    """Returns a byte-level tokenizer of single characters with a BOS in front and one token per name of `NAMES`."""
    from tokenizers import AddedToken, processors
    from transformers import PreTrainedTokenizerFast

    backend = _byte_level(vocab_size=0, special=["<s>", "</s>", "<pad>"])
    backend.add_tokens([AddedToken(name, single_word=True, normalized=False) for name in NAMES])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def qwen3_tokenizer():
    """Returns a byte-level BPE tokenizer with some merges, no BOS, and a chat template with a thinking switch."""
    from transformers import PreTrainedTokenizerFast

    backend = _byte_level(vocab_size=320, special=["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _byte_level(vocab_size: int, special: list[str]):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(SAMPLE, trainer)
    return backend


@pytest.fixture(scope="session")
def shipped_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a tiny random model with the tokenizer of the shipped ones (trained on a small sample): read-only."""
    from dataclasses import replace

    from pbb_helpers.training.pretrain import PretrainSettings, build_tokenizer, new_model

    folder = tmp_path_factory.mktemp("shipped-like")
    tokenizer = build_tokenizer(folder, sample=300)
    model = new_model(tokenizer, replace(PretrainSettings(), hidden=32, layers=1, intermediate=48))
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.data *= 10  # logits well apart: greedy decoding must not hang on rounding
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def plan(shipped_like: Path):
    """Returns an experiment of the smallest size: the conditions of the main one, two seeds, stages of 5 and 3 steps of 4 documents."""
    from dataclasses import replace

    from pbb_helpers.data.budget import Budget
    from pbb_helpers.data.plan import Experiment
    from pbb_helpers.data.settings import TrainSettings

    settings = TrainSettings(rank=2, alpha=4, batch_size=4, dtype="float32", checkpoint_every=2, log_every=1)
    return Experiment(
        model=str(shipped_like), family_settings=(("max_statements", 1),), seeds=(0, 1), n_with_io=4, n_without_io=3, n_eval_inputs=5,
        inputs_per_program=2, n_with_io_asked=2, budget=Budget(settings, replace(settings, lr=1e-3), stage1_steps=5, stage2_steps=3),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _faults_in_the_report(record_property) -> Iterator[None]:
    """Hands the faults that a test counted to its report, which reaches the terminal from another process too."""
    from faults import SURVIVED

    before = SURVIVED.copy()
    yield
    if counted := SURVIVED - before:
        record_property("faults", dict(counted))


def pytest_terminal_summary(terminalreporter) -> None:
    """Prints how many faults of which kind were injected and survived, where any were."""
    survived: Counter[str] = Counter()
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if getattr(report, "when", None) == "teardown":
            survived.update({kind: n for name, counts in report.user_properties if name == "faults" for kind, n in counts.items()})
    if survived:
        kinds = ", ".join(f"{count} {kind}" for kind, count in survived.items())
        terminalreporter.write_line(f"faults injected and survived: {survived.total()} ({kinds})")
