"""Each family is asked as diffusers' own pipelines ask it: noise levels, signs, text and other arguments."""

import importlib.util

import pytest
import torch
from tiny_models import tiny_batch, tiny_row, tiny_transformer
from torch.nn import functional as F

from dcvideogen.adaptation.backbones import FAMILIES, backbone_named
from dcvideogen.adaptation.surgery import move_transformer
from dcvideogen.errors import UserError

SIGMA = torch.tensor([0.25, 0.75])


def direct(transformer, **arguments):
    with torch.no_grad():
        return transformer(**arguments, return_dict=False)[0]


def ours(name, batch=None, transformer=None):
    backbone, made, row_batch = tiny_row(name)
    transformer, batch = transformer or made, batch or row_batch
    with torch.no_grad():
        return transformer, batch, backbone.velocity(transformer, batch.latents, SIGMA, batch)


def test_wan():
    transformer, batch, velocity = ours("wan")
    expected = direct(
        transformer, hidden_states=batch.latents, timestep=1000 * SIGMA, encoder_hidden_states=batch.prompt_embeds
    )
    assert torch.equal(velocity, expected)


def test_skyreels_is_asked_as_wan_is():
    transformer, batch, velocity = ours("skyreels-v2")
    expected = direct(
        transformer, hidden_states=batch.latents, timestep=1000 * SIGMA, encoder_hidden_states=batch.prompt_embeds
    )
    assert torch.equal(velocity, expected)
    with pytest.raises(UserError, match="12 input channels came for a transformer of 4"):
        ours("skyreels-v2", tiny_batch(condition_channels=8))


@pytest.mark.parametrize("forcing", [{"inject_sample_info": True}, {"num_frame_per_block": 3}])
def test_diffusion_forcing_is_refused(forcing):
    base = tiny_transformer("skyreels-v2", **forcing)
    with pytest.raises(UserError, match="a diffusion-forcing SkyReels-V2 came"):
        move_transformer(base, backbone_named("skyreels-v2"), latent_channels=6, patch_size=(1, 1, 1), seed=0)


def test_hunyuan_video_with_its_guidance_and_pooled_text():
    def arguments(batch):
        return {
            "hidden_states": batch.latents, "timestep": 1000 * SIGMA, "encoder_hidden_states": batch.prompt_embeds,
            "encoder_attention_mask": batch.prompt_mask,
        }  # fmt: skip

    transformer, batch, velocity = ours("hunyuan-video")
    without = {"pooled_projections": torch.zeros(2, 8), "guidance": torch.full((2,), 6000.0)}
    assert torch.equal(velocity, direct(transformer, **arguments(batch), **without))
    transformer, batch, velocity = ours("hunyuan-video with pooled text")
    pooled = {"pooled_projections": batch.pooled_embeds}
    assert torch.equal(velocity, direct(transformer, **arguments(batch), **pooled))


def test_cogvideox_has_frames_before_channels_and_text_of_full_length():
    transformer, batch, velocity = ours("cogvideox", tiny_batch(text_tokens=6))
    expected = direct(
        transformer,
        hidden_states=batch.latents.transpose(1, 2),
        timestep=1000 * SIGMA,
        encoder_hidden_states=F.pad(batch.prompt_embeds, (0, 0, 0, 2)),
    )
    assert torch.equal(velocity, expected.transpose(1, 2))
    with pytest.raises(UserError, match="9 text tokens came; 8 are allowed"):
        ours("cogvideox", tiny_batch(text_tokens=9))


@pytest.mark.parametrize("name", ["cogvideox rotary", "cogvideox 1.5"])
def test_cogvideox_has_the_rotary_positions_of_its_pipeline(name):
    from diffusers import CogVideoXDDIMScheduler, CogVideoXPipeline

    transformer, batch, velocity = ours(name)
    pipeline = CogVideoXPipeline(None, None, None, transformer, CogVideoXDDIMScheduler())
    rotary = pipeline._prepare_rotary_positional_embeddings(4 * 8, 4 * 8, 3, torch.device("cpu"))
    expected = direct(
        transformer,
        hidden_states=batch.latents.transpose(1, 2),
        timestep=1000 * SIGMA,
        encoder_hidden_states=batch.prompt_embeds,
        image_rotary_emb=rotary,
    )
    assert torch.equal(velocity, expected.transpose(1, 2))


def test_cogvideox_1_5_refuses_more_tokens_than_it_has_places():
    with pytest.raises(UserError, match="3x2 tokens came; at most 2x2"):
        ours("cogvideox 1.5", tiny_batch(grid=(3, 6, 4)))


def test_a_moved_cogvideox_keeps_the_grid_of_its_positions():
    backbone, base, _ = tiny_row("cogvideox")
    new = move_transformer(base, backbone, latent_channels=6, patch_size=(1, 1, 1), seed=0)
    assert (new.config.sample_height, new.config.sample_width) == (2, 2)
    assert torch.equal(new.patch_embed.pos_embedding, base.patch_embed.pos_embedding)


