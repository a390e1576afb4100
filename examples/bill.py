#!/usr/bin/env python3
"""What every guest used in a range, as CSV: the least of a billing program, on Kanyun's API of 2012 over HTTP.

    bill.py http://127.0.0.1:9201 2026-10-01T00:00:00 2026-11-01T00:00:00

Ask some minutes after the end of the range, so that all senders have delivered; adjacent ranges add up exactly.
"""
import base64
import csv
import json
import os
import sys
import urllib.request

METRICS = ["nic_incoming", "nic_outgoing", "blk_read", "blk_write", "vmnetwork"]


def call(url, method, **args):
    """The `data` of an answer. A failure is a code in the body: the HTTP status is 200."""
    body = json.dumps({"method": method, "args": args}).encode()
    request = urllib.request.Request(url.rstrip("/") + "/", body)
    # Where the adapter has users: BILL_USER=name:password. A certificate of your own: SSL_CERT_FILE=cert.pem.
    if user := os.environ.get("BILL_USER"):
        request.add_header("Authorization", "Basic " + base64.b64encode(user.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            answer = json.load(answer)
    except OSError as error:
        raise SystemExit(f"{url} does not answer: {error}") from error
    if answer["code"] != 200:
        raise SystemExit(f"{method} {args}: {answer['message']}")
    return answer["data"]


def main(url, begin, end):
    out = csv.writer(sys.stdout)
    out.writerow(["guest", "metric", "bytes"])
    for metric in METRICS:
        for guest in call(url, "list_instance", metric=metric, timestamp_from=begin, timestamp_to=end):
            periods = call(
                url, "query_usage_report", id=guest, metric=metric, metric_param="total",
                statistic="sum", period=60, timestamp_from=begin, timestamp_to=end,
            )
            out.writerow([guest, metric, sum(periods.values())])


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
