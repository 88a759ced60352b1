"""What a server costs: its start, videos a minute, how soon a cancelled job is off the device, memory over many jobs.

`dcvideogen serve` runs with the bundled text-to-video model in processes of its own, and is asked over HTTP as a client
would. Memory is what is resident in each process (VmRSS); of many small videos, so that it is the number of jobs that
counts and not their size.

    python benchmarks/serving.py -o benchmarks/results/serving_cpu --hardware "2 cores of ..."
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import httpx
from study_runs import write_json

from dcvideogen.files import write_text

MODEL, PROMPT = "shapes-dc", "a small red circle moves left on a navy background"
SMALL = {"height": 32, "width": 32, "num_frames": 4, "steps": 1}  # of the jobs that memory is read over
LONG = {"steps": 100}  # of those that are cancelled
QUIET_S, QUIET_SHARE = 0.3, 0.3  # a worker that took less of a core for so long has stopped
PARTS = {"worker": "dcvideogen.serving.worker", "planner": "dcvideogen.serving.planner_process"}


class Server:
    """One that runs, and what its processes take."""

    def __init__(self, client: httpx.Client, process: subprocess.Popen, start_s: float) -> None:
        self.client, self.process, self.start_s = client, process, start_s

    def ask(self, **wanted: object) -> str:
        answer = self.client.post("/v1/videos", json={"model": MODEL, "prompt": PROMPT, **wanted})
        answer.raise_for_status()
        return answer.json()["id"]

    def status(self, job: str) -> str:
        return self.client.get(f"/v1/videos/{job}").json()["status"]

    def stage(self, job: str) -> str | None:
        return (self.client.get(f"/v1/videos/{job}").json()["stage"] or {}).get("name")

    def wait(self, job: str, *wanted: str) -> None:
        while (status := self.status(job)) not in wanted:
            if status in ("failed", "cancelled", "completed"):
                raise SystemExit(f"{job} ended as {status}")
            sleep(0.02)

    def processes(self) -> dict[str, int]:
        """Process ids by what they are."""
        found = {"server": self.process.pid}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes().decode().split("\0")
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:  # it ended
                continue
            for name, module in PARTS.items():
                if parent == self.process.pid and module in command:
                    found[name] = int(folder.name)
        return found

    def resident_mib(self) -> dict[str, float]:
        return {name: _resident_bytes(process) / 2**20 for name, process in self.processes().items()}


def _resident_bytes(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _cpu_s(process: int) -> float | None:
    """None when it ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def served(data: Path) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begun = perf_counter()
    command = [sys.executable, "-c", "from dcvideogen.cli.main import main; main()", "serve", "--model", MODEL]
    command += ["--port", str(port), "--data", str(data), "--queue-length", "1000", "--queued-per-key", "1000"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            while not _answers(client):
                if process.poll() is not None:
                    raise SystemExit("the server ended before it answered")
                sleep(0.02)
            yield Server(client, process, perf_counter() - begun)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def measure_rate(server: Server, videos: int) -> dict:
    """The first video loads the model; then `videos` of the model's own size and steps, queued at once."""
    begun = perf_counter()
    server.wait(server.ask(), "completed")
    first = perf_counter() - begun
    begun = perf_counter()
    jobs = [server.ask(seed=number) for number in range(videos)]
    server.wait(jobs[-1], "completed")
    seconds = perf_counter() - begun
    return {"first_video_s": first, "videos": videos, "videos_per_minute": 60 * videos / seconds}


def measure_cancel(server: Server, times: int) -> dict:
    """Seconds from the request until the job says so, and until its worker computes no more or has ended."""
    said, stopped = [], []
    for _ in range(times):
        job = server.ask(**LONG)
        while server.stage(job) != "denoising":
            sleep(0.02)
        sleep(0.5)
        worker, begun = server.processes()["worker"], perf_counter()
        server.client.post(f"/v1/videos/{job}/cancel").raise_for_status()
        server.wait(job, "cancelled")
        said.append(perf_counter() - begun)
        while True:
            at, before = perf_counter(), _cpu_s(worker)
            sleep(QUIET_S)
            after = _cpu_s(worker)
            if after is None or before is None or after - before < QUIET_SHARE * QUIET_S:
                break
        stopped.append(at - begun)
    return {"times": times, "said_s": _spread(said), "stopped_s": _spread(stopped)}


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "most": max(values)}


def measure_memory(server: Server, jobs: int, every: int) -> Iterator[dict]:
    yield {"jobs": 0, **server.resident_mib()}
    for done in range(every, jobs + 1, every):
        asked = [server.ask(**SMALL, seed=number) for number in range(every)]
        server.wait(asked[-1], "completed")
        yield {"jobs": done, **server.resident_mib()}


def table(found: dict, hardware: str) -> str:
    rate, cancel, memory = found["rate"], found["cancel"], found["memory"]
    names = [name for name in memory[0] if name != "jobs"]
    lines = [
        "# A server of videos: figures", "",
        f"`benchmarks/serving.py` on {hardware}; `{MODEL}`, one worker.", "",
        "| | |", "|---|---|",
        f"| start, until `/healthz` answers | {found['start_s']:.1f} s |",
        f"| first video, the model being loaded for it | {rate['first_video_s']:.1f} s |",
        f"| videos a minute, as the model makes them ({rate['videos']} queued) | {rate['videos_per_minute']:.1f} |",
        f"| cancelled job says so, median and most of {cancel['times']} | {_told(cancel['said_s'])} |",
        f"| its worker computes no more | {_told(cancel['stopped_s'])} |", "",
        f"Resident MiB over {memory[-1]['jobs']} videos of {SMALL['width']}x{SMALL['height']}, "
        f"{SMALL['num_frames']} frames, {SMALL['steps']} step:", "",
        f"| videos | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|",
    ]  # fmt: skip
    lines += [f"| {row['jobs']} | {' | '.join(f'{row[name]:.0f}' for name in names)} |" for row in memory]
    return "\n".join(lines) + "\n"


def _told(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f} s, {spread['most']:.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="the .md and .json, without the suffix")
    parser.add_argument("--hardware", default="an unnamed machine")
    parser.add_argument("--videos", type=int, default=20, help="at the model's own size, for the rate")
    parser.add_argument("--cancels", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=500, help="small ones, for the memory")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as server:
        found = {"start_s": server.start_s, "rate": measure_rate(server, given.videos)}
        found["cancel"] = measure_cancel(server, given.cancels)
        server.wait(server.ask(**SMALL), "completed")  # there is a worker again, with its model
        found["memory"] = []
        for row in measure_memory(server, given.jobs, max(1, given.jobs // 10)):
            found["memory"].append(row)
            write_json(given.output.with_suffix(".json"), {"hardware": given.hardware, **found})
            write_text(given.output.with_suffix(".md"), table(found, given.hardware))


if __name__ == "__main__":
    main()
