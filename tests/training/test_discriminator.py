import pytest
import torch

from dcvideogen.errors import UserError
from dcvideogen.training.adversarial import hinge_discriminator_loss, r1_penalty
from dcvideogen.training.discriminator import PatchDiscriminator


def make(channels=(8, 16), regulariser="r1", seed=0):
    torch.manual_seed(seed)
    return PatchDiscriminator(channels, regulariser)


@pytest.fixture
def video():
    return torch.rand(2, 3, 8, 32, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(("channels", "shape"), [((8,), (8, 16, 20)), ((8, 8), (4, 8, 10)), ((8, 8, 8), (2, 4, 5))])
def test_scores_are_per_patch_of_space_and_time(video, channels, shape):
    assert make(channels)(video).shape == (2, 1, *shape)
    assert make(channels)(video[:, :, :1]).shape[:3] == (2, 1, 1)  # images


def test_it_sees_time(video):
    discriminator = make()
    reversed_scores = discriminator(video.flip(2)).flip(2)
    assert (discriminator(video) - reversed_scores).abs().max() > 1e-3


def test_spectral_norm_bounds_each_conv_and_r1_leaves_them_alone(video):
    bounded = make(regulariser="spectral").train()
    for _ in range(30):  # one power iteration a call
        bounded(video)
    norms = [torch.linalg.matrix_norm(layer.weight.flatten(1), 2) for layer in bounded.layers[::2]]
    assert torch.stack(norms).detach().sub(1).abs().max() < 0.05
    plain = make(regulariser="r1")
    assert {name.rpartition(".")[2] for name in plain.state_dict()} == {"weight", "bias"}
    with pytest.raises(UserError, match=r"regulariser is 'dropout'; allowed: r1, spectral"):
        make(regulariser="dropout")


@pytest.mark.parametrize("regulariser", ["r1", "spectral"])
def test_it_learns_to_tell_noise_from_flat_frames(regulariser):
    generator = torch.Generator().manual_seed(1)
    discriminator = make(regulariser=regulariser)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=3e-3)
    first = None
    for _ in range(25):
        real = (torch.rand(4, 3, 4, 16, 16, generator=generator) * 2 - 1).requires_grad_(regulariser == "r1")
        fake = torch.rand(4, 3, 1, 1, 1, generator=generator).expand(4, 3, 4, 16, 16) * 2 - 1
        real_scores, fake_scores = discriminator(torch.cat([real, fake])).chunk(2)
        loss = hinge_discriminator_loss(real_scores, fake_scores)
        first = first or loss.item()
        if regulariser == "r1":
            loss = loss + 0.1 * r1_penalty(real_scores, real)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert hinge_discriminator_loss(real_scores, fake_scores).item() < 0.6 * first


def test_it_computes_in_fp32_under_autocast(video):
    discriminator = make()
    with torch.autocast("cpu", torch.bfloat16):
        scores = discriminator(video.bfloat16())
    assert scores.dtype == torch.float32


def test_frames_too_small_are_told(video):
    with pytest.raises(UserError, match=r"frames of 4x40 pixels; this discriminator needs at least 8 a side"):
        make((8, 8, 8))(video[..., :4, :])
