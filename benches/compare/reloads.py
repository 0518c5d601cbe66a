#!/usr/bin/env python3
"""Memory of a proxy over many reloads while upgraded connections stay open.

    reloads.py SIDEGATE [--reloads 1000] [--sockets 200]

Prints the proportional set size every tenth of the way, and how many of the connections were closed. Everything on loopback.
"""
import argparse
import asyncio
import os
import pathlib
import socket
import tempfile
import urllib.request

UPGRADE = b"GET /ws HTTP/1.1\r\nHost: echo.shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


async def echo(reader, writer):
    try:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH)
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


def configuration(ports, upstream, number):
    return f"""apiVersion: sidegate.io/v1alpha1
kind: Proxy
metadata: {{name: p, namespace: shop}}
spec:
  workers: 1
  outbound: {{addresses: ["127.0.0.1:{ports[0]}"]}}
  inbound: {{addresses: ["127.0.0.1:{ports[1]}"]}}
  admin: {{address: "127.0.0.1:{ports[2]}"}}
  health: {{address: "127.0.0.1:{ports[3]}"}}
  metrics: {{address: "127.0.0.1:{ports[4]}"}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: echo, namespace: shop}}
spec:
  hosts: [echo.shop]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1, ports: {{http: {upstream}}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: echo, namespace: shop}}
spec:
  hosts: [echo.shop]
  http:
  - headers: {{request: {{set: {{x-number: "{number}"}}}}}}
    route: [{{destination: {{host: echo.shop}}}}]
"""


def pss(pid):
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise RuntimeError("no Pss")


def applied(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/config_dump", timeout=5) as answer:
        return answer.read().decode()


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("sidegate")
    parser.add_argument("--reloads", type=int, default=1000)
    parser.add_argument("--sockets", type=int, default=200)
    options = parser.parse_args()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    upstream = server.sockets[0].getsockname()[1]
    ports = [free_port() for _ in range(5)]
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "mesh.yaml")
        file.write_text(configuration(ports, upstream, 0))
        proxy = await asyncio.create_subprocess_exec(
            options.sidegate, "run", "--config", folder,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL)
        try:
            for _ in range(100):
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", ports[0])
                    writer.close()
                    break
                except ConnectionError:
                    await asyncio.sleep(0.05)
            streams = []
            for _ in range(options.sockets):
                reader, writer = await asyncio.open_connection("127.0.0.1", ports[0])
                writer.write(UPGRADE)
                head = await reader.readuntil(b"\r\n\r\n")
                assert b" 101 " in head, head
                streams.append((reader, writer))
            print(f"{0:6} reloads  {pss(proxy.pid):8} KB", flush=True)
            for number in range(1, options.reloads + 1):
                new = pathlib.Path(folder, ".new")
                new.write_text(configuration(ports, upstream, number))
                os.replace(new, file)
                for _ in range(200):
                    await asyncio.sleep(0.05)
                    if f'"{number}"' in await asyncio.to_thread(applied, ports[2]):
                        break
                else:
                    raise RuntimeError(f"reload {number} did not come into force")
                if number % max(1, options.reloads // 10) == 0:
                    print(f"{number:6} reloads  {pss(proxy.pid):8} KB", flush=True)
            closed = 0
            for reader, writer in streams:
                writer.write(b"still there")
                try:
                    answer = await asyncio.wait_for(reader.readexactly(11), 5)
                    closed += answer != b"still there"
                except (ConnectionError, asyncio.IncompleteReadError, asyncio.TimeoutError):
                    closed += 1
            print(f"{closed} of {len(streams)} upgraded connections closed or broken")
        finally:
            proxy.terminate()
            await proxy.wait()


asyncio.run(main())
