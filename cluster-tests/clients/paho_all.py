"""Publishes on each node and receives on each other one with paho-mqtt, as it is.

usage: paho_all.py 3.1.1|5.0 PREFIX HOST:PORT...
"""

import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

ANSWER_S = 20
VERSION = {"3.1.1": mqtt.MQTTv311, "5.0": mqtt.MQTTv5}


class Client:
    """A connected client whose messages and acknowledgements wait in queues."""

    def __init__(self, version, name, address, will=None):
        self.messages, self.granted = queue.Queue(), queue.Queue()
        connected = queue.Queue()
        self.mqtt = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=VERSION[version])
        self.mqtt.on_connect = lambda _c, _u, _f, reason, _p: connected.put(reason)
        self.mqtt.on_subscribe = lambda _c, _u, _m, reasons, _p: self.granted.put(reasons)
        self.mqtt.on_message = lambda _c, _u, message: self.messages.put(message)
        if will:
            self.mqtt.will_set(will, b"gone", qos=1)
        host, port = address.rsplit(":", 1)
        self.mqtt.connect(host, int(port))
        self.mqtt.loop_start()
        reason = connected.get(timeout=ANSWER_S)
        assert not reason.is_failure, f"{name}: {reason}"

    def subscribe(self, topic, qos):
        self.mqtt.subscribe(topic, qos)
        reasons = self.granted.get(timeout=ANSWER_S)
        assert [r.value for r in reasons] == [qos], f"{topic}: {reasons}"

    def publish(self, topic, payload, qos, retain=False):
        self.mqtt.publish(topic, payload, qos, retain).wait_for_publish(ANSWER_S)

    def expect(self, topic, payload, qos, retain=False):
        got = self.messages.get(timeout=ANSWER_S)
        have = (got.topic, got.payload, got.qos, got.retain)
        assert have == (topic, payload, qos, retain), f"{have} for {(topic, payload, qos, retain)}"

    def crash(self):
        """Ends the connection without DISCONNECT."""
        self.mqtt.loop_stop()
        self.mqtt.socket().close()

    def close(self):
        self.mqtt.disconnect()
        self.mqtt.loop_stop()


def main():
    version, prefix, addresses = sys.argv[1], sys.argv[2], sys.argv[3:]
    clients = [Client(version, f"{prefix}-{i}", address) for i, address in enumerate(addresses)]
    for i, sender in enumerate(clients):
        for j, receiver in enumerate(clients):
            for qos in (0, 1, 2):
                topic, payload = f"{prefix}/{i}/{j}/{qos}", f"{i}{j}{qos}".encode()
                receiver.subscribe(topic, qos)
                sender.publish(topic, payload, qos)
                receiver.expect(topic, payload, qos)
    for i, sender in enumerate(clients):
        receiver = clients[(i + 1) % len(clients)]
        kept = f"{prefix}/kept/{i}"
        sender.publish(kept, b"kept", 1, retain=True)
        receiver.subscribe(kept, 1)
        receiver.expect(kept, b"kept", 1, retain=True)
        will = f"{prefix}/will/{i}"
        receiver.subscribe(will, 1)
        Client(version, f"{prefix}-dies-{i}", addresses[i], will=will).crash()
        receiver.expect(will, b"gone", 1)
    for client in clients:
        client.close()
    print("ok")


main()
