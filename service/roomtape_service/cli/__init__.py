"""The command `roomtape`."""
