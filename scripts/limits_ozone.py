"""Shows that memory stays within its limit between two Apache Ozone clusters. Started by `scripts/limits ozone`.

Fills a bucket with 50,000 small keys in 100 directories (or as many keys as the first argument says), syncs it to the
other cluster, then with 1 % of it changed, then with nothing changed, and prints the peak memory of each run: diff, plan,
transfer and proof. The last snapshots of both sides are then read with Ozone's own client and compared. Exits 1 over
256 MiB. Takes half an hour.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compare import ROOT, measure
from compare_ozone import OZONE, VOLUME, Cluster, start

LIMIT_MIB = 256
DIRECTORIES = 100
BYTES = 16
PROGRAM = str(ROOT / "target/release/snapferry")


def fill(cluster, bucket, keys, seed):
    """Writes the first `keys` keys of each directory."""
    begun = time.monotonic()
    for number in range(DIRECTORIES):
        cluster.ask("fill", f"{VOLUME}/{bucket}", f"dir-{number:03}/object-", str(keys), str(BYTES), str(seed + number * keys))
    count = DIRECTORIES * keys
    print(f"{count:,} keys written, {count / (time.monotonic() - begun):.0f}/s", file=sys.stderr)


def sync(urls, name, scratch, copied):
    command = [PROGRAM, "sync", *urls, "--snapshot", name]
    code, figures, output = measure([*command, "--state-dir", str(scratch / "state"), "--json", "-q"], {}, scratch)
    if code:
        sys.exit(f"{name}: exit code {code}: {output[-3000:]}")
    report = json.loads(output)
    if (report["state"], report["objects_copied"]) != ("sealed", copied):
        sys.exit(f"{name}: not sealed with {copied} objects copied: {report}")
    print(f"{name:8} {report['objects']:9,} keys, {copied:9,} copied: {figures['rss']:6.0f} MiB peak, "
          f"{figures['wall']:.1f} s, {figures['cpu']:.1f} s CPU, {report['requests']} requests", flush=True)  # fmt: skip
    return figures["rss"]


def content(cluster, bucket):
    return set(cluster.content(bucket, "nothing").items())


def run(source, target, count, scratch):
    bucket = f"limits-{os.getpid()}-{random.randrange(10**6)}"
    for cluster in (source, target):
        cluster.make(bucket, "fso")
    keys = count // DIRECTORIES
    urls = [source.url(bucket), target.url(bucket)]
    fill(source, bucket, keys, 1)
    peaks = [sync(urls, "full", scratch, keys * DIRECTORIES)]
    changed = max(1, keys // 100)
    fill(source, bucket, changed, 10**9)
    peaks.append(sync(urls, "changed", scratch, changed * DIRECTORIES))
    peaks.append(sync(urls, "nothing", scratch, 0))
    found = [content(cluster, bucket) for cluster in (source, target)]
    if found[0] != found[1] or len(found[1]) != keys * DIRECTORIES:
        sys.exit(f"{len(found[1])} keys on the target, {len(found[0] ^ found[1])} differ")
    print("both sides read with Ozone's own client: equal")
    if max(peaks) > LIMIT_MIB:
        sys.exit(f"over {LIMIT_MIB} MiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", type=int, nargs="?", default=50_000)
    parser.add_argument("--clusters", nargs=2, metavar="DIR", help="clusters that run already: source and target")
    arguments = parser.parse_args()
    own, clusters = None, []
    with tempfile.TemporaryDirectory(prefix="snapferry-limits-") as scratch:
        try:
            if arguments.clusters is None:
                own = Path(tempfile.mkdtemp(prefix="snapferry-limits-clusters-"))
            directories = arguments.clusters or start(own)
            clusters = [Cluster(Path(directory).resolve()) for directory in directories]
            run(*clusters, arguments.keys, Path(scratch))
        finally:
            for cluster in clusters:
                cluster.close()
            for directory in ["source", "target"] if own else []:
                subprocess.run([OZONE, "down", own / directory], check=False)
            if own:
                shutil.rmtree(own, ignore_errors=True)


if __name__ == "__main__":
    main()
