import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dcvideogen.data.crops import random_change, random_crop, random_frames


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32),
    length=st.integers(1, 40),
    num_frames=st.integers(1, 20),
    step=st.sampled_from([1.0, 1.25, 2.0, 2.5, 5.0]),
    cuts=st.lists(st.integers(1, 45), unique=True).map(sorted),
)
def test_frames_of_a_clip_stay_in_one_scene_and_are_evenly_apart(seed, length, num_frames, step, cuts):
    found = random_frames(np.random.default_rng(seed), length, num_frames, step, cuts)
    assert found.shape == (num_frames,)
    assert 0 <= found[0] <= found[-1] < length
    assert not any(found[0] < cut <= found[-1] for cut in cuts)
    gaps = np.diff(found)
    edges = [0, *(cut for cut in cuts if cut < length), length]
    longest = max(np.diff(edges))
    if longest >= (num_frames - 1) * step + 1.5:
        assert set(gaps) <= {int(step), int(np.ceil(step))}
        assert abs((found[-1] - found[0]) - (num_frames - 1) * step) <= 0.5
    elif longest >= num_frames:
        assert set(gaps) <= {1, int(step), int(np.ceil(step))}
    else:
        assert (gaps == 0).sum() == num_frames - longest  # the scene from its first frame, then standing still


def test_every_start_is_drawn_and_none_more_often_than_others():
    starts = [int(random_frames(np.random.default_rng(s), 10, 3, 2.0, (6,))[0]) for s in range(600)]
    counts = np.bincount(starts, minlength=10)  # 0, 1 in the first scene; 6 is too near to the end
    assert counts[2:].sum() == 0
    assert counts[:2].min() > 200


def test_a_crop_is_part_of_the_picture_at_the_asked_scale():
    rows, columns = np.mgrid[0:60, 0:80]
    video = np.stack([np.stack([rows, columns, np.full_like(rows, t)], 2) for t in range(4)]).astype(np.uint8)
    indices = np.array([1, 3])

    def crop(size, sides, seed=0):
        levels = (random_crop(np.random.default_rng(seed), video, indices, size, sides) + 1) * 127.5
        return levels.round(decimals=3)

    plain = crop((20, 30), (60, 60))
    assert plain.shape == (3, 2, 20, 30)
    assert plain[2, :, 0, 0].tolist() == [1, 3]
    assert torch.equal(plain[0, 0].diff(dim=0), torch.ones(19, 30))
    half = crop((20, 30), (30, 30))  # the short side of 60 becomes 30, so a pixel is two
    assert (half[1, 0, :, 2:-2].diff(dim=1) - 2).abs().max() < 1e-3
    assert crop((20, 30), (15, 15))[0, 0].max() < 60  # would not cover the size: as much as there is
    assert crop((40, 90), (600, 600)).shape == (3, 2, 40, 90)
    assert {float(crop((20, 30), (60, 60), seed)[0, 0, 0, 0]) for seed in range(200)} == set(range(41))


def test_clips_are_mirrored_reversed_and_brightened_as_often_as_asked():
    clip = torch.rand(3, 4, 2, 5) - 0.5

    def change(mirror=0.0, reverse=0.0, brightness=0.0, seed=0):
        rng = np.random.default_rng(seed)
        return random_change(rng, clip, mirror=mirror, reverse=reverse, brightness=brightness)

    assert torch.equal(change(), clip)
    assert torch.equal(change(mirror=1.0), clip.flip(3))
    assert torch.equal(change(reverse=1.0), clip.flip(1))
    assert sum(torch.equal(change(mirror=0.5, seed=s), clip) for s in range(100)) in range(30, 70)
    bright = change(brightness=0.2) + 1
    ratio = bright / (clip + 1)
    assert ratio.std() < 1e-5
    assert abs(float(ratio.mean()) - 1) > 1e-3
    assert change(brightness=50.0).abs().max() <= 1


@pytest.mark.parametrize("step", [1.0, 2.0])
def test_the_longest_clip_that_fits_has_one_start(step):
    length = int(4 * step) + 1
    assert {int(random_frames(np.random.default_rng(s), length, 5, step)[0]) for s in range(20)} == {0}
