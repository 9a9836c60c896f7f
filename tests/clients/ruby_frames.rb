# Opens connections by one of the ways that a Ruby program has, and logs its own stack at each.
#
# arguments: host port way count. Says `up`, waits for a line, connects; then a line `pid N`, one
# `method:line method:line ...` for each connection, innermost first, and `ready`.
require "socket"

HOST, PORT, WAY, COUNT = ARGV[0], ARGV[1].to_i, ARGV[2], ARGV[3].to_i
KEPT = []
LOG = []
# Methods written in C have the line of their caller in a trace of Ruby's own.
IN_C = %w[call each eval fork instance_eval join map new next resume times with_index].freeze

def logged(frames)
  own = frames.reject { |frame| IN_C.include?(frame.label) && !frame.path.to_s.start_with?("<internal") }
  LOG << own.map { |frame| "#{frame.label.tr(" ", "_")}:#{frame.lineno}" }.join(" ")
end

class Pool
  def get_client
    KEPT << TCPSocket.new(HOST, PORT); frames = caller_locations(0)
    logged(frames)
  end

  def self.handle_order(pool)
    pool.get_client
  end

  def method_missing(name, *arguments)
    name == :get_any_client ? get_client : super
  end

  def respond_to_missing?(name, include_private = false)
    name == :get_any_client || super
  end
end

def handle_order(pool)
  pool.get_client
end

def in_blocks(pool)
  [1].each do
    { a: 1 }.map { 1.times { handle_order(pool) } }
  end
end

def in_rescue(pool)
  raise "retried"
rescue RuntimeError
  begin
    handle_order(pool)
  ensure
    handle_order(pool)
  end
end

def in_class(pool)
  Class.new do
    define_method(:order) { Pool.handle_order(pool) }
  end.new.order
end

def in_eval(pool)
  # Kept: code that was evaluated once is gone before anybody can read it.
  KEPT << eval("proc { handle_order(pool) }", binding, "/srv/evaluated.rb", 77)
  KEPT.last.call
  pool.instance_eval { get_any_client }
end

# Some thousands of instructions, and as many lines.
eval("def in_long(pool)\n#{"  x = [1, 2, pool]\n" * 700}  handle_order(pool)\nend", nil, "/srv/long.rb", 1)

def in_every_way(pool)
  handle_order(pool)
  Pool.handle_order(pool)
  in_blocks(pool)
  in_rescue(pool)
  in_class(pool)
  in_eval(pool)
  in_long(pool)
end

def in_fibers(pool)
  fiber = Fiber.new do
    Fiber.yield
    in_blocks(pool)
  end
  fiber.resume
  handle_order(pool)
  fiber.resume
  Enumerator.new { |orders| orders << handle_order(pool) }.next
end

# Each thread waits for the lock when it has connected, and another one runs.
def in_threads(pool)
  done = false
  noise = Array.new(3) do
    Thread.new { x = 0; x += 1 until done }
  end
  orders = Array.new(COUNT) do |index|
    Thread.new { index.even? ? in_blocks(pool) : handle_order(pool) }
  end
  orders.each(&:join)
  done = true
  noise.each(&:join)
end

# Connects with so many frames of its own on the stack.
def deep(pool, frames)
  frames.zero? ? handle_order(pool) : deep(pool, frames - 1)
end

def hold
  puts "pid #{Process.pid}", LOG, "ready"
  $stdout.flush
  $stdin.read
end

def main
  puts "up"
  $stdout.flush
  $stdin.gets
  pool = Pool.new
  case WAY
  when "sync" then COUNT.times { in_every_way(pool) }
  when "fibers" then COUNT.times { in_fibers(pool) }
  when "threads" then in_threads(pool)
  when "deep" then COUNT.times { deep(pool, 80) }
  when "late"
    sleep 1
    COUNT.times { handle_order(pool) }
  when "fork"
    child = fork
    exit Process.wait2(child)[1].exitstatus if child
    COUNT.times { handle_order(pool) }
  end
  hold
end

main
