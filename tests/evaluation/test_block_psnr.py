import numpy as np
import pytest

from dcvideogen.evaluation.blocks import MOST_PICTURES, BlockDistribution, WorstBlocks
from dcvideogen.evaluation.reconstruction import ReconstructionMetrics

ERRORS = 255**2 / 10 ** (np.random.default_rng(0).uniform(15, 45, 4000) / 10)


def test_percentiles_and_the_worst_share_agree_with_numpy_to_a_bin():
    distribution = BlockDistribution()
    for part in np.split(ERRORS.reshape(40, 100), 8):
        distribution.update(part)
    report = distribution.report()
    decibels = np.sort(10 * np.log10(255**2 / ERRORS))
    for percent, value in report["percentiles_db"].items():
        assert value == pytest.approx(np.percentile(decibels, int(percent)), abs=0.1)
    assert report["worst_5_percent_mean_db"] == pytest.approx(decibels[:200].mean(), abs=0.06)
    assert report["num_blocks"] == sum(report["histogram_per_db"]) == 4000
    counts, _ = np.histogram(decibels, bins=np.arange(0, 61))
    assert np.array_equal(report["histogram_per_db"], counts)


def test_blocks_without_error_count_in_the_last_bin():
    distribution = BlockDistribution()
    distribution.update(np.zeros((2, 3)))
    assert distribution.report()["histogram_per_db"][-1] == 6
    assert BlockDistribution().report()["percentiles_db"]["5"] is None


def worst_of(pairs):
    metrics, worst = ReconstructionMetrics(None, 4), WorstBlocks()
    for number, pair in enumerate(pairs):
        metrics.update(*pair)
        worst.update(number, *pair, metrics.block_errors)
    return worst.worst()


def test_each_place_is_kept_once_at_its_worst_frame_with_its_surroundings():
    frame = np.full((96, 128, 3), 100, dtype=np.uint8)
    pairs = []
    for added in (3, 9, 5):
        other = frame.copy()
        other[32:64, 64:96] += np.uint8(added)
        other[0:32, 0:32] += np.uint8(1)
        pairs.append((frame, other))
    first, second = worst_of(pairs)
    assert (first.frame, first.y, first.x) == (1, 32, 64)
    assert first.psnr_db == pytest.approx(20 * np.log10(255 / 9))
    assert [crop.shape for crop in first.crops] == [(64, 64, 3)] * 3
    assert np.array_equal(first.crops[1], pairs[1][1][16:80, 48:112])
    assert first.crops[2].max() == 4 * 9
    assert (second.y, second.x) == (0, 0)
    assert np.array_equal(second.crops[1], pairs[0][1][:64, :64])  # moved into the picture


def test_the_worst_5_percent_of_places_are_kept_and_at_most_12_of_them_shown():
    frame = np.zeros((32 * 20, 32 * 20, 3), dtype=np.uint8)  # 400 places: 20 are kept
    errors = np.random.default_rng(0).permutation(400).reshape(20, 20) + 1.0
    worst = WorstBlocks()
    worst.update(0, frame, frame, errors / 10)  # a mild first frame
    worst.update(1, frame, frame, errors)
    blocks = worst.worst()
    assert len(blocks) == MOST_PICTURES
    found = [round(255**2 / 10 ** (block.psnr_db / 10)) for block in blocks]
    assert found[0] == 400
    assert found[-1] == 381
    assert found == sorted(found, reverse=True)
    assert all(block.frame == 1 for block in blocks)


def test_a_perfect_clip_has_no_worst_block():
    frame = np.zeros((40, 40, 3), dtype=np.uint8)
    assert worst_of([(frame, frame)]) == []
