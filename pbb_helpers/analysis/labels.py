"""The one table of labels, colours and markers: code says `without_io`, a figure and a sentence say "w/o IO".

The colours are those of Okabe and Ito (2008), which readers with any common colour vision tell apart; every condition has a marker of its
own as well, so that a figure survives a black-and-white printer.
"""

from __future__ import annotations

import re

LABELS = {
    "base": "untuned",
    "in_context": "source in context (untuned)",
    "in_context_description": "description in context (untuned)",
    "source_only": "source only (no stage 1)",
    "answers_only": "answers only (no source)",
    "stage1_only": "stage 1 only (no w/o IO source)",
    "shuffled_source": "shuffled sources",
    "shuffled_calls": "shuffled compositions",
    "proactive": "proactive",
    "mixture": "mixture (one stage)",
    "shuffled_mixture": "mixture of shuffled sources",
    "proactive_named": "proactive, first line given",
    "mixture_named": "mixture, first line given",
    "retroactive_sft": "retroactive (sources first)",
    "no_exposure_sft": "sources first, none of w/o IO",
    "description": "description instead of source",  # the condition, and the way of answering
    "code_to_description": "code, then descriptions",
    "description_to_code": "descriptions, then code",
    "with_io": "w/ IO",
    "without_io": "w/o IO",
    "shown": "w/o IO, on pairs that were shown",
    "composed_with_io": "w/ IO composition of w/ IO parts",
    "composed_of_with_io": "composition of two w/ IO parts",
    "composed_of_each": "composition of one of each",
    "composed_of_without_io": "composition of two w/o IO parts",
    "direct": "direct",
    "cot": "chain of thought",
    "recall": "recall, then step through",
    "recall_description": "recall in words, then step through",
    "recall_named": "recall, first line given",
    "source": "source reproduced",
    "own": "own way of answering",
    "in_context_direct": "direct, source in context",
    "in_context_cot": "chain of thought, source in context",
    "in_context_recall": "recall, source in context",
    "in_context_description_direct": "direct, description in context",
    "in_context_description_cot": "chain of thought, description in context",
    "in_context_description_recall": "recall, description in context",
    "description_direct": "direct, in words",
    "description_cot": "chain of thought, in words",
    "description_recall": "recall, in words",
    "stage1": "stage 1",
    "stage2": "stage 2",
    "answers": "answers (no source)",
}
KNOBS = {
    "early": "share of the w/o IO sources in stage 1",
    "replay": "share of general replay in stage 2",
    "stage2": "length of stage 2, as a factor",
    "rate2": "learning rate of stage 2, as a factor",
    "templates": "pointer templates",
}
"""The axes of conditions with a number."""
COLOURS = {
    "base": "#595959",
    "in_context": "#000000",
    "source_only": "#56B4E9",
    "answers_only": "#7B68EE",
    "stage1_only": "#0072B2",
    "shuffled_source": "#CC79A7",
    "shuffled_calls": "#2B06D3",
    "proactive": "#D55E00",
    "mixture": "#009E73",
    "shuffled_mixture": "#4B3CFF",
    "proactive_named": "#4830C0",
    "mixture_named": "#181848",
    "retroactive_sft": "#E69F00",
    "no_exposure_sft": "#8C510A",
    "in_context_description": "#332288",
    "description": "#117733",
    "code_to_description": "#B2182B",
    "description_to_code": "#999933",
}
MARKERS = {
    "base": "X",
    "in_context": "*",
    "source_only": "v",
    "answers_only": "h",
    "stage1_only": "s",
    "shuffled_source": "D",
    "shuffled_calls": "H",
    "proactive": "o",
    "mixture": "P",
    "shuffled_mixture": "3",
    "proactive_named": "1",
    "mixture_named": "2",
    "retroactive_sft": "<",
    "no_exposure_sft": ">",
    "in_context_description": "p",
    "description": "^",
    "code_to_description": "d",
    "description_to_code": "8",
}
MODE_COLOURS = {
    "direct": "#0072B2",
    "cot": "#D55E00",
    "recall": "#009E73",
    "source": "#7A7A7A",
    "description_direct": "#56B4E9",
    "description_cot": "#E69F00",
    "description_recall": "#999933",
}
DEMONSTRATION = re.compile(r"(io_only|source_and_io|io_alone)\(([0-9]+), *(.+)\)")
DEMONSTRATION_LABELS = {
    "io_only": "{k} I/O pairs, {distribution}",
    "source_and_io": "source and {k} I/O pairs, {distribution}",
    "io_alone": "{k} I/O pairs, {distribution}, no stage 1",
}
DEMONSTRATION_COLOURS = {
    "io_only": ("#0072B2", "#882255"),
    "source_and_io": ("#56B4E9", "#E69F00"),
    "io_alone": ("#44AA99", "#999933"),
}
"""Of conditions with I/O pairs: an even distribution, and any other one."""
DEMONSTRATION_MARKERS = {"io_only": "s", "source_and_io": "D", "io_alone": "v"}
_SPARE = ("#5E3C99", "#01665E", "#AA4499")  # for conditions that this table does not know yet


