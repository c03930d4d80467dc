package foliomq.interop;

import org.apache.rocketmq.broker.BrokerStartup;
import org.apache.rocketmq.namesrv.NamesrvStartup;

/**
 * Apache RocketMQ's name server and broker in one JVM, started by their own start-up classes.
 *
 * <p>{@code JavaServer [--namesrv FILE] [--broker FILE]}: each file is RocketMQ's configuration.
 * SIGTERM shuts both down cleanly, by their own shutdown hooks.
 */
public final class JavaServer {
    private JavaServer() {
    }

    public static void main(String[] arguments) throws Exception {
        for (int i = 0; i + 1 < arguments.length; i += 2) {
            String[] configured = {"-c", arguments[i + 1]};
            switch (arguments[i]) {
                case "--namesrv" -> NamesrvStartup.main0(configured);
                case "--broker" -> BrokerStartup.start(BrokerStartup.createBrokerController(configured));
                default -> throw new IllegalArgumentException(arguments[i]);
            }
        }
    }
}
