import itertools
from dataclasses import replace

import torch
from tiny_models import tiny_batch, tiny_transformer, tiny_wan_i2v

from dcvideogen.adaptation.backbones import FAMILIES
from dcvideogen.adaptation.flow_matching import FlowTask, without_image
from dcvideogen.adaptation.flow_settings import FlowSettings
from dcvideogen.adaptation.sampling import sample_latents
from dcvideogen.conditioning import condition
from dcvideogen.flow import euler_sigmas

WAN = FAMILIES["wan"]


def sample(guidance, batch=None, **changes):
    batch = tiny_batch() if batch is None else batch
    null = (torch.zeros_like(batch.prompt_embeds[0]), torch.zeros_like(batch.prompt_mask[0]))
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(0))
    options = {"steps": 3, "shift": 2.0, "null_prompt": null, "guidance": guidance} | changes
    return sample_latents(tiny_transformer("wan"), WAN, batch, noise, **options)


def test_guidance_of_one_batch_of_two_is_that_of_two_passes():
    transformer, batch, guidance = tiny_transformer("wan"), tiny_batch(), 4.0
    empty = replace(batch, prompt_embeds=torch.zeros_like(batch.prompt_embeds))
    noisy = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(0))
    sigmas = euler_sigmas(3, 2.0)
    with torch.no_grad():
        for now, following in itertools.pairwise(sigmas):
            sigma = now.expand(2)
            text, without = (WAN.velocity(transformer, noisy, sigma, given) for given in (batch, empty))
            noisy = noisy + (following - now) * (without + guidance * (text - without))
    torch.testing.assert_close(sample(guidance), noisy, atol=1e-4, rtol=1e-4)


def test_guidance_one_asks_with_the_text_alone():
    batch = tiny_batch()
    null = (torch.full_like(batch.prompt_embeds[0], 9.0), torch.ones_like(batch.prompt_mask[0]))
    assert torch.equal(sample(1.0), sample(1.0, null_prompt=null))
    assert not torch.equal(sample(2.0), sample(2.0, null_prompt=null))


def test_the_latents_of_the_batch_are_not_looked_at():
    batch = tiny_batch()
    assert torch.equal(sample(2.0, batch), sample(2.0, replace(batch, latents=torch.zeros_like(batch.latents))))


def test_image_guidance_goes_from_nothing_over_the_image_to_the_text():
    transformer, batch = tiny_wan_i2v(), tiny_batch(condition_channels=8, image_dim=20)
    null = (torch.ones_like(batch.prompt_embeds[0]), torch.ones_like(batch.prompt_mask[0]))
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(0))
    options = {"null_prompt": null, "steps": 1, "shift": 1.0}
    found = sample_latents(transformer, WAN, batch, noise, guidance=3.0, image_guidance=1.5, **options)
    textless = replace(batch, prompt_embeds=null[0].expand_as(batch.prompt_embeds))
    blank = without_image(textless, torch.tensor([True, True]))
    assert not blank.condition.any()
    with torch.no_grad():
        both, image, neither = (WAN.velocity(transformer, noise, torch.ones(2), b) for b in (batch, textless, blank))
    wanted = noise - (neither + 1.5 * (image - neither) + 3.0 * (both - image))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    near = sample_latents(transformer, WAN, batch, noise, guidance=3.0, image_guidance=1 + 1e-7, **options)
    without = sample_latents(transformer, WAN, batch, noise, guidance=3.0, **options)
    torch.testing.assert_close(near, without, atol=1e-4, rtol=1e-4)


def test_a_latent_that_is_given_clean_comes_out_as_it_was_given_and_is_not_learned():
    batch, transformer = tiny_batch(), tiny_wan_i2v(clip=False)
    clean = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(5))
    batch = replace(batch, condition=condition(clean))
    null = (torch.zeros_like(batch.prompt_embeds[0]), torch.zeros_like(batch.prompt_mask[0]))
    noise, others = (torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(i)) for i in range(2))
    others[:, :, 1:] = noise[:, :, 1:]
    options = {"null_prompt": null, "steps": 4, "shift": 3.0, "guidance": 3.0, "first_latent": "given"}
    found, again = (sample_latents(transformer, WAN, batch, start, **options) for start in (noise, others))
    assert torch.equal(found[:, :, 0], clean[:, :, 0])
    assert torch.equal(found, again)  # its noise is not looked at
    generated = sample_latents(transformer, WAN, batch, noise, **options | {"first_latent": "generated"})
    assert not torch.isclose(generated[:, :, 0], clean[:, :, 0]).all()
    losses = []
    for latents in (batch.latents, torch.cat([batch.latents[:, :, :1] + 5, batch.latents[:, :, 1:]], dim=2)):
        task = FlowTask(
            transformer, WAN, null_prompt=null, held_out=[], flow=FlowSettings(text_dropout=0), trainable=("*",),
            info=None, seed=0, first_latent="given",
        )  # fmt: skip
        losses.append(task.losses(replace(batch, latents=latents), 0)["transformer"])
    assert torch.equal(*losses)
