import json
import tarfile

import pytest
from media import cut_file, moving_frames, write_clip, write_photo, write_shard

from dcvideogen.data.sources import list_items, source_root
from dcvideogen.errors import UserError


def test_a_folder_offers_its_files_at_any_depth_in_order_of_their_names(tmp_path):
    (tmp_path / "b" / ".hidden").mkdir(parents=True)
    for name in ("b/two.MP4", "a.png", "b/.hidden/x.mp4", ".y.mp4", "c.txt", "index.jsonl", "b/rejected.jsonl"):
        (tmp_path / name).write_text("x")
    items = list_items(tmp_path)
    assert [(item.name, item.problem and item.problem[0]) for item in items] == [
        ("a.png", None), ("b/two.MP4", None), ("c.txt", "other"),
    ]  # fmt: skip
    assert items[1].path == tmp_path / "b" / "two.MP4"
    assert items[1].size == 1
    assert source_root(tmp_path) == tmp_path


def test_what_a_run_wrote_into_the_folder_is_no_data(tmp_path):
    for name in ("a.mp4", "out/run.json", "out/stage/held_out/a.mp4", "more/b.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [item.name for item in list_items(tmp_path)] == ["a.mp4", "more/b.mp4"]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_manifests_name_files_captions_and_parts(tmp_path, suffix):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_text("x")
    manifest = tmp_path / f"list.{suffix}"
    if suffix == "csv":
        manifest.write_text(
            'path,caption,start,end,licence\nb.mp4,"a cat, asleep",,,CC0\na.mp4,,1.5,4,\ngone.mp4,,,,\n'
        )
    else:
        rows = [{"path": "b.mp4", "caption": "a cat, asleep"}, {"path": "a.mp4", "start": 1.5, "end": 4}]
        manifest.write_text("\n".join(json.dumps(row) for row in [*rows, {"path": "gone.mp4"}]) + "\n\n")
    cat, part, gone = list_items(manifest)
    assert (cat.name, cat.path, cat.caption, cat.start, cat.end) == (
        "b.mp4", tmp_path / "b.mp4", "a cat, asleep", None, None,
    )  # fmt: skip
    assert (part.name, part.start, part.end, part.caption) == ("a.mp4#1.5-4", 1.5, 4.0, None)
    assert gone.problem[0] == "missing"
    assert source_root(manifest) == tmp_path


def test_what_a_manifest_says_twice_is_a_problem_of_the_second_line(tmp_path):
    (tmp_path / "a.mp4").write_text("x")
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,start\na.mp4,\na.mp4,2\na.mp4,\n")
    assert [(item.name, item.problem and item.problem[0]) for item in list_items(manifest)] == [
        ("a.mp4", None), ("a.mp4#2-", None), ("a.mp4 (line 4)", "duplicate"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "file,caption\nx,y\n", "its first line names file, caption; a column 'path' is needed"),
        ("a.csv", "", "names nothing"),
        ("a.csv", "path\nx,y\n", "line 2: more fields than columns"),
        ("a.csv", "path,start\nx,soon\n", "line 2: start 'soon' came; seconds"),
        ("a.csv", "path,start\nx,-1\n", "line 2: start '-1' came"),
        ("a.csv", "path,start,end\nx,3,2\n", "line 2: end 2 is not behind start 3"),
        ("a.csv", "path,caption\n,y\n", "line 2: no path"),
        ("a.jsonl", '{"path": "x"}\n{"path"\n', "line 2: no JSON"),
        ("a.jsonl", "[1]\n", "one object per line"),
        ("a.jsonl", '{"path": 3}\n', "line 1: no path"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_an_error_that_names_the_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        list_items(tmp_path / name)


def test_other_sources_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file or folder; a folder of videos"):
        list_items(tmp_path / "nowhere")
    (tmp_path / "a.mp4").write_text("x")
    with pytest.raises(UserError, match=r"a \.mp4 file came; a folder"):
        list_items(tmp_path / "a.mp4")
    (tmp_path / "latin.csv").write_bytes(b"path\n\xe9.mp4\n")
    with pytest.raises(UserError, match="not UTF-8"):
        list_items(tmp_path / "latin.csv")


def test_shards_are_read_by_offset_with_what_is_said_about_each_sample(tmp_path):
    clip = write_clip(tmp_path / "clip.mkv", moving_frames(9))
    photo = write_photo(tmp_path / "photo.png")
    shard = write_shard(
        tmp_path / "000.tar",
        {
            "x/1.txt": "a slide\n",
            "x/1.mkv": clip,
            "x/2.png": photo,
            "x/2.json": '{"caption": "noise", "score": 3}',
            "x/3.mkv": clip,
            "x/3.json": '{"start": 0.1, "end": 0.3}',
            "x/notes.md": "no media",
        },
    )
    items = {item.name: item for item in list_items(shard)}
    assert items.keys() == {f"000.tar/x/{name}" for name in ("1.mkv", "2.png", "3.mkv", "notes.md")}
    assert items["000.tar/x/notes.md"].problem[0] == "other"
    assert items["000.tar/x/1.mkv"].caption == "a slide"
    assert items["000.tar/x/2.png"].caption == "noise"
    assert (items["000.tar/x/3.mkv"].start, items["000.tar/x/3.mkv"].end) == (0.1, 0.3)
    for name, file in (("1.mkv", clip), ("2.png", photo)):
        with items[f"000.tar/x/{name}"].local() as path:
            assert path.read_bytes() == file.read_bytes()
            assert path.suffix == file.suffix
        assert not path.exists()
    assert {item.name for item in list_items(tmp_path)} >= set(items)  # a folder's shards are opened too


def test_broken_shards_become_problems_and_keep_their_good_members(tmp_path):
    clip = write_clip(tmp_path / "clip.mkv", moving_frames(9))
    shard = write_shard(tmp_path / "s.tar", {"1.mkv": clip, "2.mkv": clip})
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as tar:
        tar.add(clip, "1.mkv")
    (tmp_path / "text.tar").write_text("no tar " * 200)
    cut_file(shard, 0.7)
    found = {item.name: item.problem and item.problem[0] for item in list_items(tmp_path)}
    assert found["s.tar/1.mkv"] is None
    assert found["s.tar/2.mkv"] == "truncated"
    assert found["packed.tar"] == found["text.tar"] == "unreadable"


def test_a_shard_that_shrank_or_went_away_is_told_when_a_member_is_read(tmp_path):
    clip = write_clip(tmp_path / "clip.mkv", moving_frames(9))
    (item,) = list_items(write_shard(tmp_path / "s.tar", {"1.mkv": clip}))
    cut_file(item.path, 0.3)
    with pytest.raises(UserError, match="bytes before"), item.local():
        pass
    item.path.unlink()
    with pytest.raises(UserError, match="check the data again"), item.local():
        pass


def test_members_that_cannot_be_used_are_named_with_the_reason(tmp_path):
    clip = write_clip(tmp_path / "clip.mkv", moving_frames(9))
    shard = write_shard(tmp_path / "s.tar", {"1.mkv": clip, "1.json": '{"end": -1}', "2.json": "{"})
    with tarfile.open(shard, "a") as tar:
        tar.add(clip, "1.mkv")
        link = tarfile.TarInfo("3.mkv")
        link.type, link.linkname = tarfile.SYMTYPE, "1.mkv"
        tar.addfile(link)
    found = {item.name: item.problem and item.problem[0] for item in list_items(shard)}
    assert found == {
        "s.tar/1.mkv": "range", "s.tar/1.mkv (again)": "duplicate", "s.tar/2.json": "other", "s.tar/3.mkv": "other",
    }  # fmt: skip
