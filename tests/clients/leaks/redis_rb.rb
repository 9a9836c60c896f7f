# Leaks connections through main -> handle_order -> get_client -> the redis gem.
require "redis"

KEPT = []

def get_client(host, port)
  client = Redis.new(host: host, port: port)
  client.ping
  client
end

def handle_order(host, port)
  client = get_client(host, port)
  KEPT << client
end

def main
  host, port, orders = ARGV
  puts "up"
  $stdout.flush
  $stdin.gets
  orders.to_i.times do
    handle_order(host, port.to_i)
  end
  puts "ready"
  $stdout.flush
  $stdin.read
end

main
