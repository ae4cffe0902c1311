#!/usr/bin/env python3
"""Races snapferry against rsync, rclone and juicefs. Started by scripts/compare.

Every round builds the same source for every tool, then runs each tool once per phase, in an order that rotates:
    full      to an empty target
    changed   2 % of the objects edited, 1 % added, 0.5 % deleted, 0.5 % renamed (at least one of each)
    nothing   again, with nothing changed
W1 is 5,000 objects of 4 KiB, W2 16 of 64 MiB. Pairs: local to local, and S3 to S3 between two servers (versitygw with
keep-alive). All data is in memory where /dev/shm has room. After each run the target is compared with the source byte
for byte, outside the measured time. What a tool does beyond copying (snapferry's snapshots, proof and seal) counts.
No tool signs payloads over http, which the peers never do; snapferry and rclone send checksums, juicefs sends none.

wall      seconds from start to exit
CPU       user and system seconds of the tool's processes
requests  lines in both servers' logs
RSS       MiB at the peak of the tool's largest process; about 10 is the least that can be measured

Figures are medians over the rounds. A ratio is snapferry's figure over the best peer's: below 1 is better.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import boto3
import botocore.config
from boto3.s3.transfer import TransferConfig

ROOT = Path(__file__).resolve().parent.parent
PHASES = ["full", "changed", "nothing"]
METRICS = ["wall", "cpu", "requests", "rss"]
# The most that a ratio may be, by pair and metric.
LIMITS = {("local", "wall"): 1.5, ("local", "cpu"): 1.5, ("s3", "wall"): 1.5, ("s3", "cpu"): 1.0}
OWN = {".snapferry", ".snapshot"}

# Runs a command and prints what it took. A small process of its own, because a child's peak memory is never less than
# its parent's was when it was started.
MEASURE = """
import os, sys, time
start = time.monotonic()
pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(pid, 0)
with open(sys.argv[1], "w") as out:
    print(os.waitstatus_to_exitcode(status), time.monotonic() - start, used.ru_utime + used.ru_stime, used.ru_maxrss, file=out)
