"""A pool of five connections, and a leak for as long as its flag file is there."""
import os
import socket
import sys
import time

FLAG = sys.argv[1]
CROSSED = "/run/crossed"
MOST = 70
# Two pools of five, each connection with two ends here: with these the count is 100.
AT_100 = 45
held = [socket.create_connection(("127.0.0.1", 6379)) for _ in range(5)]
while True:
    if os.path.exists(FLAG) and len(held) < MOST:
        held.append(socket.create_connection(("127.0.0.1", 6379)))
        if len(held) == AT_100 and not os.path.exists(CROSSED):
            with open(CROSSED, "w") as file:
                file.write(str(time.monotonic_ns() // 1_000_000))
    time.sleep(0.05)
