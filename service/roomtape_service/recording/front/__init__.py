"""The node's side of the workers: what each room feeds to its worker, what the worker reports, and who takes over."""
