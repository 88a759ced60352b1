"""What a model's pictures lose when it is adapted, in the shapes world, and what could give it back: five trainings.

A small image-to-video base begins a video with a frame of an unseen combination; so does what is adapted from it, told
its image in three ways, trained with images left out, or with the first latent given. Every piece goes on where it was
stopped or killed, and skips what is done; several processes may run the same command and share the pieces.

    python benchmarks/image_to_video_study.py --base i2v-base/pipeline --autoencoder shapes-dcae \\
        --clips shapes/manifest.jsonl -o out/image_to_video
    ... --plan            what would run, and the hours that it would take
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from functools import cached_property
from pathlib import Path

import torch
from adaptation_study_arms import Settings
from adaptation_study_jobs import Job, run_jobs
from adaptation_study_options import number_or_share
from adaptation_study_runs import Training
from image_to_video_arms import ARMS, Arm, begin_arm, run_arm, start_file
from image_to_video_plan import tell_plan
from image_to_video_report import write_report
from image_to_video_scoring import Scoring
from study_runs import check_settings, write_json

from dcvideogen.adaptation.cache import BucketSettings, CacheSettings, LatentCache, build_cache, open_cache
from dcvideogen.adaptation.folder import AdaptationInfo, SamplingDefaults, Trained, fingerprint, load_base
from dcvideogen.autoencoder.loading import load_autoencoder
from dcvideogen.conditioning import ImageCondition
from dcvideogen.errors import UserError
from dcvideogen.recipes.shapes_scoring import Sampling, encode_captions, held_out_combinations

log = logging.getLogger("study")


def parse(command: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What adapted image-to-video models lose of their image, and remedies")
    add = parser.add_argument
    add("--base", type=Path, required=True, help="folder of the image-to-video base pipeline")
    add("--autoencoder", required=True, help="folder of our autoencoder, or its name")
    add("--clips", type=Path, required=True, help="manifest.jsonl of `dcvideogen shapes render`")
    add("-o", "--output", type=Path, required=True)
    add("--report", type=Path, help="where to write the .md and .json, without the suffix")
    add("--hardware", default="one CPU core per run")
    add("--arms", nargs="+", default=list(ARMS), choices=list(ARMS), metavar="ARM")
    add("--seeds", type=int, nargs="+", default=[0], help="of the trainings")
    add("--plan", action="store_true", help="print what would run, and do nothing else")
    add("--stop-at", type=int, help="stop the first unfinished training behind this step")
    add("--optimizer", choices=("adamw", "muon"), default="muon")
    for name, value in {
        "steps": 500, "rate": 2e-3, "batch-size": 16, "rank": 32, "alpha": 64.0, "ema-decay": 0.99, "shift": 3.0,
        "guidance": 3.0, "sampling-steps": 20, "captions": 64, "videos": 1, "size": 128, "num-frames": 32,
        "max-sequence-length": 64, "alignment-clips": 256, "alignment-held-out": 32,
    }.items():  # fmt: skip
        add(f"--{name}", type=type(value), default=value)
    add("--held-out", type=number_or_share, default=64)
    return parser.parse_args(command)


class ImageStudy:
    """What all pieces share."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.output = arguments, arguments.output
        self.training = Training(
            (arguments.steps,), arguments.batch_size, arguments.optimizer, arguments.rank, arguments.alpha,
            arguments.ema_decay,
        )  # fmt: skip
        self.settings = Settings(arguments.shift, 0, 0, 0, 0)  # nothing is aligned by sgd
        self.starts = self.output / "starts"

    def cache_settings(self, how: ImageCondition) -> CacheSettings:
        arguments = self.arguments
        return CacheSettings(
            source=arguments.clips, autoencoder=str(arguments.autoencoder), base=arguments.base,
            num_frames=arguments.num_frames, fps=16, held_out=arguments.held_out,
            buckets=BucketSettings(height=arguments.size, width=arguments.size),
            alignment_clips=arguments.alignment_clips, alignment_held_out=arguments.alignment_held_out,
            max_sequence_length=arguments.max_sequence_length, image_to_video=True, image_condition=how, device="cpu",
        )  # fmt: skip

    def fixed(self) -> dict:
        """The settings that all runs in a folder share."""
        names = ("base", "autoencoder", "clips", "rate", "captions", "videos", "sampling_steps", "guidance", "shift")
        told = {name: getattr(self.arguments, name) for name in names}
        return {
            **{name: str(value) if isinstance(value, Path) else value for name, value in told.items()},
            **dataclasses.asdict(self.training), "checkpoints": list(self.training.checkpoints),
            "cache": self.cache_settings("zeros").content(),
        }  # fmt: skip

    @property
    def arms(self) -> list[Arm]:
        return [ARMS[name] for name in self.arguments.arms]

    def cache(self, how: ImageCondition) -> LatentCache:
        return open_cache(self.output / f"cache-{how}")

    def cache_job(self, how: ImageCondition) -> Job:
        folder = self.output / f"cache-{how}"
        done = folder.with_suffix(".done")

        def run() -> bool:
            build_cache(self.cache_settings(how), folder)
            done.write_text("")
            return True

        return Job(folder.name, done, (), run)

    @cached_property
    def scoring(self) -> Scoring:
        arguments = self.arguments
        prompts = encode_captions(
            arguments.base, held_out_combinations(arguments.captions), max_sequence_length=arguments.max_sequence_length
        )
        autoencoder = load_autoencoder(arguments.autoencoder).requires_grad_(False)
        sampling = Sampling(arguments.sampling_steps, arguments.shift, arguments.guidance)
        return Scoring(prompts, autoencoder, arguments.num_frames, arguments.size, arguments.videos, sampling)

    def score_base(self) -> bool:
        base, backbone = load_base(self.arguments.base)
        info = self.cache(self.arms[0].image_condition).info
        found = self.scoring.score_base(base, backbone, self.arguments.base, info, self.output / "base.png")
        write_json(self.output / "base.json", found)
        return True

    @cached_property
    def info(self) -> AdaptationInfo:
        """Of the adapters that the runs leave."""
        arguments, geometry = self.arguments, self.scoring.autoencoder.geometry
        base, backbone = load_base(arguments.base)
        config = self.scoring.autoencoder.config
        return AdaptationInfo(
            latent_space_id=config.latent_space_id, latent_channels=config.latent_channels,
            spatial_ratio=geometry.spatial_ratio, temporal_ratio=geometry.temporal_ratio,
            base=fingerprint(base), family=backbone.family,
            sampling=SamplingDefaults(
                steps=arguments.sampling_steps, guidance=arguments.guidance, shift=arguments.shift
            ),
            trained=Trained(
                max_sequence_length=arguments.max_sequence_length,
                sizes=((arguments.size, arguments.size, arguments.num_frames),),
            ),
        )  # fmt: skip

    def start_job(self, arm: Arm, seed: int) -> Job:
        def run() -> bool:
            cache = self.cache(arm.image_condition)
            return begin_arm(arm, seed, self.arguments.base, cache, self.settings, self.starts) is not None

        return Job(f"start-{arm.image_condition}-seed{seed}", start_file(arm, seed, self.starts), (), run)

    def run_job(self, arm: Arm, seed: int) -> Job:
        folder = self.output / "runs" / f"{arm.name}-seed{seed}"

        def run() -> bool:
            folder.mkdir(parents=True, exist_ok=True)
            return run_arm(
                arm, seed, self.arguments.rate, self.arguments.base, self.cache(arm.image_condition), self.training,
                self.settings, self.scoring, self.info, self.starts, folder, self.arguments.stop_at,
            )  # fmt: skip

        return Job(folder.name, folder / "results.json", (start_file(arm, seed, self.starts),), run)

    def run(self) -> bool:
        first = {arm.image_condition: arm for arm in reversed(self.arms)}
        if not run_jobs([self.cache_job(how) for how in first], self.output / "locks"):
            return False
        jobs = [Job("base", self.output / "base.json", (), self.score_base)]
        for seed in self.arguments.seeds:
            jobs += [self.start_job(arm, seed) for arm in first.values()]
            jobs += [self.run_job(arm, seed) for arm in self.arms]
        return run_jobs(jobs, self.output / "locks")


def main(command: list[str] | None = None) -> None:
    arguments = parse(command)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    study, done = ImageStudy(arguments), False
    try:
        if arguments.plan:
            print(tell_plan(study))
            return
        check_settings(arguments.output, study.fixed())
        done = study.run()
        if arguments.report:
            write_report(arguments.output, arguments.report, arguments.hardware)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if not done:
        log.info("stopped; the same command goes on")


if __name__ == "__main__":
    main()
