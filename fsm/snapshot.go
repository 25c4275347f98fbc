package fsm

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"io"
)

// A snapshot is
//
//	"LOCKNODE" · version 1 · blocks · the end
//
// A block is its length (4 bytes, big endian), a checksum (4 bytes) and its
// content; the end is a block of length 0. The checksum is the CRC-32C of the
// content continued from the checksum of the block before (from that of the
// first nine bytes, for the first), so that blocks cannot be lost, doubled or
// exchanged.
//
// The first record begins with the feature level and the version that knows it, so that a
// version which does not can say so; see level.go. So what came with a level stands only in
// the snapshots of tables that have it, and the form of a table of an older level stays what it was.
//
// The content is a sequence of records, none of which spans blocks: the head,
// then all sessions, each followed by its answers, all requests, all locks that
// have something that does not follow from their requests, all records of once IDs,
// all sessions that have ended, all access tokens and all policies.
// Each kind is in the order of its keys and its number stands in the head. What
// follows from other records is not written, so that it cannot contradict them:
// holders, queues, a session's grants and waits, counters, deadlines. The same
// state is always written as the same bytes.
const (
	snapshotMagic   = "LOCKNODE"
	snapshotVersion = 1
	blockSize       = 64 << 10
	maxBlock        = 64 << 20 // far more than a block with the largest record
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Snapshot is an unchanging image of a table. It may be written from any
// goroutine while the table goes on.
type Snapshot struct{ state }

// Snapshot takes an image of the table in constant time. What it shares with
// the table is copied when the table next changes it.
func (t *Table) Snapshot() *Snapshot {
	s := &Snapshot{t.state}
	t.nextGeneration()
	return s
}

// Hash returns the SHA-256 of the snapshot of the table: equal for equal
// states. It takes as long as writing a snapshot; for tests and tools.
func (t *Table) Hash() [32]byte {
	h := sha256.New()
	_, _ = (&Snapshot{t.state}).WriteTo(h) // a hash never fails
	return [32]byte(h.Sum(nil))
}

// WriteTo writes the snapshot and returns the number of bytes written, with the
// first error of w.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) {
	b := blockWriter{w: w}
	b.start()
	s.writeHead(&b)
	for id, v := range s.sessions.all() {
		b.record()
		b.session(id, v)
		for i := range v.window {
			b.record()
			b.answer(&v.window[i])
		}
	}
	for _, r := range s.requests.all() {
		b.record()
		b.request(r)
	}
	for name, l := range s.locks.all() {
		if l.hasFacts() {
			b.record()
			b.lock(name, l)
		}
	}
	for id, m := range s.records.all() {
		b.record()
		b.once(id, m)
	}
	for id, e := range s.ended.all() {
		b.record()
		b.id(id)
		b.instant(e.key.at)
		b.uint(e.key.number)
		b.string(e.owner.name)
	}
	for _, a := range s.accessTokens.all() {
		b.record()
		b.accessToken(a)
	}
	for _, p := range s.policies.all() {
		b.record()
		b.policy(p)
	}
	return b.end()
}

func (s *Snapshot) writeHead(b *blockWriter) {
	b.uint(uint64(s.level)) // first in every version, so that older ones can read it
	b.string(s.version)
	facts := 0
	for _, l := range s.locks.all() {
		if l.hasFacts() {
			facts++
		}
	}
	b.instant(s.now)
	b.uint(s.index)
	b.uint(s.digest)
	b.uint(s.lastToken)
	b.uint(s.lastNumber)
	b.id(s.cluster)
	b.id(s.key)
	b.limits(s.limits, limitsOf(s.level))
	b.uint(uint64(s.sessions.len))
	b.uint(uint64(s.requests.len))
	b.uint(uint64(facts))
	b.uint(uint64(s.records.len))
	b.uint(uint64(s.ended.len))
	if s.level >= levelOfRights {
		b.uint(s.rightsIndex)
		b.uint(uint64(s.accessTokens.len))
		b.uint(uint64(s.policies.len))
	}
}

// hasFacts says that not all of the lock follows from its requests.
func (l *lock) hasFacts() bool { return l.limit != 0 || l.delayUntil != 0 }

// blockHead is the length and the checksum.
const blockHead = 8

// blockWriter collects records and writes them in blocks. The encoder's buffer
// begins with room for the head.
type blockWriter struct {
	encoder
	w       io.Writer
	sum     uint32
	written int64
	err     error
}

func (b *blockWriter) start() {
	start := append([]byte(snapshotMagic), snapshotVersion)
	b.write(start)
	b.sum = crc32.Checksum(start, castagnoli)
	b.buf = make([]byte, blockHead, blockHead+blockSize+blockSize/8)
}

// record begins a record; the ones before it may be written.
func (b *blockWriter) record() {
	if len(b.buf) >= blockHead+blockSize {
		b.flush()
	}
}

