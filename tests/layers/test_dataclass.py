"""Frozen dataclasses made without the standard library's code generation behave as the standard library's."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
from typing import Any, NamedTuple

import pytest

from lamella.layers import dataclass as quick

STANDARD: Any = dataclasses
QUICK: Any = quick


def point(library: Any) -> Any:
    """Return a class with each kind of field, made by the `dataclass` of `library`."""

    @library.dataclass(frozen=True, slots=True)
    class Point:
        """A point."""

        x: int
        y: int = 2
        names: dict[str, str] = library.field(default_factory=dict)
        secret: str = library.field(default="", repr=False, compare=False)

        def __post_init__(self) -> None:
            if self.x < 0:
                raise ValueError(self.x)

        @property
        def sum(self) -> int:
            """Both numbers."""
            return self.x + self.y

    return Point


@quick.dataclass(frozen=True, slots=True)
class Size:
    """At the top level, so that it can be pickled."""

    width: int
    height: int = 3


@pytest.mark.parametrize(
    ("given", "named"),
    [((1,), {}), ((1, 5, {"a": "b"}, "s"), {}), ((), {"x": 1, "names": {"c": "d"}}), ((1,), {"secret": "t", "y": 0})],
)
def test_a_value_has_the_fields_and_the_text_of_a_standard_one(given: tuple[Any, ...], named: dict[str, Any]) -> None:
    ours, theirs = point(QUICK)(*given, **named), point(STANDARD)(*given, **named)
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    assert repr(ours) == repr(theirs)
    assert ours.sum == theirs.sum


@pytest.mark.parametrize(
    ("given", "named"), [((), {}), ((1, 2, {}, "", 5), {}), ((1,), {"x": 2}), ((1,), {"z": 2}), ((), {"y": 2})]
)
@pytest.mark.parametrize("library", [QUICK, STANDARD])
def test_arguments_that_the_class_does_not_take_are_refused(
    library: Any, given: tuple[Any, ...], named: dict[str, Any]
) -> None:
    with pytest.raises(TypeError):
        point(library)(*given, **named)


@pytest.mark.parametrize("library", [QUICK, STANDARD])
def test_values_are_equal_by_the_fields_that_compare(library: Any) -> None:
    kind = point(library)
    assert kind(1, secret="a") == kind(1, secret="b")
    assert kind(1) != kind(2)
    assert kind(1) != (1, 2, {}, "")
    assert kind(1) != point(library)(1)


def test_equal_values_have_one_hash_and_a_value_that_holds_a_dict_has_none() -> None:
    assert hash(Size(1)) == hash(Size(1, 3))
    assert len({Size(1), Size(1, 3), Size(2)}) == 2
    with pytest.raises(TypeError, match="unhashable"):
        hash(point(QUICK)(1))


def test_a_default_that_a_factory_makes_is_not_shared() -> None:
    kind = point(QUICK)
    assert kind(1).names is not kind(1).names


def test_a_value_is_checked_when_it_is_made_and_when_it_is_replaced() -> None:
    kind = point(QUICK)
    with pytest.raises(ValueError, match="-1"):
        kind(-1)
    with pytest.raises(ValueError, match="-2"):
        quick.replace(kind(1), x=-2)


@pytest.mark.parametrize("library", [QUICK, STANDARD])
def test_a_value_can_be_neither_changed_nor_extended(library: Any) -> None:
    value = point(library)(1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="x"):
        value.x = 2
    with pytest.raises(dataclasses.FrozenInstanceError, match="x"):
        del value.x
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
        value.other = 2
    assert not hasattr(value, "__dict__")


def test_a_method_that_the_class_defines_stays() -> None:
    @quick.dataclass(frozen=True, slots=True)
    class Named:
        name: str

        def __repr__(self) -> str:
            return f"<{self.name}>"

        def __hash__(self) -> int:
            return 7

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Named)

    assert repr(Named("a")) == "<a>"
    assert hash(Named("a")) == 7
    assert Named("a") == Named("b")


def version(library: Any) -> Any:
    """Return a class whose values are in an order."""

    @library.dataclass(frozen=True, slots=True, order=True)
    class Version:
        major: int
        minor: int

    return Version


@pytest.mark.parametrize("library", [QUICK, STANDARD])
def test_values_are_in_the_order_of_their_fields_if_the_class_asks_for_it(library: Any) -> None:
    kind = version(library)
    assert sorted([kind(1, 2), kind(0, 9), kind(1, 0)]) == [kind(0, 9), kind(1, 0), kind(1, 2)]
    assert kind(1, 0) <= kind(1, 0) < kind(2, 0)
    assert kind(2, 0) >= kind(2, 0) > kind(1, 9)
    with pytest.raises(TypeError):
        _ = kind(1, 0) < (1, 0)


def scanned(library: Any) -> Any:
    """Return a class with fields that no argument sets."""

    @library.dataclass(frozen=True, slots=True)
    class Scanned:
        """A result."""

        path: str
        parts: list[str] = library.field(init=False)
        digest: str = library.field(default="", init=False, compare=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "parts", self.path.split("/"))

    return Scanned


def test_a_field_that_no_argument_sets_has_its_default_or_what_the_class_makes() -> None:
    ours, theirs = scanned(QUICK)("a/b"), scanned(STANDARD)("a/b")
    assert quick.asdict(ours) == dataclasses.asdict(theirs) == {"path": "a/b", "parts": ["a", "b"], "digest": ""}
    assert repr(ours) == repr(theirs)
    object.__setattr__(ours, "digest", "c")
    assert copy.copy(ours).digest == "c"
    assert quick.replace(ours, path="d").digest == ""
    assert quick.replace(ours, path="d").parts == ["d"]
    with pytest.raises(TypeError, match="digest"):
        type(ours)("a", digest="c")


@pytest.mark.parametrize("replace", [quick.replace, dataclasses.replace])
def test_a_value_is_replaced_by_one_with_other_fields(replace: Any) -> None:
    assert replace(Size(1), height=5) == Size(1, 5)
    with pytest.raises(TypeError, match="depth"):
        replace(Size(1), depth=5)


class Place(NamedTuple):
    """A tuple that has a value."""

    size: Size
    name: str


@dataclasses.dataclass
class Standard:
    """A dataclass of the standard library that has a value."""

    size: Size


@quick.dataclass(frozen=True, slots=True)
class Holder:
    """Holds values in each kind of collection."""

    sizes: tuple[Size, ...]
    by_name: dict[str, list[Size]]
    place: Place
    standard: Standard


def test_a_value_is_a_dict_of_dicts_as_the_standard_library_makes_it() -> None:
    holder = Holder((Size(1), Size(2)), {"a": [Size(3)]}, Place(Size(4), "b"), Standard(Size(5)))
    assert quick.asdict(holder) == dataclasses.asdict(holder)
    assert quick.asdict(holder)["place"] == ({"width": 4, "height": 3}, "b")


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_copy_and_a_value_from_another_process_are_equal(again: Any) -> None:
    assert again(Size(1, 9)) == Size(1, 9)


def test_a_value_matches_by_position() -> None:
    match Size(1, 9):
        case Size(width, height):
            assert (width, height) == (1, 9)


def test_the_standard_library_takes_a_value_for_a_dataclass() -> None:
    ours, theirs = point(QUICK), point(STANDARD)
    shown = [(each.name, each.type, each.repr, each.compare) for each in dataclasses.fields(ours)]
    assert shown == [(each.name, each.type, each.repr, each.compare) for each in dataclasses.fields(theirs)]
    assert inspect.signature(ours) == inspect.signature(theirs)
    assert dataclasses.is_dataclass(ours)


@pytest.mark.parametrize("options", [{}, {"frozen": True}, {"frozen": True, "slots": True, "eq": False}])
def test_other_kinds_of_dataclasses_are_left_to_the_standard_library(options: dict[str, bool]) -> None:
    with pytest.raises(TypeError, match=r"dataclasses\.dataclass"):
        QUICK.dataclass(**options)


def test_a_class_with_bases_is_left_to_the_standard_library() -> None:
    with pytest.raises(TypeError, match=r"dataclasses\.dataclass"):

        @QUICK.dataclass(frozen=True, slots=True)
        class Cube(Size):
            depth: int


def test_a_class_is_made_without_the_modules_of_the_standard_library() -> None:
    program = (
        "from __future__ import annotations\nimport sys\nfrom lamella.layers.dataclass import dataclass\n"
        "@dataclass(frozen=True, slots=True)\nclass Size:\n    width: int\n"
        "print(Size(1), {'dataclasses', 'inspect'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "Size(width=1) set()\n"
