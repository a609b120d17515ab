"""Orders to record: their state, what they take of their rooms, and what comes of them."""
