"""Which videos of a prompt list are there, and the way to the others: that of `dcvideogen generate`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dcvideogen.cli.console import err, out
from dcvideogen.evaluation.vbench_images import find_images
from dcvideogen.evaluation.vbench_prompts import VBenchPrompt
from dcvideogen.pipelines.jobs import Job, check_prompt

if TYPE_CHECKING:
    from dcvideogen.cli.generate_plan import Source
    from dcvideogen.pipelines.asking import Asked


@dataclass(frozen=True)
class Videos:
    """jobs: of this shard, by their first picture (None: text to video). total: of all shards. size_image: the list's
    first picture, by whose shape all videos are sized; None: there are no pictures."""

    folder: Path
    jobs: dict[Path | None, list[Job]]
    total: int
    shard: tuple[int, int]
    size_image: Path | None
    ratio: str | None
    without_dimensions: bool

    @property
    def own(self) -> int:
        return sum(map(len, self.jobs.values()))

    @property
    def there(self) -> int:
        """How many of this shard are there; videos are written whole or not at all."""
        return sum(job.output.exists() for jobs in self.jobs.values() for job in jobs)

    def told(self) -> Iterator[str]:
        part, parts = self.shard
        of_shard = f", {self.own} in shard {part}/{parts}" if parts > 1 else ""
        yield f"{self.total} videos{of_shard}, {self.there} of them there"
        if self.ratio is not None:
            yield f"first pictures: the crops of {self.ratio}"
        if self.without_dimensions:
            yield "this list names no dimensions: 5 videos of every prompt; by VBench's JSON it is 25 for flickering"


def find_videos(
    prompts: Sequence[VBenchPrompt],
    output: Path,
    seed: int,
    crops: tuple[Path, str] | None,
    shard: tuple[int, int],
) -> Videos:
    """output: VBench's folder of videos. crops: folder and ratio of the pictures. shard: (part from 1, of so many).

    UserError: a picture that is missing, a text that is too long.
    """
    images = {} if crops is None else find_images(prompts, crops[0])
    wanted = [(prompt, index) for prompt in prompts for index in range(prompt.samples)]
    jobs: dict[Path | None, list[Job]] = {}
    for prompt, index in wanted[shard[0] - 1 :: shard[1]]:
        check_prompt(prompt.text)
        job = Job(prompt.text, seed, prompt.number(index), output / prompt.file_name(index))
        jobs.setdefault(images.get(prompt.prompt), []).append(job)
    return Videos(
        folder=output,
        jobs=jobs,
        total=len(wanted),
        shard=shard,
        size_image=images.get(prompts[0].prompt),
        ratio=None if crops is None else crops[1],
        without_dimensions=not any(prompt.dimensions for prompt in prompts),
    )


def tell_time(videos: Videos, asked: Asked, source: Source, budget: int | None) -> None:
    """Prints the ways to make one of the videos, and the time of all that are missing."""
    from dcvideogen.cli.generate_plan import tell_plans
    from dcvideogen.pipelines.memory_plan import in_time

    plan = tell_plans(replace(asked, image=videos.size_image), source, budget)
    rest = videos.own - videos.there
    out.print(f"{rest} videos to make: about {in_time(plan.seconds * rest)}", markup=False, soft_wrap=True)


def make_all(videos: Videos, asked: Asked, source: Source, budget: int | None) -> None:
    """Makes what is missing. UserError: a video is there that is of other settings."""
    if not videos.jobs:
        return  # more shards than videos
    from dcvideogen.cli.generate_run import make_videos
    from dcvideogen.pipelines.asking import asked_size

    pipeline = source.load("t2v" if videos.size_image is None else "i2v")
    size = asked_size(pipeline, replace(asked, image=videos.size_image))
    batches = {replace(asked, image=image): jobs for image, jobs in videos.jobs.items()}
    make_videos(pipeline, batches, size, source, budget, alone=False)
    # What a killed process left. VBench takes the suffix of whichever file it sees first for that of all videos.
    others = sorted(path.name for path in videos.folder.iterdir() if path.suffix != ".mp4")
    if others:
        told = f"{others[0]}{f' and {len(others) - 1} others' if len(others) > 1 else ''} in {videos.folder}"
        err.print(f"note: {told}; take away what is no video, once no process makes any", markup=False, soft_wrap=True)
