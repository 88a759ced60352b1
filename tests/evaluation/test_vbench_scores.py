"""VBench's scores against published rows.

VBench: dimensions from arXiv 2311.17982, table of its 16 dimensions; quality, semantic and total from VBench's
leaderboard. VBench-I2V: Wan-2.1-I2V-14B at 720x1280 of the leaderboard, whose three scores DC-VideoGen
(arXiv 2509.25182) reports too.
"""

import pytest

from dcvideogen.errors import UserError
from dcvideogen.evaluation.vbench_scores import I2V_SUITE, T2V_SUITE, check_dimensions, score, suite_of

T2V_ORDER = (
    "subject_consistency", "background_consistency", "temporal_flickering", "motion_smoothness", "dynamic_degree",
    "aesthetic_quality", "imaging_quality", "object_class", "multiple_objects", "human_action", "color",
    "spatial_relationship", "scene", "appearance_style", "temporal_style", "overall_consistency",
)  # fmt: skip
# In percent; then quality, semantic, total.
PUBLISHED = {
    "LaVie": (
        (91.41, 97.47, 98.30, 96.38, 49.72, 54.94, 61.90,
         91.82, 33.32, 96.80, 86.39, 34.09, 52.69, 23.56, 25.93, 26.41),
        (78.78, 70.31, 77.08),
    ),
    "ModelScope": (
        (89.87, 95.29, 98.28, 95.79, 66.39, 52.06, 58.57,
         82.25, 38.98, 92.40, 81.72, 33.68, 39.26, 23.39, 25.37, 25.67),
        (78.05, 66.54, 75.75),
    ),
    "CogVideo": (
        (92.19, 96.20, 97.64, 96.47, 42.22, 38.18, 41.03,
         73.40, 18.11, 78.20, 79.57, 18.24, 28.24, 22.01, 7.80, 7.70),
        (72.06, 46.83, 67.01),
    ),
    "VideoCrafter-0.9": (
        (86.24, 92.88, 97.60, 91.79, 89.72, 44.41, 57.22,
         87.34, 25.93, 93.00, 78.84, 36.74, 43.36, 21.57, 25.42, 25.21),
        (74.91, 65.46, 73.02),
    ),
}  # fmt: skip
WAN_I2V = {
    "camera_motion": 34.76, "i2v_subject": 96.95, "i2v_background": 96.44, "subject_consistency": 94.86,
    "background_consistency": 97.07, "motion_smoothness": 97.90, "dynamic_degree": 51.38, "aesthetic_quality": 64.75,
    "imaging_quality": 70.44,
}  # fmt: skip
# The dimensions themselves are published with two digits, so the last one of a score may differ.
LAST_DIGIT = 0.0101


def shares(percent):
    return {name: value / 100 for name, value in percent.items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_dimensions_give_the_published_scores(name):
    percent, (quality, semantic, total) = PUBLISHED[name]
    scores = score(T2V_SUITE, shares(dict(zip(T2V_ORDER, percent, strict=True))))
    assert scores.groups["quality"] == pytest.approx(quality, abs=LAST_DIGIT)
    assert scores.groups["semantic"] == pytest.approx(semantic, abs=LAST_DIGIT)
    assert scores.total == pytest.approx(total, abs=LAST_DIGIT)
    assert scores.missing == ()


def test_published_dimensions_of_image_to_video_give_the_published_scores():
    scores = score(I2V_SUITE, shares(WAN_I2V))
    assert scores.groups["quality"] == pytest.approx(80.83, abs=LAST_DIGIT)
    assert scores.groups["i2v"] == pytest.approx(92.90, abs=LAST_DIGIT)
    assert scores.total == pytest.approx(86.86, abs=LAST_DIGIT)


@pytest.mark.parametrize(
    ("suite", "first", "second", "total"),
    [
        (T2V_SUITE, 85.67, 74.22, 83.38),  # Wan-2.1-T2V-1.3B, and moved by DC-VideoGen
        (T2V_SUITE, 86.67, 76.48, 84.63),
        (T2V_SUITE, 85.77, 75.58, 83.73),  # Wan-2.1-T2V-14B
        (T2V_SUITE, 86.80, 76.93, 84.83),
        (I2V_SUITE, 80.83, 92.90, 86.86),  # Wan-2.1-I2V-14B
        (I2V_SUITE, 81.39, 94.08, 87.73),
    ],
)
def test_the_papers_scores_give_its_totals(suite, first, second, total):
    weights = suite.weights.values()
    assert sum(w * s for w, s in zip(weights, (first, second), strict=True)) == pytest.approx(total, abs=LAST_DIGIT)
    assert sum(weights) == 1


def test_without_a_dimension_there_is_no_score_of_its_group_and_no_total():
    percent = dict(zip(T2V_ORDER, PUBLISHED["LaVie"][0], strict=True))
    del percent["scene"]
    scores = score(T2V_SUITE, shares(percent))
    assert scores.missing == ("scene",)
    assert (scores.groups["semantic"], scores.total) == (None, None)
    assert scores.groups["quality"] == pytest.approx(78.78, abs=LAST_DIGIT)


def test_flickering_changes_no_score_of_image_to_video():
    assert score(I2V_SUITE, shares({**WAN_I2V, "temporal_flickering": 50})) == score(I2V_SUITE, shares(WAN_I2V))


def test_the_dimensions_say_of_which_suite_they_are():
    assert suite_of(["subject_consistency", "camera_motion"]) is I2V_SUITE
    assert suite_of(["subject_consistency", "scene"]) is T2V_SUITE
    assert suite_of(["subject_consistency"]) is T2V_SUITE
    assert set(T2V_SUITE.names) == set(T2V_ORDER)


def test_dimensions_of_both_suites_are_no_models():
    with pytest.raises(UserError, match="scene, of VBench, and camera_motion, of VBench-I2V, came for one model"):
        suite_of(["scene", "camera_motion"])


def test_a_dimension_that_vbench_does_not_have_is_named():
    with pytest.raises(UserError, match="the list: dimension 'charm' came; VBench has subject_consistency, "):
        check_dimensions(["scene", "charm"], "the list")
