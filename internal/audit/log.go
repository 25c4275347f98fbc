package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"
)

// Options say how a Log writes. To is required.
type Options struct {
	// To gets whole lines, several in one Write. One goroutine calls it. It may block: then
	// records are dropped, and operations are refused with Refuse.
	To io.Writer
	// Refuse has operations refused that cannot be recorded.
	Refuse bool
	// Node returns the IDs of the node and of its cluster; empty: not known yet.
	Node func() (node, cluster string)
	// Now is the wall clock; nil: time.Now.
	Now    func() time.Time
	Logger *slog.Logger // nil: silent
	// Written and Lost are called with how many records were written, and how many were not
	// because the writer has failed or the queue was full. nil: nobody counts.
	Written, Lost func(n int)
}

const (
	// maxQueued is how many records wait to be written at most. Those of grants, of which there
	// may be tens of thousands a second, leave a quarter to the others.
	maxQueued = 32_768
	// maxWrite is how many bytes of lines go into one Write, but for a line that is longer.
	maxWrite = 64 << 10
	// maxSpare is the longest queue whose memory is kept.
	maxSpare = 2048
	// patience is how long an operation waits until its record is written, with Refuse.
	patience = 5 * time.Second
	// repeatAfter is how often the same failure is logged.
	repeatAfter = time.Minute
)

// Log writes records. A nil Log writes nothing and refuses nothing. Its methods are safe for
// concurrent use.
type Log struct {
	o     Options
	woken chan struct{} // holds a token when something is queued, or the log is closed
	done  chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex // guards what follows
	queue   []queued
	dropped int       // records for which there was no room, not said in a line yet
	fullAt  time.Time // when it was logged last that there is no room
	closed  bool
	failing error // why the last write has failed; nil: it has not

	// Of the goroutine alone.
	spare  []queued  // the memory of an earlier queue, for the next one
	lost   int       // records that could not be written, not said in a line yet
	torn   bool      // the last write may have ended within a line
	said   string    // the failure that was logged last
	saidAt time.Time // when
}

// queued is a record that waits. written, if not nil, is called once with nil after it was
// written, or with why it was not.
type queued struct {
	record  Record
	at      time.Time
	written func(error)
}

// New returns a log, whose goroutine runs until Close.
func New(o Options) *Log {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Node == nil {
		o.Node = func() (node, cluster string) { return "", "" }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Written == nil {
		o.Written = func(int) {}
	}
	if o.Lost == nil {
		o.Lost = func(int) {}
	}
	l := &Log{o: o, woken: make(chan struct{}, 1), done: make(chan struct{})}
	go l.run()
	return l
}

// Put queues a record and returns at once. If there is no room it is dropped.
func (l *Log) Put(r Record) {
	if l != nil {
		l.put(r, nil)
	}
}

var (
	errFull   = errors.New("too many records wait to be written")
	errClosed = errors.New("the audit is closed")
	errSlow   = fmt.Errorf("the record was not written within %v", patience)
)

// put queues a record. written is called from any goroutine, also by put itself.
func (l *Log) put(r Record, written func(error)) {
	one := queued{r.clipped(), l.o.Now(), written}
	l.mu.Lock()
	var why error
	log := false
	switch {
	case l.closed:
		why = errClosed
	case len(l.queue) >= roomFor(&r):
		why = errFull
		l.dropped++
		if log = one.at.Sub(l.fullAt) >= repeatAfter; log {
			l.fullAt = one.at
		}
	default:
		l.queue = append(l.queue, one)
	}
	l.mu.Unlock()
	if why == nil {
		l.wake()
		return
	}
	if log {
		l.o.Logger.Error("audit records are lost: they are written more slowly than they come", "waiting", maxQueued)
	}
	l.o.Lost(1)
	if written != nil {
		written(why)
	}
}

// roomFor is how long the queue may be for one more record.
func roomFor(r *Record) int {
	if r.Event == EventGrant || r.Event == EventGrantEnd {
		return maxQueued * 3 / 4
	}
	return maxQueued
}

func (l *Log) wake() {
	select {
	case l.woken <- struct{}{}:
	default:
	}
}

// Failing returns why the last line could not be written or queued, nil if it could.
func (l *Log) Failing() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failing == nil && len(l.queue) >= maxQueued*3/4 {
		return errFull
	}
	return l.failing
}

