"""Commands start without what they do not need; see test_main.py for their help."""

import gc
import subprocess
import sys

from tiny_pipeline import tiny_pipeline

from dcvideogen.cli.heavy_imports import heavy_imports

FIRST = """
import gc, sys
from dcvideogen.cli.heavy_imports import heavy_imports
with heavy_imports():
    assert not gc.isenabled()
    import argparse
print(gc.isenabled(), gc.get_freeze_count() > 1000)
try:
    with heavy_imports():
        raise ImportError
except ImportError:
    print(gc.isenabled())
gc.disable()
with heavy_imports():
    pass
print(gc.isenabled())
"""


def ran(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)


def test_garbage_is_not_looked_for_while_libraries_are_imported_and_afterwards_as_before():
    assert ran(FIRST).stdout.split() == ["True", "True", "True", "False"]


def test_where_the_libraries_are_there_already_the_collector_is_left_alone():
    before = gc.get_freeze_count()
    with heavy_imports():
        assert gc.isenabled()
    assert gc.get_freeze_count() == before


def test_generating_imports_without_collecting_and_nothing_that_it_does_not_need(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "model")
    code = (
        "import gc, sys; from dcvideogen.cli.main import run; code = run(sys.argv[1:]);"
        "print(gc.get_stats()[2]['collections'], gc.get_freeze_count() > 200_000, gc.isenabled());"
        "print(*sys.modules); sys.exit(code)"
    )
    done = ran(code, "generate", "a", "-o", str(tmp_path / "a.mp4"), "--model", str(tmp_path / "model"))
    *_, collected, modules = done.stdout.splitlines()
    assert collected.split()[1:] == ["True", "True"]
    assert int(collected.split()[0]) <= 2  # full collections: without the rest of 400 000 objects, hardly any
    modules = set(modules.split())
    assert "torch" in modules
    mine = {name for name in modules if name.startswith("dcvideogen.")}
    assert not {name for name in mine if name.split(".")[1] in ("recipes", "training", "evaluation")}, mine
    assert not modules & {"skimage", "tensorboard", "imageio_ffmpeg"}
