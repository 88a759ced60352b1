"""Stage 1b on tiny Wan transformers: the projection's optimum, and what the steps behind it move."""

import json
from dataclasses import replace

import pytest
import torch
from solver_cache import SolverCache
from tiny_models import tiny_transformer, tiny_wan_i2v

from dcvideogen.adaptation.backbones import backbone_named
from dcvideogen.adaptation.flow_draws import FlowDraws
from dcvideogen.adaptation.flow_settings import FlowSettings
from dcvideogen.adaptation.head import HeadSettings, fit_head
from dcvideogen.adaptation.surgery import move_transformer
from dcvideogen.errors import UserError
from dcvideogen.flow import add_noise, velocity_target
from dcvideogen.training.settings import FitSettings

WAN = backbone_named("wan")
EXACT = HeadSettings(ridges=(0.0,))


@pytest.fixture
def cache():
    return SolverCache(count=10, channels=(4, 4))


def moved(patch=(1, 1, 1), base=None):
    base = base or tiny_transformer("wan")
    return move_transformer(base, WAN, latent_channels=4, patch_size=patch, seed=1)


def flow_loss(new, cache, settings, indices, count):
    """The flow-matching loss through the whole transformer, with gradients, on the solver's draws."""
    draws, total = FlowDraws(WAN, cache, settings), 0
    for index in indices:
        for number in range(count):
            batch, noise, sigma = draws.draw(cache.batch([index]), [cache.clips[index].key], number)
            velocity = WAN.velocity(new, add_noise(batch.latents, noise, sigma), sigma, batch)
            total = total + (velocity - velocity_target(batch.latents, noise)).square().mean()
    return total / len(indices) / count


@pytest.mark.parametrize("patch", [(1, 1, 1), (1, 2, 2)])
def test_at_the_solution_the_flow_matching_loss_has_no_gradient_in_the_head(cache, tmp_path, patch):
    new = moved(patch)
    report = fit_head(new, WAN, cache, EXACT, tmp_path)
    new.requires_grad_(True)
    loss = flow_loss(new, cache, EXACT, cache.indices(held_out=False), EXACT.draws)
    loss.backward()
    assert report.training_loss == pytest.approx(loss.item(), rel=1e-5)
    assert new.proj_out.weight.grad.abs().max() < 2e-5
    assert new.proj_out.bias.grad.abs().max() < 2e-5
    assert new.patch_embedding.weight.grad.abs().max() > 1e-3  # which is frozen here, and no optimum


def test_the_report_says_the_held_out_loss_before_and_after_also_by_sigma(cache, tmp_path):
    new, settings = moved(), HeadSettings(held_out_draws=8)
    held_out = cache.indices(held_out=True)
    before = flow_loss(new, cache, settings, held_out, 8).item()
    report = fit_head(new, WAN, cache, settings, tmp_path)
    after = flow_loss(new, cache, settings, held_out, 8).item()
    assert report.before.loss == pytest.approx(before, rel=1e-5)
    assert report.solved.loss == pytest.approx(after, rel=1e-5)
    assert after < before
    draws = FlowDraws(WAN, cache, settings)
    sigmas = torch.cat([
        draws.draw(cache.batch(held_out), [cache.clips[i].key for i in held_out], number)[2] for number in range(8)
    ])  # fmt: skip
    shares = [float(((sigmas > low) & (sigmas <= low + 0.25)).float().mean()) for low in (0, 0.25, 0.5, 0.75)]
    bands = sum(share * (loss or 0) for share, loss in zip(shares, report.solved.bands, strict=True))
    assert bands == pytest.approx(after, rel=1e-5)
    assert report.solved.r2 > report.before.r2
    assert (report.clips, report.held_out_clips) == (7, 3)
    assert (report.tokens, report.held_out_tokens) == (7 * 4 * 12, 3 * 8 * 12)
    assert json.loads((tmp_path / "head.json").read_text())["solved"]["loss"] == report.solved.loss
    assert "sigma 0.25-0.5" in (tmp_path / "head.txt").read_text()


