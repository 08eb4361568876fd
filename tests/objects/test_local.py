"""The local stack: last in, first out, and each context for itself."""

from __future__ import annotations

import threading
from contextvars import copy_context

from greenq.local import LocalStack


def test_last_in_first_out() -> None:
    stack = LocalStack[str]()
    assert (stack.top, stack.pop(), len(stack)) == (None, None, 0)
    stack.push('a')
    stack.push('b')
    assert (stack.top, len(stack)) == ('b', 2)
    assert (stack.pop(), stack.pop(), stack.pop()) == ('b', 'a', None)


def test_a_thread_starts_empty_and_leaves_nothing_behind() -> None:
    stack = LocalStack[str]()
    stack.push('main')
    seen: list[str | None] = []

    def work() -> None:
        seen.append(stack.top)
        stack.push('thread')
        seen.append(stack.top)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None, 'thread']
    assert stack.top == 'main'


def test_a_copied_context_sees_what_was_there_and_changes_only_itself() -> None:
    stack = LocalStack[str]()
    stack.push('outer')
    context = copy_context()
    assert context.run(stack.pop) == 'outer'
    context.run(stack.push, 'inner')
    assert stack.top == 'outer'
    assert context.run(lambda: stack.top) == 'inner'
