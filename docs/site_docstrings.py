"""Docstrings as lists: where one says `name: what it is` of parameters or fields, each gets a line of its own."""

from __future__ import annotations

import re
from typing import Any

import griffe


class NamedLists(griffe.Extension):
    """Changes how docstrings are shown, not what they say."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        _walk(pkg)


def _walk(holder: griffe.Object) -> None:
    for member in holder.members.values():
        if member.is_alias:
            continue
        if member.docstring is not None and not member.is_module:
            member.docstring.value = as_list(member.docstring.value, _names(member))
        if member.is_module or member.is_class:
            _walk(member)


def _names(member: griffe.Object) -> set[str]:
    """What a docstring may explain: a function's parameters; a class's fields and those of its constructor."""
    if member.is_function:
        return {parameter.name for parameter in member.parameters}
    if not member.is_class:
        return set()
    constructor = member.members.get("__init__")
    parameters = constructor.parameters if constructor is not None and constructor.is_function else ()
    return set(member.members) | {parameter.name for parameter in parameters}


def as_list(text: str, names: set[str]) -> str:
    """`names: what they are`, at the start of a sentence, becomes an entry of a list that begins there."""
    name = "|".join(sorted(map(re.escape, names | {"UserError"}), key=len, reverse=True))
    entry = re.compile(rf"(?:(?<=[.;?)]) |(?<=[.;?)])\n|^)((?:{name})(?:, (?:{name}))*): ", re.MULTILINE)
    paragraphs = []
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("    "):
            paragraphs.append(paragraph)
            continue
        first, *rest = re.split(entry, paragraph)
        entries = [
            "- " + ", ".join(f"`{one}`" for one in label.split(", ")) + ": " + words.strip()
            for label, words in zip(rest[::2], rest[1::2], strict=True)
        ]
        listed, *errors = re.split(r"(?<=\.)\s+(?=Raises UserError)", "\n".join(entries))
        paragraphs += [part for part in (first.strip("\n"), listed, *errors) if part]
    return "\n\n".join(paragraphs)