// before calls next once a record was written that says that an operation begins, or with why
// it was not, at most patience later. It waits for nothing.
func (l *Log) before(r Record, next func(error)) {
	r.Outcome = OutcomeBegun
	var once sync.Once
	late := time.AfterFunc(patience, func() { once.Do(func() { next(errSlow) }) })
	l.put(r, func(err error) {
		late.Stop()
		once.Do(func() { next(err) })
	})
}

// awaitBegin is before for a caller that waits, at most until ctx ends.
func (l *Log) awaitBegin(ctx context.Context, r Record) error {
	written := make(chan error, 1)
	l.before(r, func(err error) { written <- err })
	select {
	case err := <-written:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close writes what is queued and ends the goroutine, or returns when ctx ends and leaves a
// writer behind that hangs. Nothing is recorded from then on.
func (l *Log) Close(ctx context.Context) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.wake()
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("write the rest of the audit: %w", context.Cause(ctx))
	}
}

// run is the goroutine that writes.
func (l *Log) run() {
	defer close(l.done)
	for range l.woken {
		for {
			batch, closed := l.take()
			if len(batch) == 0 {
				if closed {
					return
				}
				break
			}
			l.write(batch)
			if clear(batch); cap(batch) <= maxSpare {
				l.spare = batch[:0]
			}
		}
	}
}

// take returns all that is queued.
func (l *Log) take() (batch []queued, closed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	batch, l.queue, l.spare = l.queue, l.spare, nil
	l.lost += l.dropped
	l.dropped = 0
	return batch, l.closed
}

// write writes a batch in pieces of whole lines.
func (l *Log) write(batch []queued) {
	node, cluster := l.o.Node()
	for len(batch) > 0 {
		var lines []byte
		said := l.lost
		if l.torn {
			lines = append(lines, '\n') // the rest of a line ends here
		}
		if said > 0 {
			r := Record{Event: EventLost, Notes: []Note{{"records", strconv.Itoa(said)}}}
			lines = append(lines, r.encode(l.o.Now(), node, cluster)...)
		}
		n := 0
		for n < len(batch) {
			one := batch[n].record.encode(batch[n].at, node, cluster)
			if n > 0 && len(lines)+len(one) > maxWrite {
				break
			}
			lines = append(lines, one...)
			n++
		}
		err := l.writeLines(lines)
		if err == nil {
			l.lost -= said
			l.o.Written(n)
		} else {
			l.lost += n
			l.o.Lost(n)
		}
		for _, one := range batch[:n] {
			if one.written != nil {
				one.written(err)
			}
		}
		batch = batch[n:]
	}
}

// writeLines makes one Write. After an error none of its lines counts as written, though
// some may be there.
func (l *Log) writeLines(lines []byte) error {
	n, err := l.o.To.Write(lines)
	if err == nil && n < len(lines) {
		err = io.ErrShortWrite
	}
	if n > 0 && n <= len(lines) {
		l.torn = lines[n-1] != '\n'
	}
	l.mu.Lock()
	recovered := err == nil && l.failing != nil
	l.failing = err
	l.mu.Unlock()
	switch now := l.o.Now(); {
	case recovered:
		l.o.Logger.Info("the audit is written again", "lost", l.lost)
		l.said = ""
	case err != nil && (err.Error() != l.said || now.Sub(l.saidAt) >= repeatAfter):
		l.said, l.saidAt = err.Error(), now
		consequence := "operations go on without a record"
		if l.o.Refuse {
			consequence = "operations that need force or admin are refused"
		}
		l.o.Logger.Error("the audit cannot be written", "then", consequence, "err", err)
	}
	return err
}
