"""The pages of the documentation as the tests read them: code blocks, and the commands in them and between them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
# A comment right before a block: why it is not run, or which test runs it.
MARK = re.compile(r"<!-- (not run|run by): (.+) -->")
# A line of a block, fenced or indented, or what a command said to type next.
COMMAND = re.compile(r"^(?:    |\$ |next: )?(?:[A-Z_]+=\S+ )*(?:torchrun .* )?dcvideogen (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced code block. line: of its fence, from 1. mark: kind and words of the comment before it."""

    page: Path
    line: int
    language: str
    text: str
    mark: tuple[str, str] | None

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}"


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    blocks, opened, language, mark, text = [], 0, "", None, []
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        if opened and line != "```":
            text.append(line)
        elif opened:
            blocks.append(Block(page, opened, language, "\n".join(text), mark))
            opened, mark = 0, None
        elif line.startswith("```"):
            opened, language, text = number, line.removeprefix("```"), []
        elif line.strip():
            found = MARK.fullmatch(line)
            mark = (found[1], found[2]) if found else None
    assert not opened, f"{name_of(page)}:{opened} is never closed"
    return blocks


def command_lines(text: str) -> list[list[str]]:
    """The command lines of a shell block as words: continued lines joined, comments left out."""
    lines = (shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines())
    return [words for words in lines if words]


def commands_of(page: Path) -> list[list[str]]:
    """The arguments of every `dcvideogen` command line that a page shows."""
    lines = COMMAND.findall(page.read_text().replace("\\\n", " "))
    return [shlex.split(line, comments=True) for line in lines]


def named_commands(page: Path) -> list[list[str]]:
    """Commands that the prose names, as `dcvideogen generate`, also with only some of their arguments."""
    return [span.split() for span in re.findall(r"`dcvideogen ([^`\n]+)`", page.read_text())]
