"""`dcvideogen serve`: a web page and an HTTP API over a queue of videos."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dcvideogen.cli import options
from dcvideogen.cli.console import out
from dcvideogen.cli.keys import DEFAULT_DATA, Data
from dcvideogen.errors import UserError

if TYPE_CHECKING:
    from dcvideogen.serving.limits import Limits
    from dcvideogen.serving.ray_fleet import RayFleet
    from dcvideogen.serving.settings import ServeSettings

NEEDED = ("fastapi", "uvicorn", "python_multipart")
STOP_S = 5  # for answers that are on their way when the server ends


def serve(
    host: Annotated[str, typer.Option(help="Address to listen at; beyond this machine only with keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at.")] = 8000,
    data: Data = DEFAULT_DATA,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A bundled name or a folder, as often as wanted; by default all that are bundled."),
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="auto, cpu, cuda or cuda:N; a worker for each, by default for every GPU.")
    ] = None,
    dtype: options.Dtype = "auto",
    replicas: Annotated[
        int | None,
        typer.Option(
            help="Work in so many Ray Serve replicas, of the cluster that RAY_ADDRESS names or of this machine."
        ),
    ] = None,
    require_keys: Annotated[
        bool, typer.Option("--require-keys", help="Ask for keys on this machine too, as behind a reverse proxy.")
    ] = False,
    queue_length: Annotated[int | None, typer.Option(help="Queued jobs of all together.")] = None,
    queued_per_key: Annotated[int | None, typer.Option(help="Queued jobs of one key.")] = None,
    videos_per_day: Annotated[int | None, typer.Option(help="Videos of one key in a day (UTC).")] = None,
    max_pixels: Annotated[int | None, typer.Option(help="Frames x height x width of a video.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Denoising steps of a video.")] = None,
    keep_days: Annotated[float | None, typer.Option(help="Days that a finished video is kept.")] = None,
    keep_gib: Annotated[float | None, typer.Option(help="GiB that all videos may take; the oldest go first.")] = None,
) -> None:
    """Serve a page and an HTTP API that make videos, one after the other."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f'{missing[0]} is missing; `pip install "dcvideogen[serve]"` brings what a server needs')
    if not 1 <= port <= 65_535:
        raise UserError(f"--port {port} came; 1 to 65535 is allowed")
    if replicas is not None and replicas < 1:
        raise UserError(f"--replicas {replicas} came; 1 or more is allowed")
    for name in device or []:
        options.check_run(None, dtype, name)
    options.check_choice("--dtype", dtype, tuple(options.DTYPES))
    limits = _limits(
        queue_length=queue_length,
        queued_per_key=queued_per_key,
        videos_per_day=videos_per_day,
        video_pixels=max_pixels,
        steps=max_steps,
        output_age_s=None if keep_days is None else keep_days * 86_400,
        output_bytes=None if keep_gib is None else int(keep_gib * 2**30),
    )
    from dcvideogen.serving.settings import is_loopback

    if require_keys or not is_loopback(host):
        _check_keys(data, host)
    _check_port(host, port)
    _run(data, host, port, model, device, dtype, replicas, require_keys, limits)


def _run(
    data: Path,
    host: str,
    port: int,
    sources: list[str] | None,
    devices: list[str] | None,
    dtype: str,
    replicas: int | None,
    require_keys: bool,
    limits: Limits,
) -> None:
    import signal
    import sys

    import uvicorn

    from dcvideogen.serving.app import create_app
    from dcvideogen.serving.fleet import WorkerFleet
    from dcvideogen.serving.planner import PlannerProcess
    from dcvideogen.serving.settings import ServeSettings

    # uvicorn sends the signal that ended it to the process again: workers give their jobs back in both cases.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    out.print("looking at the models ...")
    planner = PlannerProcess(sources or _bundled(), devices or ["auto"], dtype)
    try:
        settings = ServeSettings(data, planner.models, host, port, require_keys, planner.devices, dtype, limits)
        fleet = WorkerFleet(settings) if replicas is None else _replicas(settings, replicas)
        app = create_app(settings, planner, fleet)
        for one in settings.models:
            what = {"t2v": "text to video", "i2v": "image to video", "autoencoder": "reconstructions"}[one.task]
            out.print(f"  {one.name}: {what}", markup=False, soft_wrap=True)
        shown = f"[{host}]" if ":" in host else host
        on = ", ".join(settings.devices) if replicas is None else f"{replicas} replicas"
        out.print(f"serving at http://{shown}:{port}/ on {on}; data in {data}", markup=False, soft_wrap=True)
        with fleet:
            uvicorn.run(
                app,
                host=host,
                port=port,
                http="h11",
                ws="none",
                lifespan="on",
                log_level="warning",
                access_log=False,  # prompts and keys are in no log
                server_header=False,
                proxy_headers=False,  # addresses are not looked at
                timeout_graceful_shutdown=STOP_S,
            )
    finally:
        planner.close()


def _replicas(settings: ServeSettings, number: int) -> RayFleet:
    from dcvideogen.serving.ray_fleet import RayFleet

    return RayFleet(settings, number, settings.devices[0])


def _bundled() -> list[str]:
    from dcvideogen.weights import bundled_adapters, bundled_models, bundled_pipelines

    adapters, bases = bundled_adapters(), bundled_pipelines()
    # Bases for images are made of others on the way to an adapter; only those for text stand beside theirs.
    return [*adapters, *(name for name in bases if f"{name.removesuffix('-base')}-dc" in adapters), *bundled_models()]


def _limits(**given: float | None) -> Limits:
    from pydantic import ValidationError

    from dcvideogen.serving.limits import Limits

    try:
        return Limits(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"a limit of {first['input']} came for {first['loc'][0]}; {first['msg'].lower()}") from None


def _check_keys(data: Path, host: str) -> None:
    from dcvideogen.serving.keys import Keys

    keys = Keys(data)
    valid = [key for key in keys.list_keys() if key.revoked is None]
    keys.close()
    if not valid:
        raise UserError(
            f"--host {host} needs keys, and {data} has none; `dcvideogen keys add NAME --data {data}` makes one"
        )


def _check_port(host: str, port: int) -> None:
    """Before models are looked at for minutes."""
    import socket

    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except OSError as error:
        raise UserError(
            f"cannot listen at {host}:{port} ({error.strerror or error}); choose another --host or --port"
        ) from None
