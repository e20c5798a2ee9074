"""Where UKSM's code departs from what it evidently means to do: a switch for each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quirks:
    """Each is True where UKSM shall do what the released code does, False for what it means to do.

    ghost: the first page under a hash in the unstable tree can't be found there, because the pages
    under a hash are never counted. dense_entry: a slot that enters an empty rung 2 or 3 is scanned
    page by page until the next plan, because a share of max_cpu_percentage is taken for a huge
    number. credit: which other slots a merge is credited to depends on the order of their
    addresses. freeze: visits to a slot that has completed a pass in this full round don't count
    towards the round, so rounds may end for good. wrap: a slot's end may turn the count of visits
    into a huge number, which ends the round.
    """

    ghost: bool = True
    dense_entry: bool = True
    credit: bool = True
    freeze: bool = True
    wrap: bool = True


AS_SHIPPED = Quirks()
AS_INTENDED = Quirks(ghost=False, dense_entry=False, credit=False, freeze=False, wrap=False)
