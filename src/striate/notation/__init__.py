"""The notation: text to equation, and what an equation means."""
