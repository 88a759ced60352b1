import json
import os
from dataclasses import replace

import numpy as np
import pytest
from media import holiday_folder, moving_frames, write_clip, write_photo, write_shard

from dcvideogen.data import workers
from dcvideogen.data.check import PARTIAL, available_cores, check_source, nothing_left
from dcvideogen.data.index import Record, fingerprint, read_records, write_records
from dcvideogen.data.judge import REASONS, judge
from dcvideogen.data.settings import CheckSettings
from dcvideogen.errors import UserError


@pytest.fixture(scope="module")
def holiday(tmp_path_factory):
    return holiday_folder(tmp_path_factory.mktemp("holiday"))


def check(source, output, jobs=1, **settings):
    return check_source(source, output, CheckSettings(**settings), jobs=jobs)


def reasons(report):
    return {record.name: record.reason for record in report.rejected}


BROKEN = {"cut.mp4": "truncated", "text.mp4": "unreadable", "still.mp4": "static"}


def test_usable_files_are_indexed_and_the_others_rejected_with_the_reason(holiday, tmp_path):
    seen = []
    report = check_source(
        holiday, tmp_path, CheckSettings(), jobs=1, progress=lambda done, total: seen.append((done, total))
    )
    assert [record.name for record in report.usable] == ["beach.mkv", "view.png", "walk.mp4"]
    assert reasons(report) == BROKEN
    assert report.reasons() == {"truncated": 1, "unreadable": 1, "static": 1}
    assert seen == [(done, 6) for done in range(7)]
    assert read_records(tmp_path / "index.jsonl") == report.usable
    assert read_records(tmp_path / "rejected.jsonl") == report.rejected
    assert sorted(os.listdir(tmp_path)) == ["index.jsonl", "rejected.jsonl"]
    line = json.loads((tmp_path / "index.jsonl").read_text().splitlines()[0])
    assert line["frames"] == 12
    assert line["cuts"] == []
    assert set(BROKEN.values()) <= REASONS.keys()


def test_processes_find_what_one_process_finds(holiday, tmp_path):
    assert check(holiday, tmp_path / "two", jobs=2) == check(holiday, tmp_path / "one")


def test_only_new_and_changed_files_are_decoded_again(tmp_path):
    source = holiday_folder(tmp_path / "source")
    assert check(source, source).scanned == 6
    again = check(source, source)
    assert again.scanned == 0
    assert reasons(again) == BROKEN
    write_clip(source / "new.mkv", moving_frames(9))
    write_clip(source / "beach.mkv", moving_frames(15))
    (source / "walk.mp4").unlink()
    report = check(source, source)
    assert report.scanned == 2
    assert [(record.name, record.frames) for record in report.usable] == [
        ("beach.mkv", 15), ("new.mkv", 9), ("view.png", 1),
    ]  # fmt: skip
    assert check(source, source, min_frames=12).scanned == 0  # judged again, not decoded
    assert check(source, source, cut_levels=30).scanned == 7 - 1


