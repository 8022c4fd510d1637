"""Values are compared key by key: nothing is missed, and nothing equal is called a change."""

from __future__ import annotations

import random
from typing import Any

import pytest

from presswork.differences.json_differences import compare_values, place_of_path


def told(old: Any, new: Any) -> list[tuple[str, str]]:
    return [(change.place, change.kind) for change in compare_values(old, new).changes]


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, []),
        ({"a": 1}, {"a": 2}, [("a", "changed")]),
        ({"a": 1}, {"a": "1"}, [("a", "retyped")]),
        ({"a": 1}, {"a": True}, [("a", "retyped")]),
        ({"a": 1}, {"a": 1.0}, [("a", "changed")]),
        ({"a": None}, {}, [("a", "removed")]),
        ({}, {"a": None}, [("a", "added")]),
        ({"a": {"b": 1}}, {"a": {"b": 2, "c": 3}}, [("a.b", "changed"), ("a.c", "added")]),
        ({"a": [1, 2, 3]}, {"a": [0, 1, 2, 3]}, [("a[0]", "added")]),
        ({"a": [1, 2, 3]}, {"a": [1, 3]}, [("a[1]", "removed")]),
        ({"a": [1, 2, 3]}, {"a": [1, 9, 3]}, [("a[1]", "changed")]),
        ({"a": [{"b": 1}, 2]}, {"a": [{"b": 2}, 2]}, [("a[0].b", "changed")]),
        ({"a": []}, {"a": {}}, [("a", "retyped")]),
        ([1], [1, 1], [("[1]", "added")]),
        ("one", "two", [("", "changed")]),
        (None, {"a": 1}, [("", "retyped")]),
        ({"x y": 1, "": 2}, {"x y": 2, "": 2}, [('["x y"]', "changed")]),
    ],
    ids=range(18),
)
def test_each_change_is_told_with_its_place(old: Any, new: Any, changes: list[tuple[str, str]]) -> None:
    assert told(old, new) == changes


def test_texts_inside_are_compared_word_by_word() -> None:
    (change,) = compare_values({"a": "a red fox here"}, {"a": "a blue fox here"}).changes
    assert [each.kind for each in change.operations] == ["equal", "replace", "equal"]
    assert (change.old, change.new) == ("a red fox here", "a blue fox here")


@pytest.mark.parametrize(
    ("old", "new", "texts"),
    [
        (7, "7", ("7", '"7"')),
        ({"a": "b"}, '{"a": "', ('{"a": "b"}', '{"a": "')),
        (None, ["x" * 80], ("null", f'[\n  "{"x" * 80}"\n]')),
        ({"z": 1, "a": 2}, 3, ('{"z": 1, "a": 2}', "3")),
    ],
    ids=range(4),
)
def test_other_types_are_written_so_that_the_difference_shows(old: Any, new: Any, texts: tuple[str, str]) -> None:
    (change,) = compare_values(old, new).changes
    assert tuple("".join(getattr(each, side) for each in change.operations) for side in ("old", "new")) == texts


def test_other_order_of_keys_is_reported_and_no_change() -> None:
    found = compare_values({"a": {"x": 1, "y": 2}}, {"a": {"y": 2, "x": 1}})
    assert found.is_equal
    assert found.reordered
    assert not compare_values({"a": 1}, {"a": 1}).reordered


def test_equal_keys_are_listed() -> None:
    assert compare_values({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 3, "d": 3}).unchanged == ("a",)


def test_deep_nesting_ends_in_one_change() -> None:
    def deep(leaf: int) -> Any:
        value: Any = leaf
        for _level in range(400):
            value = [value]
        return value

    (change,) = compare_values(deep(1), deep(2)).changes
    assert change.kind == "changed"
    assert len(change.path) == 50


def test_values_that_few_parsers_take_are_compared() -> None:
    assert told({"a": 10**30, "b": "\ud800"}, {"a": 10**30, "b": "\ud801"}) == [("b", "changed")]


def test_changes_applied_to_the_old_value_give_the_new_one() -> None:
    chance = random.Random(3)
    for _turn in range(400):
        old, new = some(chance, 3), some(chance, 3)
        if isinstance(old, dict) and isinstance(new, dict):
            assert applied(old, new) == new
        assert compare_values(old, old).is_equal
        assert compare_values(old, new).is_equal == (repr(ordered(old)) == repr(ordered(new)))


def some(chance: random.Random, depth: int) -> Any:
    kind = chance.randrange(6 if depth else 4)
    if kind == 5:
        return {chance.choice("abcd"): some(chance, depth - 1) for _each in range(chance.randrange(5))}
    if kind == 4:
        return [some(chance, depth - 1) for _each in range(chance.randrange(4))]
    return chance.choice([1, 1.0, True, None, "1", "one two", "one three", 2])


def applied(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Apply the changes of the outermost level, and take deeper ones from the new value."""
    made = dict(old)
    for change in compare_values(old, new).changes:
        name = str(change.path[0])
        if change.kind == "removed" and len(change.path) == 1:
            del made[name]
        else:
            made[name] = new[name]
    return made


def ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: ordered(value[name]) for name in sorted(value)}
    return [ordered(each) for each in value] if isinstance(value, list) else value


def test_place_is_written_as_people_do() -> None:
    assert place_of_path(("messages", 0, "content")) == "messages[0].content"
    assert place_of_path(("product_copy.md.j2",)) == '["product_copy.md.j2"]'
