"""`dcvideogen doctor`: is this machine fit to run the autoencoder, and right?"""

from typing import TYPE_CHECKING

import typer

from dcvideogen.cli.console import err, out

if TYPE_CHECKING:
    import torch

OK, WARNING, BROKEN = "ok", "warning", "broken"
Finding = tuple[str, str, str]  # what, OK / WARNING / BROKEN, in words


def doctor() -> None:
    """Check Python, torch, the conv3d kernels, memory, video libraries and bundled weights."""
    findings: list[Finding] = []
    checks = (check_python, check_torch, check_matmul, check_convolutions, check_memory, check_video, check_weights)
    for check in checks:
        for finding in check():
            findings.append(finding)
            what, verdict, words = finding
            out.print(f"{verdict:<8} {what:<22} {words}", markup=False, soft_wrap=True)
    broken = [what for what, verdict, _ in findings if verdict == BROKEN]
    if broken:
        err.print(f"error: broken here: {', '.join(broken)}; see the lines above", markup=False, soft_wrap=True)
        raise typer.Exit(1)
    num_warnings = sum(verdict == WARNING for _, verdict, _ in findings)
    out.print(f"all well{f', {num_warnings} warnings' if num_warnings else ''}")


def check_python() -> list[Finding]:
    import os
    import platform

    from dcvideogen.version import __version__

    words = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return [("dcvideogen", OK, __version__), ("Python", OK, words)]


def check_torch() -> list[Finding]:
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from dcvideogen.adaptation.device_speed import device_name

    findings = [("torch", *judge_torch(torch.__version__))]
    for package in ("diffusers", "transformers", "accelerate", "safetensors", "numpy"):
        try:
            findings.append((package, OK, version(package)))
        except PackageNotFoundError:
            findings.append((package, BROKEN, "not installed; install dcvideogen with pip, which brings it"))
    if not torch.cuda.is_available():
        return [*findings, ("device", OK, f"{device_name(torch.device('cpu'))}; no GPU that torch can use")]
    for index in range(torch.cuda.device_count()):
        findings.append(("device", OK, f"cuda:{index}, {torch.cuda.get_device_name(index)}, CUDA {torch.version.cuda}"))
    return [*findings, ("cuDNN", *judge_cudnn(torch.backends.cudnn.version()))]


def judge_torch(version: str) -> tuple[str, str]:
    """torch 2.9.0 lost cuDNN's bf16 conv3d: its fallback needs many times the memory."""
    number = version.split("+", maxsplit=1)[0]
    major, minor = (int(part) for part in number.split(".")[:2])
    if (major, minor) < (2, 11):
        known = "its bf16 conv3d needs many times the memory; " if number == "2.9.0" else ""
        return WARNING, f"{version}: {known}2.11 or newer is tested; upgrade torch"
    return OK, version


def judge_cudnn(version: int | None) -> tuple[str, str]:
    """cuDNN 9.8 to 9.10 have wrong or very slow bf16 conv3d kernels. `version`: 91002 for 9.10.2."""
    if version is None:
        return BROKEN, "not found; install the CUDA build of torch with cuDNN"
    major, minor, patch = version // 10000, version // 100 % 100, version % 100
    name = f"{major}.{minor}.{patch}"
    if major == 9 and 8 <= minor <= 10:
        return WARNING, f"{name}: 9.8 to 9.10 are known for wrong or slow bf16 conv3d; 9.15 or newer is better"
    return OK, name


def check_matmul() -> list[Finding]:
    """A bf16 matrix product on the CPU, in a process of its own: it would end this one where a virtual machine reports
    AMX and forbids it."""
    import subprocess
    import sys

    code = "import torch; x = torch.ones(64, 64, dtype=torch.bfloat16); assert (x @ x == 64).all()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return [("matmul bfloat16 cpu", *judge_matmul(done.returncode))]


def judge_matmul(code: int) -> tuple[str, str]:
    """`code`: how the process ended; -4 on an illegal instruction."""
    if code == 0:
        return OK, "runs, and is right"
    how = "an illegal instruction ends the process" if code == -4 else f"the process ended with code {code}"
    return BROKEN, f"{how}; set ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 in the environment, or use fp32"


