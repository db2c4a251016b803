"""The base models (shipped, a folder, a hub id), how text becomes tokens for them, and the adapters that a stage trains."""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pbb_helpers.data.documents import NAMED
from pbb_helpers.programs import UsageError, did_you_mean
from pbb_helpers.training.model_files import NOT_RUN, check_folder, find, hash_files
from pbb_helpers.training.model_files import Card as Card
from pbb_helpers.training.model_files import shipped as shipped

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from pbb_helpers.data.documents import Example
    from pbb_helpers.data.settings import TrainSettings

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
NAME_ROWS = "trainable_tokens_delta"
"""How peft calls the trained embedding rows in a state dict."""

log = logging.getLogger(__name__)
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")  # peft 0.21 asks for it by its old name


@dataclass
class LoadedModel:
    """A base model with its tokenizer.

    Attributes:
        name: What the user asked for.
        model: In eval mode. Adding an adapter to it changes it in place.
        tokenizer: Has an end-of-text token.
        key: Identity of weights and tokenizer, the same on every machine: a hash of the files, or the hub id with its commit; and the dtype
            of the weights in memory, unless that is float32.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    key: str


def load(spec: str, *, dtype: torch.dtype = torch.float32, device: str | None = None, trust_remote_code: bool = False) -> LoadedModel:
    """Returns the model that `spec` names, in eval mode, on `device` (default: the GPU where there is one).

    Args:
        spec: A shipped name ("pbb-small"), a folder, or a hub id ("org/name", or "org/name@revision" to pin one).
        dtype: Of the weights in memory, whatever they were saved in.
        trust_remote_code: Run the Python code that a model brings with it; without it, such a model is refused unless transformers
            has the architecture itself.

    Raises:
        UsageError: Nothing valid is there, a file is damaged, the tokenizer has no end token, or the hub cannot be reached.
    """
    folder, key = find(spec, trust_remote_code=trust_remote_code)
    check_folder(folder, trust_remote_code=trust_remote_code)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    # On a CPU the backward of fused attention is the slow part of a step over short documents.
    model = _read_model(folder, dtype, "eager" if str(device) == "cpu" else None, trust_remote_code)
    tokenizer = _read_tokenizer(folder, trust_remote_code)
    if len(tokenizer) > (rows := model.get_input_embeddings().num_embeddings):
        raise UsageError(f"{folder}: the tokenizer has {len(tokenizer)} tokens but the model only {rows}; they are not from the same model")
    if trust_remote_code and key:
        key += "+code"
    key = key or hash_files(folder, code=trust_remote_code)
    if dtype != torch.float32:  # other weights, so what is trained on them is something else
        key += f"+{str(dtype).removeprefix('torch.')}"
    return LoadedModel(spec, model.to(device).eval(), tokenizer, key)


def load_tokenizer(spec: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Returns the tokenizer of the model that `load` would return, without its weights.

    Raises:
        UsageError: As `load`.
    """
    folder, _ = find(spec, trust_remote_code=trust_remote_code)
    check_folder(folder, trust_remote_code=trust_remote_code)
    return _read_tokenizer(folder, trust_remote_code)


def _read_model(folder: Path, dtype: torch.dtype, attention: str | None, trust_remote_code: bool) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    options = {"dtype": dtype, "use_safetensors": True, "local_files_only": True, "trust_remote_code": trust_remote_code}
    options |= {"attn_implementation": attention} if attention else {}
    with _one_line(folder), quiet():
        model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    # transformers fills what is missing with random numbers and only warns.
    if absent := sorted(report["missing_keys"]):
        raise UsageError(f"{str(folder)!r}: the weights lack {len(absent)} tensors, {absent[0]!r} for one; the file is not of this model")
    return model


