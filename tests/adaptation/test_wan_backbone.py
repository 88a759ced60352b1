"""Wan's variants: image to video, the 5B, and the real sizes counted on `meta`."""

import dataclasses

import pytest
import torch
from tiny_models import tiny_batch, tiny_row, tiny_transformer, tiny_wan_i2v

from dcvideogen.adaptation.backbones import backbone_named, backbone_of
from dcvideogen.adaptation.lora_targets import lora_parameter_count, named_linears
from dcvideogen.adaptation.surgery import move_transformer
from dcvideogen.adaptation.wan_configs import BOUNDARIES, WAN_CONFIGS
from dcvideogen.conditioning import condition
from dcvideogen.errors import UserError

WAN = backbone_named("wan")
SIGMA = torch.tensor([0.25, 0.75])


@torch.no_grad()
def velocity(transformer, batch):
    return WAN.velocity(transformer, batch.latents, SIGMA, batch)


def real(name):
    """A published transformer on `meta`."""
    from diffusers import WanTransformer3DModel

    config = WAN_CONFIGS[name]
    with torch.device("meta"):
        return WanTransformer3DModel(**{key: value for key, value in config.items() if not key.startswith("_")})


def moved(name, latent_channels=32):
    return move_transformer(real(name), WAN, latent_channels=latent_channels, patch_size=(1, 1, 1), seed=0)


def count(transformer):
    return sum(parameter.numel() for parameter in transformer.parameters())


def test_the_condition_comes_behind_the_latents():
    batch = tiny_batch(condition_channels=8)
    inputs = WAN.model_input(batch.latents, batch.condition)
    assert torch.equal(inputs[:, :4], batch.latents)
    assert torch.equal(inputs[:, 4:], batch.condition)
    assert WAN.condition_channels(tiny_wan_i2v().config) == 8


@torch.no_grad()
def test_image_tokens_are_read_and_text_is_padded_to_512():
    _, transformer, batch = tiny_row("wan image to video with CLIP")
    padded = torch.nn.functional.pad(batch.prompt_embeds, (0, 0, 0, 504))
    expected = transformer(
        hidden_states=torch.cat([batch.latents, batch.condition], dim=1), timestep=1000 * SIGMA,
        encoder_hidden_states=padded, encoder_hidden_states_image=batch.image_embeds, return_dict=False,
    )[0]  # fmt: skip
    assert torch.equal(velocity(transformer, batch), expected)
    other = dataclasses.replace(batch, image_embeds=batch.image_embeds + 1)
    assert not torch.equal(velocity(transformer, other), expected)


def test_image_embeds_are_left_out_where_there_is_no_clip():
    _, transformer, batch = tiny_row("wan image to video")
    with_image = dataclasses.replace(batch, image_embeds=torch.randn(2, 5, 20))
    assert torch.equal(velocity(transformer, with_image), velocity(transformer, batch))


def test_what_an_image_to_video_model_misses_is_named():
    _, transformer, batch = tiny_row("wan image to video with CLIP")
    with pytest.raises(UserError, match="without image embeddings came for a Wan model with CLIP"):
        velocity(transformer, dataclasses.replace(batch, image_embeds=None))
    with pytest.raises(UserError, match="4 input channels came for a transformer of 12: 4 of latents and 8 of a"):
        velocity(transformer, dataclasses.replace(batch, condition=None))
    long = tiny_batch(text_tokens=513, condition_channels=8, image_dim=20)
    with pytest.raises(UserError, match="513 text tokens came; 512 are allowed"):
        velocity(transformer, long)


def test_a_moved_image_to_video_model_keeps_its_layout():
    base = tiny_wan_i2v()
    new = move_transformer(base, WAN, latent_channels=6, patch_size=(1, 1, 1), seed=0)
    assert new.config.in_channels == 6 + 4 + 6
    assert WAN.condition_channels(new.config) == 10
    assert torch.equal(new.blocks[1].attn2.add_k_proj.weight, base.blocks[1].attn2.add_k_proj.weight)


def test_text_to_video_can_be_made_image_to_video_and_back():
    sizes = {"latent_channels": 32, "patch_size": (1, 1, 1)}
    config = WAN_CONFIGS["wan2.1-t2v-1.3b"]
    assert WAN.with_latents(config, **sizes, condition=True)["in_channels"] == 68
    assert WAN.with_latents(WAN_CONFIGS["wan2.1-i2v-14b"], **sizes, condition=False)["in_channels"] == 32


