"""From the results of all clips to one report: per clip, per subject, and what only exists over several clips."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from dcvideogen.evaluation.frechet import frechet_distance
from dcvideogen.evaluation.latent_statistics import LatentStatistics
from dcvideogen.evaluation.subjects import Traits
from dcvideogen.version import __version__

Result = dict[str, Any]

MIN_CLIPS_RFVD = 2
FEW_CLIPS_RFVD = 401  # below, the covariance of 400 logits is singular


def summarise(
    traits: Sequence[Traits],
    results: dict[str, list[Result]],
    flat_fields: dict[str, Result],
    left_out: list[dict[str, str]],
) -> Result:
    """The report as plain JSON values; `results`: per subject, the results of its clips."""
    subjects = []
    shared = shared_clips(results.values())
    for one in traits:
        clips = results[one.name]
        latents = LatentStatistics()
        for clip in clips:
            if clip["latents"]:
                latents.add(LatentStatistics.from_json(clip["latents"]))
        subjects.append(
            {
                **one.as_json(),
                "num_clips": len(clips),
                "mean": mean_values(clips, shared),
                "rfvd": rfvd(clips),
                "blocks": joined_blocks(clips),
                "latents": latents.report(one.latents_mean, one.latents_std),
                "latent_noise": mean_noise(clips),
                "flat_field": flat_fields.get(one.name),
                "clips": [clip_values(clip) for clip in clips],
            }
        )
    return {
        "version": __version__,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "subjects": subjects,
        "left_out": left_out,
    }


def values_of(clip: Result) -> dict[str, float | None]:
    """The numbers of one clip that are averaged over clips; None where one does not exist."""
    return {
        "psnr_db": clip["psnr_db"]["mean"],
        "ssim": clip["ssim"]["mean"],
        "lpips": clip["lpips"]["mean"],
        "vmaf": clip["vmaf"]["mean"],
        "flicker_levels": clip["flicker_levels"]["mean"],
        "chunk_edge_ratio": clip["chunk_edges"]["ratio"],
        "block_p5_db": clip["blocks"]["percentiles_db"]["5"],
        "worst_5_percent_db": clip["blocks"]["worst_5_percent_mean_db"],
    }


def shared_clips(results: Iterable[Sequence[Result]]) -> dict[str, set[str]]:
    """Per number, the names of the clips to average over: those where every subject that knows the number has it.

    A baseline that gives a black clip back exactly has no PSNR there; over other clips than the rest its mean would not
    be comparable.
    """
    shared: dict[str, set[str]] = {}
    for clips in results:
        for key in values_of(clips[0]) if clips else ():
            present = {clip["clip"] for clip in clips if values_of(clip)[key] is not None}
            if present:
                shared[key] = shared.get(key, present) & present
    return shared


def mean_values(clips: Sequence[Result], shared: dict[str, set[str]]) -> dict[str, float | None]:
    """Plain means over the clips in `shared`; None where there is nothing to average."""
    means = {}
    for key in values_of(clips[0]) if clips else ():
        values = [values_of(clip)[key] for clip in clips if clip["clip"] in shared.get(key, ())]
        present = [value for value in values if value is not None]
        means[key] = float(np.mean(present)) if present else None
    return means


def clip_values(clip: Result) -> Result:
    """What the report keeps of a clip: everything but what was only needed to join clips."""
    kept = {key: value for key, value in clip.items() if key not in ("latents", "i3d", "key")}
    return {**kept, "values": values_of(clip)}


def rfvd(clips: Sequence[Result]) -> Result:
    """Frechet video distance between all inputs and all reconstructions, from the logits of I3D on whole clips."""
    rows = [clip["i3d"] for clip in clips if clip["i3d"]["input"] is not None]
    if len(rows) < MIN_CLIPS_RFVD:
        reasons = [clip["i3d"]["reason"] for clip in clips if clip["i3d"]["reason"]]
        reason = reasons[0] if reasons else f"{len(rows)} clips; at least {MIN_CLIPS_RFVD} are needed"
        return {"value": None, "num_clips": len(rows), "reason": reason, "note": None}
    value = frechet_distance(*(np.array([row[key] for row in rows]) for key in ("input", "reconstruction")))
    note = f"{len(rows)} clips: compare only what was measured on the same ones" if len(rows) < FEW_CLIPS_RFVD else None
    return {"value": value, "num_clips": len(rows), "reason": None, "note": note}


def joined_blocks(clips: Sequence[Result]) -> Result | None:
    """The histogram over all clips, in bins of 1 dB, every block counting once."""
    if not clips:
        return None
    counts = np.sum([clip["blocks"]["histogram_per_db"] for clip in clips], axis=0)
    first = clips[0]["blocks"]
    return {
        "side": first["side"],
        "num_blocks": int(counts.sum()),
        "histogram_from_db": first["histogram_from_db"],
        "histogram_per_db": counts.tolist(),
    }


def mean_noise(clips: Sequence[Result]) -> list[Result] | None:
    """PSNR per level of noise, averaged over the clips."""
    curves = [clip["latent_noise"] for clip in clips if clip["latent_noise"]]
    if not curves:
        return None
    rows = []
    for level in zip(*curves, strict=True):
        present = [row["psnr_db"] for row in level if row["psnr_db"] is not None]
        rows.append({"std": level[0]["std"], "psnr_db": float(np.mean(present)) if present else None})
    return rows
