"""A worker that holds its jobs alive and never looks up from them, as in a step of minutes.

python stubborn_worker.py '{"data": FOLDER}'
"""

import json
import sys
import time
from pathlib import Path

from dcvideogen.serving.child import end_with_parent
from dcvideogen.serving.heart import Heart
from dcvideogen.serving.work_queue import WorkQueue

if __name__ == "__main__":
    end_with_parent()
    queue = WorkQueue(Path(json.loads(sys.argv[1])["data"]))
    while (lease := queue.claim(["shapes-dc"], device="cpu")) is None:
        time.sleep(0.02)
    with Heart(queue, lease):
        while True:
            time.sleep(1)
