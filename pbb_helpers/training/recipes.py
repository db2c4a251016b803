"""How each model of the ladder is made: shape, budget and mix, as data. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pbb_helpers.data.corpus import Mix
from pbb_helpers.programs import UsageError, did_you_mean


@dataclass(frozen=True)
class PretrainSettings:
    """One model: its shape, its budget and its mix. The learning rate is constant at first and falls to zero over the last `decay_share` of the steps.

    With the optimizer "muon" the matrices of the layers are trained by Muon (https://kellerjordan.github.io/posts/muon/) at
    `matrix_lr`, its updates scaled to AdamW's root mean square (arXiv 2502.16982), and the rest by AdamW at `lr`. `bpe_size` is the
    size of the tokenizer's vocabulary without the names: with 1,024 for code alone, and 1,280 for a mix with language, a source and its
    description take as many tokens. Documents longer than `longest` tokens, few and costly, are left out (three statements recalled
    beside distractors).

    With `passes` the model is no Llama but transformers' HrmText (https://huggingface.co/docs/transformers/model_doc/hrm_text) with
    causal attention: its layers, in two halves, are run so many times one after the other with the same weights, each half reading the sum
    of what both wrote last. Models of 1 and 2 passes have the same parameters.
    """

    name: str = "pbb-small"
    hidden: int = 128
    layers: int = 6
    passes: int | None = None
    intermediate: int = 384
    steps: int = 8_000
    batch_size: int = 160
    optimizer: str = "adamw"
    lr: float = 2e-3
    matrix_lr: float = 4e-3
    warmup: int = 200
    decay_share: float = 0.55
    weight_decay: float = 0.05
    clip: float = 1.0
    dtype: str = "bfloat16"
    compile: bool = True
    threads: int = 2
    seed: int = 0
    evaluate_every: int = 400
    questions: int = 400
    bpe_size: int = 1024
    longest: int = 112
    mix: Mix = field(default_factory=Mix)

    def __post_init__(self) -> None:
        for name in ("hidden", "layers", "intermediate", "steps", "batch_size", "warmup", "threads", "evaluate_every", "questions"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)}; give at least 1")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed {self.seed}; give a whole number from 0, below 2 to the 63rd, which is what torch takes")
        if self.bpe_size < 258:
            raise UsageError(f"bpe_size {self.bpe_size}; give at least 258: a token for each byte and two of its own")
        if self.longest < 64:
            raise UsageError(f"longest {self.longest}; give at least 64 tokens, so that more than the shortest programs are left")
        if self.passes is not None and (self.passes < 1 or self.layers % 2):
            raise UsageError(f"passes {self.passes} over {self.layers} layers; give at least 1 pass, over an even number of layers")
        if self.hidden % 32:
            raise UsageError(f"hidden {self.hidden}; give a multiple of 32, the width of an attention head")
        if self.dtype not in ("float32", "bfloat16"):
            raise did_you_mean("dtype", self.dtype, ("float32", "bfloat16"))
        if self.optimizer not in ("adamw", "muon"):
            raise did_you_mean("optimizer", self.optimizer, ("adamw", "muon"))
        if not (self.lr > 0 and self.matrix_lr > 0 and self.clip > 0 and 0 <= self.decay_share <= 1 and self.weight_decay >= 0):
            raise UsageError(f"lr {self.lr}, matrix_lr {self.matrix_lr}, clip {self.clip}, decay_share {self.decay_share}, weight_decay "
                             f"{self.weight_decay}; give learning rates and clip above 0, decay_share from 0 to 1, weight_decay of 0 or more")  # fmt: skip


BOTH = PretrainSettings(
    steps=4_000, batch_size=64, optimizer="muon", warmup=100, threads=1, bpe_size=1280, longest=128,
    mix=Mix(language=0.5, modes={"direct": 0.4, "cot": 0.35, "recall": 0.25}),
)  # fmt: skip
"""The recipe of the ladder: code and language 1:1, trained by Muon (CHANGELOG says what was tried)."""


def _rung(name: str, hidden: int, layers: int, language: float = 0.5) -> PretrainSettings:
    return replace(BOTH, name=name, hidden=hidden, layers=layers, intermediate=3 * hidden, mix=replace(BOTH.mix, language=language))


_CALLS = replace(_rung("pbb-m-calls", 128, 6), longest=192, mix=replace(BOTH.mix, calls=0.25))
LADDER = {
    settings.name: settings
    for settings in (
        PretrainSettings(),
        _rung("pbb-xs", 64, 4),
        _rung("pbb-s", 96, 5),
        _rung("pbb-m", 128, 6),
        _rung("pbb-m-code", 128, 6, 0.1),
        _rung("pbb-m-words", 128, 6, 0.9),
        _rung("pbb-l", 192, 8),
        replace(_rung("pbb-xl", 288, 8), threads=2),
        replace(_rung("pbb-once", 96, 4), passes=1, steps=2_000),
        replace(_rung("pbb-twice", 96, 4), passes=2, steps=2_000),
        _CALLS,
        replace(_CALLS, name="pbb-m-calls-seed1", seed=1),
        replace(
            _rung("pbb-ciphers", 128, 6, 0.0),
            steps=8_000,  # a trial of 4,000 steps got 86 % of the letters of 400 fresh ciphers right step by step; 90 % is the goal
            longest=192,
            mix=Mix(
                lengths={1: 0.35, 2: 0.5, 3: 0.15},
                modes={"direct": 0.3, "cot": 0.4, "recall": 0.3},
                families={"arithmetic": 0.4, "ciphers": 0.6},
            ),
        ),
    )
}
"""Models by name: `pbb pretrain --name` makes each of them as it was made. The ladder is pbb-xs, -s, -m, -l and -xl, of 0.6M to 10M parameters, by one recipe;
pbb-once and pbb-twice run the same layers once and twice (`passes`); pbb-m-code and pbb-m-words are pbb-m with code and language 9:1 and 1:9, and pbb-m-calls is pbb-m with
a quarter of its documents on programs that call others (pbb-m-calls-seed1 the same again, from another seed); pbb-ciphers is its size, reads code alone, and runs ciphers too."""
NOTES = {
    "pbb-m-calls": "What changed against pbb-m: a quarter of the documents ask for a program that calls two others, all three in the prompt, in code; "
    "documents up to 192 tokens.",
    "pbb-m-calls-seed1": "pbb-m-calls made a second time, with documents and initial weights of another seed.",
    "pbb-ciphers": "The shape of pbb-m. What changed: code alone and no words; Random Arithmetic and ciphers 4 : 6, up to three statements or parts; "
    "more step by step, less direct; documents up to 192 tokens; 8,000 steps, three times the tokens. Its arithmetic stays at that of pbb-m.",
}
"""What the card of a model says beside its numbers."""