@torch.no_grad()
def test_the_5b_is_given_its_first_latent_clean_with_timestep_zero():
    """As diffusers' WanImageToVideoPipeline with expand_timesteps does it."""
    transformer, batch = tiny_transformer("wan"), tiny_batch()
    image = torch.randn(2, 4, 3, 4, 4)
    first = torch.ones(1, 1, 3, 4, 4)
    first[:, :, 0] = 0
    timesteps = 1000 * SIGMA[:, None] * first[0, 0, :, ::2, ::2].flatten()
    expected = transformer(
        hidden_states=(1 - first) * image + first * batch.latents, timestep=timesteps,
        encoder_hidden_states=batch.prompt_embeds, return_dict=False,
    )[0]  # fmt: skip
    batch = dataclasses.replace(batch, condition=condition(image))
    assert torch.equal(velocity(transformer, batch), expected)
    features = WAN.features(transformer, batch.latents, SIGMA, batch)
    outputs = WAN.head_velocity(transformer.proj_out(features), (3, 2, 2), transformer.config)
    assert torch.equal(outputs, expected)
    batch = dataclasses.replace(batch, condition=torch.cat([torch.zeros(2, 4, 3, 4, 4), image], dim=1))
    with pytest.raises(UserError, match="a condition of 6 channels came for latents of 4; 4 of a mask and as many"):
        velocity(transformer, dataclasses.replace(batch, condition=image.repeat(1, 2, 1, 1, 1)[:, :6]))
    plain = dataclasses.replace(batch, condition=None)
    assert torch.allclose(velocity(transformer, batch), velocity(transformer, plain), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("wan2.1-t2v-1.3b", 1418.996),
        ("wan2.1-t2v-14b", 14288.491),
        ("wan2.1-i2v-14b", 16394.879),
        ("wan2.2-ti2v-5b", 4999.788),
    ],
)
def test_published_sizes(name, millions):
    assert backbone_of(WAN_CONFIGS[name]) is WAN
    assert count(real(name)) / 1e6 == pytest.approx(millions, abs=0.001)


def test_the_experts_are_of_the_14bs_size():
    assert WAN_CONFIGS["wan2.2-t2v-a14b"] == WAN_CONFIGS["wan2.1-t2v-14b"]
    i2v = moved("wan2.2-i2v-a14b")
    assert (i2v.config.in_channels, i2v.config.out_channels, i2v.config.image_dim) == (68, 32, None)
    assert set(BOUNDARIES) == {"wan2.2-t2v-a14b", "wan2.2-i2v-a14b"}


def test_the_1_3b_in_the_papers_latents_has_the_papers_parameters():
    new = moved("wan2.1-t2v-1.3b")
    assert round(count(new) / 1e6, 2) == 1418.90
    assert all(parameter.is_meta for parameter in new.parameters())
    assert new.rope.freqs_cos.is_meta


def test_image_to_video_takes_68_channels():
    new = moved("wan2.1-i2v-14b")
    assert new.patch_embedding.weight.shape == (5120, 68, 1, 1, 1)
    assert new.proj_out.weight.shape == (32, 5120)


def test_lora_counts_are_the_papers():
    """Appendix of arXiv 2509.25182 has 350.37 M at rank 256: attention and feed-forward, the output projection by a
    LoRA as well, and its modulation."""
    new = moved("wan2.1-t2v-1.3b")
    targets = WAN.lora_targets
    attention_ffn = lora_parameter_count(new, targets["attention+ffn"], 256)
    assert round(attention_ffn / 1e6, 2) == 349.96
    assert round(lora_parameter_count(new, targets["self_attention+ffn+time"], 256) / 1e6, 2) == 259.59
    assert round(lora_parameter_count(new, targets["self_attention+ffn"], 256) / 1e6, 2) == 255.59
    ends = sum(
        parameter.numel() for path in (WAN.embedder, WAN.head) for parameter in new.get_submodule(path).parameters()
    )
    modulation = sum(new.get_parameter(name).numel() for name in WAN.head_modulation)
    assert round((attention_ffn + ends + modulation) / 1e6, 2) == 350.07
    with_output = lora_parameter_count(new, (*targets["attention+ffn"], "proj_out"), 256)
    assert round((with_output + modulation) / 1e6, 2) == 350.37


@pytest.mark.parametrize("targets", WAN.lora_targets)
def test_a_count_is_what_a_lora_has(targets):
    from dcvideogen.adaptation.lora import LoraSettings, add_lora

    for transformer in (tiny_transformer("wan"), tiny_wan_i2v()):
        counted = lora_parameter_count(transformer, WAN.lora_targets[targets], 3)
        add_lora(transformer, WAN, LoraSettings(targets=targets, rank=3, alpha=3))
        assert counted == sum(p.numel() for name, p in transformer.named_parameters() if "lora_" in name)


def test_targets_end_at_a_dot_and_some_can_be_left_out():
    transformer = tiny_transformer("hunyuan-video")
    single = ["single_transformer_blocks.0.proj_out"]
    assert named_linears(transformer, ("proj_out",), without=("proj_out",)) == single
    assert named_linears(transformer, ("proj_out",)) == [*single, "proj_out"]
    assert named_linears(transformer, ("out",)) == []
