"""The line around the runtime: what triggers a part, and what answers the PLC. The runtime does not know it."""
