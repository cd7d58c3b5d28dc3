"""What all parts of a scenario are made of: their base, kinds of numbers, references to policies.

Modules with parts don't have ``from __future__ import annotations``: Pydantic would have to evaluate the text of every
annotation again, which is a fifth of what importing them takes. And a part that is another's default is made by a
``lambda``, whose signature is read in less time than a class's.
"""

from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

MAX_SECONDS = 1e9
"""Longest time that a scenario may name: about 31 years."""

AUTO = BeforeValidator(lambda value: None if value == "auto" else value)

Count = Annotated[int, Field(ge=1, le=2**31)]
Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]
Duration = Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False)]
Factor = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]


class Part(BaseModel):
    """Base of all parts of a scenario: frozen, unknown keys refused, types not converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


class PolicyRef(Part):
    """A policy by name, or ``path/to/file.py:ClassName``, with its parameters; a name alone will do."""

    kind: ClassVar[str] = ""

    name: Text
    """Name, as ``simulate policies`` lists it, or ``path/to/file.py:ClassName``."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Parameters by name; those left out have the policy's own defaults."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        from policies import registry

        cls = registry.resolve(self.kind, self.name)
        try:
            registry.make(self.kind, self.name, self.params)
        except Exception as error:
            from simulator.blame import policy_error

            blamed = policy_error(error, [cls])
            if blamed is None:
                raise
            raise blamed from error
        return self
