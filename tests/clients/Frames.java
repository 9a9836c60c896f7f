// Opens connections by one of the ways that a Java program has, and logs its own stack at each.
//
// arguments: host port way count. Says `up`, waits for a line, connects; then a line `pid N`, one
// `Class.method:line Class.method:line ...` for each connection, innermost first, and `ready`.
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.function.Consumer;
import java.util.stream.IntStream;

public class Frames {
    static final List<Socket> KEPT = Collections.synchronizedList(new ArrayList<>());
    static final List<String> LOG = Collections.synchronizedList(new ArrayList<>());
    static String host;
    static int port;

    /** The same line connects and asks for the stack. */
    static void getClient() {
        try { KEPT.add(new Socket(host, port)); log(new Throwable().getStackTrace()); } catch (IOException error) { throw new IllegalStateException(error); }
    }

    static void log(StackTraceElement[] frames) {
        StringBuilder line = new StringBuilder();
        for (StackTraceElement frame : frames) {
            String name = frame.getClassName();
            if (name.startsWith("java.") || name.startsWith("jdk.") || name.startsWith("sun.")) {
                continue;
            }
            line.append(line.length() == 0 ? "" : " ");
            line.append(name).append('.').append(frame.getMethodName());
            line.append(':').append(Math.max(frame.getLineNumber(), 0));
        }
        LOG.add(line.toString());
    }

    static void handleOrder() {
        int before = KEPT.size();
        getClient();
        if (KEPT.size() == before) {
            throw new IllegalStateException();
        }
    }

    interface Shop {
        void order();

        default void orderTwice() {
            order();
            order();
        }
    }

    static class Near implements Shop {
        @Override
        public synchronized void order() {
            handleOrder();
        }
    }

    static class Far extends Near {
        Far(boolean atOnce) {
            if (atOnce) {
                handleOrder();
            }
        }

        @Override
        public void order() {
            try {
                throw new IllegalArgumentException();
            } catch (IllegalArgumentException error) {
                super.order();
            } finally {
                getClient();
            }
        }
    }

    /** Connects when it is first named. */
    static class AtStart {
        static final int ORDERS;

        static {
            handleOrder();
            ORDERS = 1;
        }
    }

    static void inLambdas() {
        Runnable order = () -> {
            handleOrder();
        };
        order.run();
        Runnable reference = Frames::handleOrder;
        reference.run();
        Consumer<Shop> shop = Shop::order;
        shop.accept(new Near());
        IntStream.range(0, 2).forEach(number -> handleOrder());
    }

    static void inClasses() {
        new Near().orderTwice();
        new Far(true).order();
        new Shop() {
            @Override
            public void order() {
                getClient();
            }
        }.orderTwice();
    }

    static void byReflection() {
        try {
            Frames.class.getDeclaredMethod("handleOrder").invoke(null);
        } catch (ReflectiveOperationException error) {
            throw new IllegalStateException(error);
        }
    }

    static int recursive(int depth) {
        if (depth == 0) {
            handleOrder();
            return 0;
        }
        return recursive(depth - 1)
            + 1;
    }

    static long sum;

    /** Entered by its loop, when that was compiled. */
    static void inHotLoop() {
        for (int turn = 0; turn < 300_000; turn++) {
            sum += turn ^ sum << 1;
            if (turn == 299_999) {
                handleOrder();
            }
        }
    }

    static void inEveryWay() {
        handleOrder();
        inLambdas();
        inClasses();
        byReflection();
        recursive(9);
        inHotLoop();
        Long.numberOfLeadingZeros(AtStart.ORDERS);
    }

    static abstract class Stock {
        abstract int take();
    }

    static class OnlyStock extends Stock {
        @Override
        int take() {
            if (isLast) {
                // What was compiled for one class only is valid no more: its frames are outdated.
                sum += new OtherStock().take();
                handleOrder();
            }
            return 1;
        }
    }

    static class OtherStock extends Stock {
        @Override
        int take() {
            return 2;
        }
    }

    static boolean isLast;

    static int takeFrom(Stock stock) {
        return stock.take()
            + stock.take();
    }

    static void outdated() {
        Stock stock = new OnlyStock();
        for (int turn = 0; turn < 200_000; turn++) {
            sum += takeFrom(stock);
        }
        isLast = true;
        sum += takeFrom(stock);
        isLast = false;
    }

    static void inThreads(int count) {
        List<Thread> threads = new ArrayList<>();
        for (int number = 0; number < count; number++) {
            boolean even = number % 2 == 0;
            threads.add(new Thread(() -> { if (even) { inClasses(); } else { recursive(5); } }));
        }
        threads.forEach(Thread::start);
        try {
            for (Thread thread : threads) {
                thread.join();
            }
        } catch (InterruptedException error) {
            throw new IllegalStateException(error);
        }
    }

    /**
     * Goes on connecting while the JVM compiles what it runs, in one way and then in another. Less
     * often than stacks are taken, however fast the machine is.
     */
    static void whileCompiled(int count) throws InterruptedException {
        for (int number = 0; number < count; number++) {
            Thread.sleep(20);
            for (int turn = 0; turn < 2_000; turn++) {
                sum += KEPT.hashCode() + turn;
            }
            recursive(number % 4);
            new Far(false).order();
        }
    }

    /** The same calls before, to a server of our own: by then they are compiled. */
    static void warmUp(int count) throws IOException {
        String told = host;
        int toldPort = port;
        try (ServerSocket own = new ServerSocket(0, 1_024, InetAddress.getLoopbackAddress())) {
            host = own.getInetAddress().getHostAddress();
            port = own.getLocalPort();
            for (int number = 0; number < count; number++) {
                inEveryWay();
                for (Socket client : KEPT) {
                    client.close();
                    own.accept().close();
                }
                KEPT.clear();
            }
        }
        host = told;
        port = toldPort;
        LOG.clear();
    }

    public static void main(String[] arguments) throws IOException, InterruptedException {
        host = arguments[0];
        port = Integer.parseInt(arguments[1]);
        int count = Integer.parseInt(arguments[3]);
        if (arguments[2].equals("warm")) {
            warmUp(500);
        }
        System.out.println("up");
        System.in.read();
        switch (arguments[2]) {
            case "sync", "warm" -> { for (int number = 0; number < count; number++) { inEveryWay(); } }
            case "threads" -> inThreads(count);
            case "compiling" -> whileCompiled(count);
            case "outdated" -> outdated();
            case "deep" -> { for (int number = 0; number < count; number++) { recursive(400); } }
            case "late" -> { Thread.sleep(1_000); for (int number = 0; number < count; number++) { handleOrder(); } }
            default -> throw new IllegalArgumentException(arguments[2]);
        }
        System.out.println("pid " + ProcessHandle.current().pid());
        LOG.forEach(System.out::println);
        System.out.println("ready");
        System.in.readAllBytes();
    }
}
