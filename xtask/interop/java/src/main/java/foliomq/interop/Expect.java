package foliomq.interop;

import java.time.Duration;
import java.util.Objects;
import java.util.concurrent.Callable;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;

/** Assertions, and waiting for a condition with a deadline. */
final class Expect {
    static final Duration SOON = Duration.ofSeconds(30);
    /** A Java client looks for the queues of its retry topic at its next rebalance, after 20 seconds. */
    static final Duration AFTER_REBALANCE = Duration.ofSeconds(60);
    private static final long POLL_INTERVAL_MS = 20;

    /** A response that is not a success. */
    record Refusal(int code, String reason) {
    }

    private Expect() {
    }

    static void that(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static void equal(Object expected, Object actual, String what) {
        if (!Objects.equals(expected, actual)) {
            throw new AssertionError(what + ": expected " + shorten(expected) + ", got " + shorten(actual));
        }
    }

    static void between(long least, long most, long actual, String what) {
        that(least <= actual && actual <= most, what + ": expected " + least + ".." + most + ", got " + actual);
    }

    /** Waits until the condition holds; an exception counts as not yet. */
    static void until(String what, Callable<Boolean> condition) throws Exception {
        until(what, SOON, condition);
    }

    static void until(String what, Duration limit, Callable<Boolean> condition) throws Exception {
        long deadline = System.nanoTime() + limit.toNanos();
        Exception last = null;
        while (System.nanoTime() < deadline) {
            try {
                if (condition.call()) {
                    return;
                }
                last = null;
            } catch (Exception failure) {
                last = failure;
            }
            Thread.sleep(POLL_INTERVAL_MS);
        }
        throw new AssertionError("after " + limit.toSeconds() + " s still not: " + what, last);
    }

    /** The response code of a refusal, which must say why. */
    static int refusal(String what, Callable<?> call) throws Exception {
        try {
            Object answer = call.call();
            throw new AssertionError(what + ": not refused, answered " + shorten(answer));
        } catch (MQBrokerException | MQClientException failure) {
            Refusal refusal = refusalIn(failure);
            that(refusal.reason != null && !refusal.reason.isBlank(), what + ": refused, but no reason: " + refusal);
            return refusal.code;
        }
    }

    /** What the broker said, which the client wraps, sometimes twice; null when it said nothing. */
    static Refusal refusalIn(Throwable failure) {
        Refusal found = null;
        for (Throwable cause = failure; cause != null; cause = cause.getCause()) {
            if (cause instanceof MQBrokerException refused) {
                return new Refusal(refused.getResponseCode(), refused.getErrorMessage());
            }
            if (cause instanceof MQClientException refused && found == null) {
                found = new Refusal(refused.getResponseCode(), refused.getErrorMessage());
            }
        }
        return found;
    }

    private static String shorten(Object value) {
        String text = String.valueOf(value);
        return text.length() <= 300 ? text : text.substring(0, 300) + "… (" + text.length() + " characters)";
    }
}
