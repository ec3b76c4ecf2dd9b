"""`dataclass` for frozen values with slots, made in a thirtieth of the standard library's time.

The standard library writes and compiles the source of six methods for each class, and imports `inspect` for it: a third of
the start of `lamella run`. Here the methods are closures. Type checkers see the standard library's decorator, and its
functions (`fields`, `asdict`, `replace`, `is_dataclass`) take these values. See docs/adr/a-start-loads-what-it-uses.md.
"""

from __future__ import annotations

from operator import attrgetter, ge, gt, le, lt
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["asdict", "dataclass", "field", "replace"]

T = TypeVar("T")
_MISSING = object()


class _Field:
    """A field's options, as `dataclasses.field` takes them: `default`, `default_factory`, `init`, `repr` and `compare`."""

    __slots__ = ("options",)

    def __init__(self, **options: Any) -> None:
        self.options = options

    def value(self) -> object:
        """Return the default for one more instance; `_MISSING` without one."""
        factory = self.options.get("default_factory")
        return factory() if factory else self.options.get("default", _MISSING)

    def has(self, option: str) -> bool:
        """Whether an option is on, as it is unless it is given."""
        return bool(self.options.get(option, True))


def _dataclass(*, frozen: bool = False, slots: bool = False, **options: bool) -> Callable[[type[T]], type[T]]:
    """As `dataclasses.dataclass`, for classes without bases; `frozen` and `slots` must be true. Takes `order` and `repr`."""
    if not (frozen and slots and options.keys() <= {"order", "repr"}):
        raise TypeError("only for frozen classes with slots; use dataclasses.dataclass")

    def decorate(cls: type[T]) -> type[T]:
        if cls.__bases__ != (object,):
            raise TypeError(f"{cls.__name__} has base classes; use dataclasses.dataclass")
        return _made(cls, **options)

    return decorate


def _replace(value: T, /, **changes: Any) -> T:
    """As `dataclasses.replace`, for values of this module's classes."""
    names = value.__match_args__  # type: ignore[attr-defined] # every such class has it
    given = [changes.pop(name) if name in changes else getattr(value, name) for name in names]
    return type(value)(*given, **changes)


def _asdict(value: object) -> dict[str, Any]:
    """As `dataclasses.asdict`, for values of this module's classes."""
    return {name: _plain(getattr(value, name)) for name in type(value).__slots__}  # type: ignore[attr-defined] # as above


def _plain(value: Any) -> Any:
    kind = type(value)
    fields = kind.__dict__.get("__dataclass_fields__")
    if isinstance(fields, _OnDemand):
        return _asdict(value)
    if fields:
        import dataclasses

        return dataclasses.asdict(value)
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return kind(*map(_plain, value))
    if isinstance(value, (list, tuple)):
        return kind(map(_plain, value))
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value


def _made(cls: type[T], **options: bool) -> type[T]:
    """Return `cls` with slots for its fields, and the methods of a frozen dataclass that it does not define."""
    body = dict(cls.__dict__)
    names = tuple(cls.__annotations__)
    given = {name: body.pop(name) for name in names if name in body}
    fields = {name: each if isinstance(each, _Field) else _Field(default=each) for name, each in given.items()}
    for name in ("__dict__", "__weakref__"):
        del body[name]
    body |= {
        "__qualname__": cls.__qualname__,
        "__slots__": names,
        "__match_args__": tuple(name for name in names if name not in fields or fields[name].has("init")),
        "__setattr__": _refuse,
        "__delattr__": _refuse,
        "__reduce__": _reduce,
        "__replace__": _replace,
        "__dataclass_fields__": _OnDemand(cls, fields),
        "__dataclass_params__": _OnDemand(cls, fields),
        "__signature__": _OnDemand(cls, fields),
    }
    compared = _values_of([name for name in names if name not in fields or fields[name].has("compare")])
    body.setdefault("__eq__", _equal(compared))
    if body.get("__hash__") is None:
        body["__hash__"] = lambda value: hash(compared(value))
    if options.get("repr", True):
        body.setdefault("__repr__", _repr([name for name in names if name not in fields or fields[name].has("repr")]))
    if options.get("order"):
        body |= _order(compared)
    made = type(cls.__name__, cls.__bases__, body)
    # Closed to assignment for values, not for the class: its slots exist only now.
    made.__init__ = _init(made, body["__match_args__"], fields)  # type: ignore[misc] # mypy: on an instance
    return made


