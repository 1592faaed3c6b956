"""Column types shared by the tables."""

from enum import StrEnum

from sqlalchemy import Column, Enum


def enum_column(kind: type[StrEnum], default: StrEnum, *, server_default: str | None = None) -> "Column[StrEnum]":
    """A text column that holds the values of `kind` and gives back its members; unknown text raises on reading."""
    stored = Enum(kind, native_enum=False, length=16, values_callable=lambda members: [m.value for m in members])
    return Column(stored, nullable=False, default=default, server_default=server_default)
