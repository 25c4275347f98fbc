package server

import (
	"runtime"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

const (
	// maxMessageBytes bounds a message of answers, because answers that go ahead wait for
	// the message that is being sent. A longer answer is sent alone.
	maxMessageBytes = 128 << 10
	maxNotices      = 8192 // queued on one stream; more are dropped
	// fewQueued answers make the sender let others run first, which may add theirs.
	fewQueued = 64
	// maxSpare is the longest queue whose memory is kept for the next answers.
	maxSpare = 4096
)

// parcel is what the sender has taken from the stream and not sent yet.
type parcel struct {
	ahead     []outgoing
	answers   []outgoing
	notices   []*apiv1.Notice
	gone      [][16]byte
	directory *apiv1.Directory

	allAhead, allAnswers []outgoing // the same from their beginning, to use their memory again
}

func (p *parcel) empty() bool {
	return len(p.ahead)+len(p.answers)+len(p.notices)+len(p.gone) == 0 && p.directory == nil
}

// send is the handler's loop: it sends what is queued until the stream is over.
// Before each message it looks for answers that go ahead: an answer that says that the
// node or a session is alive waits only for the message that is being sent.
func (st *stream) send() error {
	var p parcel
	for {
		select {
		case <-st.woken:
		case <-st.ctx.Done():
			return st.ctx.Err()
		}
		for {
			over, err := st.take(&p)
			if p.empty() {
				if over {
					return err
				}
				break
			}
			st.forget(p.gone)
			p.gone = nil
			if err := st.write(&p); err != nil {
				return err
			}
		}
	}
}

// take refills p with what is queued, and returns what overLocked does.
func (st *stream) take(p *parcel) (over bool, err error) {
	st.mu.Lock()
	if n := len(st.out); n > 0 && n < fewQueued && len(p.answers) == 0 {
		st.mu.Unlock()
		runtime.Gosched()
		st.mu.Lock()
	}
	defer st.mu.Unlock()
	refill(&p.ahead, &p.allAhead, &st.ahead)
	refill(&p.answers, &p.allAnswers, &st.out)
	if len(p.notices) == 0 {
		p.notices, st.notices = st.notices, nil
	}
	p.gone, st.gone = st.gone, nil
	if p.directory == nil {
		p.directory = st.unsentLocked()
	}
	if st.cut {
		p.ahead, p.answers, p.notices, p.directory = nil, nil, nil, nil
	}
	return st.overLocked()
}

// refill swaps the queue for the part that was sent, once nothing is left of that.
func refill(rest, all, queue *[]outgoing) {
	if len(*rest) > 0 {
		return
	}
	if clear(*all); cap(*all) > maxSpare {
		*all = nil
	}
	*all, *queue = *queue, (*all)[:0]
	*rest = *all
}

// write sends one message of what is in the parcel. grpc may read a message after Send,
// so nothing of it is used again.
func (st *stream) write(p *parcel) error {
	resp := &apiv1.SessionResponse{
		Notices: p.notices, Directory: p.directory,
		Answers: make([]*apiv1.Answer, 0, min(len(p.ahead)+len(p.answers), mux.MaxOperations)),
	}
	p.notices, p.directory = nil, nil
	bytes := 0
	pack := func(from []outgoing) (packed, rest []outgoing) {
		n := 0
		for n < len(from) && len(resp.GetAnswers()) < mux.MaxOperations {
			size := from[n].size
			if len(resp.GetAnswers()) > 0 && bytes+size > maxMessageBytes {
				break
			}
			bytes += size
			resp.Answers = append(resp.Answers, from[n].answer)
			n++
		}
		return from[:n], from[n:]
	}
	var ahead, answers []outgoing
	if ahead, p.ahead = pack(p.ahead); len(p.ahead) == 0 {
		answers, p.answers = pack(p.answers)
	}
	if len(resp.GetAnswers())+len(resp.GetNotices()) == 0 && resp.GetDirectory() == nil {
		return nil
	}
	if err := st.grpc.Send(resp); err != nil {
		return err
	}
	st.mu.Lock()
	for _, part := range [...][]outgoing{ahead, answers} {
		for _, o := range part {
			st.countLocked(o, -1)
		}
	}
	st.mu.Unlock()
	return nil
}

// watch subscribes the stream to the notices of a session.
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

// notify queues a notice of a session. The backend calls it.
func (st *stream) notify(id [16]byte, n *apiv1.Notice) {
	st.mu.Lock()
	if !st.over && len(st.notices) < maxNotices {
		st.notices = append(st.notices, n)
	}
	if n.GetRevocation() == nil {
		st.gone = append(st.gone, id)
	}
	st.mu.Unlock()
	st.wake()
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
