package apiv1

import (
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
)

// fixedBytes is more than the numbers and tags of any operation take.
const fixedBytes = 128

// Measure estimates the encoded size of x and finds what would make encoding fail: badField
// is the name of a field that is not UTF-8, empty if there is none. Such a string cannot be
// sent at all.
//
// Fields that this version does not know count as well, because they are sent on with the
// request. They are measured here, and not by the reflection of each message, which takes as
// long as everything else that a node does to pass on an operation.
func (x *Operation) Measure() (size int, badField string) {
	var m measure
	if f := kinds[x.Kind()].measure; f != nil {
		m = f(x)
	}
	m.text("owner", x.GetOwner())
	return fixedBytes + m.size, m.badField
}

// measure is what was measured so far. It is passed by value, because by a pointer it would be
// on the heap.
type measure struct {
	size     int
	badField string
}

func (m *measure) bytes(b []byte) { m.size += len(b) }

func (m *measure) text(field, s string) {
	m.size += len(s)
	if !utf8.ValidString(s) {
		m.badField = field
	}
}

func (m *measure) id(id *RequestID) {
	if id == nil {
		return
	}
	m.size += len(id.Session) + len(id.Once) + 24*len(id.Answered) + len(id.unknownFields)
	for _, s := range id.Answered {
		if s != nil {
			m.size += len(s.unknownFields)
		}
	}
}

func (m *measure) labels(labels []*Label) {
	for _, l := range labels {
		m.size += 12
		m.text("labels", l.GetKey())
		m.text("labels", l.GetValue())
		if l != nil {
			m.size += len(l.unknownFields)
		}
	}
}

func (x *OpenSessionRequest) measure() (m measure) {
	if x == nil {
		return m
	}
	m.bytes(x.unknownFields)
	m.bytes(x.Session)
	m.text("holder", x.Holder)
	m.labels(x.Labels)
	return m
}

func (x *KeepAliveRequest) measure() (m measure) {
	if x == nil {
		return m
	}
	m.bytes(x.unknownFields)
	m.bytes(x.Session)
	return m
}

func (x *EndSessionRequest) measure() (m measure) {
	if x == nil {
		return m
	}
	m.bytes(x.unknownFields)
	m.bytes(x.Session)
	m.size += 10 * len(x.Undelivered)
	return m
}

func (x *AcquireRequest) measure() (m measure) {
	if x == nil {
		return m
	}
	m.bytes(x.unknownFields)
	m.id(x.Id)
	for _, w := range x.Locks {
		m.size += 32
		m.text("name", w.GetName())
		if w != nil {
			m.bytes(w.unknownFields)
		}
	}
	m.text("holder", x.Holder)
	m.bytes(x.Value)
	m.labels(x.Labels)
	return m
}

func (x *CancelRequest) measure() (m measure) {
	if x == nil {
		return m
	}
	m.bytes(x.unknownFields)
	m.id(x.Id)
	m.id(x.Target)
	return m
}

func (x *ReleaseRequest) measure() (m measure) {
	if x == nil {
		return m
	}
	m.bytes(x.unknownFields)
	m.id(x.Id)
	m.text("name", x.Name)
	return m
}

func (x *RenewRequest) measure() (m measure) {
	if x == nil {
		return m
	}
	m.bytes(x.unknownFields)
	m.id(x.Id)
	m.text("name", x.Name)
	return m
}

func (x *SetValueRequest) measure() (m measure) {
	if x == nil {
		return m
	}
	m.bytes(x.unknownFields)
	m.id(x.Id)
	m.text("name", x.Name)
	m.bytes(x.Value)
	return m
}

func (x *ForceReleaseRequest) measure() (m measure) {
	if x == nil {
		return m
	}
	m.bytes(x.unknownFields)
	m.id(x.Id)
	m.text("name", x.Name)
	m.text("reason", x.Reason)
	m.text("who", x.Who)
	return m
}

func (x *ResizeRequest) measure() (m measure) {
	if x == nil {
		return m
	}
	m.bytes(x.unknownFields)
	m.id(x.Id)
	m.text("name", x.Name)
	return m
}

func (x *GetRequest) measure() (m measure) {
	if x == nil {
		return m
	}
	m.bytes(x.unknownFields)
	m.text("name", x.Name)
	return m
}

func (x *ListRequest) measure() (m measure) {
	if x == nil {
		return m
	}
	m.bytes(x.unknownFields)
	m.text("prefix", x.Prefix)
	m.text("after", x.After)
	return m
}

// firstHolders returns the first holders that fit into most bytes, and at least one.
func firstHolders(holders []*Holder, most int) []*Holder {
	size := 0
	for i, h := range holders {
		if size += proto.Size(h) + 8; size > most && i > 0 {
			return holders[:i]
		}
	}
	return holders
}

func (x *ForceReleaseResponse) shorten(most int) {
	if x != nil {
		x.Released = firstHolders(x.Released, most)
	}
}

func (x *Lock) shorten(most int) {
	if x != nil {
		x.Holders = firstHolders(x.Holders, most)
	}
}

func (x *ListResponse) shorten(most int) {
	size := 0
	for i, l := range x.GetLocks() {
		l.shorten(most)
		size += proto.Size(l) + 8
		if size > most && i > 0 {
			x.Locks, x.Next = x.Locks[:i], x.Locks[i-1].GetName()
			return
		}
	}
}
