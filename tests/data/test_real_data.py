import os
from pathlib import Path

import pytest

from dcvideogen.data.check import check_source
from dcvideogen.data.settings import CheckSettings

CLIPS = os.environ.get("DCVIDEOGEN_CLIPS")

pytestmark = pytest.mark.skipif(CLIPS is None, reason="set DCVIDEOGEN_CLIPS to a folder of real clips")


def test_nothing_is_left_out_of_real_clips_and_every_container_and_codec_is_counted(tmp_path):
    report = check_source(Path(CLIPS), tmp_path, CheckSettings(scan_frames=40, sample_frames=4), jobs=1)
    assert report.rejected == []
    assert all(record.frames >= 60 and record.scanned == 40 for record in report.usable)
    assert {record.codec for record in report.usable} >= {"h264", "hevc", "mpeg4", "vp8", "vc1"}
