import json
import logging
import os
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from media import holiday_folder, moving_frames, write_clip, write_photo, write_shard
from pydantic import ValidationError

from dcvideogen.data.cache import CacheError
from dcvideogen.data.check import check_source
from dcvideogen.data.choose import choose
from dcvideogen.data.dataset import open_dataset
from dcvideogen.data.index import Record
from dcvideogen.data.quarantine import BrokenFile, Quarantine
from dcvideogen.data.settings import BatchSettings, CheckSettings, DataSettings
from dcvideogen.data.sources import index_folder
from dcvideogen.errors import UserError


@pytest.fixture(scope="module")
def holiday(tmp_path_factory):
    return holiday_folder(tmp_path_factory.mktemp("holiday"))


@pytest.fixture
def indexed(tmp_path):
    """Three clips and a photograph with an index."""
    source = tmp_path / "source"
    source.mkdir()
    for number, name in enumerate(("a", "b", "c")):
        write_clip(source / f"{name}.mkv", moving_frames(10 + number, seed=number))
    write_photo(source / "photo.png")
    check_source(source, source, CheckSettings(), jobs=1)
    return source


def names(records):
    return [record.name for record in records]


def test_training_makes_the_index_itself_and_says_what_was_left_out(holiday, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("dcvideogen.data.dataset.available_cores", lambda: 1)
    caplog.set_level(logging.INFO, "dcvideogen")
    settings = DataSettings(source=holiday)
    dataset = open_dataset(settings, tmp_path)
    assert names(dataset.train) == ["beach.mkv", "view.png", "walk.mp4"]
    for words in (
        "has no index",
        "left out: cut.mp4 (truncated: breaks",
        "3 usable files, 3 left out",
        "up to 0.000",
    ):
        assert words in caplog.text
    caplog.clear()
    assert names(open_dataset(settings, tmp_path).train) == names(dataset.train)
    assert "has no index" not in caplog.text  # it was kept
    stricter = DataSettings(source=holiday, check=CheckSettings(min_frames=15))
    assert names(open_dataset(stricter, tmp_path).train) == ["view.png", "walk.mp4"]


def test_an_index_is_read_from_the_source_or_from_where_it_was_written(indexed, tmp_path):
    (indexed / "later.mkv").write_text("not checked yet")
    assert names(open_dataset(DataSettings(source=indexed), tmp_path).train) == [
        "a.mkv", "b.mkv", "c.mkv", "photo.png",
    ]  # fmt: skip
    check_source(indexed, tmp_path / "strict", CheckSettings(min_frames=12), jobs=1)
    settings = DataSettings(source=indexed, index=tmp_path / "strict")
    assert names(open_dataset(settings, tmp_path).train) == ["c.mkv", "photo.png"]
    with pytest.raises(UserError, match="cannot be read"):
        open_dataset(DataSettings(source=indexed, index=tmp_path / "none"), tmp_path)
    with pytest.raises(UserError, match="no such file or folder"):
        open_dataset(DataSettings(source=tmp_path / "moved", index=tmp_path / "strict"), tmp_path)
    with pytest.raises(ValidationError, match="leave one of them out"):
        DataSettings(source=indexed, index=tmp_path, check=CheckSettings())


def test_manifests_and_folders_have_indexes_of_their_own(indexed, tmp_path):
    manifest = indexed / "list.csv"
    manifest.write_text("path\nb.mkv\n")
    check_source(manifest, index_folder(manifest), CheckSettings(), jobs=1)
    assert names(open_dataset(DataSettings(source=manifest), tmp_path).train) == ["b.mkv"]
    assert len(open_dataset(DataSettings(source=indexed), tmp_path).train) == 4


def test_a_source_with_nothing_usable_is_an_error_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr("dcvideogen.data.dataset.available_cores", lambda: 1)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.mp4").write_text("x" * 99)
    for _ in range(2):
        with pytest.raises(UserError, match="nothing usable is left"):
            open_dataset(DataSettings(source=tmp_path / "bad"), tmp_path / "cache")


def record(name, kind="video", **facts):
    return Record(name, facts.pop("path", name), 1, 1, kind=kind, frames=9, **facts)


def test_files_are_chosen_by_name_and_held_out_by_name_number_or_share():
    usable = [record(f"x/{letter}.mp4") for letter in "abcdefgh"] + [record("p.png", "image")]

    def chosen(**settings):
        train, held = choose(DataSettings(source="x", **settings), usable, [])
        assert not set(names(train)) & set(names(held))
        return names(train), names(held)

    assert chosen() == (names(usable), [])
    assert chosen(videos=["c", "x/a.mp4"], photographs=["p"], held_out=["b.mp4"]) == (
        ["x/c.mp4", "x/a.mp4", "p.png"], ["x/b.mp4"],
    )  # fmt: skip
    train, held = chosen(held_out=3)
    assert len(held) == 3
    assert len(train) == 6
    assert "p.png" in train
    assert set(chosen(held_out=2)[1]) < set(held)  # the same ones, however many
    assert chosen(held_out=0)[1] == []
    shares = [set(chosen(held_out=share)[1]) for share in (0.01, 0.3, 0.6)]
    assert 1 == len(shares[0]) <= len(shares[1]) <= len(shares[2])
    assert shares[0] <= shares[1] <= shares[2]
    assert names(choose(DataSettings(source="x", held_out=1), usable[-1:] * 1 + [record("q.png", "image")], [])[1])


def test_a_share_of_many_files_holds_out_no_more_than_fit_in_memory():
    many = [record(f"{number}.mp4") for number in range(200)]
    train, held = choose(DataSettings(source="x", held_out=0.1), many, [])
    assert len(held) == 8
    assert len(train) == 192


def test_parts_of_one_file_are_held_out_together():
    parts = [record(f"{f}.mp4#{n}", path=f"{f}.mp4", start=float(n)) for f in "ab" for n in range(3)]
    train, held = choose(DataSettings(source="x", held_out=1), parts, [])
    assert len(held) == 3
    assert len({item.path for item in held}) == 1
    assert {item.path for item in held}.isdisjoint(item.path for item in train)
    assert names(choose(DataSettings(source="x", videos=["b"]), parts, [])[0]) == ["b.mp4#0", "b.mp4#1", "b.mp4#2"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"videos": ["beach"]}, r"no file 'beach' in the data; it holds: a.mp4, x/b.mp4, y/b.mp4"),
        ({"videos": ["b"]}, r"b could be x/b.mp4, y/b.mp4; give the whole name"),
        ({"videos": ["bad"]}, r"bad.mp4 was left out by the check \(static: stands\)"),
        ({"videos": ["a"], "held_out": ["a.mp4"]}, r"a.mp4 is both trained on and held out"),
        ({"held_out": 3}, r"all 3 usable files are held out"),
    ],
)
def test_names_that_lead_nowhere_are_errors(settings, message):
    usable = [record("a.mp4"), record("x/b.mp4"), record("y/b.mp4")]
    rejected = [record("bad.mp4", reason="static", detail="stands")]
    with pytest.raises(UserError, match=message):
        choose(DataSettings(source="x", **settings), usable, rejected)


