"""The driver of aiomqtt."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import aiomqtt
import ssl

import paho_properties
from driver import ANSWER_S, CA_FILE, KEEP_ALIVE_S, serve


class Client:
    def __init__(self, url, v5, id, clean, will):
        self.v5 = v5
        if v5:
            more = {"clean_start": clean, "properties": paho_properties.for_connect(clean)}
        else:
            more = {"clean_session": clean}
        if url.websocket:
            more |= {"transport": "websockets", "websocket_path": url.path}
        if url.tls:
            more["tls_context"] = ssl.create_default_context(cafile=CA_FILE)
        if will:
            more["will"] = aiomqtt.Will(will["topic"], will["payload"], will["qos"])
        self.mqtt = aiomqtt.Client(
            url.host,
            url.port,
            identifier=id,
            protocol=aiomqtt.ProtocolVersion.V5 if v5 else aiomqtt.ProtocolVersion.V311,
            timeout=ANSWER_S,
            keepalive=KEEP_ALIVE_S,
            **more,
        )

    async def connect(self):
        await self.mqtt.__aenter__()
        # It keeps to itself what CONNACK says of the session.
        return {"session_present": None}

    async def subscribe(self, topic, qos, identifier):
        properties = paho_properties.for_subscribe(identifier) if self.v5 else None
        [reason] = await self.mqtt.subscribe(topic, qos, properties=properties)
        return {"granted": reason if isinstance(reason, int) else reason.value}

    async def publish(self, topic, payload, qos, retain, properties):
        properties = paho_properties.for_publish(properties) if self.v5 else None
        await self.mqtt.publish(topic, payload, qos, retain, properties)

    async def publish_alias(self, topic, payload, qos, retain):
        await self.mqtt.publish(topic, payload, qos, retain, paho_properties.for_alias())
        await self.mqtt.publish("", payload, qos, retain, paho_properties.for_alias())

    async def next(self):
        return paho_properties.received(await anext(self.mqtt.messages))

    async def disconnect(self):
        await self.mqtt.__aexit__(None, None, None)


serve(Client)
