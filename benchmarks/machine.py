"""Where a run took place."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil


def describe() -> str:
    """Processor, cores, memory, system, Python."""
    memory = psutil.virtual_memory().total / 2**30
    return (
        f'{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}, '
        f'Python {platform.python_version()}'
    )


def busy_percent(seconds: float = 1.0) -> float:
    """How busy all cores are with other things; a run starts with this question."""
    return float(psutil.cpu_percent(interval=seconds))


def _processor() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
    return next(names, platform.machine())
