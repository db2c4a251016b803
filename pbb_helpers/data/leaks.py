"""`leak_check`: reads every rendered document of a stage before it is trained on, and stops at one that the stage must not hold."""

from __future__ import annotations

import ast
import functools
import re

from pbb_helpers.data.datasets import Dataset, held_out_part
from pbb_helpers.data.demonstrations import pair_documents
from pbb_helpers.data.descriptions import describe, find
from pbb_helpers.data.documents import N_TEMPLATES, description_prompt, source_prompt
from pbb_helpers.data.settings import Stage
from pbb_helpers.data.specs import DECLARATIONS, StageSpec, without_io_sources
from pbb_helpers.programs import UsageError


class LeakError(UsageError):
    """A document is in a stage that must not hold it."""


KEYWORD = r"(?:\w+\s*=\s*)?"
CALL = re.compile(rf"\b(?!range\b)(\w+)\s*\(\s*{KEYWORD}(?:[\"'](\w*)[\"']\s*,\s*{KEYWORD})?([-+]?\d+)\s*,?\s*\)")
"""A call on a number, or on a text and a number, but for the loop header `range(3)`; also one written as f(x=3), f(+3), f(03) or f(3,)."""


def leak_check(stage: Stage, spec: StageSpec, dataset: Dataset) -> int:
    """Returns the number of documents read, every one as the text that is trained on.

    Four rules, the first a white list, so that it needs no imagination about how a leak might look:
    1. A document that names a w/o IO program is one of the 20 source documents, or of the 20 description documents in each phrasing, of a
       program that the stage may show in that way, letter for letter; or, in a stage with I/O pairs of w/o IO programs
       (`demonstrations`, no others), a question on one of these pairs, again letter for letter.
    2. No document calls any program on a held-out input: in its text, written as `CALL` reads it, or by the input that it says of itself, which
       every question must say; where that is a text and a shift, on a held-out text, whatever the shift.
    3. No document calls a program at an input at which that passes a held-out input on to another, whether the document shows it or not. A
       program that calls a w/o IO program is a w/o IO program itself, whatever group it is in.
    4. No document shows the body of a w/o IO program, in code (however it is laid out) or in words, under a name that the stage does not bind
       it to.

    Raises:
        LeakError: A rule is broken; the message names the stage, the rule and the document.
    """
    kinds = spec.kinds_without_io()
    hidden = {program.name for program in dataset.without_io}
    callers = {program.name: program for program in dataset.with_io + dataset.without_io if program.calls}
    hidden |= {name for name, program in callers.items() if hidden.intersection(part.name for part in program.calls)}
    bodies = {body for program in dataset.without_io for body in (_body(program.source), _plain(program.source))}
    shown = [(p, part) for part in (spec, *spec.mix) if part.without_io for p in without_io_sources(part, dataset)]
    allowed = {(source_prompt(p, i), p.source) for p, _ in shown for i in range(N_TEMPLATES) if "source" in kinds}
    allowed |= {
        (description_prompt(p, i), describe(p, phrasing))
        for p, part in shown
        if "description" in kinds
        for phrasing in range(part.phrasings)
        for i in range(N_TEMPLATES)
    }
    allowed |= {document for part in (spec, *spec.mix) for document in pair_documents(part, dataset)}
    held_out = set(map(held_out_part, dataset.eval_inputs))
    texts = any(isinstance(x, tuple) for x in dataset.eval_inputs)
    for prompt, completion, program, asked, kind in dict.fromkeys(
        (e.prompt, e.completion, e.program, e.input, e.kind) for e in stage.examples
    ):
        text = f"{prompt}{completion}"
        calls = [(name, (word.upper(), int(x)) if word else int(x)) for name, word, x in CALL.findall(text)]
        if asked is None and kind not in DECLARATIONS:
            raise _leak(stage, "asks something and does not say at which input", text)
        calls += [(program, asked)] if asked is not None else []  # what the document says of itself, however its text puts it
        if any(held_out_part(x) in held_out for _, x in calls):
            raise _leak(stage, "calls a program on a held-out input", text)
        if any(value in held_out for name, x in calls if name in callers for _, value in callers[name].called(x)):
            raise _leak(stage, "calls a program that passes a held-out input on to another", text)
        if (prompt, completion) in allowed:
            continue
        if hidden.intersection(_words(text, texts)):
            raise _leak(stage, "names a w/o IO program outside a source, a description or an I/O pair that the stage may hold", text)
        if bodies & _bodies(text):
            raise _leak(stage, "shows the body of a w/o IO program under another name", text)
    return len(stage.examples)


def _leak(stage: Stage, what: str, text: str) -> LeakError:
    return LeakError(f"leak in {stage.name}: a document {what}: {text!r}; nothing was trained")


def _words(text: str, texts: bool) -> set[str]:
    """Returns the words of the text, and its runs of letters in small letters: "_Zibble2" names zibble too.

    Where inputs are texts, capitals alone are one: an enciphered word that reads like a name points to no program.
    """
    runs = re.findall(r"[^\W\d_]+", text)
    return {*re.findall(r"\w+", text), *(run.lower() for run in runs if not (texts and run.isupper()))}


def _body(source: str) -> str:
    return source.split("\n", 1)[1]


VERBATIM = re.compile(r"def \w+\(.*\):\n((?:[ ]+.*(?:\n|$))+)")
DEFINITION = re.compile(r"(?<!\w)def\s+\w+\s*\(")
"""Where a definition begins, wherever in its line."""


def _bodies(text: str) -> set[str]:
    """Returns the body of each function whose definition or description stands in the text, as it stands there and as `_plain` has it."""
    verbatim = {match[1].rstrip("\n") for match in VERBATIM.finditer(text)}
    plain = {_plain(_definition(text, match.start())) for match in DEFINITION.finditer(text)}
    said = {body for source in find(text) for body in (_body(source), _plain(source))}
    return (verbatim | plain | said) - {""}


def _definition(text: str, start: int) -> str:
    """Returns one definition without what stands before it in its line, its lines as far in as if it began its line; the next one is not its own."""
    before = text[text.rfind("\n", 0, start) + 1 : start]
    indent = len(before) - len(before.lstrip()) if before.strip() else len(before)
    first, *rest = text[start:].split("\n")
    lines = [first]
    for line in rest:
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            break  # back at the definition's own depth: it has ended
        lines.append(line[indent:])
    return "\n".join(lines)


@functools.lru_cache(maxsize=50_000)
def _plain(written: str) -> str:
    """Returns the body of a function as any other writing of it has it: no comments, types or spaces, arguments by number; "" if it is no Python."""
    try:
        (function, *_) = ast.parse(written).body
        if not isinstance(function, ast.FunctionDef):
            return ""
        names = {argument.arg: f"argument{i}" for i, argument in enumerate((*function.args.posonlyargs, *function.args.args))}
        for node in ast.walk(function):
            if isinstance(node, ast.Name):
                node.id = names.get(node.id, node.id)
        body = function.body[1:] if ast.get_docstring(function) is not None else function.body
        return "\n".join(map(ast.unparse, body))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
