"""Races snapferry against Hadoop's distcp between two Apache Ozone clusters. Started by `scripts/compare ozone`.

Every round puts the same objects into fresh buckets, then runs each tool once per row, in an order that rotates:
    full      2,000 x 4 KiB in 20 directories, to an empty bucket
    changed   5 % of them overwritten, one directory renamed, one deleted
    nothing   again, with nothing changed
    large     8 x 64 MiB, to an empty bucket
    read ...  500 x 4 KiB and 8 x 64 MiB to a local directory: straight from the datanodes, and through the S3 Gateway
The buckets have directories (FSO), because distcp -diff runs on no others. `flat ...` are snapferry's rows on flat (OBS)
buckets, which nobody else serves. What the Ozone guide has one run by hand is run: `ozone sh snapshot create` on the
source, distcp -update [-diff], `ozone sh snapshot create` on the target. After each run the target's new snapshot is read
back with Ozone's own client and compared with what was put, outside the measured time.

wall      seconds from the first command's start to the last one's exit
alone     the same, of distcp without the two `ozone sh`, which are mostly the start of a JVM
CPU       user and system seconds of the tool's processes
server    user and system seconds of both clusters' eight processes meanwhile
requests  what both Ozone Managers were asked meanwhile
RSS       MiB at the peak of the tool's largest process

Figures are medians over the rounds. A ratio is distcp's figure over snapferry's: above 1 is better.
"""

import argparse
import collections
import concurrent.futures
import hashlib
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import boto3
import botocore.config

from compare import ROOT, measure, scratch_root

OZONE = ROOT / "scripts/ozone"
VOLUME = "vol1"
SERVICES = ["scm", "dn", "om", "s3g"]
DIRECTORIES = 20
# How the Ozone Manager's metrics begin that count what it was asked over gRPC and over Hadoop's RPC.
ASKED = ("grpc_grpc_processing_time_num_ops{", "rpc_rpc_processing_time_num_ops{")
METRICS_FILE, METRICS_SECONDS = "hadoop-metrics2.properties", 2
METRICS = ["wall", "alone", "cpu", "server", "requests", "rss"]
# The least that distcp's wall time may be over snapferry's, and the most seconds that a row may take.
RATIOS = {"full": 5, "large": 5, "changed": 10}
SECONDS = {"nothing": 1.0, "flat nothing": 1.0}


