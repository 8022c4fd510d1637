"""What the ledger's tables are made of: the column types (times in UTC, exact money, ids, hashes, keys), and the base.

Tables are classes without SQLAlchemy's ORM, of which nothing else would be used: it takes longer to load than the rest
of SQLAlchemy that a command needs, and to write each statement.
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

Value = TypeVar("Value")
Stored = TypeVar("Stored", bound="Base")


class UtcDateTime(sa.TypeDecorator[datetime]):
    """A time in UTC. SQLite has no time zones, so the times that it returns are marked as UTC here."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Convert to UTC; a time without a zone is a ValueError, because its zone would be a guess."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a time without a time zone can't be written to the ledger")
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Return a time in UTC; one without a zone comes from SQLite and is UTC already."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Money(sa.TypeDecorator[Decimal]):
    """US dollars to ten decimals: a single token of the cheapest cached kind costs 0.00000005.

    PostgreSQL stores NUMERIC exactly. SQLite has no decimals: it stores the nearest double, exact to fifteen digits.
    The values that it returns, sums too, are rounded back to ten decimals.
    """

    # SQLite gets plain floats, because SQLAlchemy's Numeric would warn on each use.
    impl = sa.Numeric(20, 10).with_variant(sa.Numeric(20, 10, asdecimal=False), "sqlite")
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: sa.Dialect) -> Any:
        """Bind a Decimal; SQLite gets a float."""
        return float(value) if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Decimal | None:
        """Return a Decimal, rounded to ten decimals."""
        return None if value is None else Decimal(str(value)).quantize(Decimal("1e-10"))


class Base:
    """A table as a class: its columns are attributes, and a statement takes the class for the table.

    Constraints have fixed names, so that migrations can refer to them.
    """

    metadata: ClassVar = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    __tablename__: ClassVar[str]
    __table_args__: ClassVar[tuple[sa.Constraint | sa.Index, ...]] = ()
    __table__: ClassVar[sa.Table]

    def __init_subclass__(cls, **options: Any) -> None:
        """Make the table from the attributes that are columns, in order; `options` are those of sqlalchemy.Table."""
        columns = {name: value for name, value in vars(cls).items() if isinstance(value, sa.Column)}
        for name, each in columns.items():
            each.name = each.key = name
        cls.__table__ = sa.Table(cls.__tablename__, cls.metadata, *columns.values(), *cls.__table_args__, **options)

    @classmethod
    def __clause_element__(cls) -> sa.Table:
        """Return what SQLAlchemy puts into a statement for this class."""
        return cls.__table__


def column(
    kind: TypeEngine[Value] | type[TypeEngine[Value]], *references: sa.ForeignKey, **options: Any
) -> sa.Column[Value]:
    """Make a column that is never null, with the name of its attribute; `options` are those of sqlalchemy.Column."""
    return sa.Column(kind, *references, nullable=False, **options)


def optional(
    kind: TypeEngine[Value] | type[TypeEngine[Value]], *references: sa.ForeignKey, **options: Any
) -> sa.Column[Value | None]:
    """Make a column that may be null."""
    return cast("sa.Column[Value | None]", sa.Column(kind, *references, nullable=True, **options))


def aliased(table: type[Stored]) -> type[Stored]:
    """Give a table a name of its own in a statement, so that it can be there twice."""
    other = table.__table__.alias()
    columns = {"__table__": other, "__clause_element__": lambda: other, **{each.key: each for each in other.c}}
    return cast("type[Stored]", type(table.__name__, (), columns))


Id = sa.String(36)
Hash = sa.String(64)
# Keys sort by their bytes, as in SQLite. A fan-in reads them in this order, and its prompt must not depend on the
# database's locale.
KeyText = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def one_of(column: str, values: tuple[str, ...]) -> sa.CheckConstraint:
    """Allow only these values in a column."""
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=column)
