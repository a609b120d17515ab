"""The library of what was recorded: files that are deleted, given up, joined, or whose time is over."""
