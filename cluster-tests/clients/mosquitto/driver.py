"""The driver of mosquitto_pub and mosquitto_sub: a process per message and per subscription.

A session is one mosquitto_sub that ends and is started again; what it subscribed to, it has to be
told each time.
"""

import queue
import re
import subprocess
import threading
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from driver import ALIAS, ANSWER_S, CA_FILE, SESSION_EXPIRY_S, serve

# Between the fields of a line; in none of them.
SEPARATOR = b"\x1f"
FIELDS = ["topic", "payload", "qos", "retain"]
FORMATS = ["%t", "%x", "%q", "%r"]
FORMATS_5 = ["%C", "%D", "%E", "%P", "%R", "%S"]

# The subscription of a session, by client id.
sessions = {}


class Subscriber:
    """A mosquitto_sub; its messages go to a queue that it shares with others."""

    def __init__(self, options, v5, messages):
        self.messages, self.v5 = messages, v5
        self.granted = queue.Queue()
        fields = SEPARATOR.join(f.encode() for f in FORMATS + (FORMATS_5 if v5 else []))
        command = ["stdbuf", "-oL", "mosquitto_sub", *options, "-d", "-F", b">" + fields]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            if line.startswith(b">"):
                self.messages.put(self._message(line[1:-1].split(SEPARATOR)))
            elif found := re.match(rb"Subscribed \(mid: \d+\): (\d+)", line):
                self.granted.put(int(found[1]))

    def _message(self, fields):
        topic, payload, qos, retain = fields[:4]
        properties = None
        if self.v5:
            content_type, correlation, expiry, user, response_topic, identifiers = fields[4:]
            pairs = (pair.split(":", 1) for pair in user.decode().split(" ") if pair)
            properties = {
                "user": dict(pairs),
                "content_type": content_type.decode() or None,
                "response_topic": response_topic.decode() or None,
                "correlation_data": correlation.hex() or None,
                "message_expiry_s": int(expiry) if expiry else None,
                "identifiers": [int(i) for i in identifiers.split()] or None,
            }
        return {
            "topic": topic.decode(),
            "payload": payload.decode().lower(),
            "qos": int(qos),
            "retain": retain == b"1",
            "properties": properties,
        }

    def stop(self):
        """It disconnects when it is asked to end."""
        self.process.terminate()
        self.process.wait(ANSWER_S)


class Client:
    def __init__(self, url, v5, id, clean, will):
        self.v5, self.id, self.clean, self.will = v5, id, clean, will
        self.options = ["-h", url.host, "-p", str(url.port), "-V", "mqttv5" if v5 else "mqttv311"]
        if url.tls:
            self.options += ["--cafile", CA_FILE]
        self.messages, self.subscribers = queue.Queue(), []

    def connect(self):
        if self.will:
            # Something has to hold the connection: one that ends with its first message.
            self._start(["-t", self._hold(), "-C", "1", "-i", self.id, *self._will()])
        elif not self.clean and self.id in sessions:
            self._start(sessions[self.id])
        return {"session_present": None}

    def _hold(self):
        return f"hold/{self.id}"

    def _will(self):
        return [
            *["--will-topic", self.will["topic"], "--will-payload", self.will["payload"]],
            *["--will-qos", str(self.will["qos"])],
        ]

    def _start(self, options):
        subscriber = Subscriber(self.options + options, self.v5, self.messages)
        self.subscribers.append(subscriber)
        return subscriber.granted.get(timeout=ANSWER_S)

    def subscribe(self, topic, qos, identifier):
        options = ["-t", topic, "-q", str(qos)]
        if identifier is not None:
            options += ["-D", "SUBSCRIBE", "subscription-identifier", str(identifier)]
        if not self.clean:
            options += ["-c", "-i", self.id]
            if self.v5:
                options += ["-x", str(SESSION_EXPIRY_S)]
            sessions[self.id] = options
        return {"granted": self._start(options)}

    def publish(self, topic, payload, qos, retain, properties):
        options = []
        if properties:
            given = [
                ["content-type", properties["content_type"]],
                ["response-topic", properties["response_topic"]],
                ["correlation-data", bytes.fromhex(properties["correlation_data"])],
                ["message-expiry-interval", str(properties["message_expiry_s"])],
                *[["user-property", k, v] for k, v in properties["user"].items()],
            ]
            options = [part for one in given for part in ["-D", "PUBLISH", *one]]
        self._publish(topic, payload, qos, retain, options)

    def publish_alias(self, topic, payload, qos, retain):
        # After the first it leaves the topic out.
        options = ["-D", "PUBLISH", "topic-alias", str(ALIAS), "--repeat", "2"]
        self._publish(topic, payload, qos, retain, options)

    def _publish(self, topic, payload, qos, retain, options):
        what = ["-t", topic, "-q", str(qos)]
        if not self.subscribers:
            what += ["-i", self.id]
        if retain:
            what.append("-r")
        what += ["-s"] if payload else ["-n"]
        subprocess.run(
            ["mosquitto_pub", *self.options, *what, *options],
            input=payload, check=True, timeout=ANSWER_S,
        )

    def next(self):
        return self.messages.get(timeout=ANSWER_S)

    def disconnect(self):
        if self.will:
            # Asked to end by a signal, it wants its will published, with MQTT 5.0.
            self._publish(self._hold(), b"end", 0, False, [])
            self.subscribers.pop().process.wait(ANSWER_S)
        for subscriber in self.subscribers:
            subscriber.stop()


serve(Client)
