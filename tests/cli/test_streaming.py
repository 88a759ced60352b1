import time

import numpy as np
import pytest
import torch
from PIL import Image

from dcvideogen.evaluation.strip import Strip
from dcvideogen.pipelines.resources import PeakMemory, Stopwatch
from dcvideogen.pipelines.streaming import RunOptions, decode_pieces, encode_pieces, model_name, video_pieces


def frames(num_frames: int, height: int = 32, width: int = 40):
    return [np.full((height, width, 3), 10 * index, dtype=np.uint8) for index in range(num_frames)]


def test_no_more_than_a_chunk_is_read_before_its_frames_come_out(tiny):
    taken = []

    def source():
        for index, frame in enumerate(frames(24)):
            taken.append(index)
            yield frame

    run = RunOptions()
    with torch.inference_mode():
        latents = encode_pieces(tiny, video_pieces(source(), 8, torch.device("cpu")), run)
        videos = decode_pieces(tiny, latents, run, 32, 40)
        for chunk in range(1, 4):
            assert next(videos).shape == (1, 3, 8, 32, 40)
            assert len(taken) == 8 * chunk


def test_pieces_are_full_but_the_last():
    pieces = [piece.shape[2] for piece in video_pieces(frames(11), 4, torch.device("cpu"))]
    assert pieces == [4, 4, 3]


def test_a_path_gives_its_last_part_as_the_model_name(tmp_path):
    assert model_name(str(tmp_path)) == tmp_path.name
    assert model_name("bundled-name") == "bundled-name"


def test_an_inner_stage_does_not_count_for_the_outer_one():
    watch = Stopwatch()

    def slow(seconds):
        for _ in range(2):
            time.sleep(seconds)
            yield None

    for _ in watch.iterate("outer", watch.iterate("inner", slow(0.1))):
        time.sleep(0.05)
    assert watch.seconds["inner"] >= 0.2
    assert watch.seconds["outer"] < 0.1
    assert watch.total_s >= 0.3


def test_peak_memory_sees_what_was_freed_again():
    memory = PeakMemory(torch.device("cpu"))
    before = memory.report()["gib"]
    block = np.ones(200 * 2**20, dtype=np.uint8)
    del block
    assert memory.report()["gib"] - before > 0.15
    assert "process" in memory.report()["of"]


@pytest.mark.parametrize(("num_frames", "columns"), [(1, 1), (3, 3), (100, 4)])
def test_a_strip_spreads_its_frames_over_the_clip_and_holds_few(tmp_path, num_frames, columns):
    strip = Strip()
    for frame in (np.full((40, 700, 3), index, dtype=np.uint8) for index in range(num_frames)):
        strip.update(frame, frame + 10)
    assert len(strip._kept) <= 16
    strip.save(tmp_path / "strip.png")
    with Image.open(tmp_path / "strip.png") as sheet:
        width = sheet.width // columns
        assert width == 320
        shown = [sheet.getpixel((column * width + 160, 20))[0] for column in range(columns)]
        assert shown[0] == 0
        assert shown[-1] >= num_frames * 0.8 - 1
        assert sheet.getpixel((160, sheet.height - 5)) == (40, 40, 40)  # an error of 10, four times
