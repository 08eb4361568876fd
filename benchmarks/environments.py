"""A virtual environment for each peer, made on first use and kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import click


def default_folder() -> Path:
    """Where environments are kept."""
    base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return Path(base).expanduser() / 'greenq-benchmarks'


def prepared(folder: Path, name: str, requirements: Sequence[str]) -> Path:
    """The `bin` directory of an environment with these requirements; raises `click.ClickException` if pip fails."""
    python = f'py{sys.version_info.major}.{sys.version_info.minor}'
    digest = hashlib.sha256('\n'.join(requirements).encode()).hexdigest()[:8]
    home = folder / f'{name}-{python}-{digest}'
    if not (home / 'complete').exists():
        click.echo(f'making {home} ({", ".join(requirements)})', err=True)
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, '-m', 'venv', str(home)], check=True)
        pip = [str(home / 'bin' / 'python'), '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check']
        result = subprocess.run([*pip, *requirements], capture_output=True, text=True)
        if result.returncode:
            last = (result.stderr.strip().splitlines() or ['no message'])[-1]
            raise click.ClickException(f'pip could not install {", ".join(requirements)} for {name}: {last}')
        (home / 'complete').touch()
    return home / 'bin'


def versions(bin_folder: Path | None, distributions: Sequence[str]) -> dict[str, str]:
    """Versions of what is installed, in an environment or, without one, in this process's."""
    if bin_folder is None:
        return {name: metadata.version(name) for name in distributions}
    site = next((bin_folder.parent / 'lib').glob('python*/site-packages'))
    found = {
        str(distribution.metadata['Name']).lower(): distribution.version
        for distribution in metadata.distributions(path=[str(site)])
    }
    return {name: found[name] for name in distributions if name in found}
