import numpy as np
import pytest
from pictures import waves, with_noise

from dcvideogen.evaluation.vmaf import NO_FFMPEG, Vmaf, find_ffmpeg

needs_ffmpeg = pytest.mark.skipif(find_ffmpeg() is None, reason="no ffmpeg with libvmaf here")


def measured(frames, others, ffmpeg=None):
    with Vmaf(ffmpeg or find_ffmpeg()) as vmaf:
        for pair in zip(frames, others, strict=True):
            vmaf.update(*pair)
        return vmaf.report()


@needs_ffmpeg
def test_equal_clips_score_near_100_and_noise_costs():
    frames = waves(12, 64, 96)
    same, noisy, noisier = (measured(frames, others) for others in (frames, *(with_noise(frames, n) for n in (8, 30))))
    assert same["mean"] > 97
    assert same["mean"] > noisy["mean"] > noisier["mean"]
    assert len(same["per_frame"]) == 12
    assert same["mean"] == pytest.approx(np.mean(same["per_frame"]))


@needs_ffmpeg
def test_frames_are_paired_by_number():
    frames = waves(12, 64, 96)
    assert measured(frames, frames[1:] + frames[:1])["mean"] < measured(frames, frames)["mean"] - 5


@needs_ffmpeg
def test_odd_sizes_are_measured_and_files_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    frames = waves(3, 33, 47)
    assert measured(frames, frames)["mean"] > 90
    assert list(tmp_path.iterdir()) == []
    vmaf = Vmaf(find_ffmpeg())
    with pytest.raises(ValueError, match="stopped"), vmaf:  # noqa: PT012 - what happens inside is what is left behind
        vmaf.update(frames[0], frames[0])
        raise ValueError("stopped")
    assert list(tmp_path.iterdir()) == []


def test_small_frames_and_a_missing_ffmpeg_are_nulls_with_reasons():
    small = waves(2, 20, 64)
    assert measured(small, small, "ffmpeg") == {
        "mean": None,
        "per_frame": [],
        "reason": "frame smaller than 32 x 32 pixels",
    }
    with Vmaf(None) as vmaf:
        vmaf.update(*waves(2, 64, 64))
        assert vmaf.report()["reason"] == NO_FFMPEG


def test_an_ffmpeg_that_fails_is_a_reason(tmp_path):
    script = tmp_path / "ffmpeg"
    script.write_text("#!/bin/sh\necho 'no such filter' >&2\nexit 1\n")
    script.chmod(0o755)
    frames = waves(2, 64, 64)
    assert measured(frames, frames, str(script))["reason"] == "ffmpeg failed: no such filter"


def test_an_ffmpeg_without_libvmaf_is_passed_over(tmp_path, monkeypatch):
    script = tmp_path / "ffmpeg"
    script.write_text("#!/bin/sh\necho ' ... scale V->V'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert find_ffmpeg.__wrapped__() is None
    script.write_text("#!/bin/sh\necho ' .. libvmaf VV->V'\n")
    assert find_ffmpeg.__wrapped__() == str(script)
