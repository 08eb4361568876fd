"""A server lives exactly as long as somebody uses it, whatever its users and itself die of."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import redis

from greenq import Queue, SimpleWorker, embedded
from greenq.exceptions import EmbeddedServerError
from greenq.store import keys
from tests.embedded.conftest import User, is_running
from tests.helpers import wait_until

Use = Callable[..., User]


def ends(pid: int) -> None:
    wait_until(lambda: not is_running(pid), description=f'server {pid} ends')


def watcher_pid(server_pid: int) -> int:
    return int(psutil.Process(server_pid).ppid())


def test_a_second_process_joins_the_running_server(home: Path, use: Use) -> None:
    with embedded.start(home) as server:
        assert use().server_pid == server.pid


@pytest.mark.parametrize(
    ('given', 'expected'),
    [(None, 'glibc.malloc.tcache_count=1000'), ('glibc.malloc.perturb=1', 'glibc.malloc.perturb=1'), ('', '')],
)
def test_the_allocator_of_the_server_is_set_up_unless_the_user_has_done_so(
    home: Path, monkeypatch: pytest.MonkeyPatch, given: str | None, expected: str
) -> None:
    if given is None:
        monkeypatch.delenv('GLIBC_TUNABLES', raising=False)
    else:
        monkeypatch.setenv('GLIBC_TUNABLES', given)
    with embedded.start(home) as server:
        assert psutil.Process(server.pid).environ()['GLIBC_TUNABLES'] == expected


def test_the_last_user_to_leave_stops_the_server(home: Path, use: Use) -> None:
    server = embedded.start(home)
    pid = server.pid
    other = use()
    assert other.server_pid == pid
    server.stop()
    with server.connection() as client:
        assert client.ping()
    other.leave()
    ends(pid)


def test_a_killed_last_user_stops_the_server(use: Use) -> None:
    user = use()
    pid = user.server_pid
    user.kill()
    ends(pid)


def test_one_user_killed_leaves_the_server_to_the_others(home: Path, use: Use) -> None:
    with embedded.start(home) as server:
        user = use()
        assert user.server_pid == server.pid
        user.kill()
        # A user more, so that the watcher has looked at the users since.
        last = use()
        assert last.server_pid == server.pid
        last.leave()
        assert is_running(server.pid)


def test_stop_can_wait_for_the_end(home: Path) -> None:
    server = embedded.start(home)
    pid = server.pid
    server.stop(wait=10)
    assert not is_running(pid)


def test_stop_does_not_wait_for_other_users(home: Path, use: Use) -> None:
    user = use()
    server = embedded.start(home)
    server.stop(wait=3600)
    assert is_running(user.server_pid)


def test_stop_twice_leaves_once(home: Path) -> None:
    with embedded.start(home) as first:
        second = embedded.start(home)
        second.stop()
        second.stop()
        assert is_running(first.pid)


def test_simultaneous_starters_end_with_one_server(use: Use) -> None:
    users = [use() for _ in range(6)]
    assert len({user.server_pid for user in users}) == 1


def test_leaving_and_joining_at_once_never_meets_a_dying_server(home: Path) -> None:
    for number in range(10):
        with embedded.start(home) as server, server.connection() as client:
            assert client.incr('starts') == number + 1


def test_data_survive_a_restart(home: Path) -> None:
    with embedded.start(home) as server, server.connection() as client:
        client.set('key', 'value')
        server.stop(wait=10)
    with embedded.start(home) as server, server.connection() as client:
        assert client.get('key') == b'value'


def test_persistence_is_append_only_with_a_sync_each_second(home: Path) -> None:
    with embedded.start(home) as server, server.connection() as client:
        assert client.config_get('append*')['appendonly'] == 'yes'
        assert client.config_get('appendfsync') == {'appendfsync': 'everysec'}


def test_a_result_takes_no_more_memory_than_it_needs(home: Path) -> None:
    with embedded.start(home) as server, server.connection() as client:
        queue = Queue(connection=client)
        job = queue.enqueue(len, 'abc')
        SimpleWorker([queue], connection=client).work(burst=True)
        assert job.return_value() == 3
        assert client.memory_usage(keys.results(job.id)) < 1200, 'by default a server reserves 4 KiB for each'


def test_no_tcp_port_is_open(home: Path) -> None:
    with embedded.start(home) as server, server.connection() as client:
        assert client.config_get('port') == {'port': '0'}


def test_only_its_owner_can_reach_it(home: Path) -> None:
    with embedded.start(home) as server:
        assert home.stat().st_mode & 0o077 == 0
        assert (Path(server.path) / 'greenq.sock').stat().st_mode & 0o077 == 0


def test_the_next_user_restarts_a_killed_server_on_the_same_data(home: Path, use: Use) -> None:
    with embedded.start(home) as server:
        first = server.pid
        with server.connection() as client:
            client.set('key', 'value')
        os.kill(first, signal.SIGKILL)
        ends(first)
        second = use().server_pid
        assert second != first
        with server.connection() as client:
            assert client.get('key') == b'value'


def test_users_get_a_killed_server_back_without_asking(home: Path) -> None:
    with embedded.start(home) as server, server.connection() as client:
        client.set('key', 'value')
        first = server.pid
        # The watcher restarts only what it has seen ready, and it looks many times a second.
        wait_until(lambda: client.info('server')['uptime_in_seconds'] >= 1)
        os.kill(first, signal.SIGKILL)

        def is_back() -> bool:
            try:
                return bool(client.get('key') == b'value')
            except redis.ConnectionError:
                return False

        wait_until(is_back, description='the server answers again')
        assert server.pid != first


@pytest.mark.slow
def test_a_signal_to_all_processes_does_not_end_it_before_its_users(home: Path) -> None:
    with embedded.start(home) as server, server.connection() as client:
        first = server.pid
        wait_until(lambda: client.info('server')['uptime_in_seconds'] >= 1)
        for pid in (watcher_pid(first), first):
            os.kill(pid, signal.SIGTERM)
        ends(first)
        wait_until(lambda: (home / 'greenq.sock').exists())
        server.ensure_running()
        assert client.ping()


def test_a_left_server_says_so(home: Path) -> None:
    server = embedded.start(home)
    server.stop()
    with pytest.raises(EmbeddedServerError, match='has ended; call start'):
        server.ensure_running()


def test_a_killed_watcher_is_replaced(home: Path) -> None:
    with embedded.start(home) as server:
        pid = server.pid
        killed = watcher_pid(pid)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: watcher_pid(pid) != killed)
        with embedded.start(home) as joined:
            assert joined.pid == pid
    ends(pid)


def test_everything_killed_at_once_is_recovered_from(home: Path, use: Use) -> None:
    user = use()
    pid = user.server_pid
    with redis.Redis.from_url(f'unix://{home}/greenq.sock') as client:
        client.set('key', 'value')
    os.kill(watcher_pid(pid), signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    user.kill()
    ends(pid)
    assert (home / 'greenq.sock').exists()
    with embedded.start(home) as server, server.connection() as client:
        assert server.pid != pid
        assert client.get('key') == b'value'


def test_a_removed_socket_comes_back(home: Path) -> None:
    with embedded.start(home) as server, server.connection() as client:
        client.set('key', 'value')
        wait_until(lambda: client.info('server')['uptime_in_seconds'] >= 1)
        (home / 'greenq.sock').unlink()
        server.ensure_running()
        with server.connection() as other:
            assert other.get('key') == b'value'


def test_a_removed_data_directory_takes_its_server_along(home: Path, tmp_path: Path) -> None:
    server = embedded.start(home)
    pid = server.pid
    home.rename(tmp_path / 'elsewhere')
    server.stop()
    ends(pid)
    assert not home.exists()


CHILD_ENDS = """
import os
if os.fork() == 0:
    {leave}