class Cluster:
    """A cluster that scripts/ozone started."""

    def __init__(self, directory):
        self.directory = directory
        env = self.variables("env")
        self.ofs, self.endpoint = env["OZONE_OFS"], env["OZONE_S3"]
        self.address, self.query = env["OZONE_URL"].strip("'").split("?", 1)
        # What the metrics say is as old as this at most; 10 s, which are nobody's to wait for, unless it is told.
        self.counts = (directory / "conf" / METRICS_FILE).exists()
        self.monitor = f"http://{env['OZONE_HOST']}:{self.variables('ports')['OM_HTTP']}/prom"
        self.s3 = boto3.client(
            "s3", endpoint_url=self.endpoint, region_name="us-east-1",
            aws_access_key_id="snapferry-test", aws_secret_access_key="snapferry-test-secret",
            config=botocore.config.Config(
                s3={"addressing_style": "path"}, max_pool_connections=16, request_checksum_calculation="when_required"
            ),
        )  # fmt: skip
        self.client = subprocess.Popen([OZONE, "batch", directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def variables(self, name):
        return dict(line.split("=", 1) for line in (self.directory / name).read_text().splitlines())

    def close(self):
        self.client.stdin.close()
        self.client.wait()

    def ask(self, *words):
        """Runs a command of tests/harness/Ozone.java; the lines that it prints."""
        self.client.stdin.write(json.dumps(words) + "\n")
        self.client.stdin.flush()
        lines = []
        for line in self.client.stdout:
            lines.append(json.loads(line))
            if "exit" in lines[-1]:
                break
        if not lines or lines[-1].get("exit") != 0:
            sys.exit(f"{self.directory}: {words}: {lines[-1:] or 'the client is gone'}")
        return lines[:-1]

    def make(self, bucket, layout):
        self.ask("bucket", f"{VOLUME}/{bucket}", layout)
        self.ask("link", f"{VOLUME}/{bucket}", f"s3v/{bucket}")

    def put(self, bucket, objects):
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda item: self.s3.put_object(Bucket=bucket, Key=item[0], Body=item[1]()), objects.items()))

    def url(self, bucket, more=""):
        return f"{self.address}/{bucket}?{self.query}{more}"

    def cpu(self):
        """Seconds that the services have used."""
        ticks = 0
        for service in SERVICES:
            stat = Path(f"/proc/{(self.directory / 'run' / f'{service}.pid').read_text().strip()}/stat").read_text()
            ticks += sum(int(field) for field in stat.rpartition(")")[2].split()[11:13])
        return ticks / os.sysconf("SC_CLK_TCK")

    def requests(self):
        """What the Ozone Manager was asked so far, over both of its protocols."""
        time.sleep(METRICS_SECONDS + 0.5)
        with urllib.request.urlopen(self.monitor) as answer:
            lines = answer.read().decode().splitlines()
        return sum(int(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(ASKED))

    def content(self, bucket, snapshot):
        """Key to SHA-256 of what Ozone's own client reads in a snapshot."""
        found = self.ask("content", f"{VOLUME}/{bucket}", snapshot)
        files = (entry for entry in found if entry["kind"] == "file")
        return {entry["key"]: entry["sha256"] for entry in files if not entry["key"].startswith(".snapferry/")}


class Objects:
    """What is put into a bucket: the content of each key from a seed."""

    def __init__(self, name, keys, size):
        self.size = size
        self.seeds = {key: f"{name} {key}" for key in keys}
        self.known = {}

    def of(self, keys):
        return {key: lambda key=key: random.Random(self.seeds[key]).randbytes(self.size) for key in keys}

    def all(self):
        return self.of(self.seeds)

    def digests(self):
        for seed in set(self.seeds.values()) - self.known.keys():
            self.known[seed] = hashlib.sha256(random.Random(seed).randbytes(self.size)).hexdigest()
        return {key: self.known[seed] for key, seed in self.seeds.items()}


class Race:
    """Two clusters, and what was measured on them."""

    def __init__(self, source, target, scratch):
        self.source, self.target, self.scratch = source, target, scratch
        self.results = collections.defaultdict(list)
        self.prefix = f"race-{os.getpid()}-{random.randrange(10**6)}"
        self.label = ""

    def bucket(self, round_number, what):
        return f"{self.prefix}-{round_number}-{what}"

    def run(self, row, tool, commands, verify):
        """Runs commands one after another, the figures of all together; `alone` is the time of those that are marked."""
        servers = lambda read: sum(read(cluster) for cluster in (self.source, self.target))
        counts = self.source.counts and self.target.counts
        requests = servers(Cluster.requests) if counts else 0
        server = servers(Cluster.cpu)
        figures = {"wall": 0, "alone": 0, "cpu": 0, "rss": 0}
        for marked, command in commands:
            code, one, log = measure(list(map(str, command)), {}, self.scratch)
            if code:
                sys.exit(f"{tool}, {row}: exit code {code}: {' '.join(map(str, command))}: {log[-3000:]}")
            figures["wall"] += one["wall"]
            figures["cpu"] += one["cpu"]
            figures["rss"] = max(figures["rss"], one["rss"])
            figures["alone"] += one["wall"] if marked else 0
        figures["server"] = servers(Cluster.cpu) - server
        if counts:
            figures["requests"] = servers(Cluster.requests) - requests
        wrong = verify()
        if wrong:
            sys.exit(f"{tool}, {row}: {wrong}")
        self.results[row, tool].append(figures)
        print(f"  {self.label:8}{row:14}{tool:10}{figures['wall']:8.2f} s wall {figures['cpu']:7.2f} s CPU "
              f"{figures['server']:7.2f} s server {figures.get('requests', '-'):>7} requests", file=sys.stderr)  # fmt: skip

    def sync(self, row, tool, bucket, target, name, base, objects):
        """One run of one tool, from the bucket on the source to `target` on the other cluster."""
        snapshot = lambda cluster, bucket: (
            False, [OZONE, "shell", cluster.directory, "sh", "snapshot", "create", f"/{VOLUME}/{bucket}", name],
        )  # fmt: skip
        copy = [OZONE, "distcp", self.source.directory, "-update"]
        root, there = f"{self.source.ofs}/{VOLUME}/{bucket}", f"{self.target.ofs}/{VOLUME}/{target}"
        if tool == "snapferry":
            urls = [self.source.url(bucket), self.target.url(target)]
            options = ["--snapshot", name, "--state-dir", self.scratch / f"state-{target}", "--json", "-q"]
            commands = [(True, [ARGS.program, "sync", *urls, *options])]
        elif base:
            diff = copy + ["-diff", base, name, root, there]
            commands = [snapshot(self.source, bucket), (True, diff), snapshot(self.target, target)]
        else:
            full = copy + [f"{root}/.snapshot/{name}", there]
            commands = [snapshot(self.source, bucket), (True, full), snapshot(self.target, target)]
        expected = objects.digests()
        self.run(row, tool, commands, lambda: differences(expected, self.target.content(target, name)))

    def small(self, round_number, tools, count, layout="fso", row=""):
        """full, changed and nothing."""
        bucket = self.bucket(round_number, f"small-{layout}")
        objects = Objects("small", [f"dir-{n % DIRECTORIES:02}/object-{n:05}" for n in range(count)], 4 << 10)
        targets = {tool: f"{bucket}-{tool}" for tool in tools}
        self.source.make(bucket, layout)
        for target in targets.values():
            self.target.make(target, layout)
        self.source.put(bucket, objects.all())
        base = None
        for phase in ["full", "changed", "nothing"]:
            if phase == "changed":
                self.change(bucket, objects, layout)
            for tool in tools:
                then = base and f"{tool}-{base}"
                self.sync(row + phase, tool, bucket, targets[tool], f"{tool}-{phase}", then, objects)
            base = phase

    def change(self, bucket, objects, layout):
        name, renamed, deleted = f"{VOLUME}/{bucket}", "dir-03/", "dir-07/"
        inside = lambda directory: [key for key in objects.seeds if key.startswith(directory)]
        others = [key for key in objects.seeds if not key.startswith((renamed, deleted))]
        edited = random.Random(bucket).sample(others, len(objects.seeds) // 20)
        for key in edited:
            objects.seeds[key] += " edited"
        self.source.put(bucket, objects.of(edited))
        moves = [(key, f"moved/{key}") for key in inside(renamed)]
        if layout == "fso":
            self.source.ask("mkdir", name, "moved")
            self.source.ask("rename", name, renamed.rstrip("/"), f"moved/{renamed.rstrip('/')}")
            self.source.ask("delete", name, deleted.rstrip("/"))
        else:
            for old, new in moves:
                self.source.ask("rename", name, old, new)
            for key in inside(deleted):
                self.source.ask("delete", name, key)
        for old, new in moves:
            objects.seeds[new] = objects.seeds.pop(old)
        for key in inside(deleted):
            del objects.seeds[key]

    def large(self, round_number, tools, count, size, layout="fso", row="large"):
        bucket = self.bucket(round_number, f"large-{layout}")
        objects = Objects("large", [f"large/object-{n:02}" for n in range(count)], size)
        self.source.make(bucket, layout)
        self.source.put(bucket, objects.all())
        for tool in tools:
            self.target.make(f"{bucket}-{tool}", layout)
            self.sync(row, tool, bucket, f"{bucket}-{tool}", f"{tool}-full", None, objects)
        return bucket, objects

    def read(self, round_number, what, bucket, objects):
        """From a snapshot to a directory in memory, both ways."""
        self.source.ask("snapshot", f"{VOLUME}/{bucket}", "read")
        ways = ["direct", "s3"]
        for way in ways if round_number % 2 else reversed(ways):
            to, state = self.scratch / "read", self.scratch / "state-read"
            for folder in (to, state):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
            command = [ARGS.program, "sync", self.source.url(bucket, f"&data={way}"), to]
            command += ["--snapshot", "read", "--state-dir", state, "--json", "-q"]
            self.run(f"read {what}", {"direct": "datanodes", "s3": "gateway"}[way], [(True, command)],
                     lambda: differences(objects.digests(), local_content(to)))  # fmt: skip
            shutil.rmtree(to)

    def reads(self, round_number, count):
        bucket = self.bucket(round_number, "read")
        objects = Objects("read", [f"dir-{n % DIRECTORIES:02}/object-{n:05}" for n in range(count)], 4 << 10)
        self.source.make(bucket, "fso")
        self.source.put(bucket, objects.all())
        self.read(round_number, "4 KiB", bucket, objects)

    def round(self, round_number, wanted, scale=1):
        tools = ["snapferry", "distcp"][:: 1 if round_number % 2 else -1]
        count, size = max(DIRECTORIES * 5, 2000 // scale), (64 << 20) // scale
        if "small" in wanted:
            self.small(round_number, tools, count)
        if "large" in wanted or "read" in wanted:
            bucket, objects = self.large(round_number, tools if "large" in wanted else [], 8, size)
            if "read" in wanted:
                self.read(round_number, "64 MiB", bucket, objects)
                self.reads(round_number, 500 // scale)
        if "flat" in wanted:
            self.small(round_number, ["snapferry"], count, "obs", "flat ")
            self.large(round_number, ["snapferry"], 8, size, "obs", "flat large")


def differences(expected, found):
    """Nothing, or how what was read differs from what was put."""
    odd = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    return f"{len(odd)} keys differ, such as {odd[0]}" if odd else None


def local_content(root):
    found = {}
    for directory, directories, names in os.walk(root):
        if Path(directory) == root:
            directories[:] = [name for name in directories if name not in (".snapferry", ".snapshot")]
        for name in names:
            path = Path(directory, name)
            found[str(path.relative_to(root))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def tables(results):
    """Prints all figures, then the ratios; true when every target is met."""
    middle = lambda row, tool, metric: statistics.median(figures.get(metric, math.nan) for figures in results[row, tool])
    text = lambda metric, value: "-" if math.isnan(value) else f"{value:.0f}" if metric in ("requests", "rss") else f"{value:.2f}"
    print("| row | tool | wall s | alone s | CPU s | server CPU s | requests | RSS MiB |\n|---|---|--:|--:|--:|--:|--:|--:|")
    for row, tool in results:
        print("|", " | ".join([row, tool, *(text(metric, middle(row, tool, metric)) for metric in METRICS)]), "|")
    met = True
    print("\nHow many times less snapferry takes than distcp, and the datanodes' way than the gateway's; `!` is short of "
          "the target.\n\n| row | wall | alone | CPU | server CPU | requests | RSS |\n|---|--:|--:|--:|--:|--:|--:|")  # fmt: skip
    pairs = {"snapferry": "distcp", "datanodes": "gateway"}
    for row in dict.fromkeys(row for row, _ in results):
        tool = next(tool for tool in pairs if (row, tool) in results)
        cells, ours = [], middle(row, tool, "wall")
        if (row, pairs[tool]) in results:
            ratios = {metric: middle(row, pairs[tool], metric) / max(middle(row, tool, metric), 0.01) for metric in METRICS}
            least = 1 if tool == "datanodes" else RATIOS.get(row, 0)
            short = lambda metric, ratio: " !" if metric == "wall" and ratio < least else ""
            text = lambda ratio: "-" if math.isnan(ratio) else f"{ratio:.1f}"
            cells = [text(ratio) + short(metric, ratio) for metric, ratio in ratios.items()]
            met = met and ratios["wall"] >= least
        elif row in SECONDS:
            cells = [f"{ours:.2f} s"]
        if ours > SECONDS.get(row, ours):
            met, cells[0] = False, cells[0] + f" ! ({ours:.2f} s)"
        if cells:
            print("|", " | ".join([row, *cells, *["-"] * (len(METRICS) - len(cells))]), "|")
    return met


def start(scratch):
    """Two clusters of our own, with room for eight large transfers at once."""
    heaps = {"DN_MX": "1200m", "S3G_MX": "1200m", "DIFF_WAIT": "200ms"}
    directories = [scratch / "source", scratch / "target"]
    for directory in directories:
        (directory / "conf").mkdir(parents=True)
        (directory / "conf" / METRICS_FILE).write_text(f"*.period={METRICS_SECONDS}\n")
        subprocess.run([OZONE, "up", directory], check=True, env=os.environ | heaps)
    return directories


def main():
    wanted = [ARGS.only] if ARGS.only else ["small", "large", "read", "flat"]
    own, clusters = None, []
    with tempfile.TemporaryDirectory(prefix="snapferry-race-", dir=scratch_root(2 << 30)) as scratch:
        try:
            if ARGS.clusters is None:
                own = Path(tempfile.mkdtemp(prefix="snapferry-race-clusters-"))
            directories = [Path(name).resolve() for name in ARGS.clusters] if ARGS.clusters else start(own)
            clusters = [Cluster(directory) for directory in directories]
            race = Race(*clusters, Path(scratch))
            for number in range(ARGS.warm):
                race.label = "warm"
                race.round(number, wanted, max(10, ARGS.scale))
            race.results.clear()
            for number in range(1, ARGS.rounds + 1):
                race.label = f"round {number}"
                race.round(ARGS.warm + number, wanted, ARGS.scale)
        finally:
            for cluster in clusters:
                cluster.close()
            for directory in ["source", "target"] if own else []:
                subprocess.run([OZONE, "down", own / directory], check=False)
            if own:
                shutil.rmtree(own, ignore_errors=True)
    met = tables(race.results)
    if ARGS.json:
        rows = [{"row": row, "tool": tool, "rounds": rounds} for (row, tool), rounds in race.results.items()]
        Path(ARGS.json).write_text(json.dumps(rows, indent=1) + "\n")
    if ARGS.check and not met:
        sys.exit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm", type=int, default=1, help="small rounds before, which are not counted")
    parser.add_argument("--only", choices=["small", "large", "read", "flat"], help="these rows")
    parser.add_argument("--scale", type=int, default=1, help="divide the data by this, for a trial")
    parser.add_argument("--clusters", nargs=2, metavar="DIR", help="clusters that run already: source and target")
    parser.add_argument("--program", default=str(ROOT / "target/release/snapferry"), help="the snapferry to race")
    parser.add_argument("--json", help="write every round's figures to this file")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    ARGS = parser.parse_args()
    main()
