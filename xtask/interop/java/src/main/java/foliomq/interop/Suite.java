package foliomq.interop;

import java.io.PrintStream;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.apache.rocketmq.remoting.protocol.ResponseCode;

/** The checks of a driver: runs them, prints one line each, as xtask's driver protocol wants it. */
final class Suite {
    /** What a check does; anything thrown is its failure. */
    interface Body {
        void run(Scope scope) throws Exception;
    }

    /** Whether a server may answer a check's requests with "not supported". */
    private enum Need { REQUIRED, OPTIONAL }

    private record Check(String name, Body body, Need need) {
    }

    /** The protocol's own stream: checks may capture {@link System#out}. */
    private static final PrintStream PROTOCOL = System.out;
    /** Most checks wait for a server most of the time. */
    private static final int THREADS = 6;

    private final Target target;
    private final List<Check> concurrent = new ArrayList<>();
    private final List<Check> alone = new ArrayList<>();

    Suite(Target target) {
        this.target = target;
    }

    /** A check that bears others beside it. */
    void check(String name, Body body) {
        concurrent.add(new Check(name, body, Need.REQUIRED));
    }

    /** A check that runs by itself, after the others: it restarts the server, say. */
    void checkAlone(String name, Body body) {
        alone.add(new Check(name, body, Need.REQUIRED));
    }

    /** The same for requests that not every server knows: "not supported" is a skip. */
    void checkOptional(String name, Body body) {
        alone.add(new Check(name, body, Need.OPTIONAL));
    }

    /** Runs the checks whose name contains the text; returns the exit code. */
    int run(String only) throws Exception {
        try (Scope scope = new Scope(target)) {
            // The broker listens before it is registered.
            scope.awaitRoute("TBW102");
        }
        int failed = 0;
        ExecutorService threads = Executors.newFixedThreadPool(THREADS);
        List<Future<Boolean>> outcomes = new ArrayList<>();
        for (Check check : concurrent) {
            if (check.name.contains(only)) {
                outcomes.add(threads.submit(() -> passes(check)));
            }
        }
        for (Future<Boolean> outcome : outcomes) {
            failed += outcome.get() ? 0 : 1;
        }
        threads.shutdown();
        for (Check check : alone) {
            if (check.name.contains(only)) {
                failed += passes(check) ? 0 : 1;
            }
        }
        return failed == 0 ? 0 : 1;
    }

    /** Asks xtask for something ({@code @restart}) and waits for its answer. */
    static void order(String order) throws Exception {
        PROTOCOL.println(order);
        PROTOCOL.flush();
        StringBuilder answer = new StringBuilder();
        for (int next = System.in.read(); next != '\n'; next = System.in.read()) {
            Expect.that(next >= 0, "xtask went away during " + order);
            answer.append((char) next);
        }
        Expect.equal("ok", answer.toString(), "answer to " + order);
    }

    private boolean passes(Check check) {
        long started = System.nanoTime();
        try (Scope scope = new Scope(target)) {
            check.body.run(scope);
            long millis = (System.nanoTime() - started) / 1_000_000;
            report("PASS " + check.name + " (" + millis + " ms)");
            return true;
        } catch (Throwable failure) {
            Expect.Refusal refusal = Expect.refusalIn(failure);
            if (check.need == Need.OPTIONAL && refusal != null
                && refusal.code() == ResponseCode.REQUEST_CODE_NOT_SUPPORTED) {
                report("SKIP " + check.name + ": " + refusal.reason().strip());
                return true;
            }
            String why = String.valueOf(failure.getMessage()).replace('\n', ' ');
            report("FAIL " + check.name + ": " + failure.getClass().getSimpleName() + ": " + why);
            failure.printStackTrace();
            return false;
        }
    }

    private static synchronized void report(String line) {
        PROTOCOL.println(line);
        PROTOCOL.flush();
    }
}
