"""Live rooms: who is in them and what they publish."""