os.wait()
print(server.pid, flush=True)
sys.stdin.read()
"""

CHILD_STAYS = """
import os
if os.fork() == 0:
    sys.stdin.readline()
    print(server.pid, flush=True)
    os._exit(0)
server.stop()
print('left', flush=True)
os.wait()
"""


@pytest.mark.parametrize('leave', ['os._exit(0)', 'server.stop(); os._exit(0)', 'sys.exit()'])
def test_a_forked_child_that_ends_does_not_stop_the_server(use: Use, leave: str) -> None:
    user = use(after=CHILD_ENDS.format(leave=leave))
    pid = user.server_pid
    user.tell()
    assert int(user.read_line()) == pid
    # Somebody who comes and goes after the child has ended: the watcher has counted users in between.
    visitor = use()
    assert visitor.server_pid == pid
    visitor.leave()
    assert is_running(pid)
    user.kill()
    ends(pid)


def test_a_forked_child_keeps_the_server_after_its_parent(use: Use) -> None:
    user = use(after=CHILD_STAYS)
    pid = user.server_pid
    user.tell()
    assert user.read_line() == 'left'
    user.tell()
    assert int(user.read_line()) == pid
    ends(pid)


def test_a_program_started_by_a_user_is_no_user(home: Path, use: Use) -> None:
    start = 'child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)'
    user = use(before='import os, subprocess', after=f'{start}; print(child.pid, flush=True); os._exit(0)')
    pid = user.server_pid
    user.tell()
    child = int(user.read_line())
    try:
        ends(pid)
        assert is_running(child)
    finally:
        os.kill(child, signal.SIGKILL)
