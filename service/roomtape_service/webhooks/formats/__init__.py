"""How a webhook speaks: our own format and the vendors', as pure functions of an event."""
