package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// soon is how long a check waits for what should come at once, on a busy machine.
const soon = 30 * time.Second

// afterRebalance is long enough for the client's next look at its queues (20 s) after its next
// look at its routes (30 s).
const afterRebalance = 90 * time.Second

// pollInterval is how often a condition is looked at again.
const pollInterval = 20 * time.Millisecond

type check struct {
	name string
	body func(*scope) error
}

// target is the server under test, as the command line names it.
type target struct {
	nameServer, broker, only string
}

// scope is what one check opens; everything is closed at its end.
type scope struct {
	target  target
	closers []func()
}

var sequence atomic.Int64

// name makes a name that no other check uses.
func (s *scope) name(hint string) string {
	return fmt.Sprintf("Go%s_%d", hint, sequence.Add(1))
}

func (s *scope) onClose(closer func()) {
	s.closers = append(s.closers, closer)
}

func (s *scope) close() {
	for i := len(s.closers) - 1; i >= 0; i-- {
		s.closers[i]()
	}
}

// until waits for a condition; an error counts as not yet.
func until(what string, limit time.Duration, condition func() (bool, error)) error {
	deadline := time.Now().Add(limit)
	var last error
	for time.Now().Before(deadline) {
		holds, err := condition()
		if holds && err == nil {
			return nil
		}
		last = err
		time.Sleep(pollInterval)
	}
	return fmt.Errorf("after %v still not: %s (last error: %v)", limit, what, last)
}

func equal[T comparable](what string, expected, actual T) error {
	if expected != actual {
		return fmt.Errorf("%s: expected %v, got %v", what, expected, actual)
	}
	return nil
}

func timeout() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 10*time.Second)
}

// report prints a line of xtask's driver protocol (driver.rs).
var report = func() func(string) {
	var lock sync.Mutex
	out := bufio.NewWriter(os.Stdout)
	return func(line string) {
		lock.Lock()
		defer lock.Unlock()
		fmt.Fprintln(out, strings.ReplaceAll(line, "\n", " "))
		out.Flush()
	}
}()

// run runs all checks at once: they wait for the server most of the time.
func run(target target, checks []check) error {
	var wait sync.WaitGroup
	var failed atomic.Int64
	for _, one := range checks {
		if !strings.Contains(one.name, target.only) {
			continue
		}
		wait.Add(1)
		go func(one check) {
			defer wait.Done()
			if !passes(target, one) {
				failed.Add(1)
			}
		}(one)
	}
	wait.Wait()
	if failed.Load() > 0 {
		return errors.New("checks failed")
	}
	return nil
}

func passes(target target, one check) (passed bool) {
	s := &scope{target: target}
	started := time.Now()
	defer s.close()
	defer func() {
		if fault := recover(); fault != nil {
			report(fmt.Sprintf("FAIL %s: panic: %v", one.name, fault))
		}
	}()
	if err := one.body(s); err != nil {
		report(fmt.Sprintf("FAIL %s: %v", one.name, err))
		return false
	}
	report(fmt.Sprintf("PASS %s (%d ms)", one.name, time.Since(started).Milliseconds()))
	return true
}
