import gc
import json
import weakref
from itertools import pairwise

import numpy as np
import pytest
import torch
from pictures import waves, with_noise
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from dcvideogen.errors import UserError
from dcvideogen.evaluation.clip_evaluation import Clip, NoProgress, folder_names
from dcvideogen.evaluation.evaluation_run import evaluate, with_unique_names
from dcvideogen.evaluation.measures import Networks
from dcvideogen.evaluation.subjects import Traits
from dcvideogen.video import frames_to_video, video_to_frames

NETWORKS = Networks(ffmpeg=None)


class Darker:
    """A codec that takes two levels off and notes what it was run on; `broken` clips fail."""

    device = torch.device("cpu")

    def __init__(self, name="darker", kind="model", fingerprint="1", broken_from=None):
        self.traits = Traits(name, kind, 3.0, 8, 4, 8, fingerprint, latent_channels=3, latents_std=(2.0,))
        self.streamed, self.broken_from = 0, broken_from

    def stream(self, frames, on_latents):
        self.streamed += 1
        for number, frame in enumerate(frames):
            if number == self.broken_from:
                raise UserError("this clip is too long for it")
            on_latents(frames_to_video([frame]) / 2)
            yield video_to_frames(self.decode(self.encode(frames_to_video([frame])), 1, *frame.shape[:2]))[0]

    def encode(self, video):
        return video / 2

    def decode(self, latents, num_frames, height, width):
        return latents * 2 - 2 / 127.5


def clip(name, frames, identity=None):
    return Clip(name, lambda: iter(frames), identity or name, len(frames))


def cut_clip(name="half.mp4"):
    def frames():
        yield from waves(3, 40, 48)
        raise UserError(f"{name}: cut after 3 frames; give the whole file")

    return Clip(name, frames, name, 9)


CLIPS = [clip("a", with_noise(waves(20, 40, 48), 6)), clip("b/c.mp4", with_noise(waves(9, 40, 48), 25, 1))]


def test_numbers_agree_with_scikit_image_and_means_with_numpy(tmp_path):
    report = evaluate([Darker()], CLIPS, tmp_path, NETWORKS)
    main, dct, pca = report["subjects"]
    assert [subject["name"] for subject in (main, dct, pca)] == ["darker", "fixed DCT", "PCA"]
    for result, source in zip(main["clips"], CLIPS, strict=True):
        frames = list(source.frames())
        darker = [np.maximum(frame.astype(int) - 2, 0).astype(np.uint8) for frame in frames]
        pairs = list(zip(frames, darker, strict=True))
        assert result["psnr_db"]["per_frame"] == pytest.approx([peak_signal_noise_ratio(*pair) for pair in pairs])
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 2}
        expected = np.mean([structural_similarity(*pair, **options) for pair in pairs])
        assert result["ssim"]["mean"] == pytest.approx(expected, abs=1e-5)
        changes = [b.astype(int) - a - (d.astype(int) - c) for (a, c), (b, d) in pairwise(pairs)]
        assert result["flicker_levels"]["mean"] == pytest.approx(np.mean([np.abs(c).mean() for c in changes]))
    for key in ("psnr_db", "ssim", "flicker_levels"):
        assert main["mean"][key] == pytest.approx(np.mean([result[key]["mean"] for result in main["clips"]]))
    everything = torch.cat([frames_to_video(list(source.frames())).flatten(2) for source in CLIPS], dim=2)
    assert main["latents"]["scaling_factor"] == pytest.approx(1 / float(everything.std(correction=0)), rel=1e-4)
    assert main["latents"]["positions"] == 29 * 40 * 48
    assert main["flat_field"]["mean"]["offset_levels"] == pytest.approx(2, abs=1e-3)
    assert (main["rfvd"]["value"], main["rfvd"]["reason"]) == (None, "no weights: give --i3d")
    assert dct["mean"]["psnr_db"] > 15
    assert (dct["latent_noise"], dct["flat_field"], dct["latents"]) == (None, None, None)
    assert pca["num_clips"] == 2
    assert report["left_out"] == []
    json.dumps(report, allow_nan=False)


def test_every_clip_has_its_pictures(tmp_path):
    report = evaluate([Darker()], CLIPS[:1], tmp_path, NETWORKS)
    result = report["subjects"][0]["clips"][0]
    folder = tmp_path / result["folder"]
    names = {row[kind] for row in result["pictures"]["frames"] for kind in ("input", "reconstruction", "error")}
    names |= {row["picture"] for row in result["pictures"]["worst_blocks"]}
    assert len(names) == 9 + 4
    assert {path.name for path in folder.iterdir()} == {*names, "result.json"}


def test_a_run_goes_on_where_it_stopped_and_again_where_something_changed(tmp_path):
    first = Darker()
    report = evaluate([first], CLIPS, tmp_path, NETWORKS)
    assert first.streamed == 2
    second = Darker()
    assert evaluate([second], CLIPS, tmp_path, NETWORKS) == report
    assert second.streamed == 0
    (tmp_path / "clips/darker/a/frame_000000_input.png").unlink()
    (tmp_path / "clips/darker/b_c.mp4/result.json").write_text("{")
    assert evaluate([second], CLIPS, tmp_path, NETWORKS) == report
    assert second.streamed == 2
    other_weights, other_settings = Darker(fingerprint="2"), Darker(fingerprint="2")
    evaluate([other_weights], CLIPS, tmp_path, NETWORKS)
    assert other_weights.streamed == 2
    evaluate([other_settings], [CLIPS[0], clip("b/c.mp4", waves(5, 40, 48), "shorter")], tmp_path, NETWORKS)
    assert other_settings.streamed == 1
    evaluate([other_settings], CLIPS[:1], tmp_path, Networks(ffmpeg=None, key="other LPIPS"))
    assert other_settings.streamed == 2


