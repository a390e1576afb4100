#!/usr/bin/env python3
"""What dough's network driver asks for a bill, by pyzmq: dough.py ADDRESS UUID prints the bytes.

Two sockets one after the other, hour by hour and then all hours at once; both ways give one sum.
"""
import json
import sys
import uuid

import zmq

ADDRESS, INSTANCE = sys.argv[1:]


def usage(socket, begin, end):
    cid = str(uuid.uuid4())
    request = {
        "method": "query_usage_report",
        "args": {
            "id": INSTANCE,
            "metric": "vmnetwork",
            "metric_param": "total",
            "statistic": "sum",
            "period": 60,
            "timestamp_from": begin,
            "timestamp_to": end,
        },
    }
    socket.send_multipart([b"kanyun", cid.encode(), json.dumps(request).encode()])
    msg_type, echoed, body = socket.recv_multipart()
    assert msg_type == b"kanyun", msg_type
    assert echoed == cid.encode(), (echoed, cid)
    answer = json.loads(body)
    assert answer["code"] != 500, answer
    return sum(answer["data"].values())


context = zmq.Context()
sums = []
for hours in ([(h, h + 1) for h in range(10, 14)], [(10, 14)]):
    socket = context.socket(zmq.REQ)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVTIMEO, 60_000)
    socket.connect(ADDRESS)
    sums.append(sum(
        usage(socket, f"2012-04-09T{begin:02}:00:00.000000", f"2012-04-09T{end:02}:00:00+00:00")
        for begin, end in hours
    ))
    socket.close()
assert sums[0] == sums[1], sums
print(sums[0])
