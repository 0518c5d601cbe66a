"""Runs the groups of checks and says what passed, failed and was skipped."""
import importlib
import os
import pkgutil
import shutil
import sys
import tempfile
import time
import traceback

import checks
from harness import CHECKS, Skip, stop_all

GROUPS = sorted(module.name for module in pkgutil.iter_modules(checks.__path__))


def run(group, counts, folder):
    try:
        importlib.import_module("checks." + group)
    except Skip as reason:
        counts["skipped"] += 1
        print(f"skip  {group}: {reason}", flush=True)
        return
    for name, check in [entry for entry in CHECKS if entry[1].__module__ == "checks." + group]:
        since = time.time()
        try:
            check()
        except Skip as reason:
            counts["skipped"] += 1
            print(f"skip  {group}: {name}: {reason}", flush=True)
        except Exception as error:
            counts["failed"] += 1
            print(f"FAIL  {group}: {name}\n      {type(error).__name__}: {error}", flush=True)
            where = traceback.extract_tb(error.__traceback__)[-1]
            print(f"      {os.path.basename(where.filename)}:{where.lineno}; logs in {folder}", flush=True)
        else:
            counts["passed"] += 1
            print(f"ok    {group}: {name} ({time.time() - since:.1f} s)", flush=True)


def main():
    wanted = sys.argv[1:] or GROUPS
    if "--list" in wanted:
        print("\n".join(GROUPS))
        return 0
    unknown = [group for group in wanted if group not in GROUPS]
    if unknown:
        print(f"no such group: {', '.join(unknown)}; there are: {', '.join(GROUPS)}", file=sys.stderr)
        return 2
    folder = tempfile.mkdtemp(prefix="sidegate-interop-")
    os.chmod(folder, 0o755)     # nginx and the proxy drop root
    os.environ["INTEROP_FOLDER"] = folder
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    try:
        for group in wanted:
            try:
                run(group, counts, folder)
            finally:
                stop_all()
    finally:
        if not counts["failed"]:
            shutil.rmtree(folder, ignore_errors=True)
        print(", ".join(f"{count} {word}" for word, count in counts.items()), flush=True)
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
