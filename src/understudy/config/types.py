"""Types of numbers in settings, and the base class of the configuration's sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def whole_number(value: Any) -> Any:
    """Accept 1e9 and 1_000_000 as whole numbers."""
    if isinstance(value, bool):
        raise ValueError("a whole number is expected, not true or false")
    if isinstance(value, str):
        try:
            number = float(value.replace("_", ""))
        except ValueError:
            return value
        return int(number) if number.is_integer() else value  # infinity and NaN are no integers
    return value


def switch(value: Any) -> Any:
    """Accept on and off, which YAML reads as true and false."""
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


Count = Annotated[int, Field(ge=1), BeforeValidator(whole_number)]
CountOrZero = Annotated[int, Field(ge=0), BeforeValidator(whole_number)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A frozen group of settings that refuses unknown names. The docstring below a field describes the setting."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True)


def refuse(given: Mapping[str, Any], section: str, because: str, names: set[str]) -> None:
    """Refuse settings that nothing would read, unless their value is "off".

    Args:
        because: the setting that makes the others ignored.
        names: the settings that would be ignored.
    """
    for name in sorted(names & given.keys()):
        if given[name] not in (False, 0, (), []):
            raise ValueError(f"{section}.{name} would be ignored with {because}; leave it out, or set it to null")
