"""One adapter from a text-to-video base to an adapted image-to-video transformer, over the base in between."""

import pytest
import torch
from tiny_models import tiny_transformer

from dcvideogen.adaptation.adapter_folder import AdapterRecord, ends_of, load_adapter, read_record, write_adapter
from dcvideogen.adaptation.backbones import backbone_named
from dcvideogen.adaptation.extraction_run import extract_folders
from dcvideogen.adaptation.folder import AdaptationInfo, fingerprint, load_transformer, save_transformer
from dcvideogen.adaptation.lora import LoraSettings, add_lora, merged_copy
from dcvideogen.adaptation.merge_run import merge_folders
from dcvideogen.adaptation.surgery import add_condition, move_transformer
from dcvideogen.errors import UserError
from dcvideogen.weights import bundled_adapters

WAN = backbone_named("wan")
SPACE = {"latent_space_id": "a-space", "latent_channels": 6, "spatial_ratio": 32, "temporal_ratio": 4, "family": "wan"}


def trained(transformer, rank, seed):
    """As after a training with a LoRA: its layers and both ends are others."""
    add_lora(transformer, WAN, LoraSettings(rank=rank, alpha=rank), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in transformer.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return merged_copy(transformer, torch.float32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """base/ for text to video; image/, trained from it with rank 2; adapted/, moved from that with rank 1."""
    folder = tmp_path_factory.mktemp("folders")
    base = tiny_transformer("wan")
    image = trained(add_condition(base, WAN), 2, 1)
    adapted = trained(move_transformer(image, WAN, latent_channels=6, patch_size=(1, 1, 1), seed=3), 1, 2)
    save_transformer(base, folder / "base", None)
    save_transformer(image, folder / "image", None)
    save_transformer(adapted, folder / "adapted", AdaptationInfo(base=fingerprint(image), **SPACE))
    return folder


def weights_of(folder):
    return load_transformer(folder)[0].state_dict()


def test_two_trainings_are_one_adapter_of_the_sum_of_their_ranks(folders, tmp_path):
    facts = extract_folders(folders / "base", folders / "adapted", tmp_path / "out", rank=3, targets="attention+ffn")
    assert facts["energy kept"].startswith("100.00 %")
    assert float(facts["beyond the rank"].split()[0]) < 0.01
    record = read_record(tmp_path / "out/adapter")
    base, _ = load_transformer(folders / "base")
    assert record.adds_condition
    assert record.adaptation.base == fingerprint(base)
    loaded, info = load_adapter(base, WAN, tmp_path / "out/adapter")
    assert info == record.adaptation
    wanted = weights_of(folders / "adapted")
    assert all((tensor - wanted[name]).abs().max() < 1e-5 for name, tensor in loaded.state_dict().items())
    merge_folders(folders / "base", tmp_path / "out", tmp_path / "merged")
    merged = weights_of(tmp_path / "merged")
    assert all(torch.equal(tensor, merged[name]) for name, tensor in loaded.state_dict().items())


def test_a_smaller_rank_is_told_to_be_not_exact(folders, tmp_path):
    facts = extract_folders(folders / "base", folders / "adapted", tmp_path / "out", rank=1, targets="attention+ffn")
    assert float(facts["beyond the rank"].split()[0]) > 10


def test_the_base_in_between_is_still_told_apart(folders, tmp_path):
    extract_folders(folders / "image", folders / "adapted", tmp_path / "out", rank=1, targets="attention+ffn")
    assert not read_record(tmp_path / "out/adapter").adds_condition
    base, _ = load_transformer(folders / "base")
    with pytest.raises(UserError, match="was made on the base"):
        load_adapter(base, WAN, tmp_path / "out/adapter")


def test_adapters_of_before_are_read_and_add_no_condition(tmp_path):
    assert not read_record(bundled_adapters()["shapes-dc"]).adds_condition
    base = tiny_transformer("wan")
    moved = move_transformer(base, WAN, latent_channels=6, patch_size=(1, 1, 1), seed=0)
    record = AdapterRecord(
        adaptation=AdaptationInfo(base=fingerprint(base), **SPACE), patch_size=(1, 1, 1), lora=None, adds_condition=True
    )
    write_adapter(tmp_path / "adapter", moved, record, {}, ends_of(moved, WAN), torch.float32)
    with pytest.raises(UserError, match="has no place for"):  # ends without the condition's channels
        load_adapter(base, WAN, tmp_path / "adapter")
