"""The families of programs, one file each. A new family is a dataclass with the methods of `programs.Family` and a line here."""

from __future__ import annotations

from pbb_helpers.families.arithmetic import Arithmetic
from pbb_helpers.families.ciphers import Ciphers
from pbb_helpers.programs import Family

FAMILIES: dict[str, type[Family]] = {"arithmetic": Arithmetic, "ciphers": Ciphers}
