"""What a model is shown and asked: documents, conditions, stages, and the check that nothing leaks. Needs no torch."""

from __future__ import annotations

from pbb_helpers.data import code_print  # noqa: F401 - first, before the modules of data and families that it hashes
