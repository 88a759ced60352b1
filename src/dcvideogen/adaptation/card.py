"""The README.md of an export: what it is, how it was made, how to load it, and what it cannot do."""

from __future__ import annotations

from pydantic import Field

from dcvideogen.adaptation.folder import AdaptationInfo
from dcvideogen.data.settings import Frozen

FRONT = """---
library_name: diffusers
tags: [video-generation, dcvideogen, lora]
---
"""


class CardFacts(Frozen):
    """What only the caller knows.

    base, autoencoder: names or places, as a reader should look them up. settings: what was trained and how, title ->
    value, in the order to show. scores: measured on held-out data. licences: of what this was made from; the base's
    and the autoencoder's hold for the result too. limits: one sentence each.
    """

    title: str = "Adapted video transformer"
    base: str = "the base model"
    autoencoder: str = "the autoencoder"
    settings: dict[str, str | int | float] = Field(default_factory=dict)
    scores: dict[str, float] = Field(default_factory=dict)
    licences: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()


def render_card(
    facts: CardFacts, info: AdaptationInfo, parts: dict[str, str], lora: str | None, experts: tuple[str, ...]
) -> str:
    """The card as Markdown. parts: file or folder -> what is in it. lora: its layers, rank and alpha in words.

    experts: the transformers of the pipeline.
    """
    trained = "embedder, head and a LoRA (" + lora + ")" if lora else "see the settings below"
    about = {
        "base": f"{facts.base} (fingerprint `{info.base}`, family {info.family})",
        "autoencoder": f"{facts.autoencoder} (latent space `{info.latent_space_id}`)",
        "latents": f"{info.latent_channels} channels, {info.spatial_ratio}x{info.spatial_ratio} pixels and "
        f"{info.temporal_ratio} frames per latent",
        "positions": info.positions
        + (f", {_numbers(info.position_ratio)} base tokens per token" if info.positions == "base_grid" else ""),
        "trained": trained,
    }
    sections = [
        FRONT + f"\n# {facts.title}\n\nA video diffusion transformer moved to the latents of another autoencoder "
        "(AE-Adapt-V, arXiv 2509.25182).\n\n" + _table(about),
        "## What is here\n\n" + _table({f"`{name}`": what for name, what in parts.items()}),
        "## Loading\n\n" + _loading(facts, info, parts, experts),
    ]
    if facts.settings:
        sections.append("## Settings\n\n" + _table(facts.settings))
    if facts.scores:
        sections.append(
            "## Scores on held-out data\n\n" + _table({name: f"{v:.4g}" for name, v in facts.scores.items()})
        )
    sections.append("## Licence\n\n" + _list(facts.licences or (_NO_LICENCE,)))
    sections.append("## Limits\n\n" + _list((*facts.limits, *_LIMITS)))
    return "\n".join(sections)


_NO_LICENCE = "None was stated. The licences of the base model and of the autoencoder hold for what is made from them."
_LIMITS = (
    "It works with latents of this autoencoder alone; those of another are noise to it.",
    "The LoRA alone does not move the base: its embedder and head are in `adapter/`, and in no LoRA file.",
    "What the base cannot do, or does wrongly, this cannot do either.",
)


def _loading(facts: CardFacts, info: AdaptationInfo, parts: dict[str, str], experts: tuple[str, ...]) -> str:
    plain = (
        "Plain diffusers loads the folder too (`from_pretrained`)."
        if info.positions == "integer"
        else "Plain diffusers loads the folder too, but counts positions as integers, which is wrong for this one."
    )
    loads = "\n".join(f'{name}, info = load_transformer(Path("{name}"))' for name in experts)
    text = (
        "```python\nfrom pathlib import Path\n\nfrom dcvideogen.adaptation.folder import load_transformer\n\n"
        f"{loads}\n```\n\n{plain}\n"
    )
    if any(name.startswith("adapter/") for name in parts):
        text += (
            "\nThe same from the base model and the adapter alone:\n\n"
            "```sh\ndcvideogen merge BASE adapter -o merged\n```\n"
        )
    return text


def _table(rows: dict) -> str:
    cells = (f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items())
    return "\n".join(["| | |", "|---|---|", *cells]) + "\n"


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _list(lines: tuple[str, ...]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _numbers(values: tuple[float, ...]) -> str:
    return " x ".join(f"{value:g}" for value in values)
