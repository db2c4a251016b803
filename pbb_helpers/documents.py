"""What a model reads and writes: a program's source, and its execution answered directly, step by step, or from recalled source.

Every document is a prompt and a completion; the loss is on the completion only. A program is pointed to by its name alone, through
one of 20 templates (the paper: without them Programming by Backprop degrades severely, arXiv 2506.18777v2).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pbb_helpers.programs import Program, Step, UsageError, did_you_mean

MODES = ("direct", "cot", "recall", "source", "in_context_direct", "in_context_cot", "in_context_recall")

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
CUES = {"direct": "\nAnswer only:\n", "cot": "\nStep by step:\n", "recall": "\nSource, then step by step:\n"}


@dataclass(frozen=True)
class Example:
    """One document to train on, or one question to answer.

    Attributes:
        kind: One of `MODES`.
        group: "with_io", "without_io" or "replay".
        program: The name of the program.
        prompt: What the model is given.
        completion: The gold continuation; the loss is on this only.
        input: The input in the prompt; None for a source.
        answer: The gold answer as text, "-17"; for a source the source.
        length: Number of statements of the program.
    """

    kind: str
    group: str
    program: str
    prompt: str
    completion: str
    input: int | None
    answer: str | None
    length: int


def chain_of_thought(program: Program, x: Any) -> str:
    """Returns the true execution at `x`, a line a step, the values put in for the variables.

    >>> print(chain_of_thought(Program("zibble", "arithmetic", "def zibble(x):\\n    x = x + 3\\n    return x", 1), 5))
    x = 5 + 3 = 8
    return 8
    """
    return "\n".join(map(render_step, program.trace(x)))


def render_step(step: Step) -> str:
    """Returns one executed line as text: an assignment, a test, a turn of a loop or a return.

    Raises:
        UsageError: The line is of a kind that has no rendering yet.
    """
    kind, head = _kind(step.line)
    if kind == "assign":
        target = head.split(" = ", 1)[0]
        return f"{target} = {_filled(head.split(' = ', 1)[1], step.before)} = {step.after[target]}"
    if kind == "if":
        test = _filled(head, step.before)
        return f"{test} is {eval(_compiled(test), {'__builtins__': {}})}"  # noqa: S307 - a comparison of numbers from a real trace
    if kind == "for":
        # The header runs once more than the body: its last visit leaves the loop variable as it was.
        return f"{head} = {step.after[head]}" if step.after != step.before else "end"
    return f"return {step.value}"


@functools.lru_cache(maxsize=10_000)
def _kind(line: str) -> tuple[str, str]:
    if match := re.match(r"for (\w+) in .*:$", line):
        return "for", match[1]
    if match := re.match(r"(?:if|elif) (.*):$", line):
        return "if", match[1]
    if line.startswith("return "):
        return "return", line
    if re.match(r"\w+ = ", line):
        return "assign", line
    raise UsageError(
        f"no step-by-step rendering for the line {line!r}; valid are assignments, if, for and return; extend documents.render_step"
    )


@functools.lru_cache(maxsize=10_000)
def _compiled(test: str) -> Any:
    return compile(test, "<test>", "eval")


def _filled(expression: str, values: dict[str, Any]) -> str:
    return re.sub(r"[A-Za-z_]\w*", lambda match: str(values.get(match[0], match[0])), expression)


def source_document(program: Program, group: str, template: int) -> Example:
    """Returns the document of L_decl = -log p(source | pointer)."""
    prompt = SOURCE_TEMPLATES[template].format(name=program.name) + "\n"
    return Example("source", group, program.name, prompt, program.source, None, program.source, program.length)


def call_document(program: Program, group: str, mode: str, x: int, template: int, *, context: Iterable[Program] = ()) -> Example:
    """Returns the document of L_exec = -log p(output | pointer, input), answered in `mode`.

    Args:
        program: The program that is called.
        group: Its group.
        mode: One of `MODES` but "source"; an "in_context_" mode puts the source into the prompt.
        x: The input.
        template: Index of the pointer template, 0 to 19.
        context: The programs whose sources stand in the prompt, in order, for the in-context modes; by default `program` alone.

    Raises:
        UsageError: There is no such mode.
    """
    bare = mode.removeprefix("in_context_")
    if mode not in MODES or bare not in CUES:
        raise did_you_mean("mode of answering", mode, [m for m in MODES if m != "source"])
    sources = [p.source for p in context] or [program.source]
    head = "\n\n".join([*sources, ""]) if mode != bare else ""
    prompt = head + CALL_TEMPLATES[template].format(name=program.name, input=x) + CUES[bare]
    output = str(program.run(x))
    completion = output if bare == "direct" else chain_of_thought(program, x)
    if bare == "recall":
        completion = f"{program.source}\n{completion}"
    return Example(mode, group, program.name, prompt, completion, x, output, program.length)


def in_context_document(program: Program, group: str, mode: str, x: int, template: int, distractors: Iterable[Program],
                        generator: np.random.Generator) -> Example:  # fmt: skip
    """Returns a document whose prompt holds the program's source among distractors in random order."""
    context = [program, *distractors]
    order = generator.permutation(len(context))
    return call_document(program, group, f"in_context_{mode}", x, template, context=[context[i] for i in order])
