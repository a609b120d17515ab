"""What a task's manifest says, how it gets into the store, and how it is verified."""
