"""Importing large libraries without looking for garbage meanwhile."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heavy_imports() -> Iterator[None]:
    """For the imports of torch, diffusers and transformers together, once in a program.

    They make half a million objects that all stay. Python's collector would look through them again and again, for a
    sixth of the time that the imports take (0.9 of 6 s), and find nothing: it waits meanwhile, and later passes over
    what was made. Where torch is there already, nothing is left to gain, and nothing happens.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
