"""The kinds of numbers that settings are, and what the sections of the configuration have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def whole_number(value: Any) -> Any:
    """Let people write 1e9 or 1_000_000 where a whole number is wanted."""
    if isinstance(value, bool):
        raise ValueError("a whole number is wanted, not true or false")
    if isinstance(value, str):
        try:
            number = float(value.replace("_", ""))
        except ValueError:
            return value
        return int(number) if number.is_integer() else value
    return value


def switch(value: Any) -> Any:
    """YAML reads on and off as true and false."""
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


Count = Annotated[int, BeforeValidator(whole_number), Field(ge=1)]
CountOrZero = Annotated[int, BeforeValidator(whole_number), Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A frozen group of settings that refuses names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def refuse(given: Mapping[str, Any], section: str, because: str, names: set[str]) -> None:
    """Refuse settings that nothing would read. Values that say "off" are let through."""
    for name in sorted(names & given.keys()):
        if given[name] not in (False, 0, (), []):
            raise ValueError(f"{section}.{name} would be ignored with {because}; leave it out, or set it to null")