def test_only_the_head_changes(cache, tmp_path):
    new = moved()
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    fit_head(new, WAN, cache, HeadSettings(), tmp_path)
    assert changed(new, before) == {"proj_out.weight", "proj_out.bias"}


def changed(new, before):
    return {name for name, tensor in new.state_dict().items() if not torch.equal(tensor, before[name])}


def test_the_batch_size_does_not_change_the_solution_and_the_seed_does(cache, tmp_path):
    heads = []
    for number, changes in enumerate([{"batch_size": 1}, {"batch_size": 5}, {"seed": 1}]):
        new = moved()
        fit_head(new, WAN, cache, HeadSettings(ridges=(1e-3,), **changes), tmp_path / str(number))
        heads.append(new.proj_out.weight.detach())
    torch.testing.assert_close(heads[0], heads[1], rtol=1e-5, atol=1e-6)
    assert (heads[0] - heads[2]).abs().max() > 1e-3


def test_dropped_text_is_the_null_prompt(cache, tmp_path):
    batch, keys = cache.batch([3, 4]), [cache.clips[index].key for index in (3, 4)]
    embeds, mask = cache.null_prompt()
    never, always, half = (
        FlowDraws(WAN, cache, HeadSettings(flow=FlowSettings(text_dropout=share))) for share in (0.0, 1.0, 0.5)
    )
    assert torch.equal(never.draw(batch, keys, 0)[0].prompt_embeds, batch.prompt_embeds)
    dropped = always.draw(batch, keys, 0)[0]
    assert torch.equal(dropped.prompt_embeds, embeds.expand(2, -1, -1))
    assert torch.equal(dropped.prompt_mask, mask.expand(2, -1))
    pooled = replace(batch, pooled_embeds=torch.ones(2, 3))
    assert [float(draws.draw(pooled, keys, 0)[0].pooled_embeds.sum()) for draws in (never, always)] == [6, 0]
    count = sum(int((half.draw(batch, keys, n)[0].prompt_embeds == embeds).all((1, 2)).sum()) for n in range(100))
    assert 70 < count < 130
    losses = [
        fit_head(moved(), WAN, cache, HeadSettings(flow=FlowSettings(text_dropout=share)), tmp_path / str(share))
        for share in (0.0, 1.0)
    ]
    assert losses[0].before.loss != losses[1].before.loss


def test_a_dropped_image_is_zeros():
    cache = SolverCache(channels=(4, 4), i2v=True)
    batch, keys = cache.batch([3, 4]), ["key 3", "key 4"]
    kept, dropped = (
        FlowDraws(WAN, cache, HeadSettings(flow=FlowSettings(image_dropout=share))).draw(batch, keys, 0)[0].condition
        for share in (0.0, 1.0)
    )
    assert torch.equal(kept, batch.condition)
    assert not dropped.any()


def test_sigma_stays_in_its_range_and_follows_the_shift(cache):
    batch, keys = cache.batch([3]), [cache.clips[3].key]

    def sigmas(**flow):
        draws = FlowDraws(WAN, cache, HeadSettings(flow=FlowSettings(**flow)))
        return torch.cat([draws.draw(batch, keys, number)[2] for number in range(100)])

    high = sigmas(sigma_range=(0.9, 1.0))
    assert high.min() >= 0.9
    assert sigmas(shift=8.0, distribution="uniform").mean() > sigmas(shift=1.0, distribution="uniform").mean() + 0.1


def test_tokens_that_are_given_clean_do_not_count(tmp_path):
    cache, new = SolverCache(count=10, channels=(4, 4), i2v=True), moved()
    rows = next(FlowDraws(WAN, cache, HeadSettings()).rows(new, [3, 4], 1))
    assert torch.equal(rows.weights, (torch.arange(12) >= 4).float().expand(2, -1))
    assert fit_head(new, WAN, cache, HeadSettings(), tmp_path).tokens == 7 * 4 * 8


def test_image_to_video_counts_all_tokens(tmp_path):
    cache = SolverCache(count=10, channels=(4, 4), i2v=True)
    new = moved(base=tiny_wan_i2v(clip=False))
    report = fit_head(new, WAN, cache, HeadSettings(), tmp_path)
    assert report.tokens == 7 * 4 * 12
    assert report.solved.loss < report.before.loss


