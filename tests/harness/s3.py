#!/usr/bin/env python3
"""An S3 client for the tests that shares nothing with snapferry: it builds buckets and reads them back.

    s3.py ENDPOINT create BUCKET [--versioned]
    s3.py ENDPOINT apply BUCKET < actions
    s3.py ENDPOINT dump BUCKET DIRECTORY
    s3.py ENDPOINT versions BUCKET
    s3.py ENDPOINT every BUCKET
    s3.py ENDPOINT uploads BUCKET
    s3.py ENDPOINT begin BUCKET KEY
    s3.py ENDPOINT landed BUCKET
    s3.py ENDPOINT put BUCKET KEY FILE EXTRA
    s3.py ENDPOINT head BUCKET KEY
    s3.py ENDPOINT lose BUCKET KEY
    s3.py ENDPOINT publish BUCKET

`apply` reads one JSON array a line: ["put", KEY, FILE WITH THE CONTENT] or ["delete", KEY]; each key once.
`dump` prints one JSON array a line: [KEY, FILE WITH THE CONTENT], all keys, snapferry's own included; it makes the
files in the directory. `versions` prints the number of versions and delete markers in the bucket, `every` each of
them as one JSON array a line, [KEY, ID, WHETHER IT IS CURRENT, WHETHER IT IS A DELETE MARKER], `uploads` the number of
multipart uploads nobody finished, `begin` begins one, `landed` the bytes of content in objects and in parts of such uploads. `put` writes one object with more arguments of PutObject as JSON, `head` prints what
travels with one as JSON, `lose` deletes its newest version for good. `publish` lets everybody read the bucket, and nobody else write it.
Keys are hexadecimal, so any byte can be in them.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import botocore.config


def connect(endpoint):
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        config=botocore.config.Config(
            s3={"addressing_style": "path"},
            max_pool_connections=16,
            retries={"mode": "standard", "total_max_attempts": 5},
        ),
    )


def key_of(text):
    return bytes.fromhex(text).decode("utf-8")


def create(client, bucket, *options):
    client.create_bucket(Bucket=bucket)
    if "--versioned" in options:
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


def apply(client, bucket):
    actions = [json.loads(line) for line in sys.stdin]

    def delete(key):
        client.delete_object(Bucket=bucket, Key=key_of(key))

    def put(key, path):
        client.put_object(Bucket=bucket, Key=key_of(key), Body=Path(path).read_bytes())

    # Deletes first: some servers cannot hold `a` beside `a/b`.
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda action: delete(action[1]), (a for a in actions if a[0] == "delete")))
        list(pool.map(lambda action: put(action[1], action[2]), (a for a in actions if a[0] == "put")))


def keys(client, bucket):
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", []):
            yield entry["Key"], entry["Size"]


def dump(client, bucket, directory):
    def read(item):
        number, (key, size) = item
        body = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        if len(body) != size:
            raise ValueError(f"{key!r}: listed with {size} bytes, read {len(body)}")
        path = Path(directory, str(number))
        path.write_bytes(body)
        return key.encode("utf-8").hex(), str(path)

    with ThreadPoolExecutor(8) as pool:
        for line in pool.map(read, enumerate(keys(client, bucket))):
            print(json.dumps(line))


def versions(client, bucket):
    count = 0
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket):
        count += len(page.get("Versions", [])) + len(page.get("DeleteMarkers", []))
    print(count)


def every(client, bucket):
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for name in ["Versions", "DeleteMarkers"]:
            for one in page.get(name, []):
                key = one["Key"].encode("utf-8").hex()
                print(json.dumps([key, one["VersionId"], one["IsLatest"], name == "DeleteMarkers"]))


def uploads(client, bucket):
    print(len(client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])))


def begin(client, bucket, key):
    client.create_multipart_upload(Bucket=bucket, Key=key_of(key))


def landed(client, bucket):
    total = sum(size for key, size in keys(client, bucket) if not key.startswith(".snapferry/"))
    for upload in client.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
        parts = client.list_parts(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        total += sum(part["Size"] for part in parts.get("Parts", []))
    print(total)


def put(client, bucket, key, path, extra):
    client.put_object(Bucket=bucket, Key=key_of(key), Body=Path(path).read_bytes(), **json.loads(extra))


def head(client, bucket, key):
    found = client.head_object(Bucket=bucket, Key=key_of(key))
    print(json.dumps({name: found.get(name) for name in ("ContentType", "CacheControl", "Metadata")}))


def lose(client, bucket, key):
    newest = client.head_object(Bucket=bucket, Key=key_of(key))["VersionId"]
    client.delete_object(Bucket=bucket, Key=key_of(key), VersionId=newest)


def publish(client, bucket):
    actions = ["GetObject", "GetObjectVersion", "ListBucket", "ListBucketVersions", "GetBucketVersioning"]
    resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    statement = {"Effect": "Allow", "Principal": "*", "Action": ["s3:" + a for a in actions], "Resource": resources}
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))


def main():
    endpoint, command, bucket, *options = sys.argv[1:]
    commands = [create, apply, dump, versions, every, uploads, begin, landed, put, head, lose, publish]
    {function.__name__: function for function in commands}[command](connect(endpoint), bucket, *options)


if __name__ == "__main__":
    main()