def check_convolutions() -> list[Finding]:
    import torch

    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    dtypes = (torch.float32, torch.bfloat16)
    return [check_convolution(device, dtype) for device in devices for dtype in dtypes]


def check_convolution(device: str, dtype: "torch.dtype") -> Finding:
    """A 3x3x3 convolution as the model runs them, against float64 on the CPU with the same rounded numbers."""
    import torch
    from torch.nn.functional import conv3d

    what = f"conv3d {str(dtype).removeprefix('torch.')} {device}"
    channels, size = (64, (8, 24, 24)) if device == "cpu" else (256, (10, 64, 64))
    generator = torch.Generator().manual_seed(0)
    video = torch.randn(1, channels, *size, generator=generator).to(dtype)
    weight = (torch.randn(channels, channels, 3, 3, 3, generator=generator) / (27 * channels) ** 0.5).to(dtype)
    try:
        on_device = video.to(device), weight.to(device)
        if device == "cuda":
            conv3d(*on_device, padding=1)  # loads the kernels, which is not what is measured
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        result = conv3d(*on_device, padding=1).cpu()
    except RuntimeError as error:
        return what, BROKEN, f"does not run: {' '.join(str(error).split())}"
    few = slice(0, 8)  # float64 of all output channels would take seconds
    expected = conv3d(video.double(), weight[few].double(), padding=1)
    error = float((result[:, few].double() - expected).square().mean().sqrt() / expected.square().mean().sqrt())
    extra = None
    if device == "cuda":
        extra = (torch.cuda.max_memory_allocated() - before) / result.nbytes
    return what, *judge_convolution(str(dtype).removeprefix("torch."), device, error, extra)


def judge_convolution(dtype: str, device: str, error: float, extra: float | None) -> tuple[str, str]:
    """`error`: relative rms; `extra`: peak memory of the call in sizes of its result, None where not measured.

    Rounding the result alone costs 0.0017 in bf16; fp32 on a GPU may use TF32 (10 bits). A healthy kernel allocates
    its result and a workspace of a few times that; one that unfolds its input needs 27 times.
    """
    limit = 0.01 if dtype == "bfloat16" else 2e-3 if device == "cuda" else 1e-5
    words = f"relative error {error:.1e} (at most {limit:.0e})"
    if extra is not None:
        words += f", peak memory {extra:.1f} x its result"
    if not error <= limit:  # NaN is wrong too
        return BROKEN, f"{words}: wrong results; change torch or cuDNN, or use another --dtype"
    if extra is not None and extra > 8:
        return WARNING, f"{words}: memory-hungry; change torch or cuDNN, or use another --dtype"
    return OK, words


def check_memory() -> list[Finding]:
    import os

    import torch

    findings = []
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = (os.sysconf(name) * page / 2**30 for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
        findings.append(("memory", OK, f"{total:.1f} GiB, {free:.1f} GiB unused"))
    if torch.cuda.is_available():
        free, total = (value / 2**30 for value in torch.cuda.mem_get_info())
        findings.append(("GPU memory", OK, f"{total:.1f} GiB, {free:.1f} GiB unused"))
    return findings


def check_video() -> list[Finding]:
    try:
        from dcvideogen.video.libraries import library_versions
    except ImportError as error:
        return [("video libraries", BROKEN, f"PyAV does not import ({error}); install the package av")]
    return [("video libraries", OK, ", ".join(f"{name} {number}" for name, number in library_versions().items()))]


def check_weights() -> list[Finding]:
    from dcvideogen.weights import verify_bundled

    verdicts = verify_bundled()
    if not verdicts:
        return [("bundled weights", WARNING, "none in this installation; name a model folder with --model")]
    return [
        (f"weights {name}", OK, "checksum as recorded")
        if good
        else (f"weights {name}", BROKEN, "missing, or its checksum is not the recorded one; install the package again")
        for name, good in verdicts.items()
    ]