def test_a_transformer_in_bf16_and_autocast_come_to_nearly_the_same_loss(cache, tmp_path):
    losses = []
    for name, dtype, precision in (("a", "float32", "fp32"), ("b", "float32", "bf16"), ("c", "bfloat16", "fp32")):
        new = moved().to(getattr(torch, dtype))
        WAN.head_module(new).float()  # so that the solution is not rounded
        settings = HeadSettings(ridges=(1e-2,), precision=precision)
        losses.append(fit_head(new, WAN, cache, settings, tmp_path / name).solved.loss)
    assert 0 < abs(losses[1] - losses[0]) < 0.01 * losses[0]
    assert 0 < abs(losses[2] - losses[0]) < 0.01 * losses[0]


def test_fewer_clips_can_be_asked_for_and_held_out(cache, tmp_path):
    report = fit_head(moved(), WAN, cache, HeadSettings(max_clips=4, max_held_out_clips=1), tmp_path)
    assert (report.clips, report.held_out_clips) == (4, 1)


def test_the_head_can_be_left_as_it_is(cache, tmp_path):
    new = moved()
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    report = fit_head(new, WAN, cache, HeadSettings(solver="none"), tmp_path)
    assert changed(new, before) == set()
    assert report.solved is None
    assert report.ridge is None


def sgd(steps=6, **changes):
    values = {"steps": steps, "learning_rate": 1e-3, "warmup_steps": 1, "precision": "fp32", "checkpoint_every": 2}
    return HeadSettings(sgd_batch_size=2, sgd=FitSettings(**{**values, "tensorboard": False, **changes}))


def test_the_steps_move_embedder_head_and_modulation_alone(cache, tmp_path):
    new = moved()
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    report = fit_head(new, WAN, cache, sgd(), tmp_path)
    ends = {"patch_embedding.weight", "patch_embedding.bias", "proj_out.weight", "proj_out.bias"}
    assert changed(new, before) == {*ends, "scale_shift_table"}
    assert report.trained.loss != report.solved.loss
    assert (report.sgd_steps, report.sgd_seconds > 0) == (6, True)
    held_out = cache.indices(held_out=True)
    assert report.trained.loss == pytest.approx(flow_loss(new, cache, sgd(), held_out, 4).item(), rel=1e-5)


def test_a_sharded_transformer_is_refused():
    with pytest.raises(ValueError, match=r'sgd\.distributed "fsdp2" came for the head; "ddp" is allowed'):
        sgd(distributed="fsdp2")


def test_a_call_after_a_kill_goes_on_and_ends_the_same(cache, tmp_path):
    whole, resumed = moved(), moved()
    report = fit_head(whole, WAN, cache, sgd(), tmp_path / "whole")
    fit_head(moved(), WAN, cache, sgd(), tmp_path / "pieces")
    checkpoints = tmp_path / "pieces/checkpoints"
    (checkpoints / "step-00000006").rename(checkpoints / ".gone")  # as if killed after step 4
    again = fit_head(resumed, WAN, cache, sgd(), tmp_path / "pieces")
    assert changed(resumed, whole.state_dict()) == set()
    assert again.trained == report.trained
    assert again.solved == report.solved


def test_a_solution_of_other_settings_is_not_taken(cache, tmp_path):
    first = fit_head(moved(), WAN, cache, HeadSettings(), tmp_path)
    assert fit_head(moved(), WAN, cache, HeadSettings(), tmp_path).seconds == first.seconds
    assert fit_head(moved(), WAN, cache, HeadSettings(seed=3), tmp_path).solved != first.solved


def test_numbers_that_are_not_finite_are_told(cache, tmp_path):
    cache.latents[7] = float("inf")
    with pytest.raises(UserError, match=r"latents of .*clip-7.mp4.*are not finite"):
        fit_head(moved(), WAN, cache, HeadSettings(), tmp_path)
    with pytest.raises(UserError, match="0 clips to fit on and 3 held out; at least 2 and 1"):
        fit_head(moved(), WAN, SolverCache(count=3, channels=(4, 4)), HeadSettings(), tmp_path)
