package fsm

import (
	"encoding/binary"
	"math/bits"
)

// digester mixes values into 64 bits, eight bytes at a time. Each step is a
// bijection of the sum for a given word, so nothing that was mixed in is lost
// again. It guards against replicas that drift apart, not against forgery.
type digester uint64

// The odd factors were drawn at random. They are part of the format.
const (
	digestWord = 0xd6e8feb86659fd93
	digestStep = 0xa0761d6478bd642f
	digestMix  = 0x8ebc6af09c88c6e3
)

func (h *digester) word(w uint64) {
	*h = digester(bits.RotateLeft64(uint64(*h)^w*digestWord, 29) * digestStep)
}

func (h *digester) int(v int64) { h.word(uint64(v)) }

func (h *digester) id(b [16]byte) {
	h.word(binary.LittleEndian.Uint64(b[:]))
	h.word(binary.LittleEndian.Uint64(b[8:]))
}

func (h *digester) bytes(b []byte) {
	h.word(uint64(len(b)))
	for ; len(b) >= 8; b = b[8:] {
		h.word(binary.LittleEndian.Uint64(b))
	}
	if len(b) > 0 {
		var tail [8]byte
		copy(tail[:], b)
		h.word(binary.LittleEndian.Uint64(tail[:]))
	}
}

func (h *digester) string(s string) {
	h.word(uint64(len(s)))
	for ; len(s) >= 8; s = s[8:] {
		h.word(uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56)
	}
	if len(s) > 0 {
		var tail uint64
		for i := range len(s) {
			tail |= uint64(s[i]) << (8 * i)
		}
		h.word(tail)
	}
}

// chain returns the digest after an entry: of the digest before it, its bytes,
// and what it did. Detail is left out, and the values and labels that results
// repeat from the state.
func chain(before uint64, data []byte, a *Applied) uint64 {
	h := digester(before)
	h.word(a.Index)
	h.word(a.Term)
	h.instant(a.Now)
	h.word(uint64(a.Refused))
	h.bytes(data)
	h.word(uint64(len(a.Results)))
	for i := range a.Results {
		h.result(&a.Results[i])
	}
	h.word(uint64(len(a.Events)))
	for i := range a.Events {
		h.event(&a.Events[i])
	}
	if a.MoreDue {
		h.word(1)
	}
	return h.sum()
}

func (h digester) sum() uint64 {
	h.word(digestMix)
	return uint64(h ^ h>>32)
}

func (h *digester) result(r *Result) {
	h.word(uint64(r.Code) | uint64(len(r.Holders))<<8 | uint64(len(r.Alive))<<32)
	h.string(r.Field)
	h.word(r.Token)
	h.instant(r.Deadline)
	h.instant(r.Queued)
	h.instant(r.Granted)
	if c := r.Cleared; c != nil {
		h.word(uint64(c.Grants) | uint64(c.Waiters)<<32)
		h.word(c.UpTo)
		h.word(c.After)
		if c.More {
			h.word(1)
		}
	}
	for i := range r.Holders {
		h.holder(&r.Holders[i])
	}
	for i := range r.Alive {
		h.instant(r.Alive[i].Deadline)
		for k := range r.Alive[i].Revocations {
			h.word(r.Alive[i].Revocations[k].Number)
			h.word(r.Alive[i].Revocations[k].Token)
		}
	}
}

func (h *digester) holder(o *Holder) {
	h.string(o.Lock)
	h.word(o.Token)
	h.string(o.Holder)
	h.id(o.Session)
	h.word(uint64(o.Mode) | uint64(o.Permits)<<8)
	h.instant(o.Deadline)
	h.int(o.Since)
}

func (h *digester) requestID(id *RequestID) {
	h.id(id.Session)
	h.word(id.Sequence)
	h.id(id.Once)
}

func (h *digester) want(w *Want) {
	h.string(w.Lock)
	h.word(uint64(w.Mode) | uint64(w.Permits)<<8)
	h.word(uint64(w.Limit))
}

func (h *digester) event(e *Event) {
	h.word(uint64(e.Kind) | uint64(e.Code)<<8 | uint64(len(e.Wants))<<16)
	h.id(e.Session)
	h.requestID(&e.Request)
	h.word(uint64(len(e.Others)))
	for i := range e.Others {
		h.requestID(&e.Others[i])
	}
	h.word(e.Token)
	for i := range e.Wants {
		h.want(&e.Wants[i])
	}
	h.string(e.Holder)
	if e.Kind == EventGranted {
		h.result(&e.Result)
	}
	h.int(e.Waited)
	h.int(e.Held)
	h.word(e.Number)
	h.string(e.Reason)
	h.string(e.Who)
}
