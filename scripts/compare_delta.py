"""Races snapferry against rsync, rclone and s5cmd where little of one large file changed. Started by `scripts/compare delta`.

Every tool first brings a file of 1 GiB, made from a seed, to its own target. Then the file is edited and the tool runs
again, once for each edit, each on the state before it:
    first     the file as a whole
    page      4 KiB overwritten in the middle
    pages     50 x 4 KiB overwritten, anywhere
    append    1 MiB more at the end
    insert    1 MiB more at a quarter: what follows has another place, so fixed blocks lose there
Pairs: local to local, local to S3, and S3 to S3 between two servers (versitygw with keep-alive); s5cmd takes one endpoint
only, so it has no row there. All data is in memory where /dev/shm has room. After each run what is on the target is read
straight from there and compared by its SHA-256, outside the measured time. What a tool does beyond copying (snapferry's
snapshots, proof and seal) counts.

to, from  MiB that went to the target's server and came from it, headers included, counted by a proxy in front of it that
          all tools talk to. Between two directories there is no wire to count on: the kernel counts no write to memory,
          and a copied range as if it had been written. There, with a *, it is what the tool itself says it sent.
wall      seconds from start to exit, the proxy's share included
CPU       user and system seconds of the tool's processes
RSS       MiB at the peak of the tool's largest process; about 10 is the least that can be measured

Figures are medians over the rounds. A ratio is snapferry's figure over the best peer's: below 1 is better.
"""

import argparse
import collections
import hashlib
import json
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from boto3.s3.transfer import TransferConfig

from compare import ROOT, Server, measure, scratch_root

MIB = 1 << 20
PAGE, BLOCK = 4 << 10, 8 * MIB
NAME = "disk.img"
METRICS = ["to", "from", "wall", "cpu", "rss"]
EDITS = ["first", "page", "pages", "append", "insert"]
PAIRS = {
    "local → local": ["rsync", "rclone"],
    "local → S3": ["rclone", "s5cmd"],
    "S3 → S3": ["rclone"],
}
# The most that snapferry may send: blocks, what was added, and 1 MiB for requests and manifests.
LIMITS = {"page": (2 * BLOCK + MIB) / MIB, "append": (BLOCK + MIB + MIB) / MIB}


class Proxy:
    """Passes everything on to a server and counts it. What goes through never leaves the kernel, so it costs little."""

    def __init__(self, endpoint):
        host, port = endpoint.removeprefix("http://").split(":")
        self.server = (host, int(port))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.counts, self.lock = collections.Counter(), threading.Lock()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(self.server)
            for connection in (client, server):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for way in (("to", client, server), ("from", server, client)):
                threading.Thread(target=self.carry, args=way, daemon=True).start()

    def carry(self, way, source, target):
        """Until one end hangs up, which the other then hears of."""
        out, into = os.pipe()
        try:
            while length := os.splice(source.fileno(), into, MIB):
                # Counted before it goes on: who has an answer finds the request counted.
                with self.lock:
                    self.counts[way] += length
                while length:
                    length -= os.splice(out, target.fileno(), length)
        except OSError:
            pass
        finally:
            os.close(out)
            os.close(into)
            for connection, how in ((source, socket.SHUT_RD), (target, socket.SHUT_WR)):
                try:
                    connection.shutdown(how)
                except OSError:
                    pass

    def read(self):
        with self.lock:
            return dict(self.counts)


