"""Reading a checkpoint ahead where it lies on a network file system.

An engine maps its weights and touches them page by page, which a network answers slowly, and all the more so when every
engine of every node asks for the same file at the same time. So the engines of a node first read the files once, in
sequence, each its own share and every node in an order of its own; what the engines then map is in memory already.
"""

from __future__ import annotations

import os
import platform
import random
from pathlib import Path

from pbeauty.llm.placement import NodeRank

NETWORK = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb", "glusterfs", "wekafs", "pvfs2", "daos", "fuse.")
"""How the names of file systems begin that other machines serve."""
PATTERNS = ("*.safetensors", "*.bin", "*.pt")
_MOUNTS = Path("/proc/mounts")
_MEMORY = Path("/proc/meminfo")
_LARGEST_SHARE = 0.8
"""Of the memory that is free: a checkpoint larger than that would push itself out again."""
_BLOCK = 1 << 24


def read_ahead(folder: Path, place: NodeRank) -> int:
    """Reads an engine's share of a checkpoint into the node's memory, if it lies on a network file system.

    Args:
        folder: the checkpoint.
        place: the engine's place on its node, which decides its share.

    Returns:
        Bytes read; 0 on local disks, and where memory is too small to hold the checkpoint.
    """
    if not on_network(folder):
        return 0
    files = sorted(path for pattern in PATTERNS for path in folder.glob(pattern))
    if sum(path.stat().st_size for path in files) > _LARGEST_SHARE * _free_memory():
        return 0
    return sum(_read(path) for path in share(files, place, platform.node()))


def on_network(path: Path) -> bool:
    """Whether another machine serves the file system of `path`; False where the system does not tell."""
    path = path.resolve()
    try:
        mounts = [line.split()[1:3] for line in _MOUNTS.read_text().splitlines()]
    except OSError:
        return False
    # Octal escapes stand for spaces in mount points.
    kinds = {Path(point.encode().decode("unicode_escape")): kind for point, kind in mounts}
    nearest = next((at for at in (path, *path.parents) if at in kinds), None)
    return nearest is not None and kinds[nearest].startswith(NETWORK)


def share(files: list[Path], place: NodeRank, host: str) -> list[Path]:
    """The files that one engine of a node reads: each file falls to one of them, in an order that differs by host."""
    order = random.Random(host).sample(files, k=len(files))
    return order[place.index % place.count :: place.count]


def _read(path: Path) -> int:
    with path.open("rb", buffering=0) as file:
        while file.read(_BLOCK):
            pass
        return file.tell()


def _free_memory() -> int:
    """Bytes that programs could take, files in memory included."""
    try:
        line = next(line for line in _MEMORY.read_text().splitlines() if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