"""


class Workload:
    """A set of objects and what changes in it, the same every time."""

    def __init__(self, name, count, size):
        self.name, self.count, self.size = name, count, size
        keys = [self.key(number) for number in range(count)]
        chosen = random.Random(name).sample(keys, len(keys))
        take = lambda share: [chosen.pop() for _ in range(max(1, round(count * share)))]
        self.edited, self.deleted, self.renamed = take(0.02), take(0.005), take(0.005)
        self.added = [f"added/{number:05}" for number in range(max(1, round(count * 0.01)))]

    @staticmethod
    def key(number):
        return f"{number % 50:02}/object-{number:05}"

    def data(self, key):
        return random.Random(f"{self.name} {key}").randbytes(self.size)

    def fill(self, root):
        for number in range(self.count):
            write(root / self.key(number), self.data(self.key(number)))

    def edit(self, data):
        middle = len(data) // 2
        return data[:middle] + bytes(b ^ 0xFF for b in data[middle : middle + 1024]) + data[middle + 1024 :]


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(data)
    fresh.rename(path)


def change_directory(workload, root):
    """What a user does to a directory; files are replaced, not written over."""
    for key in workload.edited:
        write(root / key, workload.edit((root / key).read_bytes()))
    for key in workload.added:
        write(root / key, workload.data(key))
    for key in workload.deleted:
        (root / key).unlink()
    for key in workload.renamed:
        (root / key).rename(root / (key + "-renamed"))


class LocalPair:
    """From directory to directory."""

    name = "local"

    def __init__(self, scratch, workload):
        self.scratch, self.workload = scratch, workload
        self.template = scratch / "template"
        workload.fill(self.template)

    def place(self, side, tool):
        return self.scratch / side / tool

    def prepare(self, tool):
        # Each tool has a source of its own: snapferry leaves its snapshots there. A large one shares its bytes.
        how = "-al" if self.workload.size > 1 << 20 else "-a"
        for side in ("source", "target"):
            shutil.rmtree(self.place(side, tool), ignore_errors=True)
        self.place("source", tool).parent.mkdir(parents=True, exist_ok=True)
        self.place("target", tool).mkdir(parents=True)
        subprocess.run(["cp", how, self.template, self.place("source", tool)], check=True)

    def change(self, tool):
        change_directory(self.workload, self.place("source", tool))

    def verify(self, tool):
        return compare(self.place("source", tool), self.place("target", tool))

    def requests(self):
        return None

    def command(self, tool, phase, state):
        source, target = str(self.place("source", tool)), str(self.place("target", tool))
        match tool:
            case "snapferry":
                return [ARGS.program, "sync", source, target, "--snapshot", phase, "--state-dir", state, "--json", "-q"]
            case "rsync":
                return ["rsync", "-a", "--delete", source + "/", target + "/"]
            case "rclone":
                return ["rclone", "sync", source, target, "--transfers", "16", "--checkers", "16", "-q"]
            case "juicefs":
                return [
                    "juicefs", "sync", source + "/", target + "/",
                    "--delete-dst", "--update", "--perms", "--threads", "32", "-q", "--no-agent",
                ]  # fmt: skip

    def environment(self):
        return {}


class S3Pair:
    """From a bucket on one server to a bucket on another."""

    name = "s3"

    def __init__(self, scratch, workload, servers):
        self.workload, self.servers = workload, servers
        self.source, self.target = servers
        self.template = scratch / "template"
        workload.fill(self.template)
        self.source.make("template")
        self.source.upload("template", self.template, workload)

    def prepare(self, tool):
        for server in self.servers:
            server.drop(tool)
            server.make(tool)
        # The server keeps objects as files with attributes: a copy of the files is a copy of the bucket.
        self.source.clone("template", tool)

    def change(self, tool):
        client, bucket, workload = self.source.client, tool, self.workload
        root = self.source.data / bucket
        for key in workload.edited:
            client.put_object(Bucket=bucket, Key=key, Body=workload.edit((root / key).read_bytes()))
        for key in workload.added:
            client.put_object(Bucket=bucket, Key=key, Body=workload.data(key))
        for key in workload.renamed:
            client.put_object(Bucket=bucket, Key=key + "-renamed", Body=(root / key).read_bytes())
        for key in workload.deleted + workload.renamed:
            client.delete_object(Bucket=bucket, Key=key)

    def verify(self, tool):
        return compare(self.source.data / tool, self.target.data / tool)

    def requests(self):
        return sum((server.requests() for server in self.servers), collections.Counter())

    def command(self, tool, phase, state):
        source, target = self.source, self.target
        match tool:
            case "snapferry":
                # As the peers: rclone and juicefs send UNSIGNED-PAYLOAD over http, too.
                common = "region=us-east-1&path-style=true&unsigned-payload=true"
                urls = [f"s3://{tool}?endpoint={s.endpoint}&{common}" for s in self.servers]
                return [ARGS.program, "sync", *urls, "--snapshot", phase, "--state-dir", state, "--json", "-q"]
            case "rclone":
                return [
                    "rclone", "sync", f"src:{tool}", f"dst:{tool}", "--fast-list", "--transfers", "16",
                    "--checkers", "16", "--s3-no-check-bucket", "--s3-chunk-size", "16M",
                    "--s3-upload-concurrency", "4", "-q",
                ]  # fmt: skip
            case "juicefs":
                urls = [f"minio://{s.access}:{s.secret}@{s.endpoint.removeprefix('http://')}/{tool}/" for s in self.servers]
                return [
                    "juicefs", "sync", *urls, "--delete-dst", "--update", "--threads", "32", "-q", "--no-agent",
                    "--no-https",
                ]  # fmt: skip

    def environment(self):
        environment = {
            "AWS_ACCESS_KEY_ID": self.source.access,
            "AWS_SECRET_ACCESS_KEY": self.source.secret,
            "AWS_REGION": "us-east-1",
        }
        for name, server in (("SRC", self.source), ("DST", self.target)):
            settings = {
                "TYPE": "s3", "PROVIDER": "Other", "ENDPOINT": server.endpoint, "REGION": "us-east-1",
                "ACCESS_KEY_ID": server.access, "SECRET_ACCESS_KEY": server.secret,
            }  # fmt: skip
            environment |= {f"RCLONE_CONFIG_{name}_{key}": value for key, value in settings.items()}
        return environment


class Server:
    """A versitygw started by scripts/servers, whose files can be seen."""

    def __init__(self, directory):
        self.directory = directory
        subprocess.run([ROOT / "scripts/servers", "up", "versitygw", directory, "--memory"], check=True)
        env = dict(line.split("=", 1) for line in (directory / "env").read_text().splitlines())
        self.endpoint, self.access, self.secret = env["ENDPOINT"], env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]
        memory = Path((directory / "memory").read_text().strip())
        self.data, self.versions = memory / "data", memory / "versions"
        self.client = boto3.client(
            "s3", endpoint_url=self.endpoint, region_name="us-east-1",
            aws_access_key_id=self.access, aws_secret_access_key=self.secret,
            config=botocore.config.Config(s3={"addressing_style": "path"}, max_pool_connections=16),
        )  # fmt: skip

    def stop(self):
        subprocess.run([ROOT / "scripts/servers", "down", self.directory], check=True)

    def make(self, bucket):
        self.client.create_bucket(Bucket=bucket)
        self.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})

    def drop(self, bucket):
        for root in (self.data, self.versions):
            shutil.rmtree(root / bucket, ignore_errors=True)

    def upload(self, bucket, root, workload):
        config = TransferConfig(multipart_threshold=16 << 20, multipart_chunksize=16 << 20, use_threads=False)
        keys = [workload.key(number) for number in range(workload.count)]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: self.client.upload_file(str(root / key), bucket, key, Config=config), keys))

    def clone(self, bucket, to):
        for entry in (self.data / bucket).iterdir():
            subprocess.run(["cp", "-a", "--reflink=auto", entry, self.data / to], check=True)

    def requests(self):
        """Requests so far, by operation."""
        counts = collections.Counter()
        with open(self.directory / "access.log", encoding="utf-8", errors="replace") as log:
            for line in log:
                fields = line.split(" ", 8)
                if len(fields) > 7 and fields[7].startswith("s3_"):
                    counts[fields[7][3:]] += 1
        return counts


def files(root):
    found = {}
    for directory, directories, names in os.walk(root):
        if directory == str(root):
            directories[:] = [d for d in directories if d not in OWN and d != ".sgwtmp"]
        for name in names:
            path = os.path.join(directory, name)
            found[os.path.relpath(path, root)] = path
    return found


def compare(source, target):
    """Nothing, or how the two trees differ."""
    left, right = files(source), files(target)
    if left.keys() != right.keys():
        odd = sorted(left.keys() ^ right.keys())
        return f"{len(odd)} names are on one side only, such as {odd[0]}"
    for name, path in left.items():
        with open(path, "rb") as a, open(right[name], "rb") as b:
            while True:
                one, other = a.read(1 << 20), b.read(1 << 20)
                if one != other:
                    return f"{name} differs"
                if not one:
                    break
    return None


def measure(command, environment, scratch):
    """Exit code, and figures by metric."""
    report = scratch / "measured"
    log = scratch / "log"
    with open(log, "wb") as output:
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", MEASURE, str(report), *command],
            check=True, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env=os.environ | environment | {"RCLONE_CONFIG": str(scratch / "no-rclone.conf"), "HOME": str(scratch)},
        )  # fmt: skip
    code, wall, cpu, rss = report.read_text().split()
    return int(code), {"wall": float(wall), "cpu": float(cpu), "rss": int(rss) / 1024}, log.read_text(errors="replace")


def race(pair, tools, scratch, results):
    """All rounds of one pair and one workload."""
    for round_number in range(ARGS.rounds):
        state = scratch / f"state-{round_number}"
        order = tools[round_number % len(tools) :] + tools[: round_number % len(tools)]
        for tool in order:
            pair.prepare(tool)
        for phase in PHASES:
            # Peers compare times in whole seconds: what changes within the second of the last run, they do not see.
            time.sleep(1.1)
            if phase == "changed":
                for tool in order:
                    pair.change(tool)
            for tool in order:
                before = pair.requests()
                code, figures, log = measure(pair.command(tool, phase, str(state)), pair.environment(), scratch)
                after = pair.requests()
                wrong = f"exit code {code}: {log[-2000:]}" if code else pair.verify(tool)
                if wrong:
                    sys.exit(f"{tool}, {pair.name} {pair.workload.name} {phase}, round {round_number + 1}: {wrong}")
                if before is not None:
                    asked = after - before
                    figures["requests"] = sum(asked.values())
                    figures["operations"] = dict(asked)
                results[pair.name, pair.workload.name, phase, tool].append(figures)
                print(f"  {pair.name:5} {pair.workload.name} round {round_number + 1} {phase:8}{tool:10}"
                      f"{figures['wall']:8.2f} s wall {figures['cpu']:7.2f} s CPU", file=sys.stderr)  # fmt: skip


def median(results, row, tool, metric):
    values = [figures[metric] for figures in results.get((*row, tool), []) if metric in figures]
    return statistics.median(values) if values else None


def text(value, metric):
    if value is None:
        return "-"
    return f"{value:.2f}" if metric in ("wall", "cpu") else f"{value:.0f}"


def tables(results):
    """Prints all figures, then the ratios; true when no ratio is over its limit."""
    rows = list(dict.fromkeys(key[:3] for key in results))
    print("| pair | work | phase | tool | wall s | CPU s | requests | RSS MiB |\n|---|---|---|---|--:|--:|--:|--:|")
    for row in rows:
        for tool in [key[3] for key in results if key[:3] == row]:
            cells = [text(median(results, row, tool, metric), metric) for metric in METRICS]
            print("|", " | ".join([*row, tool, *cells]), "|")
    if not any(key[3] == "snapferry" for key in results):
        return True
    within = True
    print("\nRatios to the best peer, whose name is in brackets; `!` is over the limit.\n")
    print("| pair | work | phase | wall | CPU | requests | RSS |\n|---|---|---|--:|--:|--:|--:|")
    for row in rows:
        cells = []
        for metric in METRICS:
            ours = median(results, row, "snapferry", metric)
            peers = {key[3]: median(results, row, key[3], metric) for key in results if key[:3] == row and key[3] != "snapferry"}
            peers = {tool: value for tool, value in peers.items() if value}
            if ours is None or not peers:
                cells.append("-")
                continue
            best = min(peers, key=peers.get)
            ratio = ours / peers[best]
            over = ratio > LIMITS.get((row[0], metric), float("inf"))
            within = within and not over
            cells.append(f"{ratio:.2f}{' !' if over else ''} ({best})")
        print("|", " | ".join([*row, *cells]), "|")
    return within


def scratch_root(needed):
    memory = Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free > needed:
        return memory
    print("no room in /dev/shm: the local rows run on disk, which adds noise", file=sys.stderr)
    return None


def main():
    tools = {"local": ["rsync", "rclone", "juicefs"], "s3": ["rclone", "juicefs"]}
    workloads = [Workload("W1", max(200, 5000 // ARGS.scale), 4 << 10), Workload("W2", 16, (64 << 20) // ARGS.scale)]
    results = collections.defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="snapferry-compare-", dir=scratch_root(12 << 30)) as scratch:
        scratch = Path(scratch)
        for name in ["local", "s3"]:
            for workload in workloads:
                if ARGS.only not in (None, name) or ARGS.work not in (None, workload.name):
                    continue
                inner = scratch / f"{name}-{workload.name}"
                inner.mkdir()
                racing = ([] if ARGS.peers_only else ["snapferry"]) + tools[name]
                servers = []
                try:
                    if name == "s3":
                        servers += [Server(inner / "source-server")]
                        servers += [Server(inner / "target-server")]
                        pair = S3Pair(inner, workload, servers)
                    else:
                        pair = LocalPair(inner, workload)
                    race(pair, racing, inner, results)
                finally:
                    for server in servers:
                        server.stop()
                shutil.rmtree(inner)
    within = tables(results)
    if ARGS.json:
        rows = [{"pair": p, "work": w, "phase": f, "tool": t, "rounds": r} for (p, w, f, t), r in results.items()]
        Path(ARGS.json).write_text(json.dumps(rows, indent=1) + "\n")
    if ARGS.check and not within:
        sys.exit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["local", "s3"], help="one pair")
    parser.add_argument("--work", choices=["W1", "W2"], help="one workload")
    parser.add_argument("--scale", type=int, default=1, help="divide the data by this, for a trial")
    parser.add_argument("--program", default=str(ROOT / "target/release/snapferry"), help="the snapferry to race")
    parser.add_argument("--peers-only", action="store_true", help="without snapferry")
    parser.add_argument("--json", help="write every round's figures to this file")
    parser.add_argument("--check", action="store_true", help="exit 1 when a ratio is over its limit")
    ARGS = parser.parse_args()
    main()
