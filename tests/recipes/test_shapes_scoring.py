"""Videos of the shapes world from real classes with tiny random weights, and their scores."""

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "adaptation"))
from base_folder import autoencoder_folder, base_folder
from tiny_models import tiny_transformer

from dcvideogen.adaptation.backbone_wan import WAN
from dcvideogen.adaptation.base_autoencoder import load_base_autoencoder
from dcvideogen.data.shapes import render
from dcvideogen.errors import UserError
from dcvideogen.recipes import shapes_scoring as scoring
from dcvideogen.shapes_world import combinations, is_test

SHAPE = (4, 2, 4, 4)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return base_folder(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def prompts(base):
    return scoring.encode_captions(base, scoring.held_out_combinations(3))


def renders(asked):
    """A decoder that gives perfect videos for what was asked for, in turn."""
    queue = list(asked)
    return lambda latents: torch.stack([render(queue.pop(0), 7, num_frames=12, size=64) for _ in latents])


def score(prompts, decode, **changes):
    values = {"steps": 2, "guidance": 2.0, "batch_size": 2} | changes
    return scoring.score_transformer(tiny_transformer("wan"), WAN, decode, prompts, SHAPE, **values)


def test_held_out_combinations_are_spread_over_the_split():
    chosen = scoring.held_out_combinations(32)
    assert len(set(chosen)) == 32
    assert all(is_test(one) for one in chosen)
    assert {one.background for one in chosen} == {"black", "gray", "navy"}
    assert len({one.color for one in chosen}) == 6
    assert scoring.held_out_combinations(73) == tuple(combinations("test"))
    with pytest.raises(UserError, match="74 held-out captions came; 1 to 73"):
        scoring.held_out_combinations(74)


def test_videos_of_what_was_asked_for_score_one_whatever_the_batches(prompts, tmp_path):
    seeds = (0, 1)
    perfect = renders(prompts.combinations * 2)
    found = score(prompts, perfect, seeds=seeds, strip=tmp_path / "deep" / "strip.png")
    assert found["joint"] == found["semantic"] == 1
    assert found["videos"] == 6
    assert found["seconds"] > 0
    with Image.open(tmp_path / "deep" / "strip.png") as picture:
        assert picture.size == (6 * 64, 6 * (64 + 14))


def test_scores_do_not_depend_on_the_batches(prompts):
    given = {1: [], 3: []}
    for size, seen in given.items():

        def decode(latents, seen=seen):
            seen.extend(latents)
            return torch.zeros(len(latents), 3, 4, 32, 32)

        score(prompts, decode, batch_size=size)
    torch.testing.assert_close(torch.stack(given[1]), torch.stack(given[3]), atol=1e-4, rtol=1e-4)


def test_noise_depends_on_caption_and_seed_alone():
    one, other = scoring.held_out_combinations(2)
    noise = scoring.noise_of(one, 3, SHAPE)
    assert torch.equal(noise, scoring.noise_of(one, 3, SHAPE))
    assert not torch.equal(noise, scoring.noise_of(other, 3, SHAPE))
    assert not torch.equal(noise, scoring.noise_of(one, 4, SHAPE))


def test_decoders_take_normalised_latents(base, tmp_path):
    video = render(scoring.held_out_combinations(1)[0], 0, num_frames=5, size=64)[None]
    vae = load_base_autoencoder(base / "vae", torch.device("cpu"))
    decoded = scoring.wan_decoder(base)(vae.encode(video))
    raw = vae.model.encode(video).latent_dist.mode()
    torch.testing.assert_close(decoded, vae.model.decode(raw).sample, atol=1e-4, rtol=1e-4)
    assert decoded.shape == video.shape
    assert scoring.dcv_decoder(autoencoder_folder(tmp_path))(torch.zeros(1, 16, 2, 2, 2)).shape == (1, 3, 8, 64, 64)


def test_a_random_model_gets_a_score_and_a_picture(base, prompts, tmp_path):
    found = score(prompts, scoring.wan_decoder(base), strip=tmp_path / "strip.png")
    assert 0 <= found["semantic"] <= 1
    assert (tmp_path / "strip.png").exists()
