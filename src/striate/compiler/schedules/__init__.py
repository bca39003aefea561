"""The schedules; each module is one way to compute a family of statements."""
