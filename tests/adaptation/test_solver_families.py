"""Both solvers on every family of transformers."""

import pytest
import torch
from solver_cache import SolverCache
from tiny_models import SIZES, tiny_transformer

from dcvideogen.adaptation.backbones import FAMILIES, backbone_named
from dcvideogen.adaptation.embedder import AlignSettings, align
from dcvideogen.adaptation.flow_draws import FlowDraws
from dcvideogen.adaptation.head import HeadSettings, fit_head
from dcvideogen.adaptation.pooling import pool_ratio, pool_tokens
from dcvideogen.adaptation.surgery import move_transformer
from dcvideogen.flow import add_noise, velocity_target


def test_every_family_has_a_row():
    assert set(SIZES) == set(FAMILIES)


@pytest.mark.parametrize("family", SIZES)
def test_embedder_and_head_of_every_family_come_to_their_optimum(family, tmp_path):
    backbone, base = backbone_named(family), tiny_transformer(family)
    new = move_transformer(base, backbone, latent_channels=8, patch_size=(1, 1, 1), seed=1)
    cache = SolverCache(count=8, held_out=2, pool=(1, 4, 4))
    training = cache.indices(held_out=False)

    report = align(base, new, backbone, cache, AlignSettings(ridges=(0.0,)), tmp_path / "align")
    new.requires_grad_(True)
    pairs = cache.pairs(training)
    embedded, wanted = backbone.embed(new, pairs.latents), backbone.embed(base, pairs.base_latents).detach()
    pooled = pool_tokens(wanted, pool_ratio(wanted.shape[1:4], embedded.shape[1:4]))
    loss = (embedded - pooled)[:, 1:].square().mean()
    loss.backward()
    assert report.training_loss == pytest.approx(loss.item(), rel=1e-5)
    largest = max(p.grad.abs().max() for p in backbone.embedder_module(new).parameters())
    assert largest < 1e-6

    settings = HeadSettings(ridges=(0.0,), draws=2)
    solved = fit_head(new, backbone, cache, settings, tmp_path / "head")
    draws, losses = FlowDraws(backbone, cache, settings), []
    for number in range(2):
        batch, noise, sigma = draws.draw(cache.batch(training), [cache.clips[i].key for i in training], number)
        velocity = backbone.velocity(new, add_noise(batch.latents, noise, sigma), sigma, batch)
        losses.append((velocity - velocity_target(batch.latents, noise)).square().mean())
    loss = torch.stack(losses).mean()
    new.zero_grad()
    loss.backward()
    assert solved.training_loss == pytest.approx(loss.item(), rel=1e-5)
    largest = max(p.grad.abs().max() for p in backbone.head_module(new).parameters())
    assert largest < 1e-5
