"""Draw the plan of a night from its seed: an ordinary one, to which layers add what would be rare in it.

Each layer draws from a generator of its own, so that the other nights stay what they are if one changes.
"""

from tests.nights.drawn.disks import with_full_disks
from tests.nights.drawn.ordinary import ordinary_night
from tests.nights.drawn.rare import with_rare_things
from tests.nights.drawn.sources import with_failing_sources
from tests.nights.drawn.spread import spread_over_starts
from tests.nights.plan import Night


def draw(seed: int) -> Night:
    """Draw a night."""
    night = spread_over_starts(ordinary_night(seed))
    for layer in (with_rare_things, with_failing_sources, with_full_disks):
        night = layer(night)
    return night
