"""Log handlers: where lines go, what is coloured, and that an application's own logging wins."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator
from uuid import uuid4

import pytest

from greenq.logutils import ColorizingStreamHandler, make_colorizer, red, setup_loghandlers


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def name() -> Iterator[str]:
    """The name of a logger that has no ancestors, as pytest's own handlers are on the root."""
    name = uuid4().hex
    logging.getLogger(name).parent = None
    yield name
    for known in [known for known in logging.Logger.manager.loggerDict if known.startswith(name)]:
        del logging.Logger.manager.loggerDict[known]


def test_errors_go_to_stderr_and_the_rest_to_stdout(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    setup_loghandlers('info', log_format='%(levelname)s %(message)s', name=name)
    logger = logging.getLogger(name)
    logger.debug('hidden')
    logger.info('started')
    logger.error('broken')
    assert tuple(capsys.readouterr()) == ('INFO started\n', 'ERROR broken\n')


def test_a_second_setup_changes_the_level_and_adds_no_handler(name: str) -> None:
    setup_loghandlers('INFO', name=name)
    handlers = list(logging.getLogger(name).handlers)
    setup_loghandlers(logging.WARNING, name=name)
    setup_loghandlers(None, name=name)
    assert logging.getLogger(name).handlers == handlers
    assert logging.getLogger(name).level == logging.WARNING
    assert not logging.getLogger(name).propagate


def test_an_application_that_configured_logging_keeps_it(name: str) -> None:
    logging.getLogger(name).addHandler(logging.NullHandler())
    worker = logging.getLogger(f'{name}.worker')
    setup_loghandlers('DEBUG', name=worker.name)
    assert worker.handlers == []
    assert worker.propagate
    assert worker.level == logging.DEBUG


def test_a_terminal_gets_colour_on_the_first_line_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('NO_COLOR', raising=False)
    handler = ColorizingStreamHandler(stream=Terminal())
    record = logging.LogRecord('x', logging.ERROR, __file__, 1, 'broken\ntraceback', None, None)
    assert handler.format(record) == '\x1b[31mbroken\x1b[39;49;00m\ntraceback'
    record.levelno = logging.INFO
    assert handler.format(record) == 'broken\ntraceback'


def test_a_file_and_no_color_get_none(monkeypatch: pytest.MonkeyPatch) -> None:
    record = logging.LogRecord('x', logging.ERROR, __file__, 1, 'broken', None, None)
    assert ColorizingStreamHandler(stream=io.StringIO()).format(record) == 'broken'
    monkeypatch.setenv('NO_COLOR', '1')
    assert ColorizingStreamHandler(stream=Terminal()).format(record) == 'broken'


def test_colorizers_look_at_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('NO_COLOR', raising=False)
    monkeypatch.setattr('sys.stdout', Terminal())
    assert red('Oops') == '\x1b[31mOops\x1b[39;49;00m'
    monkeypatch.setattr('sys.stdout', io.StringIO())
    assert red('Oops') == 'Oops'
    with pytest.raises(KeyError):
        make_colorizer('ultraviolet')


def test_a_log_that_may_not_wait_drops_what_nobody_takes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with open(writer, 'w') as stream, open(reader, 'rb', buffering=0) as taken:
        monkeypatch.setattr(sys, 'stdout', stream)
        setup_loghandlers('INFO', log_format='%(message)s', name=name, may_wait=False)
        log = logging.getLogger(name)
        for number in range(3000):
            log.info('line %d %s', number, 'x' * 100)
        early = taken.read(1 << 20)
        log.info('again')
        assert taken.read(1 << 20).endswith(b' log lines were dropped, because nobody took them\nagain\n')
    assert early.startswith(b'line 0 ') and 1000 < len(early) < 200_000