class File:
    """The file as it should be, and what is done to it; the same for every tool."""

    def __init__(self, path, original, size):
        self.path, self.size = path, size
        shutil.copyfile(original, path)

    def edit(self, name):
        numbers = random.Random(name)
        with open(self.path, "r+b") as file:
            match name:
                case "page":
                    self.write(file, self.size // 2 - PAGE // 2, numbers.randbytes(PAGE))
                case "pages":
                    for _ in range(50):
                        self.write(file, numbers.randrange(self.size // PAGE) * PAGE, numbers.randbytes(PAGE))
                case "append":
                    self.write(file, file.seek(0, os.SEEK_END), numbers.randbytes(MIB))
                case "insert":
                    place, fresh = self.size // 4, self.path.with_suffix(".new")
                    with open(fresh, "wb") as out:
                        out.write(file.read(place))
                        out.write(numbers.randbytes(MIB))
                        shutil.copyfileobj(file, out, MIB)
                    fresh.rename(self.path)

    @staticmethod
    def write(file, place, data):
        file.seek(place)
        file.write(data)

    def digest(self):
        with open(self.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


class Directory:
    """A side of a pair that is a directory."""

    def __init__(self, path):
        self.path = path
        path.mkdir(parents=True)

    def put(self, path):
        # Replaced, not written over: what a snapshot holds stays as it is.
        fresh = self.path.with_suffix(".new")
        shutil.copyfile(path, fresh)
        fresh.rename(self.path / NAME)

    def digest(self):
        with open(self.path / NAME, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def forget(self, snapshot):
        """Drops what nobody asks for any more: memory is short."""
        if snapshot:
            subprocess.run([ARGS.program, "snapshot", "delete", self.path, snapshot, "-q"], check=True)

    def drop(self):
        shutil.rmtree(self.path)

    def url(self):
        return str(self.path)

    def of_rclone(self):
        return str(self.path)


class Bucket:
    """A side of a pair that is a bucket on a server, which tools reach at `endpoint`."""

    def __init__(self, server, endpoint, remote, name):
        self.server, self.endpoint, self.remote, self.name = server, endpoint, remote, name
        self.client = server.client
        server.make(name)

    def put(self, path):
        config = TransferConfig(multipart_threshold=16 * MIB, multipart_chunksize=16 * MIB, max_concurrency=4)
        self.client.upload_file(str(path), self.name, NAME, Config=config)

    def digest(self):
        digest, body = hashlib.sha256(), self.client.get_object(Bucket=self.name, Key=NAME)["Body"]
        for piece in body.iter_chunks(MIB):
            digest.update(piece)
        return digest.hexdigest()

    def forget(self, _):
        for page in self.client.get_paginator("list_object_versions").paginate(Bucket=self.name, Prefix=NAME):
            for version in page.get("Versions", []):
                if not version["IsLatest"]:
                    self.client.delete_object(Bucket=self.name, Key=NAME, VersionId=version["VersionId"])

    def drop(self):
        self.server.drop(self.name)

    def url(self):
        # As the peers: rclone sends UNSIGNED-PAYLOAD over http, too.
        return f"s3://{self.name}?endpoint={self.endpoint}&region=us-east-1&path-style=true&unsigned-payload=true"

    def of_rclone(self):
        return f"{self.remote}:{self.name}"


class Race:
    """One pair's servers and sides, and what was measured."""

    def __init__(self, pair, scratch):
        self.pair, self.scratch = pair, scratch
        self.kinds = pair.split(" → ")
        self.servers, self.endpoints, self.proxy = [], [], None

    def __enter__(self):
        for side, kind in zip(("source", "target"), self.kinds):
            if kind == "S3":
                self.servers.append(Server(self.scratch / f"{side}-server"))
                self.endpoints.append(self.servers[-1].endpoint)
            else:
                self.servers.append(None)
                self.endpoints.append(None)
        if self.kinds[1] == "S3":
            self.proxy = Proxy(self.endpoints[1])
            self.endpoints[1] = self.proxy.endpoint
        return self

    def __exit__(self, *_):
        for server in filter(None, self.servers):
            server.stop()

    def side(self, number, tool):
        remote = ("src", "dst")[number]
        if self.kinds[number] == "S3":
            return Bucket(self.servers[number], self.endpoints[number], remote, f"race-{tool}")
        return Directory(self.scratch / f"{remote}-{tool}")

    def environment(self):
        environment = {"AWS_REGION": "us-east-1"}
        for remote, server, endpoint in zip(("SRC", "DST"), self.servers, self.endpoints):
            if server:
                environment |= {"AWS_ACCESS_KEY_ID": server.access, "AWS_SECRET_ACCESS_KEY": server.secret}
                settings = {
                    "TYPE": "s3", "PROVIDER": "Other", "ENDPOINT": endpoint, "REGION": "us-east-1",
                    "ACCESS_KEY_ID": server.access, "SECRET_ACCESS_KEY": server.secret,
                }  # fmt: skip
                environment |= {f"RCLONE_CONFIG_{remote}_{key}": value for key, value in settings.items()}
        return environment

    def command(self, tool, edit, source, target):
        match tool:
            case "snapferry":
                state = str(self.scratch / "state")
                urls = [source.url(), target.url()]
                return [ARGS.program, "sync", *urls, "--snapshot", edit, "--state-dir", state, "--json", "-q"]
            case "rsync":
                return ["rsync", "-a", "--no-whole-file", "--stats", f"{source.path}/", f"{target.path}/"]
            case "rclone":
                return [
                    "rclone", "sync", source.of_rclone(), target.of_rclone(), "-q", "--s3-no-check-bucket",
                    "--s3-chunk-size", "16M", "--s3-upload-concurrency", "4",
                ]  # fmt: skip
            case "s5cmd":
                return ["s5cmd", "--endpoint-url", target.endpoint, "sync", f"{source.path}/", f"s3://{target.name}/"]

    def run(self, tool, edit, source, target):
        before = self.proxy and self.proxy.read()
        code, figures, log = measure(self.command(tool, edit, source, target), self.environment(), self.scratch)
        if code:
            sys.exit(f"{tool}, {self.pair}, {edit}: exit code {code}: {log[-3000:]}")
        if self.proxy:
            after = self.proxy.read()
            figures |= {way: (after[way] - before.get(way, 0)) / MIB for way in ("to", "from")}
        elif tool == "snapferry":
            figures["to"] = json.loads(log)["bytes_copied"] / MIB
        elif tool == "rsync":
            figures["to"] = int(re.search(r"Literal data: ([\d,]+)", log)[1].replace(",", "")) / MIB
        return figures

    def all(self, tool, original, results):
        """All edits, one tool."""
        source, target = self.side(0, tool), self.side(1, tool)
        file, last = File(self.scratch / "file", original, ARGS.size * MIB), None
        for edit in EDITS:
            file.edit(edit)
            source.put(file.path)
            # Peers compare times in whole seconds: what changes within the second of the last run, they do not see.
            time.sleep(1.1)
            figures = self.run(tool, edit, source, target)
            if target.digest() != file.digest():
                sys.exit(f"{tool}, {self.pair}, {edit}: the target has another content")
            results[self.pair, edit, tool].append(figures)
            sent = f"{figures['to']:9.2f} MiB" if "to" in figures else ""
            print(f"  {self.pair:14} {edit:7}{tool:10}{figures['wall']:8.2f} s wall {figures['cpu']:7.2f} s CPU {sent}",
                  file=sys.stderr)  # fmt: skip
            for side in (source, target):
                side.forget(last if tool == "snapferry" else None)
            last = edit
        source.drop()
        target.drop()
        shutil.rmtree(self.scratch / "state", ignore_errors=True)
        file.path.unlink()


def median(results, row, tool, metric):
    values = [figures[metric] for figures in results.get((*row, tool), []) if metric in figures]
    return statistics.median(values) if values else None


def text(value, metric, said=""):
    if value is None:
        return "-"
    return (f"{value:.0f}" if metric == "rss" else f"{value:.2f}") + said


def tables(results):
    """Prints all figures, then the ratios; true when snapferry sent no more than it may."""
    rows = list(dict.fromkeys(key[:2] for key in results))
    print("| pair | edit | tool | MiB to | MiB from | wall s | CPU s | RSS MiB |\n|---|---|---|--:|--:|--:|--:|--:|")
    within = True
    for row in rows:
        said = "*" if row[0] == "local → local" else ""
        for tool in [key[2] for key in results if key[:2] == row]:
            cells = [text(median(results, row, tool, metric), metric, said if metric == "to" else "") for metric in METRICS]
            sent = median(results, row, tool, "to")
            if tool == "snapferry" and sent > LIMITS.get(row[1], float("inf")):
                within = False
                cells[0] += " !"
            print("|", " | ".join([*row, tool, *cells]), "|")
    print("\nRatios to the best peer, whose name is in brackets.\n")
    print("| pair | edit | to | wall | CPU | RSS |\n|---|---|--:|--:|--:|--:|")
    for row in rows:
        cells = []
        for metric in ["to", "wall", "cpu", "rss"]:
            ours = median(results, row, "snapferry", metric)
            peers = {key[2]: median(results, row, key[2], metric) for key in results if key[:2] == row and key[2] != "snapferry"}
            peers = {tool: value for tool, value in peers.items() if value}
            best = min(peers, key=peers.get, default=None)
            cells.append(f"{ours / peers[best]:.2f} ({best})" if best and ours is not None else "-")
        print("|", " | ".join([*row, *cells]), "|")
    return within


def main():
    results = collections.defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="snapferry-compare-", dir=scratch_root(8 * ARGS.size * MIB)) as scratch:
        scratch = Path(scratch)
        original, numbers = scratch / "original", random.Random("delta")
        with open(original, "wb") as out:
            for _ in range(ARGS.size):
                out.write(numbers.randbytes(MIB))
        for pair, peers in PAIRS.items():
            if ARGS.only not in (None, pair.replace(" → ", "-").lower()):
                continue
            inner = scratch / "pair"
            inner.mkdir()
            with Race(pair, inner) as race:
                for _ in range(ARGS.rounds):
                    for tool in ["snapferry", *peers]:
                        race.all(tool, original, results)
            shutil.rmtree(inner)
    # Tools ran one after another, each through all edits: the table has them side by side.
    order = [(pair, edit, tool) for pair in PAIRS for edit in EDITS for tool in ["snapferry", *PAIRS[pair]]]
    within = tables({key: results[key] for key in order if key in results})
    if ARGS.json:
        rows = [{"pair": p, "edit": e, "tool": t, "rounds": r} for (p, e, t), r in results.items()]
        Path(ARGS.json).write_text(json.dumps(rows, indent=1) + "\n")
    if ARGS.check and not within:
        sys.exit("snapferry sent more than what changed: see `!`")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", choices=["local-local", "local-s3", "s3-s3"], help="one pair")
    parser.add_argument("--size", type=int, default=1024, metavar="MIB", help="of the file; 64 for a trial")
    parser.add_argument("--program", default=str(ROOT / "target/release/snapferry"), help="the snapferry to race")
    parser.add_argument("--json", help="write every round's figures to this file")
    parser.add_argument("--check", action="store_true", help="exit 1 when more crosses than two blocks, or than one and the tail")
    ARGS = parser.parse_args()
    main()
