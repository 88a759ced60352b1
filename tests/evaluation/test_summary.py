from dcvideogen.evaluation.summary import mean_values, shared_clips


def clip(name: str, psnr: float | None, ratio: float | None = None) -> dict:
    """As much of a clip's result as is averaged."""
    nothing = {"mean": None}
    return {
        "clip": name,
        "psnr_db": {"mean": psnr},
        **dict.fromkeys(("ssim", "lpips", "vmaf", "flicker_levels"), nothing),
        "chunk_edges": {"ratio": ratio},
        "blocks": {"percentiles_db": {"5": None}, "worst_5_percent_mean_db": None},
    }


def test_means_are_over_the_clips_that_all_subjects_have_a_value_for():
    model = [clip("beach", 30.0, 1.5), clip("lens cap", 50.0, 2.5), clip("cake", 20.0)]
    baseline = [clip("beach", 28.0), clip("lens cap", None), clip("cake", 22.0)]
    peer = [clip("beach", 32.0), clip("lens cap", 60.0)]  # failed on the cake
    shared = shared_clips([model, baseline, peer])
    means = [mean_values(clips, shared)["psnr_db"] for clips in (model, baseline, peer)]
    assert means == [30.0, 28.0, 32.0]


def test_a_number_that_only_one_subject_knows_is_averaged_over_its_clips():
    model = [clip("beach", 30.0, 1.5), clip("lens cap", 50.0, 2.5)]
    shared = shared_clips([model, [clip("beach", 28.0)]])
    assert mean_values(model, shared)["chunk_edge_ratio"] == 2.0
    assert mean_values(model, shared)["lpips"] is None
    assert mean_values([], shared) == {}
