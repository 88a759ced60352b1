"""AE-Adapt-V in the shapes world, against all that one could do instead: eight arms, the same steps and data for each.

Every piece goes on where it was stopped or killed, and skips what is done; several processes may run the same command
and share the pieces. Nothing here needs more than the base's folder, our autoencoder and the rendered clips.

    python benchmarks/adaptation_study.py --base BASE --autoencoder DCAE --clips shapes/manifest.jsonl -o out/adaptation
    ... --plan            what would run, and the hours that it would take
    ... --sweep 3e-4 1e-3 3e-3      a short run of each arm for each learning rate first; later calls use the best
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
from functools import cached_property
from pathlib import Path

import torch
from adaptation_study_arms import ARMS, Arm, Settings, begin
from adaptation_study_jobs import SWEEP_SEED, Job, best_rates, run_jobs, subset_manifest
from adaptation_study_options import parse
from adaptation_study_plan import tell_plan
from adaptation_study_report import write_report
from adaptation_study_runs import Scoring, Training, run_arm, time_sampling
from study_runs import check_settings, write_json

from dcvideogen.adaptation.cache import BucketSettings, CacheSettings, LatentCache, build_cache, open_cache
from dcvideogen.adaptation.folder import load_base
from dcvideogen.errors import UserError
from dcvideogen.evaluation.shapes_score import chance
from dcvideogen.recipes.shapes_scoring import dcv_decoder, encode_captions, held_out_combinations, wan_decoder

log = logging.getLogger("study")

SWEPT = ("scratch", "direct", "frozen", "ours", "ours-full")  # (d), (g) and (h) take the rate of (e)
TIMED = 5


class AdaptationStudy:
    """What all pieces share."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.output = arguments, arguments.output
        self.training = Training(
            tuple(sorted(set(arguments.checkpoints))), arguments.batch_size, arguments.optimizer,
            arguments.rank, arguments.alpha, arguments.ema_decay,
        )  # fmt: skip
        self.settings = Settings(
            arguments.shift, arguments.sgd_align_steps, arguments.sgd_head_steps, arguments.sgd_head_batch,
            arguments.sgd_every,
        )  # fmt: skip
        size = arguments.size
        self.cache_settings = CacheSettings(
            source=arguments.clips, autoencoder=str(arguments.autoencoder), base=arguments.base,
            num_frames=arguments.num_frames, fps=16, held_out=arguments.held_out,
            buckets=BucketSettings(height=size, width=size),
            alignment_clips=arguments.alignment_clips, alignment_held_out=arguments.alignment_held_out,
            max_sequence_length=arguments.max_sequence_length, device="cpu",
        )  # fmt: skip

    def fixed(self) -> dict:
        """The settings that all runs in a folder share."""
        paths = {name: str(getattr(self.arguments, name)) for name in ("base", "autoencoder", "clips")}
        return {
            **paths, **dataclasses.asdict(self.training), "checkpoints": list(self.training.checkpoints),
            **dataclasses.asdict(self.settings), "captions": self.arguments.captions,
            "final_captions": self.arguments.final_captions, "final_seeds": self.arguments.final_seeds,
            "sampling_steps": self.arguments.sampling_steps, "guidance": self.arguments.guidance,
            "cache": self.cache_settings.content(),
        }  # fmt: skip

    def build_cache(self) -> bool:
        build_cache(self.cache_settings, self.cache_folder)
        (self.output / "cache.done").write_text("")
        return True

    def build_offset_cache(self) -> bool:
        """Pairs for the alignment of (h) alone: as many as the others have, of the first clips."""
        held_out = self.arguments.alignment_held_out
        count = self.arguments.alignment_clips + held_out
        source = subset_manifest(self.arguments.clips, count, self.output / "offset.jsonl")
        update = {"source": source, "match_time_windows": False, "held_out": held_out}
        build_cache(self.cache_settings.model_copy(update=update), self.output / "cache-offset")
        (self.output / "cache-offset.done").write_text("")
        return True

    @property
    def cache_folder(self) -> Path:
        return self.arguments.cache or self.output / "cache"

    def cache_jobs(self) -> list[Job]:
        jobs = [Job("cache", self.output / "cache.done", (), self.build_cache)]
        if any(not arm.matched for arm in self.arms):
            jobs.append(Job("cache-offset", self.output / "cache-offset.done", (), self.build_offset_cache))
        return jobs

    @cached_property
    def cache(self) -> LatentCache:
        return open_cache(self.cache_folder)

    @cached_property
    def offset_pairs(self) -> LatentCache:
        return open_cache(self.output / "cache-offset")

    @cached_property
    def scoring(self) -> Scoring:
        few, many = (
            encode_captions(
                self.arguments.base, held_out_combinations(count),
                max_sequence_length=self.arguments.max_sequence_length,
            )
            for count in (self.arguments.captions, self.arguments.final_captions)
        )  # fmt: skip
        return Scoring(
            few, many, self.arguments.final_seeds, self.arguments.sampling_steps, self.arguments.shift,
            self.arguments.guidance,
        )  # fmt: skip

    @cached_property
    def decode(self):
        return dcv_decoder(self.arguments.autoencoder)

    @property
    def arms(self) -> list[Arm]:
        return [ARMS[name] for name in self.arguments.arms]

    def base_shape(self, model) -> tuple[int, ...]:
        """Latents of the base for a clip: of the frames that its first latents cover."""
        info, frames = self.cache.info, self.arguments.num_frames
        side = self.arguments.size // info.base_spatial_ratio
        return (model.config.in_channels, frames // info.base_temporal_ratio, side, side)

    def score_base(self) -> bool:
        """base.json: the base by the same protocol, and the seconds of both transformers for one video."""
        base, backbone = load_base(self.arguments.base)
        shape, decode = self.base_shape(base), wan_decoder(self.arguments.base)
        result = {
            name: self.scoring.score(
                base, backbone, decode, shape, final=name == "final", strip=self.output / f"base-{name}.png"
            )
            for name in ("score", "final")
        }
        adapted, _, _ = self.begun(ARMS["direct"], 0)
        own = tuple(self.cache.batch([0]).latents.shape[1:])
        models = {"base": (base, backbone, shape), "adapted": (adapted, backbone, own)}
        result["seconds"] = time_sampling(models, self.scoring, TIMED)
        result["chance"] = chance(self.scoring.many.combinations, self.scoring.many.combinations)
        write_json(self.output / "base.json", result)
        return True

    def begun(self, arm: Arm, seed: int):
        pairs = self.cache if arm.matched else self.offset_pairs
        return begin(self.arguments.base, self.cache, pairs, arm, seed, self.settings, self.output / "starts")

    def start_job(self, arm: Arm, seed: int) -> Job:
        done = self.start_file(arm, seed)
        after = (self.start_file(ARMS["ours"], seed),) if arm.ends == "sgd" else ()
        return Job(f"start-{arm.start}-seed{seed}", done, after, lambda: self.begun(arm, seed) is not None)

    def start_file(self, arm: Arm, seed: int) -> Path:
        return self.output / "starts" / f"{arm.start}-seed{seed}" / "start.json"

    def run_job(self, arm: Arm, seed: int, name: str, rate: float, training: Training, scored: bool) -> Job:
        folder = self.output / name

        def run() -> bool:
            folder.mkdir(parents=True, exist_ok=True)
            pairs = self.cache if arm.matched else self.offset_pairs
            return run_arm(
                arm, seed, rate, self.arguments.base, self.cache, pairs, training, self.settings,
                self.scoring if scored else None, self.decode if scored else None, self.output / "starts", folder,
                self.arguments.stop_at,
            )  # fmt: skip

        after = (self.start_file(arm, seed),) if arm.start else ()
        return Job(name.replace("/", "-"), folder / "results.json", after, run)

    def starts(self, arms: list[Arm], seed: int) -> list[Job]:
        """Each once; the solver's before those that are held against it."""
        needed = [arm for arm in arms if arm.start]
        if any(arm.ends == "sgd" for arm in needed):
            needed = [ARMS["ours"], *needed]
        needed.sort(key=lambda arm: arm.ends == "sgd")
        return [self.start_job(arm, seed) for arm in {arm.start: arm for arm in needed}.values()]

    def sweep(self, rates: list[float]) -> bool:
        """rates.json: the best learning rate of each arm that has its own, by held-out loss after a short run."""
        training = dataclasses.replace(self.training, checkpoints=(self.arguments.sweep_steps,))
        arms = [ARMS[name] for name in SWEPT if ARMS[name] in self.arms]
        jobs = self.starts(arms, SWEEP_SEED)
        for arm in arms:
            jobs += [
                self.run_job(arm, SWEEP_SEED, f"sweep/{arm.name}@{rate:g}", rate, training, False) for rate in rates
            ]
        if not run_jobs(jobs, self.output / "locks"):
            return False
        found = best_rates(self.output / "sweep", SWEPT)
        chosen = {arm: float(min(losses, key=losses.get)) for arm, losses in found.items()}
        write_json(self.output / "rates.json", {"chosen": chosen, "losses": found, "steps": self.arguments.sweep_steps})
        log.info("learning rates: %s", chosen)
        return True

    def rate(self, arm: Arm) -> float:
        path = self.output / "rates.json"
        chosen = json.loads(path.read_text())["chosen"] if path.exists() else {}
        return chosen.get(arm.name if arm.name in SWEPT else "ours", arm.rate)

    def run(self) -> bool:
        if self.arguments.sweep and not self.sweep(self.arguments.sweep):
            return False
        jobs = [Job("base", self.output / "base.json", (), self.score_base)]
        for seed in self.arguments.seeds:
            jobs += self.starts(self.arms, seed)
            for arm in self.arms:
                name = f"runs/{arm.name}-seed{seed}"
                jobs.append(self.run_job(arm, seed, name, self.rate(arm), self.training, True))
        return run_jobs(jobs, self.output / "locks")


def main(command: list[str] | None = None) -> None:
    arguments = parse(command)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    study, done = AdaptationStudy(arguments), False
    try:
        if arguments.plan:
            print(tell_plan(study))
            return
        check_settings(arguments.output, study.fixed())
        done = run_jobs(study.cache_jobs(), arguments.output / "locks") and study.run()
        if arguments.report:
            write_report(arguments.output, arguments.report, arguments.hardware, arguments.base_steps)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if not done:
        log.info("stopped; the same command goes on")


if __name__ == "__main__":
    main()
