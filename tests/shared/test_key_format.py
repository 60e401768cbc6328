import string

from hypothesis import given
from hypothesis import strategies as st

from shared.ids import ALPHABET
from shared.key_format import RANDOM_CHARS, checked, is_key, new_key, shown

BODIES = st.text(ALPHABET, min_size=RANDOM_CHARS, max_size=RANDOM_CHARS).map(lambda text: f"tl_{text}")
KEYS = BODIES.map(checked)


def test_a_new_key_is_one_and_no_two_are_the_same() -> None:
    keys = {new_key() for _ in range(1000)}
    assert len(keys) == 1000
    assert all(map(is_key, keys))


@given(BODIES)
def test_what_is_checked_is_a_key_that_begins_as_it_is_shown(body: str) -> None:
    key = checked(body)
    assert is_key(key)
    assert key.startswith(shown(key))
    assert len(shown(key)) < len(key) / 3


@given(KEYS, st.data())
def test_one_wrong_character_is_found(key: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(key) - 1))
    other = data.draw(st.sampled_from(string.printable).filter(lambda char: char != key[place]))
    assert not is_key(key[:place] + other + key[place + 1 :])


@given(KEYS, st.data())
def test_two_characters_that_changed_places_are_found(key: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(key) - 2).filter(lambda at: key[at] != key[at + 1]))
    assert not is_key(key[:place] + key[place + 1] + key[place] + key[place + 2 :])


@given(KEYS, st.integers(0, 43), st.text(max_size=3))
def test_a_part_of_a_key_or_more_than_one_is_none(key: str, length: int, more: str) -> None:
    assert not is_key(key[:length])
    assert is_key(key + more) is (more == "")


@given(st.text())
def test_any_text_is_answered(text: str) -> None:
    assert not is_key(text)
