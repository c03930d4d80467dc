package foliomq.interop;

/** The Java client's checks; see xtask's driver.rs for the protocol. */
public final class ClientDriver {
    private ClientDriver() {
    }

    public static void main(String[] arguments) throws Exception {
        Target target = Target.parse(arguments);
        Suite suite = new Suite(target);
        SendChecks.register(suite);
        PullChecks.register(suite);
        PushChecks.register(suite);
        OrderlyChecks.register(suite);
        RetryChecks.register(suite);
        OffsetChecks.register(suite);
        QueryChecks.register(suite);
        RefusalChecks.register(suite);
        RestartChecks.register(suite);
        System.exit(suite.run(target.only()));
    }
}
