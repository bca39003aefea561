"""The schedules there are, and which of them a statement gets."""

from striate.compiler.schedules import direct, generic, grouped, window
from striate.compiler.schedules.base import Schedule
from striate.compiler.target import Target
from striate.notation.ir import Statement

# To add a schedule is to add its module to this tuple.
SCHEDULES: tuple[Schedule, ...] = (direct, grouped, window, generic)


def choose(
    statement: Statement, target: Target, schedules: tuple[Schedule, ...] = SCHEDULES
) -> Schedule:
    """The schedule with the smallest estimated time."""
    estimates = [(schedule, schedule.seconds(statement, target)) for schedule in schedules]
    return min(
        ((seconds, k, s) for k, (s, seconds) in enumerate(estimates) if seconds is not None),
        key=lambda found: found[:2],
    )[2]
