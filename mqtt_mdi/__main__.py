"""`python -m mqtt_mdi` is `mqtt-mdi`."""

from mqtt_mdi.cli.main import main

main()
