// Package rafttest has what the tests of internal/disk and internal/network need to drive
// Raft: entries, a state machine, a configuration with the project's timing.
package rafttest

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// Entries makes the commands from one index to another, of one term, 100 bytes each.
func Entries(from, to, term uint64) []*raft.Log {
	var logs []*raft.Log
	for i := from; i <= to; i++ {
		data := fmt.Appendf(nil, "%-99d|", i)
		logs = append(logs, &raft.Log{Index: i, Term: term, Type: raft.LogCommand, Data: data, AppendedAt: time.Unix(int64(i), 0).UTC()})
	}
	return logs
}

// Machine is a state machine that remembers the entries that it applied. The zero value is
// ready, and safe for concurrent use.
type Machine struct {
	mu      sync.Mutex
	applied []string
}

// Apply implements [raft.FSM].
func (m *Machine) Apply(l *raft.Log) any {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.applied = append(m.applied, Applied(l))
	return nil
}

// Applied is how a Machine remembers an entry: "index:data".
func Applied(l *raft.Log) string { return fmt.Sprintf("%d:%s", l.Index, l.Data) }

// All returns the entries that were applied, in order.
func (m *Machine) All() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.applied)
}

// Snapshot implements [raft.FSM].
func (m *Machine) Snapshot() (raft.FSMSnapshot, error) { return Payload("state"), nil }

// Restore implements [raft.FSM]; it reads the snapshot and keeps nothing of it.
func (m *Machine) Restore(rc io.ReadCloser) error {
	_, err := io.ReadAll(rc)
	return err
}

// Payload is a snapshot with these bytes.
type Payload string

// Persist implements [raft.FSMSnapshot].
func (p Payload) Persist(sink raft.SnapshotSink) error {
	if _, err := io.WriteString(sink, string(p)); err != nil {
		return err
	}
	return sink.Close()
}

// Release implements [raft.FSMSnapshot].
func (Payload) Release() {}

// Config has the project's default timing, and does not log.
func Config(id string) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(id)
	c.HeartbeatTimeout = 200 * time.Millisecond
	c.ElectionTimeout = 200 * time.Millisecond
	c.LeaderLeaseTimeout = 150 * time.Millisecond
	c.CommitTimeout = 20 * time.Millisecond
	c.Logger = hclog.NewNullLogger()
	return c
}

// WaitFor polls until ok, in real or virtual time.
func WaitFor(t testing.TB, what string, limit time.Duration, ok func() bool) {
	t.Helper()
	for start := time.Now(); !ok(); time.Sleep(time.Millisecond) {
		if time.Since(start) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// Logger writes info and above without times.
func Logger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey && len(groups) == 0 {
			return slog.Attr{}
		}
		return a
	}}))
}