def test_an_interrupted_check_goes_on_where_it_was(holiday, tmp_path):
    def interrupt(done, _total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_source(holiday, tmp_path, CheckSettings(), jobs=1, progress=interrupt)
    assert os.listdir(tmp_path) == [PARTIAL]
    with (tmp_path / PARTIAL).open("a") as file:
        file.write('{"name": "walk.mp4", "pa')  # killed in the middle of a line
    report = check(holiday, tmp_path)
    assert report.scanned == 2
    assert len(report.usable) == 3


@pytest.mark.parametrize(
    ("change", "reason", "names"),
    [
        ({"min_frames": 13}, "too short", {"beach.mkv", "still.mp4"}),
        ({"min_side": 49}, "too small", {"beach.mkv", "walk.mp4", "still.mp4"}),
        ({"codecs": ("h264", "png")}, "codec", {"beach.mkv"}),
        ({"max_static_share": 0.0, "static_levels": 255}, "static", {"beach.mkv", "walk.mp4", "still.mp4"}),
        ({"max_black_share": 0.0, "black_levels": 250}, "black", {"beach.mkv", "walk.mp4", "still.mp4", "view.png"}),
    ],
)
def test_each_threshold_leaves_out_what_it_says(holiday, tmp_path, change, reason, names):
    found = {name for name, why in reasons(check(holiday, tmp_path, **change)).items() if why == reason}
    assert found == names


def test_a_standing_file_is_kept_when_that_is_allowed_and_black_ones_are_left_out(tmp_path):
    write_clip(tmp_path / "still.mp4", np.repeat(moving_frames(1), 12, axis=0))
    write_clip(tmp_path / "black.mp4", np.zeros((12, 48, 64, 3), "u1"))
    report = check(tmp_path, tmp_path, max_static_share=1.0)
    assert [record.name for record in report.usable] == ["still.mp4"]
    assert reasons(report) == {"black.mp4": "black"}


def test_a_source_without_files_and_one_with_nothing_usable_are_errors(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no files"):
        check(tmp_path / "empty", tmp_path / "out")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.mp4").write_text("x" * 99)
    report = check(tmp_path / "bad", tmp_path / "out")
    error = nothing_left(tmp_path / "bad", report, tmp_path / "out")
    assert "nothing usable is left (1 unreadable)" in str(error)
    assert (tmp_path / "out" / "index.jsonl").read_text() == ""


def test_manifests_and_shards_are_checked_like_folders(tmp_path):
    clip = write_clip(tmp_path / "clip.mkv", moving_frames(24))
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,caption,start,end\nclip.mkv,slide,0.25,1\ngone.mp4,,,\nclip.mkv,,8,9\n")
    report = check(manifest, tmp_path / "a")
    (part,) = report.usable
    assert (part.name, part.frames, part.caption, part.path) == ("clip.mkv#0.25-1", 18, "slide", "clip.mkv")
    assert reasons(report) == {"gone.mp4": "missing", "clip.mkv#8-9": "range"}
    manifest.write_text("path,caption,start,end\nclip.mkv,a ramp,0.25,1\n")
    report = check(manifest, tmp_path / "a")
    assert (report.scanned, report.usable[0].caption) == (0, "a ramp")

    shard = write_shard(tmp_path / "s.tar", {"1.mkv": clip, "1.txt": "slide", "2.png": write_photo(tmp_path / "p.png")})
    report = check(shard, tmp_path / "b")
    assert [(r.name, r.path, r.frames, r.caption) for r in report.usable] == [
        ("s.tar/1.mkv", "s.tar", 24, "slide"), ("s.tar/2.png", "s.tar", 1, None),
    ]  # fmt: skip
    assert all(record.offset for record in report.usable)
    assert check(shard, tmp_path / "b").scanned == 0


def test_a_decoder_that_crashes_or_hangs_takes_one_file_down_and_not_the_check(holiday, tmp_path, monkeypatch):
    # The child is a program that fails on one file: dead, hanging, or speaking no JSON.
    program = (
        "import sys, json, os, time\n"
        "head = sys.stdin.readline()\n"
        "for line in sys.stdin:\n"
        "    item = json.loads(line)\n"
        "    name = item['name']\n"
        "    if name == 'cut.mp4': os._exit(7)\n"
        "    if name == 'text.mp4': time.sleep(60)\n"
        "    record = {'name': name, 'path': name, 'bytes': 1, 'mtime_ns': 1, 'reason': 'other'}\n"
        "    print(json.dumps(record), flush=True)\n"
    )
    (tmp_path / "child.py").write_text(program)
    monkeypatch.setattr(workers, "COMMAND", ("-S", str(tmp_path / "child.py")))
    from dcvideogen.data.sources import list_items

    records = {
        record.name: record
        for record in workers.scan_all(list_items(holiday), holiday, CheckSettings(), jobs=2, seconds_per_item=1.0)
    }
    assert len(records) == 6
    assert records["cut.mp4"].reason == "corrupt"
    assert "crashed (exit code 7)" in records["cut.mp4"].detail
    assert "took more than 1 s" in records["text.mp4"].detail
    assert sum(record.reason == "other" for record in records.values()) == 4


def test_an_interruption_does_not_wait_for_what_is_being_decoded(holiday, tmp_path, monkeypatch):
    (tmp_path / "child.py").write_text(
        "import sys, json, time\n"
        "head = sys.stdin.readline()\n"
        "for number, line in enumerate(sys.stdin):\n"
        "    name = json.loads(line)['name']\n"
        "    if name != 'beach.mkv': time.sleep(600)\n"
        "    print(json.dumps({'name': name, 'path': name, 'bytes': 1, 'mtime_ns': 1}), flush=True)\n"
    )
    monkeypatch.setattr(workers, "COMMAND", ("-S", str(tmp_path / "child.py")))

    def interrupt(done, _total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # and not after ten minutes
        check_source(holiday, tmp_path / "out", CheckSettings(), jobs=2, progress=interrupt)
    assert len((tmp_path / "out" / PARTIAL).read_text().splitlines()) == 1


def test_a_broken_index_is_an_error_that_names_the_line(tmp_path):
    record = Record("a", "a", 1, 2, kind="video", frames=3, cuts=(4, 5))
    path = tmp_path / "index.jsonl"
    write_records(path, [record, replace(record, name="b")])
    assert read_records(path) == [record, replace(record, name="b")]
    for bad in ("{", "[]", '{"name": "x"}', '{"name": "x", "path": "x", "bytes": 1, "mtime_ns": 1, "colour": 3}'):
        path.write_text(record.line() + "\n" + bad + "\n")
        with pytest.raises(UserError, match=r"index\.jsonl, line 2: not readable"):
            read_records(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_records(tmp_path / "none.jsonl")


def test_the_fingerprint_tells_other_data_and_not_other_places():
    record = Record("a", "a", 1, 2, kind="video", frames=9, fps=24.0)
    assert fingerprint([record]) == fingerprint([replace(record, path="/elsewhere/a", mtime_ns=5)])
    for change in ({"name": "b"}, {"bytes": 2}, {"frames": 8}, {"cuts": (3,)}, {"fps": 25.0}, {"start": 1.0}):
        assert fingerprint([record]) != fingerprint([replace(record, **change)])
    assert fingerprint([record]) != fingerprint([record, record])


def test_a_record_that_was_rejected_by_a_threshold_is_usable_under_another():
    record = Record(
        "a", "a", 1, 2, kind="video", frames=9, width=64, height=64, black_share=0.0, static_share=0.0, codec="h264"
    )
    short = judge(record, CheckSettings(min_frames=10))
    assert (short.reason, short.detail) == ("too short", "9 frames; 10 asked for")
    assert judge(short, CheckSettings()) == record


def test_there_is_at_least_one_core():
    assert available_cores() >= 1
