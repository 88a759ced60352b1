"""Frames <-> float video, and the sizes between them."""

import numpy as np
import pytest
import torch

from dcvideogen.errors import UserError
from dcvideogen.video import centre_crop, covering_size, frames_to_video, video_to_frames


def test_every_level_survives_the_round_trip():
    frame = np.arange(256, dtype=np.uint8).reshape(16, 16)[:, :, None].repeat(3, axis=2)
    video = frames_to_video([frame, frame[::-1]])
    assert (video.min(), video.max(), video.shape) == (-1, 1, (1, 3, 2, 16, 16))
    for dtype in (torch.float32, torch.float64):
        assert np.array_equal(video_to_frames(video.to(dtype)), np.stack([frame, frame[::-1]]))


def test_levels_are_rounded_and_clamped():
    video = torch.tensor([-3.0, -1 + 0.49 / 127.5, -1 + 0.51 / 127.5, 0.0, 1.2]).expand(1, 3, 1, 1, 5)
    assert video_to_frames(video)[0, 0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_a_gradient_does_not_get_in_the_way():
    assert video_to_frames(torch.zeros(3, 2, 4, 4, dtype=torch.bfloat16, requires_grad=True)).shape == (2, 4, 4, 3)


def test_wrong_shapes_are_refused():
    with pytest.raises(UserError, match="no frames came"):
        frames_to_video([])
    with pytest.raises(UserError, match=r"different sizes came .4x4, 5x4."):
        frames_to_video([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)])
    with pytest.raises(UserError, match="type float64"):
        frames_to_video(np.zeros((1, 4, 4, 3)))
    with pytest.raises(UserError, match=r"shape \(2, 3, 1, 4, 4\) came"):
        video_to_frames(torch.zeros(2, 3, 1, 4, 4))


@pytest.mark.parametrize(
    ("size", "target", "covering"),
    [
        ((1080, 1920), (256, 256), (256, 455)),
        ((1920, 1080), (256, 256), (455, 256)),
        ((480, 640), (480, 640), (480, 640)),
        ((100, 100), (50, 80), (80, 80)),
        ((3, 1000), (10, 1), (10, 3333)),
    ],
)
def test_the_covering_size_keeps_the_shape_and_covers_the_target(size, target, covering):
    assert covering_size(*size, *target) == covering


def test_the_centre_is_cropped_and_an_odd_rest_goes_to_the_end():
    frame = np.arange(7 * 5).reshape(7, 5, 1)
    assert centre_crop(frame, 4, 3)[0, 0, 0] == 1 * 5 + 1
    assert centre_crop(frame, 4, 3).shape == (4, 3, 1)
    assert centre_crop(frame, 4, 2)[0, 0, 0] == 1 * 5 + 1
