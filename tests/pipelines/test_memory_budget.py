"""What a user allows is read, and what the system allows is found, limits of containers included."""

import pytest
import torch

from dcvideogen.errors import UserError
from dcvideogen.pipelines.memory_budget import available_memory, free_host_memory, parse_memory

MIB = 2**20


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GiB", 8 * 2**30), ("800MiB", 800 * MIB), ("8GB", 8 * 10**9), ("7.5 gb", 75 * 10**8), ("auto", None)],
)
def test_sizes_are_read(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["8", "GiB", "-8GiB", "8 parsecs", "", "0GiB", "1e3GiB"])
def test_other_words_are_refused(text):
    with pytest.raises(UserError, match="auto, or a number and a unit such as 8GiB"):
        parse_memory(text)


@pytest.fixture
def system(tmp_path):
    """A root folder with 1000 MiB free, of which this process holds 100 besides."""
    for folder in ("proc/self", "sys/fs/cgroup"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 9999999 kB\nMemAvailable: {1000 * 1024} kB\n")
    (tmp_path / "proc/self/status").write_text(f"Name: x\nVmRSS: {100 * 1024} kB\n")
    return tmp_path


def test_without_limits_it_is_what_is_free_and_what_is_already_held(system):
    assert free_host_memory(system) == 1000 * MIB
    assert available_memory(torch.device("cpu"), system) == 1100 * MIB


def test_a_limit_of_the_cgroup_or_of_one_above_it_counts_and_cached_files_do_not(system):
    (system / "proc/self/cgroup").write_text("0::/jobs/one\n")
    own = system / "sys/fs/cgroup/jobs/one"
    own.mkdir(parents=True)
    (own / "memory.max").write_text("max\n")
    (own / "memory.current").write_text(f"{100 * MIB}\n")
    (own.parent / "memory.max").write_text(f"{500 * MIB}\n")
    (own.parent / "memory.current").write_text(f"{300 * MIB}\n")
    assert free_host_memory(system) == 200 * MIB
    (own.parent / "memory.stat").write_text(f"anon {100 * MIB}\ninactive_file {150 * MIB}\nactive_file {50 * MIB}\n")
    assert free_host_memory(system) == 400 * MIB


def test_limits_of_the_older_kind_count_too(system):
    (system / "proc/self/cgroup").write_text("7:memory:/box\n3:cpu:/box\n")
    own = system / "sys/fs/cgroup/memory/box"
    own.mkdir(parents=True)
    (own / "memory.limit_in_bytes").write_text(f"{300 * MIB}")
    (own / "memory.usage_in_bytes").write_text(f"{400 * MIB}")
    assert free_host_memory(system) == 0


def test_a_system_that_does_not_tell_is_reported(system):
    (system / "proc/meminfo").write_text("MemTotal: 1 kB\n")
    with pytest.raises(UserError, match=r"meminfo has no MemAvailable; say how much .* --memory 8GiB"):
        free_host_memory(system)


def test_this_machine_has_memory():
    assert available_memory(torch.device("cpu")) > 100 * MIB
