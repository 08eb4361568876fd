"""A stack whose content belongs to the current thread, greenlet or asyncio task; nothing job-specific."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Generic, TypeVar

T = TypeVar('T')


class LocalStack(Generic[T]):
    """Push and pop in one context are invisible in every other one that runs at the same time."""

    def __init__(self) -> None:
        # A tuple, because a copied context shares its values: a list would be seen by parent and child.
        self._items: ContextVar[tuple[T, ...]] = ContextVar('greenq_local_stack', default=())

    def push(self, item: T) -> None:
        self._items.set((*self._items.get(), item))

    def pop(self) -> T | None:
        """Remove and return the newest item; None when the stack is empty."""
        items = self._items.get()
        if not items:
            return None
        self._items.set(items[:-1])
        return items[-1]

    @property
    def top(self) -> T | None:
        """The newest item, or None."""
        items = self._items.get()
        return items[-1] if items else None

    def __len__(self) -> int:
        return len(self._items.get())
