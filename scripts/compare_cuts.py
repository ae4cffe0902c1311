"""Compares fixed aligned blocks with content-defined cuts on files that change. Started by `scripts/compare cuts`.

Every material is a pair of files, made from a fixed seed or fetched by name and version. A cell is what would cross the
wire, in % of the new file: in parts that S3 accepts and, in brackets, if any range could be taken over. The figures are
examples/cuts.rs's. Needs 4 GiB of scratch space.
"""

import argparse
import collections
import gzip
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from compare import ROOT

MIB, GIB = 1 << 20, 1 << 30
DESIGNS = {
    "blocks-8MiB": "blocks 8 MiB", "blocks-1MiB": "blocks 1 MiB",
    "chunks-64KiB": "cuts 64 KiB", "chunks-1MiB": "cuts 1 MiB", "chunks-4MiB": "cuts 4 MiB",
}  # fmt: skip
SEED = 20_260
WORDS = [f"{random.Random(number).randbytes(5).hex()}" for number in range(5000)]
STATES = ["new", "paid", "packed", "sent", "returned"]


def tarballs(scratch):
    """Source distributions of two adjacent releases, uncompressed."""
    name, versions, pair = "botocore", ["1.44.4", "1.44.5"], []
    for version in versions:
        fetch = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--no-deps"]
        fetch += ["--no-binary", ":all:", "--dest", scratch, f"{name}=={version}"]
        subprocess.run(fetch, check=True, stdout=sys.stderr)
        pair.append(scratch / f"{name}-{version}.tar")
        with gzip.open(f"{pair[-1]}.gz") as packed, open(pair[-1], "wb") as out:
            shutil.copyfileobj(packed, out, MIB)
    yield f"tar of {name} {' → '.join(versions)}", *pair
    timeless = [path.with_suffix(".timeless.tar") for path in pair]
    for path, out in zip(pair, timeless):
        repack(path, out)
    yield "the same, its members' times set to 0", *timeless


def repack(path, out):
    """Writes the members again, as reproducible archives are: sorted, of one time, no version in the names."""
    with tarfile.open(path) as archive, tarfile.open(out, "w", format=tarfile.GNU_FORMAT) as repacked:
        for member in sorted(archive, key=lambda member: member.name):
            member.mtime, member.pax_headers = 0, {}
            member.name = "source/" + member.name.partition("/")[2]
            repacked.addfile(member, archive.extractfile(member) if member.isreg() else None)


