"""Leaks connections through main -> handle_order -> get_client -> redis-py."""
import sys
import redis

kept = []


def get_client(host, port):
    client = redis.Redis(host=host, port=port)
    client.ping()
    return client


def handle_order(host, port):
    client = get_client(host, port)
    kept.append(client)


def main():
    host, port, orders = sys.argv[1], *map(int, sys.argv[2:4])
    print("up", flush=True)
    sys.stdin.readline()
    for _ in range(orders):
        handle_order(host, port)
    print("ready", flush=True)
    sys.stdin.read()


main()
