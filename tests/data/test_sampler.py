import threading

import numpy as np
import pytest
import torch
from media import moving_frames, write_clip, write_photo

from dcvideogen.data.check import check_source
from dcvideogen.data.dataset import open_dataset
from dcvideogen.data.settings import BatchSettings, CheckSettings, DataSettings
from dcvideogen.errors import UserError

FILM = np.concatenate([moving_frames(14, seed=4), 255 - moving_frames(16, seed=5)])  # a cut at frame 14


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Three clips of 12, 18 and 30 frames at 24, 24 and 12 frames per second, and two photographs, with an index."""
    source = tmp_path_factory.mktemp("source")
    write_clip(source / "a.mkv", moving_frames(12, seed=1))
    write_clip(source / "b.mkv", moving_frames(18, 40, 56, seed=2))
    write_clip(source / "film.mkv", FILM, fps=12)
    for number in range(2):
        write_photo(source / f"photo{number}.png", seed=number)
    check_source(source, source, CheckSettings(), jobs=1)
    return source


@pytest.fixture
def make(source, tmp_path):
    """A sampler; keywords override the settings of the data."""

    def make(*kinds, seed=5, **settings):
        settings = {"source": source, "short_sides": (32, 48), **settings}
        dataset = open_dataset(DataSettings(**settings), tmp_path)
        return dataset.sampler(kinds or (BatchSettings(num_frames=6, size=24, batch_size=4),), seed)

    return make


def kind(**settings):
    return BatchSettings(**{"num_frames": 6, "size": 24, "batch_size": 4, **settings})


PLAIN = {"mirror": 0.0, "reverse": 0.0, "brightness": 0.0, "photo_share": 0.0, "strides": (1,)}


def corners(clip):
    """Frame numbers, read back from the corner pixel of clips that are as large as their source."""
    return ((clip[0, :, 0, 0] + 1) * 127.5).round().int().tolist()


def test_batches_are_a_function_of_seed_and_step(make):
    one, other = make(), make()
    other.batch(99)  # what was drawn before does not matter
    batch = one.batch(7)
    assert batch.videos.shape == (4, 3, 6, 24, 24)
    assert len(batch.names) == 4
    assert batch.chunk_frames == 40
    assert torch.equal(batch.videos, other.batch(7).videos)
    assert batch.names == other.batch(7).names
    assert not torch.equal(batch.videos, one.batch(8).videos)
    assert not torch.equal(batch.videos, make(seed=6).batch(7).videos)
    assert -1 <= batch.videos.min() < -0.3
    assert 0.3 < batch.videos.max() <= 1


def test_the_parts_of_a_batch_joined_are_the_batch_whatever_their_number(make):
    sampler = make(kind(), kind(num_frames=9, batch_size=8, chunk_frames=4))
    for step in range(6):
        whole = sampler.batch(step)
        for num_parts in (2, 4):
            parts = [sampler.batch(step, part, num_parts) for part in range(num_parts)]
            assert torch.equal(torch.cat([part.videos for part in parts]), whole.videos)
            assert sum((part.names for part in parts), ()) == whole.names
            assert {part.chunk_frames for part in parts} == {whole.chunk_frames}
            assert [part.first for part in parts] == [n * len(whole.names) // num_parts for n in range(num_parts)]
    with pytest.raises(UserError, match=r"batch of [48] clips cannot be cut into 3 equal parts"):
        sampler.batch(0, 0, 3)


def test_threads_in_any_order_draw_what_one_thread_draws(make):
    expected = {step: make().batch(step).videos for step in range(8)}
    sampler, found = make(), {}
    steps = iter([5, 1, 7, 0, 3, 2, 6, 4])
    lock = threading.Lock()

    def read():
        while True:
            with lock:
                step = next(steps, None)
            if step is None:
                return
            found[step] = sampler.batch(step).videos

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[step], expected[step]) for step in expected)


def test_kinds_of_batches_come_at_their_shares_and_in_their_sizes(make):
    kinds = (
        kind(share=3.0),
        kind(share=1.0, size=(32, 48), num_frames=10, batch_size=1, chunk_frames=4),
        kind(share=1.0, size=32, num_frames=1, image=True, batch_size=2),
    )
    sampler = make(*kinds)
    drawn = [kinds.index(sampler.kind_at(step)) for step in range(1000)]
    assert [round(share, 1) for share in np.bincount(drawn) / 1000] == [0.6, 0.2, 0.2]
    shapes = {drawn[step]: tuple(sampler.batch(step).videos.shape) for step in range(30)}
    assert shapes == {0: (4, 3, 6, 24, 24), 1: (1, 3, 10, 32, 48), 2: (2, 3, 1, 32, 32)}
    with pytest.raises(UserError, match="at least one is needed"):
        sampler.dataset.sampler([], 0)


def test_images_come_from_photographs_and_without_any_from_videos(make):
    image = kind(num_frames=1, image=True, batch_size=8)
    assert set(make(image).batch(0).names) == {"photo0.png", "photo1.png"}
    frames = make(image, videos=["a", "b"])
    assert set(frames.batch(0).names) == {"a.mkv", "b.mkv"}
    with pytest.raises(ValueError, match="1 is allowed"):
        BatchSettings(num_frames=2, size=32, image=True)


def test_photographs_become_camera_films_at_their_share(make):
    sampler = make(kind(batch_size=200, num_frames=2, size=8), photo_share=0.4)
    share = sum(name.startswith("photo") for name in sampler.batch(0).names) / 200
    assert 0.3 < share < 0.5
    assert not any(name.startswith("photo") for name in make(kind(batch_size=50), photo_share=0.0).batch(0).names)
    only = make(kind(size=(16, 24)), photographs=["photo1"])
    assert only.batch(0).names == ("photo1.png",) * 4
    assert only.batch(0).videos.shape == (4, 3, 6, 16, 24)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"mirror": 0.0}, {"mirror": 1.0}),
        ({"reverse": 0.0}, {"reverse": 1.0}),
        ({"brightness": 0.0}, {"brightness": 0.5}),
        ({"strides": (1,)}, {"strides": (2,)}),
        ({"short_sides": (32, 32)}, {"short_sides": (48, 48)}),
        ({"photo_share": 1.0, "cut_probability": 0.0}, {"photo_share": 1.0, "cut_probability": 1.0}),
        ({"short_side": 30}, {"short_side": 48}),
        ({"photo_share": 1.0, "photo_short_side": 40}, {"photo_share": 1.0, "photo_short_side": 64}),
        ({"max_frames": 8}, {"max_frames": 300}),
    ],
)
def test_each_setting_changes_what_is_drawn(make, one, other):
    draws = [make(**settings).batch(1).videos for settings in ({**PLAIN, **one}, {**PLAIN, **other})]
    assert not torch.equal(*draws)


def test_short_sides_of_a_kind_come_before_those_of_the_data(make):
    assert torch.equal(
        make(kind(short_sides=(40, 40))).batch(0).videos, make(kind(), short_sides=(40, 40)).batch(0).videos
    )
    with pytest.raises(ValueError, match="the smallest comes first"):
        kind(short_sides=(3, 2))
    with pytest.raises(ValueError, match="the smallest comes first"):
        DataSettings(source="x", short_sides=(3, 2))


def whole_frames(make, **settings):
    """Frame numbers of clips of the film, uncropped."""
    sampler = make(
        kind(num_frames=5, size=(48, 64), batch_size=40, short_sides=(48, 48)), videos=["film"], **{**PLAIN, **settings}
    )
    return [corners(clip) for clip in sampler.batch(0).videos]


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_frames_of_a_clip_follow_each_other_at_the_stride(make, stride):
    gaps = [np.abs(np.diff(clip)) for clip in whole_frames(make, strides=(stride,), split_at_cuts=True)]
    assert {int(gap) for each in gaps for gap in each} == {stride}


def test_clips_at_a_frame_rate_take_the_nearest_frames_and_slow_sources_all_of_theirs(make):
    assert all(np.abs(np.diff(clip)).max() > 1 for clip in whole_frames(make, fps=(4,), split_at_cuts=True))
    for fps in (12, 30):
        assert whole_frames(make, fps=(fps,)) == whole_frames(make, strides=(1,))
    mixed = whole_frames(make, fps=(4, 12), split_at_cuts=True)
    assert {int(abs(clip[1] - clip[0])) for clip in mixed} == {1, 3}


def test_clips_go_across_scene_cuts_or_not_by_choice(make):
    def crossing(clips):
        return sum(np.abs(np.diff(clip)).max() > 50 for clip in clips)

    assert crossing(whole_frames(make, split_at_cuts=False)) > 0
    assert crossing(whole_frames(make, split_at_cuts=True)) == 0


def test_behind_what_was_checked_for_cuts_nothing_is_drawn_when_clips_stay_in_scenes(source, make, tmp_path):
    check_source(source, tmp_path / "short", CheckSettings(scan_frames=10), jobs=1)
    found = whole_frames(make, index=tmp_path / "short", split_at_cuts=True)
    assert max(max(clip) for clip in found) < 10
    assert max(max(clip) for clip in whole_frames(make, index=tmp_path / "short")) > 10


def test_a_clip_longer_than_its_source_stands_still_at_the_end(make):
    clip = make(kind(num_frames=15, batch_size=1), videos=["a"], **PLAIN).batch(0).videos[0]
    assert torch.equal(clip[:, 11], clip[:, 14])
    assert not torch.equal(clip[:, 10], clip[:, 11])


def test_long_videos_are_drawn_more_often_but_not_in_proportion(make):
    names = make(kind(batch_size=600, num_frames=1, size=4), videos=["a", "film"], **PLAIN).batch(0).names
    assert 0.55 < names.count("film.mkv") / 600 < 0.67  # sqrt(30) to sqrt(12) is 0.61; 30 to 12 would be 0.71


def test_a_file_that_breaks_is_drawn_again_the_same_way_before_and_after_it_is_known(source, make, tmp_path):
    reference = make(**PLAIN)
    used = {step: reference.batch(step) for step in range(6)}
    broken = make(cache=None, **PLAIN)
    broken.dataset.cache.folder = tmp_path / "fresh"
    moved = (source / "a.mkv").rename(tmp_path / "a.mkv")
    try:
        first = {step: broken.batch(step) for step in range(6)}
    finally:
        moved.rename(source / "a.mkv")
    again = {step: broken.batch(step) for step in range(6)}
    replaced = 0
    for step, batch in first.items():
        assert torch.equal(batch.videos, again[step].videos)
        assert "a.mkv" not in batch.names
        for place, name in enumerate(used[step].names):
            if name == "a.mkv":
                replaced += 1
            else:
                assert torch.equal(batch.videos[place], used[step].videos[place])
    assert replaced
    assert broken.state()["quarantined"] == ["a.mkv"]


def test_a_resumed_run_leaves_out_what_the_first_one_found_broken(make):
    first, second = make(), make()
    first.dataset.quarantine.adopt([record for record in first.dataset.train if record.name == "b.mkv"])
    state = first.state()
    assert state["quarantined"] == ["b.mkv"]
    second.load_state(state)
    assert all(torch.equal(first.batch(step).videos, second.batch(step).videos) for step in range(5))
    assert not any("b.mkv" in second.batch(step).names for step in range(5))


def test_the_state_of_other_data_or_another_seed_is_refused(make):
    state = make().state()
    make(mirror=0.0).load_state(state)
    with pytest.raises(UserError, match=r"begun with seed 5; 6 came"):
        make(seed=6).load_state(state)
    with pytest.raises(UserError, match=r"begun with other data \(index .*another output folder"):
        make(videos=["a"]).load_state(state)


def test_when_all_files_are_broken_the_run_stops_and_says_where_to_look(make):
    sampler = make()
    sampler.dataset.quarantine.adopt(sampler.dataset.train)
    with pytest.raises(UserError, match=r"64 files that were drawn .*quarantine\.jsonl says why"):
        sampler.batch(0)
