"""A redis-py client whose connections are handed out and never released."""
import sys
import redis


def lease(pool):
    connection = pool.get_connection()
    connection.connect()
    return connection


def main():
    host, port, opened, closed = sys.argv[1], *map(int, sys.argv[2:5])
    pool = redis.ConnectionPool(host=host, port=port)
    leased = [lease(pool) for _ in range(opened)]
    for connection in leased[:closed]:
        connection.disconnect()
    print("ready", flush=True)
    sys.stdin.read()


main()
