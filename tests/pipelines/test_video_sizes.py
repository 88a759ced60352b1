import pytest

from dcvideogen.errors import UserError
from dcvideogen.geometry import Geometry
from dcvideogen.pipelines.base_pipeline import BaseGrid
from dcvideogen.pipelines.sizes import VideoSize

F32 = Geometry(spatial_ratio=32, temporal_ratio=4, chunk_frames=40)


def test_the_grid_is_rounded_up_and_what_is_cut_is_told():
    size = VideoSize(720, 1280, 81)
    grid = size.latent_shape(F32)
    assert grid == (21, 23, 40)
    assert size.told_padding(F32, grid) == (
        "84 frames of 1280x736 are generated, and cut to the 81 frames of 1280x720 that were asked for"
    )
    assert VideoSize(736, 1280, 84).told_padding(F32, grid) is None


def test_grids_are_whole_patches():
    assert VideoSize(720, 1280, 81).latent_shape(F32, (1, 2, 2)) == (21, 24, 40)


def test_only_sizes_far_from_all_trained_ones_are_warned_of():
    trained = [(480, 832, 80), (736, 1280, 80), (1088, 1920, 80), (2176, 3840, 80)]
    assert VideoSize(720, 1280, 81).told_untrained(trained) is None
    assert VideoSize(832, 480, 80).told_untrained(trained) is None  # an area, in any shape
    assert VideoSize(64, 64, 8).told_untrained([]) is None
    told = VideoSize(480, 832, 320).told_untrained(trained)
    assert "the nearest that it was trained for: 832x480 with 80 frames" in told
    assert "1280x736 with 80 frames" in VideoSize(2000, 500, 200).told_untrained(trained)


@pytest.mark.parametrize("size", [(0, 8, 8), (8, -1, 8), (8, 8, 0), (8, 1_000_000, 8), (8, 8, 10**6), (8.0, 8, 8)])
def test_sizes_that_cannot_be_meant_are_refused(size):
    with pytest.raises(UserError, match="a whole number from 1 to"):
        VideoSize(*size)


def test_a_base_makes_whole_patches_and_latent_frames_and_counts_its_tokens():
    grid = BaseGrid(patch_size=(1, 2, 2), spatial_ratio=8, temporal_ratio=4)  # Wan 2.1's
    assert grid.whole_size(VideoSize(470, 830, 80)) == VideoSize(480, 832, 81)
    assert grid.tokens(VideoSize(470, 830, 80)) == 21 * 30 * 52
    assert grid.tokens(VideoSize(1, 1, 1)) == 1
