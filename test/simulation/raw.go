package simulation

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

// line is a way to the cluster over the protocol itself: one stream, to one node
// until it breaks, and then to another one.
type line struct {
	w    *worker
	only string // the node that it keeps to; empty: any

	turn   chan struct{} // guards what follows; no mutex, as its holder waits for streams
	rand   *rand.Rand
	conn   *mux.Conn
	hangUp func() // ends conn
}

func (w *worker) line(only string) *line {
	return &line{w: w, only: only, turn: make(chan struct{}, 1), rand: rand.New(rand.NewPCG(w.rand.Uint64(), 1))}
}

// to returns a stream that works, or nil.
func (l *line) to(ctx context.Context) *mux.Conn {
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	if l.conn != nil && l.conn.Err() == nil {
		return l.conn
	}
	l.end()
	node := l.only
	if nodes := l.w.r.c.Nodes(); node == "" {
		node = nodes[l.rand.IntN(len(nodes))]
	}
	cc, err := l.w.r.c.Conn(l.w.w.Name, node)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := mux.Open(ctx, cc, mux.Config{})
	if err != nil {
		_ = cc.Close() // nothing is under way on it
		return nil
	}
	l.conn = conn
	l.hangUp = func() {
		conn.Close()
		<-conn.Done()
		_ = cc.Close() // likewise
	}
	return conn
}

// end ends the stream. The caller has the turn.
func (l *line) end() {
	if l.hangUp != nil {
		l.hangUp()
	}
	l.conn, l.hangUp = nil, nil
}

func (l *line) close() {
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	l.end()
}

// do sends an operation until it is answered for good, or returns nil when ctx ends.
func (l *line) do(ctx context.Context, op *apiv1.Operation) *apiv1.Answer {
	for ctx.Err() == nil {
		if conn := l.to(ctx); conn != nil {
			a, err := mux.Do(ctx, conn.Start, &apiv1.Operation{Request: op.GetRequest()})
			if err == nil && !passing(a) {
				return a
			}
		}
		sleep(ctx, 50*time.Millisecond)
	}
	return nil
}

// passing reports whether an operation has to be sent again.
func passing(a *apiv1.Answer) bool { return apiv1.Code(a.GetError().GetCode()).Passes() }

// raw is a session over the protocol itself.
type raw struct {
	*line
	id  [16]byte
	ttl time.Duration

	stop context.CancelFunc
	kept sync.WaitGroup // the goroutine that keeps it alive

	mu    sync.Mutex // guards what follows
	last  uint64     // sequence
	acked uint64     // all up to it are answered
	open  map[uint64]bool
}

// openRaw opens a session, or returns nil.
func (w *worker) openRaw(ctx context.Context, l *line) *raw {
	s := &raw{line: l, ttl: w.w.TTL, open: map[uint64]bool{}, id: [16]byte(w.onceID())}
	a := l.do(ctx, &apiv1.Operation{Request: &apiv1.Operation_OpenSession{OpenSession: &apiv1.OpenSessionRequest{
		Session: s.id[:], TtlNs: int64(s.ttl), Holder: w.w.Name,
	}}})
	if a.GetOpenSession() == nil {
		return nil
	}
	alive, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.kept.Go(func() {
		for alive.Err() == nil {
			sleep(alive, s.ttl/3)
			call, cancel := context.WithTimeout(alive, s.ttl/3)
			s.do(call, &apiv1.Operation{Request: &apiv1.Operation_KeepAlive{KeepAlive: &apiv1.KeepAliveRequest{Session: s.id[:]}}})
			cancel()
		}
	})
	return s
}

// sign returns the ID of the next request.
func (s *raw) sign() *apiv1.RequestID {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	s.open[s.last] = true
	for !s.open[s.acked+1] {
		s.acked++
	}
	return &apiv1.RequestID{Session: s.id[:], Sequence: s.last, Acknowledged: s.acked}
}

// answered says that a request needs to be remembered no longer.
func (s *raw) answered(id *apiv1.RequestID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, id.GetSequence())
}

// finish ends the session; false: the cluster could not be told.
func (s *raw) finish(ctx context.Context) bool {
	s.stop()
	s.kept.Wait()
	return s.do(ctx, &apiv1.Operation{Request: &apiv1.Operation_EndSession{EndSession: &apiv1.EndSessionRequest{Session: s.id[:]}}}) != nil
}

func (s *raw) release(ctx context.Context, token uint64) *apiv1.Answer {
	id := s.sign()
	defer s.answered(id)
	return s.do(ctx, &apiv1.Operation{Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{Id: id, Token: token}}})
}

func (w *worker) onceID() []byte {
	id := binary.LittleEndian.AppendUint64(nil, w.rand.Uint64())
	return binary.LittleEndian.AppendUint64(id, w.rand.Uint64())
}
