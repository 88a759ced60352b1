import numpy as np
import pytest
from pictures import waves, with_noise

from dcvideogen.errors import UserError
from dcvideogen.evaluation.clip_evaluation import Clip
from dcvideogen.evaluation.pca_baseline import (
    SIZE,
    PcaSubject,
    fold_of,
    from_blocks,
    leading_components,
    sample_clip,
    to_blocks,
)
from dcvideogen.evaluation.pca_folds import PcaFolds
from dcvideogen.evaluation.reconstruction import psnr


def clip(name, frames):
    return Clip(name, lambda: iter(frames), name, len(frames))


def test_the_leading_components_are_those_of_an_exact_decomposition():
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((60, 40)) * 0.8 ** np.arange(40) @ rng.standard_normal((40, 200))).astype(np.float32)
    found = leading_components(rows, 10)
    _, _, exact = np.linalg.svd(rows, full_matrices=False)
    assert np.abs(found @ found.T - np.eye(10)).max() < 1e-5
    assert np.linalg.norm(rows @ found.T) == pytest.approx(np.linalg.norm(rows @ exact[:10].T), rel=1e-4)


@pytest.mark.parametrize("size", [(4, 32, 64), (3, 40, 33), (1, 7, 100)])
def test_blocks_go_there_and_back(size):
    frames = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    back = from_blocks(to_blocks(list(frames)).astype(np.float32), *size[1:])
    assert np.array_equal(back[: size[0]], frames)


def test_what_it_was_fitted_on_comes_back_and_any_length_does():
    frames = waves(6, 64, 64)
    subject = PcaSubject(sample_clip(frames, 100))
    rebuilt = list(subject.stream(frames, lambda _: None))
    assert len(rebuilt) == 6
    assert min(psnr(frame, other) for frame, other in zip(frames, rebuilt, strict=True)) > 45
    assert subject.traits.compression_ratio == SIZE / 128 == 96


def test_fewer_components_keep_less():
    frames = with_noise(waves(16, 64, 64), 20)
    blocks = sample_clip(frames, 100)
    values = []
    for number in (2, 8, 60):
        rebuilt = PcaSubject(blocks, number).stream(frames, lambda _: None)
        values.append(np.mean([psnr(frame, other) for frame, other in zip(frames, rebuilt, strict=True)]))
    assert values[0] < values[1] < values[2]


def test_a_sample_is_drawn_from_the_whole_clip_and_holds_no_more_than_asked():
    frames = [np.full((32, 64, 3), index // 4, dtype=np.uint8) for index in range(80)]
    found = sample_clip(frames, 12)
    assert found.shape == (12, SIZE)
    assert len({int(block[0]) for block in found}) > 6
    assert np.array_equal(found, sample_clip(frames, 12))


def test_a_clip_is_never_among_what_its_pca_is_fitted_on():
    clips = [clip(str(index), with_noise(waves(4, 32, 64), 5, index)) for index in range(20)]
    folds = PcaFolds(clips)
    for index in range(20):
        fitted = folds._sources(index)
        assert clips[index] not in fitted
        assert len(fitted) >= 17
    assert [fold_of(index, 3) for index in range(3)] == [0, 1, 2]
    assert folds.key(0) == folds.key(8)  # left out together, fitted once
    assert folds.key(0) != folds.key(1)
    assert folds.subject(0) is folds.subject(8)


def test_given_data_is_used_without_what_is_evaluated_too():
    evaluated, other = clip("a", waves(4, 32, 64)), clip("b", with_noise(waves(8, 32, 64), 9))
    folds = PcaFolds([evaluated], [evaluated, other])
    assert folds.reason(0) is None
    assert folds.key(0) == PcaFolds([evaluated], [other]).key(0)
    assert folds.subject(0).mean == pytest.approx(PcaSubject(sample_clip(other.frames(), 4096)).mean)
    assert "nothing to fit on" in PcaFolds([evaluated], [evaluated]).reason(0)
    assert "--pca-data" in PcaFolds([evaluated]).reason(0)


def test_clips_that_cannot_be_read_are_left_out_of_the_fit():
    def broken():
        raise UserError("half.mp4 is cut")
        yield

    bad = Clip("bad", broken, "bad")
    good, other = clip("good", waves(4, 32, 64)), clip("other", waves(4, 32, 64))
    assert PcaFolds([good, bad, other]).subject(0) is not None
    with pytest.raises(UserError, match="0 blocks to be fitted on"):
        PcaFolds([good, bad]).subject(0)
