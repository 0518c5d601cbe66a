#!/usr/bin/env python3
"""Side-by-side benchmark of proxies on loopback. Standard library only.

One proxy at a time on PROXY_CPU, load and upstream on LOAD_CPU. Every round visits every peer of a scenario once, in
shuffled order, so that the drift of a noisy machine hits all alike; results are medians over rounds, and ratios to the
reference peer of the same round.

  bench.py certs                               certificates, for the scenarios with TLS
  bench.py run -r 5 -d 8 -p envoy_log,ours -s h1,h2,grpc,big,rate -o rows.jsonl
  bench.py table rows.jsonl --ref envoy_log    medians and ratios
  bench.py idle -p envoy_log,ours              time to start, memory idle and with 1000 connections
  bench.py syscalls -p envoy_log,ours -s h1    system calls per request
  bench.py gate                                fails when an HTTP/1.1 request of ours costs more than 5 system calls
"""
import argparse
import json
import os
import random
import re
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager

import peers
from peers import CERTS, LISTEN, LOAD_CPU, NICE, PEERS, PROXY_CPU, SCENARIOS, UP, W

SKIPPED = 77    # exit code: nothing was measured, so nothing passed


# ---------------------------------------------------------------- processes
@contextmanager
def serving_upstream(tls):
    for port in (LISTEN, *UP.values()):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                sys.exit(f"port {port} is in use: another benchmark? With `unshare -n` and `ip link set lo up` each has its own")
    up = subprocess.Popen(peers.upstream(tls), stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_port(UP["h1"], up)
        yield
    finally:
        up.terminate()
        up.wait()


def wait_port(port, process, limit=10):
    until = time.time() + limit
    while time.time() < until:
        if process.poll() is not None:
            raise RuntimeError(f"ended with {process.returncode}: {' '.join(process.args)}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.005)
    raise RuntimeError(f"nobody listens on {port}")


def start(peer, scenario):
    """The process and the seconds that it took to serve; None when the peer cannot do the scenario."""
    command = PEERS[peer](scenario)
    if command is None:
        print(f"{peer} {scenario}: SKIPPED, not supported", file=sys.stderr)
        return None, None
    if not shutil.which(command[0]):
        print(f"{peer} {scenario}: SKIPPED, {command[0]} is not there", file=sys.stderr)
        return None, None
    since = time.time()
    with open(f"{W}/{peer}.log", "w") as log:
        process = subprocess.Popen(NICE + ["taskset", "-c", PROXY_CPU] + command, stdout=subprocess.DEVNULL, stderr=log,
                                   start_new_session=True)
    try:
        wait_serve(scenario, process, since)
        return process, time.time() - since
    except Exception as error:
        stop(process)
        with open(f"{W}/{peer}.log") as log:
            raise RuntimeError(f"{peer} {scenario}: {error}\n{log.read()[-800:]}") from error


def wait_serve(scenario, process, since, limit=20):
    down = SCENARIOS[scenario][0]
    wait_port(LISTEN, process, limit)
    if down == "h2" or scenario in peers.GROUP:
        return      # Python cannot speak it
    context = tls_context() if down == "mtls" else None
    token = f"Authorization: Bearer {peers.jwt()[0]}\r\n" if scenario == "jwt" else ""
    last = None
    while time.time() - since < limit:
        try:
            conn = socket.create_connection(("127.0.0.1", LISTEN), 1)
            if context:
                conn = context.wrap_socket(conn, server_hostname="localhost")
            conn.settimeout(1)
            conn.sendall(f"GET / HTTP/1.1\r\nHost: localhost\r\n{token}\r\n".encode())
            last = conn.recv(200)
            conn.close()
            if b" 200 " in last:
                return
        except OSError as error:
            last = error
        time.sleep(0.002)
    raise RuntimeError(f"not serving: {last!r}")


def tls_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(CERTS + "/ca.crt")
    context.load_cert_chain(CERTS + "/client.crt", CERTS + "/client.key")
    return context


def stop(process):
    """Ends it at once: nothing is under way, and a drain would only take time."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for _ in range(200):      # until the port is free again
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", LISTEN)):
                return
        time.sleep(0.02)


# ---------------------------------------------------------------- measuring
def tree(pid):
    found, todo = [], [pid]
    while todo:
        pid = todo.pop()
        found.append(pid)
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children") as children:
                    todo += [int(child) for child in children.read().split()]
        except OSError:
            pass
    return found


def cpu_ns(pid):
    total = 0
    for pid in tree(pid):
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/schedstat") as stat:
                    total += int(stat.read().split()[0])
        except OSError:
            pass
    return total


def cpu_split(pid):
    """User and kernel ticks."""
    user = kernel = 0
    for pid in tree(pid):
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        user, kernel = user + int(fields[11]), kernel + int(fields[12])
    return user, kernel


def pss_kb(pid):
    total = 0
    for pid in tree(pid):
        with open(f"/proc/{pid}/smaps_rollup") as rollup:
            total += int(re.search(r"^Pss:\s+(\d+)", rollup.read(), re.M).group(1))
    return total


def steal_ticks():
    with open("/proc/stat") as stat:
        return int(stat.readline().split()[8])


def micros(text):
    number, unit = re.match(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 6e7}[unit]


H2LOAD = ("h2load", "grpc", "rate")


def load(kind, port, seconds, tls):
    """Requests answered 2xx, p50 and p99 in microseconds, requests answered otherwise."""
    pinned = NICE + ["taskset", "-c", LOAD_CPU]
    base = "https://localhost" if tls else "http://127.0.0.1"
    if kind.startswith("wrk"):
        command = ["wrk", "-t1", "-c64", f"-d{seconds}s", "--latency", f"{base}:{port}/{'64k' if kind == 'wrkbig' else ''}"]
        command += ["-H", "Host: localhost"]        # the server name of mutual TLS comes from it, and no address is one
        if kind == "wrkjwt":
            command += ["-H", "Authorization: Bearer " + peers.jwt()[0]]
        if kind == "wrkdenied":
            command[command.index(f"{base}:{port}/")] += "denied"
        text = subprocess.run(pinned + command, capture_output=True, text=True, check=True).stdout
        bad = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", text))
        count = int(re.search(r"(\d+) requests in", text)[1])
        if kind == "wrkdenied":
            bad = count - bad       # here an answer that is 2xx is the failure
        bad += sum(int(n) for line in re.findall(r"Socket errors: (.*)", text) for n in re.findall(r"\d+", line))
        percentile = {p: micros(re.search(rf"^\s+{p}%\s+(\S+)", text, re.M)[1]) for p in (50, 99)}
        return count, percentile[50], percentile[99], bad
    if kind in H2LOAD:
        # 1000 a second: 20 connections of HTTP/1.1 with 50 each.
        how = ["--h1", "-c20", "--rps=50"] if kind == "rate" else ["-c8", "-m16"]
        target = f"http://127.0.0.1:{port}/{'g.S/M' if kind == 'grpc' else ''}"
        command = ["h2load", *how, "-t1", "-D", str(seconds), target]
        if kind == "grpc":
            with open(W + "/grpc.bin", "wb") as message:
                message.write(b"\0\0\0\0\x80" + b"z" * 128)
            command += ["-d", W + "/grpc.bin", "-H", "content-type: application/grpc", "-H", "te: trailers"]
        log = W + "/h2.log"
        if os.path.exists(log):
            os.remove(log)
        text = subprocess.run(pinned + command + ["--log-file=" + log], capture_output=True, text=True, check=True).stdout
        count, bad = int(re.search(r"(\d+) succeeded", text)[1]), int(re.search(r"(\d+) failed", text)[1])
        other = re.search(r"status codes: \d+ 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
        with open(log) as lines:
            latency = sorted(int(line.split()[2]) for line in lines) or [0]
        return count, latency[len(latency) // 2], latency[int(len(latency) * .99)], bad + sum(int(n) for n in other.groups())
    command = [peers.BIN["oha"], "--no-tui", "--output-format", "json", "-z", f"{seconds}s"]
    if tls:
        command += ["--cacert", CERTS + "/ca.crt", "--cert", CERTS + "/client.crt", "--key", CERTS + "/client.key"]
    target = f"{base}:{port}/"
    if kind == "hs":
        # A name of its own for each connection, so that no session is resumed: every handshake is a full one.
        target = f"https://[a-z]{{12}}.localhost:{port}/"
        command += ["--rand-regex-url", "--insecure"]
    command += {"hs": ["-c", "16", "--disable-keepalive"], "mrate": ["-c", "32", "-q", "1000", "--latency-correction"]}.get(kind, ["-c", "64"])
    report = json.loads(subprocess.run(pinned + command + [target], capture_output=True, text=True, check=True).stdout)
    codes, percentiles = report["statusCodeDistribution"], report["latencyPercentiles"]
    bad = sum(count for code, count in codes.items() if code != "200")
    return codes.get("200", 0), percentiles["p50"] * 1e6, percentiles["p99"] * 1e6, bad


def load_tool(scenario):
    kind = SCENARIOS[scenario][2]
    return "wrk" if kind.startswith("wrk") else "h2load" if kind in H2LOAD else peers.BIN["oha"]


def measure(peer, process, scenario, seconds):
    down, _, kind = SCENARIOS[scenario]
    tls = down == "mtls"
    port = LISTEN if process else UP[down]
    load(kind, port, 1, tls)          # warm up
    if process:
        cpu, split = cpu_ns(process.pid), cpu_split(process.pid)
    steal, since = steal_ticks(), time.time()
    count, p50, p99, bad = load(kind, port, seconds, tls)
    elapsed = time.time() - since
    with open("/proc/loadavg") as loadavg:
        row = {"load1": float(loadavg.read().split()[0]), "steal": steal_ticks() - steal, "peer": peer, "scenario": scenario,
               "rps": round(count / seconds), "p50": round(p50), "p99": round(p99), "bad": bad}
    if process:
        spent = cpu_ns(process.pid) - cpu
        user, kernel = (after - before for after, before in zip(cpu_split(process.pid), split))
        row.update(cpu_us=round(spent / 1e3 / count, 2), util=round(spent / 1e9 / elapsed, 2),
                   kernel=round(kernel / max(1, user + kernel), 2), pss_kb=pss_kb(process.pid))
    return row


# ---------------------------------------------------------------- commands
def needs_tls(scenarios):
    """Whether any of them is about TLS or tokens; their files are made where they are missing."""
    needed = any("mtls" in SCENARIOS[scenario][:2] for scenario in scenarios)
    if needed or "jwt" in scenarios:
        peers.need_certs()
    return needed


def run(args):
    scenarios = args.scenarios.split(",")
    failed = False
    os.makedirs(os.path.dirname(os.path.abspath(args.out)), exist_ok=True)
    with serving_upstream(needs_tls(scenarios)), open(args.out, "a") as out:
        for number in range(args.rounds):
            for scenario in scenarios:
                if not shutil.which(load_tool(scenario)):
                    print(f"{scenario}: SKIPPED, {load_tool(scenario)} is not there", file=sys.stderr)
                    continue
                # Without a proxy nobody denies.
                order = args.peers.split(",") + (["direct"] if scenario != "denied" else [])
                random.shuffle(order)
                for peer in order:
                    process = None
                    try:
                        if peer != "direct":
                            process, _ = start(peer, scenario)
                            if not process:
                                continue
                        row = {"round": number, **measure(peer, process, scenario, args.seconds)}
                        print(json.dumps(row), flush=True)
                        out.write(json.dumps(row) + "\n")
                        out.flush()
                        failed |= row["bad"] > 0
                    except Exception as error:
                        failed = True
                        print(f"{peer} {scenario}: FAILED, {error}", file=sys.stderr, flush=True)
                    finally:
                        if process:
                            stop(process)
    return 1 if failed else 0


def table(args):
    with open(args.file) as file:
        rows = [json.loads(line) for line in file]
    print(f"| scenario | peer | req/s | p50 us | p99 us | CPU us/request | ratio to {args.ref} (min-max) | kernel share | util | PSS MB | not 2xx | rounds |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    reference = {(row["scenario"], row["round"]): row["cpu_us"] for row in rows if row["peer"] == args.ref}
    for scenario, peer in sorted({(row["scenario"], row["peer"]) for row in rows}):
        group = [row for row in rows if (row["scenario"], row["peer"]) == (scenario, peer)]

        def median(field, digits=0, scale=1):
            values = [row[field] / scale for row in group if field in row]
            return f"{statistics.median(values):.{digits}f}" if values else "-"

        ratios = [row["cpu_us"] / reference[scenario, row["round"]] for row in group
                  if "cpu_us" in row and (scenario, row["round"]) in reference]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})" if ratios else "-"
        print(f"| {scenario} | {peer} | {median('rps')} | {median('p50')} | {median('p99')} | {median('cpu_us', 1)} | {ratio} "
              f"| {median('kernel', 2)} | {median('util', 2)} | {median('pss_kb', 1, 1024)} | {sum(row['bad'] for row in group)} | {len(group)} |")
    return 0


def idle(args):
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (20000, max(20000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    scenarios = args.scenarios.split(",")
    with serving_upstream(needs_tls(scenarios)):
        for peer in args.peers.split(","):
            for scenario in scenarios:
                times = []
                for _ in range(5):
                    process, took = start(peer, scenario)
                    if not process:
                        break
                    times.append(took)
                    time.sleep(0.3)
                    alone = pss_kb(process.pid)
                    if len(times) < 5:
                        stop(process)
                if not process:
                    continue
                try:
                    held = connections(1000, SCENARIOS[scenario][0] == "mtls")
                    time.sleep(1)
                    cpu = cpu_ns(process.pid)
                    time.sleep(3)
                    full = pss_kb(process.pid)
                    print(json.dumps({
                        "peer": peer, "scenario": scenario, "start_ms": round(statistics.median(times) * 1e3, 1),
                        "idle_pss_mb": round(alone / 1024, 1), "pss_1000_mb": round(full / 1024, 1),
                        "per_connection_kb": round((full - alone) / 1000, 1),
                        "idle_cpu_ms_per_s": round((cpu_ns(process.pid) - cpu) / 3e6, 2)}), flush=True)
                    for conn in held:
                        conn.close()
                finally:
                    stop(process)
    return 0


def connections(count, tls):
    """Connections that have had one answer each."""
    context = tls_context() if tls else None
    held = []
    for _ in range(count):
        conn = socket.create_connection(("127.0.0.1", LISTEN), 5)
        if context:
            conn = context.wrap_socket(conn, server_hostname="localhost")
        conn.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        got = 0
        while got < 1024:
            chunk = conn.recv(4096)
            if not chunk:
                raise RuntimeError("a connection was closed before its answer")
            got += len(chunk)
        held.append(conn)
    return held


def count_syscalls(peer, scenario, seconds=3):
    """System calls by name per request; strace slows everything, so only the counts mean something."""
    process, _ = start(peer, scenario)
    if not process:
        return None
    try:
        pids = [arg for pid in tree(process.pid) for arg in ("-p", str(pid))]
        load(SCENARIOS[scenario][2], LISTEN, 1, False)     # pools are filled, the log is open
        report = W + "/strace.out"
        tracer = subprocess.Popen(["strace", "-c", "-f", "-o", report] + pids, stderr=subprocess.DEVNULL)
        time.sleep(1)
        if tracer.poll() is not None:
            return None
        requests, _, _, bad = load(SCENARIOS[scenario][2], LISTEN, seconds, SCENARIOS[scenario][0] == "mtls")
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
    finally:
        stop(process)
    if bad:
        raise RuntimeError(f"{bad} requests failed")
    counts = {}
    with open(report) as lines:
        for line in lines:
            fields = line.split()
            if len(fields) >= 5 and re.match(r"[\d.]+$", fields[0]) and fields[-1] != "total":
                counts[fields[-1]] = int(fields[3])
    return requests, {name: count / requests for name, count in sorted(counts.items(), key=lambda item: -item[1])}


def show(peer, scenario, counted):
    requests, per_request = counted
    names = " ".join(f"{name}={count:.2f}" for name, count in per_request.items() if count > .01)
    print(f"{scenario} {peer}: {sum(per_request.values()):.2f} system calls per request ({requests} requests): {names}", flush=True)


def syscalls(args):
    scenarios = args.scenarios.split(",")
    with serving_upstream(needs_tls(scenarios)):
        for scenario in scenarios:
            for peer in args.peers.split(","):
                counted = count_syscalls(peer, scenario)
                if counted:
                    show(peer, scenario, counted)
    return 0


def gate(args):
    missing = [tool for tool in ("strace", "wrk", "taskset", peers.BIN["nginx"], peers.BIN["ours"]) if not shutil.which(tool)]
    if missing or os.cpu_count() < 2:
        print(f"gate: SKIPPED, not there: {', '.join(missing) or 'a second processor'}")
        return SKIPPED
    with serving_upstream(False):
        counted = count_syscalls("ours", "h1")
    if not counted:
        print("gate: SKIPPED, strace may not trace here")
        return SKIPPED
    show("ours", "h1", counted)
    total = sum(counted[1].values())
    print(f"gate: {'ok' if total <= args.limit else 'FAILED'}, {total:.2f} of at most {args.limit} system calls per HTTP/1.1 request")
    return 0 if total <= args.limit else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("certs").set_defaults(call=lambda _: peers.certs())

    def command(name, call, default_peers="envoy_log,ours", scenarios="h1"):
        sub = commands.add_parser(name)
        sub.set_defaults(call=call)
        sub.add_argument("-p", dest="peers", default=default_peers)
        sub.add_argument("-s", dest="scenarios", default=scenarios)
        return sub

    sub = command("run", run, scenarios="h1,h2,grpc,big,rate")
    sub.add_argument("-r", dest="rounds", type=int, default=5)
    sub.add_argument("-d", dest="seconds", type=int, default=8)
    sub.add_argument("-o", dest="out", default=W + "/rows.jsonl")
    command("idle", idle)
    command("syscalls", syscalls)
    sub = commands.add_parser("gate")
    sub.set_defaults(call=gate)
    sub.add_argument("--limit", type=float, default=5.0)
    sub = commands.add_parser("table")
    sub.set_defaults(call=table)
    sub.add_argument("file")
    sub.add_argument("--ref", default="envoy_log")
    args = parser.parse_args()
    os.makedirs(W, exist_ok=True)
    return args.call(args) or 0


if __name__ == "__main__":
    sys.exit(main())
