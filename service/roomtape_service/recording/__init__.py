"""What a worker runs: timelines, mixing, encoding, containers, segment cutting."""
