"""Programming by Backprop: finetune a language model on the source of a program and see whether it can run it."""

from __future__ import annotations

__version__ = "0.1.0"
