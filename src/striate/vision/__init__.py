"""Networks at work on photos: guesses, dense maps, hypercolumns, segments, what they saw."""
