from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from dcvideogen.data.clips import ClipSampler, Sampling, decode_to_cache, find_sources
from dcvideogen.data.motion import Window, film, halved_copies
from dcvideogen.errors import UserError
from dcvideogen.video import VideoWriter


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two lossless clips of 12 and 5 frames, 40x56 and 48x48, and a photograph of 64x80."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for name, frames, height, width in (("long", 12, 40, 56), ("short", 5, 48, 48)):
        with VideoWriter(folder / f"{name}.mkv", fps=Fraction(24)) as writer:
            for index in range(frames):
                frame = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
                frame[0, 0] = index
                writer.write(frame)
    Image.fromarray(rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)).save(folder / "photo.png")
    return folder


def sampler(folder, cache, names=("long", "short", "photo"), **sampling):
    paths = [decode_to_cache(path, cache, short_side=48, max_frames=100) for path in find_sources(folder, names)]
    return ClipSampler(paths, Sampling(**{"short_sides": (32, 48), **sampling}))


def test_batches_are_a_function_of_seed_and_step(folder, tmp_path):
    one, other = sampler(folder, tmp_path), sampler(folder, tmp_path)
    shape = {"batch_size": 3, "num_frames": 6, "size": 24}
    other.batch(5, 99, **shape)  # what was drawn before does not matter
    batch = one.batch(5, 7, **shape)
    assert batch.shape == (3, 3, 6, 24, 24)
    assert torch.equal(batch, other.batch(5, 7, **shape))
    assert not torch.equal(batch, one.batch(5, 8, **shape))
    assert not torch.equal(batch, one.batch(6, 7, **shape))
    assert -1 <= batch.min() < -0.3
    assert 0.3 < batch.max() <= 1


def test_a_clip_longer_than_its_source_stands_still_at_the_end(folder, tmp_path):
    video = sampler(folder, tmp_path, names=["short"], brightness=0.0).batch(0, 0, batch_size=1, num_frames=9, size=16)[
        0
    ]
    assert torch.equal(video[:, 4], video[:, 8])
    assert not torch.equal(video[:, 3], video[:, 4])


def numbers(folder, tmp_path, step, **sampling):
    """The frame numbers, read back from the corner pixel, of a clip as large as its source."""
    clips = sampler(folder, tmp_path, names=["long"], short_sides=(40, 40), brightness=0.0, **sampling)
    video = (clips.batch(0, step, batch_size=1, num_frames=4, size=40)[0] + 1) * 127.5
    corner = video[0, :, 0, 0].round() if torch.equal(video[:, :, 0, 0], video[:1, :, 0, 0].expand(3, -1)) else None
    return None if corner is None else corner.int().tolist()


@pytest.mark.parametrize("stride", [1, 2])
def test_frames_of_a_clip_follow_each_other_at_the_stride(folder, tmp_path, stride):
    found = [n for step in range(60) if (n := numbers(folder, tmp_path, step, strides=(stride,))) is not None]
    found = [n for n in found if max(n) < 12]  # the marked corner was in the crop, and not mirrored away
    assert found
    assert all(np.diff(n).tolist() == [stride] * 3 for n in found)


def test_shares_brightness_and_cuts_change_what_is_drawn(folder, tmp_path):
    def draw(**sampling):
        return sampler(folder, tmp_path, **sampling).batch(1, 2, batch_size=4, num_frames=8, size=24)

    still = {"photo_share": 1.0, "cut_probability": 0.0}
    for one, other in (
        ({"photo_share": 0.0}, {"photo_share": 1.0}),
        ({"brightness": 0.0}, {"brightness": 0.5}),
        (still, {**still, "cut_probability": 1.0}),
        ({"short_sides": (32, 32)}, {"short_sides": (48, 48)}),
    ):
        assert not torch.equal(draw(**one), draw(**other)), (one, other)


def test_the_cache_is_used_again_and_keyed_by_settings(folder, tmp_path):
    path = find_sources(folder, ["long"])[0]
    first = decode_to_cache(path, tmp_path, short_side=32, max_frames=7)
    written = first.stat().st_mtime_ns
    assert decode_to_cache(path, tmp_path, short_side=32, max_frames=7).stat().st_mtime_ns == written
    assert decode_to_cache(path, tmp_path, short_side=20, max_frames=7) != first
    assert np.load(first).shape == (7, 32, 45, 3)
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".npy", ".npy"]


def test_missing_files_and_folders_are_named(folder, tmp_path):
    with pytest.raises(UserError, match=r"no file named beach\.\* .*long, photo, short"):
        find_sources(folder, ["long", "beach"])
    with pytest.raises(UserError, match="is no folder"):
        find_sources(tmp_path / "nowhere", [])
    with pytest.raises(UserError, match="no clips to train on"):
        ClipSampler([], Sampling())


def test_a_camera_that_stands_still_shows_the_photograph_itself():
    photo = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    window = Window(row=10, column=12, side=16, angle=0)
    frames = film(halved_copies(photo, 64), window, window, 3, 16)
    expected = photo[:, 2:18, 4:20].float() / 127.5 - 1
    assert frames.shape == (3, 3, 16, 16)
    assert (frames - expected[:, None]).abs().max() < 1e-4


def test_a_pan_moves_the_picture_and_a_turn_keeps_its_centre():
    ramp = torch.arange(64).view(1, 1, 64).expand(3, 64, 64).to(torch.uint8)
    pan = film([ramp], Window(32, 20, 16, 0), Window(32, 24, 16, 0), 5, 16)
    assert ((pan[0].mean(dim=(1, 2)).diff() * 127.5) - 1).abs().max() < 1e-3  # one column per frame
    turn = film([ramp], Window(32, 32, 16, 0), Window(32, 32, 16, 1.5708), 2, 16)
    rows = turn[0, 1].diff(dim=0).mean() * 127.5
    assert abs(float(rows.abs()) - 1) < 0.01  # what ran along columns now runs along rows
    assert (turn[0, 1].mean() - turn[0, 0].mean()).abs() < 1e-3


def test_a_distant_view_is_taken_from_a_smaller_copy_so_that_it_does_not_alias():
    stripes = (torch.arange(256) % 2 * 255).view(1, 1, 256).expand(3, 256, 256).to(torch.uint8)
    window = Window(128, 128, 256, 0)
    far = film(halved_copies(stripes, 16), window, window, 1, 64)
    assert far[..., 1:-1].abs().max() < 0.05  # grey, as the eye would see it
