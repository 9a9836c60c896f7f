<?php
// Leaks persistent connections of an FPM worker: main -> handle_order -> get_client -> phpredis.
function get_client(string $host, int $port, string $order): Redis
{
    $client = new Redis();
    $client->pconnect($host, $port, 0.0, $order);
    return $client;
}

function handle_order(string $host, int $port, string $order): void
{
    global $kept;
    $kept[] = get_client($host, $port, $order);
}

function main(): void
{
    [$host, $port, $orders] = explode(" ", $_SERVER["QUERY_STRING"]);
    for ($order = 0; $order < (int) $orders; $order++) {
        handle_order($host, (int) $port, "order $order");
    }
    echo getmypid();
    fastcgi_finish_request();
    // The code of a request is gone with it.
    while (true) {
        sleep(60);
    }
}

main();
