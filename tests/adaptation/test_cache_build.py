import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from base_folder import autoencoder_folder, cache_settings, write_text_encoder

from dcvideogen.adaptation import cache_estimate
from dcvideogen.adaptation.cache import BucketSettings, build_cache, open_cache
from dcvideogen.adaptation.cache_build import finish
from dcvideogen.adaptation.cache_plan import make_plan, read_plan
from dcvideogen.adaptation.cache_settings import NOT_IN_KEY, CacheSettings
from dcvideogen.adaptation.cache_shards import write_shard
from dcvideogen.errors import UserError


def digests(folder):
    """Of all files of a cache but its plan, in which the source's place is written."""
    files = [path for path in folder.iterdir() if path.suffix == ".safetensors" or path.name == "index.json"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_second_run_writes_nothing(i2v_settings, i2v_report):
    told = []
    again = build_cache(i2v_settings, i2v_report.folder.parent, encoding=lambda done, total: told.append((done, total)))
    assert again.shards_written == 0
    assert (again.folder, again.clips, again.bytes) == (i2v_report.folder, i2v_report.clips, i2v_report.bytes)
    assert told == [(6, 6)]


def test_killed_at_any_moment_it_ends_with_the_same_files(i2v_settings, i2v_report, tmp_path):
    code = (
        "import sys; from pathlib import Path; from dcvideogen.adaptation.cache import CacheSettings, build_cache;"
        "build_cache(CacheSettings.model_validate_json(sys.argv[1]), Path(sys.argv[2]))"
    )
    settings = i2v_settings.model_dump_json()
    pause = random.Random(0)
    for shards in (1, 3):
        child = subprocess.Popen([sys.executable, "-c", code, settings, str(tmp_path)], stderr=subprocess.DEVNULL)
        while len(list(tmp_path.glob("*/*.safetensors"))) < shards and child.poll() is None:
            time.sleep(0.002)
        time.sleep(pause.uniform(0, 0.05))
        child.send_signal(signal.SIGKILL)
        child.wait()
    report = build_cache(i2v_settings, tmp_path)
    assert report.complete
    assert report.skipped == ()
    assert digests(report.folder) == digests(i2v_report.folder)


def test_a_shard_that_a_power_cut_broke_is_written_again(i2v_settings, i2v_report, tmp_path):
    shutil.copytree(i2v_report.folder.parent, tmp_path, dirs_exist_ok=True)
    broken = tmp_path / i2v_report.folder.name / "clips-00001.safetensors"
    broken.write_bytes(broken.read_bytes()[:20])
    assert build_cache(i2v_settings, tmp_path).shards_written == 1
    assert digests(broken.parent) == digests(i2v_report.folder)


def test_processes_with_ranks_write_disjoint_shards_and_the_last_one_the_index(
    i2v_settings, i2v_report, tmp_path, monkeypatch
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    first = build_cache(i2v_settings, tmp_path)
    assert (first.shards_written, first.complete) == (2, False)
    with pytest.raises(UserError, match=r"not complete \(2 of 4 shards\)"):
        open_cache(tmp_path)
    monkeypatch.setenv("RANK", "0")
    second = build_cache(i2v_settings, tmp_path)
    assert (second.shards_written, second.complete) == (2, True)
    assert digests(second.folder) == digests(i2v_report.folder)


@pytest.mark.parametrize(("rank", "world"), [("2", "2"), ("-1", "1"), ("x", "2")])
def test_ranks_that_make_no_sense_are_refused(i2v_settings, i2v_report, monkeypatch, rank, world):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(UserError, match=f"RANK {rank} of WORLD_SIZE {world} came"):
        build_cache(i2v_settings, i2v_report.folder.parent)


def test_workers_write_the_same_files(i2v_settings, i2v_report, tmp_path):
    told = []
    report = build_cache(i2v_settings, tmp_path, workers=2, encoding=lambda done, total: told.append((done, total)))
    assert (report.shards_written, report.complete) == (4, True)
    assert digests(report.folder) == digests(i2v_report.folder)
    assert told[0] == (0, 6)
    assert told[-1] == (6, 6)


def test_a_workers_error_is_told(i2v_settings, cache_parts, tmp_path):
    base = shutil.copytree(cache_parts[0], tmp_path / "base")
    settings = i2v_settings.model_copy(update={"base": base})
    make_plan(settings, tmp_path / "out")
    # Nothing of the plan tells that the weights do not fit.
    (base / "text_encoder" / "model.safetensors").write_bytes(b"no weights")
    plan = read_plan(next((tmp_path / "out").glob("*/plan.json")).parent)
    from dcvideogen.adaptation.cache_workers import write_shards

    with pytest.raises(UserError, match=r"the text encoder of .* cannot be loaded"):
        write_shards(settings, tmp_path / "out" / plan.key, plan, [0], 1, lambda done, total: None)


def test_any_mapper_can_write_the_shards_in_any_order(i2v_settings, i2v_report, tmp_path):
    plan = make_plan(i2v_settings, tmp_path)
    for index in reversed(range(len(plan.shards))):
        write_shard(i2v_settings, tmp_path / plan.key, index)
    assert finish(tmp_path, plan.key).complete
    assert digests(tmp_path / plan.key) == digests(i2v_report.folder)


def test_ray_workers_write_the_same_files(i2v_settings, i2v_report, tmp_path):
    ray = pytest.importorskip("ray", reason="ray is not installed")
    data = pytest.importorskip("ray.data", reason="ray[data] is not installed")
    plan = make_plan(i2v_settings, tmp_path)
    ray.init(num_cpus=2)
    try:
        shards = data.range(len(plan.shards))
        shards.map(lambda row: {"path": str(write_shard(i2v_settings, tmp_path / plan.key, row["id"]))}).materialize()
    finally:
        ray.shutdown()
    assert finish(tmp_path, plan.key).complete
    assert digests(tmp_path / plan.key) == digests(i2v_report.folder)


# One other value for every setting that changes what is in a cache.
OTHERS = {
    "num_frames": 4, "fps": None, "clips_per_video": 2, "split_at_cuts": False, "require_captions": False,
    "buckets": BucketSettings(height=32, width=64), "held_out": 1, "alignment_clips": 1, "alignment_held_out": 0,
    "match_time_windows": False, "null_prompt": "worst quality", "max_sequence_length": 16, "image_to_video": False,
    "image_condition": "alone", "dtype": "bf16", "stored_dtype": "fp16", "clips_per_shard": 3,
}  # fmt: skip


def test_every_setting_has_another_value_here():
    assert set(OTHERS) == set(CacheSettings.model_fields) - set(NOT_IN_KEY)


def test_a_changed_setting_makes_a_new_cache(i2v_settings, i2v_report, tmp_path):
    keys = {i2v_report.folder.name}
    for name, value in OTHERS.items():
        key = make_plan(i2v_settings.model_copy(update={name: value}), tmp_path).key
        assert key not in keys, name
        keys.add(key)


def test_where_and_how_it_is_made_changes_nothing(cache_parts, i2v_settings, i2v_report, tmp_path):
    base, autoencoder, manifest = (
        shutil.copytree(cache_parts[0], tmp_path / "b"),
        shutil.copytree(cache_parts[1], tmp_path / "a"),
        shutil.copytree(cache_parts[2].parent, tmp_path / "c") / "manifest.jsonl",
    )
    moved = cache_settings(base, autoencoder, manifest, image_to_video=True, device="auto", rows_per_step=64)
    assert make_plan(moved, tmp_path / "out").key == i2v_report.folder.name


def test_another_autoencoder_text_encoder_or_caption_makes_a_new_cache(cache_parts, i2v_settings, i2v_report, tmp_path):
    from dcvideogen.autoencoder.presets import make_autoencoder

    keys = [i2v_report.folder.name]
    base = shutil.copytree(cache_parts[0], tmp_path / "base")
    write_text_encoder(base, seed=1)
    keys.append(make_plan(i2v_settings.model_copy(update={"base": base}), tmp_path).key)
    make_autoencoder("dcae-tiny-f32t4c16", latent_space_id="other").save_pretrained(tmp_path / "other")
    keys.append(make_plan(i2v_settings.model_copy(update={"autoencoder": str(tmp_path / "other")}), tmp_path).key)
    manifest = shutil.copytree(cache_parts[2].parent, tmp_path / "clips") / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace("a cat", "a dog"))
    keys.append(make_plan(i2v_settings.model_copy(update={"source": manifest}), tmp_path).key)
    assert len(set(keys)) == 4


def test_an_old_cache_stays_and_the_one_asked_for_last_is_opened(cache_parts, i2v_settings, i2v_report, tmp_path):
    out = shutil.copytree(i2v_report.folder.parent, tmp_path / "out")
    other = build_cache(i2v_settings.model_copy(update={"image_to_video": False}), out)
    assert open_cache(out).key == other.folder.name != i2v_report.folder.name
    assert build_cache(i2v_settings, out).shards_written == 0
    assert open_cache(out).key == i2v_report.folder.name


def test_an_autoencoder_without_a_name_is_called_by_its_weights(cache_parts, i2v_cache, tmp_path):
    from dcvideogen.autoencoder.model import AutoencoderDCV

    model = AutoencoderDCV.from_pretrained(cache_parts[1])
    model.register_to_config(latent_space_id=None)
    model.save_pretrained(tmp_path / "nameless")
    settings = cache_settings(cache_parts[0], tmp_path / "nameless", cache_parts[2])
    assert make_plan(settings, tmp_path / "out").info.latent_space_id == i2v_cache.info.latent_space_id


def test_an_autoencoder_that_changed_after_the_plan_is_refused(cache_parts, tmp_path):
    folder = autoencoder_folder(tmp_path / "autoencoder")
    settings = cache_settings(cache_parts[0], folder, cache_parts[2])
    plan = make_plan(settings, tmp_path / "out")
    config = folder / "config.json"
    config.write_text(config.read_text().replace(plan.info.latent_space_id, "changed"))
    with pytest.raises(UserError, match="is of latent space changed; the cache is of"):
        write_shard(settings, tmp_path / "out" / plan.key, 1)


def test_a_full_disk_is_told_and_nothing_is_lost(i2v_settings, i2v_report, tmp_path, monkeypatch):
    plan = make_plan(i2v_settings, tmp_path)
    write_shard(i2v_settings, tmp_path / plan.key, 0)

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"cannot write .*clips-00001.* \(No space left on device\); free some"):
            write_shard(i2v_settings, tmp_path / plan.key, 1)
    assert not list((tmp_path / plan.key).glob(".*.partial"))
    assert build_cache(i2v_settings, tmp_path).shards_written == 3


def test_a_disk_that_is_too_small_is_told_beforehand(i2v_settings, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(UserError, match=r"the cache needs .* GiB more in .*, where .* GiB are free"):
        build_cache(i2v_settings, tmp_path)


def test_the_estimate_counts_what_is_stored(i2v_settings, i2v_report, tmp_path):
    found = cache_estimate.estimate(i2v_settings, tmp_path)
    assert (found.clips, found.all_clips, found.missing_shards) == (6, 6, 4)
    tensors = i2v_report.bytes - sum(
        8 + int.from_bytes(path.read_bytes()[:8], "little") for path in i2v_report.folder.glob("*.safetensors")
    )
    lengths = 8 * len(found.plan.texts)
    assert found.bytes == tensors - lengths
    assert found.seconds_per_aligned >= found.seconds_per_clip > 0
    assert found.seconds > 3 * found.seconds_per_clip
    assert cache_estimate.estimate(i2v_settings, i2v_report.folder.parent).seconds == 0
