import pytest

from dcvideogen.errors import UserError
from dcvideogen.pipelines.hub import hub_folder, is_hub_id


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A hub cache with one model, as the hub's library lays it out; no network."""
    from huggingface_hub import constants

    folder = tmp_path / "models--someone--a-model"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "model_index.json").write_text("{}")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return snapshot


def test_ids_are_told_from_names_and_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "model").mkdir(parents=True)
    assert is_hub_id("dc-ai/DC-Gen-Wan2.1-T2V-14B")
    for name in ("shapes-dc", "out/model", "/abs/model", "../a/b", "a/b/c", "./a", ""):
        assert not is_hub_id(name)


def test_a_model_in_the_cache_needs_no_network(cache):
    assert hub_folder("someone/a-model", download=False) == cache


def test_nothing_is_fetched_unless_that_was_asked_for(cache):
    with pytest.raises(UserError, match="--download fetches it"):
        hub_folder("someone/another", download=False)
    with pytest.raises(UserError, match="someone/another could not be fetched from the hub"):
        hub_folder("someone/another", download=True)
