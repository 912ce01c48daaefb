"""Settings of esp32_sensor.py; goes onto the board beside it."""

WIFI_NAME = "my-network"
WIFI_PASSWORD = "its password"

BROKER = "192.168.1.10"  # an address: not every network resolves names for boards
PORT = 1883
USER = ""
PASSWORD = ""

PIPELINE = "demo"
SENSOR = "esp32-1"
FRAMES = 0  # how many to send; 0 for without end
PAUSE_MS = 1000  # between an answer and the next frame
