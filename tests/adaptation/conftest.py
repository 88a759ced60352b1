"""A base pipeline's folder, a dataset and its cache, made once for all tests of the adaptation."""

import pytest
from base_folder import autoencoder_folder, base_folder, cache_settings, dataset

from dcvideogen.adaptation.cache import build_cache, open_cache


@pytest.fixture(scope="session")
def cache_parts(tmp_path_factory):
    """(base folder, autoencoder folder, manifest of six clips of 8 frames of 64x64)."""
    root = tmp_path_factory.mktemp("parts")
    return base_folder(root / "base"), autoencoder_folder(root / "autoencoder"), dataset(root / "clips")


@pytest.fixture(scope="session")
def i2v_settings(cache_parts):
    """Everything that a cache can hold: conditions, image embeddings, base latents of three of the six clips."""
    return cache_settings(*cache_parts, image_to_video=True)


@pytest.fixture(scope="session")
def i2v_report(i2v_settings, tmp_path_factory):
    return build_cache(i2v_settings, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def i2v_cache(i2v_report):
    return open_cache(i2v_report.folder)
