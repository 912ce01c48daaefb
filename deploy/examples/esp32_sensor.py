"""A sensor on an ESP32: takes a grey picture of 28x28, sends it, and hears what it shows.

For MicroPython with umqtt.simple, over MQTT 3.1.1. Settings stand in config.py, beside this file on the
board; docs/howto/esp32.md has the steps. Replace `take_picture` by what reads your camera or sensor.
"""

import json
import time

import config
from umqtt.simple import MQTTClient

try:
    import network
except ImportError:  # MicroPython on a PC, where the system holds the connection
    network = None

SIDE = 28
ANSWER_MS = 10_000
FRAMES = "mdi/v1/{}/frames/{}".format(config.PIPELINE, config.SENSOR).encode()
RESULTS = "mdi/v1/{}/results/{}".format(config.PIPELINE, config.SENSOR).encode()


def join_wifi():
    """Wait until the board is in its network."""
    if network is None:
        return
    station = network.WLAN(network.STA_IF)
    station.active(True)
    if not station.isconnected():
        station.connect(config.WIFI_NAME, config.WIFI_PASSWORD)
    while not station.isconnected():
        time.sleep_ms(200)


def take_picture(number):
    """One byte a pixel, row by row, 0 is black: here a pair of trousers, wider from picture to picture."""
    pixels = bytearray(SIDE * SIDE)
    width = 10 + 2 * (number % 3)
    for y in range(2, 26):
        for x in range(14 - width // 2, 14 + width // 2):
            if y < 8 or not 13 <= x <= 14:
                pixels[y * SIDE + x] = 200
    return pixels


def npy(pixels):
    """The picture as NumPy writes arrays (NEP 1): 128 bytes that describe it, then the pixels."""
    about = "{{'descr': '|u1', 'fortran_order': False, 'shape': ({0}, {0}), }}".format(SIDE)
    header = about.encode() + b" " * (117 - len(about)) + b"\n"
    return b"\x93NUMPY\x01\x00" + bytes([len(header), 0]) + header + bytes(pixels)


def connect(heard):
    """A client that has subscribed to its own answers."""
    account = {"user": config.USER, "password": config.PASSWORD} if config.USER else {}
    client = MQTTClient(config.SENSOR, config.BROKER, port=config.PORT, **account)
    client.set_callback(lambda _topic, payload: heard.append(json.loads(payload)))
    client.connect()
    client.subscribe(RESULTS)
    return client


def run():
    """Send pictures one by one and print their answers, FRAMES of them or without end."""
    heard = []
    client = connect(heard)
    number = 0
    while not config.FRAMES or number < config.FRAMES:
        client.publish(FRAMES, npy(take_picture(number)), qos=1)
        number += 1
        start = time.ticks_ms()
        while not heard and time.ticks_diff(time.ticks_ms(), start) < ANSWER_MS:
            client.check_msg()
            time.sleep_ms(10)
        if not heard:
            print("no answer")
        while heard:
            answer = heard.pop(0)
            if answer["status"] == "ok":
                print(
                    answer["class_name"],
                    answer["score"],
                    "exit",
                    answer["exit_stage"],
                    answer["latency_ms"],
                    "ms",
                )
            else:
                print("failed:", answer["reason"])
        time.sleep_ms(config.PAUSE_MS)
    client.disconnect()


def main():
    """Begin anew whenever the connection breaks."""
    while True:
        try:
            join_wifi()
            run()
        except OSError as error:
            print("connection:", error)
            time.sleep_ms(5000)
        else:
            return


main()
