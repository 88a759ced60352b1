"""The site of the docs: it builds without a warning, asks no other host, and its figures are those of the code."""

import importlib.util
import re
import subprocess
import sys

import pytest
from docs_pages import ROOT


def script(name):
    """A module of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for name in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(name, reason='the site needs pip install "dcvideogen[docs]"')
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_files_outside_docs_that_pages_link_to_are_pages_too(site):
    assert 'href="benchmarks/results/memory_cpu.html"' in (site / "autoencoder.html").read_text()
    assert "CheckSettings" in (site / "src/dcvideogen/data/settings.py.html").read_text()
    assert (site / "benchmarks/results/adaptation_cpu.svg").is_file()


def test_no_page_asks_another_host(site):
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert not re.findall(r'\bsrc="(?:https?:)?//[^"]*"', text), page
        for link in re.findall(r"<link [^>]*>", text):
            assert not re.search(r'href="(?:https?:)?//', link), f"{page}: {link}"
    for style in site.rglob("*.css"):
        assert not re.search(r"""(?:@import|url\()\s*["']?(?:https?:)?//""", style.read_text()), style


def test_every_command_is_there_with_its_options(site):
    text = (site / "reference/commands.html").read_text()
    for name in ("generate", "data check", "evaluate autoencoder", "keys add"):
        assert f">dcvideogen {name}<" in text
    assert "<code>--dry-run</code>" in text
    assert "<em>" not in text.split("<article")[1].split("</article")[0]


def test_the_reference_shows_docstrings_as_lists_of_names(site):
    text = (site / "reference/ground.html").read_text()
    assert re.search(r"<li>\s*<p>?<code>spatial_ratio</code>|<li><code>spatial_ratio</code>: pixels per latent", text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Makes it.\n\nfolder: where.\nsize: pixels.", "Makes it.\n\n- `folder`: where.\n- `size`: pixels."),
        ("folder, size: both. other: is prose.", "- `folder`, `size`: both. other: is prose."),
        (
            "Makes it. size: pixels. Raises UserError for 0.",
            "Makes it.\n\n- `size`: pixels.\n\nRaises UserError for 0.",
        ),
        ("UserError: a folder that is not there.", "- `UserError`: a folder that is not there."),
        ("size of folder: no name by itself", "size of folder: no name by itself"),
        ("As typed:\n\n    size: 3", "As typed:\n\n    size: 3"),
    ],
)
def test_named_parts_of_a_docstring_become_a_list(text, expected):
    pytest.importorskip("griffe")
    assert script("site_docstrings").as_list(text, {"folder", "size"}) == expected


@pytest.mark.parametrize("name", ["chunk", "aligned", "time"])
def test_the_figures_are_those_that_the_code_draws(name):
    """Run `python docs/site_figures.py` where this fails."""
    drawn = script("site_figures").FIGURES[name]()
    assert drawn == (ROOT / "docs" / "images" / f"concepts_{name}.svg").read_text()
