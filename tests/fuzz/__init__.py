"""What anybody may send: every channel of the registry, held to one law. A channel added later is held to it by itself."""
