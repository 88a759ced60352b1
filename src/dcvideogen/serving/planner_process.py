"""The planner's process: looks at the models once, and then answers what videos would take, a line for each line.

    python -m dcvideogen.serving.planner_process '{"sources": [...], "devices": ["auto"], "dtype": "auto"}'

A process of its own, so that the server imports no neural network and a worker is not asked while it computes. It ends
with its parent, because its stdin does.
"""

from __future__ import annotations

import json
import logging
import os
import sys

import torch

from dcvideogen.autoencoder.loading import usual_dtype
from dcvideogen.errors import UserError
from dcvideogen.serving.catalogue import Catalogue
from dcvideogen.serving.jobs import JobRequest
from dcvideogen.serving.makers import DTYPES

log = logging.getLogger("dcvideogen")


def main(argument: str) -> None:
    told = json.loads(argument)
    # Whatever libraries print goes elsewhere.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    logging.basicConfig(level=logging.WARNING, format="planner: %(message)s")
    try:
        devices = _devices(told["devices"])
        dtype = DTYPES.get(told["dtype"]) or usual_dtype(devices[0])
        catalogue = Catalogue(told["sources"], devices[0], dtype)
    except UserError as error:
        _say(answers, {"error": str(error)})
        return
    models = [model.model_dump(mode="json") for model in catalogue.models]
    _say(answers, {"models": models, "devices": [str(device) for device in devices]})
    for line in sys.stdin:
        try:
            _say(answers, catalogue.estimate(JobRequest.model_validate_json(line)))
        except UserError as error:
            _say(answers, {"error": str(error)})
        except Exception:
            log.exception("a plan failed")
            _say(answers, {"error": "the plan failed"})


def _devices(names: list[str]) -> list[torch.device]:
    """Each once. UserError: a GPU that is not there."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found: list[torch.device] = []
    for name in names:
        if name == "auto":
            found += [torch.device("cuda", index) for index in range(count)] or [torch.device("cpu")]
            continue
        device = torch.device(name)
        if device.type == "cuda":
            device = torch.device("cuda", device.index or 0)
            if device.index >= count:
                raise UserError(f"--device {name} came; {count} GPUs are there; --device cpu always works")
        found.append(device)
    return list(dict.fromkeys(found))


def _say(answers: object, content: dict) -> None:
    print(json.dumps(content), file=answers, flush=True)  # type: ignore[call-overload]


if __name__ == "__main__":
    main(sys.argv[1])
