"""Runs a function in fresh processes that talk to each other, as torchrun would start them."""

import multiprocessing
import os
import socket
import traceback

# A server that has imported everything once makes each process in milliseconds; plain starts take seconds each.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["accelerate", "dcvideogen.autoencoder.model", "dcvideogen.training.loop"])


def start(function, *arguments, count=1):
    """The started processes, and where each of them tells how it ended: None, or its error's message."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes, ends = [], []
    for rank in range(count):
        end, far_end = context.Pipe(duplex=False)
        ends.append(end)
        processes.append(context.Process(target=run_one, args=(function, arguments, rank, count, port, far_end)))
        processes[-1].start()
    return processes, ends


def run(function, *arguments, count=1):
    """Runs it to the end; None per process, or its error's message."""
    processes, ends = start(function, *arguments, count=count)
    for process in processes:
        process.join(300)
    return [end.recv() for end in ends]


def run_one(function, arguments, rank, count, port, end):
    import torch

    torch.set_num_threads(1)
    if count > 1:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank}
        address |= {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "OMP_NUM_THREADS": 1}
        os.environ |= {name: str(value) for name, value in address.items()}
    try:
        function(*arguments)
        end.send(None)
    except Exception as error:
        traceback.print_exc()
        end.send(str(error))
    os._exit(0)  # others may be waiting for this process; it waits for nobody
