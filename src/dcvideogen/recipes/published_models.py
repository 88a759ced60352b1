"""What is known of published models without their files, to plan with before anything was downloaded."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from dcvideogen.adaptation.backbones import backbone_of
from dcvideogen.adaptation.time_windows import TimeLayout
from dcvideogen.adaptation.wan_configs import BOUNDARIES, WAN_CONFIGS
from dcvideogen.autoencoder.presets import PRESETS
from dcvideogen.errors import UserError
from dcvideogen.recipes.adaptation_models import Models, Space, models_of, own_fields
from dcvideogen.recipes.adaptation_recipe import AdaptationRecipe

UMT5_XXL = 4096  # numbers per text token of all Wan models
# Latent channels -> the autoencoder of the Wan models that have them.
WAN_SPACES = {16: Space(16, 8, TimeLayout(4, lone_first=True)), 48: Space(48, 16, TimeLayout(4, lone_first=True))}


def models_to_plan_with(recipe: AdaptationRecipe) -> Models:
    """As `models_of`; where a folder is not there, the published sizes of the model that its name says.

    base: a published Wan model's name in diffusers' layout, such as Wan2.1-T2V-1.3B-Diffusers. autoencoder: a folder
    called like a preset. UserError for other names of folders that are not there, listing those that are known.
    """
    notes = []
    fields = _preset(recipe.autoencoder)
    if fields is None:
        fields = own_fields(recipe.autoencoder)
    else:
        notes.append(f"autoencoder {recipe.autoencoder} is not there: planned with the sizes of its preset")
    if recipe.base.is_dir():
        models = models_of(recipe, fields)
        return dataclasses.replace(models, notes=tuple(notes))
    name = recipe.base.name.lower()
    known = next((key for key in WAN_CONFIGS if name.startswith(key)), None)
    if known is None:
        raise UserError(
            f"base {recipe.base}: no such folder, and no published model of that name to plan with; known: "
            f"{', '.join(WAN_CONFIGS)}"
        )
    config = WAN_CONFIGS[known]
    boundary = BOUNDARIES.get(known)
    sigmas = {"transformer": (0.0, 1.0)}
    if boundary is not None:
        sigmas = {"transformer": (boundary, 1.0), "transformer_2": (0.0, boundary)}
    notes.append(f"base {recipe.base} is not there: planned with the published sizes of {known}")
    return Models(
        backbone_of(config),
        dict.fromkeys(sigmas, config),
        sigmas,
        WAN_SPACES[config["out_channels"]],
        fields,
        UMT5_XXL,
        recipe.patch_size,
        tuple(notes),
    )


def _preset(name: str) -> dict[str, Any] | None:
    """The configuration of the preset that a folder which is not there is called like."""
    path = Path(name)
    return None if path.exists() else PRESETS.get(path.name)
