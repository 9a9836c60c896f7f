// Leaks connections through main -> handleOrder -> getClient -> java.net.Socket.
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.ArrayList;
import java.util.List;

public class Orders {
    static final List<Socket> kept = new ArrayList<>();

    static Socket getClient(String host, int port) throws IOException {
        Socket client = new Socket(host, port);
        client.getOutputStream().write("PING\r\n".getBytes());
        return client;
    }

    static void handleOrder(String host, int port) throws IOException {
        Socket client = getClient(host, port);
        kept.add(client);
    }

    /** What is to be compiled is by the second call: the first ones go to a server of our own. */
    static void compile() throws IOException {
        ServerSocket own = new ServerSocket(0, 8, InetAddress.getLoopbackAddress());
        for (int call = 0; call < 3; call++) {
            handleOrder("127.0.0.1", own.getLocalPort());
        }
    }

    public static void main(String[] arguments) throws IOException {
        String host = arguments[0];
        int port = Integer.parseInt(arguments[1]);
        compile();
        System.out.println("up");
        System.in.read();
        for (int orders = Integer.parseInt(arguments[2]); orders > 0; orders--) {
            handleOrder(host, port);
        }
        System.out.println("ready");
        System.in.readAllBytes();
    }
}
