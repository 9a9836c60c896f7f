<?php
// Leaks connections through main -> handle_order -> get_client -> Predis.
require "Predis/autoload.php";

$kept = [];

function get_client(string $host, int $port): Predis\Client
{
    $client = new Predis\Client(["host" => $host, "port" => $port]);
    $client->connect();
    return $client;
}

class Orders
{
    public static function handle_order(string $host, int $port): void
    {
        global $kept;
        $client = get_client($host, $port);
        $kept[] = $client;
    }
}

function main(array $argv): void
{
    [, $host, $port, $orders] = $argv;
    echo "up\n";
    fgets(STDIN);
    for (; $orders > 0; $orders--) {
        Orders::handle_order($host, (int) $port);
    }
    echo "ready\n";
    stream_get_contents(STDIN);
}

main($argv);
