"""mqtt-mdi: one multi-exit network, several small devices, an ordinary MQTT broker."""

__version__ = "0.1.0"
