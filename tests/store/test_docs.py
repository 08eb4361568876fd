"""docs/store.md says what the code does, in the parts that are drawn from it."""

from greenq.store.states import TRANSITIONS
from tests.store.draw_states import PAGE, diagram, drawn


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text()
    assert drawn(page) == page, 'run: python -m tests.store.draw_states'


def test_every_transition_is_in_the_diagram() -> None:
    text = diagram()
    assert not [name for name in TRANSITIONS if name not in text]
