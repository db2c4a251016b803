"""How long the stages of a condition are, in documents or in supervised tokens, and how many documents of each kind that gives."""

from __future__ import annotations

from dataclasses import dataclass, field

from pbb_helpers.data.settings import TrainSettings
from pbb_helpers.data.specs import DECLARATIONS, StageSpec
from pbb_helpers.programs import UsageError, did_you_mean


@dataclass(frozen=True)
class Budget:
    """How long the stages are and how each is trained; both stages of every condition get the same.

    What is the same is the number of documents; or, with `match="tokens"`, the number of supervised tokens in code and in words: a
    stage ends where the shortest of its versions in code and words would (`stages.build_stage`). An output is far shorter than a source:
    with equal documents, stages with I/O pairs of w/o IO programs in place of sources have fewer supervised tokens than that of proactive;
    with equal tokens they have more documents.

    The embeddings of `new_tokens` are trained with those of the programs' names: texts of one token each that the base model never read.
    """

    stage1: TrainSettings = field(default_factory=TrainSettings)
    stage2: TrainSettings = field(default_factory=lambda: TrainSettings(lr=1e-3))
    stage1_steps: int = 1000
    stage2_steps: int = 300
    match: str = "documents"
    new_tokens: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.match not in ("documents", "tokens"):
            raise did_you_mean("match", self.match, ("documents", "tokens"))
        for name in ("stage1", "stage2"):
            if (steps := getattr(self, f"{name}_steps")) < 1:
                raise UsageError(f"{name} of {steps} steps; give at least 1")

    def documents(self, spec: StageSpec) -> int:
        """Returns the number of documents of a stage."""
        both = self.stage1_documents + self.stage2_documents
        if spec.length in ("sources", "answers"):
            parts = [apportion(part, self.documents(part)) for part in spec.mix]
            sources = sum(n for part in parts for (_, kind), n in part.items() if kind in DECLARATIONS)
            return sources if spec.length == "sources" else both - sources
        return round(spec.scale * {"stage1": self.stage1_documents, "stage2": self.stage2_documents, "both": both}[spec.length])

    @property
    def stage1_documents(self) -> int:
        """Number of documents of a first stage."""
        return self.stage1_steps * self.stage1.batch_size

    @property
    def stage2_documents(self) -> int:
        """Number of documents of a second stage."""
        return self.stage2_steps * self.stage2.batch_size


def apportion(spec: StageSpec, count: int) -> dict[tuple[str, str], int]:
    """Returns the number of documents of each group and kind, in proportion to the shares and `count` in sum, by largest remainder."""
    shares = {("with_io", kind): share for kind, share in spec.with_io} | {("without_io", kind): share for kind, share in spec.without_io}
    shares |= {("replay", ""): spec.replay} if spec.replay else {}
    total = sum(shares.values())
    exact = {key: count * share / total for key, share in shares.items()}
    numbers = {key: int(value) for key, value in exact.items()}
    for key in sorted(exact, key=lambda k: numbers[k] - exact[k])[: count - sum(numbers.values())]:
        numbers[key] += 1
    return numbers
