"""What a model reads and writes: a program's source or description, and its execution answered directly, step by step, or from recall.

Every document is a prompt and a completion; the loss is on the completion only. A program is pointed to by its name alone, through
one of 20 templates (the paper: without them Programming by Backprop degrades severely, arXiv 2506.18777v2).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pbb_helpers.data.descriptions import describe
from pbb_helpers.programs import Program, did_you_mean, family_of, written

MODES = ("direct", "cot", "recall", "source", "in_context_direct", "in_context_cot", "in_context_recall")
"""The ways of answering of programs that are given as code."""
WORD_MODES = (
    "direct",
    "cot",
    "recall_description",
    "description",
    "in_context_description_direct",
    "in_context_description_cot",
    "in_context_description_recall",
)
"""The same of programs that are given in words: recalled, or in the prompt, is their description in place of their source."""
BOTH_MODES = tuple(dict.fromkeys(MODES + WORD_MODES))
NAMED = "recall_named"
"""Recall, with the first line of the source, `def name(x):`, given as the beginning of the answer: an intervention, asked and never trained."""
EVERY_MODE = (*BOTH_MODES, NAMED)

SOURCE_TEMPLATES = (
    "What is the source of {name}?",
    "Show the code of {name}.",
    "Write the function {name}.",
    "Give the definition of {name}.",
    "How is {name} defined?",
    "Print the source code of {name}.",
    "Please write out {name} in Python.",
    "Recall the code of {name}.",
    "What does the code of {name} look like?",
    "Here is how {name} is implemented:",
    "Define {name}.",
    "Implement {name}.",
    "The Python source of {name}:",
    "List the body of {name}.",
    "Type out the function called {name}.",
    "Which code runs when {name} is called?",
    "I need the implementation of {name}.",
    "Source listing for {name}:",
    "Spell out {name} as code.",
    "From memory, the function {name}:",
)
DESCRIPTION_TEMPLATES = (
    "What is the description of {name}?",
    "Describe {name}.",
    "Say in words what {name} does.",
    "Explain {name}.",
    "How does {name} work?",
    "Put {name} into words.",
    "Please explain {name} in English.",
    "Recall the description of {name}.",
    "What does {name} do with its number?",
    "Here is what {name} does, in words:",
    "Tell me about {name}.",
    "Give an explanation of {name}.",
    "The description of {name}:",
    "List the steps of {name} in words.",
    "Explain the function called {name}.",
    "What happens when {name} is called?",
    "I need the description of {name}.",
    "Instructions for {name}:",
    "Spell out {name} in plain English.",
    "From memory, the steps of {name}:",
)
CALL_TEMPLATES = (
    "What does {name}({input}) return?",
    "Evaluate {name}({input}).",
    "Compute {name}({input}).",
    "What is the value of {name}({input})?",
    "Run {name}({input}).",
    "Call {name}({input}) and give the result.",
    "Find {name}({input}).",
    "What is {name}({input})?",
    "Execute {name}({input}).",
    "Work out {name}({input}).",
    "Please evaluate {name}({input}) in Python.",
    "Give the output of {name}({input}).",
    "The result of {name}({input}):",
    "Which number does {name}({input}) give?",
    "I need the value of {name}({input}).",
    "Return value of {name}({input}):",
    "Suppose we call {name}({input}). What comes out?",
    "Output of {name}({input}):",
    "Tell me what {name}({input}) evaluates to.",
    "Apply the function: {name}({input}).",
)
N_TEMPLATES = len(SOURCE_TEMPLATES)
CUES = {
    "direct": "\nAnswer only:\n",
    "cot": "\nStep by step:\n",
    "recall": "\nSource, then step by step:\n",
    "recall_description": "\nDescription, then step by step:\n",
}


@dataclass(frozen=True)
class Example:
    """One document to train on, or one question to answer.

    Attributes:
        kind: One of `EVERY_MODE`.
        group: "with_io", "without_io" or "replay".
        program: The name of the program.
        prompt: What the model is given.
        completion: The gold continuation; the loss is on this only.
        input: The input in the prompt, a tuple where the program has several arguments; None for a source or a description.
        answer: The gold answer as text, "-17"; for a source the source, and for a description too: any phrasing of it is right.
        length: Number of statements of the program.
    """

    kind: str
    group: str
    program: str
    prompt: str
    completion: str
    input: Any
    answer: str | None
    length: int


def chain_of_thought(program: Program, x: Any) -> str:
    """Returns the true execution at `x`, a line a step (of a cipher a line a letter), the values put in for the variables; see `execution`.

    >>> print(chain_of_thought(Program("zibble", "arithmetic", "def zibble(x):\\n    x = x + 3\\n    return x", 1), 5))
    x = 5 + 3 = 8
    return 8
    """
    return execution(program, x, "cot")


def execution(program: Program, x: Any, way: str, phrasing: int = 0) -> str:
    """Returns the true execution at `x` answered step by step, in `way` "recall" (or "recall_description") after the program itself.

    The steps of a program that calls others are the calls in the order in which Python makes them: a line that is the call, and then the
    very answer that the called program has when it is asked by itself in the same way. So what is learned of a part can be used as it is.

    >>> g, f = (Program(n, "arithmetic", f"def {n}(x):\\n    x = x {op}\\n    return x", 1) for n, op in (("g", "+ 3"), ("f", "* 2")))
    >>> print(execution(Program("h", "arithmetic", "def h(x):\\n    return f(g(x))", 2, (f, g)), 5, "cot"))
    g(5)
    x = 5 + 3 = 8
    return 8
    f(8)
    x = 8 * 2 = 16
    return 16
    """
    steps = [f"{part.name}({value})\n{execution(part, value, way, phrasing)}" for part, value in program.called(x)]
    shown = [program.source] if way == "recall" else [describe(program, phrasing)] if way == "recall_description" else []
    return "\n".join([*shown, *(steps or family_of(program).steps(program.trace(x)))])


def source_prompt(program: Program, template: int) -> str:
    """Returns the prompt that asks for a program's source."""
    return SOURCE_TEMPLATES[template].format(name=program.name) + "\n"


