"""The families of video transformers that can be adapted.

A new one is a file beside backbone_mochi.py with its entry, its name in FAMILIES, and in the tests its sizes and a row
(tests/adaptation/tiny_models.py): every test of backbones and solvers then runs it.
"""

from __future__ import annotations

from dcvideogen.adaptation.backbone import Backbone, Config
from dcvideogen.adaptation.backbone_cogvideox import COGVIDEOX
from dcvideogen.adaptation.backbone_cosmos import COSMOS
from dcvideogen.adaptation.backbone_hunyuan import HUNYUAN_VIDEO
from dcvideogen.adaptation.backbone_ltx import LTX
from dcvideogen.adaptation.backbone_mochi import MOCHI
from dcvideogen.adaptation.backbone_skyreels import SKYREELS_V2
from dcvideogen.adaptation.backbone_wan import WAN
from dcvideogen.errors import UserError

__all__ = ["FAMILIES", "Backbone", "backbone_named", "backbone_of"]

FAMILIES: dict[str, Backbone] = {
    backbone.family: backbone for backbone in (WAN, SKYREELS_V2, HUNYUAN_VIDEO, COGVIDEOX, LTX, MOCHI, COSMOS)
}


def backbone_of(transformer_config: Config) -> Backbone:
    """By the class that a transformer's config names. UserError that lists the known classes."""
    name = transformer_config.get("_class_name")
    for backbone in FAMILIES.values():
        if backbone.class_name == name:
            return backbone
    known = ", ".join(f"{backbone.class_name} ({backbone.family})" for backbone in FAMILIES.values())
    raise UserError(f"a transformer of class {name} came; known: {known}")


def backbone_named(family: str) -> Backbone:
    """UserError that lists the known families."""
    if family not in FAMILIES:
        raise UserError(f"family {family!r} came; known: {', '.join(FAMILIES)}")
    return FAMILIES[family]
