"""What the drivers in Python have in common; what they are told is described in src/clients/driver.rs."""

import asyncio
import inspect
import json
import os
import sys
import urllib.parse

# For an answer of the broker.
ANSWER_S = 20
KEEP_ALIVE_S = 60
SESSION_EXPIRY_S = 3600
# The alias of every message that is published by alias.
ALIAS = 1

CA_FILE = os.environ["CA_FILE"]


class Url:
    """Where and how to connect."""

    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        self.host, self.port, self.path = parts.hostname, parts.port, parts.path
        self.websocket = parts.scheme in ("ws", "wss")
        self.tls = parts.scheme in ("mqtts", "wss")


def serve(client_class):
    """Does what standard input says with clients of this class until it ends.

    Its constructor connects, and may leave that to a coroutine `connect`, which returns what is
    told of the connection; its other methods are what can be done, coroutines or not.
    """
    asyncio.run(_serve(client_class))
    # Whatever is still connected ends with the process.
    os._exit(0)


async def _serve(client_class):
    clients = {}
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            answer = {"ok": await _do(client_class, clients, json.loads(line))}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


async def _do(client_class, clients, command):
    what, name = command.pop("do"), command.pop("client")
    if "payload" in command:
        command["payload"] = bytes.fromhex(command["payload"])
    if what == "connect":
        if will := command["will"]:
            will["payload"] = bytes.fromhex(will["payload"])
        command["url"] = Url(command["url"])
        clients[name] = client_class(command.pop("url"), command.pop("version") == "5.0", **command)
        command = {}
    result = getattr(clients[name], what)(**command)
    if inspect.isawaitable(result):
        result = await asyncio.wait_for(result, ANSWER_S)
    if what == "disconnect":
        del clients[name]
    return result if result is not None else {}