def _init(made: type, names: tuple[str, ...], fields: Mapping[str, _Field]) -> Callable[..., None]:
    setters = [made.__dict__[name].__set__ for name in names]
    count = len(names)
    # Fields that no argument sets: a default, or left to `__post_init__`.
    others = [(made.__dict__[name].__set__, each) for name, each in fields.items() if not each.has("init")]
    check = made.__dict__.get("__post_init__")

    def initialise(self: object, /, *given: object, **named: object) -> None:
        if named or len(given) != count:
            given = _bound(made, names, fields, given, named)
        for at, put in enumerate(setters):
            put(self, given[at])
        for put, each in others:
            if (value := each.value()) is not _MISSING:
                put(self, value)
        if check:
            check(self)

    return initialise


def _bound(
    made: type,
    names: tuple[str, ...],
    fields: Mapping[str, _Field],
    given: tuple[object, ...],
    named: dict[str, object],
) -> tuple[object, ...]:
    """Return the value of every field. Raises `TypeError` for arguments that the class does not take."""
    found = list(given)
    for name in names[len(given) :]:
        value = named.pop(name) if name in named else fields[name].value() if name in fields else _MISSING
        if value is _MISSING:
            raise TypeError(f"{made.__qualname__}() missing argument {name!r}")
        found.append(value)
    if named:
        raise TypeError(f"{made.__qualname__}() got an unexpected or repeated argument {next(iter(named))!r}")
    if len(found) > len(names):
        raise TypeError(f"{made.__qualname__}() takes {len(names)} arguments, {len(found)} were given")
    return tuple(found)


def _values_of(names: list[str]) -> Callable[[object], tuple[object, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    return lambda value: tuple(getattr(value, name) for name in names)


def _equal(compared: Callable[[object], tuple[object, ...]]) -> Callable[[object, object], bool]:
    def equal(self: object, other: object) -> bool:
        return compared(self) == compared(other) if type(other) is type(self) else NotImplemented

    return equal


def _order(compared: Callable[[object], tuple[Any, ...]]) -> dict[str, Callable[[object, object], bool]]:
    def by(compare: Callable[[Any, Any], bool]) -> Callable[[object, object], bool]:
        return lambda one, other: (
            compare(compared(one), compared(other)) if type(other) is type(one) else NotImplemented
        )

    return {"__lt__": by(lt), "__le__": by(le), "__gt__": by(gt), "__ge__": by(ge)}


def _repr(names: list[str]) -> Callable[[object], str]:
    def represent(self: object) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    return represent


def _reduce(self: Any) -> tuple[Callable[..., object], tuple[type, tuple[object, ...]]]:
    return _restored, (type(self), tuple(getattr(self, name) for name in self.__slots__))


def _restored(kind: type[T], values: tuple[object, ...]) -> T:
    """Return a value as it was: copied, or from another process."""
    made = object.__new__(kind)
    for name, value in zip(kind.__slots__, values, strict=True):  # type: ignore[attr-defined] # as above
        object.__setattr__(made, name, value)
    return made


def _refuse(_self: object, name: str, *_: object) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to or delete field {name!r}")


class _OnDemand:
    """An attribute that `dataclasses` or `inspect` asks a class for, taken from the one that the standard library makes."""

    __slots__ = ("_cls", "_fields", "_name")

    def __init__(self, cls: type, fields: Mapping[str, _Field]) -> None:
        self._cls = cls
        self._fields = fields

    def __set_name__(self, _owner: type, name: str) -> None:
        self._name = name

    def __get__(self, _instance: object, _owner: type) -> object:
        import dataclasses
        import inspect

        if not dataclasses.is_dataclass(self._cls):
            for name, each in self._fields.items():
                setattr(self._cls, name, dataclasses.field(**each.options))
            dataclasses.dataclass(frozen=True)(self._cls)
        return inspect.signature(self._cls) if self._name == "__signature__" else getattr(self._cls, self._name)


if TYPE_CHECKING:
    from dataclasses import asdict, dataclass, field, replace
else:
    asdict, dataclass, field, replace = _asdict, _dataclass, _Field, _replace
