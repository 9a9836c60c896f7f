"""Leaks connections through main -> handle_order -> get_client -> a pool of redis-py's."""
import sys
import redis

kept = []


def get_client(pool):
    connection = pool.get_connection()
    return connection


def handle_order(pool):
    connection = get_client(pool)
    kept.append(connection)


def main():
    host, port, orders = sys.argv[1], *map(int, sys.argv[2:4])
    pool = redis.BlockingConnectionPool(host=host, port=port, max_connections=orders)
    print("up", flush=True)
    sys.stdin.readline()
    for _ in range(orders):
        handle_order(pool)
    print("ready", flush=True)
    sys.stdin.read()


main()