def _read_tokenizer(folder: Path, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    with _one_line(folder), quiet():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    if tokenizer.eos_token_id is None:
        raise UsageError(f"{str(folder)!r}: the tokenizer has no eos_token, so no answer could end; set one in tokenizer_config.json")
    return tokenizer


@contextlib.contextmanager
def _one_line(folder: Path) -> Iterator[None]:
    """Turns what the libraries raise on a bad folder, which can be anything, into one line; want of memory passes through."""
    try:
        yield
    except (UsageError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise UsageError(f"{str(folder)!r} brings Python code of its own and does not load without it; {NOT_RUN}") from error
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise UsageError(f"cannot load a model from {str(folder)!r}: {lines[0]}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the progress bars of transformers, for work of milliseconds, out of notebooks and logs."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


# --- text to tokens -----------------------------------------------------------------------------------------------------


def encode(tokenizer: PreTrainedTokenizerBase, example: Example) -> tuple[list[int], list[int]]:
    """Returns the token ids of the prompt and of the completion with its end token, to be concatenated.

    They are tokenised apart, here and in generation alike, so no token ever spans the border between them. Of a `NAMED` question the first line of
    the completion, in the very tokens that it has there, stands at the end of the prompt's ids.
    """
    completion = [*tokenizer.encode(example.completion, add_special_tokens=False), tokenizer.eos_token_id]
    given = given_tokens(tokenizer, example)
    return encode_prompt(tokenizer, example.prompt) + given, completion[len(given) :]


def given_tokens(tokenizer: PreTrainedTokenizerBase, example: Example) -> list[int]:
    """Returns the first tokens of the completion that are given with the question: none, but of a `NAMED` one those that lie within its first line."""
    if example.kind != NAMED:
        return []
    line, completion = example.completion.split("\n")[0], tokenizer.encode(example.completion, add_special_tokens=False)
    return max((completion[:n] for n in range(len(line) + 1) if line.startswith(tokenizer.decode(completion[:n]))), key=len)


def token_counter(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], int]:
    """Returns a function that gives the number of supervised tokens of a completion, its end token counted."""

    @functools.lru_cache(maxsize=100_000)
    def count(completion: str) -> int:
        return len(tokenizer.encode(completion, add_special_tokens=False)) + 1

    return count


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Returns the token ids after which the model is to answer: as a user's message where the tokenizer has a chat template.

    Thinking is switched off where the template has that switch: an answer is the completion and nothing else.
    """
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=False)
        return tokenizer.encode(text, add_special_tokens=False)  # the template writes the BOS itself
    ids = tokenizer.encode(prompt)
    # Some tokenizers end everything with EOS, after which nothing would be generated.
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def name_tokens(tokenizer: PreTrainedTokenizerBase, names: Iterable[str]) -> tuple[list[int], list[str]]:
    """Returns the ids of those names that are one token (with a space before them as well), and the names that are several."""
    ids: dict[int, None] = {}
    several = []
    for name in names:
        forms = [tokenizer.encode(form, add_special_tokens=False) for form in (name, " " + name)]
        single = [form[0] for form in forms if len(form) == 1 and form[0] != tokenizer.unk_token_id]
        ids.update(dict.fromkeys(single))
        if not single:
            several.append(name)
    return list(ids), several


# --- adapters -----------------------------------------------------------------------------------------------------------


def add_adapter(
    model: PreTrainedModel, settings: TrainSettings, names: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> PeftModel | PreTrainedModel:
    """Returns the model ready for training: with a fresh adapter around it, or all of it trainable (`method="full"`).

    LoRA goes on every linear layer but the LM head. Names that are one token get a trainable embedding row each, which a tied
    LM head shares and an untied one gets as well, since a source that is written out begins with its name. Names of several
    tokens are left as they are, and counted in the log. The model is changed in place: use `copy.deepcopy` to keep it.
    The initial weights depend on `settings.seed` alone.
    """
    from peft import LoraConfig

    if settings.method == "full":
        return model.requires_grad_(True)
    if settings.method != "lora":
        raise did_you_mean("method", settings.method, ["lora", "full"])
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules="all-linear",
        trainable_token_indices=_name_rows(model, tokenizer, names if settings.train_names else (), {}),
        task_type="CAUSAL_LM",
    )
    return _attach(model, config, settings.seed)


def save_adapter(model: PeftModel | PreTrainedModel, folder: Path) -> None:
    """Writes what was trained as safetensors: peft's layout, or, after full finetuning, a whole model that `load` takes.

    The bytes depend on the weights alone: peft's own saving writes a set in random order, a path of this machine and a README.
    """
    from peft import PeftModel, get_peft_model_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    if not isinstance(model, PeftModel):
        with quiet():
            model.save_pretrained(
                folder, save_original_format=False
            )  # under the names that the model has in memory, which a hub file need not have
        return
    state = get_peft_model_state_dict(model, save_embedding_layers=False)  # "auto" would ask the hub
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, folder / ADAPTER_WEIGHTS, {"format": "pt"})
    config = copy.deepcopy(model.peft_config["default"])
    config.base_model_name_or_path, config.inference_mode = None, True
    config.target_modules = sorted(config.target_modules or ())
    config.save_pretrained(folder)


def load_adapter(
    model: PreTrainedModel,
    folder: Path,
    trainable: bool = False,
    *,
    names: Sequence[str] = (),
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> PeftModel | PreTrainedModel:
    """Returns the base model, changed in place, with the adapter (or the fully finetuned weights) that `save_adapter` wrote.

    Args:
        trainable: Whether training goes on from here.
        names: Further names whose embeddings become trainable beside those of the adapter; needs the tokenizer.

    Raises:
        UsageError: A file is missing, damaged, or does not fit this base model; the message names it.
    """
    if not (folder / ADAPTER_CONFIG).is_file():
        return _load_full(model, folder, trainable)
    from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict

    state = _read_weights(folder / ADAPTER_WEIGHTS)
    with _one_line(folder):
        config = LoraConfig.from_pretrained(folder)
    config.inference_mode = not trainable
    if names:
        assert tokenizer is not None, "names need the tokenizer"
        old = config.trainable_token_indices
        old = {"embed_tokens": old} if isinstance(old, list) else dict(old or {})
        config.trainable_token_indices = _name_rows(model, tokenizer, names, old)
    with _one_line(folder / ADAPTER_WEIGHTS):
        adapted = _attach(model, config, seed=0)
        expected = get_peft_model_state_dict(adapted, save_embedding_layers=False)
        _keep_new_rows(state, expected)
        if wrong := sorted(state.keys() ^ expected.keys()):
            raise ValueError(f"it belongs to another base model: {wrong[0]!r}")
        set_peft_model_state_dict(adapted, state)
    return adapted


def merged(model: PeftModel | PreTrainedModel) -> PreTrainedModel:
    """Returns a plain model with the adapter folded into a copy of the weights: fast to generate with, the original untouched.

    A copy, because subtracting a merged adapter again does not restore the very bits of the base.
    """
    from peft import PeftModel

    return copy.deepcopy(model).merge_and_unload() if isinstance(model, PeftModel) else model


def _attach(model: PreTrainedModel, config: Any, seed: int) -> PeftModel:
    from peft import PeftModel, get_peft_model

    if isinstance(model, PeftModel) or hasattr(model, "peft_config"):
        raise ValueError("the model has an adapter already: load the base again, or keep a copy.deepcopy of it")
    with torch.random.fork_rng(devices=[]):  # peft draws from the global generator; every other draw stays where it was
        torch.manual_seed(seed)
        return get_peft_model(model, config)


def _name_rows(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, names: Sequence[str], old: dict[str, list[int]]
) -> dict[str, list[int]] | None:
    """Returns peft's trainable_token_indices: the rows by layer, `old` ones first, so that saved rows keep their places."""
    ids, several = name_tokens(tokenizer, names)
    if several:
        log.info("%d of %d names are several tokens, %r for one: no embedding of their own", len(several), len(names), several[0])
    head = model.get_output_embeddings()
    tied = head is None or head.weight is model.get_input_embeddings().weight
    layers = [model.get_input_embeddings()] if tied else [model.get_input_embeddings(), head]
    keys = [next(key.rpartition(".")[2] for key, module in model.named_modules() if module is layer) for layer in layers]
    rows = {key: list(dict.fromkeys([*old.get(key, []), *ids])) for key in keys}
    return rows if any(rows.values()) else None


def _keep_new_rows(state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Appends to the saved embedding rows those of names that are new, as they are in the base model."""
    for key, fresh in expected.items():
        if NAME_ROWS in key:
            saved = state.get(key, fresh[:0])
            state[key] = torch.cat([saved.to(fresh), fresh[len(saved) :]])


def _load_full(model: PreTrainedModel, folder: Path, trainable: bool) -> PreTrainedModel:
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise UsageError(f"{str(folder)!r} holds neither {ADAPTER_CONFIG} nor *.safetensors; it is no checkpoint")
    state = {name: tensor for path in paths for name, tensor in _read_weights(path).items()}
    with _one_line(folder):
        report = model.load_state_dict(state, strict=False)
        absent = set(report.missing_keys) - set(model.all_tied_weights_keys or ())
        if wrong := [*report.unexpected_keys, *sorted(absent)]:
            raise ValueError(f"it is not of this model: {wrong[0]!r}")
    return model.requires_grad_(trainable)


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path} is damaged or missing ({error}); delete its folder and train the stage again") from error