@pytest.mark.parametrize("held_out", [-1, 1.0, 1.5, -0.5])
def test_a_number_of_files_or_a_share_must_be_one(held_out):
    with pytest.raises(ValidationError, match="between 0 and 1"):
        DataSettings(source="x", held_out=held_out)


def test_frames_are_decoded_once_to_the_asked_size_and_length(indexed, tmp_path):
    dataset = open_dataset(
        DataSettings(source=indexed, short_side=24, photo_short_side=32, max_frames=7), tmp_path / "cache"
    )
    shapes = {record.name: dataset.frames(record).shape for record in dataset.train}
    assert shapes == {
        "a.mkv": (7, 24, 32, 3), "b.mkv": (7, 24, 32, 3), "c.mkv": (7, 24, 32, 3), "photo.png": (1, 32, 40, 3),
    }  # fmt: skip
    assert dataset.cache.bytes_to_decode(dataset.train) == 0
    again = open_dataset(dataset.settings, tmp_path / "cache")
    (indexed / "a.mkv").unlink()
    assert np.array_equal(again.frames(again.train[0]), dataset.frames(dataset.train[0]))
    other = open_dataset(DataSettings(source=indexed, short_side=20, max_frames=7), tmp_path / "cache")
    assert other.cache.path(other.train[1]) != dataset.cache.path(dataset.train[1])
    assert other.cache.bytes_to_decode(other.train[1:2]) == 7 * 20 * 27 * 3


