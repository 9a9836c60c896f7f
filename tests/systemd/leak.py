"""A pool of five connections, and a leak for as long as its flag file is there."""
import os
import socket
import sys
import time

FLAG = sys.argv[1]
MOST = 70
held = [socket.create_connection(("127.0.0.1", 6379)) for _ in range(5)]
while True:
    if os.path.exists(FLAG) and len(held) < MOST:
        held.append(socket.create_connection(("127.0.0.1", 6379)))
    time.sleep(0.05)
