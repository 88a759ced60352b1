"""The same transformer in other latents: new ends, everything else as it was."""

from __future__ import annotations

import torch
from torch import nn

from dcvideogen.adaptation.backbone import Backbone
from dcvideogen.adaptation.patches import Patch
from dcvideogen.adaptation.positions import set_positions
from dcvideogen.errors import UserError


def move_transformer(
    base: nn.Module,
    backbone: Backbone,
    *,
    latent_channels: int,
    patch_size: Patch,
    seed: int,
    adds_condition: bool = False,
) -> nn.Module:
    """A transformer for latents of `latent_channels` in patches of `patch_size`.

    Everything but embedder and head is a copy of the base's, bit for bit and in its dtypes; those two are drawn as
    their class draws them, from `seed`. Positions are integers. An image-to-video base stays one, with the layout of
    its condition (Wan: mask, then latents); adds_condition: a text-to-video base becomes one. On the meta device
    nothing is copied or drawn.
    Layers are exchanged by building the class anew: put into the finished model they would neither save nor load.
    UserError: latents or a condition that the family cannot have.
    """
    condition = adds_condition or backbone.condition_channels(base.config) > 0
    config = backbone.with_latents(
        base.config, latent_channels=latent_channels, patch_size=tuple(patch_size), condition=condition
    )
    with torch.device("meta"):
        new = type(base)(**config)
    ends = (backbone.embedder, backbone.head)
    weights = {
        name: tensor.detach().clone() for name, tensor in base.state_dict().items() if not is_end(name, backbone)
    }
    _check_same(weights, {name: tensor for name, tensor in new.state_dict().items() if not is_end(name, backbone)})
    if backbone.embedder_module(base).weight.device.type != "meta":
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # forked: the caller's numbers go on as if nothing was drawn
            for path in ends:
                old, end = base.get_submodule(path), new.get_submodule(path)
                end.to_empty(device="cpu").reset_parameters()
                end.to(old.weight.device, old.weight.dtype)
                weights |= {f"{path}.{name}": tensor for name, tensor in end.state_dict().items()}
        new.load_state_dict(weights, strict=True, assign=True)
    else:
        for path in ends:
            new.get_submodule(path).to(base.get_submodule(path).weight.dtype)
        new.load_state_dict(weights, strict=False, assign=True)
    set_positions(new, backbone, "integer")
    return new.train(base.training)


@torch.no_grad()
def add_condition(base: nn.Module, backbone: Backbone) -> nn.Module:
    """The text-to-video transformer `base` with input channels for an image besides, in the same latents.

    It does what it did until it is trained: the embedder's weights for the new channels are 0. UserError: a family that
    has no image to video, a transformer that has these channels already.
    """
    if backbone.condition_channels(base.config):
        raise UserError("a transformer for image to video came; one for text to video is needed")
    config = backbone.with_latents(
        base.config,
        latent_channels=backbone.latent_channels(base.config),
        patch_size=backbone.patch_size(base.config),
        condition=True,
    )
    with torch.device("meta"):
        new = type(base)(**config)
    weights = {name: tensor.detach().clone() for name, tensor in base.state_dict().items()}
    name = f"{backbone.embedder}.weight"
    old, wide = weights[name], new.state_dict()[name]
    weights[name] = torch.zeros(wide.shape, dtype=old.dtype, device=old.device)
    weights[name][:, : old.shape[1]] = old
    new.load_state_dict(weights, strict=True, assign=True)
    set_positions(new, backbone, "integer")
    return new.train(base.training)


def is_end(name: str, backbone: Backbone) -> bool:
    """Whether a parameter belongs to the embedder or the head."""
    return name.startswith((f"{backbone.embedder}.", f"{backbone.head}."))


def _check_same(old: dict, new: dict) -> None:
    for name in sorted(old.keys() | new.keys()):
        if name not in old or name not in new or old[name].shape != new[name].shape:
            raise UserError(
                f"{name} depends on the latents in this transformer; it cannot be moved, only embedder and head may"
            )
