import json
import shutil

import numpy as np
import pytest
from base_folder import cache_settings, dataset, still_frames
from media import cut_file, moving_frames, write_clip, write_photo

from dcvideogen.adaptation.cache import BucketSettings, build_cache, open_cache
from dcvideogen.adaptation.cache_plan import make_plan
from dcvideogen.data.settings import CheckSettings
from dcvideogen.errors import UserError


@pytest.fixture
def mixed(tmp_path):
    """A manifest with a good clip and one of every kind that is left out."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    write_clip(folder / "good.mkv", moving_frames(9, 64, 64), fps=16)
    shutil.copy(folder / "good.mkv", folder / "again.mkv")
    write_clip(folder / "short.mkv", moving_frames(7, 64, 64, seed=2), fps=16)
    write_clip(folder / "slow.mkv", moving_frames(12, 64, 64, seed=3), fps=8)
    write_clip(folder / "silent.mkv", moving_frames(9, 64, 64, seed=4), fps=16)
    noise = np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), dtype=np.uint8)
    cut_file(write_clip(folder / "cut.mp4", noise, fps=16))
    write_photo(folder / "photo.png")
    names = ["good.mkv", "again.mkv", "short.mkv", "slow.mkv", "cut.mp4", "photo.png"]
    lines = [json.dumps({"path": name, "caption": "a caption"}) for name in names]
    lines.append(json.dumps({"path": "silent.mkv"}))
    manifest = folder / "manifest.jsonl"
    manifest.write_text("\n".join(lines))
    return manifest


def plan_of(cache_parts, tmp_path, source, **changes):
    base, autoencoder, _ = cache_parts
    return make_plan(cache_settings(base, autoencoder, source, **{"held_out": 0} | changes), tmp_path / "out")


def starts(plan):
    return [(item.clip.name, item.first_frame) for item in plan.clips]


def test_what_is_left_out_is_told_with_its_reason(cache_parts, mixed, tmp_path):
    plan = plan_of(cache_parts, tmp_path, mixed)
    assert starts(plan) == [("good.mkv", 0)]
    assert {item.name: item.reason for item in plan.skipped} == {
        "again.mkv": "duplicate", "short.mkv": "too short", "slow.mkv": "too slow", "silent.mkv": "no caption",
        "cut.mp4": "truncated", "photo.png": "image",
    }  # fmt: skip
    said = {item.name: item.detail for item in plan.skipped}
    assert said["slow.mkv"] == "8 frames per second; 16 asked for"
    assert said["again.mkv"] == "same content and caption as good.mkv"


def test_captions_and_rates_need_not_be_asked_for(cache_parts, mixed, tmp_path):
    plan = plan_of(cache_parts, tmp_path, mixed, require_captions=False, fps=None)
    assert [item.clip.name for item in plan.clips] == ["good.mkv", "slow.mkv", "silent.mkv"]
    assert plan.texts == ("", "a caption")


def test_a_video_that_stands_still_is_a_clip_unless_the_check_says_otherwise(cache_parts, tmp_path):
    source = tmp_path / "still"
    source.mkdir()
    write_clip(source / "still.mkv", still_frames(9), fps=16)
    assert len(plan_of(cache_parts, tmp_path, source, require_captions=False).clips) == 1
    with pytest.raises(UserError, match=r"no usable clip \(1 left out: still.mkv: static"):
        plan_of(cache_parts, tmp_path, source, require_captions=False, check=CheckSettings())


def test_the_index_of_a_check_is_used_where_there_is_one(cache_parts, tmp_path):
    from dcvideogen.data.check import check_source

    source = dataset(tmp_path / "data", count=2)
    folder = source.with_name("manifest.jsonl.index")
    check_source(source, folder, CheckSettings(), jobs=1)
    lines = (folder / "index.jsonl").read_text().splitlines()
    (folder / "index.jsonl").write_text(lines[1] + "\n")
    assert starts(plan_of(cache_parts, tmp_path, source)) == [("clip1.mkv", 0)]


def test_long_videos_give_clips_one_behind_the_other(cache_parts, tmp_path):
    source = dataset(tmp_path / "data", count=1, num_frames=27)
    assert starts(plan_of(cache_parts, tmp_path, source)) == [("clip0.mkv", 0)]
    many = plan_of(cache_parts, tmp_path, source, clips_per_video=5)
    assert starts(many) == [("clip0.mkv", 0), ("clip0.mkv", 8), ("clip0.mkv", 16)]
    assert len({item.clip.key for item in many.clips}) == 3


def test_no_clip_goes_across_a_cut_unless_it_may(cache_parts, tmp_path):
    source = tmp_path / "cut"
    source.mkdir()
    frames = np.concatenate([moving_frames(5, 64, 64), 255 - moving_frames(10, 64, 64, seed=9)])
    write_clip(source / "cut.mkv", frames, fps=16)
    assert starts(plan_of(cache_parts, tmp_path, source, require_captions=False)) == [("cut.mkv", 5)]
    across = plan_of(cache_parts, tmp_path, source, require_captions=False, split_at_cuts=False)
    assert starts(across) == [("cut.mkv", 0)]
    with pytest.raises(UserError, match="too short, no scene of 12 frames between 1 cuts"):
        plan_of(cache_parts, tmp_path, source, require_captions=False, num_frames=12)


def test_a_faster_video_is_resampled_and_a_near_rate_taken_as_it_is(cache_parts, tmp_path):
    source = tmp_path / "rates"
    source.mkdir()
    write_clip(source / "fast.mkv", moving_frames(17, 64, 64), fps=32)
    write_clip(source / "near.mkv", moving_frames(8, 64, 64, seed=1), fps=16)
    settings = cache_settings(*cache_parts[:2], source, require_captions=False, held_out=0, fps=15.99)
    plan = make_plan(settings, tmp_path / "out")
    assert [item.fps for item in plan.clips] == [15.99, None]
    cache = open_cache(build_cache(settings, tmp_path / "out").folder)
    assert len(cache) == 2


def test_a_part_of_a_file_is_a_clip_of_its_own(cache_parts, tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    frames = moving_frames(24, 64, 64)
    write_clip(folder / "long.mkv", frames, fps=16)
    write_clip(folder / "alone.mkv", frames[8:16], fps=16)
    rows = [{"path": "long.mkv", "caption": "x", "start": 0.5, "end": 1.0}, {"path": "alone.mkv", "caption": "x"}]
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = cache_settings(*cache_parts[:2], folder / "m.jsonl", held_out=0)
    cache = open_cache(build_cache(settings, tmp_path / "out").folder)
    first, second = cache.batch([0, 1]).latents
    # Two codings of the same frames, both lossless.
    assert (first - second).abs().max() < 1e-4


def test_clips_go_into_the_bucket_of_their_shape_and_batches_hold_one(cache_parts, tmp_path):
    source = tmp_path / "shapes"
    source.mkdir()
    for seed, (height, width) in enumerate([(64, 64), (40, 80), (64, 64), (90, 45)]):
        write_clip(source / f"{seed}.mkv", moving_frames(8, height, width, seed=seed), fps=16)
    settings = cache_settings(
        *cache_parts[:2], source, require_captions=False, held_out=0, buckets=BucketSettings(height=32, width=64)
    )
    cache = open_cache(build_cache(settings, tmp_path / "out").folder)
    assert cache.buckets == ((8, 32, 64), (8, 64, 32))
    by_name = {clip.name: clip.bucket[1:] for clip in cache.clips}
    assert by_name["1.mkv"] == (32, 64)
    assert by_name["3.mkv"] == (64, 32)
    assert cache.batch(cache.indices(False, bucket=(8, 64, 32))).latents.shape[2:] == (2, 2, 1)
    with pytest.raises(ValueError, match="clips of 2 buckets in a batch"):
        cache.batch(range(4))


def test_all_clips_of_a_file_are_held_out_together(cache_parts, tmp_path):
    source = dataset(tmp_path / "data", count=3, num_frames=16)
    plan = plan_of(cache_parts, tmp_path, source, clips_per_video=2, held_out=1)
    held = {item.clip.name for item in plan.clips if item.clip.held_out}
    assert len(held) == 1
    assert sum(item.clip.held_out for item in plan.clips) == 2
    share = plan_of(cache_parts, tmp_path, source, clips_per_video=2, held_out=0.01)
    assert sum(item.clip.held_out for item in share.clips) == 2  # at least one file


def test_holding_out_everything_is_refused(cache_parts, tmp_path):
    source = dataset(tmp_path / "data", count=2)
    with pytest.raises(UserError, match="held_out 2 of 2 clips leaves none to train on"):
        plan_of(cache_parts, tmp_path, source, held_out=2)


def test_a_clip_that_breaks_after_the_plan_is_left_out_and_told(cache_parts, tmp_path):
    source = dataset(tmp_path / "data", count=3)
    settings = cache_settings(*cache_parts[:2], source, held_out=0)
    make_plan(settings, tmp_path / "out")
    broken = source.parent / "clip1.mkv"
    whole = broken.read_bytes()
    index = next((tmp_path / "out").glob("source-*/index.jsonl"))
    shutil.copytree(index.parent, source.with_name("manifest.jsonl.index"))  # no new check finds it
    broken.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    report = build_cache(settings, tmp_path / "out")
    assert [(item.name, item.reason) for item in report.skipped] == [("clip1.mkv", "broken")]
    cache = open_cache(report.folder)
    assert [clip.name for clip in cache.clips] == ["clip0.mkv", "clip2.mkv"]
    whole_cache = cache.batch([0, 1]).latents
    assert whole_cache.shape[0] == 2


def test_latents_that_are_no_numbers_are_left_out_and_told(cache_parts, tmp_path):
    import torch

    from dcvideogen.autoencoder.presets import make_autoencoder

    model = make_autoencoder("dcae-tiny-f32t4c16", latent_space_id="nan")
    with torch.no_grad():
        next(model.encoder.parameters()).fill_(float("nan"))
    model.save_pretrained(tmp_path / "nan")
    settings = cache_settings(cache_parts[0], tmp_path / "nan", cache_parts[2])
    with pytest.raises(UserError, match=r"no usable clip .*not finite, its latents are not all finite numbers"):
        build_cache(settings, tmp_path / "out")


def test_no_source_no_base_and_wrong_numbers_are_refused(cache_parts, tmp_path):
    _, autoencoder, manifest = cache_parts
    with pytest.raises(UserError, match="no such file or folder"):
        plan_of(cache_parts, tmp_path, tmp_path / "none")
    with pytest.raises(UserError, match="no such folder; give the folder of a diffusers pipeline"):
        make_plan(cache_settings(tmp_path / "none", autoencoder, manifest), tmp_path / "out")
    with pytest.raises(UserError, match="num_frames 6 came; a multiple of 4 is needed"):
        plan_of(cache_parts, tmp_path, manifest, num_frames=6)
    with pytest.raises(UserError, match=r"buckets.multiple 48 came; multiples of 32 are allowed"):
        plan_of(cache_parts, tmp_path, manifest, buckets=BucketSettings(height=64, width=64, multiple=48))
