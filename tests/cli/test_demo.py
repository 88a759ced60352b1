import pytest

from dcvideogen.cli.demo import camera_flight
from dcvideogen.cli.main import run


def test_the_demo_clip_is_two_chunks_of_a_moving_photograph():
    video = camera_flight()
    assert video.shape == (1, 3, 80, 256, 256)
    assert video.abs().max() <= 1
    assert (video[:, :, 1:] - video[:, :, :-1]).abs().mean() > 0.005
    assert video.std() > 0.3


@pytest.mark.parametrize(("arguments", "message"), [(["nothing.mp4"], "nothing.mp4: no such file"), ([], "is a file")])
def test_wrong_arguments_are_told_before_anything_is_made(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("")
    assert run(["demo", *arguments, "-o", "taken" if not arguments else "out"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
