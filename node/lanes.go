package node

import (
	"bytes"
	"maps"
	"slices"

	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/fair"
)

// Bounds of what waits for an entry, of which one connection gets a third, and of an entry.
const (
	maxQueueCommands = 128 << 10 // twice as many of those that free something
	maxQueueBytes    = 64 << 20  // twice as many of those
	maxKeepAlives    = 512 << 10
	maxEntryCommands = 2048
	maxEntryBytes    = 256 << 10 // about
	// maxBehind is how many keep-alives of one session may wait for it to be opened.
	maxBehind = 16
)

var queueRoom = fair.Room{Items: maxQueueCommands, Bytes: maxQueueBytes}

// lanes holds what waits for an entry: commands, and keep-alives apart from them, so
// that no session expires because the queue is full of acquires. In both, owners take
// turns: an owner that floods delays the others by no more than an entry, unless there are
// more owners than an entry has places.
type lanes struct {
	commands fair.Queue[queuedCommand]
	alive    fair.Queue[keepAlive]
	opening  map[fsm.SessionID]*opening // queued or in flight
}

// queuedCommand is a command and the function that gets its outcome.
type queuedCommand struct {
	command fsm.Command
	done    func(outcome)
}

// keepAlive is the renewal of one session, and the function that gets its outcome.
type keepAlive struct {
	owner   fair.Owner
	session fsm.KeepAliveSession
	caller  string // whose session it must be; empty: nobody asks
	done    func(fsm.Alive, outcome)
}

// opening is a session that is about to be opened. Its keep-alives wait for that: the table
// does not have the session yet, and they must not be answered as if it did not exist.
type opening struct {
	times  int // how often an opening of it is queued or in flight
	behind []keepAlive
}

// room is how many commands of a class may be queued: a queue full of acquires must not
// keep locks from being released.
func room(c fsm.Command) fair.Room {
	if frees(c) {
		return queueRoom.Times(2)
	}
	return queueRoom
}

func (l *lanes) push(o fair.Owner, q queuedCommand) bool {
	if !l.commands.Push(o, q, sizeOf(q.command), room(q.command)) {
		return false
	}
	if c, ok := plain(q.command).(fsm.OpenSession); ok {
		if l.opening == nil {
			l.opening = make(map[fsm.SessionID]*opening)
		}
		if l.opening[c.Session] == nil {
			l.opening[c.Session] = &opening{}
		}
		l.opening[c.Session].times++
	}
	return true
}

// opened is called when an opening has had its outcome. The keep-alives that have waited
// for it are queued.
func (l *lanes) opened(c fsm.OpenSession) {
	o := l.opening[c.Session]
	if o == nil {
		return // the proposer has been closed
	}
	for _, k := range o.behind {
		l.alive.Put(k.owner, k, 0)
	}
	o.behind = nil
	if o.times--; o.times == 0 {
		delete(l.opening, c.Session)
	}
}

// openNone queues all keep-alives that wait for a session to be opened.
func (l *lanes) openNone() {
	byID := func(a, b fsm.SessionID) int { return bytes.Compare(a[:], b[:]) }
	for _, id := range slices.SortedFunc(maps.Keys(l.opening), byID) {
		for _, k := range l.opening[id].behind {
			l.alive.Put(k.owner, k, 0)
		}
	}
	l.opening = nil
}

// batch is what goes into one entry.
type batch struct {
	commands []queuedCommand
	alive    []keepAlive
	slots    []int32                // index in sessions of each of alive
	sessions []fsm.KeepAliveSession // each once
}

// take removes what fits into one entry. Several keep-alives of one session have one place
// in it; slots is memory for finding that, which only take uses.
func (l *lanes) take(slots map[fsm.SessionID]int32) (b batch) {
	const n, size = maxEntryCommands, maxEntryBytes
	if k := min(n, l.commands.Len()); k > 0 {
		b.commands = make([]queuedCommand, 0, k)
	}
	for total := 0; len(b.commands) < n && total < size; {
		q, s, ok := l.commands.Pop()
		if !ok {
			break
		}
		b.commands = append(b.commands, q)
		total += s
	}
	if k := min(repeatsPerSlot*n, l.alive.Len()); k > 0 {
		b.alive, b.slots = make([]keepAlive, 0, k), make([]int32, 0, k)
	}
	clear(slots)
	for len(b.alive) < repeatsPerSlot*n && len(b.sessions) < n {
		k, _, ok := l.alive.Pop()
		if !ok {
			break
		}
		at, known := slots[k.session.Session]
		if known {
			s := &b.sessions[at]
			s.RevocationsSeen = max(s.RevocationsSeen, k.session.RevocationsSeen)
		} else {
			at = int32(len(b.sessions))
			slots[k.session.Session] = at
			b.sessions = append(b.sessions, k.session)
		}
		b.alive, b.slots = append(b.alive, k), append(b.slots, at)
	}
	return b
}

