"""How media comes in."""
