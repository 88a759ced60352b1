import copy

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed
from tiny_models import tiny_batch, tiny_row, tiny_transformer

from dcvideogen.adaptation.backbones import backbone_named
from dcvideogen.adaptation.folder import AdaptationInfo, fingerprint, load_transformer, save_transformer
from dcvideogen.adaptation.positions import position_ratio, set_positions
from dcvideogen.adaptation.surgery import move_transformer
from dcvideogen.errors import UserError

WAN = backbone_named("wan")
SIGMA = torch.tensor([0.25, 0.75])
MOVABLE = ("wan", "skyreels-v2", "hunyuan-video", "ltx")


def moved_wan(ratio=None):
    new = move_transformer(tiny_transformer("wan"), WAN, latent_channels=6, patch_size=(1, 1, 1), seed=0)
    if ratio is not None:
        set_positions(new, WAN, "base_grid", ratio)
    return new, tiny_batch(channels=6, grid=(3, 2, 2))


@torch.no_grad()
def velocity(transformer, batch, backbone=WAN):
    return backbone.velocity(transformer, batch.latents, SIGMA, batch)


@pytest.mark.parametrize("family", MOVABLE)
def test_a_ratio_of_one_is_the_integers_bit_for_bit(family):
    backbone, transformer, batch = tiny_row(family)
    expected = velocity(transformer, batch, backbone)
    set_positions(transformer, backbone, "base_grid", (1, 1, 1))
    assert torch.equal(velocity(transformer, batch, backbone), expected)


@pytest.mark.parametrize("family", MOVABLE)
def test_positions_can_be_put_back(family):
    backbone, transformer, batch = tiny_row(family)
    expected = velocity(transformer, batch, backbone)
    set_positions(transformer, backbone, "base_grid", (1, 2, 2))
    assert not torch.equal(velocity(transformer, batch, backbone), expected)
    set_positions(transformer, backbone, "integer", (1, 2, 2))
    assert torch.equal(velocity(transformer, batch, backbone), expected)


def test_a_token_of_three_base_tokens_stands_on_the_middle_one():
    """With an odd ratio the centre is a base token, whose table entries must be met exactly."""
    transformer = tiny_transformer("wan")
    base = WanRotaryPosEmbed(12, (1, 2, 2), 32)
    set_positions(transformer, WAN, "base_grid", (1, 3, 5))
    for new, old in ((transformer.rope.freqs_cos, base.freqs_cos), (transformer.rope.freqs_sin, base.freqs_sin)):
        t, h, w = new.split([4, 4, 4], dim=1)
        old_t, old_h, old_w = old.split([4, 4, 4], dim=1)
        assert torch.equal(t, old_t)
        assert torch.equal(h[:10], old_h[1:30:3])
        assert torch.equal(w[:6], old_w[2:32:5])


def test_a_token_of_two_base_tokens_stands_between_them():
    transformer, _ = moved_wan((1, 2, 2))
    angles = torch.atan2(transformer.rope.freqs_sin[:, 4], transformer.rope.freqs_cos[:, 4])  # of height, frequency 1
    expected = 2 * torch.arange(32.0) + 0.5
    assert torch.allclose(torch.cos(angles - expected), torch.ones(32), atol=1e-6)


def test_hunyuan_and_ltx_stand_on_the_middle_base_token():
    hunyuan = tiny_transformer("hunyuan-video")
    inputs = torch.zeros(1, 4, 2, 12, 12)
    plain = [table.unflatten(0, (2, 6, 6)) for table in hunyuan.rope(inputs)]
    set_positions(hunyuan, backbone_named("hunyuan-video"), "base_grid", (1, 3, 3))
    coarse = [table.unflatten(0, (2, 2, 2)) for table in hunyuan.rope(inputs[..., :4, :4])]
    for new, old in zip(coarse, plain, strict=True):
        assert torch.equal(new, old[:, 1::3, 1::3])
    ltx, backbone = tiny_transformer("ltx"), backbone_named("ltx")
    seen = []
    ltx.rope.register_forward_hook(lambda *args: seen.append(args[2][0]))
    velocity(ltx, tiny_batch(grid=(2, 6, 6)), backbone)
    set_positions(ltx, backbone, "base_grid", (1, 3, 3))
    velocity(ltx, tiny_batch(grid=(2, 2, 2)), backbone)
    assert torch.allclose(seen[1].unflatten(1, (2, 2, 2)), seen[0].unflatten(1, (2, 6, 6))[:, :, 1::3, 1::3], atol=1e-6)


