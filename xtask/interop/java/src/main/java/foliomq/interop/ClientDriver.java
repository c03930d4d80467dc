package foliomq.interop;

/** The Java client's checks; see xtask's driver.rs for the protocol. */
public final class ClientDriver {
    private ClientDriver() {
    }

    public static void main(String[] arguments) throws Exception {
        Target target = Target.parse(arguments);
        try (Scope scope = new Scope(target)) {
            scope.awaitRoute("TBW102");
        }
        Suite suite = new Suite(target);
        SendChecks.register(suite);
        System.exit(suite.run(target.only()));
    }
}
