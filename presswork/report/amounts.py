"""Format counts, money, shares and durations for people, the same in Prefect's UI, on a terminal and in a log."""

from decimal import Decimal


def counted(number: int, noun: str) -> str:
    """Format a count with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def dollars(cost: Decimal | None, unpriced: int = 0) -> str:
    """Format a cost in US dollars; `unpriced` counts the requests whose cost is unknown."""
    if cost is None:
        return "unknown (no price for the model or its options, or the endpoint reports no usage)"
    lacks = f" and {unpriced:,} requests of unknown price" if unpriced else ""
    return f"${cost:,.4f}{lacks}"


def exact_dollars(amount: Decimal | float) -> str:
    """Format an amount that a person has set: with cents, and with all further digits that it has."""
    exact = Decimal(str(amount)).normalize()
    return max(f"${exact:,.2f}", f"${exact:,f}", key=len)


def percent(share: float) -> str:
    """Format a share of 1 as a percentage."""
    return f"{share:.0%}".replace("%", " %")


def duration(seconds: float) -> str:
    """Format a duration: in seconds below two minutes, then in minutes, then in hours."""
    if seconds < 120:
        return f"{seconds:,.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