class Database:
    """A shop in SQLite: few customers, and many orders at random keys."""

    def __init__(self, scratch, name):
        self.path, self.random = scratch / f"{name}.db", random.Random(name)
        self.connection = None

    def __enter__(self):
        self.connection = sqlite3.connect(self.path, isolation_level=None)
        self.connection.executescript("pragma synchronous = off; pragma journal_mode = off;")
        return self

    def __exit__(self, *_):
        self.connection.close()

    def order(self, key):
        some = self.random
        customer, quantity, amount = some.randrange(20_000), some.randrange(1, 99), some.randrange(10**6) / 100
        return key, customer, quantity, amount, some.choice(STATES), " ".join(some.choices(WORDS, k=8))

    def insert(self, keys):
        self.connection.execute("begin")
        rows = map(self.order, keys)
        self.connection.executemany("insert or ignore into orders values (?, ?, ?, ?, ?, ?)", rows)
        self.connection.execute("commit")

    def make(self, count):
        self.connection.executescript(
            "create table customers (id integer primary key, name text, address text);"
            "create table orders (id integer primary key, customer integer, quantity integer, amount real, state text,"
            " note text);"
        )
        customers = ((key, " ".join(self.random.choices(WORDS, k=2)), " ".join(self.random.choices(WORDS, k=6)))
                     for key in range(0, 200_000, 10))  # fmt: skip
        self.connection.execute("begin")
        self.connection.executemany("insert into customers values (?, ?, ?)", customers)
        self.connection.execute("commit")
        self.insert(sorted(self.random.sample(range(1 << 40), count)))
        self.connection.executescript("create index by_customer on orders (customer); vacuum;")

    def work(self, newest):
        """1 % of the orders updated, 1 % inserted, 0.5 % deleted, all among this share of them, the newest."""
        keys = [key for (key,) in self.connection.execute("select id from orders order by id")]
        percent, keys = len(keys) // 100, keys[int(len(keys) * (1 - newest)) :]
        some = self.random
        chosen = some.sample(keys, percent + percent // 2)
        self.connection.execute("begin")
        changes = [(some.choice(STATES), some.randrange(10**6) / 100, key) for key in chosen[:percent]]
        self.connection.executemany("update orders set state = ?, amount = ? where id = ?", changes)
        self.connection.executemany("delete from orders where id = ?", [(key,) for key in chosen[percent:]])
        self.connection.execute("commit")
        self.insert(sorted(some.randrange(keys[0], 1 << 40) for _ in range(percent)))

    def small_table(self):
        """1 % of the customers get another name; at the end of the orders, 1 % more."""
        self.connection.execute("begin")
        keys = self.random.sample(range(0, 200_000, 10), 200)
        changes = [(" ".join(self.random.choices(WORDS, k=3)), key) for key in keys]
        self.connection.executemany("update customers set name = ? where id = ?", changes)
        self.connection.execute("commit")
        ((last, count),) = self.connection.execute("select max(id), count(*) from orders")
        self.insert(last + 1 + step * 1000 for step in range(count // 100))

    def dump(self):
        out = self.path.with_suffix(".sql")
        with open(out, "w") as file:
            file.writelines(line + "\n" for line in self.connection.iterdump())
        return out


def databases(scratch):
    with Database(scratch, "base") as base:
        base.make(2_000_000 // ARGS.scale)
        old, old_dump = base.path, base.dump()
    cases = [
        ("2.5 % of the rows changed, anywhere", lambda new: new.work(1)),
        ("2.5 % of the rows changed, among the newest 5 %", lambda new: new.work(0.05)),
        ("small first table edited, large one 1 % longer", Database.small_table),
    ]
    for number, (label, change) in enumerate(cases):
        shutil.copy(old, scratch / f"new{number}.db")
        with Database(scratch, f"new{number}") as new:
            change(new)
            yield f"SQL dump: {label}", old_dump, new.dump()
        yield f"SQLite file: {label}", old, new.path
        if number == 0:
            with new:
                new.connection.execute("vacuum")
            yield "SQLite file: the same, then VACUUM", old, new.path


def parquet(scratch):
    rng = numpy.random.default_rng(SEED)

    def table(first, count):
        words = pyarrow.array(WORDS)
        note = [words.take(pyarrow.array(rng.integers(0, len(WORDS), count))) for _ in range(3)]
        return pyarrow.table({
            "id": numpy.arange(first, first + count),
            "moment": 1_700_000_000_000 + numpy.cumsum(rng.integers(0, 2000, count)),
            "customer": rng.integers(0, 200_000, count),
            "state": pyarrow.array(STATES).take(pyarrow.array(rng.integers(0, len(STATES), count))),
            "amount": rng.integers(0, 10**6, count) / 100,
            "note": pyarrow.compute.binary_join_element_wise(*note, " "),
        })  # fmt: skip

    def write(name, content):
        pyarrow.parquet.write_table(content, scratch / name)
        return scratch / name

    def updated(content, begin):
        """1 % of the rows get another amount, from this row on."""
        amounts = content["amount"].to_numpy().copy()
        rows = begin + rng.choice(len(amounts) - begin, len(amounts) // 100, replace=False)
        amounts[rows] = rng.integers(0, 10**6, len(rows)) / 100
        return content.set_column(content.schema.get_field_index("amount"), "amount", pyarrow.array(amounts))

    count = 5_000_000 // ARGS.scale
    base = table(0, count)
    old = write("old.parquet", base)
    yield "Parquet: 1 % of the rows updated, anywhere", old, write("new.parquet", updated(base, 0))
    yield "Parquet: 1 % updated, among the newest 5 %", old, write("new.parquet", updated(base, count * 19 // 20))
    grown = pyarrow.concat_tables([base, table(count, count // 20)])
    yield "Parquet: 5 % of rows appended", old, write("new.parquet", grown)
    few = base.filter(pyarrow.array(rng.random(count) >= 0.0001))
    yield "Parquet: one row of 10,000 deleted", old, write("new.parquet", few)
    yield "Parquet: sorted by another column", old, write("new.parquet", base.sort_by("customer"))


def ext4(scratch):
    rng = numpy.random.default_rng(SEED)
    tree, image = scratch / "tree", scratch / "old.ext4"
    sizes = [int(size) for size in rng.lognormal(9.5, 1.2, 6000 // ARGS.scale)]
    sizes += [int(size) for size in rng.integers(MIB, 12 * MIB, 40 // ARGS.scale)]
    paths = [f"d{number % 40:02}/f{number}" for number in range(len(sizes))]
    for path, size in zip(paths, sizes):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(rng.bytes(size))
    names = "6a1f3c5e-0000-4000-8000-000000000001"
    make = ["mke2fs", "-q", "-t", "ext4", "-m", "0", "-U", names, "-E", f"hash_seed={names}", "-d", tree, image, "512M"]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    new = scratch / "new.ext4"
    shutil.copy(image, new)
    # 2 % replaced, 2 % added, 1 % deleted; of the large ones, at the end of the list, too.
    commands, fresh = [], scratch / "fresh"
    fresh.mkdir()
    for number, (path, size) in enumerate(zip(paths, sizes)):
        fate = number % 100
        if fate in (7, 31, 74):
            commands.append(f"rm /{path}")
        if fate in (7, 31, 55, 93):
            name = path if fate in (7, 31) else f"{path}.added"
            (fresh / str(number)).write_bytes(rng.bytes(int(size * 1.05)))
            folder, _, file = name.partition("/")
            commands += [f"cd /{folder}", f"write {fresh / str(number)} {file}"]
    script = scratch / "commands"
    script.write_text("".join(f"{command}\n" for command in commands))
    # debugfs ends well whatever happened: the check is e2fsck's.
    for command in [["debugfs", "-w", "-f", script, new], ["e2fsck", "-fn", new]]:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield "ext4 image: 5 % of the files replaced, added, deleted", image, new


def log(scratch):
    some = random.Random(SEED)
    old, grown, rotated = scratch / "old.log", scratch / "grown.log", scratch / "rotated.log"
    moment = 1_700_000_000.0

    def write(file, size):
        nonlocal moment
        while size > 0:
            moment += some.random()
            what = f"request={some.getrandbits(64):016x} {some.choice(WORDS)} took={some.randrange(5000)}"
            size -= file.write(f"{moment:.3f} {some.choice(STATES)} {what}\n")

    total = 300 * MIB // ARGS.scale
    with open(old, "w") as file:
        write(file, total)
    shutil.copy(old, grown)
    with open(grown, "a") as file:
        write(file, total // 20)
    yield "log: 5 % appended", old, grown
    with open(grown, "rb") as source, open(rotated, "wb") as out:
        source.seek(total // 20)
        source.readline()
        shutil.copyfileobj(source, out, MIB)
    yield "log: the oldest 5 % dropped, 5 % appended", old, rotated


def image(scratch):
    rng = numpy.random.default_rng(SEED)
    old, new = scratch / "old.img", scratch / "new.img"
    total = GIB // ARGS.scale
    with open(old, "wb") as file:
        for _ in range(total // (16 * MIB)):
            file.write(rng.bytes(16 * MIB))
    shutil.copy(old, new)
    with open(new, "r+b") as file:
        for page in rng.choice(total // 4096, 50, replace=False):
            file.seek(int(page) * 4096)
            file.write(rng.bytes(4096))
    yield "VM image: 4 KiB written at 50 places of 1 GiB", old, new


MATERIALS = {function.__name__: function for function in [tarballs, databases, parquet, ext4, log, image]}


def measure(old, new):
    """Design to its figures."""
    run = subprocess.run([ARGS.program, old, new], check=True, capture_output=True, text=True)
    lines = (line.partition(" ") for line in run.stdout.splitlines()[1:])
    figures = lambda text: {key: float(value) for key, value in re.findall(r"(\w+)=(\S+)", text)}
    return {design: figures(text) for design, _, text in lines}


def main():
    totals = collections.defaultdict(collections.Counter)
    print("| material | MiB |", " | ".join(DESIGNS.values()), "|")
    print("|---|--:|" + "--:|" * len(DESIGNS), flush=True)
    for name in ARGS.only or MATERIALS:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="snapferry-cuts-", dir=ARGS.scratch) as scratch:
            for label, old, new in MATERIALS[name](Path(scratch)):
                figures = measure(old, new)
                cells = []
                for design in DESIGNS:
                    figure = figures[design]
                    share = lambda key: f"{100 * figure[key] / figure['new']:.1f}"
                    cells.append(f"{share('parts')} ({share('ideal')})")
                    gibibytes = (os.path.getsize(old) + os.path.getsize(new)) / GIB
                    more = {"new": figure["new"], "index": figure["index"]}
                    totals[design].update(more | {"both": gibibytes, "cpu": figure["cpu"] * gibibytes})
                print(f"| {label} | {figure['new'] / MIB:.0f} |", " | ".join(cells), "|", flush=True)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    index = (total["index"] / total["new"] * GIB / 1024 for total in totals.values())
    cpu = (total["cpu"] / total["both"] for total in totals.values())
    print("| digests, KiB a GiB | |", " | ".join(f"{figure:.0f}" for figure in index), "|")
    print("| CPU, s a GiB | |", " | ".join(f"{figure:.2f}" for figure in cpu), "|")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=MATERIALS, action="append", help="this material; may be given again")
    parser.add_argument("--scratch", help="the directory to make the files in, instead of the system's")
    parser.add_argument("--scale", type=int, default=1, help="divide the data by this, for a trial")
    parser.add_argument("--program", default=str(ROOT / "target/release/examples/cuts"), help="the comparison to run")
    ARGS = parser.parse_args()
    main()
