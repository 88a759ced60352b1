import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dcvideogen.errors import UserError
from dcvideogen.geometry import Geometry, ceil_to, pad_end, pad_video

F32 = Geometry(spatial_ratio=32, temporal_ratio=4, chunk_frames=40)


@settings(deadline=None)
@given(st.integers(1, 10_000), st.integers(1, 100))
def test_ceil_to_is_the_smallest_multiple_that_is_not_below(value, multiple):
    result = ceil_to(value, multiple)
    assert result % multiple == 0
    assert result - multiple < value <= result


@pytest.mark.parametrize(
    ("frames", "height", "width", "shape"),
    [(80, 480, 832, (20, 15, 26)), (81, 720, 1280, (21, 23, 40)), (1, 1, 1, (1, 1, 1)), (80, 1080, 1920, (20, 34, 60))],
)
def test_latent_shapes_of_usual_videos(frames, height, width, shape):
    assert F32.latent_shape(frames, height, width) == shape


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 500))
def test_decoded_size_is_never_smaller_than_the_video(frames, height, width):
    t, h, w = F32.latent_shape(frames, height, width)
    assert F32.num_video_frames(t) >= frames
    assert all(got >= asked for got, asked in zip(F32.video_size(h, w), (height, width), strict=True))
    assert F32.num_chunks(frames) == -(-frames // 40)


def test_padding_replicates_the_end_and_is_undone_by_a_slice():
    video = torch.rand(2, 3, 5, 7, 9)
    padded = pad_video(video, 8, 12, 8)
    assert padded.shape == (2, 3, 8, 8, 12)
    assert torch.equal(padded[:, :, :5, :7, :9], video)
    assert torch.equal(padded[:, :, 7, 7, 11], video[:, :, 4, 6, 8])
    assert torch.equal(padded[:, :, 2, 3, 9:], video[:, :, 2, 3, 8:].expand(2, 3, 3))


def test_nothing_is_copied_when_nothing_is_missing():
    video = torch.rand(1, 3, 4, 8, 8)
    assert pad_video(video, 8, 8, 4) is video


def test_sizes_below_one_and_shrinking_are_refused():
    with pytest.raises(UserError, match="0 x 5 pixels"):
        F32.padded_size(0, 5)
    with pytest.raises(UserError, match="0 frames"):
        F32.num_latent_frames(0)
    with pytest.raises(ValueError, match="cannot pad"):
        pad_end(torch.zeros(4), 0, 3)