def test_a_broken_clip_is_left_out_for_all_and_the_others_are_measured(tmp_path, caplog):
    report = evaluate([Darker()], [CLIPS[0], cut_clip(), CLIPS[1]], tmp_path, NETWORKS)
    assert [subject["num_clips"] for subject in report["subjects"]] == [2, 2, 2]
    assert [row["clip"] for row in report["left_out"]] == ["half.mp4"]
    assert "cut after 3 frames" in report["left_out"][0]["reason"]
    assert "left out: half.mp4" in caplog.text
    assert not (tmp_path / "clips/darker/half.mp4").exists()


def test_a_clip_that_only_a_peer_fails_on_is_missing_there_alone(tmp_path):
    report = evaluate([Darker(), Darker("peer", "peer", broken_from=12)], CLIPS, tmp_path, NETWORKS)
    counts = {subject["name"]: subject["num_clips"] for subject in report["subjects"]}
    assert counts == {"darker": 2, "peer": 1, "fixed DCT": 2, "PCA": 2}
    assert report["left_out"] == [{"clip": "a", "subject": "peer", "reason": "this clip is too long for it"}]


def test_with_nothing_left_it_is_an_error_and_one_clip_has_no_pca(tmp_path):
    with pytest.raises(UserError, match=r"none of 1 clips could be measured \(half.mp4: .*cut after 3"):
        evaluate([Darker()], [cut_clip()], tmp_path, NETWORKS)
    report = evaluate([Darker()], CLIPS[:1], tmp_path, NETWORKS)
    assert report["subjects"][-1]["num_clips"] == 0
    assert report["left_out"] == [{"clip": "a", "subject": "PCA", "reason": "one clip: give --pca-data"}]
    report = evaluate([Darker()], CLIPS[:1], tmp_path, NETWORKS, pca_data=CLIPS)
    assert report["subjects"][-1]["num_clips"] == 1
    assert report["pca_fitted_on"] == "2 clips given with --pca-data"


def test_a_run_stopped_in_the_middle_of_a_clip_leaves_whole_clips_alone(tmp_path):
    class Stops(Darker):
        def stream(self, frames, on_latents):
            if self.streamed == 1:
                next(iter(frames))
                raise KeyboardInterrupt
            yield from super().stream(frames, on_latents)

    with pytest.raises(KeyboardInterrupt):
        evaluate([Stops()], CLIPS, tmp_path, NETWORKS)
    assert [path.parent.name for path in tmp_path.glob("clips/darker/*/result.json")] == ["a"]
    assert not list(tmp_path.rglob("*partial*"))
    again = Darker()
    assert len(evaluate([again], CLIPS, tmp_path, NETWORKS)["subjects"][0]["clips"]) == 2
    assert again.streamed == 1


def test_frames_that_a_subject_keeps_to_itself_are_told(tmp_path):
    class Shorter(Darker):
        def stream(self, frames, on_latents):
            *some, _ = super().stream(frames, on_latents)
            yield from some

    with pytest.raises(UserError, match="darker gave back 1 frames less than went in"):
        evaluate([Shorter()], CLIPS[1:], tmp_path, NETWORKS)


def test_progress_counts_what_is_read_and_rebuilt(tmp_path):
    seen = []

    class Counter(NoProgress):
        def advance(self, stage, frames=1):
            seen.append(stage)

    def opened(title, total):
        seen.append((title, total))
        return Counter()

    evaluate([Darker()], CLIPS[1:], tmp_path, NETWORKS, open_progress=opened)
    assert seen[0] == ("b/c.mp4, darker", 9)
    assert seen.count("reading") == seen.count("rebuilding") == 2 * 9  # the model and the DCT


def test_memory_does_not_grow_with_a_clip(tmp_path):
    """Frames are alive a few at a time, however many come."""
    alive: list[int] = []
    most = 0

    class Frame(np.ndarray):
        pass

    def frames():
        nonlocal most
        for number in range(150):
            frame = np.zeros((32, 32, 3), dtype=np.uint8).view(Frame)
            alive.append(number)
            weakref.finalize(frame, alive.remove, number)
            most = max(most, len(alive))
            yield frame
        gc.collect()

    evaluate([Darker()], [Clip("long", frames, "long")], tmp_path, NETWORKS)
    assert most < 20 + 30  # what the noise test keeps, and what is in the queues


def test_names_of_subjects_and_folders_are_made_unique():
    names = [subject.traits.name for subject in with_unique_names([Darker("x"), Darker("x"), Darker("PCA")])]
    assert names == ["x", "x (2)", "PCA (2)"]
    assert folder_names(["a/b.mp4", "a_b.mp4", "../..", "ü"]) == ["a_b.mp4", "a_b.mp4-2", "clip", "clip-2"]
