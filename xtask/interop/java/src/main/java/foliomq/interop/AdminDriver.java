package foliomq.interop;

/** The checks of RocketMQ's admin tools; see xtask's driver.rs for the protocol. */
public final class AdminDriver {
    private AdminDriver() {
    }

    public static void main(String[] arguments) throws Exception {
        Target target = Target.parse(arguments);
        Suite suite = new Suite(target);
        AdminChecks.register(suite);
        System.exit(suite.run(target.only()));
    }
}
