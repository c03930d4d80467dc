// Drives rocketmq-client-go v2 against the server under test; see xtask's driver.rs.
package main

import (
	"flag"
	"os"

	"github.com/apache/rocketmq-client-go/v2/rlog"
)

func main() {
	var target target
	flag.StringVar(&target.nameServer, "name-server", "", "HOST:PORT")
	flag.StringVar(&target.broker, "broker", "", "HOST:PORT")
	flag.StringVar(&target.only, "only", "", "runs only checks whose name contains this")
	flag.Parse()
	rlog.SetLogLevel("error")
	waiting := &scope{target: target}
	defer waiting.close()
	// The broker listens before it is registered.
	if err := waiting.awaitTopic("TBW102"); err != nil {
		report("FAIL go: the broker is registered: " + err.Error())
		os.Exit(1)
	}
	if run(target, checks()) != nil {
		os.Exit(1)
	}
}