@pytest.mark.parametrize("name", ["ltx", "ltx in patches"])
def test_ltx_takes_packed_tokens(name):
    from diffusers import LTXPipeline

    transformer, batch, velocity = ours(name)
    patch = transformer.config.patch_size
    tokens = direct(
        transformer,
        hidden_states=LTXPipeline._pack_latents(batch.latents, patch, 1),
        timestep=1000 * SIGMA,
        encoder_hidden_states=batch.prompt_embeds,
        encoder_attention_mask=batch.prompt_mask,
        num_frames=3, height=4 // patch, width=4 // patch, rope_interpolation_scale=(8 / 25, 32, 32),
    )  # fmt: skip
    assert torch.equal(velocity, LTXPipeline._unpack_latents(tokens, 3, 4 // patch, 4 // patch, patch, 1))


def test_mochi_counts_noise_and_velocity_backwards():
    transformer, batch, velocity = ours("mochi")
    expected = direct(
        transformer,
        hidden_states=batch.latents,
        timestep=1000 * (1 - SIGMA),
        encoder_hidden_states=batch.prompt_embeds,
        encoder_attention_mask=batch.prompt_mask,
    )
    assert torch.equal(velocity, -expected)


@torch.no_grad()
def test_a_step_of_mochis_scheduler_is_our_euler_step():
    """Its pipeline's scheduler moves from inverted noise level to inverted noise level along the raw output."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    backbone, transformer, batch = tiny_row("mochi")
    scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    scheduler.set_timesteps(4)
    sigma, following = (1 - level.item() for level in scheduler.sigmas[1:3])
    assert scheduler.timesteps[1] == pytest.approx(1000 * (1 - sigma))
    velocity = backbone.velocity(transformer, batch.latents, torch.full((2,), sigma), batch)
    stepped = scheduler.step(-velocity, scheduler.timesteps[1], batch.latents, return_dict=False)[0]
    assert torch.allclose(stepped, batch.latents + (following - sigma) * velocity, atol=1e-5)
    assert following < sigma


def test_cosmos_is_told_sigma_itself():
    transformer, batch, velocity = ours("cosmos")
    expected = direct(
        transformer, hidden_states=batch.latents, timestep=SIGMA, encoder_hidden_states=batch.prompt_embeds, fps=16
    )
    assert torch.equal(velocity, expected)


@torch.no_grad()
def test_a_padding_mask_of_zeros_adds_nothing_and_does_not_move():
    backbone = backbone_named("cosmos")
    base, batch = tiny_transformer("cosmos", concat_padding_mask=True), tiny_batch()
    weight, bias = backbone.embedder_weight(base)
    assert bias is None
    inputs = backbone.embedder_inputs(batch.latents, base.config)
    assert inputs.shape[-1] == 5 * 4
    assert not inputs[..., 4 * 4 :].any()
    unmasked = batch.latents.new_zeros(2, 1, 3, 4, 4)
    expected = base.patch_embed(torch.cat([batch.latents, unmasked], dim=1))
    assert torch.equal(backbone.embed(base, batch.latents), expected)
    assert weight.shape == (32, 20)
    new = move_transformer(base, backbone, latent_channels=6, patch_size=(1, 1, 1), seed=0)
    assert not new.config.concat_padding_mask
    assert backbone.embedder_weight(new)[0].shape == (32, 6)


def test_a_cosmos_base_with_a_padding_mask_needs_torchvision():

    if importlib.util.find_spec("torchvision") is not None:
        pytest.skip("torchvision is installed")
    with pytest.raises(UserError, match="with torchvision only"):
        ours("cosmos", transformer=tiny_transformer("cosmos", concat_padding_mask=True))


@pytest.mark.parametrize("name", ["hunyuan-video", "mochi", "ltx"])
@torch.no_grad()
def test_an_empty_prompt_gives_numbers(name):
    """The mean over no text would be 0/0."""
    backbone, transformer, batch = tiny_row(name)
    batch.prompt_embeds.zero_()
    batch.prompt_mask.zero_()
    assert backbone.velocity(transformer, batch.latents, SIGMA, batch).isfinite().all()


@pytest.mark.parametrize("name", ["hunyuan-video", "mochi", "ltx"])
@torch.no_grad()
def test_text_behind_the_mask_is_not_read(name):
    backbone, transformer, batch = tiny_row(name)
    velocity = backbone.velocity(transformer, batch.latents, SIGMA, batch)
    batch.prompt_embeds[~batch.prompt_mask] = 3.0
    assert torch.allclose(backbone.velocity(transformer, batch.latents, SIGMA, batch), velocity, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_clips_of_a_batch_do_not_see_each_other_and_noise_levels_matter(family):
    backbone, transformer, batch = tiny_row(family)
    velocity = backbone.velocity(transformer, batch.latents, SIGMA, batch)
    other = backbone.velocity(transformer, batch.latents, torch.tensor([0.25, 0.3]), batch)
    assert torch.allclose(velocity[0], other[0], atol=1e-6)
    assert not torch.allclose(velocity[1], other[1], atol=1e-4)