// repeatsPerSlot bounds how many keep-alives an entry answers, for each session that it
// may have.
const repeatsPerSlot = 4

// without removes the keep-alives of sessions that are missing from the batch, and returns
// them.
func (b *batch) without(missing []bool) (out []keepAlive) {
	moved := make([]int32, len(b.sessions))
	kept := 0
	for i, gone := range missing {
		if gone {
			moved[i] = -1
			continue
		}
		moved[i] = int32(kept)
		b.sessions[kept] = b.sessions[i]
		kept++
	}
	b.sessions = b.sessions[:kept]
	n := 0
	for i, k := range b.alive {
		if at := moved[b.slots[i]]; at < 0 {
			out = append(out, k)
		} else {
			b.alive[n], b.slots[n] = k, at
			n++
		}
	}
	clear(b.alive[n:])
	b.alive, b.slots = b.alive[:n], b.slots[:n]
	return out
}

// withoutForeign removes the keep-alives that are marked, and returns them. A session stays in the
// batch if another keep-alive of it is left.
func (b *batch) withoutForeign(foreign []bool) (out []keepAlive) {
	if foreign == nil {
		return nil
	}
	alive := b.alive
	slots := make(map[fsm.SessionID]int32)
	b.alive, b.slots, b.sessions = nil, nil, nil
	for i, k := range alive {
		if foreign[i] {
			out = append(out, k)
			continue
		}
		at, known := slots[k.session.Session]
		if !known {
			at = int32(len(b.sessions)) //nolint:gosec // an entry has few of them
			slots[k.session.Session] = at
			b.sessions = append(b.sessions, k.session)
		}
		s := &b.sessions[at]
		s.RevocationsSeen = max(s.RevocationsSeen, k.session.RevocationsSeen)
		b.alive, b.slots = append(b.alive, k), append(b.slots, at)
	}
	return out
}

// add puts a command into the batch whose outcome is not needed.
func (b *batch) add(c fsm.Command) {
	b.commands = append(b.commands, queuedCommand{c, func(outcome) {}})
}

func (b *batch) empty() bool { return len(b.commands)+len(b.sessions) == 0 }

func (b *batch) fail(err error) {
	for _, k := range b.alive {
		k.done(fsm.Alive{}, outcome{err: err})
	}
	for _, q := range b.commands {
		q.done(outcome{err: err})
	}
}

func (b *batch) deliver(a fsm.Applied) {
	results := a.Results
	o := outcome{index: a.Index, now: a.Now}
	if len(b.sessions) > 0 {
		for i, k := range b.alive {
			k.done(results[0].Alive[b.slots[i]], o)
		}
		results = results[1:]
	}
	for i, q := range b.commands {
		o.result = results[i]
		q.done(o)
	}
}

// sizeOf estimates the encoded size of a command.
func sizeOf(c fsm.Command) int {
	const fixed = 64 // kind, IDs and numbers
	switch c := c.(type) {
	case fsm.As:
		return fixed + len(c.Caller) + sizeOf(c.Command)
	case fsm.OpenSession:
		return fixed + len(c.Holder) + len(c.Owner) + sizeOfLabels(c.Labels)
	case fsm.EndSession:
		return fixed + 10*len(c.Undelivered)
	case fsm.Acquire:
		n := fixed + len(c.Holder) + len(c.Owner) + len(c.Value) + sizeOfLabels(c.Labels)
		for i := range c.Wants {
			n += 16 + len(c.Wants[i].Lock)
		}
		return n
	case fsm.SetValue:
		return fixed + len(c.Lock) + len(c.Value)
	case fsm.Release:
		return fixed + len(c.Lock)
	case fsm.Renew:
		return fixed + len(c.Lock)
	case fsm.Cancel:
		return 2 * fixed
	case fsm.KeepAlive, fsm.Found, fsm.Configure:
		return fixed // they are not queued
	}
	return len(fsm.AppendCommand(nil, c)) // rare
}

func sizeOfLabels(labels []fsm.Label) (n int) {
	for i := range labels {
		n += 8 + len(labels[i].Key) + len(labels[i].Value)
	}
	return n
}
