"""A worker of 2012: pushes the messages of standard input, one `[type, body]` a line, to an address; ends when all have left."""
import json
import sys

import zmq

context = zmq.Context()
socket = context.socket(zmq.PUSH)
socket.setsockopt(zmq.LINGER, int(sys.argv[2]))
socket.connect(sys.argv[1])
for line in sys.stdin:
    kind, body = json.loads(line)
    socket.send_multipart([kind.encode(), body.encode()])
socket.close()
context.term()
