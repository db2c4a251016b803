"""Models with random weights, whose speed is that of any weights: of our own shapes, and of published ones."""

from __future__ import annotations

import functools
import gc
import hashlib
from dataclasses import dataclass
from typing import Any

import torch

from pbb_helpers.processes import release_memory
from pbb_helpers.training import models, pretrain
from pbb_helpers.training.models import LoadedModel
from pbb_helpers.training.recipes import PretrainSettings


@dataclass(frozen=True)
class Published:
    """The shape of a published model.

    Attributes:
        config: Its class of configuration in transformers.
        hidden: Width.
        layers: Number of layers.
        intermediate: Width of the feed-forward layers.
        heads: Attention heads.
        kv_heads: Heads of keys and values.
        head: Width of a head.
        vocabulary: Rows of the embedding.
        tied: Whether the language-model head is the embedding.
        batch_size: Documents per step: fewer, where weights and activations would fill a GPU.
    """

    config: str
    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    tied: bool
    batch_size: int


SHAPES = {
    "Llama-3.2-1B": Published("LlamaConfig", 2048, 16, 8192, 32, 8, 64, 128_256, tied=True, batch_size=64),
    "Qwen3-8B": Published("Qwen3Config", 4096, 36, 12_288, 32, 8, 128, 151_936, tied=False, batch_size=16),
    "tiny-llama": Published("LlamaConfig", 64, 2, 128, 4, 2, 16, 8192, tied=True, batch_size=8),
    "tiny-qwen3": Published("Qwen3Config", 64, 2, 128, 4, 2, 16, 8192, tied=False, batch_size=4),
}
"""The tiny ones take the same path in seconds on a CPU."""
LARGE = ("Llama-3.2-1B", "Qwen3-8B")
"""Those that have goals on a GPU."""


def random_model(settings: PretrainSettings, like: Any) -> LoadedModel:
    """Returns an untrained model of a shape of ours, with tokenizer and device of a loaded one."""
    device = like.model.device
    model = pretrain.new_model(like.tokenizer, settings).to(device).eval()
    if device.type != "cpu":
        model.set_attn_implementation("sdpa")
    return LoadedModel(settings.name, model, like.tokenizer, _key(settings))


def random_shape(name: str, like: Any) -> LoadedModel:
    """Returns an untrained model of one of `SHAPES`, in bfloat16 with SDPA attention, with tokenizer and device of a loaded one.

    It is made on the device: the largest would take as much memory again, and minutes, on the way there.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LoadedModel(name, _build(name, like.tokenizer, like.model.device).eval(), like.tokenizer, _key(SHAPES[name]))


@functools.cache
def weights_gb(name: str) -> float:
    """Returns how much memory the weights of one of `SHAPES` take, in GB."""
    return sum(p.numel() * p.element_size() for p in _build(name, None, torch.device("meta")).parameters()) / 1e9


def too_large(name: str) -> str | None:
    """Returns why one of `SHAPES` cannot be measured on this machine's GPU, None where it can be tried."""
    if not torch.cuda.is_available():
        return None
    free = torch.cuda.mem_get_info()[0] / 1e9
    if (weights := weights_gb(name)) < free:
        return None
    return f"its weights take {weights:.3g} GB, and {free:.3g} GB of the GPU's memory are free"


def _build(name: str, tokenizer: Any, device: torch.device) -> Any:
    import transformers

    shape = SHAPES[name]
    config = getattr(transformers, shape.config)(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, head_dim=shape.head, tie_word_embeddings=shape.tied,
        max_position_embeddings=1024, bos_token_id=None, eos_token_id=getattr(tokenizer, "eos_token_id", None),
        pad_token_id=getattr(tokenizer, "pad_token_id", None),
    )  # fmt: skip
    with torch.device(device), models.quiet():
        return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")


def _key(shape: Any) -> str:
    return hashlib.sha256(repr(shape).encode()).hexdigest()


def free() -> None:
    """Gives back the memory of a model that nothing holds any more."""
    gc.collect()
    release_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
