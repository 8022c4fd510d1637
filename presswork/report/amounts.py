"""Write counts, money, shares and durations for people: alike in Prefect's UI, on a terminal and in a log."""

from decimal import Decimal


def counted(number: int, noun: str) -> str:
    """Say a number of things."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def dollars(cost: Decimal | None, unpriced: int = 0) -> str:
    """Say a cost, and what it lacks."""
    if cost is None:
        return "unknown (no price for the model or for how it ran, or the endpoint tells no usage)"
    lacks = f" and {unpriced:,} requests of unknown price" if unpriced else ""
    return f"${cost:,.4f}{lacks}"


def percent(share: float) -> str:
    """Say a share of one as a percentage."""
    return f"{share:.0%}".replace("%", " %")


def duration(seconds: float) -> str:
    """Say how long something takes: seconds below two minutes, then minutes, then hours."""
    if seconds < 120:
        return f"{seconds:,.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
