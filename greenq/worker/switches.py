"""Tells the pulse at each switch of greenlets whose code runs from now on: if the process dies, its supervisor reads
there who was at it. Only for workers that have a supervisor."""

from collections.abc import Callable, Iterable
from typing import Any

from greenlet import gettrace, greenlet, settrace

from greenq.pulse import Pulse, as_label

_NOBODY = as_label('')


class Switches:
    """Responsible for the pulse's `current`. `execution_of`: the execution that a greenlet belongs to which has not
    been named by `begin`, '' if to none; it is not asked for `idle`, which never execute anything."""

    def __init__(self, pulse: Pulse, execution_of: Callable[[greenlet], str], idle: Iterable[greenlet] = ()):
        self._pulse = pulse
        self._execution_of = execution_of
        self._labels: dict[greenlet, bytes] = dict.fromkeys(idle, _NOBODY)
        self._earlier: Callable[[str, Any], Any] | None = None

    def start(self) -> None:
        """Follows the switches of this thread; who followed them before still does."""
        self._earlier = gettrace()
        settrace(self._trace)

    def stop(self) -> None:
        """Leaves them to whoever followed them before."""
        if gettrace() == self._trace:
            settrace(self._earlier)
        self._pulse.run(_NOBODY)

    def begin(self, current: greenlet, execution_id: str) -> None:
        """The current greenlet executes this from now on."""
        label = self._labels[current] = as_label(execution_id)
        self._pulse.run(label)

    def rest(self, current: greenlet) -> None:
        """The current greenlet executes nothing."""
        self._labels[current] = _NOBODY

    def forget(self, current: greenlet) -> None:
        """The current greenlet is about to end."""
        self._labels.pop(current, None)

    def _trace(self, event: str, args: Any) -> None:
        target = args[1]
        label = self._labels.get(target)
        self._pulse.run(as_label(self._execution_of(target)) if label is None else label)
        if self._earlier is not None:
            self._earlier(event, args)
