package server

import (
	"runtime"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

const (
	maxMessageBytes = 1 << 20 // of answers; one that is longer goes alone
	maxNotices      = 8192    // queued on one stream; more are dropped
	// Below this many the sender lets others run first: they may add theirs.
	fewQueued = 64
	// A longer queue is not kept for the next answers.
	maxSpare = 4096
)

// parcel is what the sender has taken from the stream.
type parcel struct {
	answers []outgoing
	notices []*apiv1.Notice
	gone    [][16]byte
}

// send is the handler's loop: it sends what is queued until the stream is over.
func (st *stream) send() error {
	var p parcel
	for {
		select {
		case <-st.wake:
		case <-st.ctx.Done():
			return st.ctx.Err()
		}
		for {
			over, err := st.take(&p)
			if len(p.answers)+len(p.notices)+len(p.gone) == 0 {
				if over {
					return err
				}
				break
			}
			st.forget(p.gone)
			if err := st.write(p); err != nil {
				return err
			}
			if clear(p.answers); cap(p.answers) > maxSpare {
				p.answers = nil
			}
		}
	}
}

// take swaps the queues for those of p, which have been dealt with.
func (st *stream) take(p *parcel) (over bool, err error) {
	st.mu.Lock()
	if n := len(st.out); n > 0 && n < fewQueued {
		st.mu.Unlock()
		runtime.Gosched()
		st.mu.Lock()
	}
	defer st.mu.Unlock()
	p.answers, st.out = st.out, p.answers[:0]
	p.notices, st.notices = st.notices, nil
	p.gone, st.gone = st.gone, nil
	if st.cut {
		p.answers, p.notices = nil, nil
	}
	return st.overLocked()
}

// write sends a parcel as one or more messages. grpc may look at a message
// after Send: nothing of it is used again.
func (st *stream) write(p parcel) error {
	for notices := p.notices; len(p.answers) > 0 || len(notices) > 0; notices = nil {
		n, bytes := 0, 0
		for n < len(p.answers) && n < mux.MaxOperations {
			size := p.answers[n].size
			if n > 0 && bytes+size > maxMessageBytes {
				break
			}
			bytes += size
			n++
		}
		resp := &apiv1.SessionResponse{Notices: notices, Answers: make([]*apiv1.Answer, n)}
		for i := range n {
			resp.Answers[i] = p.answers[i].answer
		}
		p.answers = p.answers[n:]
		if err := st.grpc.Send(resp); err != nil {
			return err
		}
		st.mu.Lock()
		st.unsent -= n
		st.bytes -= bytes
		st.mu.Unlock()
	}
	return nil
}

// watch has the stream get the notices of a session that it names.
func (st *stream) watch(session []byte) {
	if len(session) != 16 || st.quiet {
		return
	}
	id := [16]byte(session)
	st.mu.Lock()
	_, known := st.watches[id]
	if known || st.over || len(st.watches) >= st.server.cfg.Limits.WatchesPerStream {
		st.mu.Unlock()
		return
	}
	st.watches[id] = nil
	st.mu.Unlock()
	stop := st.server.backend.Watch(id, func(n *apiv1.Notice) { st.notify(id, n) })
	st.mu.Lock()
	if _, known := st.watches[id]; known && !st.over {
		st.watches[id], stop = stop, nil
	}
	st.mu.Unlock()
	if stop != nil { // the stream, or the session, ended meanwhile
		stop()
	}
}

// notify is called by the backend.
func (st *stream) notify(id [16]byte, n *apiv1.Notice) {
	st.mu.Lock()
	if !st.over && len(st.notices) < maxNotices {
		st.notices = append(st.notices, n)
	}
	if n.GetRevocation() == nil {
		st.gone = append(st.gone, id)
	}
	st.mu.Unlock()
	st.wakeSender()
}

// forget ends the watches of sessions that have ended.
func (st *stream) forget(gone [][16]byte) {
	for _, id := range gone {
		st.mu.Lock()
		stop := st.watches[id]
		delete(st.watches, id)
		st.mu.Unlock()
		if stop != nil {
			stop()
		}
	}
}
