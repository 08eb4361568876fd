"""The words after `greenq enqueue FUNCTION`, read as a call's arguments; also its schedule. Nothing here meets Redis.

word          the text itself                    key=word         as a keyword
:json         a JSON value                       key:=json
%literal      a Python literal                   key%=literal
@file         instead of any value: the content of a file, as in  :@numbers.json  or  key=@letter.txt
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from greenq.cli.errors import CommandError

_WORD = re.compile(r'(?P<keyword>[^=]+?)(?P<mode>[:%]?)=(?P<value>.*)', re.DOTALL)


def parse_function_args(words: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments, in the order given. CommandError for what cannot be read."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        keyword, value = parse_function_arg(word, len(args) + 1)
        if keyword is None:
            args.append(value)
        elif keyword in kwargs:
            raise CommandError(f"You can't specify multiple values for the same keyword. Give {keyword!r} only once.")
        else:
            kwargs[keyword] = value
    return args, kwargs


def parse_function_arg(word: str, position: int) -> tuple[str | None, Any]:
    """(keyword or None, value). `position` counts from 1 and is what an error calls a value without a keyword."""
    keyword, mode, text = _split(word)
    if text.startswith('@'):
        text = _read_file(text[1:])
    name = keyword or f'{position}. non keyword argument'
    if mode == ':':
        return keyword, _parse_json(text, name)
    if mode == '%':
        return keyword, _parse_literal(text, name)
    return keyword, text


def _split(word: str) -> tuple[str | None, str, str]:
    if word[:1] in (':', '%'):
        return None, word[0], word[1:]
    match = _WORD.fullmatch(word)
    if match is None:
        return None, '', word
    return match['keyword'], match['mode'], match['value']


def _read_file(name: str) -> str:
    try:
        with open(name, encoding='utf-8') as file:
            return file.read()
    except FileNotFoundError:
        raise CommandError(f'Not found: {name!r}. What follows an @ is read as the name of a file.') from None
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f'Cannot read {name!r}: {error}. What follows an @ is read as a text file.') from None


def _parse_json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise CommandError(f'Unable to parse {name} as JSON. {text!r}: {error}') from None


def _parse_literal(text: str, name: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise CommandError(
            f'Unable to eval {name} as Python object. {text!r} is no literal such as 1, "text", (1, 2), None or True.'
        ) from None


def parse_schedule(schedule_in: str | None, schedule_at: str | None) -> datetime | None:
    """When to enqueue: after a delay such as `5m`, or at a local time such as `2030-05-27T21:45:00`; None for now."""
    if schedule_in is not None and schedule_at is not None:
        raise CommandError("You can't specify both --schedule-in and --schedule-at. Leave one of them out.")
    if schedule_in is not None:
        from greenq.utils import now, parse_timeout

        return now() + timedelta(seconds=parse_timeout(schedule_in) or 0)
    if schedule_at is None:
        return None
    try:
        return datetime.strptime(schedule_at, '%Y-%m-%dT%H:%M:%S')
    except ValueError:
        raise CommandError(
            f'Invalid --schedule-at {schedule_at!r}: give a local time such as 2030-05-27T21:45:00.'
        ) from None


def check_function_name(name: str) -> str:
    """The name itself if it could be a dotted path. Whether the function exists is for the worker to find out."""
    if not all(part.isidentifier() for part in name.split('.')):
        raise CommandError(f'Malformed function {name!r}: give a dotted path such as package.module.function.')
    return name
