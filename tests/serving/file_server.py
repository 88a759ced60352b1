"""The real server with its real fleet, whose workers write small files: `python file_server.py FOLDER PORT`."""

import subprocess
import sys
from pathlib import Path

import uvicorn
from http_server import KnownPlan, settings
from tiny_server import LIMITS

from dcvideogen.serving import fleet
from dcvideogen.serving.app import create_app

WORKERS = 3


def start(_module: str, argument: str) -> subprocess.Popen:
    script = Path(__file__).with_name("file_worker.py")
    return subprocess.Popen([sys.executable, str(script), argument], stdin=subprocess.PIPE)


if __name__ == "__main__":
    fleet.start = start
    told = settings(Path(sys.argv[1]), limits=LIMITS, port=int(sys.argv[2]), devices=("cpu",) * WORKERS)
    workers = fleet.WorkerFleet(told)
    with workers:
        uvicorn.run(create_app(told, KnownPlan(), workers), port=told.port, log_level="warning", access_log=False)
