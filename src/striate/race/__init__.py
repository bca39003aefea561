"""The race: this package and other runtimes on the same networks, weights and images, in turns."""
