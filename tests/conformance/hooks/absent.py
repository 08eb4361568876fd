"""Stands in the suite for names of RQ's that greenq lacks, so that one costs only the tests that use it."""

from __future__ import annotations

from typing import Any, NoReturn


class Absent:
    """Can be imported, and nothing else."""

    def __init__(self, name: str):
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AttributeError(f'greenq has no {self._name}')

    def __getattr__(self, attribute: str) -> NoReturn:
        raise AttributeError(f'greenq has no {self._name}')
