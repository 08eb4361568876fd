"""How `greenq enqueue` reads the words of a call; no server is involved."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from greenq.cli.arguments import check_function_name, parse_function_arg, parse_function_args, parse_schedule
from greenq.cli.errors import CommandError
from greenq.exceptions import TimeoutFormatError


@pytest.mark.parametrize(
    ('word', 'keyword', 'value'),
    [
        ('plain', None, 'plain'),
        ('', None, ''),
        ('=odd', None, '=odd'),
        (':{"a": [1, true]}', None, {'a': [1, True]}),
        ('%(1, None)', None, (1, None)),
        ('k=text', 'k', 'text'),
        ('k=', 'k', ''),
        ('k=a=b', 'k', 'a=b'),
        ('k:=[1.5]', 'k', [1.5]),
        ('k%={"x": {1}}', 'k', {'x': {1}}),
        ('url=http://host:80/?q=1', 'url', 'http://host:80/?q=1'),
        ('k=two\nlines', 'k', 'two\nlines'),
    ],
)
def test_a_word_is_text_json_or_a_literal_with_or_without_a_keyword(word: str, keyword: str | None, value: Any) -> None:
    assert parse_function_arg(word, 1) == (keyword, value)


@pytest.mark.parametrize(
    ('pattern', 'value'),
    [('@{}', '{"n": 1}\n'), (':@{}', {'n': 1}), ('%@{}', {'n': 1}), ('k=@{}', '{"n": 1}\n'), ('k:=@{}', {'n': 1})],
)
def test_a_file_stands_for_its_content_in_every_mode(tmp_path: Path, pattern: str, value: Any) -> None:
    path = tmp_path / 'data.json'
    path.write_text('{"n": 1}\n')
    assert parse_function_arg(pattern.format(path), 1)[1] == value


def test_words_keep_their_order_and_keywords_their_names() -> None:
    assert parse_function_args(['a', 'x=1', ':2', 'y%=None']) == (['a', 2], {'x': '1', 'y': None})


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['a', ':nonsense'], 'Unable to parse 2. non keyword argument as JSON'),
        (['k:={'], 'Unable to parse k as JSON'),
        (['%open("x")'], 'Unable to eval 1. non keyword argument as Python object'),
        (['k=1', 'k=2'], 'multiple values for the same keyword'),
        (['@no/such/file'], "Not found: 'no/such/file'"),
        (['@.'], "Cannot read '.'"),
    ],
)
def test_what_cannot_be_read_is_named(words: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message) as caught:
        parse_function_args(words)
    assert '\n' not in caught.value.message


def test_a_schedule_is_a_delay_or_a_local_time_or_nothing() -> None:
    assert parse_schedule(None, None) is None
    assert parse_schedule(None, '2030-01-23T23:45:01') == datetime(2030, 1, 23, 23, 45, 1)
    before = datetime.now(UTC)
    due = parse_schedule('5m', None)
    assert due is not None
    assert before <= due - timedelta(minutes=5) <= datetime.now(UTC)


def test_a_schedule_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(CommandError, match='both --schedule-in and --schedule-at'):
        parse_schedule('1s', '2030-01-01T00:00:00')
    with pytest.raises(CommandError, match="Invalid --schedule-at 'tomorrow'"):
        parse_schedule(None, 'tomorrow')
    with pytest.raises(TimeoutFormatError, match="'soon'"):
        parse_schedule('soon', None)


def test_a_function_is_a_dotted_path() -> None:
    assert check_function_name('package.module.Class.method') == 'package.module.Class.method'
    for name in ('', 'a b', 'module:function', 'a..b', '3.x', 'print()'):
        with pytest.raises(CommandError, match='Malformed function'):
            check_function_name(name)
