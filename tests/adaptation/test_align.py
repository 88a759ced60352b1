"""Stage 1a on tiny Wan transformers: the closed form, the paper's way, and what they leave out."""

import json

import pytest
import torch
from solver_cache import SolverCache
from tiny_models import tiny_transformer, tiny_wan_i2v

from dcvideogen.adaptation.align_sgd import AlignData
from dcvideogen.adaptation.aligned_tokens import Pairing
from dcvideogen.adaptation.backbones import backbone_named
from dcvideogen.adaptation.embedder import AlignSettings, align
from dcvideogen.adaptation.pooling import pool_tokens
from dcvideogen.adaptation.surgery import move_transformer
from dcvideogen.errors import UserError
from dcvideogen.training.settings import FitSettings

WAN = backbone_named("wan")
EXACT = AlignSettings(ridges=(0.0,))


@pytest.fixture
def base():
    return tiny_transformer("wan")


def moved(base, channels=8, patch=(1, 1, 1)):
    return move_transformer(base, WAN, latent_channels=channels, patch_size=patch, seed=1)


def embeddings(base, new, cache, indices, first=1):
    """New embedder inputs and pooled base embeddings by the transformers' own embedders, k = 0 left out."""
    pairs = cache.pairs(indices)
    inputs = WAN.embedder_inputs(WAN.model_input(pairs.latents, pairs.condition), new.config)
    fine = WAN.embed(base, WAN.model_input(pairs.base_latents, pairs.base_condition))
    ratio = tuple(b // n for b, n in zip(fine.shape[1:4], inputs.shape[1:4], strict=True))
    pooled = pool_tokens(fine, ratio)
    return inputs[:, first:].flatten(0, 3), pooled[:, first:].detach().flatten(0, 3)


@pytest.mark.parametrize(
    ("patch", "pool", "grid"),
    [((1, 1, 1), (1, 4, 4), (3, 2, 2)), ((1, 2, 2), (1, 4, 4), (3, 4, 4)), ((1, 1, 1), (2, 4, 2), (3, 2, 2))],
)
def test_the_solution_is_the_exact_optimum_for_every_patch_and_ratio(base, tmp_path, patch, pool, grid):
    cache = SolverCache(pool=pool, grid=grid, count=16)
    new = moved(base, patch=patch)
    report = align(base, new, WAN, cache, EXACT, tmp_path)
    x, y = embeddings(base, new, cache, cache.indices(held_out=False))
    ones = torch.cat([x, torch.ones_like(x[:, :1])], 1).double()
    best = torch.linalg.lstsq(ones, y.double()).solution
    weight, bias = WAN.embedder_weight(new)
    torch.testing.assert_close(weight.double(), best[:-1].mT, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(bias.double(), best[-1], atol=2e-5, rtol=1e-4)
    assert report.training_loss == pytest.approx(float((ones @ best - y).square().mean()), rel=1e-5)
    assert report.tokens == len(x)


def test_the_report_says_the_loss_of_held_out_clips_as_the_transformers_embed_them(base, tmp_path):
    cache, new = SolverCache(count=24), moved(base)
    report = align(base, new, WAN, cache, AlignSettings(), tmp_path)
    held_out = cache.indices(held_out=True)
    x, y = embeddings(base, new, cache, held_out)
    got = WAN.embed(new, cache.latents[held_out])[:, 1:].detach().flatten(0, 3)
    loss = (got - y).square().mean(0)
    torch.testing.assert_close(torch.tensor(report.channel_losses), loss, rtol=1e-4, atol=1e-6)
    assert report.loss == report.frames_loss == pytest.approx(float(loss.mean()), rel=1e-4)
    variance = y.var(0, correction=0).mean()
    assert report.r2 == pytest.approx(float(1 - loss.mean() / variance), rel=1e-4)
    fine = WAN.embed(base, cache.base_latents[held_out])[:, 1:].detach().flatten(0, 3)
    kept = (variance - loss.mean()) / fine.var(0, correction=0).mean()
    assert report.base_variance_kept == pytest.approx(float(kept), rel=1e-4)
    assert (report.clips, report.held_out_clips, report.held_out_tokens) == (21, 3, len(x))
    assert report.pooled == (1, 2, 2)
    assert report.ridge_losses[report.ridge] == min(report.ridge_losses.values())
    assert json.loads((tmp_path / "align.json").read_text())["r2"] == report.r2
    assert "R2 of the pooled base embedding" in (tmp_path / "align.txt").read_text()


def test_the_first_latent_frame_changes_nothing(base, tmp_path):
    cache, first, second = SolverCache(), moved(base), moved(base)
    before = align(base, first, WAN, cache, AlignSettings(), tmp_path)
    cache.latents[:, :, 0] = 100
    cache.base_latents[:, :, 0] = -100
    after = align(base, second, WAN, cache, AlignSettings(), tmp_path)
    assert torch.equal(WAN.embedder_weight(first)[0], WAN.embedder_weight(second)[0])
    assert before.channel_losses == after.channel_losses
    with_it = align(base, second, WAN, cache, AlignSettings(skip_latent_frames=0), tmp_path)
    assert with_it.loss != after.loss


def test_held_out_clips_and_the_batch_size_do_not_change_the_solution(base, tmp_path):
    cache, first, second = SolverCache(), moved(base), moved(base)
    align(base, first, WAN, cache, AlignSettings(batch_size=1), tmp_path)
    cache.latents[cache.indices(held_out=True)] = 7
    align(base, second, WAN, cache, AlignSettings(batch_size=5), tmp_path)
    torch.testing.assert_close(WAN.embedder_weight(first)[0], WAN.embedder_weight(second)[0], rtol=1e-6, atol=1e-7)


def test_only_the_embedder_of_the_new_transformer_changes(base, tmp_path):
    new = moved(base)
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    align(base, new, WAN, SolverCache(), AlignSettings(), tmp_path)
    changed = {name for name, tensor in new.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"patch_embedding.weight", "patch_embedding.bias"}


def test_fewer_clips_can_be_asked_for(base, tmp_path):
    report = align(base, moved(base), WAN, SolverCache(), AlignSettings(max_clips=2), tmp_path)
    assert (report.clips, report.held_out_clips) == (2, 3)


def test_image_to_video_without_condition_tokens_gives_the_mask_what_the_base_gives_it(tmp_path):
    base, cache = tiny_wan_i2v(clip=False), SolverCache(i2v=True, count=24)
    new = moved(base)
    report = align(base, new, WAN, cache, AlignSettings(condition_tokens=False, ridges=(0.0,)), tmp_path)
    assert report.condition_loss is None
    weight, base_weight = WAN.embedder_weight(new)[0], WAN.embedder_weight(base)[0]
    columns = base_weight.unflatten(1, (12, 4))[:, 4:8].sum(-1)  # of the mask channels, over the base patch
    torch.testing.assert_close(weight.unflatten(1, (20, 1))[:, 8:12, 0], columns)
    x, y = embeddings(base, new, cache, cache.indices(held_out=False))
    best = torch.linalg.lstsq(torch.cat([x, torch.ones_like(x[:, :1])], 1).double(), y.double(), driver="gelsd")
    residual = torch.cat([x, torch.ones_like(x[:, :1])], 1).double() @ best.solution - y
    assert report.training_loss == pytest.approx(float(residual.square().mean()), rel=1e-6)


def test_image_to_video_learns_from_the_first_frame_how_its_condition_is_embedded(tmp_path):
    base, cache = tiny_wan_i2v(clip=False), SolverCache(i2v=True, count=40, noise=0.01)
    without, new = moved(base), moved(base)
    align(base, without, WAN, cache, AlignSettings(condition_tokens=False), tmp_path)
    report = align(base, new, WAN, cache, AlignSettings(), tmp_path)

    def first_frame_loss(transformer):
        pairs = cache.pairs(cache.indices(held_out=True))
        zeros = [torch.zeros_like(part) for part in (pairs.latents, pairs.base_latents)]
        got = WAN.embed(transformer, WAN.model_input(zeros[0], pairs.condition))[:, 0]
        wanted = pool_tokens(WAN.embed(base, WAN.model_input(zeros[1], pairs.base_condition)), (1, 2, 2))[:, 0]
        return float((got - wanted).square().mean().detach())

    assert report.condition_loss == pytest.approx(first_frame_loss(new), rel=1e-4)
    assert first_frame_loss(new) < 0.5 * first_frame_loss(without)
    frames, tokens = report.frames_loss, report.held_out_tokens
    assert report.loss == pytest.approx((2 * frames + report.condition_loss) / 3)  # 2 frames, and 1 of the condition
    assert tokens == 3 * 3 * 4
    # What the new embedder is given of video in frame 0 still does not count.
    cache.latents[:, :, 0] = 50
    again = moved(base)
    align(base, again, WAN, cache, AlignSettings(), tmp_path)
    assert torch.equal(WAN.embedder_weight(again)[0], WAN.embedder_weight(new)[0])


def sgd(steps=300, **changes):
    values = {"steps": steps, "learning_rate": 0.05, "betas": (0.9, 0.9), "warmup_steps": 5, "ema_decay": 0.0}
    values |= {
        "precision": "fp32",
        "clip_norm": 1e9,
        "validate_every": 20,
        "checkpoint_every": 50,
        "tensorboard": False,
    }
    return AlignSettings(solver="sgd", sgd_batch_size=9, sgd=FitSettings(**values | changes))


def test_the_papers_way_comes_to_the_solution_from_above_and_says_when(base, tmp_path):
    cache = SolverCache(count=40)
    solved, trained, stopped = moved(base), moved(base), moved(base)
    best = align(base, solved, WAN, cache, EXACT, tmp_path / "solver")
    report = align(base, trained, WAN, cache, sgd(), tmp_path / "sgd")
    assert best.training_loss <= report.training_loss < 1.02 * best.training_loss
    assert report.steps == 300
    assert report.reached_step is None
    near = align(base, stopped, WAN, cache, sgd(), tmp_path / "near", reference_loss=best.loss)
    assert near.loss <= 1.01 * best.loss
    assert near.steps == near.reached_step <= 300
    assert near.reached_seconds == near.seconds > 0
    assert best.training_loss <= near.training_loss
    assert f"step {near.reached_step}" in (tmp_path / "near/align.txt").read_text()
    again = align(base, moved(base), WAN, cache, sgd(), tmp_path / "near", reference_loss=best.loss)
    assert (again.reached_step, again.loss) == (near.reached_step, near.loss)


def test_the_papers_way_says_never_and_its_checkpoints_hold_the_embedder_alone(base, tmp_path):
    report = align(base, moved(base), WAN, SolverCache(), sgd(steps=20), tmp_path, reference_loss=1e-9)
    assert report.reached_step is None
    assert "never" in (tmp_path / "align.txt").read_text()
    size = sum(file.stat().st_size for file in (tmp_path / "checkpoints/step-00000020").iterdir())
    assert size < 30_000


def test_the_papers_way_stopped_and_gone_on_with_ends_the_same(base, tmp_path):
    cache, whole, resumed = SolverCache(), moved(base), moved(base)
    align(base, whole, WAN, cache, sgd(steps=60), tmp_path / "whole")
    # With a loss that is never reached it stops at every validation, and goes on from the checkpoint.
    align(base, resumed, WAN, cache, sgd(steps=60), tmp_path / "pieces", reference_loss=1e-9)
    assert torch.equal(WAN.embedder_weight(resumed)[0], WAN.embedder_weight(whole)[0])


def test_a_parts_batches_are_those_of_the_whole_step(base):
    cache = SolverCache()
    pairing = Pairing(WAN, base.config, moved(base).config, sgd())
    data = AlignData(pairing, cache, cache.indices(held_out=False), 4, 0)
    whole, parts = data.batch(5, 0, 1), [data.batch(5, part, 2) for part in range(2)]
    assert torch.equal(torch.cat([part.inputs for part in parts]), whole.inputs)
    assert sum((part.names for part in parts), ()) == whole.names
    with pytest.raises(UserError, match="sgd_batch_size 4 came for 3 parts"):
        data.batch(0, 0, 3)
    with pytest.raises(UserError, match="begun with seed 1"):
        data.load_state({**data.state(), "seed": 1})


def test_clips_that_cannot_be_aligned_are_told(base, tmp_path):
    with pytest.raises(UserError, match=r"base model has 3x3x3 tokens .* and the new one 3x2x2"):
        align(base, moved(base), WAN, SolverCache(pool=(1, 3, 3)), AlignSettings(), tmp_path)
    with pytest.raises(UserError, match=r"clip-\d+.mp4.* 3 latent frames came, and none is left after the first 3"):
        align(base, moved(base), WAN, SolverCache(), AlignSettings(skip_latent_frames=3), tmp_path)
    with pytest.raises(UserError, match=r"1 aligned \(with base latents\) clips to fit on and 3 held out; at"):
        align(base, moved(base), WAN, SolverCache(count=4), AlignSettings(), tmp_path)
    broken = SolverCache()
    broken.latents[5, 0, 1, 0, 0] = float("nan")
    with pytest.raises(UserError, match=r"clip-5.mp4.* hold numbers that are not finite"):
        align(base, moved(base), WAN, broken, AlignSettings(), tmp_path)
