import pytest
import torch

from dcvideogen.conditioning import condition, condition_mask, condition_video, given_video, join
from dcvideogen.errors import UserError


def test_the_image_comes_first_and_zeros_follow():
    image = torch.rand(2, 3, 4, 6) * 2 - 1
    video = condition_video(image, 8, 4)
    assert video.shape == (2, 3, 8, 4, 6)
    assert all(torch.equal(video[:, :, frame], image) for frame in range(4))
    assert not video[:, :, 4:].any()


def test_the_mask_is_one_on_the_first_latent_frame_alone():
    mask = condition_mask(torch.randn(2, 16, 5, 3, 4))
    assert mask.shape == (2, 4, 5, 3, 4)
    assert (mask[:, :, 0] == 1).all()
    assert not mask[:, :, 1:].any()


def test_the_mask_comes_before_the_condition_latents():
    latents = torch.randn(1, 16, 2, 3, 4)
    joined = condition(latents)
    assert joined.shape == (1, 20, 2, 3, 4)
    assert torch.equal(joined[:, :4], condition_mask(latents))
    assert torch.equal(joined[:, 4:], latents)
    assert torch.equal(joined, join(condition_mask(latents), latents))


def test_the_layout_is_that_of_the_wan_pipeline():
    """diffusers builds the mask from frames: one lone frame repeated, then ratio frames per latent."""
    frames, ratio = 17, 4
    lit = torch.zeros(1, 1, frames, 2, 2)
    lit[:, :, 0] = 1
    lit = torch.cat([lit[:, :, :1].repeat_interleave(ratio, dim=2), lit[:, :, 1:]], dim=2)
    theirs = lit.view(1, -1, ratio, 2, 2).transpose(1, 2)
    assert torch.equal(condition_mask(torch.zeros(1, 16, 5, 2, 2)), theirs)


@pytest.mark.parametrize("repeat", [0, 9])
def test_an_image_that_is_shown_too_often_or_never_is_refused(repeat):
    with pytest.raises(UserError, match=f"image {repeat} times in 8 frames; 1 to 8 times"):
        condition_video(torch.zeros(1, 3, 4, 4), 8, repeat)


def test_a_last_image_is_shown_at_the_end_as_often_as_the_first_one():
    first, last = torch.ones(1, 3, 4, 4, 4), torch.full((1, 3, 4, 4), -1.0)
    video = given_video(first, 12, last)
    assert video[0, 0, :, 0, 0].tolist() == [1] * 4 + [0] * 4 + [-1] * 4
    assert condition_mask(torch.zeros(1, 16, 3, 2, 2), last=True)[0, :, :, 0, 0].tolist() == [[1, 0, 1]] * 4
    with pytest.raises(UserError, match="8 frames are given and 7 asked for"):
        given_video(first, 7, last)


def test_several_latents_can_be_given():
    assert condition_mask(torch.zeros(1, 16, 4, 2, 2), given=2)[0, 0, :, 0, 0].tolist() == [1, 1, 0, 0]
