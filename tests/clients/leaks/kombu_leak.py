"""Leaks connections through main -> handle_order -> get_client -> kombu."""
import sys
import kombu

kept = []


def get_client(url):
    client = kombu.Connection(url)
    client.default_channel.queue_purge("orders")
    return client


def handle_order(url):
    client = get_client(url)
    kept.append(client)


def main():
    host, port, orders = sys.argv[1], *map(int, sys.argv[2:4])
    print("up", flush=True)
    sys.stdin.readline()
    for _ in range(orders):
        handle_order(f"redis://{host}:{port}")
    print("ready", flush=True)
    sys.stdin.read()


main()
