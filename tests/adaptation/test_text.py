import json
import shutil

import pytest
import torch
from base_folder import write_text_encoder

from dcvideogen.adaptation.fingerprints import Fingerprints
from dcvideogen.adaptation.text import clean, load_text_encoder, pad_embeds, text_fingerprint
from dcvideogen.errors import UserError

TEXTS = ["a red ball", "", "a longer text than the other ones", "a  red &amp;amp; ball"]


@pytest.fixture(scope="module")
def encoder(cache_parts):
    return load_text_encoder(cache_parts[0], max_sequence_length=24, device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture
def own_base(tmp_path):
    write_text_encoder(tmp_path)
    return tmp_path


def test_embeddings_are_those_of_the_wan_pipeline(encoder):
    from diffusers import WanPipeline

    pipeline = WanPipeline(
        tokenizer=encoder.tokenizer, text_encoder=encoder.model, vae=None, scheduler=None, transformer=None
    )
    theirs = pipeline._get_t5_prompt_embeds(TEXTS, max_sequence_length=24, device="cpu", dtype=torch.float32)
    ours, mask = pad_embeds(encoder.encode(TEXTS), 24)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert torch.equal(mask, theirs.abs().sum(dim=-1) > 0)


def test_a_text_is_trimmed_by_its_mask_and_cut_at_the_limit(encoder):
    lengths = [len(text) for text in encoder.encode(TEXTS)]
    assert lengths == [11, 1, 24, 13]  # bytes and the end


def test_the_same_text_has_the_same_embeddings_alone_and_among_others(encoder):
    alone, among = encoder.encode(TEXTS[:1])[0], encoder.encode(TEXTS * 10)[20]
    torch.testing.assert_close(alone, among, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(encoder.encode(TEXTS * 10)[0], among, rtol=0, atol=0)


def test_texts_are_cleaned_as_the_pipeline_cleans_them():
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean

    for text in [*TEXTS, "  &lt;b&gt;\n two\tlines ", "naïve café"]:
        assert clean(text) == prompt_clean(text)


def test_padding_is_zero_and_the_mask_tells_it():
    embeds, mask = pad_embeds([torch.ones(2, 3), torch.ones(4, 3)], 5)
    assert embeds.sum(dim=(1, 2)).tolist() == [6, 12]
    assert mask.sum(dim=1).tolist() == [2, 4]


def test_families_that_show_the_padding_keep_it(cache_parts, tmp_path):
    base = tmp_path / "cog"
    for name in ("text_encoder", "tokenizer"):
        shutil.copytree(cache_parts[0] / name, base / name)
    (base / "model_index.json").write_text(json.dumps({"_class_name": "CogVideoXPipeline"}))
    encoder = load_text_encoder(base, max_sequence_length=12, device=torch.device("cpu"), dtype=torch.float32)
    padded = encoder.encode(["ab", "abcd"])
    assert [len(text) for text in padded] == [12, 12]
    ids = encoder.tokenizer(["ab"], padding="max_length", max_length=12, return_tensors="pt").input_ids
    torch.testing.assert_close(padded[:1], list(encoder.model(ids).last_hidden_state), rtol=1e-5, atol=1e-6)


def test_the_fingerprint_changes_with_weights_and_tokenizer_and_nothing_else(own_base, tmp_path):
    memo = tmp_path / "memo.json"
    first = text_fingerprint(own_base, Fingerprints(memo))
    config = json.loads((own_base / "text_encoder" / "config.json").read_text())
    (own_base / "text_encoder" / "config.json").write_text(json.dumps(config | {"_name_or_path": "elsewhere"}))
    assert text_fingerprint(own_base, Fingerprints(memo)) == first
    write_text_encoder(own_base, seed=1)
    other = text_fingerprint(own_base, Fingerprints(memo))
    assert other != first
    path = own_base / "tokenizer" / "tokenizer_config.json"
    path.write_text(path.read_text() + " ")
    assert text_fingerprint(own_base, Fingerprints(memo)) not in (first, other)


def test_a_digest_is_remembered_until_the_file_changes(tmp_path):
    file, memo = tmp_path / "file", tmp_path / "memo.json"
    file.write_text("abc")
    first = Fingerprints(memo)
    digest = first.file(file)
    first.save()
    assert Fingerprints(memo).file(file) == digest
    assert Fingerprints(memo).file(file, 1, 1) != digest
    file.write_text("abcd")
    assert Fingerprints(memo).file(file) != digest
    with pytest.raises(UserError, match="gone: cannot be read"):
        Fingerprints(memo).file(tmp_path / "gone")


def load(base):
    return load_text_encoder(base, max_sequence_length=8, device=torch.device("cpu"), dtype=torch.float32)


def test_a_base_without_text_encoder_or_tokenizer_is_refused(own_base):
    shutil.rmtree(own_base / "tokenizer")
    with pytest.raises(UserError, match="has no tokenizer folder; give the folder of a whole diffusers pipeline"):
        load(own_base)
    with pytest.raises(UserError, match="no such folder"):
        Fingerprints(own_base / "memo").folder(own_base / "tokenizer")


def test_a_second_text_encoder_is_refused(own_base):
    (own_base / "text_encoder_2").mkdir()
    with pytest.raises(UserError, match="has a text_encoder_2 too; families with one text encoder are supported"):
        load(own_base)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("text_encoder/config.json", "{", "no JSON object"),
        ("text_encoder/config.json", json.dumps({"architectures": ["NoSuchModel"]}), "names the class NoSuchModel"),
        ("tokenizer/tokenizer_config.json", "{", "cannot be read"),
        ("tokenizer/tokenizer_config.json", "{}", "names the class None"),
        ("text_encoder/model.safetensors", "no weights", "cannot be loaded"),
        ("model_index.json", "[]", "no JSON object"),
    ],
)
def test_broken_folders_are_refused_by_name(own_base, file, content, message):
    (own_base / file).write_text(content)
    with pytest.raises(UserError, match=message):
        load(own_base)


def test_weights_that_are_not_all_there_are_refused(own_base):
    from safetensors.torch import load_file, save_file

    path = own_base / "text_encoder" / "model.safetensors"
    weights = load_file(path)
    weights.pop("encoder.final_layer_norm.weight")
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"its weights lack 'encoder.final_layer_norm.weight'"):
        load(own_base)
