"""The gRPC edge: servicers, conversion, validation, and what every call passes."""
