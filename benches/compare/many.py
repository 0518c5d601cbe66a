#!/usr/bin/env python3
"""Time and memory of a proxy that is given many services, and of one that is given none.

    many.py [--binary PATH] [--services 10000] [--files 100] [--slices 1]

Prints one line for each stage: PSS and its anonymous part from /proc/PID/smaps_rollup, and the time to get there. A reload
changes one port of one service, a shift inserts lines above the first object of one file, a rewrite changes every file.
"""

import argparse
import os
import pathlib
import re
import subprocess
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
PROXY = """apiVersion: sidegate.io/v1alpha1
kind: Proxy
metadata: {{name: me, namespace: n0}}
spec:
  workers: 1
  interception: {interception}
  outbound: {{addresses: ["127.0.0.1:0"]}}
  inbound: {{addresses: ["127.0.0.1:0"]}}
  admin: {{address: "127.0.0.1:{admin}"}}
  health: {{address: "127.0.0.1:0"}}
  metrics: {{address: "127.0.0.1:0"}}
"""
SERVICE = """---
apiVersion: v1
kind: Service
metadata:
  name: s{at}
  namespace: n{namespace}
  labels:
    app: s{at}
spec:
  clusterIP: 10.{a}.{b}.{c}
  selector:
    app: s{at}
  ports:
  - name: http
    port: {port}
    targetPort: 8080
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: s{at}-x
  namespace: n{namespace}
  labels:
    kubernetes.io/service-name: s{at}
addressType: IPv4
ports:
- name: http
  port: 8080
endpoints:
- addresses: [10.1.{b}.{c}]
  conditions:
    ready: true
- addresses: [10.2.{b}.{c}]
  conditions:
    ready: true
"""


def write(folder, services, files, number, port=80):
    """One of the files: the services whose number leaves this remainder."""
    text = "".join(SERVICE.format(at=at, namespace=at % 50, port=port, a=64 + (at >> 16), b=(at >> 8) & 255, c=at & 255)
                   for at in range(number, services, files))
    replace(folder / f"services-{number:03}.yaml", text)
    return text


def replace(path, text):
    """Puts a file in place as a whole, as kubelet and editors do; its first name is hidden from the reader of folders."""
    draft = path.with_name(f".{path.name}")
    draft.write_text(text)
    os.replace(draft, path)


def memory(pid):
    """PSS, anonymous and file-backed, and peak RSS, in MB."""
    found = {}
    for name in ("smaps_rollup", "status"):
        for key, value in re.findall(r"^(\w+):\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/{name}").read_text(), re.M):
            found[key] = int(value) / 1024
    return "PSS %6.1f MB  anonymous %6.1f  file %5.1f  peak RSS %6.1f" % (
        found["Pss"], found["Pss_Anon"], found["Pss_File"], found["VmHWM"])


def cpu(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def generations(log):
    return log.read_text(errors="replace").count("the configuration is in force")


class Stage:
    """One thing that is done to the proxy, and what it costs."""

    def __init__(self, pid, log):
        self.pid, self.log, self.count, self.began = pid, log, 0, time.monotonic()

    def reached(self, name, settle):
        self.count += 1
        limit = time.monotonic() + 60
        while generations(self.log) < self.count:
            if time.monotonic() > limit:
                raise SystemExit(f"{name}: not in force within 60 s\n{self.log.read_text()[-2000:]}")
            time.sleep(0.005)
        took, spent = time.monotonic() - self.began, cpu(self.pid)
        early = memory(self.pid)
        time.sleep(settle)
        print(f"{name:<24} {took:5.2f} s  cpu {spent:5.2f} s  {early}")
        if settle:
            print(f"{f'  {settle} s later':<24} {'':7}  {'':11}  {memory(self.pid)}", flush=True)

    def begin(self):
        self.began = time.monotonic()


def run(arguments, services, interception):
    with tempfile.TemporaryDirectory() as work:
        folder, log = pathlib.Path(work, "config"), pathlib.Path(work, "log")
        folder.mkdir()
        replace(folder / "proxy.yaml", PROXY.format(interception=interception, admin=arguments.admin))
        texts = [write(folder, services, arguments.files, at) for at in range(arguments.files if services else 0)]
        print(f"== {services} services in {len(texts)} files, {interception}")
        with log.open("w") as sink:
            process = subprocess.Popen([arguments.binary, "run", "--config", str(folder)], stdout=sink, stderr=sink)
        try:
            stage = Stage(process.pid, log)
            stage.reached("start", arguments.settle)
            if not services:
                return
            stage.begin()
            write(folder, services, arguments.files, 7, port=8080)
            stage.reached("one file changed", arguments.settle)
            stage.begin()
            replace(folder / "services-003.yaml", "# one\n# two\n# three\n# four\n# five\n" + texts[3])
            stage.reached("five lines inserted", arguments.settle)
            for round in range(2):
                stage.begin()
                for at in range(arguments.files):
                    write(folder, services, arguments.files, at, port=81 + round)
                stage.reached("every file changed", arguments.settle)
            with urllib.request.urlopen(f"http://127.0.0.1:{arguments.admin}/ready") as ready:
                assert ready.status == 200
        finally:
            process.terminate()
            process.wait(60)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(HERE.parent.parent / "target/release/sidegate"))
    parser.add_argument("--services", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--settle", type=float, default=12.0, help="seconds that memory is given to fall back")
    parser.add_argument("--admin", type=int, default=20199, help="port of the admin pages")
    arguments = parser.parse_args()
    run(arguments, 0, "EXPLICIT")
    for interception in ("EXPLICIT", "REDIRECT"):
        run(arguments, arguments.services, interception)


if __name__ == "__main__":
    main()
