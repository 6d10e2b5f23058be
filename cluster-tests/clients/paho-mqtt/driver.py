"""The driver of paho-mqtt, in its usual form: a thread of its own that calls back."""

import queue
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

import paho_properties
from driver import ANSWER_S, CA_FILE, KEEP_ALIVE_S, serve


class Client:
    def __init__(self, url, v5, id, clean, will):
        self.v5 = v5
        self.connected, self.messages, self.granted = queue.Queue(), queue.Queue(), queue.Queue()
        self.disconnected = queue.Queue()
        self.mqtt = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=id,
            clean_session=None if v5 else clean,
            protocol=mqtt.MQTTv5 if v5 else mqtt.MQTTv311,
            transport="websockets" if url.websocket else "tcp",
            reconnect_on_failure=False,
        )
        self.mqtt.on_connect = lambda _c, _u, flags, reason, _p: self.connected.put((flags, reason))
        self.mqtt.on_subscribe = lambda _c, _u, _m, reasons, _p: self.granted.put(reasons)
        self.mqtt.on_message = lambda _c, _u, message: self.messages.put(message)
        self.mqtt.on_disconnect = lambda _c, _u, _f, reason, _p: self.disconnected.put(reason)
        if will:
            self.mqtt.will_set(will["topic"], will["payload"], will["qos"])
        if url.websocket:
            self.mqtt.ws_set_options(path=url.path)
        if url.tls:
            self.mqtt.tls_set(CA_FILE)
        more = {"clean_start": clean, "properties": paho_properties.for_connect(clean)} if v5 else {}
        self.mqtt.connect(url.host, url.port, KEEP_ALIVE_S, **more)
        self.mqtt.loop_start()

    def connect(self):
        flags, reason = self.connected.get(timeout=ANSWER_S)
        assert not reason.is_failure, reason
        return {"session_present": flags.session_present}

    def subscribe(self, topic, qos, identifier):
        properties = paho_properties.for_subscribe(identifier) if self.v5 else None
        self.mqtt.subscribe(topic, qos, properties=properties)
        [reason] = self.granted.get(timeout=ANSWER_S)
        return {"granted": reason.value}

    def publish(self, topic, payload, qos, retain, properties):
        properties = paho_properties.for_publish(properties) if self.v5 else None
        self._publish(topic, payload, qos, retain, properties)

    def _publish(self, topic, payload, qos, retain, properties):
        info = self.mqtt.publish(topic, payload, qos, retain, properties)
        info.wait_for_publish(ANSWER_S)
        assert info.is_published(), "not acknowledged"

    def publish_alias(self, topic, payload, qos, retain):
        self._publish(topic, payload, qos, retain, paho_properties.for_alias())
        self._publish("", payload, qos, retain, paho_properties.for_alias())

    def next(self):
        return paho_properties.received(self.messages.get(timeout=ANSWER_S))

    def disconnect(self):
        self.mqtt.disconnect()
        reason = self.disconnected.get(timeout=ANSWER_S)
        assert not reason.is_failure, reason
        self.mqtt.loop_stop()


serve(Client)
