import pytest
import torch
from base_folder import autoencoder_folder, base_folder, dataset

from dcvideogen.adaptation.cache import BucketSettings, CacheSettings, build_cache, open_cache
from dcvideogen.adaptation.cache_data import CacheData


@pytest.fixture(scope="session")
def parts(tmp_path_factory):
    """(base folder, autoencoder folder, manifest of six clips of 8 frames of 64x64)."""
    root = tmp_path_factory.mktemp("parts")
    return base_folder(root / "base"), autoencoder_folder(root / "ae"), dataset(root / "clips")


@pytest.fixture(scope="session")
def settings(parts):
    base, autoencoder, manifest = parts
    return CacheSettings(
        source=manifest,
        base=base,
        autoencoder=str(autoencoder),
        num_frames=8,
        buckets=BucketSettings(height=64, width=64),
        held_out=2,
        alignment_clips=2,
        alignment_held_out=1,
        max_sequence_length=32,
        stored_dtype="fp32",
        clips_per_shard=2,
    )


@pytest.fixture(scope="session")
def cache(settings, tmp_path_factory):
    report = build_cache(settings, tmp_path_factory.mktemp("cache"))
    assert report.complete
    return open_cache(report.folder)


def test_thin(cache):
    print(cache.info, cache.clips)
    train = cache.indices(False)
    batch = cache.batch(train)
    assert batch.latents.shape == (4, 16, 2, 2, 2)
    pairs = cache.pairs(cache.indices(False, aligned=True))
    assert pairs.base_latents.shape == (2, 4, 2, 8, 8)
    data = CacheData(cache, 2, 0)
    assert torch.equal(data.batch(0).latents[1:], data.batch(0, 1, 2).latents)