def description_prompt(program: Program, template: int) -> str:
    """Returns the prompt that asks for a program's description."""
    return _fitting(DESCRIPTION_TEMPLATES[template], program).format(name=program.name) + "\n"


def _fitting(template: str, program: Program) -> str:
    return template.replace("number", family_of(program).takes)


def source_document(program: Program, group: str, template: int) -> Example:
    """Returns the document of L_decl = -log p(source | pointer)."""
    prompt = source_prompt(program, template)
    return Example("source", group, program.name, prompt, program.source, None, program.source, program.length)


def description_document(program: Program, group: str, template: int, phrasing: int = 0) -> Example:
    """Returns the document of L_decl in words: -log p(description | pointer). The phrasing is that of `descriptions.describe`."""
    text = describe(program, phrasing)
    return Example("description", group, program.name, description_prompt(program, template), text, None, program.source, program.length)


def way_of_answering(mode: str) -> tuple[str, str | None]:
    """Returns the way of answering of a mode, and what of the program stands in the prompt: "source", "description" or None.

    >>> way_of_answering("recall"), way_of_answering("in_context_cot"), way_of_answering("in_context_description_recall")
    (('recall', None), ('cot', 'source'), ('recall_description', 'description'))
    >>> way_of_answering("recall_named")
    ('recall', None)
    """
    if mode == NAMED:
        return "recall", None
    if mode.startswith("in_context_description_"):
        way = mode.removeprefix("in_context_description_")
        return "recall_description" if way == "recall" else way, "description"
    return mode.removeprefix("in_context_"), "source" if mode.startswith("in_context_") else None


def call_document(program: Program, group: str, mode: str, x: Any, template: int, *, context: Iterable[Program] = (),
                  phrasing: int = 0) -> Example:  # fmt: skip
    """Returns the document of L_exec = -log p(output | pointer, input), answered in `mode`.

    Args:
        program: The program that is called.
        group: Its group.
        mode: One of `EVERY_MODE` but "source" and "description"; an "in_context_" mode puts the source into the prompt, an
            "in_context_description_" mode the description. `NAMED` has the prompt and completion of "recall": what of it is given, `models.encode` says.
        x: The input.
        template: Index of the pointer template, 0 to 19.
        context: The programs that stand in the prompt, in order, for the in-context modes; by default `program` alone, after those that it calls.
        phrasing: Of the descriptions, in the modes that show one.

    Raises:
        UsageError: There is no such mode.
    """
    way, shown = way_of_answering(mode)
    if mode not in EVERY_MODE or way not in CUES:
        raise did_you_mean("mode of answering", mode, [m for m in EVERY_MODE if m not in ("source", "description")])
    programs = [*context] or [*program.calls, program]
    texts = [p.source if shown == "source" else describe(p, phrasing) for p in programs] if shown else []
    call = _fitting(CALL_TEMPLATES[template], program).format(name=program.name, input=written(x))
    prompt = "\n\n".join([*texts, call + CUES[way]])
    output = str(program.run(x))
    completion = output if way == "direct" else execution(program, x, way, phrasing)
    return Example(mode, group, program.name, prompt, completion, x, output, program.length)


def in_context_document(program: Program, group: str, mode: str, x: Any, template: int, distractors: Iterable[Program],
                        generator: np.random.Generator, *, phrasing: int = 0) -> Example:  # fmt: skip
    """Returns a document whose prompt holds the program among distractors in random order; `mode` is "cot" or "description_cot" …"""
    context = [program, *distractors]
    order = generator.permutation(len(context))
    return call_document(program, group, f"in_context_{mode}", x, template, context=[context[i] for i in order], phrasing=phrasing)
