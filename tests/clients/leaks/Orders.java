// Leaks connections through main -> handleOrder -> getClient -> java.net.Socket.
import java.io.IOException;
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

    public static void main(String[] arguments) throws IOException {
        String host = arguments[0];
        int port = Integer.parseInt(arguments[1]);
        System.out.println("up");
        System.in.read();
        for (int orders = Integer.parseInt(arguments[2]); orders > 0; orders--) {
            handleOrder(host, port);
        }
        System.out.println("ready");
        System.in.readAllBytes();
    }
}
