"""What MkDocs is told besides mkdocs.yml: files of the repository outside docs/ that pages link to become pages too.

So every link of a page works on the site and in the repository alike. Markdown is shown as a page, pictures and data go
along as they are, and any other text file is a page that shows it.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = "docs/"
SHOWN = {".py": "python", ".sh": "sh", ".yaml": "yaml"}  # as a page around a code block
LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?\)")  # a relative target, and perhaps a place in it


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what is in the navigation or linked to, and what that links to."""
    queue = [(file.src_uri, text_of(file.src_uri)) for file in files.documentation_pages()]
    queue += [("mkdocs.yml", " ".join(f"]({DOCS}../{uri})" for uri in pages_of(config.nav)))]
    while queue:
        uri, text = queue.pop()
        for target in linked(repository_path(uri), text):
            found = site_uri(target)
            if files.get_file_from_path(found) is None and (ROOT / target).is_file() and not target.startswith(DOCS):
                files.append(added(found, target, config))
                if target.endswith(".md"):
                    queue.append((found, text_of(found)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links lead to where the site has the files."""
    here = page.file.src_uri

    def moved(link: re.Match[str]) -> str:
        target = site_uri(normpath(join(dirname(repository_path(here)), link[2])))
        if files.get_file_from_path(target) is None:
            return link[0]  # for MkDocs to complain about
        return f"{link[1]}{relpath(target, dirname(here) or '.')}{link[3] or ''})"

    return LINK.sub(moved, markdown)


def pages_of(nav: object) -> list[str]:
    """All pages that a navigation names."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav or []
    return [page for part in parts for page in pages_of(part)]


def repository_path(uri: str) -> str:
    """Where a page of the site comes from."""
    if (ROOT / DOCS / uri).is_file():
        return DOCS + uri
    return uri if (ROOT / uri).is_file() else uri.removesuffix(".md")


def site_uri(path: str) -> str:
    """Where the site has a file of the repository."""
    if path.startswith(DOCS):
        return path.removeprefix(DOCS)
    return f"{path}.md" if Path(path).suffix in SHOWN else path


def linked(path: str, text: str) -> list[str]:
    """Files of the repository that a page links to."""
    return [normpath(join(dirname(path), link[2])) for link in LINK.finditer(text)]


def text_of(uri: str) -> str:
    return (ROOT / repository_path(uri)).read_text()


def added(uri: str, path: str, config: MkDocsConfig) -> File:
    language = SHOWN.get(Path(path).suffix)
    if language is None:
        return File.generated(config, uri, abs_src_path=str(ROOT / path))
    return File.generated(config, uri, content=f"# {path}\n\n````{language}\n{(ROOT / path).read_text()}````\n")
