"""Transformers without numbers: real classes on the meta device, to count, check and plan with."""

from __future__ import annotations

import torch
from torch import nn

from dcvideogen.adaptation.backbone import Config
from dcvideogen.adaptation.backbones import backbone_of
from dcvideogen.errors import UserError


def transformer_on_meta(config: Config) -> nn.Module:
    """Of a transformer's config.json. UserError for an unknown class, and for fields that its class does not take."""
    import diffusers

    transformer_class = getattr(diffusers, backbone_of(config).class_name)
    try:
        with torch.device("meta"):
            return transformer_class.from_config(dict(config))
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(
            f"a config.json of {transformer_class.__name__} came that its class does not take: "
            f"{' '.join(str(error).split())}; get the base's folder again"
        ) from error
