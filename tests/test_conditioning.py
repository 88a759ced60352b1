import pytest
import torch

from dcvideogen.conditioning import (
    condition,
    condition_latents,
    condition_mask,
    condition_video,
    given_video,
    join,
)
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


def latents_of(how, given=4, num_frames=24, last=None):
    """Means of four frames in place of an autoencoder, whose chunks are of 8 frames."""
    first = torch.arange(1.0, given + 1).view(1, 1, -1, 1, 1).expand(1, 3, -1, 2, 2)
    found = condition_latents(
        lambda video: video.unflatten(2, (-1, 4)).mean(3), first, num_frames, how=how, latent_frames=4, chunk_frames=8,
        last_image=None if last is None else torch.full((1, 3, 2, 2), last),
    )  # fmt: skip
    assert found.shape == (1, 3, num_frames // 4, 2, 2)
    return found[0, 0, :, 0, 0].tolist()


def test_what_is_given_is_encoded_with_zeros_behind_it_alone_or_to_the_end_of_its_chunk():
    assert latents_of("zeros") == latents_of("alone") == [2.5, 0, 0, 0, 0, 0]
    assert latents_of("chunk") == [2.5, 4, 0, 0, 0, 0]
    assert latents_of("chunk", given=8) == latents_of("zeros", given=8) == [2.5, 6.5, 0, 0, 0, 0]
    assert latents_of("chunk", given=12) == [2.5, 6.5, 10.5, 12, 0, 0]


def test_alone_is_encoded_by_itself_and_not_cut_out_of_a_longer_clip():
    seen = []

    def encode(video):
        seen.append(video.shape[2])
        return video[:, :, ::4]

    image, last = torch.ones(1, 3, 4, 2, 2), torch.full((1, 3, 2, 2), 2.0)
    latents = condition_latents(encode, image, 24, how="alone", latent_frames=4, chunk_frames=8, last_image=last)
    assert seen == [4, 4]
    assert latents[0, 0, :, 0, 0].tolist() == [1, 0, 0, 0, 0, 2]


def test_a_last_image_is_given_with_every_condition_and_keeps_its_place():
    for how, expected in (("zeros", [2.5, 0, 0, 9]), ("alone", [2.5, 0, 0, 9]), ("chunk", [2.5, 4, 0, 9])):
        assert latents_of(how, num_frames=16, last=9.0) == expected
    assert latents_of("chunk", num_frames=8, last=9.0) == [2.5, 9]
    for how in ("zeros", "alone", "chunk"):
        with pytest.raises(UserError, match="8 frames are given and 4 asked for"):
            latents_of(how, num_frames=4, last=9.0)
