"""What the plans of one video are put together from: memory and time of each phase, each counted once."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from dcvideogen.adaptation.device_speed import conv_speed, matmul_speed
from dcvideogen.pipelines.decoding import decode_needs
from dcvideogen.pipelines.memory_autoencoder import (
    DecodePlan,
    Need,
    decode_need,
    decode_work,
    encode_need,
    encode_work,
)
from dcvideogen.pipelines.memory_models import Asked, Networks
from dcvideogen.pipelines.memory_work import Work, launch_seconds, moved_speed

# Noisy latents, velocities and what a multistep scheduler remembers, in fp32.
LATENT_COPIES = 8
# Strips of so many rows take so much longer than whole chunks: measured for 16 (benchmarks/results/memory_cpu.md),
# in between for 64.
STRIPS_SLOWER = {None: 1.0, 64: 1.25, 16: 1.7}
LOOK_AHEAD = 50  # frames that the video's encoder holds, at 1.5 bytes per pixel


@dataclass(frozen=True)
class Rates:
    """Operations per second of linear layers and of convs; `found` says how that is known.

    launch: seconds to start an operator. moved: bytes per second of pointwise operators. Without them, rates are of
    whole passes that were timed.
    """

    matmul: float
    conv: float
    found: str
    launch: float = 0.0
    moved: float = math.inf

    def seconds(self, work: Work, products: float, *, on_cpu: bool) -> float:
        """products: one of the first two. A GPU computes while the host starts what comes next."""
        launching, computing = work.launches * self.launch, work.flops / products + work.moved / self.moved
        return launching + computing if on_cpu else max(launching, computing)


def measure_rates(networks: Networks, device: torch.device) -> Rates:
    """Takes half a second on a CPU: one linear layer and one conv of the networks' widths, and small operators."""
    words = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
    dtype = networks.transformers[0].dtype
    matmul, told = matmul_speed(networks.width, words[dtype], device)
    channels = networks.autoencoder.config.block_out_channels[0]
    conv, told_conv = conv_speed(channels, words[networks.autoencoder.dtype], device)
    launch, moved = launch_seconds(device), moved_speed(dtype, device)
    rest = f"{launch * 1e6:.2g} us to start an operator, and {moved / 1e9:.2g} GB/s of pointwise ones"
    return Rates(matmul * 1e12, conv * 1e12, f"{told}; {told_conv}; {rest}", launch, moved)


class Counts:
    """Bytes of weights and activations, and seconds of computing, for one video on one kind of device.

    weights: bytes by component. activations: of one forward pass by its batch. latents: bytes while denoising.
    text_seconds: of all windows; forwards: passes of `asked.videos` in all steps. asked: of one window, where the video
    is made in several; what is decoded is the whole.
    """

    def __init__(self, networks: Networks, asked: Asked, rates: Rates, *, on_cpu: bool) -> None:
        self.networks, self.rates, self.on_cpu = networks, rates, on_cpu
        self._video = (asked.height, asked.width, asked.num_frames)
        self.decode_work = decode_work(networks.autoencoder, networks.latent_shape(asked))
        self.whole_windows = asked.num_frames / (asked.window_frames or asked.num_frames)
        self.windows = math.ceil(self.whole_windows)
        self.asked = asked = replace(asked, num_frames=asked.window_frames or asked.num_frames)
        self.weights = networks.weights
        self.text_activations = networks.text_activations(asked)
        self.passes = 2 if asked.guided else 1
        batches = {asked.videos, self.passes * asked.videos}
        self.activations = {batch: networks.transformer_activations(asked, batch) for batch in batches}
        config = networks.transformers[0].config
        # And what goes behind the latents' channels, which is the same for all videos.
        copies = LATENT_COPIES * asked.videos * config.out_channels + config.in_channels - config.out_channels
        self.latents = torch.float32.itemsize * math.prod(networks.latent_shape(asked)) * copies
        self.forwards = asked.steps * self.passes * self.windows
        self.text_seconds = self.windows * self._seconds(networks.text_work(asked), rates.matmul)
        self.image_activations = networks.image_activations(asked)
        self.image_work = networks.image_work(asked)
        self.forward_work = networks.transformer_work(asked)
        self.encode_work = Work()
        if networks.encodes_image(asked):
            self.encode_work = encode_work(networks.autoencoder, networks.latent_shape(asked))
        self.encoding: dict[DecodePlan, Need] = {}
        self.decoding = decode_needs(networks.autoencoder, *self._video, asked.videos, on_cpu=on_cpu)

    def _seconds(self, work: Work, products: float) -> float:
        return self.rates.seconds(work, products, on_cpu=self.on_cpu)

    def denoise_seconds(self, *, as_batch: bool) -> float:
        """Of all steps. as_batch: guidance in one pass of twice the videos."""
        joined = self.passes if as_batch else 1
        one = self._seconds(self.forward_work.batch(joined * self.asked.videos), self.rates.matmul)
        return self.whole_windows * self.asked.steps * self.passes / joined * one

    def decode(self, plan: DecodePlan) -> Need:
        found = self.decoding.get(plan)
        if found is None:
            found = decode_need(self.networks.autoencoder, plan, *self._video, self.asked.videos, on_cpu=self.on_cpu)
            self.decoding[plan] = found
        return found

    def decode_seconds(self, plan: DecodePlan) -> float:
        one = self._seconds(self.decode_work, self.rates.conv)
        return self.asked.videos * one * STRIPS_SLOWER.get(plan.rows_per_step, 1.7)

    def encode(self, plan: DecodePlan) -> Need:
        """Of an image-to-video model's condition: a clip of whole latents that is the image and then nothing."""
        found = self.encoding.get(plan)
        if found is None:
            model = self.networks.autoencoder
            size = model.geometry.video_size(*self.networks.latent_shape(self.asked)[1:])
            whole, encoded = self._clip_frames()
            found = encode_need(model, plan, *size, encoded, on_cpu=self.on_cpu)
            beside = 3 * math.prod(size) * (whole - encoded) * model.dtype.itemsize  # frames that are not encoded
            self.encoding[plan] = found = Need(found.device + beside, found.host)
        return found

    def encode_seconds(self, plan: DecodePlan) -> float:
        """For every window; and of CLIP's look at the images."""
        whole, encoded = self._clip_frames()
        slower = STRIPS_SLOWER.get(plan.rows_per_step, 1.7)
        seconds = self._seconds(self.encode_work, self.rates.conv) * encoded / whole * slower
        return self.windows * (seconds + self._seconds(self.image_work, self.rates.matmul))

    def _clip_frames(self) -> tuple[int, int]:
        """Of the clip that holds the image: frames, and how many of them are encoded at a time."""
        geometry = self.networks.autoencoder.geometry
        whole = geometry.num_video_frames(self.networks.latent_shape(self.asked)[0])
        return whole, geometry.temporal_ratio if self.asked.condition == "alone" else whole

    def writing(self) -> int:
        """Host bytes: a chunk's frames in uint8, and those that the encoder of the video looks ahead."""
        height, width, num_frames = self._video
        chunk = min(num_frames, self.networks.autoencoder.config.chunk_frames)
        return height * width * round(3 * chunk + 1.5 * min(num_frames, LOOK_AHEAD))
