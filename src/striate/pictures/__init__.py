"""Pictures of networks and of what they see: arrays and numbers to figures, by matplotlib."""
