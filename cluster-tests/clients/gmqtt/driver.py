"""The driver of gmqtt."""

import asyncio
import ssl
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import gmqtt
from gmqtt.mqtt.constants import MQTTv50, MQTTv311
from gmqtt.storage import PersistentStorage

from driver import ALIAS, CA_FILE, KEEP_ALIVE_S, SESSION_EXPIRY_S, serve


class Client:
    def __init__(self, url, v5, id, clean, will):
        self.url, self.version = url, MQTTv50 if v5 else MQTTv311
        self.connected, self.messages, self.granted = asyncio.Queue(), asyncio.Queue(), asyncio.Queue()
        # Empty once all that was published is acknowledged.
        self.unacknowledged = PersistentStorage()
        more = {"session_expiry_interval": 0 if clean else SESSION_EXPIRY_S} if v5 else {}
        if will:
            more["will_message"] = gmqtt.Message(will["topic"], will["payload"], qos=will["qos"])
        self.mqtt = gmqtt.Client(
            id, clean_session=clean, persistent_storage=self.unacknowledged, **more
        )
        self.mqtt.on_connect = lambda _c, present, _reason, _p: self.connected.put_nowait(present)
        self.mqtt.on_message = lambda _c, *message: self.messages.put_nowait(message)
        self.mqtt.on_subscribe = lambda _c, _mid, reasons, _p: self.granted.put_nowait(reasons)
        self.mqtt.on_disconnect = lambda *_: None

    async def connect(self):
        tls = ssl.create_default_context(cafile=CA_FILE) if self.url.tls else False
        await self.mqtt.connect(
            self.url.host, self.url.port, ssl=tls, keepalive=KEEP_ALIVE_S, version=self.version
        )
        return {"session_present": bool(await self.connected.get())}

    async def subscribe(self, topic, qos, identifier):
        more = {} if identifier is None else {"subscription_identifier": identifier}
        self.mqtt.subscribe(topic, qos, **more)
        [reason] = await self.granted.get()
        return {"granted": reason}

    async def publish(self, topic, payload, qos, retain, properties):
        more = {}
        if properties:
            more = {
                "user_property": list(properties["user"].items()),
                "content_type": properties["content_type"],
                "response_topic": properties["response_topic"],
                "correlation_data": bytes.fromhex(properties["correlation_data"]),
                "message_expiry_interval": properties["message_expiry_s"],
            }
        await self._publish(topic, payload, qos, retain, **more)

    async def _publish(self, topic, payload, qos, retain, **more):
        self.mqtt.publish(topic, payload, qos, retain, **more)
        await self.unacknowledged.wait_empty()

    async def publish_alias(self, topic, payload, qos, retain):
        await self._publish(topic, payload, qos, retain, topic_alias=ALIAS)
        await self._publish("", payload, qos, retain, topic_alias=ALIAS)

    async def next(self):
        topic, payload, qos, p = await self.messages.get()
        first = lambda name: p[name][0] if name in p else None
        correlation = first("correlation_data")
        return {
            "topic": topic,
            "payload": payload.hex(),
            "qos": qos,
            "retain": bool(p["retain"]),
            "properties": {
                "user": dict(p.get("user_property", [])),
                "content_type": first("content_type"),
                "response_topic": first("response_topic"),
                "correlation_data": correlation and correlation.hex(),
                "message_expiry_s": first("message_expiry_interval"),
                "identifiers": p.get("subscription_identifier"),
            },
        }

    async def disconnect(self):
        try:
            await self.mqtt.disconnect()
        except ssl.SSLError as error:
            # DISCONNECT is sent. An answer to what went before it, such as a PUBREL, may be under way,
            # which asyncio takes amiss once it has said that it closes.
            if error.reason != "APPLICATION_DATA_AFTER_CLOSE_NOTIFY":
                raise


serve(Client)
