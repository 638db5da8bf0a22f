"""``opcua:HOST:PORT``: an OPC UA server after the companion specification OPC 40100-1, machine vision."""
