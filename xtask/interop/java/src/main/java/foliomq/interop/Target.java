package foliomq.interop;

import java.util.HashMap;
import java.util.Map;

/** The server under test, as the command line names it. */
record Target(String nameServer, String broker, String only) {
    /** The names that xtask configures every broker under test with. */
    static final String CLUSTER = "DefaultCluster";
    static final String BROKER_NAME = "broker-a";

    static Target parse(String[] arguments) {
        Map<String, String> given = new HashMap<>();
        for (int i = 0; i + 1 < arguments.length; i += 2) {
            given.put(arguments[i], arguments[i + 1]);
        }
        Expect.that(given.containsKey("--name-server"), "--name-server HOST:PORT is missing");
        Expect.that(given.containsKey("--broker"), "--broker HOST:PORT is missing");
        return new Target(given.get("--name-server"), given.get("--broker"), given.getOrDefault("--only", ""));
    }
}
