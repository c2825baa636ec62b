"""Makes buckets in an object store where they are absent: make_buckets.py URL BUCKET..."""

from __future__ import annotations

import sys

import boto3


def main(url: str, *wanted: str) -> None:
    """The key to the store is in the environment, by AWS's names."""
    store = boto3.client("s3", endpoint_url=url)
    there = {bucket["Name"] for bucket in store.list_buckets()["Buckets"]}
    for name in wanted:
        if name not in there:
            store.create_bucket(Bucket=name)


if __name__ == "__main__":
    main(*sys.argv[1:])
