"""What glibc does with freed tensors: given back at once inside a chunk, kept for the next ones everywhere else."""

import json
import platform
import subprocess
import sys

import pytest

# A process of its own: in one that has worked, the heap has room already.
SCRIPT = """
import json, resource, torch
from dcvideogen.autoencoder.networks import freed_at_once
from dcvideogen.autoencoder.presets import make_autoencoder

def page_faults():  # of 100 tensors of 1 MiB, each freed before the next one is made
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        torch.ones(2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with freed_at_once():
    inside = page_faults()
with torch.no_grad():
    make_autoencoder("dcae-tiny-f32t4c16").encode(torch.zeros(1, 3, 8, 64, 64))
page_faults()  # the heap grows
print(json.dumps([inside, page_faults()]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_tensors_are_given_back_inside_a_chunk_and_kept_after_it():
    told = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    inside, after = json.loads(told.stdout)
    assert inside > 10_000
    assert after < inside / 10
