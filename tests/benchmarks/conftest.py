"""What the tests of all studies share."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def beside_the_scripts():
    """The scripts of benchmarks/ and the tests' helpers import each other as files beside them."""
    folders = [str(ROOT / part) for part in ("benchmarks", "tests/recipes", "tests/adaptation")]
    sys.path[:0] = folders
    yield
    for folder in folders:
        sys.path.remove(folder)
