"""The families of programs. A new family is a dataclass with what `programs.Family` says, in a file of its own, and a line here."""

from __future__ import annotations

from pbb_helpers.families.arithmetic import Arithmetic
from pbb_helpers.families.ciphers import Ciphers
from pbb_helpers.programs import Family

FAMILIES: dict[str, type[Family]] = {"arithmetic": Arithmetic, "ciphers": Ciphers}
