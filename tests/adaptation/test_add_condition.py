from dataclasses import replace

import pytest
import torch
from tiny_models import tiny_batch, tiny_transformer, tiny_wan_i2v

from dcvideogen.adaptation.backbones import backbone_named
from dcvideogen.adaptation.surgery import add_condition
from dcvideogen.conditioning import condition
from dcvideogen.errors import UserError

WAN = backbone_named("wan")


def test_a_transformer_with_a_fresh_condition_does_what_it_did_and_learns_from_it():
    base = tiny_transformer("wan")
    new = add_condition(base, WAN)
    assert (new.config.in_channels, new.config.out_channels) == (12, 4)
    batch, sigma = tiny_batch(), torch.tensor([0.3, 0.8])
    given = replace(batch, condition=condition(torch.randn_like(batch.latents)))
    velocity = WAN.velocity(new, batch.latents, sigma, given)
    assert (velocity - WAN.velocity(base, batch.latents, sigma, batch)).abs().max() < 1e-6
    velocity.square().mean().backward()
    assert new.patch_embedding.weight.grad[:, 4:].abs().min() > 0
    for name, tensor in base.state_dict().items():
        if name != "patch_embedding.weight":
            assert torch.equal(new.state_dict()[name], tensor)


def test_only_text_to_video_transformers_are_given_a_condition():
    with pytest.raises(UserError, match="a transformer for image to video came"):
        add_condition(tiny_wan_i2v(clip=False), WAN)
