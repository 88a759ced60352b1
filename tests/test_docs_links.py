"""Links, anchors and named files of the documentation lead somewhere; its pages, modules and results are complete."""

import importlib
import re
from pathlib import Path

import pytest
import yaml
from docs_pages import DOCS, README, ROOT, name_of

REFERENCE = sorted((ROOT / "docs" / "reference").glob("*.md"))
CARDS = sorted((ROOT / "src" / "dcvideogen" / "weights").glob("*/README.md"))
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS, *REFERENCE, *CARDS]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.md"))
HOSTS = ("https://arxiv.org/abs/",)
CODE = re.compile(r"^(```+).*?^\1$|`[^`\n]+`", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(\s*([^)\s]+)\s*\)")
MODULES = [name for page in REFERENCE for name in re.findall(r"^::: (\S+)$", page.read_text(), flags=re.MULTILINE)]


def links_of(page):
    return LINK.findall(CODE.sub("", page.read_text()))


def anchors_of(page):
    """As GitHub and MkDocs make them of headings."""
    without_code = re.sub(r"^(```+).*?^\1$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", without_code, flags=re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def pages_in(nav):
    """All pages that a navigation of mkdocs.yml names."""
    if isinstance(nav, str):
        return [nav]
    return [page for part in (nav.values() if isinstance(nav, dict) else nav) for page in pages_in(part)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page):
    for link in links_of(page):
        if link.startswith(HOSTS):
            continue
        assert ":" not in link, f"{link}: links to other hosts go to arXiv only"
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{link} leads to nothing"
        assert target.is_relative_to(ROOT), f"{link} leads out of the repository"
        if anchor:
            assert anchor in anchors_of(target), f"{link}: {name_of(target)} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_script_and_module_that_is_named_is_there(page):
    """`runs/shapes.sh`, `tests/test_fences.py`, or below the package `training/start.py`; with * as in a shell."""
    for name in re.findall(r"`((?:[\w.*-]+/)+[\w.*-]+\.(?:py|sh))`", page.read_text()):
        assert any(any(root.glob(name)) for root in (ROOT, ROOT / "src" / "dcvideogen")), name


def test_every_page_is_in_the_navigation_once():
    listed = pages_in(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    inside = [Path(page) for page in listed if (ROOT / "docs" / page).is_file()]
    assert len(set(listed)) == len(listed)
    assert sorted(ROOT / "docs" / page for page in inside) == sorted([*DOCS, *REFERENCE])


def test_the_index_leads_to_every_task():
    tasks = next(part["Tasks"] for part in yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"] if "Tasks" in part)
    assert set(pages_in(tasks)) <= set(links_of(ROOT / "docs" / "index.md"))


@pytest.mark.parametrize("name", MODULES)
def test_every_module_of_the_reference_imports_and_says_what_it_is_for(name):
    assert importlib.import_module(name).__doc__


def test_every_room_of_the_package_is_in_the_reference():
    """But the command line, which explains itself with --help."""
    rooms = {path.stem for path in (ROOT / "src" / "dcvideogen").iterdir() if (path / "__init__.py").is_file()}
    assert {name.split(".")[1] for name in MODULES} >= rooms - {"cli"}
    assert len(set(MODULES)) == len(MODULES)


@pytest.mark.parametrize("file", RESULTS, ids=name_of)
def test_every_result_is_on_the_page_of_results_with_its_own_numbers_and_hardware(file):
    link = f"../benchmarks/results/{file.name}"
    rows = [row for row in (ROOT / "docs" / "results.md").read_text().splitlines() if f"]({link})" in row]
    assert len(rows) == 1, f"docs/results.md needs a row that links to {link}, with hardware and what came out"
    _, _, hardware, words, _ = rows[0].split("|")
    text = file.read_text()
    assert hardware.strip() in text or hardware.strip().startswith("any:"), hardware
    for number in re.findall(r"-?\d+(?:[.,]\d+)*%?", re.sub(r"`[^`]*`", "", words)):
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d%])", text), f"{number} is not in {file.name}"
