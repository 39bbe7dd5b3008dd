"""The shipped checkpoint, and how it was trained; nothing imports this."""
