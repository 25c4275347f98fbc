package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/locknode/locknode/client"
)

const (
	// patience is how long a command waits before it prints what it waits for.
	patience = time.Second
	// lookWait bounds the request for the state of that lock.
	lookWait = 2 * time.Second
)

// sayWaiting prints one line on a terminal that says what a command waits for, if the wait
// takes longer than patience. Elsewhere it prints nothing. The caller calls stop when the
// wait is over; nothing is printed after that.
func (a *app) sayWaiting(ctx context.Context, c *client.Client, name string) (stop func()) {
	if !onTerminal(a.stderr) {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if sleep(ctx, patience) != nil {
			return
		}
		look, end := context.WithTimeout(ctx, lookWait)
		defer end()
		info, err := c.Get(look, name)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			info = client.LockInfo{Name: name} // print the name alone: the wait goes on
		}
		a.say("%s", waitingText(info))
	}()
	return func() {
		cancel()
		<-done
	}
}

// waitingText is the line about a lock that a command waits for.
func waitingText(l client.LockInfo) string {
	text := "waiting for " + quoteName(l.Name)
	switch {
	case l.Held():
		text += ": held by " + holdersText(l)
	case l.DelayLeft > 0:
		text += fmt.Sprintf(": its holder was lost, so it is not granted for another %s", roughly(l.DelayLeft))
	}
	switch {
	case l.Waiters == 1:
		text += "; next in the queue"
	case l.Waiters > 1:
		text += fmt.Sprintf("; %d in the queue", l.Waiters)
	}
	return text
}

// holdersText lists up to three holders, and how many more there are.
func holdersText(l client.LockInfo) string {
	var names []string
	for _, h := range l.Holders[:min(3, len(l.Holders))] {
		names = append(names, fmt.Sprintf("%s (token %d) since %s", quoteName(h.Holder), h.Token, h.Since.Local().Format(time.DateTime)))
	}
	if more := l.HolderCount - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

// sleep waits for d. If ctx ends before, it returns the cause.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// holdersOf returns the holders in an error of a lock that was busy, or of a wait that
// timed out.
func holdersOf(err error) []client.HolderInfo {
	var busy *client.BusyError
	var timeout *client.TimeoutError
	switch {
	case errors.As(err, &busy):
		return busy.Holders
	case errors.As(err, &timeout):
		return timeout.Holders
	}
	return nil
}

// nameHolders adds the holders to the error of a wait that timed out, if the client ended
// the wait before the cluster could name them.
func nameHolders(ctx context.Context, c *client.Client, err error) error {
	var timeout *client.TimeoutError
	if !errors.As(err, &timeout) || len(timeout.Holders) > 0 || ctx.Err() != nil {
		return err
	}
	look, end := context.WithTimeout(ctx, lookWait)
	defer end()
	info, failed := c.Get(look, timeout.Lock)
	if failed != nil {
		return err
	}
	named := *timeout
	named.Holders = info.Holders
	return &named
}
