"""The page of commands: what `--help` says of each, so that it is never older than the program."""

from __future__ import annotations

import re
from collections.abc import Iterator
from inspect import cleandoc
from typing import Any

from mkdocs.structure.pages import Page
from typer.main import get_command

from dcvideogen.cli.main import app

PLACE = "<!-- commands -->"


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Puts the commands where the page says."""
    if PLACE not in markdown:
        return markdown
    return markdown.replace(PLACE, "\n\n".join(told(get_command(app), "dcvideogen")))


def told(command: Any, name: str) -> Iterator[str]:
    """A command as Markdown, or all of a group, in the order in which they were added."""
    members = getattr(command, "commands", None)
    if members is not None:
        for one, member in members.items():
            yield from told(member, f"{name} {one}")
        return
    typed = [word(parameter, 1) for parameter in command.params if parameter.required]
    yield f"## {name}"
    yield cleandoc(command.help or "")
    yield f"```\n{' '.join([name, *typed])}\n```"
    rows = [row(parameter) for parameter in command.params if not getattr(parameter, "hidden", False)]
    yield "\n".join(["| | |", "|---|---|", *rows])


def word(parameter: Any, names: int | None = None) -> str:
    """A parameter as it is typed. names: how many of an option's names; None: all."""
    if parameter.param_type_name == "argument":
        return parameter.name.upper()
    options = ", ".join(parameter.opts[:names])
    return options if parameter.is_flag else f"{options} {parameter.name.upper()}"


def row(parameter: Any) -> str:
    words = re.sub(r"([|*<])", r"\\\1", parameter.help or "")
    shown = parameter.default not in (None, False, (), []) and not callable(parameter.default)
    default = f" Default: `{parameter.default}`." if shown and not parameter.required else ""
    return f"| `{word(parameter)}` | {words}{default} |"
