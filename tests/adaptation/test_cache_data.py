from collections import Counter

import pytest
import torch

from dcvideogen.adaptation.cache import CacheData
from dcvideogen.adaptation.cache_memory import memory_cache
from dcvideogen.errors import UserError


def make_cache(wide=5, tall=3, **changes):
    """Clips whose latents hold their number, in two buckets; the third one is held out."""
    count = wide + tall
    latents = [torch.full((4, 2, *((1, 2) if index < wide else (2, 1))), float(index)) for index in range(count)]
    texts = {"": torch.zeros(1, 6), "a": torch.ones(3, 6)}
    return memory_cache(
        latents, ["a"] * count, texts, max_sequence_length=4, held_out=[index == 2 for index in range(count)], **changes
    )


def clips_of(batch):
    return batch.latents[:, 0, 0, 0, 0].int().tolist()


def test_an_epoch_shows_every_clip_once_and_batches_hold_one_bucket():
    data = CacheData(make_cache(), 2, seed=0)
    assert data.steps_per_epoch == 4  # 4 wide clips in 2 batches, 3 tall ones in 2
    for epoch in range(3):
        steps = range(4 * epoch, 4 * epoch + 4)
        seen = Counter(clip for step in steps for clip in clips_of(data.batch(step)))
        assert set(seen) == {0, 1, 3, 4, 5, 6, 7}
        assert sum(seen.values()) == 8  # one tall clip fills the last batch
        assert all(seen[clip] == 1 for clip in (0, 1, 3, 4))


def test_batches_are_a_function_of_seed_and_step():
    cache = make_cache()
    first, second = CacheData(cache, 2, seed=0), CacheData(cache, 2, seed=0)
    forward = [clips_of(first.batch(step)) for step in range(20)]
    backward = [clips_of(second.batch(step)) for step in reversed(range(20))]
    assert forward == backward[::-1]
    assert forward != [clips_of(CacheData(cache, 2, seed=1).batch(step)) for step in range(20)]
    assert forward[:4] != forward[4:8]


def test_parts_joined_are_the_whole_batch():
    data = CacheData(make_cache(), 4, seed=3)
    whole = data.batch(5)
    parts = [data.batch(5, part, 4) for part in range(4)]
    assert torch.equal(torch.cat([part.latents for part in parts]), whole.latents)
    assert [part.first for part in parts] == [0, 1, 2, 3]
    with pytest.raises(UserError, match="a batch of 4 clips cannot be cut into 3 equal parts"):
        data.batch(0, 0, 3)


def test_chosen_clips_alone_are_drawn():
    data = CacheData(make_cache(), 3, seed=0, indices=[0, 2])
    assert {clip for step in range(5) for clip in clips_of(data.batch(step))} == {0, 2}


def test_a_state_is_taken_back_by_the_same_clips_alone():
    cache = make_cache()
    state = CacheData(cache, 2, seed=0).state()
    CacheData(make_cache(), 2, seed=0).load_state(state)
    with pytest.raises(UserError, match="begun with seed 0; 1 came"):
        CacheData(cache, 2, seed=1).load_state(state)
    with pytest.raises(UserError, match="begun with batch_size 2; 4 came"):
        CacheData(cache, 4, seed=0).load_state(state)
    with pytest.raises(UserError, match=r"begun with clips \(fingerprint\)"):
        CacheData(cache, 2, seed=0, indices=[0, 1]).load_state(state)
    with pytest.raises(UserError, match=r"begun with clips \(fingerprint\)"):
        CacheData(make_cache(latent_space_id="other"), 2, seed=0).load_state(state)


def test_nothing_to_draw_from_is_refused():
    with pytest.raises(UserError, match="holds no clip to train on"):
        CacheData(make_cache(), 2, seed=0, indices=[])
    with pytest.raises(UserError, match="batch_size 0 came"):
        CacheData(make_cache(), 0, seed=0)


def test_a_cache_in_memory_gives_what_was_put_in():
    latents = [torch.randn(16, 2, 2, 2) for _ in range(3)]
    base = [torch.randn(4, 2, 8, 8), None, torch.randn(4, 2, 8, 8)]
    conditions = [torch.randn(16, 2, 2, 2) for _ in range(3)]
    base_conditions = [torch.randn(4, 2, 8, 8), None, torch.randn(4, 2, 8, 8)]
    images = [torch.randn(5, 20) for _ in range(3)]
    texts = {"a": torch.randn(2, 6), "none": torch.randn(1, 6)}
    cache = memory_cache(
        latents, ["a"] * 3, texts, null_prompt="none", base_latents=base, condition=conditions,
        base_condition=base_conditions, image_embeds=images, max_sequence_length=8,
    )  # fmt: skip
    assert cache.buckets == ((8, 64, 64),)
    assert cache.indices(False, aligned=True) == [0, 2]
    batch, pairs = cache.batch([2]), cache.pairs([2])
    assert torch.equal(batch.latents[0], latents[2])
    assert torch.equal(batch.image_embeds[0], images[2])
    assert torch.equal(batch.condition[0, 4:], conditions[2])
    assert torch.equal(pairs.base_latents[0], base[2])
    assert torch.equal(pairs.base_condition[0, 4:], base_conditions[2])
    assert torch.equal(cache.null_prompt()[0][:1], texts["none"])
    assert cache.info.base_latent_channels == 4
