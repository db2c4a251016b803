"""A program runs as the Python it is, and its trace is what an interpreter written apart from it says."""

from __future__ import annotations

import ast
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbb_helpers.programs import Program, UsageError, behaviour, did_you_mean, family

EVERYTHING = Program(
    "zibble",
    "arithmetic",
    "def zibble(x):\n    x = x * 3\n    if x % 2 == 0:\n        x = x - 7\n    else:\n        x = abs(x - 20)\n"
    "    for i in range(3):\n        x = x + 2\n    x = max(x // 2, 1)\n    return x",
    4,
)
OPERATIONS = {
    ast.Add: lambda a, b: a + b, ast.Sub: lambda a, b: a - b, ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: lambda a, b: a // b, ast.Mod: lambda a, b: a % b,
    ast.Lt: lambda a, b: a < b, ast.LtE: lambda a, b: a <= b, ast.Gt: lambda a, b: a > b, ast.GtE: lambda a, b: a >= b,
    ast.Eq: lambda a, b: a == b, ast.NotEq: lambda a, b: a != b,
}  # fmt: skip


class Interpreter:
    """Walks the syntax tree: a second implementation, for the test only."""

    def __init__(self, source: str) -> None:
        self.function = ast.parse(source).body[0]
        self.lines = source.splitlines()
        self.steps: list[tuple[str, dict, dict]] = []

    def run(self, x: int) -> int:
        self.values = {"x": x}
        return self.block(self.function.body)

    def block(self, body: list[ast.stmt]) -> int | None:
        for statement in body:
            before = dict(self.values)
            line = self.lines[statement.lineno - 1].strip()
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    self.values[name] = self.value(value)
                    self.steps.append((line, before, dict(self.values)))
                case ast.If(test=test, body=yes, orelse=no):
                    self.steps.append((line, before, before))
                    self.block(yes if self.value(test) else no)
                case ast.For(target=ast.Name(id=name), iter=ast.Call(args=[ast.Constant(value=n)]), body=inner):
                    for i in range(n):
                        before = dict(self.values)
                        self.values[name] = i
                        self.steps.append((line, before, dict(self.values)))
                        self.block(inner)
                    self.steps.append((line, dict(self.values), dict(self.values)))
                case ast.Return(value=value):
                    self.steps.append((line, before, before))
                    return self.value(value)
                case _:
                    raise AssertionError(ast.dump(statement))
        return None

    def value(self, node: ast.expr) -> int:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return self.values[name]
            case ast.BinOp(left=a, op=op, right=b) | ast.Compare(left=a, ops=[op], comparators=[b]):
                return OPERATIONS[type(op)](self.value(a), self.value(b))
            case ast.Call(func=ast.Name(id=name), args=args):
                return {"max": max, "min": min, "abs": abs}[name](*map(self.value, args))
        raise AssertionError(ast.dump(node))


def check_against_interpreter(program: Program, x: int) -> None:
    other = Interpreter(program.source)
    value = other.run(x)
    steps = program.trace(x)
    assert program.run(x) == value == steps[-1].value
    assert [(step.line, step.before, step.after) for step in steps] == other.steps


def test_trace_of_everything_is_that_of_another_interpreter():
    for x in range(-30, 60):
        check_against_interpreter(EVERYTHING, x)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**40), statements=st.integers(1, 6), x=st.integers(0, 49))
def test_trace_of_drawn_programs_is_that_of_another_interpreter(seed, statements, x):
    drawn = family("arithmetic", min_statements=statements, max_statements=statements, weights=(1.0, 1.0, 1.0))
    check_against_interpreter(drawn.sketch("zibble", np.random.default_rng(seed)), x)


def test_run_is_python_of_the_source():
    namespace: dict = {}
    exec(EVERYTHING.source, namespace)
    assert [EVERYTHING.run(x) for x in range(50)] == [namespace["zibble"](x) for x in range(50)]
    assert behaviour(EVERYTHING, range(50)) == tuple(namespace["zibble"](x) for x in range(50))


def test_two_programs_of_one_name_are_not_mixed_up():
    one, other = (Program("zibble", "arithmetic", f"def zibble(x):\n    x = x + {c}\n    return x", 1) for c in (1, 2))
    assert (one.run(1), other.run(1), one.run(1)) == (2, 3, 2)


def test_renamed_runs_the_same_under_the_other_name():
    other = EVERYTHING.renamed("florp")
    assert other.source.startswith("def florp(x):") and "zibble" not in other.source
    assert behaviour(other, range(50)) == behaviour(EVERYTHING, range(50))


def test_a_trace_leaves_the_tracer_as_it_was_even_when_the_program_fails():
    def mine(frame, event, arg):
        return None

    before = sys.gettrace()
    sys.settrace(mine)
    try:
        with pytest.raises(ZeroDivisionError):
            Program("zibble", "arithmetic", "def zibble(x):\n    return x // 0", 0).trace(1)
        assert sys.gettrace() is mine
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("call", ["open('/etc/passwd')", "__import__('os')", "eval('1')", "print(x)"])
def test_a_program_reaches_no_files_and_no_modules(call):
    with pytest.raises(NameError):
        Program("zibble", "arithmetic", f"def zibble(x):\n    return {call}", 0).run(1)


def test_unknown_names_get_one_line_with_what_is_valid():
    assert str(did_you_mean("family", "arithmetik", ["arithmetic", "ciphers"])) == (
        "unknown family 'arithmetik'; did you mean 'arithmetic'? choose from arithmetic, ciphers"
    )
    assert str(did_you_mean("family", "zzz", ["arithmetic"])) == "unknown family 'zzz'; choose from arithmetic"
    with pytest.raises(UsageError, match="unknown family 'arithmetc'; did you mean 'arithmetic'"):
        family("arithmetc")
    with pytest.raises(UsageError, match="unknown setting of arithmetic 'max_statement'; did you mean 'max_statements'"):
        family("arithmetic", max_statement=2)
    with pytest.raises(UsageError, match="'name'"):
        family("arithmetic", name="other")


def test_a_list_setting_is_as_good_as_a_tuple():
    assert hash(family("arithmetic", constructs=["assign"], weights=[1.0])) == hash(
        family("arithmetic", constructs=("assign",), weights=(1.0,))
    )