def test_positions_outlive_copies_casts_and_checkpointing():
    transformer, batch = moved_wan((1, 2, 2))
    expected = velocity(transformer, batch)
    assert torch.equal(velocity(copy.deepcopy(transformer), batch), expected)
    assert torch.equal(velocity(transformer.to("cpu", torch.float64).to(torch.float32).to("cpu"), batch), expected)
    transformer.enable_gradient_checkpointing()
    again = WAN.velocity(transformer.train(), batch.latents, SIGMA, batch)
    again.square().mean().backward()
    assert torch.equal(again.detach(), expected)
    assert moved_wan()[0].rope.freqs_cos.dtype == transformer.rope.freqs_cos.dtype == torch.float32


def test_positions_are_no_weights_and_work_on_meta():
    transformer, _ = moved_wan((1, 2, 2))
    plain, _ = moved_wan()
    assert transformer.state_dict().keys() == plain.state_dict().keys()
    assert fingerprint(transformer) == fingerprint(plain)
    set_positions(transformer.to("meta"), WAN, "base_grid", (1, 4, 4))
    assert transformer.rope.freqs_cos.is_meta


def test_surgery_on_a_base_with_its_own_positions_starts_from_integers():
    base = tiny_transformer("wan")
    set_positions(base, WAN, "base_grid", (1, 2, 2))
    new = move_transformer(base, WAN, latent_channels=6, patch_size=(1, 1, 1), seed=0)
    assert torch.equal(new.rope.freqs_cos, WanRotaryPosEmbed(12, (1, 1, 1), 32).freqs_cos)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_positions_come_back_from_a_folder(tmp_path, dtype):
    transformer, batch = moved_wan((1, 2, 2))
    info = AdaptationInfo(
        latent_space_id="space", latent_channels=6, spatial_ratio=32, temporal_ratio=4, positions="base_grid",
        position_ratio=(1, 2, 2), base="base", family="wan",
    )  # fmt: skip
    save_transformer(transformer, tmp_path / "moved", info)
    loaded, loaded_info = load_transformer(tmp_path / "moved", dtype)
    assert loaded_info.position_ratio == (1, 2, 2)
    assert torch.equal(loaded.rope.freqs_cos, transformer.rope.freqs_cos)
    if dtype == torch.float32:
        assert torch.equal(velocity(loaded, batch), velocity(transformer, batch))


def test_the_ratio_follows_from_both_autoencoders():
    assert position_ratio((1, 2, 2), (4, 8), (1, 1, 1), (4, 32)) == (1, 2, 2)
    assert position_ratio((1, 2, 2), (4, 8), (1, 1, 1), (4, 64)) == (1, 4, 4)
    assert position_ratio((1, 2, 2), (4, 16), (1, 1, 1), (4, 32)) == (1, 1, 1)
    assert position_ratio((1, 2, 2), (6, 8), (1, 1, 1), (4, 32)) == (pytest.approx(2 / 3), 2, 2)


@pytest.mark.parametrize("family", ["cogvideox", "mochi", "cosmos"])
def test_families_that_cannot_say_so(family):
    backbone, transformer, _ = tiny_row(family)
    with pytest.raises(UserError, match=f"positions 'base_grid' came for {family}; integer is allowed"):
        set_positions(transformer, backbone, "base_grid", (1, 2, 2))


def test_other_words_and_ratios_are_refused():
    transformer, _ = moved_wan()
    with pytest.raises(UserError, match="positions 'centre' came; integer and base_grid are allowed"):
        set_positions(transformer, WAN, "centre")
    with pytest.raises(UserError, match=r"position ratio \(1, 0, 2\) came"):
        set_positions(transformer, WAN, "base_grid", (1, 0, 2))
