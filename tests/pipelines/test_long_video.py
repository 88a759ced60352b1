import itertools

import pytest
import torch
from tiny_pipeline import tiny_autoencoder

from dcvideogen.errors import UserError
from dcvideogen.pipelines.long_video import generate_windows, window_lengths


def test_windows_cover_the_video_once():
    assert window_lengths(8, 8, 0) == window_lengths(8, 20, 0) == [8]
    assert window_lengths(21, 8, 0) == [8, 8, 5]
    assert window_lengths(21, 8, 1) == [8, 8, 7]
    for total in range(1, 40):
        for given in (0, 1, 3):
            lengths = window_lengths(total, 5, given)
            assert sum(lengths) - given * (len(lengths) - 1) == total
            assert all(given < length <= 5 for length in lengths[1:])
    with pytest.raises(UserError, match="windows of 2 latents that begin with 2 given ones"):
        window_lengths(10, 2, 2)


@pytest.mark.parametrize("given", [0, 1])
def test_each_window_begins_with_the_end_of_the_one_before(given):
    autoencoder, asked = tiny_autoencoder(), []
    generator = torch.Generator().manual_seed(0)

    def generate(image, num_frames, number):
        made = torch.randn(1, 16, num_frames // 4, 2, 2, generator=generator)
        asked.append((image, num_frames, number, made))
        return made

    windows = list(generate_windows(autoencoder, "first", 10, window=4, given=given, size=(50, 60), generate=generate))
    assert torch.cat(windows, dim=2).shape == (1, 16, 10, 2, 2)
    assert [one[2] for one in asked] == list(range(len(asked)))
    assert asked[0][0] == "first"
    for (_, _, _, made), (image, _, _, _) in itertools.pairwise(asked):
        with torch.inference_mode():
            video = autoencoder.decode(made, height=50, width=60).clamp(-1, 1)
        expected = video[:, :, -1] if given == 0 else video[:, :, -4:]
        assert torch.equal(image, expected)
