"""The demo: a room of three speakers, recorded on this machine and checked."""