def test_frames_are_those_of_the_file_and_of_its_part(tmp_path):
    film = moving_frames(20)
    clip = write_clip(tmp_path / "clip.mkv", film, fps=10)
    (tmp_path / "list.csv").write_text("path,start,end\nclip.mkv,0.5,1.5\n")
    write_shard(tmp_path / "s.tar", {"1.mkv": clip})
    for source, expected in (("list.csv", film[5:15]), ("s.tar", film)):
        check_source(tmp_path / source, tmp_path / "index", CheckSettings(), jobs=1)
        dataset = open_dataset(DataSettings(source=tmp_path / source, index=tmp_path / "index"), tmp_path / "cache")
        assert np.array_equal(dataset.frames(dataset.train[0]), expected)


def test_reading_says_how_far_it_is_while_files_come_new(indexed, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("dcvideogen.data.dataset.SECONDS_PER_LINE", 0.0)
    caplog.set_level(logging.INFO, "dcvideogen")
    dataset = open_dataset(DataSettings(source=indexed), tmp_path / "cache")
    for record in [*dataset.train[:2], *dataset.train[:2]]:
        dataset.frames(record)
    said = [entry.getMessage() for entry in caplog.records if "decoded or found" in entry.getMessage()]
    assert said == ["1 of 4 files decoded or found in the cache", "2 of 4 files decoded or found in the cache"]


def test_threads_share_one_cache(indexed, tmp_path):
    dataset = open_dataset(DataSettings(source=indexed), tmp_path / "cache")
    found = []
    threads = [
        threading.Thread(target=lambda: found.append([dataset.frames(r).sum() for r in dataset.train]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(sums == found[0] for sums in found)
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".npy"] * 4


def test_what_a_killed_process_left_is_removed_and_what_is_being_written_is_not(indexed, tmp_path):
    old, fresh = tmp_path / ".a-1.npy.77.1", tmp_path / ".a-1.npy.78.1"
    for path in (old, fresh):
        path.write_text("x")
    os.utime(old, (1, 1))
    open_dataset(DataSettings(source=indexed), tmp_path)
    assert not old.exists()
    assert fresh.exists()


def test_of_those_that_open_a_dataset_together_one_checks_it(holiday, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("dcvideogen.data.dataset.available_cores", lambda: 1)
    caplog.set_level(logging.INFO, "dcvideogen")
    opened = []
    threads = [
        threading.Thread(target=lambda: opened.append(open_dataset(DataSettings(source=holiday), tmp_path)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [names(dataset.train) for dataset in opened] == [["beach.mkv", "view.png", "walk.mp4"]] * 3
    assert caplog.text.count("has no index") == 1


def test_a_damaged_cache_file_is_decoded_again(indexed, tmp_path):
    dataset = open_dataset(DataSettings(source=indexed), tmp_path / "cache")
    whole = np.array(dataset.frames(dataset.train[0]))
    path = dataset.cache.path(dataset.train[0])
    path.write_bytes(path.read_bytes()[:500])
    again = open_dataset(DataSettings(source=indexed), tmp_path / "cache")
    assert np.array_equal(again.frames(again.train[0]), whole)


def test_a_file_that_breaks_later_is_logged_and_goes_to_quarantine(indexed, tmp_path, caplog):
    dataset = open_dataset(DataSettings(source=indexed), tmp_path / "cache")
    broken, gone = dataset.train[0], dataset.train[1]
    data = (indexed / "a.mkv").read_bytes()
    (indexed / "a.mkv").write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    (indexed / "b.mkv").unlink()
    for record, detail in ((broken, "breaks at frame"), (gone, "cannot be read")):
        for _ in range(2):
            with pytest.raises(BrokenFile, match=record.name):
                dataset.frames(record)
        assert record.name in caplog.text
        assert detail in caplog.text
    lines = [json.loads(line) for line in (tmp_path / "cache" / "quarantine.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == ["a.mkv", "b.mkv"]
    assert open_dataset(dataset.settings, tmp_path / "cache").quarantine.names(dataset.train) == ["a.mkv", "b.mkv"]


def test_a_mended_file_leaves_the_quarantine_and_torn_lines_do_not_matter(tmp_path):
    quarantine = Quarantine(tmp_path / "quarantine.jsonl")
    quarantine.add(record("a.mp4"), ValueError("broke\nhere"))
    with quarantine.path.open("a") as file:
        file.write('{"name": "b.m')
    again = Quarantine(quarantine.path)
    assert record("a.mp4") in again
    assert replace(record("a.mp4"), mtime_ns=2) not in again
    assert record("b.mp4") not in again


def test_a_cache_that_cannot_be_written_stops_the_run_and_blames_no_file(indexed, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    dataset = open_dataset(DataSettings(source=indexed), tmp_path / "other")
    dataset.cache.folder = tmp_path / "cache"
    with pytest.raises(CacheError, match="cannot read decoded frames"):
        dataset.frames(dataset.train[0])
    assert dataset.quarantine.names(dataset.train) == []


def test_too_small_a_disk_is_told_before_anything_is_decoded(indexed, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("dcvideogen.data.dataset.shutil.disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"need up to \S+ GiB .* lower data\.max_frames"):
        open_dataset(DataSettings(source=indexed), tmp_path)


def test_held_out_files_are_the_first_frames_of_the_centre(indexed, tmp_path, caplog):
    settings = DataSettings(source=indexed, held_out=["a", "b"], held_out_frames=6, held_out_size=32)
    dataset = open_dataset(settings, tmp_path)
    videos = dataset.held_out()
    assert {name: tuple(video.shape) for name, video in videos.items()} == {
        "a": (1, 3, 6, 32, 32), "b": (1, 3, 6, 32, 32),
    }  # fmt: skip
    assert -1 <= videos["a"].min() < videos["a"].max() <= 1
    assert names(dataset.train) == ["c.mkv", "photo.png"]
    (indexed / "a.mkv").unlink()
    assert list(dataset.held_out()) == ["b"]
    assert "a.mkv is broken" in caplog.text
    (indexed / "b.mkv").unlink()
    with pytest.raises(UserError, match="all 2 held-out files are broken"):
        dataset.held_out()


def test_a_sample_is_a_function_of_its_seed(indexed, tmp_path):
    dataset = open_dataset(DataSettings(source=indexed), tmp_path)
    clips = dataset.sample(3, 5, 8, 32)
    assert clips.shape == (5, 3, 8, 32, 32)
    assert torch.equal(clips, dataset.sample(3, 5, 8, 32))
    assert torch.equal(clips[:2], dataset.sample(3, 2, 8, 32))
    assert not torch.equal(clips, dataset.sample(4, 5, 8, 32))
    drawn = dataset.sampler([BatchSettings(num_frames=8, size=32, batch_size=5)], 3)
    assert not any(torch.equal(clips, drawn.batch(step).videos) for step in range(5))
