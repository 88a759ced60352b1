import dataclasses
import json
import shutil

import pytest
import torch
from base_folder import CAPTIONS, cache_settings
from safetensors import safe_open

from dcvideogen.adaptation.cache import CacheData, CacheSettings, build_cache, open_cache
from dcvideogen.adaptation.cache_encode import ClipEncoder
from dcvideogen.adaptation.text import load_text_encoder
from dcvideogen.conditioning import condition, condition_video
from dcvideogen.errors import UserError
from dcvideogen.video import read_video

NEAR = {"rtol": 1e-4, "atol": 1e-5}  # one clip alone against a batch of two


@pytest.fixture(scope="module")
def videos(cache_parts, i2v_cache):
    """(1, 3, 8, 64, 64) for each clip of the cache."""
    return [read_video(cache_parts[2].parent / clip.name)[0] for clip in i2v_cache.clips]


@pytest.fixture(scope="module")
def own(cache_parts):
    from dcvideogen.autoencoder.loading import load_autoencoder

    return load_autoencoder(cache_parts[1])


@pytest.fixture(scope="module")
def wan(cache_parts):
    """Latents of the base's autoencoder as the Wan pipeline normalises them."""
    from diffusers import AutoencoderKLWan

    vae = AutoencoderKLWan.from_pretrained(cache_parts[0] / "vae").eval()
    mean, std = (torch.tensor(vae.config[name]).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std"))

    @torch.inference_mode()
    def encode(video):
        return (vae.encode(video).latent_dist.mode() - mean) * (1.0 / std)

    return encode


def test_the_report_counts_what_is_in_the_cache(i2v_report, i2v_cache):
    assert i2v_report.complete
    assert (i2v_report.clips, i2v_report.held_out, i2v_report.aligned, i2v_report.texts) == (6, 2, 3, 6)
    assert (i2v_report.shards, i2v_report.shards_written, i2v_report.skipped) == (4, 4, ())
    files = list(i2v_report.folder.glob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) == i2v_report.bytes
    assert len(i2v_cache) == 6
    assert i2v_cache.buckets == ((8, 64, 64),)


def test_the_info_tells_both_spaces(i2v_cache, own):
    info = i2v_cache.info
    assert info.latent_space_id == own.config.latent_space_id
    assert (info.latent_channels, info.spatial_ratio, info.temporal_ratio) == (16, 32, 4)
    assert (info.base_latent_channels, info.base_spatial_ratio, info.base_temporal_ratio) == (4, 8, 4)
    assert info.time_offset == 3
    assert info.image_to_video
    assert i2v_cache.settings["num_frames"] == 8
    assert "source" not in i2v_cache.settings
    assert info.image_encoder


def test_latents_are_those_of_the_clips(i2v_cache, videos, own):
    batch = i2v_cache.batch(range(6))
    assert batch.latents.shape == (6, 16, 2, 2, 2)
    assert batch.latents.dtype == torch.float32
    assert batch.names == tuple(clip.name for clip in i2v_cache.clips)
    with torch.inference_mode():
        torch.testing.assert_close(batch.latents, torch.cat([own.encode(video) for video in videos]), **NEAR)


def test_base_latents_cover_the_same_frames(i2v_cache, videos, wan):
    """Frames 3 to 7 of 8: latent 0 is frame 3 alone, latent 1 frames 4 to 7, as latent 1 of ours."""
    indices = i2v_cache.indices(False, aligned=True) + i2v_cache.indices(True, aligned=True)
    assert len(indices) == 3
    pairs = i2v_cache.pairs(indices)
    assert torch.equal(pairs.latents, i2v_cache.batch(indices).latents)
    theirs = torch.cat([wan(videos[index][:, :, 3:]) for index in indices])
    assert theirs.shape == (3, 4, 2, 8, 8)
    torch.testing.assert_close(pairs.base_latents, theirs, **NEAR)


def test_the_condition_is_frame_0_for_ours_and_frame_3_for_the_base(i2v_cache, videos, own, wan):
    indices = i2v_cache.indices(False, aligned=True)
    pairs, batch = i2v_cache.pairs(indices), i2v_cache.batch(indices)
    with torch.inference_mode():
        ours = torch.cat([own.encode(condition_video(videos[index][:, :, 0], 8, 4)) for index in indices])
    theirs = torch.cat([wan(condition_video(videos[index][:, :, 3], 5, 1)) for index in indices])
    torch.testing.assert_close(batch.condition, condition(ours), **NEAR)
    assert torch.equal(pairs.condition, batch.condition)
    torch.testing.assert_close(pairs.base_condition, condition(theirs), **NEAR)


@pytest.mark.parametrize("how", ["alone", "chunk"])
def test_the_condition_may_be_made_in_other_ways_for_ours(i2v_settings, i2v_cache, videos, own, how):
    settings = i2v_settings.model_copy(update={"image_condition": how})
    encoder = ClipEncoder(settings, dataclasses.replace(i2v_cache.info, image_encoder=None))
    index = i2v_cache.indices(False, aligned=True)[0]
    encoded, frames = encoder.encode(videos[index], torch.tensor([True])), {"alone": 4, "chunk": 8}[how]
    with torch.inference_mode():
        theirs = own.encode(condition_video(videos[index][:, :, 0], frames, frames))
    assert torch.equal(encoded["condition"][:, :, : theirs.shape[2]], theirs)
    assert not encoded["condition"][:, :, theirs.shape[2] :].any()
    base = i2v_cache.pairs([index]).base_condition[:, 4:]
    torch.testing.assert_close(encoded["base_condition"], base, **NEAR)


def test_a_condition_that_is_made_as_always_leaves_a_cache_its_key(i2v_settings):
    assert "image_condition" not in i2v_settings.content()
    assert i2v_settings.model_copy(update={"image_condition": "alone"}).content()["image_condition"] == "alone"
    with pytest.raises(ValueError, match="image_condition chunk came without image_to_video"):
        CacheSettings(**{**dict(i2v_settings), "image_condition": "chunk", "image_to_video": False})


def test_image_embeddings_are_those_of_the_wan_pipeline(i2v_cache, cache_parts, videos):
    from diffusers import WanImageToVideoPipeline
    from transformers import CLIPVisionModel

    from dcvideogen.adaptation.image_encoder import ImageEncoder
    from dcvideogen.video import video_to_frames

    ours = ImageEncoder(cache_parts[0], torch.device("cpu"), torch.float32)
    pipeline = WanImageToVideoPipeline(
        tokenizer=None, text_encoder=None, vae=None, scheduler=None, transformer=None,
        image_processor=ours.processor,
        image_encoder=CLIPVisionModel.from_pretrained(cache_parts[0] / "image_encoder"),
    )  # fmt: skip
    with torch.inference_mode():
        theirs = pipeline.encode_image(list(video_to_frames(videos[1][:, :, :1])), device="cpu")
    torch.testing.assert_close(i2v_cache.batch([1]).image_embeds, theirs, **NEAR)


def test_texts_are_stored_once_without_padding_and_come_padded(i2v_cache, i2v_report, cache_parts):
    encoder = load_text_encoder(cache_parts[0], max_sequence_length=32, device=torch.device("cpu"), dtype=torch.float32)
    different = ["", *dict.fromkeys(CAPTIONS)]
    with safe_open(i2v_report.folder / "texts-00000.safetensors", framework="pt") as file:
        lengths = file.get_tensor("lengths").tolist()
        assert lengths == [len(text) for text in encoder.encode(different)]
        assert len(file.get_tensor("embeds")) == sum(lengths)
    batch = i2v_cache.batch(range(6))
    assert batch.prompt_embeds.shape == (6, 32, 16)
    for row, clip in enumerate(i2v_cache.clips):
        alone = encoder.encode([clip.caption])[0]
        assert int(batch.prompt_mask[row].sum()) == len(alone)
        torch.testing.assert_close(batch.prompt_embeds[row, : len(alone)], alone, **NEAR)
        assert not batch.prompt_embeds[row, len(alone) :].any()
    embeds, mask = i2v_cache.null_prompt()
    torch.testing.assert_close(embeds[:1], encoder.encode([""])[0], **NEAR)
    assert mask.tolist() == [True] + [False] * 31


def test_a_text_that_is_not_in_the_cache_is_refused(i2v_cache):
    with pytest.raises(UserError, match="no embeddings of the text 'a dog' are cached"):
        i2v_cache.prompts(["a dog"])


def test_indices_choose_by_all_that_is_asked(i2v_cache):
    held, train = i2v_cache.indices(True), i2v_cache.indices(False)
    assert sorted(held + train) == list(range(6))
    assert len(held) == 2
    assert i2v_cache.indices(False, aligned=False) == [i for i in train if not i2v_cache.clips[i].aligned]
    assert i2v_cache.indices(False, bucket=(8, 64, 64)) == train
    assert i2v_cache.indices(False, bucket=(8, 32, 128)) == []


def test_pairs_of_a_clip_without_base_latents_are_refused(i2v_cache):
    with pytest.raises(ValueError, match="has no base latents"):
        i2v_cache.pairs(i2v_cache.indices(False, aligned=False))


def test_the_loop_takes_a_cache_as_data(i2v_cache):
    data = CacheData(i2v_cache, batch_size=2, seed=0)
    assert torch.equal(data.batch(3).latents[1:], data.batch(3, part=1, num_parts=2).latents)
    assert data.batch(3, part=1, num_parts=2).first == 1


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_what_is_stored_in_fewer_bits_is_rounded_and_nothing_else(cache_parts, i2v_cache, tmp_path, dtype):
    settings = cache_settings(*cache_parts, image_to_video=True, stored_dtype=dtype)
    cache = open_cache(build_cache(settings, tmp_path).folder)
    kind = {"fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    assert torch.equal(cache.batch(range(6)).latents, i2v_cache.batch(range(6)).latents.to(kind).float())


@pytest.mark.parametrize("image_to_video", [False, True])
def test_without_an_autoencoder_the_latents_are_the_bases_own(cache_parts, i2v_cache, tmp_path, image_to_video):
    settings = cache_settings(*cache_parts, image_to_video=image_to_video).model_copy(update={"autoencoder": None})
    cache = open_cache(build_cache(settings, tmp_path).folder)
    assert cache.info.latent_space_id == cache.info.base_space_id == i2v_cache.info.base_space_id
    assert not any(clip.aligned for clip in cache.clips)
    both = i2v_cache.indices(False, aligned=True)
    names = [clip.name for clip in cache.clips]
    same = [names.index(i2v_cache.clips[index].name) for index in both]
    torch.testing.assert_close(cache.batch(same).latents, i2v_cache.pairs(both).base_latents, **NEAR)
    batch = cache.batch(same)
    if image_to_video:
        torch.testing.assert_close(batch.condition, i2v_cache.pairs(both).base_condition, **NEAR)
    assert (batch.condition is None) == (batch.image_embeds is None) == (not image_to_video)


def test_the_time_offset_can_be_left_in(cache_parts, i2v_cache, videos, wan, tmp_path):
    cache = open_cache(build_cache(cache_settings(*cache_parts, match_time_windows=False), tmp_path).folder)
    index = cache.indices(False, aligned=True)[0]
    place = [clip.name for clip in i2v_cache.clips].index(cache.clips[index].name)
    torch.testing.assert_close(cache.pairs([index]).base_latents, wan(videos[place][:, :, :5]), **NEAR)


def test_a_cache_of_another_space_is_refused_by_name(i2v_report, i2v_cache):
    own = i2v_cache.info.latent_space_id
    assert len(open_cache(i2v_report.folder, latent_space_id=own)) == 6
    with pytest.raises(UserError, match=f"latents of the space {own}; another-space is needed"):
        open_cache(i2v_report.folder, latent_space_id="another-space")


def test_a_cache_is_found_by_the_folder_of_all_caches(i2v_report, i2v_cache):
    assert open_cache(i2v_report.folder.parent).key == i2v_cache.key == i2v_report.folder.name


def test_a_cache_works_wherever_it_is_copied(i2v_report, i2v_cache, tmp_path):
    copy = shutil.copytree(i2v_report.folder, tmp_path / "copy")
    assert torch.equal(open_cache(copy).batch([0, 5]).latents, i2v_cache.batch([0, 5]).latents)


def test_a_folder_without_a_cache_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no cache; `dcvideogen cache` makes one"):
        open_cache(tmp_path)


def damaged(report, tmp_path):
    return shutil.copytree(report.folder, tmp_path / report.folder.name)


def test_a_cache_that_is_not_complete_is_refused(i2v_report, tmp_path):
    copy = damaged(i2v_report, tmp_path)
    (copy / "index.json").unlink()
    (copy / "clips-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"not complete \(3 of 4 shards\); run `dcvideogen cache` again"):
        open_cache(copy)
    with pytest.raises(UserError, match="not complete"):
        open_cache(tmp_path)


def test_a_missing_shard_is_named(i2v_report, tmp_path):
    copy = damaged(i2v_report, tmp_path)
    (copy / "clips-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"clips-00002.safetensors is missing"):
        open_cache(copy)


def test_a_broken_shard_is_named(i2v_report, tmp_path):
    copy = damaged(i2v_report, tmp_path)
    (copy / "clips-00002.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match=r"clips-00002.safetensors: broken"):
        open_cache(copy).batch(range(6))


def test_a_shard_of_another_cache_is_refused_by_name(i2v_report, tmp_path):
    copy = damaged(i2v_report, tmp_path)
    index = json.loads((copy / "index.json").read_text())
    (copy / "index.json").write_text(json.dumps(index | {"key": "another"}))
    with pytest.raises(UserError, match=f"belongs to the cache {i2v_report.folder.name}, and not to another"):
        open_cache(copy).batch([0])


@pytest.mark.parametrize(
    ("change", "message"),
    [({"format": "other/2"}, "cache of format other/2"), ({"clips": [[1]]}, "index.json is not readable")],
)
def test_an_index_that_cannot_be_read_is_refused(i2v_report, tmp_path, change, message):
    copy = damaged(i2v_report, tmp_path)
    index = json.loads((copy / "index.json").read_text())
    (copy / "index.json").write_text(json.dumps(index | change))
    with pytest.raises(UserError, match=message):
        open_cache(copy)
