#!/usr/bin/env python3
"""Writes link/resident.ld: which functions a running proxy executes, as patterns for the linker.

  resident.py BINARY      a release binary built with SIDEGATE_PLAIN_LINK=1; needs valgrind, h2load and nginx

The proxy is started under callgrind and serves some requests of each kind. What it executed is covered by as few patterns as are worth their
line: a whole module when little of it lies idle, single functions otherwise. Hashes are left out, so that the file outlives changes of code and
of dependencies; what is new and in no module of the file lies among the rest, which costs memory and nothing else.
"""
import bisect
import os
import re
import subprocess
import sys
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "..", "link", "resident.ld")

# Bytes of idle functions that one line less is worth. More where code changes most: what is new in such a module is covered beforehand.
LINE, OWN_LINE = 700, 4000
OWN = ("_ZN8sidegate5proxy", "_ZN8sidegate9telemetry", "_ZN8sidegate8snapshot", "_ZN8sidegate3app", "_ZN10filter_api")
# What the kernel maps around a page that is touched.
PIECE = 64 * 1024

HEAD = """\
/* What a running proxy executes lies together: made by benches/compare/resident.py, not by hand.
 *
 * Memory is mapped in pieces of 64 KiB around each page that is touched. Commands, schemas and policies that are not in use make up three quarters
 * of the program; strewn among the rest they were resident all the same. INSERT leaves the rest of the layout to the linker.
 */
SECTIONS
{
  .text.resident :
  {
"""
TAIL = """\
  }
}
INSERT BEFORE .text;
"""


def run(binary):
    """Function addresses that were executed: at the start, and for requests of each kind."""
    os.environ["BENCH_OURS"] = binary
    import bench
    import peers
    executed = set()
    with bench.serving_upstream(False):
        for scenario in ("h1", "h2", "grpc"):
            trace = f"{peers.W}/resident.{scenario}"
            command = ["valgrind", "--tool=callgrind", "--dump-instr=yes", f"--callgrind-out-file={trace}"]
            process = subprocess.Popen(command + peers.PEERS["ours"](scenario), stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
            try:
                bench.wait_serve(scenario, process, time.time(), limit=60)
                time.sleep(1)
                load = ["h2load", "-c4", "-t1", "-n400", f"http://127.0.0.1:{peers.LISTEN}/"]
                if scenario == "h1":
                    load.insert(1, "--h1")
                if scenario == "grpc":
                    body = f"{peers.W}/grpc.bin"
                    with open(body, "wb") as file:
                        file.write(b"\0\0\0\0\x80" + b"z" * 128)
                    load[-1] += "g.S/M"
                    load += ["-d", body, "-H", "content-type: application/grpc", "-H", "te: trailers"]
                said = subprocess.run(load, capture_output=True, text=True, check=True).stdout
                if " 400 succeeded" not in said:
                    sys.exit(f"{scenario}: {said}")
                urllib.request.urlopen("http://127.0.0.1:20090/stats/prometheus").read()
            finally:
                process.terminate()
                process.wait()
            executed |= addresses(trace, binary)
    return executed


def addresses(trace, binary):
    """Of the instructions of our binary in a profile of callgrind, whose positions are relative to the last one."""
    found, names, inside, last = set(), {}, False, 0
    with open(trace) as lines:
        for line in lines:
            if line.startswith(("ob=", "cob=")):
                number, name = re.match(r"c?ob=(\(\d+\))(?: (.*))?", line.rstrip()).groups()
                if name:
                    names[number] = name
                if line[0] == "o":
                    inside = names.get(number) == binary
            elif line[0] in "0+-*":
                step = line.split(None, 1)[0]
                if step.startswith("0x"):
                    last = int(step, 16)
                elif step != "*":
                    last += int(step, 0)
                if inside:
                    found.add(last)
    return found


def functions(binary):
    text = subprocess.run(["nm", "-S", "--defined-only", binary], capture_output=True, text=True, check=True).stdout
    found = {}
    for line in text.splitlines():
        match = re.match(r"([0-9a-f]+) ([0-9a-f]+) [tTwW] (.*)", line)
        if match:
            found.setdefault(int(match[1], 16), (int(match[2], 16), match[3]))
    return found


def path(name):
    """The parts of a mangled name, without its hash, as far as patterns may end behind each."""
    for prefix in ("_R", "_rjem_je_", "_rjem_"):
        if name.startswith(prefix):
            # Of the standard library, in the newer mangling: the hashes of crates are within.
            rest = re.sub(r"Cs[0-9A-Za-z]{8,14}_", "Cs*_", re.sub(r"\.llvm\.\d+$", "*", name[len(prefix):]))
            return [prefix, rest]
    if not name.startswith("_ZN"):
        return [name]
    name = re.sub(r"17h[0-9a-f]{16}E(\.llvm\.\d+)?$", "", name)
    parts, at = ["_ZN"], 3
    while at < len(name):
        length = re.match(r"\d+", name[at:])
        if not length:
            parts.append(name[at:])
            break
        start = at + len(length[0])
        part = name[start:start + int(length[0])]
        if ".." in part:
            # With the paths of types in it, which make its length.
            first, *more = re.split(r"(?<=\.\.)", part)
            parts += ["*" + first, *more]
        else:
            parts.append(length[0] + part)
        at = start + int(length[0])
    return parts


class Node:
    def __init__(self):
        self.children, self.used, self.idle, self.own_used, self.own_idle, self.own_count = {}, 0, 0, 0, 0, 0


def patterns(node, prefix=""):
    """The price of covering what is used below a node, and the patterns for it."""
    if not node.used:
        return 0, []
    line = OWN_LINE if prefix.startswith(OWN) else LINE
    price, lines = 0, []
    for part, child in node.children.items():
        more, below = patterns(child, prefix + part)
        price += more
        lines += below
    if node.own_used:
        # Of some generic functions one instance is used and hundreds are not: left where it is, it costs the piece around it.
        price += min(node.own_idle + line, PIECE * node.own_count)
        if node.own_idle + line <= PIECE * node.own_count:
            lines.append(prefix + ("17h*" if prefix.startswith("_ZN") else ""))
    whole = prefix in ("_rjem_", "_rjem_je_") or prefix.startswith("_ZN") and prefix not in ("_ZN", "_ZN*_$LT$")
    if whole and node.idle + line <= price:
        return node.idle + line, [prefix + "*"]
    return price, lines


def main():
    binary = os.path.abspath(sys.argv[1])
    executed = run(binary)
    known = functions(binary)
    starts = sorted(known)
    used = set()
    for address in executed:
        start = starts[bisect.bisect_right(starts, address) - 1]
        if start <= address < start + known[start][0]:
            used.add(start)
    if len(used) < 1000:
        # Of a binary that is laid out already callgrind knows only what lies outside.
        sys.exit(f"{len(used)} functions were executed? Build with SIDEGATE_PLAIN_LINK=1")
    root = Node()
    for start, (size, name) in known.items():
        node = root
        for part in [None, *path(name)]:
            node = node if part is None else node.children.setdefault(part, Node())
            if start in used:
                node.used += size
            else:
                node.idle += size
        if start in used:
            node.own_used += size
            node.own_count += 1
        else:
            node.own_idle += size
    _, lines = patterns(root)
    with open(OUT, "w") as file:
        # `.text.unlikely.` and the like stand before the names of some.
        file.write(HEAD + "".join(f"    *(.text*.{line})\n" for line in sorted(set(lines))) + TAIL)
    print(f"{len(used)} of {len(known)} functions, {root.used} of {root.used + root.idle} bytes; {len(set(lines))} patterns")


if __name__ == "__main__":
    main()
