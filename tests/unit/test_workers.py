"""What reading processes hand over: the same as without them, by shared memory where they were forked."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from pathosyn.data import workers

FORKED = """
import sys
import numpy as np
from pathosyn.data import workers

def made(n):
    return {"n": n, "image": np.full((n + 1, 50), n, np.float16), "seg": np.arange(n, dtype=np.uint8), "turned": np.arange(6).reshape(2, 3).T}

workers.ROOM = ROOM
assert "torch" not in sys.modules
pool, count = workers.start(2, 9)
assert len(pool.slots) == count + workers.AHEAD
in_slots = 0
for item, found in workers.in_order(made, range(9), pool, most=count + workers.AHEAD):
    wanted = made(item)
    assert set(found) == set(wanted) and found["n"] == item
    assert all(np.array_equal(found[name], wanted[name]) and found[name].dtype == wanted[name].dtype for name in ("image", "seg", "turned"))
    in_slots += any(np.shares_memory(found["image"], np.frombuffer(slot, np.uint8)) for slot in pool.slots)
pool.shutdown()
print(in_slots)
"""


@pytest.mark.parametrize(("room", "through"), [(1 << 20, 9), (500, 3), (50, 0)])
def test_arrays_come_through_shared_memory_where_they_fit(room: int, through: int) -> None:
    done = subprocess.run([sys.executable, "-c", FORKED.replace("ROOM = ROOM", f"ROOM = {room}")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == through


def test_without_forking_they_come_through_the_pipe() -> None:
    pool = workers.Readers(2, forks=False)
    found = [(item, array.tolist()) for item, array in workers.in_order(partial(np.full, 300), range(5), pool, most=3)]
    pool.shutdown()
    assert not pool.slots
    assert found == [(number, [number] * 300) for number in range(5)]


def resident_after_freeing(size: int) -> int:
    """Bytes of memory that this process holds more than before, after an array of `size` bytes was there."""

    def pages() -> int:
        with open("/proc/self/statm") as numbers:
            return int(numbers.read().split()[1])

    before = pages()
    np.ones(size, np.uint8)
    return (pages() - before) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries of C decide for themselves")
def test_a_worker_keeps_the_memory_that_it_frees() -> None:
    pool = workers.Readers(1, forks=False)
    kept = pool.submit(resident_after_freeing, 1 << 26).result()
    pool.shutdown()
    assert kept > 0.9 * (1 << 26)
