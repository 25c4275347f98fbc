package server

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

// slowReader is the server's end of a stream whose client reads a message only when the
// test lets it.
type slowReader struct {
	grpc.ServerStream
	ctx      context.Context
	messages chan *apiv1.SessionResponse
}

func (s *slowReader) Context() context.Context { return s.ctx }

func (s *slowReader) Recv() (*apiv1.SessionRequest, error) { return nil, errors.New("not here") }

func (s *slowReader) Send(m *apiv1.SessionResponse) error {
	select {
	case s.messages <- m:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// newStream returns a stream that receives nothing by itself.
func newStream(t testing.TB, cfg Config) (*stream, *slowReader) {
	t.Helper()
	cfg.Backend = newFakeNode()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	reader := &slowReader{ctx: t.Context(), messages: make(chan *apiv1.SessionResponse)}
	return &stream{caller: &caller{}, known: true,
		server: s, grpc: reader, ctx: t.Context(), sever: func() {},
		woken: make(chan struct{}, 1), watches: map[[16]byte]func(){},
	}, reader
}

func TestSignsOfLifeAreSentAheadOfOtherAnswers(t *testing.T) {
	st, reader := newStream(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	st.ctx, reader.ctx = ctx, ctx
	const plain = 10 * mux.MaxOperations
	for range plain {
		st.answer(&apiv1.Answer{Id: 1})
	}
	served := make(chan error, 1)
	go func() { served <- st.send() }()
	receiveWithin(t, "the first message", reader.messages)
	st.accept(&apiv1.Operation{Id: 2}, time.Now())
	st.accept(keepAliveOp(3, [16]byte{1}), time.Now())
	var before []int // how many others were sent before each
	for others, i := mux.MaxOperations, 0; i < 3 && len(before) < 2; i++ {
		for _, a := range receiveWithin(t, "a message", reader.messages).GetAnswers() {
			if a.GetId() == 1 {
				others++
			} else {
				before = append(before, others)
			}
		}
	}
	// The second message may have been packed before they came.
	if len(before) != 2 || before[1] > 2*mux.MaxOperations {
		t.Errorf("the ping and the keep-alive were answered after %v other answers, want at most %d", before, 2*mux.MaxOperations)
	}
	cancel()
	_ = receiveWithin(t, "the end", served)
	st.end()
}

func TestPingsOfANodeThatCannotServeSayWhy(t *testing.T) {
	reason := errors.New("disk is stalled")
	r := serve(t, Config{Unfit: func() error { return reason }})
	stream := openStream(t, r)
	sendOps(t, stream, &apiv1.Operation{Id: 1})
	if a := receiveAnswers(t, stream, 1)[0]; apiv1.Code(a.GetError().GetCode()) != apiv1.CodeUnavailable || a.GetError().GetMessage() != reason.Error() {
		t.Errorf("answer to a ping: %v, want unavailable and why", a)
	}
}