def parted(name: str) -> tuple[str, str]:
    """Returns the experiment that stands in front of a condition's name where several have one, and the name alone.

    >>> parted("sizes, pbb-s: proactive"), parted("proactive")
    (('sizes, pbb-s', 'proactive'), ('', 'proactive'))
    """
    front, _, alone = name.rpartition(": ")
    return front, alone


def label(name: str) -> str:
    """Returns the words for a name of the code; a name that is not in the table stands for itself, and so does what `parted` finds in front.

    >>> label("without_io"), label("io_only(8, natural)"), label("early(0.5)"), label("pbb-s: base")
    ('w/o IO', '8 I/O pairs, natural', 'early(0.5)', 'pbb-s: untuned')
    """
    front, alone = parted(name)
    if front:
        return f"{front}: {label(alone)}"
    if found := DEMONSTRATION.fullmatch(name):
        return DEMONSTRATION_LABELS[found[1]].format(k=found[2], distribution=found[3])
    return LABELS.get(name, name)


def colour(name: str) -> str:
    """Returns the colour of a condition; one that is not in the table gets a spare, always the same one."""
    if found := DEMONSTRATION.fullmatch(name):
        return DEMONSTRATION_COLOURS[found[1]][found[3] != "uniform"]
    return COLOURS.get(name) or _SPARE[sum(name.encode()) % len(_SPARE)]


def marker(name: str) -> str:
    """Returns the marker of a condition."""
    if found := DEMONSTRATION.fullmatch(name):
        return DEMONSTRATION_MARKERS[found[1]]
    return MARKERS.get(name, "^")


def in_order(names: object) -> list[str]:
    """Returns the distinct names in the order of the table, then those with I/O pairs by their number, unknown ones last, by name.

    Names with an experiment in front (`parted`) stay together, the experiments as they come.

    >>> in_order(["proactive", "zeta", "io_only(16, zipf)", "io_only(8, zipf)", "base"])
    ['base', 'proactive', 'io_only(8, zipf)', 'io_only(16, zipf)', 'zeta']
    >>> in_order(["pbb-s: proactive", "pbb-m: base", "pbb-s: base"])
    ['pbb-s: base', 'pbb-s: proactive', 'pbb-m: base']
    """
    known, given = list(LABELS), list(dict.fromkeys(map(str, names)))  # type: ignore[call-overload]
    fronts = list(dict.fromkeys(parted(name)[0] for name in given))

    def place(whole: str) -> tuple[int, int, str, int]:
        front, name = parted(whole)
        first = fronts.index(front)
        if found := DEMONSTRATION.fullmatch(name):
            return first, len(known), f"{found[1]} {found[3]}", int(found[2])
        return (first, known.index(name), "", 0) if name in known else (first, len(known) + 1, name, 0)

    return sorted(given, key=place)
