"""What does the link through time give? Causal, chunk-causal and non-causal at equal weights, data, steps and compute.

All configurations of a seed begin with the same weights (the modes share one conv class; a causal conv's taps stand
one frame earlier) and see the same batches, on clips of several chunks. Tested on other clips at 1, 2 and 5 times the
training length. A run that is done is skipped, one that was stopped goes on from its checkpoint, so the same command
may be killed and started at will; the report is written anew from all runs that are done.

    python benchmarks/autoencoder_study.py --data CLIPS -o out/study --report benchmarks/results/autoencoder_study_cpu
    ... --chunks 40 --num-frames 160 --size 128 --start random --steps 20000     (for a GPU)

Needs the names in SLOW, FAST and TRAINING as files of CLIPS, or others by --slow, --fast and --training.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from study_clips import StudyClips, decode, find_clips, read_test_clip
from study_measure import evaluate
from study_report import write_report
from study_runs import check_settings, unfinished, write_json
from torch import nn

from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.errors import UserError
from dcvideogen.training.linear_start import start_from_dct
from dcvideogen.training.loop import fit
from dcvideogen.training.losses import charbonnier
from dcvideogen.training.settings import FitSettings

log = logging.getLogger("study")

# By measured motion (mean change from frame to frame, 8-bit levels at 192 pixels): below 1.3, and above 3.6.
SLOW = ("aws_glass_facade", "intel_bottles", "sam2_dog_jump")
FAST = ("sam2_cups_shuffle", "gopro_walkway", "mdn_crystal_lotus")
TRAINING = (
    "gcp_cat_still", "maxine_man_face", "mdn_flower", "intel_sign_walk", "cosmos_robot_handover", "bbb_rabbit_wakes",
    "mdn_his_girl_friday_bw", "sam2_pour_coffee", "winui_aquarium_fish", "udacity_highway", "cosmos_suburb_drive",
    "maui_man_talking", "mdn_stream_of_water", "intel_cars_top_view", "sam2_letter_blocks", "cosmos_cat_leash_night",
    "cosmos_dusk_traffic_side", "tears_of_steel_battle",
)  # fmt: skip

# f8t4, 1.1 M parameters: at f32 a clip of 64 pixels would have four latents per frame. Blocks at an eighth of the size
# and full frame rate, and at latent rate: each network sees about 20 frames to each side. With 4 latent channels the
# compression is 192, that of f32t4c64: the less a latent holds, the more its neighbours are worth, and the sooner
# a short training finds that out.
MODEL = {
    "block_out_channels": (16, 32, 32, 64),
    "layers_per_block": (0, 0, 2, 1),
    "spatial_factors": (2, 2, 2, 1),
    "temporal_factors": (1, 1, 1, 4),
}
SAMPLE_CLIPS, SAMPLE_FRAMES, SAMPLE_STEP = 32, 8, 10**6  # for the linear start: eight clips at each of four far steps


@dataclass(frozen=True)
class Study:
    """What all runs share. num_frames, size: of a training clip. start: see `make_model`."""

    num_frames: int = 48
    size: int = 64
    steps: int = 240
    batch_size: int = 2
    learning_rate: float = 6e-4
    latent_channels: int = 4
    start: str = "dct"
    precision: str = "fp32"


@dataclass(frozen=True)
class Configuration:
    """A temporal mode; chunk_frames is 0 where the mode has no chunks."""

    mode: str
    chunk_frames: int = 0

    @property
    def name(self) -> str:
        return f"chunk-causal-{self.chunk_frames}" if self.chunk_frames else self.mode.replace("_", "-")


class StudyTask:
    """Reconstruction with a Charbonnier loss; nothing is held out, for the tests come after the last step."""

    frozen_is_remade = False

    def __init__(self, model: AutoencoderDCV) -> None:
        self.networks: dict[str, nn.Module] = {"autoencoder": model}

    def modules(self):
        return self.networks

    def use_modules(self, modules):
        self.networks = dict(modules)

    def parameters(self):
        return {"autoencoder": [p for p in self.networks["autoencoder"].parameters() if p.requires_grad]}

    def losses(self, batch, step):
        return {"autoencoder": charbonnier(self.networks["autoencoder"](batch.videos), batch.videos, epsilon=0.02)}

    def terms(self):
        return {}

    def metrics(self, folder):
        return {}

    def export(self, folder):
        self.networks["autoencoder"].save_pretrained(folder)


def make_start(study: Study, clips: StudyClips) -> AutoencoderDCV:
    """The weights with which all configurations of a seed begin, as a chunk-causal model.

    "dct": the linear start, which codes every 4x8x8 block by itself; "random": nothing learned.
    """
    torch.manual_seed(clips.seed)
    model = AutoencoderDCV(**MODEL, latent_channels=study.latent_channels, chunk_frames=SAMPLE_FRAMES)
    if study.start == "dct":
        sampler = dataclasses.replace(clips, batch_size=SAMPLE_CLIPS // 4, num_frames=SAMPLE_FRAMES)
        start_from_dct(model, torch.cat([sampler.draw(SAMPLE_STEP - 1 - step)[0] for step in range(4)]))
    return model


def make_model(study: Study, configuration: Configuration, start: AutoencoderDCV) -> AutoencoderDCV:
    """The start in another temporal mode: the same function, where it is the linear one.

    Two convs of the linear start read large numbers, the encoder's last and the head's, and Adam's even steps on their
    weights break it: with all weights trained at a rate of 1e-4 (and 16 latent channels), 25 steps lost 1 to 2.5 dB of
    26 to 34 dB, which a short training does not win back. So these weights stay.
    """
    model = AutoencoderDCV(
        **MODEL,
        latent_channels=study.latent_channels,
        temporal_mode=configuration.mode,
        chunk_frames=configuration.chunk_frames or study.num_frames,
    ).train()
    model.load_state_dict(start.state_dict())
    for module in model.modules():
        if isinstance(module, nn.Conv3d) and configuration.mode == "causal":
            module.weight.data = module.weight.data.roll(1, dims=2)  # its last tap is the present frame
    if study.start == "dct":
        for layer in (model.encoder.layers[-1], model.decoder.layers[-1].upsample.conv):
            layer.weight.requires_grad_(False)
    return model


def train(study: Study, model: AutoencoderDCV, clips: StudyClips, folder: Path, stop_at: int | None) -> bool:
    """Trains, or goes on; False when it was stopped before the end."""
    settings = FitSettings(
        steps=study.steps,
        learning_rate=study.learning_rate,
        warmup_steps=study.steps // 15,
        ema_decay=0.98,
        precision=study.precision,
        seed=clips.seed,
        validate_every=study.steps,
        export_every=study.steps,
        checkpoint_every=max(1, min(100, study.steps // 3)),
        keep_checkpoints=1,
        tensorboard=False,
    )
    return fit(StudyTask(model), clips, settings, folder, stop_at=stop_at)


def run_study(arguments: argparse.Namespace) -> bool:
    """All runs of one seed, then of the next; False when stopped on the way."""
    study = Study(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Study)})
    groups = {"training": arguments.training, "slow": arguments.slow, "fast": arguments.fast}
    check_settings(arguments.output, {**dataclasses.asdict(study), **{name: list(of) for name, of in groups.items()}})
    tested = (*groups["slow"], *groups["fast"])
    if both := set(tested) & set(groups["training"]):
        raise UserError(f"trained and tested on {', '.join(sorted(both))}; leave it out of one of the two")
    files = find_clips(arguments.data, (*groups["training"], *tested))
    cache = arguments.output / "cache"
    videos = [decode(files[name], cache, 2 * study.size, study.num_frames) for name in groups["training"]]
    tests = {name: read_test_clip(files[name], study.num_frames, study.size) for name in tested}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    configurations = [
        Configuration("causal"),
        Configuration("non_causal"),
        *(Configuration("chunk_causal", frames) for frames in arguments.chunks),
    ]
    for seed in arguments.seeds:
        clips = StudyClips(videos, tuple(groups["training"]), seed, study.batch_size, study.num_frames, study.size)
        start = make_start(study, clips)
        if study.start == "dct" and (folder := unfinished(arguments.output / f"start-seed{seed}")):
            model = make_model(study, Configuration("non_causal"), start).eval().to(device)
            results = evaluate(model, tests, study.num_frames, study.num_frames, folder, arguments.chunks)
            write_json(folder / "results.json", results)
        for configuration in configurations:
            folder = unfinished(arguments.output / f"{configuration.name}-seed{seed}")
            if folder is None:
                continue
            log.info("%s, seed %d", configuration.name, seed)
            if not train(study, make_model(study, configuration, start), clips, folder, arguments.stop_at):
                return False
            model = AutoencoderDCV.from_pretrained(folder / "model").eval().to(device)
            chunk_frames = configuration.chunk_frames or study.num_frames
            write_json(folder / "results.json", evaluate(model, tests, study.num_frames, chunk_frames, folder))
    return True


def main(command: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the clips, at any depth")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--report", type=Path, help="where to write the .md and .json, without the suffix")
    parser.add_argument("--plots", type=Path, default=Path("docs/images"))
    parser.add_argument("--hardware", default="2 cores of an AMD EPYC, 24 GiB (one core per run)")
    parser.add_argument("--chunks", type=int, nargs="+", default=[4, 8, 16, 24])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    for field in dataclasses.fields(Study):
        choices = {"start": ("dct", "random"), "precision": ("fp32", "bf16")}.get(field.name)
        option = "--" + field.name.replace("_", "-")
        parser.add_argument(option, type=type(field.default), default=field.default, choices=choices)
    for name, default in (("--training", TRAINING), ("--slow", SLOW), ("--fast", FAST)):
        parser.add_argument(name, nargs="+", default=default, metavar="NAME")
    parser.add_argument("--stop-at", type=int, help="stop the first unfinished run after this step, with a checkpoint")
    arguments = parser.parse_args(command)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        done = run_study(arguments)
        if arguments.report:
            write_report(arguments.output, arguments.report, arguments.plots, arguments.hardware)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if not done:
        log.info("stopped; the same command goes on")


if __name__ == "__main__":
    main()