func (b *blockWriter) flush() {
	content := b.buf[blockHead:]
	b.sum = crc32.Update(b.sum, castagnoli, content)
	binary.BigEndian.PutUint32(b.buf, uint32(len(content)))
	binary.BigEndian.PutUint32(b.buf[4:], b.sum)
	b.write(b.buf)
	b.buf = b.buf[:blockHead]
}

func (b *blockWriter) write(p []byte) {
	if b.err == nil {
		var n int
		n, b.err = b.w.Write(p)
		b.written += int64(n)
	}
}

// end writes the last records and the empty block.
func (b *blockWriter) end() (int64, error) {
	b.flush()
	b.flush()
	return b.written, b.err
}

func (b *blockWriter) session(id SessionID, s *session) {
	b.id(id)
	b.uint(s.number)
	b.int(s.ttl)
	b.instant(s.deadline)
	b.string(s.owner.name)
	b.string(s.holder)
	b.labels(s.labels)
	b.uint(s.acked.upTo)
	b.uint(uint64(len(s.acked.above)))
	for _, span := range s.acked.above {
		b.uint(span.First)
		b.uint(span.Last)
	}
	b.uint(s.revoked)
	b.uint(uint64(len(s.revocations)))
	for i := range s.revocations {
		r := &s.revocations[i]
		b.uint(r.Number)
		b.uint(r.Token)
		b.string(r.Reason)
		b.string(r.Who)
	}
	b.uint(uint64(len(s.window)))
}

// Parts of an answer that most do not have.
const (
	answerRefused = 1
	answerHolders = 2
)

func (b *blockWriter) answer(a *answer) {
	b.uint(a.sequence)
	b.byte(byte(a.kind))
	b.byte(byte(a.code))
	b.uint(a.asked)
	b.uint(a.token)
	b.instant(a.deadline)
	b.instant(a.queued)
	b.instant(a.granted)
	var parts byte
	if a.more != nil && a.more.refusal.why != noReason {
		parts |= answerRefused
	}
	if a.more != nil && len(a.more.holders) > 0 {
		parts |= answerHolders
	}
	b.byte(parts)
	if parts&answerRefused != 0 {
		b.byte(byte(a.more.refusal.why))
		b.int(a.more.refusal.arg)
		b.int(a.more.refusal.own)
		b.int(a.more.refusal.free)
	}
	if parts&answerHolders != 0 {
		b.uint(uint64(len(a.more.holders)))
		for i := range a.more.holders {
			b.holder(&a.more.holders[i])
		}
	}
}

func (b *blockWriter) holder(h *Holder) {
	b.string(h.Lock)
	b.uint(h.Token)
	b.string(h.Holder)
	b.id(h.Session)
	b.byte(byte(h.Mode))
	b.uint(uint64(h.Permits))
	b.instant(h.Deadline)
	b.int(h.Since)
	b.bytes(h.Value)
	b.labels(h.Labels)
}

// Parts of a request that most do not have.
const (
	requestInSession = 1
	requestHeld      = 2
	requestExtra     = 4
)

func (b *blockWriter) request(r *request) {
	b.uint(r.number)
	var parts byte
	if r.session != (SessionID{}) {
		parts |= requestInSession
	}
	if r.token != 0 {
		parts |= requestHeld
	}
	if r.extra != nil {
		parts |= requestExtra
	}
	b.byte(parts)
	if parts&requestInSession != 0 {
		b.id(r.session)
		b.uint(r.sequence)
	} else {
		b.string(r.owner.name)
	}
	b.wants(r.wants)
	b.int(r.ttl)
	b.instant(r.deadline)
	b.instant(r.queued)
	if parts&requestHeld != 0 {
		b.uint(r.token)
		b.instant(r.granted)
		b.int(r.since)
	}
	e := r.extra
	if e == nil {
		return
	}
	b.bytes(e.value)
	b.labels(e.labels)
	b.int(e.delay)
	if r.session != (SessionID{}) {
		return
	}
	b.string(e.holder)
	b.id(e.once)
	b.bool(e.unconfirmed)
	b.bool(e.shared)
	b.uint(uint64(len(e.tries)))
	for _, y := range e.tries {
		b.id(y.session)
		b.uint(y.sequence)
	}
}

func (b *blockWriter) lock(name string, l *lock) {
	b.string(name)
	b.uint(uint64(l.limit))
	b.instant(l.delayUntil)
	b.uint(l.delayNumber)
	if l.delayOwner != nil {
		b.string(l.delayOwner.name)
	}
}

func (b *blockWriter) once(id OnceID, m *record) {
	b.id(id)
	b.string(m.owner.name)
	b.uint(m.number)
	b.uint(m.token)
	b.instant(m.forget)
	b.uint(m.asked.locks)
	b.uint(m.asked.value)
	b.int(m.asked.ttl)
	b.int(m.asked.delay)
}

func (b *blockWriter) accessToken(a *accessToken) {
	b.string(a.Accessor)
	b.hash(&a.Hash)
	b.string(a.Name)
	b.labels(a.Labels)
	b.string(a.MadeBy)
	b.int(a.MadeAt)
	b.instant(a.Deadline)
	b.uint(a.number)
}
