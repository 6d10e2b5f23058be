"""Properties as paho-mqtt has them."""

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from driver import ALIAS, SESSION_EXPIRY_S


def for_connect(clean):
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 0 if clean else SESSION_EXPIRY_S
    return properties


def for_subscribe(identifier):
    properties = Properties(PacketTypes.SUBSCRIBE)
    if identifier is not None:
        properties.SubscriptionIdentifier = identifier
    return properties


def for_publish(wanted):
    properties = Properties(PacketTypes.PUBLISH)
    if wanted:
        properties.UserProperty = list(wanted["user"].items())
        properties.ContentType = wanted["content_type"]
        properties.ResponseTopic = wanted["response_topic"]
        properties.CorrelationData = bytes.fromhex(wanted["correlation_data"])
        properties.MessageExpiryInterval = wanted["message_expiry_s"]
    return properties


def for_alias():
    properties = Properties(PacketTypes.PUBLISH)
    properties.TopicAlias = ALIAS
    return properties


def received(message):
    """What is told of a message, of MQTT 3.1.1 too."""
    told = {
        "topic": str(message.topic),
        "payload": message.payload.hex(),
        "qos": message.qos,
        "retain": bool(message.retain),
        "properties": None,
    }
    if (p := message.properties) is not None:
        correlation = getattr(p, "CorrelationData", None)
        told["properties"] = {
            "user": dict(getattr(p, "UserProperty", [])),
            "content_type": getattr(p, "ContentType", None),
            "response_topic": getattr(p, "ResponseTopic", None),
            "correlation_data": correlation and correlation.hex(),
            "message_expiry_s": getattr(p, "MessageExpiryInterval", None),
            "identifiers": getattr(p, "SubscriptionIdentifier", None),
        }
    return told
