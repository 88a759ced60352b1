import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "adaptation"))
from base_folder import autoencoder_folder, base_folder, dataset

from dcvideogen.adaptation.cache import open_cache


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The command's arguments for a dataset of five clips, one of them too short."""
    root = tmp_path_factory.mktemp("parts")
    manifest = dataset(root / "clips", count=4)
    dataset(root / "short", count=1, num_frames=7)
    (root / "short" / "clip0.mkv").rename(root / "clips" / "short.mkv")
    with manifest.open("a") as file:
        file.write('{"path": "short.mkv", "caption": "too short"}\n')
    return [
        manifest, "--base", base_folder(root / "base"), "--autoencoder", autoencoder_folder(root / "autoencoder"),
        "--size", "64x64", "--set", "num_frames=8", "--set", "held_out=1", "--set", "max_sequence_length=16",
    ]  # fmt: skip


def test_a_dataset_is_cached_and_the_last_line_says_where(dcvideogen, parts, tmp_path):
    result = dcvideogen("cache", *parts, "-o", tmp_path / "out")
    assert result.code == 0, result.err
    last = result.out.splitlines()[-1]
    cache = open_cache(tmp_path / "out")
    assert f"{cache.key}: 4 clips (1 held out, 4 with base latents), 4 texts" in last
    assert "1 left out; 2 of 2 shards written in" in last
    assert "too short" in result.out
    assert "short.mkv: 7 frames; 8 asked for" in result.out
    again = dcvideogen("cache", *parts, "-o", tmp_path / "out")
    assert "0 of 2 shards written" in again.out


def test_a_plan_says_what_it_would_take_and_caches_nothing(dcvideogen, parts, tmp_path):
    result = dcvideogen("cache", *parts, "--plan", "-o", tmp_path / "out")
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0] == ("clips: 4 (4 of 64x64x8; held out 1, with base latents 4), 4 texts, 1 files or clips left out")
    assert lines[1] == "shards: 2, of which 2 are missing with 4 clips"
    assert lines[2].endswith(" MiB")
    assert lines[3].startswith("measured on one clip: ")
    assert lines[4].startswith("estimated: ")
    assert not list((tmp_path / "out").glob("*/*.safetensors"))
    without_folder = dcvideogen("cache", *parts, "--plan")
    assert without_folder.out.splitlines()[:3] == lines[:3]


def test_a_part_of_a_shared_cache_says_that_others_are_missing(dcvideogen, parts, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = dcvideogen("cache", *parts, "-o", tmp_path / "out")
    assert "1 shards written" in result.out
    assert "others of the 2 are still to come from other processes" in result.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "-o is missing; give the folder for the cache, or --plan"),
        (["--size", "64"], "--size 64 came; HEIGHTxWIDTH in pixels is allowed"),
        (["--workers", "0"], "--workers 0 came"),
        (["--set", "frames=8"], "unknown key 'frames'; known here: source, check, autoencoder, base"),
        (["--set", "num_frames"], "write it as key.of.the.recipe=value"),
        (["--set", "held_out=-1"], "held_out"),
        (["-o", "out", "--set", "device=tpu"], "device 'tpu' came"),
        (["-o", "out", "--set", "num_frames=10"], "num_frames 10 came; a multiple of 4 is needed"),
    ],
)
def test_wrong_arguments_are_one_line(refused, parts, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(message, "cache", *parts, *arguments)


def test_no_usable_clip_is_one_line_with_the_reasons(refused, parts, tmp_path):
    message = refused("no usable clip", "cache", *parts, "-o", tmp_path / "out", "--set", "num_frames=80")
    assert "too short, 8 frames at the rate asked for; 80 asked for" in message
