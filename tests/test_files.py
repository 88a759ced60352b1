"""Files and folders that are whole or not there."""

import os

import pytest

from dcvideogen.files import whole_file, whole_folder, write_json


def test_a_folder_is_written_as_a_whole_or_stays_as_it_was(tmp_path):
    with whole_folder(tmp_path / "a" / "b") as folder:
        (folder / "one").write_text("first")
    partial = whole_folder(tmp_path / "a" / "b")
    with pytest.raises(KeyboardInterrupt), partial as folder:  # noqa: PT012 - what was written before is the point
        (folder / "one").write_text("second")
        raise KeyboardInterrupt
    assert [path.read_text() for path in (tmp_path / "a").rglob("*") if path.is_file()] == ["first"]
    with whole_folder(tmp_path / "a" / "b") as folder:
        (folder / "two").write_text("third")
    assert [path.name for path in (tmp_path / "a").rglob("*")] == ["b", "two"]


def test_a_file_is_written_as_a_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    with pytest.raises(KeyError), whole_file(path) as temporary:  # noqa: PT012 - what was written before is the point
        assert temporary.suffix == ".json"
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == '{\n "a": 1\n}\n'
    assert os.listdir(tmp_path) == ["a.json"]


def test_what_a_killed_process_of_the_same_number_left_is_in_nobodys_way(tmp_path):
    for name in (f".b.{os.getpid()}.partial", f".b.{os.getpid()}.old", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stale").touch()
    with whole_folder(tmp_path / "b") as folder:
        (folder / "new").touch()
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["b", "new"]
